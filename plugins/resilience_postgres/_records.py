"""From keys and payloads to parameters, and from rows to payloads and versions."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from resilience import Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from psycopg.pq.abc import PGresult

    from resilience import Key


class Row(NamedTuple):
    """A row as it stands in the table."""

    record: bytes
    version: Version
    checksum: int


_INT8: Final = Struct("!q")
_FLOAT8: Final = Struct("!d")

TRUE: Final = b"\1"
FALSE: Final = b"\0"


@lru_cache(1024)  # a process asks for few keys, over and over
def identity(key: Key) -> bytes:
    """Return what a key's row is found by.

    A name may be longer than the longest entry of an index.  Neither kind nor name has a line feed in it.
    """
    return sha256("\n".join(key).encode()).digest()


def integer(number: int) -> bytes:
    """Return a parameter."""
    return _INT8.pack(number)


def seconds(time: float | None) -> bytes | None:
    """Return a parameter."""
    return None if time is None else _FLOAT8.pack(time)


def checksum(identity: bytes, record: bytes, version: Version) -> int:
    """Sum up a row: a part of another row, or of another version of it, gives another sum."""
    return crc32(record, crc32(f"{version.number} {version.incarnation}".encode(), crc32(identity)))


def time_in(result: PGresult, column: int) -> float:
    """Return the server's time in a result: wall-clock seconds."""
    time: float = _FLOAT8.unpack(result.get_value(0, column) or b"")[0]
    return time


def row_in(result: PGresult, column: int) -> Row | None:
    """Return the record that begins at a column of a result; `None` if there is none."""
    record, incarnation, number, checksum = (result.get_value(0, column + offset) for offset in range(4))
    if record is None or incarnation is None or number is None or checksum is None:
        return None
    version = Version(incarnation.decode(), _INT8.unpack(number)[0])
    return Row(record, version, _INT8.unpack(checksum)[0])
