"""The thread that is told of commits: one a process, from the first load on.

It subscribes to the channel that the scripts tell of commits by, on a connection of its own, and asks the server again
and again whether it is there.  Everything that was told before an answer has come before it.  So if the last question
that was answered is older than `max_staleness`, no snapshot is trusted any more, until it is subscribed anew.

What has come is read by whoever looks first: the thread, or one that is about to decide and need not wait until this
one gets the interpreter.  So the thread waits until there is something to read, and reads it under a lock.
"""

from __future__ import annotations

import re
import selectors
import threading
from functools import partial
from typing import TYPE_CHECKING

from resilience import Version, clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from resilience import Freshness
    from resilience_redis._connections import Connection

_PATIENCE = 0.25
"""Seconds between two tries to subscribe, and that one try may take."""
_REST = 0.001
"""Seconds until the thread looks again after it has heard something.  Where many commit at once, it would wake for each
message else, in every process, and take more time from those who commit than the commits take."""
_LONGEST_REST = 0.008
"""Seconds that it becomes, twice as long each time, as long as more comes than one message, whoever reads them: whoever
decides meanwhile looks himself."""
_MOMENT = 0.001
"""Seconds that one who is about to decide waits at most for another one who is reading."""
_LONGEST = 10_000
"""Bytes of one message: a name has a thousand characters at most."""

_REPLY = re.compile(
    rb"\*3\r\n\$7\r\nmessage\r\n\$\d+\r\n[^\r\n]*\r\n\$\d+\r\n([^\r\n]*)\r\n"
    rb"|\*2\r\n\$4\r\npong\r\n\$0\r\n\r\n"
    rb"|\*3\r\n\$9\r\nsubscribe\r\n\$\d+\r\n[^\r\n]*\r\n:\d+\r\n"
)
"""What comes on such a connection: a message, an answer, and the answer to the subscription."""


def message(name: bytes, version: Version | None) -> bytes:
    """Return what others are told of a commit; `None`: that the record is gone."""
    incarnation, number = ("-", 0) if version is None else version
    return b"%s %d %s" % (incarnation.encode(), number, name)


class Listener:
    """Starts and ends the thread, and says whether it is of use.

    :param freshness: is told.
    :param connect: opens a connection, within the seconds that it is given.
    :param channel: what is listened to.
    :param max_staleness: seconds.
    """

    def __init__(
        self,
        freshness: Freshness,
        connect: Callable[[float], Connection],
        channel: bytes,
        max_staleness: float,
    ) -> None:
        self._make = partial(_Ear, freshness, connect, channel, max_staleness)
        self._starting = threading.Lock()
        self._ear: _Ear | None = None

    @property
    def is_live(self) -> bool:
        """Whether commits of others are told at once; else a record has to be loaded to know."""
        ear = self._ear
        return ear is not None and ear.is_live

    @property
    def error(self) -> str | None:
        """Why not."""
        ear = self._ear
        return "it was not started yet" if ear is None else ear.error

    def look(self) -> None:
        """Hear what has come, in the caller's thread; see `resilience.Word`."""
        ear = self._ear
        if ear is not None:  # pragma: no branch - in a forked child, before it has a thread of its own
            ear.look()

    def start(self, patience: float) -> None:
        """Start the thread if there is none, and wait for its first try to subscribe, for so many seconds at most."""
        ear = self._ear
        if ear is None:
            with self._starting:
                ear = self._ear
                if ear is None:
                    ear = self._ear = self._make()
                    ear.start()
        if not ear.tried.is_set():
            ear.tried.wait(patience)

    def close(self) -> None:
        """Trust nothing any more, and let the thread end: it does when it looks next, in a part of `max_staleness`."""
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.ended.set()
            ear.lose(None)

    def after_fork(self) -> None:
        """Begin anew in a child, which has no such thread."""
        self._starting = threading.Lock()
        ear, self._ear = self._ear, None
        if ear is not None and ear.connection is not None:
            ear.connection.disconnect()  # redis-py closes the descriptor without a word to the server


class _Ear:
    """One life of the thread."""

    def __init__(
        self,
        freshness: Freshness,
        connect: Callable[[float], Connection],
        channel: bytes,
        max_staleness: float,
    ) -> None:
        self._freshness = freshness
        self._connect = connect
        self._channel = channel
        self._max_staleness = max_staleness
        self.tried = threading.Event()
        self.ended = threading.Event()
        self.connection: Connection | None = None
        self.is_live = False
        self.error: str | None = None
        self._reading = threading.Lock()
        self._failure: Exception | None = None
        """What another thread met when it looked."""
        self._came = 0
        """How much has come since the thread looked last."""

    def start(self) -> None:
        """Start the thread; where none can be started any more, nothing is ever heard."""
        try:
            threading.Thread(target=self.run, name="resilience-redis", daemon=True).start()
        except RuntimeError as error:
            self.error = str(error)
            self.tried.set()

    def run(self) -> None:
        """Subscribe and listen, again and again."""
        while not self.ended.is_set():
            try:
                self.connection = self._connect(_PATIENCE)
                self._listen(self.connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be trusted any more
                self._fail(error)
            finally:
                if self.connection is not None:
                    self.connection.disconnect()
                self.tried.set()
            self.ended.wait(_PATIENCE)

    def lose(self, why: str | None) -> None:
        """Trust nothing any more."""
        self.is_live = False
        self.error = why
        self._freshness.distrust()

    def look(self) -> None:
        """Hear what has come, in another thread than this one's; what is wrong, this one finds out."""
        self._freshness.doubt_moving()
        if not self.is_live or not self._reading.acquire(timeout=_MOMENT):
            return
        try:
            self._hear()
        except Exception as error:  # noqa: BLE001 - likewise
            self._failure = error
            self._fail(error)
        finally:
            self._reading.release()

    def _fail(self, error: Exception) -> None:
        if not self.ended.is_set():  # else another one may hear by now
            self.lose(str(error) or type(error).__name__)

    def _listen(self, connection: Connection) -> None:
        import ssl

        connection.send_command("SUBSCRIBE", self._channel, check_health=False)
        connection.send_command("PING", check_health=False)  # who may not, would be cut off at the first sign of life
        # Read by ourselves: when many commit at once, redis-py's reader would take as much time as all commits.
        self._stream: socket = connection._sock  # noqa: SLF001 - it has no public name
        self._stream.settimeout(0)
        self._nothing_came = (BlockingIOError, ssl.SSLWantReadError)
        self._unread = b""
        self._failure = None
        self._asked = self._answered = clock.monotonic()
        self._unanswered = 2  # to subscribe is a question too
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            rest = 0.0
            while not self.ended.is_set():
                with self._reading:
                    self._ask()
                if selector.select(self._max_staleness / 8):
                    with self._reading:
                        self._hear()
                        is_crowded, self._came = self._came > 1, 0
                    rest = min(2 * rest, _LONGEST_REST, self._max_staleness / 8) if is_crowded and rest else _REST
                    clock.sleep(rest)

    def _ask(self) -> None:
        """See whether the server is heard, and ask it for a sign of life when it is time."""
        now = clock.monotonic()
        if self._failure is not None:
            raise self._failure
        if now - self._answered >= self._max_staleness:
            raise TimeoutError(f"the server was not heard for {self._max_staleness:g} s")
        if not self._unanswered and now - self._asked >= self._max_staleness / 4:
            self._stream.sendall(b"*1\r\n$4\r\nPING\r\n")
            self._asked, self._unanswered = now, 1

    def _hear(self) -> None:
        """Read all that has come, and tell the last that was said of each record."""
        unread = self._unread + self._read()
        told: dict[bytes, tuple[bytes, bytes]] = {}
        end = 0
        while found := _REPLY.match(unread, end):
            end = found.end()
            self._came += 1
            if found[1] is None:
                self._answered, self._unanswered = self._asked, self._unanswered - 1
            else:
                incarnation, number, name = found[1].split(b" ", 2)
                told[name] = incarnation, number  # most are overtaken by the next: no version is made of them
        self._unread = unread[end:]
        if self._unread.startswith(b"-") or len(self._unread) > _LONGEST:
            raise ConnectionError(self._unread[1:_LONGEST].decode("utf-8", "replace").strip())
        for name, (incarnation, number) in told.items():
            self._freshness.hear(name, None if incarnation == b"-" else Version(incarnation.decode(), int(number)))
        if not self._unanswered and not self.is_live and not self.ended.is_set():
            self._freshness.prove()
            self.error = None
            self.is_live = True
            self.tried.set()

    def _read(self) -> bytes:
        read = b""
        while True:
            try:
                data = self._stream.recv(1 << 16)
            except self._nothing_came:
                return read
            if not data:
                raise ConnectionError("the server closed the connection")
            read += data
