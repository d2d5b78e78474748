"""The one thread of a process that hears of others' commits: LISTEN, and a beat that proves that it still hears.

Nothing is believed untried.  A transaction pooler answers LISTEN with success and then passes no notification on, so a
connection counts only when a notification that was sent over *another* one has arrived on it.  After that the server
is asked for a beat every half `max_staleness`; an answer proves that all that was committed before the question has
been heard of, as both come down one wire in order.  Without one no snapshot is current, and the listener begins anew.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading

from resilience import Version, clock
from resilience_postgres._connection import Connection
from resilience_postgres._errors import Fault, Late, Lost
from resilience_postgres._waiting import conversation, in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience import Freshness
    from resilience_postgres._connection import Exchange
    from resilience_postgres._pool import Pool
    from resilience_postgres._schema import Schema

_PATIENCE: Final = 5.0
"""Seconds that connecting may take."""

_PROOF: Final = 1.0
"""Seconds that the first notification may take to arrive; one takes less than a millisecond."""

_REST: Final = 0.001
"""Seconds until the thread looks again after it has heard something: where many commit at once, it would wake for each
of them else, in every process."""

_LONGEST_REST: Final = 0.008
"""Seconds that it becomes, twice as long each time, as long as more has come by its end: whoever decides meanwhile
looks himself."""

_MOMENT: Final = 0.001
"""Seconds that one who is about to decide waits at most for another one who is reading."""

_DEAF: Final = 60.0
"""Seconds after which it is tried again where none arrived."""


_POOLER: Final = "name the server itself, not a transaction pooler, or set RESILIENCE_POSTGRES__PUSH=false"


class Listener:
    """Hears of commits in a thread, and tells `Freshness`.

    :param patience: seconds for which what was heard is trusted without a proof: `max_staleness`.
    """

    def __init__(self, dsn: bytes, schema: Schema, pool: Pool, freshness: Freshness, patience: float) -> None:
        self._dsn = dsn
        self._schema = schema
        self._pool = pool
        self._freshness = freshness
        self._patience = patience
        self.is_deaf = False
        """Whether the server takes LISTEN and nothing arrives: there is a pooler between."""
        self.said = threading.Event()
        """Set when it is known for the first time whether commits are heard of."""
        self.why = "it was not tried yet"
        """Why they are not."""
        self.advice = ""
        """What to do about it, where that is known."""
        self._heard_once = False
        self._closed = False
        self._woken, self._waker = socket.socketpair()
        self._connection: Connection | None = None
        self._reading = threading.Lock()
        self._failure: Exception | None = None
        """What another thread met when it looked."""
        self._thread = threading.Thread(target=self._run, name="resilience-postgres-listen", daemon=True)

    def start(self) -> None:
        """Begin to listen; where no thread can be started any more, nothing is ever heard."""
        try:
            self._thread.start()
        except RuntimeError as error:
            self.why = str(error)
            self._woken.close()
            self.said.set()

    def close(self) -> None:
        """Hear no more; returns when the thread is gone."""
        self._closed = True
        self._waker.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._patience)

    def abandon(self) -> None:
        """In a forked child: let go of what is its parent's."""
        self._closed = True
        self._woken.close()
        self._waker.close()
        if self._connection is not None:
            self._connection.abandon()

    def look(self) -> None:
        """Hear what has come, in the caller's thread; see `resilience.Word`.  What is wrong, the thread finds out."""
        self._freshness.doubt_moving()
        if not self._freshness.is_proven or not self._reading.acquire(timeout=_MOMENT):
            return
        try:
            connection = self._connection
            # Still; and not by the next one, as where a storage was closed and is used again.
            if connection is not None and self._freshness.is_proven:
                self._take(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing is heard
            self._failure = error
            self._freshness.distrust()
        finally:
            self._reading.release()

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            try:
                self._listen()
            except Fault as fault:
                self.why, self.advice = str(fault), fault.advice
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is heard
                self.why, self.advice = f"{type(error).__name__}: {error}", ""
            finally:
                self._freshness.distrust()
                with self._reading:
                    connection, self._connection = self._connection, None
                    if connection is not None:
                        connection.close()
                self.said.set()
            self._rest(_DEAF if self.is_deaf else self._patience * (_some() if self._heard_once else 1.0))
        self._woken.close()

    def _rest(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.select(seconds)

    def _listen(self) -> None:
        self._connection = connection = Connection(self._dsn, min(_PATIENCE, max(self._patience, 1.0)))
        deadline = clock.monotonic() + _PROOF
        in_thread(connection.script(self._schema.listen), deadline)
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(connection.fd, selectors.EVENT_READ)
            self._proven = self._asked = self._prove(connection, selector, deadline)
            self._beat: Exchange | None = None
            self._failure = None
            self.is_deaf = False
            self._freshness.prove()
            self._heard_once = True
            self.why = ""
            self.said.set()
            self._hear(connection, selector)

    def _prove(self, connection: Connection, selector: selectors.BaseSelector, deadline: float) -> float:
        """Let a notification be sent over another connection, and wait for it; the second of which it is a proof."""
        proof = os.urandom(8).hex().encode()
        begun = clock.monotonic()
        in_thread(conversation(self._pool, self._schema.prove, [proof], again=True), deadline)
        while proof not in connection.heard():
            if clock.monotonic() >= deadline:
                if not self.is_deaf:
                    self.is_deaf = True
                    _log.warning(
                        "PostgreSQL storage: no notification arrives, as behind a transaction pooler; it goes on "
                        "without push, and trusts a record for RESILIENCE_MAX_STALENESS; name the server itself in "
                        "RESILIENCE_STORAGE, or set RESILIENCE_POSTGRES__PUSH=false"
                    )
                raise Late("no notification arrives, as behind a transaction pooler", advice=_POOLER)
            selector.select(max(0.0, deadline - clock.monotonic()))
            self._check()
        return begun

    def _hear(self, connection: Connection, selector: selectors.BaseSelector) -> None:
        """Tell what comes, and ask for beats, until nothing comes any more."""
        rest = 0.0
        while True:
            with self._reading:
                seconds = self._ask(connection)
            came = selector.select(0)
            if came and rest:  # more has come meanwhile
                rest = min(2 * rest, _LONGEST_REST, self._patience / 8)
            else:
                came, rest = came or selector.select(seconds), _REST
            self._check()
            with self._reading:
                self._take(connection)
            if came:
                clock.sleep(rest)

    def _ask(self, connection: Connection) -> float:
        """See whether the server is heard of, and ask it for a beat when it is time; for how long nothing is to do."""
        now = clock.monotonic()
        if self._failure is not None:
            raise self._failure
        if now >= self._proven + self._patience:
            raise Late(f"the server was not heard of for {self._patience:g} s")
        if self._beat is None and now >= self._asked + self._patience / 2:
            self._asked, self._beat = now, connection.script(b"")
            next(self._beat)
        until = self._asked + self._patience / 2 if self._beat is None else self._proven + self._patience
        return max(0.0, until - now)

    def _take(self, connection: Connection) -> None:
        """Read all that has come, and tell the last that was said of each record."""
        heard = connection.heard()
        if self._beat is not None:
            try:
                self._beat.send(True)
            except StopIteration:
                self._beat, self._proven = None, self._asked
            heard += connection.heard(read=False)  # what came with the beat; nothing would wake us for it
        last: dict[str, str] = {}
        for told in heard:
            tag, _, version = told.decode().partition(" ")
            last[tag] = version
        for tag, version in last.items():
            number, _, incarnation = version.partition(" ")
            self._freshness.hear(bytes.fromhex(tag), Version(incarnation, int(number)) if version else None)

    def _check(self) -> None:
        if self._closed:
            raise Lost("it was closed")


def _some() -> float:
    """Draw a fraction: not all processes come back to a server at the same instant."""
    return clock.SystemClock.draw() / (1 << 66)


_log = logging.getLogger("resilience")
