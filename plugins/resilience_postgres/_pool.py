"""The connections of one process, for any number of threads and event loops.

A connection belongs to no thread and to no loop: it is a descriptor, and whoever borrows it waits for it in his own
way.  So one pool serves all of them, and there is nothing to close when a loop ends.

psycopg's own pools keep threads, wait in their own way and know no fork; what is needed here is little: the connection
that was used last first, a limit, and nobody waiting longer than his time.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future

from resilience_postgres._connection import Connection
from resilience_postgres._errors import Lost
from resilience_postgres._fork import enrol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

IDLE: Final = 60.0
"""Seconds after which a connection that nobody needed is closed."""

_PATIENCE: Final = 5.0
"""Seconds that connecting may take.  Whoever wanted the connection has given up by then; who comes next has it."""


class Pool:
    """Connections to one server.

    :param dsn: see `resilience_postgres._connection.address`.
    :param most: connections that there are at one time.
    """

    def __init__(self, dsn: bytes, most: int) -> None:
        self._dsn = dsn
        self._most = most
        self.may_prepare = True
        """Whether statements may be prepared; false once a pooler was found to stand before the server."""
        self._begin()
        enrol(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._waiting: deque[Future[Connection]] = deque()
        self._lent: set[Connection] = set()
        self._opening = 0
        self._life = object()
        """Another one after each `close`: what was being opened before it is not kept."""

    def take(self) -> Connection | Future[Connection]:
        """Borrow a connection; or, if none is free, the promise of one, or of `Lost`."""
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_well:
                    self._lent.add(connection)
                    return connection
                connection.close()  # the server ended it while nobody was looking
            promise: Future[Connection] = Future()
            self._waiting.append(promise)
        self._tend()
        return promise

    def give(self, connection: Connection) -> None:
        """Give a connection back that is at rest."""
        if not connection.may_prepare:
            self.may_prepare = False
        with self._lock:
            is_ours = connection in self._lent
            self._lent.discard(connection)
            if is_ours and not self._handed_on(connection):
                self._idle.append(connection)
            stale = self._idle[0] if self._idle and connection.used - self._idle[0].used > IDLE else None
            if stale is not None:
                del self._idle[0]
        if not is_ours:
            connection.close()
        if stale is not None:
            stale.close()

    def drop(self, connection: Connection) -> None:
        """Give a connection back that cannot be used again."""
        with self._lock:
            self._lent.discard(connection)
        connection.close()
        self._tend()

    def recall(self, promise: Future[Connection]) -> None:
        """Take back what was asked for, as the time is up."""
        if not promise.cancel() and promise.exception() is None:
            self.give(promise.result())

    @property
    def is_full(self) -> bool:
        """Whether all connections that there may be are in use."""
        return len(self._lent) >= self._most

    def close(self) -> None:
        """Close all connections: those that are lent, when they come back."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._lent = set()
            self._life = object()
        for connection in idle:
            connection.close()

    def after_fork(self) -> None:
        """Begin anew in a child."""
        for connection in (*self._idle, *self._lent):
            connection.abandon()
        self._begin()

    def _handed_on(self, connection: Connection) -> bool:
        """With the lock held: whether somebody who waits takes it."""
        while self._waiting:
            promise = self._waiting.popleft()
            if promise.set_running_or_notify_cancel():
                self._lent.add(connection)
                promise.set_result(connection)
                return True
        return False

    def _tend(self) -> None:
        """Let a thread open a connection for each who waits, as far as there may be more."""
        with self._lock:
            wanted = sum(not promise.cancelled() for promise in self._waiting)
            room = self._most - len(self._idle) - len(self._lent) - self._opening
            more = min(wanted - self._opening, room)
            self._opening += max(0, more)
        for _ in range(more):
            opener = threading.Thread(target=self._open, name="resilience-postgres-connect", daemon=True)
            try:
                opener.start()
            except RuntimeError:  # the interpreter ends, and starts no more threads
                self._open()

    def _open(self) -> None:
        """Make a connection.  In a thread of its own: to look up a name of a host, nothing can interrupt."""
        life = self._life
        try:
            connection = Connection(self._dsn, _PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must know
            lost = error if isinstance(error, Lost) else Lost(f"{type(error).__name__}: {error}")
            with self._lock:
                self._opening -= 1
                self._fail(lost)
            return
        connection.may_prepare = self.may_prepare
        with self._lock:
            self._opening -= 1
            if self._handed_on(connection):
                return
            if life is self._life:
                self._idle.append(connection)
                return
        connection.close()

    def _fail(self, lost: Lost) -> None:
        """With the lock held: tell all who wait, as a server that cannot be reached cannot be reached for any."""
        waiting, self._waiting = self._waiting, deque()
        for promise in waiting:
            if promise.set_running_or_notify_cancel():
                promise.set_exception(Lost(str(lost), advice=lost.advice))
