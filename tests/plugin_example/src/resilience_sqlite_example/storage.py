"""The storage: one row per record, and one statement that compares its version and writes."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resilience import (
    Capability,
    Key,
    Snapshot,
    StorageConflict,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    clock,
    hookimpl,
)
from resilience_sqlite_example.connections import Connections
from resilience_sqlite_example.rows import COLUMNS, WHERE, checksum_of, path_of, row_of, snapshot_of
from resilience_sqlite_example.settings import SQLiteSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager
    from typing import TypeVar

    Row = tuple[Any, ...]
    Answer = TypeVar("Answer")

_SHORTEST_WAIT, _LONGEST_WAIT = 20e-6, 2e-3
_ADMINISTRATION = 5.0
"""Seconds for the one hook that has no time-out of its own."""

_SAME = f"{WHERE} AND incarnation = ? AND number = ?"


class SQLiteStorage:
    """Keeps all records in one database file.

    :param url: ``sqlite:///`` and the rest of an absolute path.
    :param settings: those of the variables; the defaults if left out.
    """

    Settings = SQLiteSettings
    reader = "resilience_sqlite_example.reading:SQLiteReader"  # what `resilience check` asks

    def __init__(self, url: str, settings: SQLiteSettings | None = None) -> None:
        settings = settings or SQLiteSettings()
        self.url = url
        self.path = Path(path_of(url))
        durable = {Capability.DURABLE} if settings.synchronous == "full" else set[Capability]()
        self.capabilities = frozenset({Capability.PROCESSES, *durable})
        self._keep = settings.keep_damaged
        self._connections = Connections(self.path, settings.synchronous)
        self._seen = threading.local()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """Read a row."""
        with self._translated(key, "reading"):
            row = self._patiently(lambda connection: row_of(connection, key), timeout)
        self._seen.row = key, row
        return snapshot_of(key, row)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """Insert the row if there is none, or change the one of the expected version: in one statement."""
        version = (
            Version(uuid.uuid4().hex, 1) if expected is None else Version(expected.incarnation, expected.number + 1)
        )
        row = (payload, *version, checksum_of(key, payload, version))

        def write(connection: sqlite3.Connection) -> bool:
            # Who has lost already need not wait for those who write; whether he has won, the statement says.
            stored = row_of(connection, key)
            if expected != (None if stored is None else stored[1:3]):
                return False
            if expected is None:
                connection.execute("DELETE FROM records WHERE expires_at < ?", (clock.wall(),))
                done = connection.execute(
                    f"INSERT INTO records (kind, name, {COLUMNS}, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT DO NOTHING",
                    (*key, *row, expires_at),
                )
            else:
                done = connection.execute(
                    "UPDATE records SET payload = ?, incarnation = ?, number = ?, checksum = ?, expires_at = ?"
                    f" {_SAME}",
                    (*row, expires_at, *key, *expected),
                )
            return done.rowcount == 1

        with self._translated(key, "writing", StorageLockTimeout):
            saved = self._patiently(write, timeout)
        if not saved:
            current = self.resilience_load(key, timeout)
            raise StorageConflict(f"{key} has version {current.version}, not {expected}", key=key, current=current)
        self._seen.row = key, row
        return Snapshot(payload, version)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        """Hold nothing: `save` compares and writes in one statement."""
        return nullcontext()

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        """List all rows."""
        with self._translated(None, "listing"):
            rows = self._patiently(
                lambda connection: connection.execute("SELECT kind, name FROM records").fetchall(), _ADMINISTRATION
            )
        return [Key(*row) for row in rows]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """Delete a row, of whatever version or of the expected one only."""
        statement, values = (WHERE, tuple(key)) if expected is None else (_SAME, (*key, *expected))
        with self._translated(key, "deleting", StorageLockTimeout):
            deleted = self._patiently(
                lambda connection: connection.execute(f"DELETE FROM records {statement}", values).rowcount > 0, timeout
            )
        if not deleted and expected is not None:
            current = self.resilience_load(key, timeout)
            if current.version is not None:
                raise StorageConflict(f"{key} has version {current.version}, not {expected}", key=key, current=current)
        return deleted

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """Move a row to `set_aside`: the one that this thread read last, not one that was saved meanwhile."""
        seen_key, seen = getattr(self._seen, "row", (None, None))

        def move(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            row = row_of(connection, key)
            if row is not None and (seen_key != key or seen == row):
                connection.execute(
                    f"INSERT INTO set_aside (kind, name, {COLUMNS}, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*key, *row, reason),
                )
                connection.execute(f"DELETE FROM records {WHERE}", key)
                connection.execute(
                    "DELETE FROM set_aside WHERE id NOT IN (SELECT id FROM set_aside ORDER BY id DESC LIMIT ?)",
                    (self._keep,),
                )
            connection.execute("COMMIT")

        with self._translated(key, "setting aside", StorageLockTimeout):
            self._patiently(move, timeout)

    def close(self) -> None:
        """Close all connections; the next use opens them anew."""
        self._connections.close()

    def _patiently(self, work: Callable[[sqlite3.Connection], Answer], timeout: float) -> Answer:
        """Do something, again and again as long as somebody else is writing; the last error is raised."""
        end = clock.monotonic() + timeout
        wait = _SHORTEST_WAIT
        while True:
            try:
                with self._connections.one() as connection:
                    return work(connection)
            except sqlite3.OperationalError as error:
                left = end - clock.monotonic()
                if not _is_busy(error) or left <= 0:
                    raise
            clock.sleep(min(wait, left))
            wait = min(2 * wait, _LONGEST_WAIT)

    @contextmanager
    def _translated(
        self, key: Key | None, doing: str, busy: type[StorageLockTimeout | StorageUnavailable] = StorageUnavailable
    ) -> Generator[None]:
        """Say what goes wrong in the framework's words: here, once."""
        try:
            yield
        except OSError as error:
            raise StorageUnavailable.from_os_error(error, f"{doing} {self.path}", key) from error
        except sqlite3.Error as error:
            if _is_busy(error):
                raise busy(f"{doing} {self.path}: others were writing all the time", key=key) from error
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            hint = ""
            if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
                hint = "; move it and its -wal and -shm away, or try `sqlite3 FILE .recover`"
            unknown = doing == "writing" and code == sqlite3.SQLITE_IOERR
            raise StorageUnavailable(f"{doing} {self.path}: {error}{hint}", key=key, outcome_unknown=unknown) from error


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
