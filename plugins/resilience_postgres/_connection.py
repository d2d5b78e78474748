"""One connection: libpq without blocking, so that whoever waits decides for how long, and in which way.

psycopg's own connections wait for the answer of a server that hangs for as long as it hangs; a hook has a time-out.
So what is used of psycopg is `psycopg.pq`, the wrapper of libpq that it stands on.  An exchange is a generator of what
to wait for, written once; `resilience_postgres._waiting` waits for it in a thread or on an event loop.
"""

from __future__ import annotations

import os
import select
import selectors
from contextlib import suppress
from math import ceil
from selectors import EVENT_READ, EVENT_WRITE

from psycopg import Error, conninfo, pq

from resilience import ConfigurationError, clock
from resilience_postgres._errors import (
    REACH,
    READ_ONLY,
    SESSION_READS,
    STANDBY,
    UNPREPARED,
    Late,
    Lost,
    Refused,
    unconnected,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, Final, TypeVarTuple

    from psycopg.pq.abc import PGconn, PGresult

    from resilience_postgres._schema import Statement

    Sent = TypeVarTuple("Sent")
    Exchange = Generator[tuple["Connection", int], bool, PGresult]
    """Yields what to wait for: `EVENT_READ`, `EVENT_WRITE` or both; it is sent whether that came in time."""

NAME: Final = "resilience"
"""Our `application_name`, unless the URL has another."""

_PREPARE_AT: Final = 3
"""A statement that is used so often by one connection is prepared."""

_OK: Final = pq.ConnStatus.OK
_DONE: Final = frozenset([pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY])


def address(url: str) -> tuple[bytes, str]:
    """Return the connection string of a URL with what we add to it, and the server's name without secrets.

    :raises ConfigurationError: it is no URL of a PostgreSQL server.
    """
    try:
        given = conninfo.conninfo_to_dict(url)
    except Error:
        given = None  # the error shows the URL, with its password
    port = "" if given is None else str(given.get("port") or "").strip(",")
    if given is None or not (port.replace(",", "") or "0").isdecimal() or _is_misread(url, given):
        from resilience.settings import redact

        raise ConfigurationError(
            f"RESILIENCE_STORAGE: {redact(url)} is no URL of a PostgreSQL server; with user:password@ before the host "
            "if need be, and %-escapes for what is special in URLs, write "
            "postgresql://host:5432/database"  # without a user: what stands before an "@" is blotted out of messages
        )
    given.setdefault("application_name", NAME)
    given["client_encoding"] = "UTF8"
    host = str(given.get("host") or given.get("hostaddr") or "the local server")
    if "," in host:
        given.setdefault("target_session_attrs", "read-write")
    return _Secret(conninfo.make_conninfo("", **given).encode()), f"{host}:{port}" if port else host


class _Secret(bytes):
    """Bytes that are not shown: who looks at variables, as reporters of errors do, shall see no password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<a connection string>"

    __str__ = __repr__


def _is_misread(url: str, given: dict[str, Any]) -> bool:
    """Whether a part of a password was taken for a host or a database, which messages name.

    A password with "@", "/" or "?" in it ends for libpq at the first of them, and the URL goes on after its last "@".
    """
    hosts = str(given.get("host") or "").split(",")  # "/…" is a folder of sockets, "@…" a socket without a file
    return any("@" in host[1:] for host in hosts if not host.startswith("/")) or (
        "@" in str(given.get("dbname") or "") and "%40" not in url
    )


class Connection:
    """An open connection; one exchange at a time.

    :param dsn: what `address` returned.
    :param patience: seconds that connecting may take.
    :raises Lost: it could not be made.
    """

    def __init__(self, dsn: bytes, patience: float) -> None:
        self.used = clock.monotonic()
        """The monotonic second of its last use."""
        self.may_prepare = True
        self._uses: dict[bytes, int] = {}
        deadline = self.used + patience
        self._pgconn = pgconn = pq.PGconn.connect_start(dsn)
        self._connect(pgconn, deadline)
        pgconn.nonblocking = 1
        self.fd: int = pgconn.socket
        self._watch(self.fd, EVENT_READ)

    def _connect(self, pgconn: PGconn, deadline: float) -> None:
        status = pgconn.connect_poll()
        while status not in {pq.PollingStatus.OK, pq.PollingStatus.FAILED}:
            events = EVENT_READ if status == pq.PollingStatus.READING else EVENT_WRITE
            self._watch(pgconn.socket, events)  # another one for each host and address that is tried
            if not self.wait(events, deadline - clock.monotonic()):
                pgconn.finish()
                raise Lost("the server did not answer while connecting", advice=REACH)
            status = pgconn.connect_poll()
        if status == pq.PollingStatus.FAILED:
            message = pgconn.get_error_message()
            pgconn.finish()
            raise unconnected(_plain(message))

    def _watch(self, fd: int, events: int) -> None:
        self._poll = _poller(fd, events)
        self._events = events

    def wait(self, events: int, seconds: float) -> bool:
        """Wait in this thread; false if nothing came in so many seconds."""
        if seconds <= 0:
            return False
        if events != self._events:
            self._watch(self.fd, events)
        return bool(self._poll(ceil(seconds * 1000)))

    @property
    def is_well(self) -> bool:
        """Whether the server has not said a word since the last answer: when it ends a connection, it does."""
        return self._events == EVENT_READ and not self._poll(0)

    def run(self, statement: Statement, values: Sequence[bytes | None]) -> Exchange:
        """Let the server run a statement; the generator returns its result.

        :raises Refused: the server answered with an error.
        :raises Lost: the connection is gone.
        :raises Late: the time was up; the connection is of no more use.
        """
        name = statement.name
        uses = self._uses[name] = self._uses.get(name, 0) + 1
        if self.may_prepare and uses >= _PREPARE_AT:
            try:
                if uses == _PREPARE_AT:
                    yield from self._ask(self._pgconn.send_prepare, name, statement.text, statement.types)
                return (yield from self._ask(self._pgconn.send_query_prepared, name, values, statement.formats, 1))
            except Refused as refused:
                if refused.state not in UNPREPARED:
                    raise
                self.may_prepare = False  # a pooler gave us another server than the one that has it
        text, types, formats = statement.text, statement.types, statement.formats
        return (yield from self._ask(self._pgconn.send_query_params, text, values, types, formats, 1))

    def script(self, text: bytes) -> Exchange:
        """Let the server run any number of statements as one transaction; none, to see that it answers."""
        return self._ask(self._pgconn.send_query, text)

    def _ask(self, send: Callable[[*Sent], None], *sent: *Sent) -> Exchange:
        """Send and wait for all results; what the server has committed, it has committed when this ends."""
        pgconn = self._pgconn
        answer: PGresult | None = None
        try:
            send(*sent)
            while True:
                unsent = pgconn.flush()
                if not (yield self, EVENT_READ | EVENT_WRITE if unsent else EVENT_READ):
                    raise Late("the server did not answer in time", sent=True)
                pgconn.consume_input()
                while not pgconn.is_busy():
                    result = pgconn.get_result()
                    if result is None:
                        self.used = clock.monotonic()
                        return self._judged(answer)
                    if answer is None or result.status not in _DONE:
                        answer = result
        except Error as error:
            raise Lost(_plain(str(error)), sent=True) from error

    def _judged(self, answer: PGresult | None) -> PGresult:
        assert answer is not None  # noqa: S101 - what was sent has a result; for the type checkers
        if self._pgconn.status != _OK:  # pragma: no cover - a race: the end came with an answer
            raise Lost(_plain(answer.get_error_message()), sent=True)
        if answer.status not in _DONE:
            state = (answer.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
            message = (answer.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
            raise Refused(f"{_plain(message)} ({state})", state, self._why_read_only() if state == READ_ONLY else "")
        return answer

    def _why_read_only(self) -> str:
        """Say what to do about it; nothing, where a pooler does not pass on what the server tells of itself."""
        for parameter, advice in ((b"in_hot_standby", STANDBY), (b"default_transaction_read_only", SESSION_READS)):
            if self._pgconn.parameter_status(parameter) == b"on":
                return advice
        return ""

    def heard(self, *, read: bool = True) -> list[bytes]:
        """Read what has come, and return the notifications in it; without `read`, in what was read before."""
        found: list[bytes] = []
        try:
            if read:
                self._pgconn.consume_input()
            while (notification := self._pgconn.notifies()) is not None:
                found.append(notification.extra)
        except Error as error:
            raise Lost(_plain(str(error)), sent=True) from error
        return found

    def close(self) -> None:
        """Take leave of the server."""
        self._pgconn.finish()

    def abandon(self) -> None:
        """In a forked child: let go of what is its parent's, without a word to the server."""
        with suppress(Error):  # it was lost, and libpq has closed it: the number may be somebody else's by now
            os.close(self._pgconn.socket)


def _poller(fd: int, events: int) -> Callable[[int], Sequence[object]]:
    """Return what waits for so many milliseconds, and returns what has come.

    It needs no descriptor of its own, and knows descriptors past 1024.  The class of `selectors` around it takes longer
    than the system does.
    """
    if not hasattr(select, "poll"):  # pragma: no cover - only Windows has none, and no test runs there
        selector = selectors.DefaultSelector()
        selector.register(fd, events)
        return lambda milliseconds: selector.select(milliseconds / 1000)
    poll = select.poll()
    poll.register(fd, (events & EVENT_READ and select.POLLIN) | (events & EVENT_WRITE and select.POLLOUT))
    return poll.poll


def _plain(message: str) -> str:
    """Return what libpq says in one line."""
    return " ".join(message.split()) or "the connection is gone"
