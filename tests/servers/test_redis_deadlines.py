"""Whatever takes its time while a server is looked for: a hook returns within its own, and the next try finds a way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Key, StorageUnavailable
from resilience_redis import RedisSettings, RedisStorage, _connections
from resilience_redis._address import Address, parse
from resilience_redis._connections import Connections, Manner
from resilience_redis._errors import Unreached, refusal
from resilience_redis._loops import LoopConnections, Loops
from resilience_redis._route import route_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.proxy import Proxy
    from servers.redis_server import RedisServer

KEY = Key("test", "deadlines")
ALONE = RedisSettings(push=False, max_connections=1)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nobody says where a host is until the event is set."""
    known = threading.Event()
    search = socket.getaddrinfo

    def wait(*arguments: Any, **options: Any) -> Any:
        known.wait(5)
        return search(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    yield known
    known.set()


def openers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "resilience-redis-connect"]


def test_a_host_that_is_not_found_in_time(redis_server: RedisServer, slow_names: threading.Event) -> None:
    storage = RedisStorage(redis_server.url, ALONE)
    for what in "could not be connected to in time", "are being opened":
        with pytest.raises(StorageUnavailable, match=what) as caught:
            storage.resilience_save(KEY, b"1", None, None, 0.05)
        assert not caught.value.outcome_unknown
    (thread,) = openers()
    slow_names.set()
    thread.join(5)
    assert storage.resilience_save(KEY, b"1", None, None, 1).payload == b"1"
    storage.close()


def test_where_no_thread_can_be_started(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    storage = RedisStorage(redis_server.url)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert storage.resilience_load(KEY, 1).is_current is None
        assert ("listener", False) in [row[:2] for row in storage.examine()]
    assert not storage.is_pushed
    storage.close()


def test_half_an_answer() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            end, _ = listener.accept()
            with end:
                end.recv(1 << 16)
                end.sendall(b"*2\r\n$1\r\n0\r\n*0\r\n")
                end.recv(1 << 16)
                end.sendall(b"*7\r\n$5\r\n12")
                done.wait(5)

    thread = threading.Thread(target=serve)
    thread.start()
    storage = RedisStorage(f"redis://127.0.0.1:{listener.getsockname()[1]}", ALONE)
    assert storage.resilience_keys() == []  # which has more time than others: the connection was opened with it
    begun = time.monotonic()
    with pytest.raises(StorageUnavailable):
        storage.resilience_load(KEY, 0.05)
    assert time.monotonic() - begun < 3
    done.set()
    thread.join()
    listener.close()
    storage.close()


def test_an_answer_to_nothing_is_not_taken_for_the_next_one() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(2):
            end, _ = listener.accept()
            with end:
                end.recv(1 << 16)
                end.sendall(b"*2\r\n$1\r\n0\r\n*0\r\n" + b"*2\r\n$1\r\n0\r\n*1\r\n$12\r\nanother's {}\r\n")
                assert end.recv(1) == b""  # it was hung up on, and nothing else was asked

    thread = threading.Thread(target=serve)
    thread.start()
    storage = RedisStorage(f"redis://127.0.0.1:{listener.getsockname()[1]}", ALONE)
    for _ in range(2):
        assert storage.resilience_keys() == []
    storage.close()
    thread.join()
    listener.close()


def test_a_server_that_hangs_before_it_knows_who_asks(redis_server: RedisServer) -> None:
    storage = RedisStorage(f"redis://:secret@127.0.0.1:{redis_server.port}", ALONE)
    redis_server.stop()
    try:
        with pytest.raises(StorageUnavailable, match="did not answer in time") as caught:
            storage.resilience_save(KEY, b"1", None, None, 0.05)
    finally:
        redis_server.go_on()
    assert not caught.value.outcome_unknown  # the record was not sent yet
    storage.close()


def test_who_is_interrupted_leaves_no_answer_for_the_next(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    storage = RedisStorage(redis_server.url, ALONE)
    storage.resilience_save(KEY, b"1", None, None, 1)
    with monkeypatch.context() as patch:
        patch.setattr(_connections, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            storage.resilience_load(KEY, 1)
    assert storage.resilience_load(Key("test", "another"), 1).payload is None
    assert storage.resilience_load(KEY, 1).payload == b"1"
    storage.close()


def test_what_is_imported_first_takes_nothing_of_the_time(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    redis_proxy.delay(0.02)
    program = f"""
import sys, threading
class Slow:
    def find_spec(self, name, path, target=None):
        if name == "redis.connection":
            threading.Event().wait(0.3)
sys.meta_path.insert(0, Slow())
from resilience import CircuitBreaker, Runtime
with Runtime(storage="redis://127.0.0.1:{redis_proxy.port}", environ={{}}):
    first = CircuitBreaker("first")
    first.reset()  # a load and a save: all of it within the time-out
    print(first.status().version is None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "False\n", done.stderr
    assert redis_server.pid


# --- of several, one does not answer ----------------------------------------------------------------------------------

URL = "redis+sentinel://a,b,c/m"


class Silent(Connections):
    """Nobody answers."""

    def __init__(self) -> None:
        super().__init__(Manner(parse(URL), ALONE), 1)
        self.asked: list[str] = []

    def _ask(self, address: Address, commands: object, deadline: float) -> list[Any]:
        self.asked.append(address.host)
        raise Unreached(address, "it did not answer in time", sent=True)


class SilentLoop(LoopConnections):
    """Nobody answers."""

    def __init__(self) -> None:
        super().__init__(Manner(parse(URL), ALONE), 1)
        self.asked: list[str] = []

    async def _ask(self, address: Address, commands: object, deadline: float) -> list[Any]:
        self.asked.append(address.host)
        raise Unreached(address, "it did not answer in time", sent=True)


def test_the_next_sentinel_is_asked_first_after_one_that_took_all_the_time() -> None:
    silent, route = Silent(), route_of(parse(URL))
    for _ in range(4):
        with pytest.raises(Unreached) as caught:
            silent.drive(route.find(b""), 0)
        assert not caught.value.sent  # the server was not asked: nothing was saved
    assert silent.asked == ["a", "b", "c", "a"]


def test_and_so_do_coroutines() -> None:
    async def ask() -> list[str]:
        silent, route = SilentLoop(), route_of(parse(URL))
        for _ in range(2):
            with pytest.raises(Unreached):
                await silent.drive(route.find(b""), -1)
        return silent.asked

    assert asyncio.run(ask()) == ["a", "b"]


def test_coroutines_ask_the_next_sentinel_while_there_is_time() -> None:
    async def ask() -> list[str]:
        silent, route = SilentLoop(), route_of(parse(URL))
        with pytest.raises(Unreached):
            await silent.drive(route.find(b""), 60)
        return silent.asked

    assert asyncio.run(ask()) == ["a", "b", "c"]


def test_other_threads_go_through_the_servers_meanwhile() -> None:
    route = route_of(parse("redis+cluster://a,b"))
    addresses = route.everywhere()
    first, _ = next(addresses)
    route.lose(b"k", first)
    with pytest.raises(Unreached):
        second, _ = addresses.throw(Unreached(first, "down", sent=False))
        assert second != first
        addresses.throw(Unreached(second, "down", sent=False))


def test_loops_of_other_threads_begin_meanwhile(redis_server: RedisServer) -> None:
    storage = RedisStorage(redis_server.url, ALONE)

    async def load() -> bytes | None:
        return (await storage.resilience_aload(KEY, 1)).payload

    class Beginning(asyncio.SelectorEventLoop):
        """While it is looked at, another thread does the same, and another loop begins."""

        def is_closed(self) -> bool:
            if storage._loops is not None and self in storage._loops._loops:
                del storage._loops._loops[self]
                storage._loops._loops[another] = made
            return super().is_closed()

    assert asyncio.run(load()) is None
    assert isinstance(storage._loops, Loops)
    another, kept = asyncio.new_event_loop(), Beginning()
    kept.close()
    another.close()
    made: Any = None
    storage._loops._loops[kept] = made
    assert asyncio.run(load()) is None
    storage.close()


# --- errors and damage ------------------------------------------------------------------------------------------------


def test_a_server_that_repeats_what_it_was_told() -> None:
    said = "unknown command 'AUTH', with args beginning with: 'us' 'swordfish' "
    assert str(refusal(Address("h", 1), Exception(said))) == "h:1: unknown command 'AUTH'"


def test_a_turn_that_somebody_wrote_by_hand(redis_server: RedisServer) -> None:
    storage = RedisStorage(redis_server.url, ALONE)
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.hset(storage.names.of(KEY), "until", "soon")
    assert storage.resilience_save(KEY, b"2", saved.version, None, 1).payload == b"2"
    storage.close()
