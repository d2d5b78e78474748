"""What a server answers is read whole, however it is cut, and as redis-py reads it."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from resilience import clock
from resilience_redis._address import Address
from resilience_redis._connections import exchange
from resilience_redis._errors import Refused, Unreached
from resilience_redis._reply import Incomplete, read

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLIES: list[tuple[bytes, Any]] = [
    (b"+OK\r\n", b"OK"),
    (b":-7\r\n", -7),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"$0\r\n\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"*0\r\n", []),
    (b"*3\r\n$1\r\n1\r\n*2\r\n:2\r\n$-1\r\n+three\r\n", [b"1", [2, None], b"three"]),
]
PLACE = Address("host", 1)


@pytest.mark.parametrize(("said", "meant"), REPLIES)
def test_each_kind_of_reply_is_read_once_all_of_it_has_come(said: bytes, meant: Any) -> None:
    assert read(b"+before\r\n" + said + b"+after\r\n", 9, ValueError) == (meant, 9 + len(said))
    for cut in range(len(said)):
        with pytest.raises(Incomplete):
            read(said[:cut], 0, ValueError)


def test_an_error_is_a_reply_also_among_others() -> None:
    found, _ = read(b"*2\r\n-ERR \xff no\r\n:1\r\n", 0, KeyError)
    assert [type(item) for item in found] == [KeyError, int]
    assert found[0].args == ("ERR � no",)


def test_what_speaks_another_protocol_is_told() -> None:
    with pytest.raises(ValueError, match=r"HTTP/1\.1"):
        read(b"HTTP/1.1 400 Bad Request\r\n", 0, ValueError)


class Wire:
    """A connection as redis-py makes it, and the server's end of it."""

    def __init__(self) -> None:
        self._sock, self.server = socket.socketpair()
        self._parser: Any = SimpleNamespace(parse_error=self.error)
        self.is_open = True

    @staticmethod
    def error(text: str) -> Exception:
        exceptions = pytest.importorskip("redis").exceptions
        kinds: dict[str, Any] = {"NOAUTH": exceptions.AuthenticationError, "MAX": exceptions.ConnectionError}
        error: Exception = kinds.get(text.partition(" ")[0], exceptions.ResponseError)(text)
        return error

    def disconnect(self) -> None:
        self.is_open = False
        self._sock.close()

    def ask(self, *said: bytes, commands: int = 1) -> list[Any]:
        for part in said:
            self.server.sendall(part)
        connection: Any = self
        return exchange(connection, PLACE, [("PING",)] * commands, clock.monotonic() + 0.05)


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.disconnect()
    made.server.close()


def test_as_many_replies_are_taken_as_there_are_commands(wire: Wire) -> None:
    assert wire.ask(b"+OK\r\n-ERR no\r\n", b":1\r\n", commands=3)[::2] == [b"OK", 1]
    assert wire.server.recv(100) == b"*1\r\n$4\r\nPING\r\n" * 3
    assert wire.is_open
    assert wire.ask(b"+OK\r\n+what\r\n") == [b"OK"]
    assert (wire.is_open, wire._sock.recv(1)) == (True, b"")  # as whoever takes it next will find


def test_who_is_not_wanted_hangs_up(wire: Wire) -> None:
    (reply,) = wire.ask(b"-NOAUTH who are you\r\n-NOAUTH who are you\r\n", commands=2)
    assert isinstance(reply, Refused)
    assert reply.is_parting
    assert not wire.is_open


def test_a_server_that_has_too_many_clients_was_not_reached(wire: Wire) -> None:
    with pytest.raises(Unreached, match="MAX number of clients"):
        wire.ask(b"-MAX number of clients\r\n")
    assert not wire.is_open


def test_what_is_no_answer_is_none(wire: Wire) -> None:
    with pytest.raises(Unreached, match="does not speak the protocol"):
        wire.ask(b"HTTP/1.1 400 Bad Request\r\n")
    assert not wire.is_open


@pytest.mark.parametrize("said", [b"", b"$5\r\nab"])
def test_an_answer_that_does_not_come_or_not_all_of_it(wire: Wire, said: bytes) -> None:
    with pytest.raises(Unreached, match="did not answer in time"):
        wire.ask(said)
    assert not wire.is_open


def test_a_server_that_hangs_up_is_told(wire: Wire) -> None:
    wire.server.shutdown(socket.SHUT_WR)
    with pytest.raises(Unreached, match="closed the connection") as caught:
        wire.ask()
    assert caught.value.sent
