"""Connections to one database file: for any number of threads, never taken across a fork, never to a file that is gone.

An error closes its connection: what is given back is at rest, with no transaction and no statement under way.

None may be open where the process forks.  SQLite remembers in its memory which locks a process holds; a child has that
memory and not the locks, so also a connection that it opens by itself would be one that others do not see, and the last
of these to close would take the log away from under it.  So before a fork all are closed: a moment is waited for those
that are in use, and whoever wants one meanwhile waits for the end of the fork; else somebody always had one.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from threading import Condition, get_ident
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, name TEXT NOT NULL, payload BLOB NOT NULL, incarnation TEXT NOT NULL,
    number INTEGER NOT NULL, checksum INTEGER NOT NULL, expires_at REAL, PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS expiring ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS set_aside (
    id INTEGER PRIMARY KEY, kind TEXT, name TEXT, payload BLOB, incarnation TEXT, number INTEGER, checksum INTEGER,
    reason TEXT
);
"""

_inherited: list[sqlite3.Connection] = []
"""Of our parent process, where they were in use all the time: SQLite forbids to use them here, and to close them."""

_AT_REST = 1.0
"""Seconds for which a fork waits at most for those who use a connection; a statement takes milliseconds."""

_no_fork = Condition()
"""Guards what stands here and which connections are in use; held by who forks when all are closed, until after it."""

_forking: int | None = None
"""The thread that forks, or waits for it: nobody else borrows a connection then.  The engine may commit in it, before
the fork; what it used is closed at once."""


class Connections:
    """Opened as they are needed, and kept for the next.

    :param path: of the database file; it and its folder are made if they are missing.
    :param synchronous: of SQLite.
    """

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._synchronous = synchronous
        self._process = os.getpid()
        self._idle: list[tuple[sqlite3.Connection, tuple[int, int]]] = []
        self._in_use = 0
        with _no_fork:
            _all.add(self)

    @contextmanager
    def one(self) -> Generator[sqlite3.Connection]:
        """Borrow a connection.

        :raises OSError: the file or its folder cannot be reached.
        :raises sqlite3.Error: of SQLite.
        """
        with _no_fork:
            _no_fork.wait_for(lambda: _forking in {None, get_ident()})
            self._leave_the_parent_s()
            self._in_use += 1
        try:
            connection, file = self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append((connection, file))
        finally:
            with _no_fork:
                self._in_use -= 1
                _no_fork.notify_all()
                if _forking == get_ident():
                    self.close()

    @property
    def are_in_use(self) -> bool:
        """Whether somebody has borrowed one."""
        return self._in_use > 0

    def close(self) -> None:
        """Close those that nobody is using; the next use opens anew."""
        self._leave_the_parent_s()
        while self._idle:
            self._idle.pop()[0].close()

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, int]]:
        while True:
            try:
                connection, file = self._idle.pop()
            except IndexError:
                break
            if file == self._file():
                return connection, file
            connection.close()  # the file was removed or replaced: others are using another one
        connection = self._open()
        return connection, self._file()

    def _leave_the_parent_s(self) -> None:
        if self._process != os.getpid():
            _inherited.extend(connection for connection, _ in self._idle)
            self._idle, self._process, self._in_use = [], os.getpid(), 0

    def _file(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'set_aside'").fetchall():
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        except BaseException:
            connection.close()
            raise
        return connection


_all: WeakSet[Connections] = WeakSet()


def _before_fork() -> None:
    global _forking  # noqa: PLW0603 - of the process, as forks are
    _no_fork.acquire()
    _no_fork.wait_for(lambda: _forking is None)  # two threads that fork do so one after the other
    _forking = get_ident()
    _no_fork.wait_for(lambda: not any(each.are_in_use for each in _all), _AT_REST)
    for each in _all:
        each.close()


def _after_fork() -> None:
    global _forking  # noqa: PLW0603 - likewise
    _forking = None
    _no_fork.notify_all()
    _no_fork.release()


def _after_fork_in_child() -> None:
    global _no_fork, _forking
    _no_fork, _forking = Condition(), None  # those who wait for the old one are threads of the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
