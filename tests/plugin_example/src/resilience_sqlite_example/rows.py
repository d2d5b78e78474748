"""What a row is: where it lies, how it is checked, what snapshot it makes."""

from __future__ import annotations

from zlib import crc32

from resilience import ConfigurationError, Key, Snapshot, StorageCorrupt, Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from typing import Any

    Row = tuple[Any, ...]

COLUMNS = "payload, incarnation, number, checksum"
WHERE = "WHERE kind = ? AND name = ?"


def path_of(url: str) -> str:
    """Read the absolute path of the database that a URL names.

    :raises ConfigurationError: it names none.
    """
    path = url.removeprefix("sqlite://")
    if "%" in path:
        from urllib.parse import unquote

        path = unquote(path)
    if not path.startswith("/") or path.endswith("/"):
        raise ConfigurationError(
            f"RESILIENCE_STORAGE: {url!r} names no file by its absolute path; write sqlite:///var/lib/app/breakers.db"
        )
    return path


def row_of(connection: sqlite3.Connection, key: Key) -> Row | None:
    """Read a row."""
    # All rows are fetched: a statement that is not at its end keeps its transaction, and an old view, open.
    rows = connection.execute(f"SELECT {COLUMNS} FROM records {WHERE}", key).fetchall()
    return rows[0] if rows else None


def snapshot_of(key: Key, row: Row | None) -> Snapshot:
    """Make the snapshot of a row.

    :raises StorageCorrupt: it is damaged.
    """
    if row is None:
        return Snapshot(None, None)
    payload, incarnation, number, checksum = row
    if not isinstance(payload, bytes) or checksum != checksum_of(key, payload, Version(incarnation, number)):
        raise StorageCorrupt(f"{key}: its row does not match its checksum", key=key)
    return Snapshot(payload, Version(incarnation, number))


def checksum_of(key: Key, payload: bytes, version: Version) -> int:
    """What a whole row has as its checksum."""
    return crc32(payload, crc32(repr((*key, *version)).encode()))
