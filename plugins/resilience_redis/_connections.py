"""Asking a server from threads: connections that are kept, each for one request at a time, and one deadline for all.

redis-py makes the connections.  Its pools, its retries and its own time-outs are not used: a hook must return within
the time that the engine gives it, and must know whether its request was sent.  Nor is its reader, see `_reply`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cache
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

from resilience import StorageUnavailable, clock
from resilience_redis._errors import Refused, Unreached, broken, is_refusal, refusal
from resilience_redis._reply import Incomplete, read
from resilience_redis._script import packed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket
    from typing import Protocol

    from resilience_redis._address import Address, Place
    from resilience_redis._route import Command, Requests, T
    from resilience_redis._settings import RedisSettings

    class Connection(Protocol):
        """What is used of redis-py's connections, which have no complete annotations."""

        _parser: Parser
        _sock: socket

        def connect(self) -> None: ...
        def disconnect(self) -> None: ...
        def send_command(self, *command: object, check_health: bool) -> None: ...

    class Parser(Protocol):
        """And of their readers."""

        def parse_error(self, text: str) -> Exception: ...


SHORTEST = 0.001
"""Seconds that a request may take even if the time is up."""
_REST = 0.05
"""Seconds that what follows the first byte of an answer may take at least."""


class Manner:
    """How connections are opened: who we are, at the server and at the Sentinels, and through what.

    :param place: what the URL says.
    """

    def __init__(self, place: Place, settings: RedisSettings) -> None:
        secret = settings.password
        password = place.password or (None if secret is None else secret.get_secret_value())
        self._server = (place.username or settings.username, password)
        secret = settings.sentinel_password
        self._sentinel = (settings.sentinel_username, None if secret is None else secret.get_secret_value())
        self._sentinels = frozenset(place.seeds if place.form == "sentinel" else ())
        self._database = place.database
        self._settings = settings
        self._options: dict[str, Any] = {"protocol": 2}
        self.kind = "TLS" if place.tls else "TCP"
        if place.tls:
            self._options |= {
                "ssl_ca_certs": settings.tls_ca_file,
                "ssl_certfile": settings.tls_cert_file,
                "ssl_keyfile": settings.tls_key_file,
                "ssl_check_hostname": settings.tls_check_hostname,
            }

    @property
    def in_vain(self) -> str:
        """The variable for TLS that is set although the URL does not ask for TLS; empty if there is none."""
        if self.kind == "TLS":
            return ""
        files = {"CA": self._settings.tls_ca_file, "CERT": self._settings.tls_cert_file}
        return next((f"RESILIENCE_REDIS__TLS_{name}_FILE" for name, path in files.items() if path is not None), "")

    def connection(self, module: Any, address: Address, timeout: float) -> Any:
        """Make a connection that is not open yet; `module` is redis-py's, for threads or for coroutines."""
        options = {
            **self._options,
            **_silence(),
            "socket_timeout": max(timeout, _REST),
            "socket_connect_timeout": timeout,
        }
        if not address.port:
            return module.UnixDomainSocketConnection(path=address.host, **options)
        kind = module.SSLConnection if self.kind == "TLS" else module.Connection
        return kind(host=address.host, port=address.port, **options)

    def unreached(self, address: Address, error: Exception) -> Unreached:
        """Say what kept a connection from being made, and what to do about it."""
        why = str(error) or "it could not be connected to in time"
        advice = f"see that it runs, and check the {'host and port' if address.port else 'path'} in the URL"
        if "CERTIFICATE_VERIFY_FAILED" in why:
            advice = "RESILIENCE_REDIS__TLS_CA_FILE is to name who signed it, and the URL the host that it is for"
        elif self.kind == "TLS":
            advice += ", and that it speaks TLS there: redis:// is without, rediss:// with it"
            if not isinstance(error.__context__, ConnectionError | TimeoutError):
                from resilience_redis._certificates import fault

                unusable = fault(self._settings)
                if unusable:
                    return Unreached(address, unusable, sent=False, advice="it is to be a file in PEM that can be read")
        return Unreached(address, why, sent=False, advice=advice)

    def opening(self, address: Address) -> list[Command]:
        """Return what is said first on a new connection."""
        is_sentinel = address in self._sentinels
        username, password = self._sentinel if is_sentinel else self._server
        said: list[Command] = []
        if username is not None:
            # Also without a password: whoever says nothing is let in as `default`, who may do everything.
            said.append(("AUTH", username, password or ""))
        elif password is not None:
            said.append(("AUTH", password))
        if self._database and not is_sentinel:
            said.append(("SELECT", self._database))
        return said


@cache
def _silence() -> dict[str, None]:
    """Keep redis-py from introducing itself on each new connection, which is two more round trips."""
    import redis

    return {"driver_info": None} if hasattr(redis, "DriverInfo") else {"lib_name": None, "lib_version": None}


class Connections:
    """The connections of a process.

    :param most: so many are used at one time; who comes then waits.
    """

    def __init__(self, manner: Manner, most: int) -> None:
        self._manner = manner
        self._most = most
        self._idle: dict[Address, list[Connection]] = {}
        self._turns = threading.BoundedSemaphore(most)
        self._openers = threading.BoundedSemaphore(most)

    def drive(self, requests: Requests[T], timeout: float) -> T:
        """Serve the requests of a generator, all of them within `timeout` seconds."""
        deadline = clock.monotonic() + timeout
        if not self._turns.acquire(timeout=timeout):
            raise StorageUnavailable(f"{self._most} requests of this process are under way and do not end")
        try:
            address, commands = next(requests)
            while True:
                try:
                    replies = self._ask(address, commands, deadline)
                except Unreached as error:
                    address, commands = requests.throw(error)
                    if clock.monotonic() >= deadline:
                        raise  # it took all the time: of the next one nothing is known
                else:
                    address, commands = requests.send(replies)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # untyped in typeshed
        finally:
            self._turns.release()

    def open(self, address: Address, deadline: float) -> Connection:
        """Open a connection and say who we are.

        :raises Unreached: nothing answers there.
        :raises Refused: it does not want us.
        """
        from redis import connection as module
        from redis.exceptions import RedisError

        connection: Connection = self._manner.connection(module, address, left(deadline))
        try:
            self._connect(connection, deadline)
        except (RedisError, OSError) as error:
            connection.disconnect()
            raise self._manner.unreached(address, error) from error
        said = self._manner.opening(address)
        if said:
            try:
                replies = exchange(connection, address, said, deadline)
            except Unreached as error:
                error.sent = False  # nothing was asked yet
                raise
            for reply in replies:
                if isinstance(reply, Refused):
                    connection.disconnect()
                    raise reply
        return connection

    def _connect(self, connection: Connection, deadline: float) -> None:
        """Connect, in a thread of its own: nothing ends the search for a host, or the next of its addresses, in time.

        There are no more such threads than connections; one that comes too late closes what it has opened.
        """
        from concurrent.futures import Future

        openers = self._openers
        if not openers.acquire(timeout=left(deadline)):
            raise TimeoutError(f"{self._most} connections are being opened, and that does not end")
        opened: Future[None] = Future()

        def connect() -> None:
            failure: Exception | None = None
            try:
                connection.connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, who waits must know
                failure = error
            openers.release()
            if not opened.set_running_or_notify_cancel():
                connection.disconnect()
            elif failure is None:
                opened.set_result(None)
            else:
                opened.set_exception(failure)

        try:
            threading.Thread(target=connect, name="resilience-redis-connect", daemon=True).start()
        except RuntimeError:  # the interpreter ends, and starts no more threads
            connect()
        with suppress(TimeoutError):
            opened.exception(left(deadline))
        if opened.cancel():
            raise TimeoutError("it could not be connected to in time")
        opened.result()

    def _ask(self, address: Address, commands: Sequence[Command], deadline: float) -> list[Any]:
        try:
            connection = self._kept(address) or self.open(address, deadline)
        except Refused as error:
            return [error]
        replies = exchange(connection, address, commands, deadline)
        if not has_parted(replies):
            self._idle.setdefault(address, []).append(connection)
        return replies

    def _kept(self, address: Address) -> Connection | None:
        """Return a connection that nobody uses, and that the server has not closed meanwhile."""
        idle = self._idle.get(address, [])
        while True:
            try:
                connection = idle.pop()
            except IndexError:  # not looked at before: another thread may take the last one
                return None
            if _is_quiet(connection):
                return connection
            connection.disconnect()

    def close(self) -> None:
        """Close all that nobody uses; the next request opens one anew."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.disconnect()

    def after_fork(self) -> None:
        """Let go, in a child, of what its parent uses: redis-py closes the descriptor without a word to the server."""
        self.close()
        self._turns = threading.BoundedSemaphore(self._most)
        self._openers = threading.BoundedSemaphore(self._most)


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing has come since the last answer: an end would, or what nobody asked for."""
    stream = connection._sock  # noqa: SLF001 - it has no public name
    try:
        stream.settimeout(0)
        stream.recv(1)
    except BlockingIOError:
        return True
    except OSError as error:
        import ssl

        return isinstance(error, ssl.SSLWantReadError)  # what TLS says instead
    return False


def exchange(connection: Connection, address: Address, commands: Sequence[Command], deadline: float) -> list[Any]:
    """Send commands in one go and return the replies; an error of the server is one.

    :raises Unreached: not all of them came in time; the connection is closed then.
    """
    replies: list[Any] = []
    stream, error_of = connection._sock, connection._parser.parse_error  # noqa: SLF001 - they have no public names
    try:
        stream.settimeout(left(deadline))
        stream.sendall(packed(commands))
        unread = _receive(stream, left(deadline))
        while len(replies) < len(commands) and not has_parted(replies):
            try:
                reply, end = read(unread, 0, error_of)
            except Incomplete:
                unread += _receive(stream, max(left(deadline), _REST) if unread else left(deadline))
                continue
            unread = unread[end:]
            replies.append(_refused(address, reply) if isinstance(reply, Exception) else reply)
        if has_parted(replies):
            connection.disconnect()
        elif unread:  # which nobody asked for: whoever takes it next finds that it was hung up on
            with suppress(OSError):
                stream.shutdown(SHUT_RDWR)
    except (OSError, ValueError) as error:
        connection.disconnect()
        why, advice = broken(error)
        raise Unreached(address, why, sent=True, advice=advice) from error
    except BaseException:
        connection.disconnect()  # what comes next on it would be the answer to this
        raise
    return replies


def _receive(stream: socket, timeout: float) -> bytes:
    stream.settimeout(timeout)
    data = stream.recv(1 << 16)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data


def _refused(address: Address, error: Exception) -> Refused:
    """Return what a server refused.

    :raises ConnectionError: it wants to hear nothing at all.
    """
    if not is_refusal(error):
        raise ConnectionError(str(error)) from error
    return refusal(address, error)


def has_parted(replies: Sequence[Any]) -> bool:
    """Whether the connection is closed after the last reply."""
    return bool(replies) and isinstance(replies[-1], Refused) and replies[-1].is_parting


def left(deadline: float) -> float:
    """Return the seconds that are left, for a system that takes 0 as for ever, or not at all."""
    return max(SHORTEST, deadline - clock.monotonic())
