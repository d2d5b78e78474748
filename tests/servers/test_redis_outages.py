"""The server is down, hangs, forgets or refuses: what callers see, within which time, and what is counted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from storages import Recorder

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Key, Runtime, StorageUnavailable
from resilience.testing import wait_until
from resilience_redis import RedisStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.proxy import Proxy
    from servers.redis_server import RedisServer

TIMEOUT = 0.1
MARGIN = 1.0
"""Seconds that a busy machine may take to answer besides what was waited."""


class World:
    """A runtime of this process, and what its observers were told."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.told = Recorder()
        self.runtime = Runtime(storage=url, storage_timeout=timeout, observers=[self.told], environ={})

    def breaker(self, mode: Any = "local", **settings: Any) -> CircuitBreaker:
        settings = {"failure_threshold": 3, "reset_timeout": 60, **settings}
        return CircuitBreaker("shared", runtime=self.runtime, on_store_error=mode, **settings)


@pytest.fixture
def world(redis_proxy: Proxy) -> Iterator[World]:
    """Asks the server through the proxy."""
    world = World(f"redis://127.0.0.1:{redis_proxy.port}")
    yield world
    world.runtime.close()


@pytest.fixture
def patient(redis_proxy: Proxy) -> Iterator[World]:
    """Asks through the proxy as well, and takes a machine that has much to do for no outage."""
    world = World(f"redis://127.0.0.1:{redis_proxy.port}", 30)
    yield world
    world.runtime.close()


@pytest.fixture
def elsewhere(redis_server: RedisServer) -> Iterator[World]:
    """Another machine, whose way to the server is never in trouble, however much this one has to do."""
    world = World(redis_server.url, 30)
    yield world
    world.runtime.close()


def failing() -> None:
    raise ConnectionError


def seconds(function: Callable[[], object]) -> float:
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


# --- down, hung -------------------------------------------------------------------------------------------------------


def refuse(server: RedisServer, proxy: Proxy) -> None:
    proxy.refuse()


def hang(server: RedisServer, proxy: Proxy) -> None:
    proxy.hang()


def stop(server: RedisServer, proxy: Proxy) -> None:
    server.stop()


def pause(server: RedisServer, proxy: Proxy) -> None:
    with server.admin() as admin:
        admin.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # scripts are writes to it


TROUBLES = [refuse, hang, stop, pause]


def mend(server: RedisServer, proxy: Proxy) -> None:
    server.go_on()
    with server.admin() as admin:
        admin.execute_command("CLIENT", "UNPAUSE")
    proxy.recover()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_call_pays_the_time_out_once_and_what_follows_nothing(
    trouble: Any, world: World, redis_server: RedisServer, redis_proxy: Proxy
) -> None:
    guarded = world.breaker()
    guarded.record_failure()
    trouble(redis_server, redis_proxy)
    assert seconds(guarded.record_failure) < TIMEOUT + MARGIN
    assert guarded.status().degraded
    with pytest.raises(ConnectionError):
        guarded.call(failing)
    begun = time.monotonic()
    for _ in range(20):
        with pytest.raises(CircuitOpenError):  # by the one before the trouble and the two since
            guarded.call(int)
    assert time.monotonic() - begun < 2 * TIMEOUT + MARGIN
    assert world.told.names == ["degraded"]
    mend(redis_server, redis_proxy)
    wait_until(lambda: not guarded.status().degraded, "the return")
    assert world.told.names == ["degraded", "recovered"]


@pytest.mark.parametrize(
    ("mode", "seen"), [("allow", 0), ("deny", CircuitOpenError), ("raise", StorageUnavailable), ("local", 0)]
)
def test_the_server_is_down_at_start(mode: str, seen: Any, world: World, redis_proxy: Proxy) -> None:
    redis_proxy.refuse()
    guarded = world.breaker(mode)
    for _ in range(3):
        if seen == 0:
            assert guarded.call(int) == 0
        else:
            with pytest.raises(seen):
                guarded.call(int)
    assert world.told.names == ["degraded"]
    redis_proxy.recover()
    wait_until(lambda: not guarded.status().degraded, "the return")
    assert guarded.call(int) == 0


def test_open_stays_open_without_the_server(patient: World, elsewhere: World, redis_proxy: Proxy) -> None:
    here, there = patient.breaker(), elsewhere.breaker()
    for _ in range(3):
        there.record_failure()
    assert here.status().state == CircuitState.OPEN
    redis_proxy.refuse()
    for _ in range(3):
        with pytest.raises(CircuitOpenError):
            here.call(int)
    assert there.status().state == CircuitState.OPEN


def test_of_fifty_failing_calls_three_reach_the_dependency(world: World, redis_proxy: Proxy) -> None:
    redis_proxy.refuse()
    guarded = world.breaker()
    reached = 0
    for _ in range(50):
        try:
            guarded.call(failing)
        except ConnectionError:
            reached += 1
        except CircuitOpenError:
            pass
    assert reached == 3


def test_the_server_is_asked_once_a_second_while_it_is_down(world: World, redis_proxy: Proxy) -> None:
    guarded = world.breaker(failure_threshold=1000)
    guarded.record_failure()
    redis_proxy.hang()
    guarded.record_failure()
    before, begun = redis_proxy.connections, time.monotonic()
    while time.monotonic() < begun + 0.8:
        guarded.record_failure()
    # Those of the listening thread are its own: it tries again after each time-out.
    asked = redis_proxy.connections - before
    assert asked <= 1 + 2 * (time.monotonic() - begun) / 0.25


# --- once or not at all -----------------------------------------------------------------------------------------------


def test_what_was_cut_after_it_was_sent_is_counted_once(patient: World, elsewhere: World, redis_proxy: Proxy) -> None:
    here, there = patient.breaker(), elsewhere.breaker()
    here.record_failure()
    redis_proxy.cut_after(b"EVAL")
    here.record_failure()  # was done, though nobody said so
    assert there.status().failure_count == 2
    wait_until(lambda: not here.status().degraded, "the return")
    assert here.status().failure_count == there.status().failure_count == 2


def test_a_save_whose_answer_was_cut_says_that_it_may_have_happened(
    redis_server: RedisServer, redis_proxy: Proxy
) -> None:
    key = Key("test", "cut")
    storage = RedisStorage(f"redis://127.0.0.1:{redis_proxy.port}")
    saved = storage.resilience_save(key, b"1", None, None, 1)
    redis_proxy.cut_after(b"EVALSHA")
    with pytest.raises(StorageUnavailable) as caught:
        storage.resilience_save(key, b"2", saved.version, None, 1)
    assert caught.value.outcome_unknown
    loaded = storage.resilience_load(key, 1)
    assert loaded.payload == b"2"
    redis_proxy.refuse()
    with pytest.raises(StorageUnavailable) as caught:
        storage.resilience_save(key, b"3", loaded.version, None, 1)
    assert not caught.value.outcome_unknown
    storage.close()


def test_a_connection_that_the_server_closed_meanwhile_is_noticed_before_it_is_used(redis_server: RedisServer) -> None:
    key = Key("test", "idle")
    storage = RedisStorage(redis_server.url)
    saved = storage.resilience_save(key, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert storage.resilience_save(key, b"2", saved.version, None, 1).payload == b"2"
    storage.close()


# --- what the server forgets ------------------------------------------------------------------------------------------


def test_flushed(elsewhere: World, redis_server: RedisServer) -> None:
    guarded = elsewhere.breaker()
    for _ in range(3):
        guarded.record_failure()
    with redis_server.admin() as admin:
        admin.flushall()
    wait_until(lambda: guarded.status().state == CircuitState.CLOSED, "what the flush means", 3)
    guarded.record_failure()
    assert guarded.status().failure_count == 1
    assert elsewhere.told.names == []


def test_restarted_with_nothing_in_it(elsewhere: World, redis_server: RedisServer) -> None:
    guarded = elsewhere.breaker()
    guarded.record_failure()
    before = guarded.status().version
    redis_server.kill()
    redis_server.start()
    guarded.record_failure()
    wait_until(lambda: not guarded.status().degraded, "the return")
    after = guarded.status().version
    assert before is not None
    assert after is None or after.partition("@")[2] != before.partition("@")[2]


def test_a_record_that_was_evicted_is_born_again(redis_server: RedisServer) -> None:
    key = Key("test", "evicted")
    storage = RedisStorage(redis_server.url)
    saved = storage.resilience_save(key, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.config_set("maxmemory-policy", "allkeys-random")
        admin.config_set("maxmemory", 1)  # everything goes at the next command
        with pytest.raises(StorageUnavailable, match="memory is full"):
            storage.resilience_save(key, b"2", None, None, 1)
        admin.config_set("maxmemory", 0)
        admin.config_set("maxmemory-policy", "noeviction")
        assert admin.dbsize() == 0
    born = storage.resilience_save(key, b"1", None, None, 1)
    assert saved.version is not None
    assert born.version is not None
    assert born.version.incarnation != saved.version.incarnation
    storage.close()


def test_expired(redis_server: RedisServer) -> None:
    key = Key("test", "expiring")
    storage = RedisStorage(redis_server.url)
    storage.resilience_save(key, b"1", None, time.time() + 0.05, 1)
    wait_until(lambda: storage.resilience_load(key, 1).payload is None, "the end of the record")
    # By a clock that is an hour slow this was long ago; by how much it is from now counts as well.
    storage.resilience_save(key, b"2", None, time.time() + 100, 1)
    with redis_server.admin() as admin:
        assert 99_000 < admin.pttl(storage.names.of(key)) <= 100_000
    storage.close()
