"""The edges of the core: views that are released, answers that come late, outages that meet locks, and the parts."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import threading
import types
from array import array
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
from storages import Faulty

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    CircuitStatus,
    Event,
    Key,
    PluginError,
    PolicyRejected,
    Runtime,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
    Transition,
    Version,
    Word,
    plugins,
)
from resilience.announce import Announcer
from resilience.commit import Committed
from resilience.fallback import PrivateRecord
from resilience.fuse import RETRY_EVERY, SILENCE, SPREAD, Fuse
from resilience.gather import Owed, Row
from resilience.policy import FOREVER, Move, Refusal, Report, Step
from resilience.ports import Observers
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from pathlib import Path

    from storages import Recorder

    from resilience.cell import Cell
    from resilience.testing import ManualClock

pytestmark = pytest.mark.usefixtures("storages_of_tests")

KEY = Key("circuit_breaker", "payments")
DOWN = StorageUnavailable("the storage is down")
LATE = StorageLockTimeout("somebody else has the lock", key=KEY)


def make(**settings: Any) -> CircuitBreaker:
    chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
    return CircuitBreaker("payments", **chosen)


def fail(breaker: CircuitBreaker) -> None:
    def failing() -> None:
        raise KeyError("the dependency")

    with pytest.raises(KeyError):
        breaker.call(failing)


async def well() -> str:
    await asyncio.sleep(0)
    return "well"


async def afail(breaker: CircuitBreaker) -> None:
    async def failing() -> None:
        raise KeyError("the dependency")

    with pytest.raises(KeyError):
        await breaker.acall(failing)


@pytest.fixture
def storage(runtime: Runtime) -> Faulty:
    return runtime.opened.storage


def everything_fails(storage: Faulty) -> None:
    storage.always = dict.fromkeys(["load", "save", "lock", "aload", "asave"], DOWN)


# --- what a storage shows is released or raises -----------------------------------------------------------------------


class Mapped(Faulty):
    """Shows its version as a word that may be unmapped at any time."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url, settings)
        self.view = memoryview(array("Q", [1]))

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return self._mapped(super()._load(key, timeout))

    def _save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super()._save(key, payload, expected, expires_at, timeout)
        self.view[0] += 1
        return self._mapped(saved)

    def _mapped(self, snapshot: Snapshot) -> Snapshot:
        return Snapshot(snapshot.payload, snapshot.version, Word(self.view, self.view[0]))

    def release(self) -> None:
        """Map anew: whoever looks at what was mapped before gets a `ValueError`."""
        old, self.view = self.view, memoryview(array("Q", [self.view[0]]))
        old.release()


def _without_a_brace(load: Callable[[Key, float], Snapshot], key: Key, timeout: float) -> Snapshot:
    version = load(key, timeout).version
    assert version is not None
    return Snapshot(b"{", Version(version.incarnation, version.number + 1))


def by_call(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    breaker.call(work)


def by_block(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    with breaker:
        work()


def by_coroutine(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async def working() -> None:
        work()

    asyncio.run(breaker.acall(working))


def by_async_block(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async def working() -> None:
        async with breaker:
            work()

    asyncio.run(working())


def by_generator(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    @breaker
    def working() -> Iterator[None]:
        work()
        yield

    for _ in working():
        pass


WAYS = [by_call, by_block, by_coroutine, by_async_block, by_generator]


class TestReadAhead:
    """What others committed is read before the lock is taken, which then is held for less."""

    @pytest.mark.parametrize(
        ("seconds", "asked"),
        [(1.0, ["load", "lock", "save"]), (0.0, ["lock", "load", "save"])],
        ids=["now and then", "in a row: hardly anybody committed in between"],
    )
    def test_before_the_lock(self, seconds: float, asked: list[str], clock: ManualClock) -> None:
        storage = Mapped(f"mapped:ahead {seconds}")
        clock.advance(1.0)
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            breaker.record_failure()
            clock.advance(seconds)
            storage.view[0] += 1
            storage.calls.clear()
            breaker.record_failure()
            assert storage.calls == asked
            storage.calls.clear()
            clock.advance(seconds)
            breaker.record_failure()
            assert storage.calls == ["lock", "save"]
            assert breaker.status().failure_count == 3

    def test_a_storage_that_does_not_answer_is_asked_once(self, clock: ManualClock) -> None:
        storage = Mapped("mapped:ahead of an outage")
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            breaker.record_failure()
            clock.advance(1.0)
            storage.view[0] += 1
            storage.calls.clear()
            storage.plan("load", DOWN)
            breaker.record_failure()
            assert storage.calls == ["load"]
            assert breaker.status().degraded

    @pytest.mark.parametrize("damage", [StorageCorrupt("damaged", key=KEY), _without_a_brace], ids=["record", "text"])
    def test_what_is_damaged_is_seen_to_under_the_lock(self, damage: Any, clock: ManualClock) -> None:
        storage = Mapped(f"mapped:ahead of damage {damage}")
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            breaker.record_failure()
            clock.advance(1.0)
            storage.view[0] += 1
            storage.calls.clear()
            storage.plan("load", damage)
            breaker.record_failure()
            assert storage.calls == ["load", "lock", "load", "save"]
            assert breaker.status().failure_count == 2

    def test_an_older_record_is_told_of(self, clock: ManualClock, told: Recorder) -> None:
        def older(load: Callable[[Key, float], Snapshot], key: Key, timeout: float) -> Snapshot:
            snapshot = load(key, timeout)
            assert snapshot.version is not None
            return Snapshot(snapshot.payload, Version(snapshot.version.incarnation, 0))

        storage = Mapped("mapped:ahead of an older one")
        with Runtime(storage=storage, clock=clock, observers=[told], environ={}):
            breaker = make()
            breaker.record_failure()
            clock.advance(1.0)
            storage.view[0] += 1
            storage.plan("load", older)
            breaker.record_failure()
        assert [(event.name, event.data) for event in told.events] == [("version_regression", {"seen": 1, "found": 0})]


class TestReleased:
    @pytest.mark.parametrize("way", WAYS)
    def test_between_two_calls(self, way: Any, clock: ManualClock) -> None:
        storage = Mapped(f"mapped:{way.__name__}")
        done: list[int] = []
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            way(breaker, lambda: done.append(1))
            storage.release()
            storage.calls.clear()
            way(breaker, lambda: done.append(2))
            assert storage.calls == ["load"]
            way(breaker, lambda: done.append(3))
            assert storage.calls == ["load"]
        assert done == [1, 2, 3]

    @pytest.mark.parametrize("earlier", [0, 1])
    @pytest.mark.parametrize("way", WAYS)
    def test_during_a_call(self, way: Any, earlier: int, clock: ManualClock) -> None:
        """With an earlier call it is known already what a success means here."""
        storage = Mapped(f"mapped:during {way.__name__} {earlier}")
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            elsewhere = make(runtime=Runtime(storage=storage, clock=clock, environ={}))
            for _ in range(earlier):
                way(breaker, lambda: None)

            def failed_elsewhere() -> None:
                elsewhere.record_failure()
                storage.release()

            way(breaker, failed_elsewhere)
            assert elsewhere.status().failure_count == 0  # the success was reported, and ended the streak of one

    def test_before_a_failure_is_committed(self, clock: ManualClock) -> None:
        storage = Mapped("mapped:failure")
        with Runtime(storage=storage, clock=clock, environ={}):
            breaker = make()
            fail(breaker)
            storage.release()
            storage.calls.clear()
            breaker.record_failure()
            assert storage.calls == ["lock", "load", "save"]
            assert breaker.status().failure_count == 2


def test_a_snapshot_that_raises_when_asked_is_not_current(storage: Faulty) -> None:
    def raising() -> bool:
        raise OSError("the mapping is gone")

    def unsure(well: Callable[..., Snapshot], *arguments: object) -> Snapshot:
        snapshot = well(*arguments)
        return Snapshot(snapshot.payload, snapshot.version, raising)

    storage.always = {"load": unsure, "save": unsure}
    breaker = make()
    breaker.call(lambda: 1)
    storage.calls.clear()
    assert breaker.call(lambda: 2) == 2
    assert "load" in storage.calls
    fail(breaker)
    assert breaker.status().failure_count == 1


# --- policies that are alike ------------------------------------------------------------------------------------------


def test_guards_with_the_same_settings_share_one_policy(runtime: Runtime) -> None:
    def made(name: str, **given: object) -> object:
        return runtime.policy(CircuitBreakerPolicy, name, given)

    one = made("a", failure_threshold=1, ignore=KeyError)
    assert made("b", failure_threshold=1, ignore=KeyError) is one
    assert made("a", failure_threshold=1, ignore=KeyError) is one
    assert made("a", failure_threshold=1) is not one
    assert made("a", half_open_max_calls=1) is not made("a", half_open_max_calls=2)
    assert made("a", failure_on=[KeyError]) is not made("a", failure_on=[KeyError])
    assert runtime.policy(CircuitBreakerPolicy, "a", None) is not made("a")
    assert runtime.policy(CircuitBreakerPolicy, "a", None, {"failure_threshold": 2}) is not made("a")


def test_a_guard_with_variables_of_its_own_shares_with_nobody(tmp_path: Path) -> None:
    environ = {"RESILIENCE_POLICIES__A__CIRCUIT_BREAKER__FAILURE_THRESHOLD": "7"}
    with Runtime(storage=f"faulty:{tmp_path}", environ=environ) as runtime:
        others, its = (runtime.policy(CircuitBreakerPolicy, name, {}) for name in ("b", "a"))
        assert isinstance(others, CircuitBreakerPolicy)
        assert isinstance(its, CircuitBreakerPolicy)
        assert (others.config.failure_threshold, its.config.failure_threshold) == (3, 7)


# --- what a commit leaves behind --------------------------------------------------------------------------------------


def test_the_call_after_a_failure_asks_nobody(storage: Faulty, clock: ManualClock) -> None:
    """For a second at most: then somebody looks."""
    breaker = make(failure_threshold=9)
    assert breaker.call(lambda: 1) == 1
    clock.advance(0.5)
    fail(breaker)
    storage.calls.clear()
    with breaker:
        assert storage.calls == []
        clock.advance(1.1)
        assert breaker.check()
        assert storage.calls == ["load"]


def test_the_call_after_the_failure_that_opens_is_rejected(storage: Faulty) -> None:
    breaker = make(failure_threshold=2)
    fail(breaker)
    fail(breaker)
    assert not breaker.check()


def test_the_call_after_a_failure_sees_what_others_do(storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
    breaker = make(failure_threshold=9)
    fail(breaker)
    with Runtime(storage=runtime.url, clock=clock, environ={}) as other:
        CircuitBreaker("payments", runtime=other).force_open()
        assert not CircuitBreaker("payments", runtime=runtime).check()
        assert not breaker.check()


# --- answers ----------------------------------------------------------------------------------------------------------


def test_a_rejection_without_a_call_is_counted_and_asks_nobody(storage: Faulty) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    assert not breaker.check()
    storage.calls.clear()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    assert not breaker.check()
    assert storage.calls == []
    assert breaker.status().rejected_count == 3


def test_a_rejection_of_a_coroutine_is_counted_and_asks_nobody(storage: Faulty) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    assert not breaker.check()
    storage.calls.clear()

    async def ask() -> None:
        with pytest.raises(CircuitOpenError):
            await breaker.acall(well)

    asyncio.run(ask())
    assert storage.calls == []
    assert breaker.status().rejected_count == 2


def test_its_time_is_up_while_the_record_is_read(storage: Faulty, clock: ManualClock, told: Recorder) -> None:
    def slowly(well: Callable[..., Snapshot], *arguments: object) -> Snapshot:
        clock.advance(0.2)
        return well(*arguments)

    breaker = make(failure_threshold=1)
    fail(breaker)
    clock.advance(29.9)
    storage.plan("load", slowly)
    assert breaker.call(lambda: "let in") == "let in"
    assert told.moves == [("closed", "open"), ("open", "half_open")]


def test_a_guard_that_rejects_inside_itself_has_not_failed(runtime: Runtime, clock: ManualClock) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)

    @breaker
    def outer() -> None:
        breaker.call(pytest.fail)

    with pytest.raises(CircuitOpenError):
        outer()
    status = breaker.status()
    assert (status.state, status.permits_in_use, status.half_open_failures) == (CircuitState.HALF_OPEN, 0, 0)


def test_blocks_that_overlap_give_back_their_own_permits(runtime: Runtime, clock: ManualClock) -> None:
    one, other = (CircuitBreaker(name, failure_threshold=1, reset_timeout=30) for name in ("one", "other"))
    fail(one)
    fail(other)
    clock.advance(30)
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert [breaker.status().half_open_successes for breaker in (one, other)] == [1, 0]
    assert [breaker.status().permits_in_use for breaker in (one, other)] == [0, 1]
    other.__exit__(None, None, None)
    assert other.status().half_open_successes == 1


@pytest.mark.parametrize("way", ["call", "block"])
def test_a_coroutine_that_is_closed_gives_its_permit_back(runtime: Runtime, clock: ManualClock, way: str) -> None:
    breaker = make(failure_threshold=1, half_open_max_calls=1)
    fail(breaker)
    clock.advance(30)

    async def block() -> None:
        async with breaker:
            await asyncio.sleep(0)

    coroutine = block() if way == "block" else breaker.acall(asyncio.sleep, 0)
    coroutine.send(None)
    assert breaker.status().permits_in_use == 1
    coroutine.close()
    status = breaker.status()
    assert (status.state, status.permits_in_use, status.half_open_successes) == (CircuitState.HALF_OPEN, 0, 0)


def test_a_coroutine_function_is_not_called_as_a_function(runtime: Runtime) -> None:
    breaker = make()
    with pytest.raises(TypeError, match="coroutine function; await acall"):
        _ = breaker.call(well)


def later(*_: object) -> Any:
    return well()


@pytest.mark.parametrize("function", [len, str.upper, partial(str.upper)], ids=["builtin", "method", "partial"])
def test_what_cannot_be_awaited_is_not_judged(clock: ManualClock, runtime: Runtime, function: Any) -> None:
    breaker = make(failure_threshold=1)
    breaker.record_failure()
    clock.advance(30)
    with pytest.raises(TypeError, match=r"'payments'.*which cannot be awaited; use call") as raised:
        asyncio.run(breaker.acall(function, "abc"))
    assert raised.value.__cause__ is None
    status = breaker.status()
    assert (status.state, status.permits_in_use, status.half_open_failures) == (CircuitState.HALF_OPEN, 0, 0)


def test_a_generator_function_is_not_awaited(runtime: Runtime) -> None:
    breaker = make()

    async def steps() -> AsyncIterator[int]:
        yield 1

    function: Any = steps
    with pytest.raises(TypeError, match="generator function, which runs step by step; decorate it"):
        asyncio.run(breaker.acall(function))
    assert breaker.status().failure_count == 0


def test_what_returns_something_to_await_is_awaited(runtime: Runtime) -> None:
    @types.coroutine
    def older() -> Generator[None, None, str]:
        yield
        return "well"

    class Later:
        def __await__(self) -> Generator[Any, None, str]:
            return well().__await__()

    breaker = make()
    functions: list[Any] = [later, partial(well), Later, older, AsyncMock(return_value="well")]
    assert [asyncio.run(breaker.acall(function)) for function in functions] == ["well"] * len(functions)


def test_a_success_is_gathered_as_long_as_it_is_not_slow(storage: Faulty, clock: ManualClock) -> None:
    breaker = make(window="time", gather=60, slow_call_rate_threshold=0.5, slow_call_duration=0.25)
    for seconds in (0.0, 0.25, 0.25):
        breaker.call(clock.advance, seconds)
    assert storage.memory.resilience_load(KEY, 1).payload is None
    breaker.call(clock.advance, 0.375)
    assert storage.memory.resilience_load(KEY, 1).payload is not None
    status = breaker.status()
    assert (status.success_count, status.slow_count) == (4, 1)


def test_a_strict_report_raises_and_is_not_done(storage: Faulty) -> None:
    breaker = make()
    breaker.call(lambda: 1)
    storage.plan("lock", LATE, LATE)
    with pytest.raises(StorageLockTimeout):
        breaker.record_failure(strict=True)
    with pytest.raises(StorageLockTimeout):
        breaker.record_success(strict=True)
    assert breaker.status().failure_count == 0
    breaker.record_failure(strict=True)
    assert breaker.status().failure_count == 1


def test_a_strict_look_raises(storage: Faulty) -> None:
    breaker = make()
    storage.plan("load", DOWN)
    with pytest.raises(StorageUnavailable, match="down"):
        breaker.status(strict=True)


def test_what_was_shown_can_be_restored(runtime: Runtime, clock: ManualClock) -> None:
    breaker = make(failure_threshold=1)
    breaker.restore(CircuitStatus(CircuitState.OPEN, 5, clock.wall() - 10))
    status = breaker.status()
    assert (status.state, status.failure_count, status.retry_after) == (CircuitState.OPEN, 5, 20)


# --- outages ----------------------------------------------------------------------------------------------------------


def test_a_permit_of_a_private_copy_outlives_its_runtime(runtime: Runtime, storage: Faulty) -> None:
    breaker = make()
    everything_fails(storage)
    breaker.call(lambda: 1)
    permit = breaker.acquire()
    runtime.close()
    storage.always = {}
    storage.calls.clear()
    permit.failure()
    assert storage.calls == []
    assert breaker.status().failure_count == 0


def test_a_call_that_fails_while_the_lock_is_out_of_reach_is_owed(
    storage: Faulty, clock: ManualClock, told: Recorder
) -> None:
    breaker = make(failure_threshold=10)
    breaker.call(lambda: 1)
    storage.always = {"lock": LATE}
    for _ in range(2):
        breaker.record_failure()
    permit = breaker.acquire()
    permit.failure()
    assert told.names == ["degraded"]
    storage.always = {}
    clock.advance(1)
    assert breaker.status().failure_count == 3
    assert told.names == ["degraded", "recovered"]


def test_a_look_that_finds_the_lock_taken_is_no_recovery(storage: Faulty, clock: ManualClock, told: Recorder) -> None:
    breaker = make()
    everything_fails(storage)
    breaker.call(lambda: 1)
    storage.always = {"lock": LATE}
    clock.advance(1)
    assert breaker.status().degraded
    storage.calls.clear()
    assert breaker.status().degraded
    assert (storage.calls, told.names) == ([], ["degraded"])
    storage.always = {}
    clock.advance(1)
    assert not breaker.status().degraded


def test_what_was_gathered_waits_for_the_end_of_an_outage(storage: Faulty, clock: ManualClock, told: Recorder) -> None:
    breaker = make(window="time", gather=60)
    for _ in range(3):
        breaker.call(lambda: 1)
    everything_fails(storage)
    breaker.record_failure()
    storage.calls.clear()
    assert breaker.status().degraded
    assert storage.calls == []
    storage.always = {}
    clock.advance(1)
    status = breaker.status()
    assert (status.success_count, status.degraded) == (3, False)
    assert told.names == ["degraded", "recovered"]


def test_rejections_that_cannot_be_told_are_an_outage_in_the_end(
    storage: Faulty, clock: ManualClock, told: Recorder
) -> None:
    breaker = make(failure_threshold=1)
    fail(breaker)
    storage.always = {"lock": LATE}
    for outages in (0, 0, 1, 1):
        assert not breaker.check()
        assert told.names.count("degraded") == outages
        clock.advance(1.25)
    assert told.events[0].key == KEY
    storage.always = {}
    assert not breaker.check()
    assert told.names == ["degraded", "recovered"]
    assert breaker.status().state is CircuitState.OPEN


def test_a_record_set_aside_is_told_even_if_the_next_cannot_be_saved(storage: Faulty, told: Recorder) -> None:
    storage.memory.resilience_save(KEY, b"{", None, None, 1)
    storage.always = {"save": DOWN}
    breaker = make()
    breaker.record_failure()
    assert told.names == ["state_reset", "degraded"]
    assert storage.memory.resilience_load(KEY, 1).payload is None


# --- coroutines that find the lock taken ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["faulty", "awaited"])
class TestCoroutinesAndTheLock:
    """On the loop the lock is tried once; what finds it taken waits for it in a thread, the whole commit."""

    def test_an_admission(self, storage: Faulty, clock: ManualClock, told: Recorder) -> None:
        breaker = make(failure_threshold=1)
        fail(breaker)
        clock.advance(30)
        storage.plan("lock", LATE)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert (told.moves[-1], told.names) == (("open", "half_open"), [])

    def test_the_one_try_of_a_second(self, storage: Faulty, clock: ManualClock, told: Recorder) -> None:
        breaker = make()
        everything_fails(storage)
        breaker.call(lambda: 1)
        storage.always = {}
        storage.plan("lock", LATE)
        clock.advance(1)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert told.names == ["degraded", "recovered"]

    def test_a_report(self, storage: Faulty, told: Recorder) -> None:
        breaker = make()
        breaker.call(lambda: 1)
        storage.plan("lock", LATE)
        asyncio.run(afail(breaker))
        assert json.loads(storage.memory.resilience_load(KEY, 1).payload or b"{}")
        assert (breaker.status().failure_count, told.names) == (1, [])

    def test_what_was_gathered_and_is_due(self, storage: Faulty, clock: ManualClock, told: Recorder) -> None:
        breaker = make(window="time", gather=0.5)
        for _ in range(3):
            breaker.call(lambda: 1)
        clock.advance(0.6)
        storage.plan("lock", LATE)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert storage.memory.resilience_load(KEY, 1).payload is not None
        assert (breaker.status().success_count, told.names) == (4, [])

    @pytest.mark.parametrize("taken", [False, True])
    def test_the_last_that_there_is_room_for(self, storage: Faulty, told: Recorder, *, taken: bool) -> None:
        breaker = make(window="count", window_size=30, gather=60)

        async def succeed() -> None:
            for _ in range(2):
                await breaker.acall(well)
            assert storage.memory.resilience_load(KEY, 1).payload is None
            if taken:
                storage.plan("lock", LATE)
            await breaker.acall(well)

        asyncio.run(succeed())
        version = storage.memory.resilience_load(KEY, 1).version
        assert version is not None
        assert version.number == 1
        assert (breaker.status().success_count, told.names) == (3, [])


def test_cancelled_between_the_answer_and_its_caller_the_permit_comes_back(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class AtOnce(Executor):
        """A thread that has always done its work before the loop hears of it."""

        def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            handed_over.append(fn)
            done: Future[Any] = Future()
            asyncio.get_running_loop().call_soon(done.set_result, fn(*args, **kwargs))
            return done

    handed_over: list[object] = []
    monkeypatch.setattr("resilience.awaiting._workers", AtOnce)
    with Runtime(storage=f"threaded:{tmp_path}", clock=clock) as runtime:
        breaker = make(failure_threshold=1, half_open_max_calls=1)
        fail(breaker)
        clock.advance(30)

        async def main() -> None:
            task = asyncio.create_task(breaker.acall(well))
            await asyncio.sleep(0)
            assert permits(runtime.opened.storage) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert permits(runtime.opened.storage) == 0
            assert len(handed_over) == 2  # the admission, and giving back

        asyncio.run(main())
        status = breaker.status()
        assert (status.state, status.half_open_successes) == (CircuitState.HALF_OPEN, 0)


def permits(storage: Faulty) -> int:
    return len(json.loads(storage.memory.resilience_load(KEY, 1).payload or b"{}").get("permits", {}))


def test_nothing_is_asked_where_nothing_is_owed(storage: Faulty) -> None:
    breaker: Any = make()
    cell: Cell = breaker._bound()
    cell.reach().settle(cell)
    asyncio.run(cell.reach().asettle(cell))
    assert storage.calls == []


def garbage(well: object, *arguments: object) -> None:
    """Return nothing, as a broken plugin does."""


@pytest.mark.parametrize("hook", ["load", "save", "lock"])
def test_a_storage_that_answers_with_garbage_is_as_good_as_none(
    storage: Faulty, clock: ManualClock, told: Recorder, hook: str
) -> None:
    breaker = make(failure_threshold=2)
    fail(breaker)
    storage.always = {hook: garbage}
    clock.advance(1)
    assert breaker.status().failure_count == 1
    assert breaker.check()
    fail(breaker)
    with pytest.raises(CircuitOpenError):  # the private copy counted it
        asyncio.run(breaker.acall(well))
    assert breaker.status().degraded
    assert told.names == ["degraded"]
    assert f"storage faulty: {'its lock' if hook == 'lock' else hook}" in str(told.events[0].data["error"])
    storage.always = {}
    clock.advance(1)
    assert breaker.call(lambda: 1) == 1
    assert told.names == ["degraded", "recovered"]


@pytest.mark.parametrize("mode", ["deny", "raise"])
def test_garbage_is_an_outage_in_every_mode(storage: Faulty, mode: str) -> None:
    storage.always = {"load": garbage}
    breaker = make(on_store_error=mode)
    with pytest.raises((CircuitOpenError, StorageUnavailable), match="returned NoneType, not a Snapshot"):
        breaker.call(pytest.fail)


def test_a_look_raises_nothing_of_a_storage(storage: Faulty) -> None:
    storage.always = {"load": StorageConflict("which a load never meets")}
    assert make().status().degraded


class Odd(CircuitBreakerPolicy):
    """A policy with a bug."""

    __slots__ = ()

    def step(self, state: Any, event: Any, /) -> Step:
        if isinstance(event, Report):
            raise ZeroDivisionError("a bug of the policy")
        return super().step(state, event)


class OddBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Odd


def test_a_policy_with_a_bug_is_kept_from_who_reports(storage: Faulty, told: Recorder) -> None:
    breaker = OddBreaker("payments")
    permit = breaker.acquire()
    permit.success()
    assert told.names == ["degraded"]
    assert "a bug of the policy" in str(told.events[0].data["error"])


def test_a_policy_with_a_bug_concerns_its_key_alone(storage: Faulty, told: Recorder) -> None:
    OddBreaker("payments").record_failure()
    assert [(event.name, event.key) for event in told.events] == [("degraded", KEY)]
    assert "its policy raised ZeroDivisionError: a bug" in str(told.events[0].data["error"])
    other = CircuitBreaker("other", failure_threshold=1)
    fail(other)
    status = other.status()
    assert (status.state, status.degraded) == (CircuitState.OPEN, False)


class Unwritable(CircuitBreakerPolicy):
    """A policy whose states cannot be written, or have no end that it could tell."""

    __slots__ = ()

    @staticmethod
    def encode(state: Any, /) -> bytes:  # noqa: ARG004 - as it is called
        raise ZeroDivisionError("a bug of the policy")


class Endless(CircuitBreakerPolicy):
    __slots__ = ()

    def expires_at(self, state: Any, /) -> float | None:
        raise ZeroDivisionError("a bug of the policy")


class UnwritableBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Unwritable


class EndlessBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Endless


@pytest.mark.parametrize("kind", [UnwritableBreaker, EndlessBreaker])
def test_a_policy_that_cannot_write_its_state_is_named(
    storage: Faulty, told: Recorder, kind: type[CircuitBreaker]
) -> None:
    kind("payments").record_failure()
    assert [(event.name, event.key) for event in told.events] == [("degraded", KEY)]
    assert "its policy raised ZeroDivisionError: a bug" in str(told.events[0].data["error"])
    assert "save" not in storage.calls


class Choosy(CircuitBreakerPolicy):
    """A policy that cannot answer one kind of failure."""

    __slots__ = ()

    def step(self, state: Any, event: Any, /) -> Step:
        if isinstance(event, Report) and event.error == "Odd":
            raise ValueError("a bug of the policy")
        return super().step(state, event)


class ChoosyBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Choosy


def test_an_owed_report_that_the_policy_cannot_answer_is_given_up(storage: Faulty, told: Recorder) -> None:
    """Else each commit of its key would meet it again."""
    breaker = ChoosyBreaker("payments", failure_threshold=9)
    storage.plan("lock", StorageLockTimeout("held", key=KEY))
    breaker.record_failure("Odd")
    assert told.names == []
    fail(breaker)
    assert [(event.name, event.key) for event in told.events] == [("dropped", KEY)]
    assert "its policy raised ValueError: a bug" in str(told.events[0].data["error"])
    fail(breaker)
    assert breaker.status().failure_count == 2
    assert told.names == ["dropped"]


def test_a_policy_with_a_bug_is_kept_from_coroutines(storage: Faulty, told: Recorder) -> None:
    async def work() -> None:
        permit = OddBreaker("payments").acquire()
        await permit.areport("success", None, None)

    asyncio.run(work())
    assert told.names == ["degraded"]
    assert "a bug of the policy" in str(told.events[0].data["error"])


def test_garbage_is_kept_from_coroutines(storage: Faulty, told: Recorder) -> None:
    storage.always = {"save": garbage}
    breaker = make()
    asyncio.run(afail(breaker))
    assert told.names == ["degraded"]
    assert "save" in str(told.events[0].data["error"])


# --- the parts --------------------------------------------------------------------------------------------------------


class TestPrivateRecord:
    """What is used in an outage keeps the contract of every storage."""

    @pytest.mark.parametrize("version", [None, Version("abc", 7)])
    def test_it_goes_on_from_what_it_was_given(self, version: Version | None) -> None:
        ports = PrivateRecord(None if version is None else b"old", version).ports("x")
        before = ports.load(KEY, 0)
        assert (before.payload, before.version) == (None if version is None else b"old", version)
        saved = ports.save(KEY, b"new", version, None, 0)
        assert saved.version == (Version("private", 1) if version is None else Version("abc", 8))
        assert ports.load(KEY, 0).payload == b"new"
        assert [snapshot.is_current and snapshot.is_current() for snapshot in (before, saved)] == [False, True]

    def test_a_version_that_is_not_the_last_is_a_conflict(self) -> None:
        ports = PrivateRecord(b"old", Version("abc", 7)).ports("x")
        for wrong in (None, Version("abc", 6), Version("abd", 7)):
            with pytest.raises(StorageConflict) as conflict:
                ports.save(KEY, b"new", wrong, None, 0)
            assert conflict.value.current is ports.load(KEY, 0)
        assert ports.load(KEY, 0).payload == b"old"

    def test_its_lock_excludes_and_comes_back(self) -> None:
        ports = PrivateRecord(None, None).ports("x")
        with ports.lock(KEY, 0):
            for seconds in (0, 0.001):
                with pytest.raises(StorageLockTimeout, match="private copy"):
                    ports.lock(KEY, seconds)
        with pytest.raises(KeyError), ports.lock(KEY, 0):
            raise KeyError
        with ports.lock(KEY, 0):
            pass

    def test_discarded_it_is_empty(self) -> None:
        ports = PrivateRecord(b"{", Version("abc", 7)).ports("x")
        before = ports.load(KEY, 0)
        ports.discard(KEY, "damaged", 0)
        after = ports.load(KEY, 0)
        assert (after.payload, after.version) == (None, None)
        assert [snapshot.is_current and snapshot.is_current() for snapshot in (before, after)] == [False, True]
        assert ports.save(KEY, b"new", None, None, 0).payload == b"new"


class TestFuse:
    def test_one_outage(self) -> None:
        fuse = Fuse()
        assert (fuse.ask(0), fuse.mend(0), fuse.seconds_to_retry(0)) == (None, None, 0)
        assert fuse.blow(10, DOWN, 0.0, is_slow=False)
        assert not fuse.blow(10.5, LATE, 0.0, is_slow=False)
        assert fuse.ask(11) is LATE
        assert fuse.seconds_to_retry(11) == 0.5
        assert fuse.ask(10.5 + RETRY_EVERY) is None
        assert fuse.ask(10.5 + RETRY_EVERY) is LATE  # one caller a second
        fuse.retry_at_once()
        assert fuse.seconds_to_retry(0) == 0
        assert fuse.ask(11.5) is None
        assert fuse.mend(12) == 2
        assert (fuse.is_blown, fuse.error, fuse.mend(13)) == (False, None, None)

    def test_chance_adds_to_the_time_between_two_tries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        fuse = Fuse()
        waits: list[float] = []
        for chance in (0.0, 0.5, 1.0):
            fuse.blow(0, DOWN, chance, is_slow=False)
            waits.append(fuse.seconds_to_retry(0))
        assert waits == [RETRY_EVERY, RETRY_EVERY + SPREAD / 2, RETRY_EVERY + SPREAD]

    def test_it_is_slow_until_a_try_is_quick_or_nobody_asks_for_long(self) -> None:
        fuse = Fuse()
        seen: list[bool] = []
        for is_slow in (True, False, True):
            fuse.blow(0, DOWN, 0.0, is_slow=is_slow)
            seen.append(fuse.is_slow)
        for now in (RETRY_EVERY, 2 * RETRY_EVERY + SILENCE - 0.1, 4 * RETRY_EVERY + 2 * SILENCE):
            assert fuse.ask(now) is None
            seen.append(fuse.is_slow)
        assert seen == [True, False, True, True, True, False]

    def test_one_thread_of_many_may_ask(self) -> None:
        fuse = Fuse()
        fuse.blow(0, DOWN, 0.0, is_slow=False)
        together = threading.Barrier(8)
        answers: list[object] = []

        def ask() -> None:
            together.wait(10)
            answers.append(fuse.ask(5))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(map(str, answers)) == sorted([str(None), *[str(DOWN)] * 7])


def test_who_hears_only_transitions_is_told_no_event(runtime: Runtime, clock: ManualClock) -> None:
    heard: list[Any] = []
    announcer = Announcer(Observers([("x", heard.append)], []), clock)
    breaker: Any = make()
    cell: Cell = breaker._bound()
    done = Committed()
    done.now, done.version = 5.0, Version("abc", 2)
    done.moves, done.tells = ((Move("closed", "open", "3 failures"), 1),), (("reset", {}),)
    announcer.committed(cell, done)
    assert heard == [Transition(KEY, "closed", "open", "3 failures", 5.0, Version("abc", 2), 1)]
    assert not any(isinstance(told, Event) for told in heard)


def test_nothing_owed_is_nothing_to_take(runtime: Runtime) -> None:
    breaker: Any = make()
    owed = Owed(breaker._bound(), 1.0)
    assert not owed
    assert owed.take(2.0) == []
    owed.rejected.extend([None, None])
    assert owed
    taken = owed.take(2.0)
    assert [event.count for event in taken] == [2]
    assert not owed
    owed.give_back(taken, overdue=False)
    assert len(owed.rejected) == 2


def test_a_rejection_of_any_policy_is_whole_after_pickling() -> None:
    class LimitExceeded(PolicyRejected):
        pass

    globals()["LimitExceeded"] = LimitExceeded
    LimitExceeded.__qualname__ = "LimitExceeded"
    again = pickle.loads(pickle.dumps(LimitExceeded("too many calls", name="payments", retry_after=1.5)))
    assert type(again) is LimitExceeded
    assert (str(again), again.name, again.retry_after) == ("too many calls", "payments", 1.5)


def test_a_refusal_must_say_its_error() -> None:
    with pytest.raises(NotImplementedError):
        Refusal().error("payments", 0.0)


def test_a_policy_that_nothing_brings_is_named() -> None:
    with pytest.raises(PluginError, match="policy 'bulkhead'"):
        plugins.policy_class("bulkhead")


@pytest.mark.parametrize("calls", ["", "A", "AAA", "AAB", "ABB", "ABABA", "ABAC", "ABCADA"])
def test_each_row_of_calls_that_are_alike_is_one_report(calls: str) -> None:
    """Also where several guards of one name gather by turns."""
    owed = Owed(cell=None, now=0.0)  # type: ignore[arg-type]
    for name in calls:
        assert next(owed.enter(Row(Report(0.0, 0, "success", 0.0, ord(name), None, None), FOREVER, 64)).tickets)
    taken = [(chr(report.epoch or 0), report.count) for report in owed.take(0.0) if isinstance(report, Report)]
    assert taken == [(name, len(list(row))) for name, row in itertools.groupby(calls)]
