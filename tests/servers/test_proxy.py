"""The proxy does what it is told, and nothing else."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from servers.proxy import Proxy

if TYPE_CHECKING:
    from servers.redis_server import RedisServer


def connected(proxy: Proxy, timeout: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout)


def asked(connection: socket.socket, *words: str) -> bytes:
    connection.sendall(" ".join(words).encode() + b"\r\n")
    return connection.recv(100)


def test_passes_on(redis_proxy: Proxy) -> None:
    with connected(redis_proxy) as first, connected(redis_proxy) as second:
        assert asked(first, "SET", "k", "v") == b"+OK\r\n"
        assert asked(second, "GET", "k") == b"$1\r\nv\r\n"
    assert redis_proxy.connections == 2


def test_cuts_after_the_request_was_done(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    with connected(redis_proxy) as first, connected(redis_proxy) as second:
        redis_proxy.cut_after(b"INCR")
        assert asked(first, "PING") == b"+PONG\r\n"
        assert asked(first, "INCR", "n") == b""
        assert asked(second, "INCR", "n") == b":2\r\n"
    assert redis_server.admin().get("n") == b"2"


def test_cuts_all(redis_proxy: Proxy) -> None:
    with connected(redis_proxy) as connection:
        assert asked(connection, "PING") == b"+PONG\r\n"
        redis_proxy.cut()
        with pytest.raises(OSError), connection:
            assert asked(connection, "PING") == b""
            raise ConnectionResetError
    with connected(redis_proxy) as connection:
        assert asked(connection, "PING") == b"+PONG\r\n"


def test_hangs_and_goes_on(redis_proxy: Proxy) -> None:
    with connected(redis_proxy, 0.05) as connection:
        redis_proxy.hang()
        with pytest.raises(TimeoutError):
            asked(connection, "PING")
        redis_proxy.recover()
        connection.settimeout(5)
        assert connection.recv(100) == b"+PONG\r\n"


def test_delays(redis_proxy: Proxy) -> None:
    with connected(redis_proxy, 0.05) as connection:
        redis_proxy.delay(0.2)
        with pytest.raises(TimeoutError):
            asked(connection, "PING")
        connection.settimeout(5)
        assert connection.recv(100) == b"+PONG\r\n"


def test_refuses_and_accepts_again(redis_proxy: Proxy) -> None:
    redis_proxy.refuse()
    with pytest.raises(OSError):
        connected(redis_proxy)
    redis_proxy.recover()
    with connected(redis_proxy) as connection:
        assert asked(connection, "PING") == b"+PONG\r\n"


def test_without_a_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with Proxy(port) as proxy, connected(proxy) as connection:
        assert connection.recv(1) == b""
