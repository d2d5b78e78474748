"""Coroutines: the same hooks awaited, connections that belong to their loop and end with it."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, Key, Runtime, StorageConflict, StorageUnavailable
from resilience_redis import RedisSettings, RedisStorage
from resilience_redis._loops import Loops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.proxy import Proxy
    from servers.redis_server import RedisServer

KEY = Key("test", "awaited")


@pytest.fixture
def storage(redis_server: RedisServer) -> Iterator[RedisStorage]:
    storage = RedisStorage(redis_server.url, RedisSettings(push=False, max_connections=4))
    yield storage
    storage.close()


def clients(server: RedisServer) -> int:
    with server.admin() as admin:
        return len(admin.client_list()) - 1


def test_connections_are_bounded_and_end_with_their_loop(storage: RedisStorage, redis_server: RedisServer) -> None:
    async def crowd() -> int:
        await asyncio.gather(*(storage.resilience_aload(KEY, 5) for _ in range(30)))
        return await asyncio.to_thread(clients, redis_server)

    for _ in range(2):
        assert 1 <= asyncio.run(crowd()) <= 4
        gc.collect()  # what was not closed would warn
        assert storage._loops is not None
        assert storage._loops._loops == {}
    end = time.monotonic() + 5
    while clients(redis_server) and time.monotonic() < end:
        time.sleep(0.01)
    assert clients(redis_server) == 0


def test_loops_of_two_threads_that_begin_at_once_both_end_with_their_connections(
    storage: RedisStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2, timeout=30)

    class Slow(Loops):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            both.wait()

    monkeypatch.setattr("resilience_redis._loops.Loops", Slow)

    async def is_known() -> bool:
        await storage.resilience_aload(KEY, 5)
        assert storage._loops is not None
        return asyncio.get_running_loop() in storage._loops._loops

    with ThreadPoolExecutor(2) as threads:
        begun = [threads.submit(asyncio.run, is_known()) for _ in range(2)]
        assert [each.result() for each in begun] == [True, True]


def test_a_loop_that_was_closed_without_an_end_is_forgotten(storage: RedisStorage) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(storage.resilience_aload(KEY, 5))
    assert storage._loops is not None
    ((connections, _),) = storage._loops._loops.values()
    loop.run_until_complete(connections.close())
    loop.close()
    asyncio.run(storage.resilience_aload(KEY, 5))
    assert storage._loops._loops == {}


def test_a_loop_that_another_begins_beside_keeps_its_connections(storage: RedisStorage) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(storage.resilience_aload(KEY, 5))
    asyncio.run(storage.resilience_aload(KEY, 5))
    assert storage._loops is not None
    assert list(storage._loops._loops) == [loop]
    loop.run_until_complete(storage.resilience_aload(KEY, 5))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert storage._loops._loops == {}


def test_a_child_uses_nothing_that_is_its_parents_without_a_listener_too(storage: RedisStorage) -> None:
    loop = asyncio.new_event_loop()
    storage.resilience_load(KEY, 5)
    loop.run_until_complete(storage.resilience_aload(KEY, 5))
    assert storage._loops is not None
    storage.after_fork()
    assert (storage._connections._idle, storage._loops._loops) == ({}, {})
    assert storage.resilience_load(KEY, 5).payload is None
    assert asyncio.run(storage.resilience_aload(KEY, 5)).payload is None
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_awaited_and_called_are_told_of_each_other(redis_server: RedisServer) -> None:
    storage = RedisStorage(redis_server.url)

    async def both() -> None:
        first = await storage.resilience_asave(KEY, b"1", None, time.time() + 100, 5)
        called = storage.resilience_load(KEY, 5)
        second = await storage.resilience_asave(KEY, b"2", first.version, None, 5)
        assert called.is_current is not None
        assert not called.is_current()
        assert second.is_current is not None
        assert second.is_current()
        with pytest.raises(StorageConflict) as caught:
            await storage.resilience_asave(KEY, b"3", first.version, None, 5)
        assert caught.value.current is not None
        assert caught.value.current.payload == b"2"
        assert caught.value.current.time == pytest.approx(time.time(), abs=5)

    asyncio.run(both())
    storage.close()


def test_it_answers_in_time_and_leaves_no_half_read_connection(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    storage = RedisStorage(f"redis://127.0.0.1:{redis_proxy.port}", RedisSettings(push=False, max_connections=1))

    async def troubled() -> None:
        saved = await storage.resilience_asave(KEY, b"1", None, None, 5)
        redis_proxy.hang()
        begun = time.monotonic()
        with pytest.raises(StorageUnavailable) as caught:
            await storage.resilience_asave(KEY, b"2", saved.version, None, 0.1)
        assert time.monotonic() - begun < 0.1 + 1.0
        assert caught.value.outcome_unknown
        waiting = asyncio.create_task(storage.resilience_aload(KEY, 5))
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailable, match="of this event loop"):
            await storage.resilience_aload(KEY, 0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        redis_proxy.recover()
        found = await storage.resilience_aload(KEY, 5)
        assert found.payload in {b"1", b"2"}
        redis_proxy.cut()
        loops: Any = storage._loops
        ((connections, _),) = loops._loops.values()
        ((idle,),) = connections._idle.values()
        while not idle._reader.at_eof() and idle._reader.exception() is None:  # the loop has to hear of it
            await asyncio.sleep(0.001)
        assert (await storage.resilience_aload(KEY, 5)).payload in {b"1", b"2"}  # what hung may get there only now
        redis_proxy.cut_after(b"EVALSHA")
        with pytest.raises(StorageUnavailable) as caught:
            await storage.resilience_asave(KEY, b"3", found.version, None, 5)
        assert caught.value.outcome_unknown
        redis_proxy.refuse()
        with pytest.raises(StorageUnavailable) as caught:
            await storage.resilience_asave(KEY, b"4", found.version, None, 1)
        assert not caught.value.outcome_unknown

    asyncio.run(troubled())


def test_a_user_who_is_refused(redis_server: RedisServer) -> None:
    storage = RedisStorage(f"redis://nobody:wrong@127.0.0.1:{redis_server.port}/2", RedisSettings(push=False))
    with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__PASSWORD"):
        asyncio.run(storage.resilience_aload(KEY, 5))


def test_one_breaker_for_tasks_and_threads(redis_server: RedisServer) -> None:
    async def failing() -> None:
        raise ConnectionError

    with Runtime(storage=redis_server.url, environ={}) as runtime:
        guarded = CircuitBreaker("both", runtime=runtime, failure_threshold=20)

        async def together() -> None:
            results = await asyncio.gather(*(guarded.acall(failing) for _ in range(15)), return_exceptions=True)
            assert {type(result) for result in results} == {ConnectionError}

        asyncio.run(together())
        for _ in range(5):
            guarded.record_failure()
        with pytest.raises(CircuitOpenError):
            asyncio.run(guarded.acall(failing))


CHILD = """
import asyncio, os, sys, warnings
warnings.simplefilter("error")
from resilience import Key
from resilience_redis import RedisSettings, RedisStorage

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
key, storage = Key("test", "forked"), RedisStorage(sys.argv[1], RedisSettings(push=False))

async def main():
    saved = await storage.resilience_asave(key, b"1", None, None, 5)
    child = os.fork()
    if child == 0:
        asyncio.run(in_child())  # the loop that it was forked in is its parent's
        os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert (await storage.resilience_aload(key, 5)).payload == b"child"

async def in_child():
    found = await storage.resilience_aload(key, 5)
    await storage.resilience_asave(key, b"child", found.version, None, 5)

asyncio.run(main())
print("well")
"""


def test_a_child_has_connections_of_its_own(redis_server: RedisServer) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, redis_server.url],
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("well\n", "", 0)
