"""How a record looks on the server: a hash with four fields, under a key that its name can be read from.

    resilience:{circuit_breaker:payments}    incarnation 6fd0…  number 17  sum 2144…  payload {"state":"open",…}

What stands in braces decides the slot of a cluster, so a record and its copy set aside are on one server.
"""

from __future__ import annotations

import re
from binascii import crc32
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from resilience import Key, StorageCorrupt, Version

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPES = (("%", "%25"), (":", "%3A"), ("{", "%7B"), ("}", "%7D"))
"""For the kind, which ends at the first colon.  The name ends at the end of the key: it stays as it is."""


_MOST = 1024
"""Names that are kept."""


class Names:
    """The names of all that belongs to one prefix."""

    def __init__(self, prefix: str) -> None:
        self.channel = f"{prefix}changed".encode()
        self._before = f"{prefix}{{".encode()
        self._aside = f"{prefix}damaged:{{".encode()
        self.of = lru_cache(_MOST)(self._of)
        """Return the name of a record, which each commit needs twice."""
        self.pattern = re.sub(rb"[\\*?\[\]]", rb"\\\g<0>", self._before) + b"*"
        """What `SCAN` finds the records by."""

    def _of(self, key: Key) -> bytes:
        return self._before + _inner(key)

    def aside(self, key: Key) -> bytes:
        """Return the name of the copy of a damaged record; there is one at most."""
        return self._aside + _inner(key)

    def key_of(self, name: bytes) -> Key | None:
        """Return whose record has a name; `None`: nobody's, it was made by something else."""
        kind, colon, rest = name[len(self._before) : -1].decode("utf-8", "replace").partition(":")
        for plain, escaped in reversed(_ESCAPES):
            kind = kind.replace(escaped, plain)
        try:
            key = Key(kind, rest) if colon else None
        except ValueError:
            return None
        return key if key is not None and self.of(key) == name else None


def _inner(key: Key) -> bytes:
    kind, name = key
    for plain, escaped in _ESCAPES:
        kind = kind.replace(plain, escaped)
    return f"{kind}:{name}}}".encode()


class Stored(NamedTuple):
    """What the server found: the type of it, and the fields of a record; `None` for one that is not there."""

    kind: bytes
    incarnation: bytes | None
    number: bytes | None
    sum: bytes | None
    payload: bytes | None

    @property
    def version(self) -> Version:
        """Its version, if it is sound."""
        return Version((self.incarnation or b"").decode("ascii"), int(self.number or b""))

    def checked(self, key: Key) -> tuple[bytes, Version]:
        """Return payload and version.

        :raises StorageCorrupt: it is something else, or a field is missing or not what was written.
        """
        if self.kind != b"hash":
            raise StorageCorrupt(f"{key}: under its name there is no record, but a {self.kind.decode()}", key=key)
        try:
            version = self.version
        except ValueError:
            version = Version("", 0)
        payload = self.payload
        if payload is None or self.sum != checksum(key, payload, version):
            raise StorageCorrupt(f"the record of {key} does not match its checksum", key=key)
        return payload, version


def checksum(key: Key, payload: bytes, version: Version) -> bytes:
    """Return what `sum` must be: it covers whose record it is, and which version."""
    return b"%d" % crc32(payload, crc32("\0".join((*key, version.incarnation, str(version.number))).encode()))


def stored(reply: Sequence[bytes | None]) -> Stored | None:
    """Read what a script tells of a record; `None` if there is none."""
    kind, *fields = reply
    return None if kind is None or kind == b"none" else Stored(kind, *fields)
