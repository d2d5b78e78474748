"""The thread that is told of commits: one a process, from the first load on.

It subscribes to the channel that the scripts tell of commits by, on a connection of its own, and asks the server again
and again whether it is there.  Everything that was told before an answer has come before it.  So if the last question
that was answered is older than `max_staleness`, no snapshot is trusted any more, until it is subscribed anew.
"""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import TYPE_CHECKING

from resilience import Version, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience_redis._connections import Connection
    from resilience_redis._freshness import Freshness

_PATIENCE = 0.25
"""Seconds between two tries to subscribe, and that one try may take."""
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
                self.lose(str(error) or type(error).__name__)
            finally:
                if self.connection is not None:
                    self.connection.disconnect()
                self.tried.set()
            self.ended.wait(_PATIENCE)

    def lose(self, why: str | None) -> None:
        """Trust nothing any more."""
        self.is_live = False
        self.error = why
        self._freshness.forget()

    def _listen(self, connection: Connection) -> None:
        connection.send_command("SUBSCRIBE", self._channel, check_health=False)
        # Read by ourselves: when many commit at once, redis-py's reader would take as much time as all commits.
        stream = connection._sock  # noqa: SLF001 - it has no public name
        stream.settimeout(self._max_staleness / 8)
        asked = answered = clock.monotonic()
        is_asking = True  # to subscribe is a question too
        unread = b""
        while not self.ended.is_set():
            now = clock.monotonic()
            if now - answered >= self._max_staleness:
                raise TimeoutError(f"the server was not heard for {self._max_staleness:g} s")
            if not is_asking and now - asked >= self._max_staleness / 4:
                stream.sendall(b"*1\r\n$4\r\nPING\r\n")
                asked, is_asking = now, True
            try:
                data = stream.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                raise ConnectionError("the server closed the connection")
            unread += data
            end = 0
            while found := _REPLY.match(unread, end):
                end = found.end()
                if found[1] is not None:
                    self._told(found[1])
                    continue
                answered, is_asking = asked, False
                if not self.is_live:
                    self.error = None
                    self.is_live = True
                    self.tried.set()
            unread = unread[end:]
            if unread.startswith(b"-") or len(unread) > _LONGEST:
                raise ConnectionError(unread[1:_LONGEST].decode("utf-8", "replace").strip())

    def _told(self, text: bytes) -> None:
        incarnation, number, name = text.split(b" ", 2)
        self._freshness.told(name, None if incarnation == b"-" else Version(incarnation.decode(), int(number)))
