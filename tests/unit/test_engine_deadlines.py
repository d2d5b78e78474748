"""The time that a decision may take in all: what each hook is given of it, and who waits for a lock at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from storages import Awaited, Faulty

from resilience import CircuitBreaker, Key, Permit, Runtime, StorageConflict, StorageLockTimeout, StorageUnavailable
from resilience.fallback import PrivateRecord

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.testing import ManualClock

KEY = Key("circuit_breaker", "payments")
DOWN = StorageUnavailable("the storage is down")
TICK = 1 / 16
"""Seconds that each hook takes here; a decision may take four of them."""


def make(**settings: Any) -> CircuitBreaker:
    chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
    return CircuitBreaker("payments", **chosen)


def gathering(breaker: CircuitBreaker, times: int = 2) -> CircuitBreaker:
    for _ in range(times):
        breaker.call(int)
    return breaker


async def well() -> str:
    await asyncio.sleep(0)
    return "well"


def no_thread(*_: Any) -> None:
    pytest.fail("a thread is not needed, or there is no time for one")


async def failing() -> None:
    await asyncio.sleep(0)
    raise KeyError("the dependency")


async def fails(breaker: CircuitBreaker) -> None:
    with pytest.raises(KeyError):
        await breaker.acall(failing)


class Slow:
    """Lets each hook take its ticks, and notes how many it was given; who only tries a lock finds it `taken`."""

    def __init__(self, storage: Faulty, clock: ManualClock, *, taken: bool = False, ticks: int = 1) -> None:
        self.given: list[tuple[str, float]] = []
        self._ticks = ticks
        self._clock = clock
        self._taken = taken
        storage.always = {hook: self._hook(hook) for hook in ("load", "save", "lock", "discard")}
        storage.always |= {hook: self._awaited(hook) for hook in ("aload", "asave")}

    def _takes(self, hook: str, timeout: float) -> None:
        self.given.append((hook, timeout / TICK))
        self._clock.advance(self._ticks * TICK)
        if hook == "lock" and self._taken and not timeout:
            raise StorageLockTimeout("somebody else has the lock", key=KEY)

    def _hook(self, hook: str) -> Callable[..., Any]:
        def slow(well: Callable[..., Any], *arguments: Any) -> Any:
            self._takes(hook, arguments[-1])
            return well(*arguments)

        return slow

    def _awaited(self, hook: str) -> Callable[..., Awaitable[Any]]:
        async def slow(well: Callable[..., Any], *arguments: Any) -> Any:
            self._takes(hook, arguments[-1])
            return well(*arguments)

        return slow


@pytest.fixture
def storage(runtime: Runtime) -> Faulty:
    return runtime.opened.storage


# --- calls ------------------------------------------------------------------------------------------------------------


class TestCalls:
    """On a storage whose snapshots tell whether they are current."""

    def test_the_first_one_loads(self, storage: Faulty, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        make().call(int)
        assert slow.given == [("load", 4)]

    def test_a_failure_commits(self, storage: Faulty, clock: ManualClock) -> None:
        permit = make().acquire()
        slow = Slow(storage, clock)
        permit.failure()
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_a_probe_looks_and_commits(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1)
        breaker.record_failure()
        clock.advance(30)
        slow = Slow(storage, clock)
        permit = breaker.acquire()
        assert slow.given == [("load", 4), ("lock", 3), ("save", 2)]
        slow.given.clear()
        permit.success()
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_what_is_due_is_committed_first(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = gathering(make(window="time", gather=0.5))
        clock.advance(1.5)
        slow = Slow(storage, clock)
        breaker.call(int)
        assert slow.given == [("load", 4), ("lock", 3), ("save", 2)]

    def test_a_full_row_is_committed(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = gathering(make(window="count", window_size=30, gather=60))
        slow = Slow(storage, clock)
        breaker.call(int)
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_a_look_commits_what_is_owed(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = gathering(make(window="time", gather=60))
        slow = Slow(storage, clock)
        breaker.status()
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_a_control_commits(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        breaker.call(int)
        slow = Slow(storage, clock)
        breaker.force_open()
        breaker.record_failure(strict=True)
        assert slow.given == [("lock", 4), ("save", 3)] * 2

    def test_what_is_damaged_is_loaded_again_and_set_aside(self, storage: Faulty, clock: ManualClock) -> None:
        storage.memory.resilience_save(KEY, b"no JSON", None, None, 1)
        slow = Slow(storage, clock)
        make().record_failure()
        assert slow.given == [("lock", 4), ("load", 3), ("discard", 2), ("load", 1), ("save", 0)]

    def test_nobody_is_given_less_than_nothing(self, storage: Faulty, clock: ManualClock) -> None:
        storage.memory.resilience_save(KEY, b"no JSON", None, None, 1)
        slow = Slow(storage, clock, ticks=2)
        make().record_failure()
        assert slow.given == [("lock", 4), ("load", 2), ("discard", 0), ("load", 0), ("save", 0)]


@pytest.mark.parametrize("scheme", ["casual"])
class TestCallsThatLoad:
    """On a storage whose snapshots do not."""

    def test_a_failure(self, storage: Faulty, clock: ManualClock) -> None:
        permit = make().acquire()
        slow = Slow(storage, clock)
        permit.failure()
        assert slow.given == [("lock", 4), ("load", 3), ("save", 2)]

    def test_a_success(self, storage: Faulty, clock: ManualClock) -> None:
        permit = make().acquire()
        slow = Slow(storage, clock)
        permit.success()
        assert slow.given == [("load", 4)]

    def test_a_probe(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1)
        breaker.record_failure()
        clock.advance(30)
        slow = Slow(storage, clock)
        permit = breaker.acquire()
        assert slow.given == [("load", 4), ("lock", 3), ("load", 2), ("save", 1)]
        slow.given.clear()
        permit.success()
        assert slow.given == [("load", 4), ("lock", 3), ("load", 2), ("save", 1)]

    def test_a_look(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = gathering(make(window="time", gather=60))
        slow = Slow(storage, clock)
        breaker.status()
        assert slow.given == [("lock", 4), ("load", 3), ("save", 2), ("load", 1)]


class TestTheTryOfAnOutage:
    """It has the time of any other decision, and waits for the lock."""

    @pytest.fixture
    def breaker(self, storage: Faulty, clock: ManualClock) -> CircuitBreaker:
        breaker = gathering(make(window="time", gather=60))
        storage.always = {"lock": DOWN}
        assert breaker.status().degraded
        clock.advance(1)
        return breaker

    def test_of_a_call(self, breaker: CircuitBreaker, storage: Faulty, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        breaker.call(int)
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_of_a_report(self, breaker: CircuitBreaker, storage: Faulty, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        breaker.record_failure()
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_of_a_look(self, breaker: CircuitBreaker, storage: Faulty, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        assert not breaker.status().degraded
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_of_a_look_where_nothing_is_owed(
        self, breaker: CircuitBreaker, storage: Faulty, runtime: Runtime, clock: ManualClock
    ) -> None:
        runtime.opened.engine.settle_all()
        storage.always = {}
        clock.advance(1)
        runtime.opened.engine.settle_all()
        storage.always = {"lock": DOWN}
        breaker.record_failure()
        clock.advance(1)
        slow = Slow(storage, clock)
        assert not breaker.status().degraded
        assert slow.given == [("lock", 4), ("save", 3)]

    def test_of_the_end(self, breaker: CircuitBreaker, storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        runtime.opened.engine.settle_all()
        assert slow.given == [("lock", 4), ("save", 3)]


def test_a_private_copy_is_waited_for_by_whoever_reports_to_it(
    storage: Faulty, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads hold it for the length of a step."""
    seconds: list[float] = []
    hold = PrivateRecord._hold

    def noting(record: PrivateRecord, key: Key, timeout: float) -> Any:
        seconds.append(timeout)
        clock.advance(TICK)
        return hold(record, key, timeout)

    monkeypatch.setattr(PrivateRecord, "_hold", noting)
    breaker = gathering(make(window="count", window_size=30, gather=60), 1)
    storage.always = dict.fromkeys(["load", "save", "lock"], DOWN)
    breaker.record_failure()  # meets the outage
    assert seconds == [0.25]
    seconds.clear()
    breaker.acquire().success()  # let in by the copy
    gathering(breaker, 1)
    assert seconds == []
    gathering(breaker, 1)
    assert seconds == [0.25]  # it filled the row; those before it took no lock
    breaker.acquire().failure()
    assert seconds == [0.25] * 2


# --- coroutines -------------------------------------------------------------------------------------------------------


class TestCoroutines:
    """On the loop a lock is only tried; whoever finds it taken waits in a thread, for the time that is left."""

    @pytest.fixture(params=[False, True], ids=["free", "taken"])
    def taken(self, request: pytest.FixtureRequest) -> bool:
        return bool(request.param)

    def test_the_first_one_loads(self, storage: Faulty, clock: ManualClock) -> None:
        slow = Slow(storage, clock)
        assert asyncio.run(make().acall(well)) == "well"
        assert slow.given == [("load", 4)]

    def test_a_failure_commits(self, storage: Faulty, clock: ManualClock, *, taken: bool) -> None:
        breaker = make()
        breaker.call(int)
        slow = Slow(storage, clock, taken=taken)
        asyncio.run(fails(breaker))
        expected = [("lock", 0), ("lock", 3), ("save", 2)] if taken else [("lock", 0), ("save", 3)]
        assert slow.given == expected

    def test_a_probe_looks_and_commits(self, storage: Faulty, clock: ManualClock, *, taken: bool) -> None:
        breaker = make(failure_threshold=1)
        breaker.record_failure()
        clock.advance(30)
        slow = Slow(storage, clock, taken=taken)
        waited = [("lock", 2), ("save", 1)] if taken else [("save", 2)]

        async def probe() -> None:
            async with breaker:
                assert slow.given == [("load", 4), ("lock", 0), *waited]
                slow.given.clear()

        asyncio.run(probe())
        assert slow.given == ([("lock", 0), ("lock", 3), ("save", 2)] if taken else [("lock", 0), ("save", 3)])

    def test_what_is_due_is_committed_first(self, storage: Faulty, clock: ManualClock, *, taken: bool) -> None:
        breaker = gathering(make(window="time", gather=0.5))
        clock.advance(0.6)
        slow = Slow(storage, clock, taken=taken)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert slow.given == ([("lock", 0), ("lock", 3), ("save", 2)] if taken else [("lock", 0), ("save", 3)])

    def test_a_full_row_is_committed(
        self, storage: Faulty, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, *, taken: bool
    ) -> None:
        breaker = gathering(make(window="count", window_size=30, gather=60))
        slow = Slow(storage, clock, taken=taken)
        if not taken:
            monkeypatch.setattr("resilience.engine.in_thread", no_thread)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert slow.given == ([("lock", 0), ("lock", 3), ("save", 2)] if taken else [("lock", 0), ("save", 3)])

    def test_a_full_row_that_others_outrun_is_owed(
        self, storage: Faulty, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def overtaken(*_: Any) -> None:
            clock.advance(2 * TICK)
            raise StorageConflict("somebody else committed first", key=KEY)

        breaker = gathering(make(window="count", window_size=30, gather=60))
        monkeypatch.setattr("resilience.engine.in_thread", no_thread)
        storage.always = {"save": overtaken}
        assert asyncio.run(breaker.acall(well)) == "well"
        storage.always = {}
        assert breaker.status().success_count == 3

    def test_the_try_of_an_outage(self, storage: Faulty, clock: ManualClock, *, taken: bool) -> None:
        breaker = make()
        permit: Permit | None = breaker.acquire()
        expected = [("lock", 0), ("lock", 3), ("save", 2)] if taken else [("lock", 0), ("save", 3)]
        for _ in range(2):
            storage.always = {"lock": DOWN}
            breaker.record_failure()
            clock.advance(1)
            slow = Slow(storage, clock, taken=taken)
            if permit:
                asyncio.run(permit.areport("success", None, None))
                permit = None
            else:
                assert asyncio.run(breaker.acall(well)) == "well"
            assert slow.given == expected


@pytest.mark.parametrize("scheme", ["threaded"])
def test_in_a_thread_a_coroutine_waits_at_once(storage: Faulty, clock: ManualClock) -> None:
    breaker = make()
    slow = Slow(storage, clock)
    asyncio.run(fails(breaker))
    assert slow.given == [("load", 4), ("lock", 4), ("save", 3)]


@pytest.mark.parametrize("scheme", ["awaited"])
class TestAwaited:
    def test_a_failure(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        slow = Slow(storage, clock)
        asyncio.run(fails(breaker))
        assert slow.given == [("aload", 4), ("lock", 0), ("aload", 3), ("asave", 2)]

    def test_a_failure_that_finds_the_lock_taken(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        slow = Slow(storage, clock, taken=True)
        asyncio.run(fails(breaker))
        assert slow.given == [("aload", 4), ("lock", 0), ("lock", 3), ("load", 2), ("save", 1)]

    def test_a_success_of_a_permit(self, storage: Faulty, clock: ManualClock) -> None:
        permit = make().acquire()
        slow = Slow(storage, clock)
        asyncio.run(permit.areport("success", None, None))
        assert slow.given == [("aload", 4)]


class Telling(Awaited):
    """Awaited, with snapshots that tell whether they are current."""

    _load = Faulty._load
    _save = Faulty._save
    _lock = Faulty._lock


@pytest.mark.parametrize("taken", [False, True])
def test_an_awaited_row_is_committed_when_it_is_full(clock: ManualClock, *, taken: bool) -> None:
    storage = Telling("telling:")
    with Runtime(storage=storage, clock=clock) as runtime:
        breaker = gathering(make(runtime=runtime, window="count", window_size=30, gather=60))
        slow = Slow(storage, clock, taken=taken)
        assert asyncio.run(breaker.acall(well)) == "well"
    assert slow.given == [("lock", 0), *([("lock", 3), ("save", 2)] if taken else [("asave", 3)])]
