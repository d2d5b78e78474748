"""The particulars of the engine: what a hook is handed, what a report carries, who waits how long, what is not asked.

Each was found missing by a change of the code that no other test noticed, see `tests/mutation`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import warnings
import weakref
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from storages import giving

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    Event,
    Key,
    PluginError,
    Runtime,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.fallback import PrivateRecord
from resilience.permits import parse_token
from resilience.policy import Admit, Report, Step
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from storages import Faulty, Recorder

    from resilience.testing import ManualClock

pytestmark = pytest.mark.usefixtures("storages_of_tests")

KEY = Key("circuit_breaker", "payments")
DOWN = StorageUnavailable("the storage is down")
DOWN_FOR_ONE = StorageUnavailable("one record is out of reach", key=KEY)
LATE = StorageLockTimeout("somebody else has the lock", key=KEY)
TIMEOUT = 0.25
"""Seconds that the waiting of a decision takes at most, if nobody says otherwise."""


def make(name: str = "payments", **settings: Any) -> CircuitBreaker:
    chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
    return CircuitBreaker(name, **chosen)


def fail(breaker: CircuitBreaker) -> None:
    def failing() -> None:
        raise KeyError("the dependency")

    with pytest.raises(KeyError):
        breaker.call(failing)


async def fails(breaker: CircuitBreaker) -> None:
    async def failing() -> None:
        raise KeyError("the dependency")

    with pytest.raises(KeyError):
        await breaker.acall(failing)


async def well() -> str:
    await asyncio.sleep(0)
    return "well"


@pytest.fixture
def storage(runtime: Runtime) -> Faulty:
    return runtime.opened.storage


def everything_fails(storage: Faulty, fault: BaseException = DOWN) -> None:
    storage.always = dict.fromkeys(["load", "save", "lock", "aload", "asave"], fault)


class Patience:
    """Notes for how many seconds a lock may be waited for."""

    def __init__(self, storage: Faulty) -> None:
        self.seconds: list[float] = []
        storage.always = {"lock": self.lock}

    def lock(self, well: Callable[..., Any], key: Key, timeout: float) -> Any:
        self.seconds.append(timeout)
        return well(key, timeout)


# --- a strict report --------------------------------------------------------------------------------------------------


class TestStrictReports:
    def test_it_frees_the_permit_that_its_token_names(self, runtime: Runtime, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1, half_open_max_calls=2, half_open_success_threshold=9)
        fail(breaker)
        clock.advance(30)
        _, second = breaker.acquire(), breaker.acquire()
        for _ in range(2):
            breaker.record_success(token=second.token, strict=True)
        status = breaker.status()
        assert (status.permits_in_use, status.half_open_successes) == (1, 1)

    def test_it_belongs_to_the_epoch_of_its_token(self, runtime: Runtime) -> None:
        breaker = make()
        token = breaker.acquire().token
        breaker.force_open()
        breaker.close()
        breaker.record_failure(token=token, strict=True)
        status = breaker.status()
        assert (status.failure_count, status.late_count) == (0, 1)

    def test_it_says_what_failed_when_and_for_how_long(self, runtime: Runtime, clock: ManualClock) -> None:
        breaker = make(window="count", window_size=10, slow_call_rate_threshold=1, slow_call_duration=2)
        clock.advance(5)
        breaker.record_failure(OSError("x"), 3.0, strict=True)
        status = breaker.status()
        assert (status.failure_count, status.slow_count) == (1, 1)
        assert (status.last_error, status.last_failure_time) == ("OSError", clock.wall())


# --- who waits, and how long ------------------------------------------------------------------------------------------


class TestPatience:
    def test_a_control_waits_for_the_lock(self, storage: Faulty) -> None:
        patience = Patience(storage)
        make().force_open()
        assert patience.seconds == [TIMEOUT]

    def test_an_admission_waits_to_commit_what_is_due(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(window="time", gather=0.5)
        breaker.call(lambda: 1)
        clock.advance(0.6)
        patience = Patience(storage)
        breaker.call(lambda: 1)
        assert patience.seconds == [TIMEOUT]

    @pytest.mark.parametrize("scheme", ["faulty", "awaited"])
    def test_a_coroutine_waits_in_a_thread_for_the_time_that_is_left(self, storage: Faulty, clock: ManualClock) -> None:
        def slowly(well: Callable[..., Any], key: Key, timeout: float) -> Any:
            assert timeout == 0
            clock.advance(0.125)
            raise LATE

        async def gathering() -> None:
            for _ in range(3):
                await breaker.acall(well)

        breaker = make(window="count", window_size=30, gather=60)
        patience = Patience(storage)
        storage.plan("lock", slowly)
        asyncio.run(gathering())
        assert patience.seconds == [TIMEOUT - 0.125]
        assert storage.memory.resilience_load(KEY, 1).payload is not None

    def test_before_a_fork_all_keys_wait_as_long_as_one(
        self, storage: Faulty, runtime: Runtime, clock: ManualClock
    ) -> None:
        def slowly(well: Callable[..., Any], key: Key, timeout: float) -> Any:
            patience.seconds.append(timeout)
            clock.advance(0.125)
            raise LATE

        guards = [make(name, window="time", gather=60) for name in ("a", "b", "c")]
        for guard in guards:
            guard.call(lambda: 1)
        patience = Patience(storage)
        storage.always = {"lock": slowly}
        runtime.opened.engine.settle_before_fork()
        assert patience.seconds == [TIMEOUT, TIMEOUT - 0.125]  # then the time was up

    def test_so_does_the_one_try_of_a_key_that_is_out_of_reach(
        self, storage: Faulty, runtime: Runtime, clock: ManualClock
    ) -> None:
        seconds: list[float] = []

        def unreachable(*_: object) -> None:
            raise DOWN_FOR_ONE

        def slowly(_: object, key: Key, timeout: float) -> Any:
            seconds.append(timeout)
            clock.advance(0.125)
            raise StorageLockTimeout("somebody else has the lock", key=key)

        guards = [make(name, window="time", gather=60) for name in ("another", KEY.name)]
        for guard in guards:
            guard.call(lambda: 1)
        storage.always = {"lock": unreachable}
        assert guards[1].status().degraded
        clock.advance(1)
        storage.always = {"lock": slowly}
        runtime.opened.engine.settle_before_fork()
        assert seconds == [TIMEOUT, TIMEOUT - 0.125]

    def test_a_private_copy_is_waited_for(self, storage: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other threads hold it for the length of a step."""
        seconds: list[float] = []
        hold = PrivateRecord._hold

        def noting(record: PrivateRecord, key: Key, timeout: float) -> Any:
            seconds.append(timeout)
            return hold(record, key, timeout)

        monkeypatch.setattr(PrivateRecord, "_hold", noting)
        breaker = make(failure_threshold=1)
        fail(breaker)
        everything_fails(storage)
        breaker.record_failure()  # meets the outage
        breaker.record_failure()  # knows of it
        with pytest.raises(CircuitOpenError):
            asyncio.run(breaker.acall(well))
        assert seconds
        assert set(seconds) == {TIMEOUT}

    def test_a_private_copy_is_waited_for_by_who_probes(
        self, storage: Faulty, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seconds: list[float] = []
        hold = PrivateRecord._hold

        def noting(record: PrivateRecord, key: Key, timeout: float) -> Any:
            seconds.append(timeout)
            return hold(record, key, timeout)

        breaker = make(failure_threshold=1)
        fail(breaker)
        everything_fails(storage)
        clock.advance(30)
        monkeypatch.setattr(PrivateRecord, "_hold", noting)
        assert asyncio.run(breaker.acall(well)) == "well"
        assert seconds == [TIMEOUT] * 2


# --- outages ----------------------------------------------------------------------------------------------------------


class Counting(CircuitBreakerPolicy):
    """Counts how often it is asked to let a call in."""

    __slots__ = ()
    asked = 0

    def step(self, state: Any, event: Any, /) -> Step:
        if isinstance(event, Admit):
            Counting.asked += 1
        return super().step(state, event)


class CountingBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Counting


class TestOutage:
    def test_the_fast_road_goes_on_until_the_storage_may_be_asked_again(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        breaker = CountingBreaker("payments")
        for fault in (DOWN, DOWN_FOR_ONE, DOWN):  # the last: with a fuse of its own that is whole
            everything_fails(storage, fault)
            clock.advance(1)
            breaker.call(lambda: 1)
            asked = Counting.asked
            for _ in range(3):
                breaker.call(lambda: 1)
            clock.advance(0.9)
            breaker.call(lambda: 1)
            assert Counting.asked == asked
            storage.always = {}
            clock.advance(0.1)
            breaker.call(lambda: 1)
            assert not breaker.status().degraded

    def test_whoever_asks_a_private_copy_without_a_permit_reports_without_one(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        breaker = make(failure_threshold=1)
        fail(breaker)
        everything_fails(storage)
        clock.advance(30)
        assert breaker.check()
        breaker.record_success()
        status = breaker.status()
        assert (status.permits_in_use, status.half_open_successes) == (0, 1)

    def test_a_probe_of_a_private_copy_says_nothing_in_the_shared_state(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        """Its token is the copy's; the shared record may have given the same number to somebody else."""
        breaker = make(failure_threshold=1, half_open_max_calls=2)
        breaker.record_failure()
        clock.advance(30)
        shared = breaker.acquire()
        everything_fails(storage)
        clock.advance(1)
        private = breaker.acquire()
        assert private.lease is not None
        assert private.epoch == shared.epoch
        storage.always = {}
        clock.advance(1)
        assert not breaker.status().degraded
        private.success()
        status = breaker.status()
        assert (status.half_open_successes, status.permits_in_use) == (0, 1)

    def test_nor_does_a_call_that_began_in_a_state_that_only_the_copy_was_in(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        breaker = make(failure_threshold=1, half_open_success_threshold=1)
        everything_fails(storage)
        breaker.record_failure()
        clock.advance(30)
        breaker.acquire().success()
        private = breaker.acquire()
        assert (breaker.status().state, private.epoch, private.lease) == ("closed", 3, None)
        storage.always = {}
        clock.advance(1)
        assert not breaker.status().degraded
        private.failure()
        status = breaker.status()
        assert (status.state, status.late_count) == ("closed", 0)

    def test_a_call_of_one_outage_that_ends_in_the_next_is_counted_in_its_copy(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        breaker = make()
        everything_fails(storage)
        earlier = breaker.acquire()
        storage.always = {}
        clock.advance(1)
        assert not breaker.status().degraded
        everything_fails(storage)
        clock.advance(1)
        fail(breaker)
        earlier.failure()
        assert breaker.status().failure_count == 2

    def test_after_the_end_nobody_is_told_of_a_copy(self, storage: Faulty, runtime: Runtime, told: Recorder) -> None:
        breaker = make(failure_threshold=1)
        everything_fails(storage)
        permit = breaker.acquire()
        runtime.close()
        permit.failure()
        assert told.moves == []

    def test_what_nobody_accounts_for_is_not_counted_afterwards(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(on_store_error="allow")
        everything_fails(storage)
        permit = breaker.acquire()
        storage.always = {}
        clock.advance(1)
        permit.failure()
        assert breaker.status().failure_count == 0

    def test_a_denial_names_the_guard(self, storage: Faulty) -> None:
        everything_fails(storage)
        with pytest.raises(CircuitOpenError) as rejection:
            make(on_store_error="deny").call(pytest.fail)
        assert rejection.value.name == "payments"

    def test_what_breaks_its_contract_is_kept_as_the_cause(self, storage: Faulty) -> None:
        storage.always = {"load": giving(None)}
        with pytest.raises(StorageUnavailable) as raised:
            make(on_store_error="raise").call(pytest.fail)
        outage = raised.value.__cause__
        assert outage is not None
        assert isinstance(outage.__cause__, PluginError)

    def test_a_control_in_its_one_try_a_second_saves_though_nothing_changed(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make()
        everything_fails(storage)
        breaker.call(lambda: 1)
        storage.always = {"save": DOWN}
        clock.advance(1)
        with pytest.raises(StorageUnavailable):
            breaker.record_success(strict=True)
        storage.always = {}
        clock.advance(1)
        breaker.record_success(strict=True)
        assert told.names == ["degraded", "recovered"]

    def test_a_private_copy_gathers_and_commits(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(window="count", window_size=30, gather=60)
        everything_fails(storage)
        for _ in range(3):  # there is room for two
            breaker.call(lambda: 1)
        assert breaker.status().success_count == 3
        assert told.names == ["degraded"]  # what the copy does says nothing of the storage

    def test_so_it_does_for_coroutines(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(window="count", window_size=30, gather=60)
        everything_fails(storage)

        async def gathering() -> None:
            for _ in range(3):
                await breaker.acall(well)

        asyncio.run(gathering())
        assert breaker.status().success_count == 3
        assert told.names == ["degraded"]

    @pytest.mark.parametrize("fault", [DOWN, DOWN_FOR_ONE])
    def test_a_call_that_ends_in_an_outage_asks_nothing_to_settle(self, storage: Faulty, fault: Exception) -> None:
        breaker, another = (make(window="count", window_size=30, gather=60) for _ in range(2))
        for _ in range(2):
            breaker.call(lambda: 1)

        def meanwhile() -> None:
            everything_fails(storage, fault)
            another.call(lambda: 1)
            storage.calls.clear()

        breaker.call(meanwhile)
        assert storage.calls == []

    @pytest.mark.parametrize("fault", [DOWN, DOWN_FOR_ONE])
    def test_a_coroutine_that_ends_in_an_outage_asks_nothing_to_settle(self, storage: Faulty, fault: Exception) -> None:
        breaker, another = (make(window="count", window_size=30, gather=60) for _ in range(2))
        for _ in range(2):
            breaker.call(lambda: 1)

        async def meanwhile() -> str:
            everything_fails(storage, fault)
            another.call(lambda: 1)
            storage.calls.clear()
            return "well"

        assert asyncio.run(breaker.acall(meanwhile)) == "well"
        assert storage.calls == []

    @pytest.mark.parametrize("fault", [DOWN, DOWN_FOR_ONE])
    def test_a_coroutine_that_probes_a_private_copy_reports_to_it(
        self, storage: Faulty, clock: ManualClock, told: Recorder, fault: Exception
    ) -> None:
        breaker = make(failure_threshold=1)
        fail(breaker)
        everything_fails(storage, fault)
        clock.advance(30)
        assert asyncio.run(breaker.acall(well)) == "well"
        status = breaker.status()
        assert (status.permits_in_use, status.half_open_successes) == (0, 1)
        assert told.names == ["degraded"]

    def test_a_report_whose_one_try_finds_the_lock_taken_waits_for_it(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make()
        permit = breaker.acquire()
        everything_fails(storage, DOWN_FOR_ONE)
        clock.advance(1)
        breaker.call(lambda: 1)
        storage.always = {}
        storage.plan("lock", LATE)
        clock.advance(1)
        asyncio.run(permit.areport("failure", "KeyError", None))
        assert told.names == ["degraded", "recovered"]
        assert breaker.status().failure_count == 1

    def test_a_permit_that_nobody_accounts_for_names_its_epoch(self, storage: Faulty) -> None:
        breaker = make(on_store_error="allow")
        breaker.force_open()
        breaker.close()
        everything_fails(storage)
        breaker.record_failure()
        assert breaker.acquire().token == "2"

    def test_what_cannot_be_settled_is_an_outage_of_whom_it_concerns(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        """Of the storage, unless the error names a key."""
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        storage.plan("lock", DOWN, DOWN_FOR_ONE, OSError("cable"))
        for _ in range(3):
            assert breaker.status().degraded
            clock.advance(1)
        assert not breaker.status().degraded
        keys = [event.key for event in told.events if event.name == "degraded"]
        assert keys == [None, KEY]  # the third is the first of them again, which goes on

    @pytest.mark.parametrize("outcome", ["success", "failure"])
    def test_a_report_in_the_one_try_a_second_saves_though_nothing_changed(
        self, storage: Faulty, clock: ManualClock, told: Recorder, outcome: Any
    ) -> None:
        breaker = make()
        permits = [breaker.acquire(), breaker.acquire()]
        breaker.disable()  # nothing is counted
        everything_fails(storage)
        breaker.record_failure()
        for permit, fault in zip(permits, (DOWN, None), strict=True):
            storage.always = {"save": fault}
            clock.advance(1)
            permit.report(outcome, None, None)
            assert told.names == (["degraded"] if fault else ["degraded", "recovered"])

    def test_so_does_what_settles(self, storage: Faulty, runtime: Runtime, clock: ManualClock, told: Recorder) -> None:
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        elsewhere = Runtime(storage=runtime.url, clock=clock, environ={})
        CircuitBreaker("payments", runtime=elsewhere).disable()
        elsewhere.close()
        everything_fails(storage)
        assert breaker.status().degraded
        for fault in (DOWN, None):
            storage.always = {"save": fault}
            clock.advance(1)
            runtime.opened.engine.settle_all()
            assert told.names == (["degraded"] if fault else ["degraded", "recovered"])
        assert told.events[1] == Event("recovered", None, clock.wall(), {"seconds": 2.0, "storage": "faulty"})

    def test_who_settles_in_the_one_try_of_a_key_and_finds_the_lock_taken_waits_for_it(
        self, storage: Faulty, runtime: Runtime, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        everything_fails(storage, DOWN_FOR_ONE)
        assert breaker.status().degraded
        storage.always = {}
        storage.plan("lock", LATE)
        clock.advance(1)
        engine = runtime.opened.engine
        asyncio.run(engine.asettle(engine._debts[KEY].cell))
        assert told.names == ["degraded", "recovered"]
        assert breaker.status().success_count == 1

    def test_who_waits_to_settle_in_the_one_try_and_does_not_get_the_lock_has_had_it(
        self, storage: Faulty, runtime: Runtime, clock: ManualClock
    ) -> None:
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        everything_fails(storage)
        assert breaker.status().degraded
        storage.always = {"lock": LATE}
        storage.calls.clear()
        clock.advance(1)
        for _ in range(2):
            runtime.opened.engine.settle_all()
        assert storage.calls == ["lock"]

    def test_the_version_that_was_seen_last_is_shown_meanwhile(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        fail(breaker)
        version = breaker.status().version
        assert version is not None
        everything_fails(storage)
        clock.advance(1)
        fail(breaker)
        status = breaker.status()
        assert (status.degraded, status.version, status.failure_count) == (True, version, 2)

    def test_what_fails_to_settle_in_the_one_try_is_said_as_it_was_raised(
        self, storage: Faulty, runtime: Runtime, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        everything_fails(storage)
        assert breaker.status().degraded
        for fault in (DOWN, giving(None)):
            storage.always = {"lock": fault}
            clock.advance(1)
            runtime.opened.engine.settle_all()
        assert [(event.key, event.data["error"]) for event in told.events] == [
            (None, "the storage is down"),
            (KEY, "storage faulty: its lock returned None, not a context manager"),
        ]

    @pytest.mark.parametrize("fault", [OSError("cable"), DOWN])
    @pytest.mark.parametrize(("outcome", "hook"), [("success", "load"), ("failure", "load"), ("failure", "save")])
    def test_what_a_report_meets_is_said_as_it_was_raised(
        self, storage: Faulty, told: Recorder, fault: Exception, outcome: Any, hook: str
    ) -> None:
        storage.always = {hook: fault}
        make().record(outcome)
        said = f"storage faulty: its {hook} raised OSError: cable" if fault is not DOWN else str(DOWN)
        assert [(event.key, event.data["error"]) for event in told.events] == [(None, said)]

    @pytest.mark.parametrize("scheme", ["casual"])
    @pytest.mark.parametrize("when", ["at first", "in an outage", "in an outage, owing"])
    def test_what_a_look_meets_is_said_as_it_was_raised(self, storage: Faulty, clock: ManualClock, when: str) -> None:
        breaker = make(window="time", gather=60)
        if when != "at first":
            if "owing" in when:
                breaker.call(lambda: 1)
            everything_fails(storage)
            breaker.record_failure()
            clock.advance(1)
        storage.always = {"load": OSError("cable")}
        with pytest.raises(StorageUnavailable, match=r"^storage casual: its load raised OSError: cable$"):
            breaker.read(strict=True)

    @pytest.mark.parametrize("way", ["called", "awaited"])
    def test_after_a_failure_the_next_call_is_known_to_be_let_in(self, storage: Faulty, way: str) -> None:
        breaker = CountingBreaker("payments", failure_threshold=9)
        everything_fails(storage)

        def call() -> None:
            if way == "called":
                fail(breaker)
            else:
                asyncio.run(fails(breaker))

        call()
        call()
        asked = Counting.asked
        for _ in range(3):
            call()
        assert Counting.asked == asked

    @pytest.mark.parametrize("way", ["called", "awaited"])
    def test_so_it_is_after_one_that_ends_a_row(self, storage: Faulty, way: str) -> None:
        breaker = CountingBreaker("payments", window="time", gather=60)
        everything_fails(storage)
        breaker.call(lambda: 1)
        breaker.call(lambda: 1)
        if way == "called":
            fail(breaker)
        else:
            asyncio.run(fails(breaker))
        asked = Counting.asked
        breaker.call(lambda: 1)
        assert Counting.asked == asked

    @pytest.mark.parametrize(("seconds", "elsewhere"), [(0.125, False), (0.15, True), (0.25, True)])
    @pytest.mark.parametrize("fault", [DOWN, DOWN_FOR_ONE])
    @pytest.mark.parametrize("meets", ["call", "failure", "settle", "look", "try"])
    def test_the_next_try_of_a_storage_that_took_more_than_half_of_the_time_is_a_threads(
        self,
        storage: Faulty,
        runtime: Runtime,
        clock: ManualClock,
        meets: str,
        fault: Exception,
        seconds: float,
        *,
        elsewhere: bool,
    ) -> None:
        def slowly(*_: Any) -> None:
            clock.advance(seconds)
            raise fault

        breaker = make(window="time", gather=60)
        engine = runtime.opened.engine
        if meets != "look":
            breaker.call(lambda: 1)
        clock.advance(1)
        if meets == "try":
            everything_fails(storage, fault)
            assert breaker.status().degraded
            clock.advance(1)
        storage.always = dict.fromkeys(["load", "lock"], slowly)
        ways: dict[str, Callable[[], object]] = {
            "call": breaker.check,
            "failure": breaker.record_failure,
            "look": breaker.status,
        }
        ways.get(meets, engine.settle_all)()
        storage.always = {}
        clock.advance(1)
        breaker.call(lambda: 1)
        engine.finish()
        assert (engine._outages._prober is not None) is elsewhere

    @pytest.mark.parametrize("scheme", ["casual"])
    def test_that_thread_waits_for_the_lock_and_ends_with_the_process(
        self,
        storage: Faulty,
        runtime: Runtime,
        clock: ManualClock,
        told: Recorder,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def slowly(*_: Any) -> None:
            clock.advance(0.25)
            raise DOWN

        breaker = make()
        engine = runtime.opened.engine
        storage.always = {"load": slowly}
        breaker.call(lambda: 1)
        patience = Patience(storage)
        storage.always["load"] = OSError("cable")
        clock.advance(1)
        breaker.call(lambda: 1)
        engine.finish()
        prober = engine._outages._prober
        assert prober is not None
        assert (prober.name, prober.daemon, patience.seconds) == ("resilience try", True, [TIMEOUT])
        assert told.names == ["degraded"]
        assert "cable" in str(engine._outages._fuse.error)
        waited: list[float | None] = []
        monkeypatch.setattr(prober, "join", waited.append)
        engine.finish()
        assert waited == [TIMEOUT]  # and no longer

    def test_chance_adds_to_the_second_between_two_tries(
        self, storage: Faulty, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("resilience.fuse.SPREAD", 0.25)
        breaker = make()
        everything_fails(storage)
        breaker.record_failure()
        for advance, asked in ((1.0, False), (0.25, True)):
            storage.calls.clear()
            clock.advance(advance)
            breaker.record_failure()
            assert bool(storage.calls) is asked

    def test_what_fails_to_settle_is_said_as_it_was_raised(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(window="time", gather=60)
        breaker.call(lambda: 1)
        storage.always = {"lock": giving(None)}
        assert breaker.status().degraded
        assert [(event.key, event.data["error"]) for event in told.events] == [
            (KEY, "storage faulty: its lock returned None, not a context manager")
        ]
        with pytest.raises(StorageUnavailable) as raised:
            breaker.reset()
        outage = raised.value.__cause__
        assert outage is not None
        assert isinstance(outage.__cause__, PluginError)

    def test_a_lock_that_is_taken_in_the_one_try_goes_on_with_the_outage(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        """There is no first time for it then: what is reported meanwhile is seen in the private copy."""
        breaker = make()
        everything_fails(storage)
        breaker.record_failure()
        storage.always = {"lock": LATE}
        clock.advance(1)
        breaker.record_failure()
        assert breaker.status().failure_count == 2
        clock.advance(1)
        assert breaker.call(lambda: 1) == 1
        assert breaker.status().degraded
        assert told.names == ["degraded", "degraded"]  # of the storage, and of the key
        assert told.events[1] == Event(
            "degraded",
            KEY,
            clock.wall() - 1,
            {"error": "somebody else has the lock", "mode": "local", "storage": "faulty"},
        )

    def test_a_call_that_finds_the_lock_taken_in_the_one_try_is_let_in_by_the_copy(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        breaker = make()
        everything_fails(storage)
        breaker.record_failure()
        storage.always = {"lock": LATE}
        clock.advance(1)
        assert breaker.call(lambda: 1) == 1

    def test_a_bug_of_the_policy_is_an_outage_of_its_key(self, storage: Faulty, told: Recorder) -> None:
        class Buggy(CircuitBreakerPolicy):
            __slots__ = ()

            def step(self, state: Any, event: Any, /) -> Step:
                if isinstance(event, Report):
                    raise ZeroDivisionError("a bug")
                return super().step(state, event)

        class BuggyBreaker(CircuitBreaker):
            __slots__ = ()
            policy_type = Buggy

        BuggyBreaker("payments").record_success()
        assert [(event.key, event.data["error"]) for event in told.events] == [(KEY, "a bug")]

    def test_without_a_permit_is_asked_for_at_each_step(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = AskedBreaker("payments", window="time", gather=0.5)
        Asked.anonymous = []
        assert breaker.check()
        breaker.record_success()
        clock.advance(0.6)
        assert breaker.check()  # what was gathered goes first
        everything_fails(storage)
        clock.advance(1)
        for _ in range(2):
            assert breaker.check()
            clock.advance(0.6)
        assert len(Asked.anonymous) > 5
        assert set(Asked.anonymous) == {True}
        Asked.anonymous.clear()
        clock.advance(1)
        breaker.acquire()
        clock.advance(1)
        asyncio.run(breaker.acall(well))  # its one try
        clock.advance(0.5)
        asyncio.run(breaker.acall(well))
        assert len(Asked.anonymous) > 2
        assert set(Asked.anonymous) == {False}


class Asked(CircuitBreakerPolicy):
    """Notes what it is told of those who ask to be let in."""

    __slots__ = ()
    anonymous: ClassVar[list[bool]] = []

    def step(self, state: Any, event: Any, /) -> Step:
        if isinstance(event, Admit):
            Asked.anonymous.append(event.anonymous)
        return super().step(state, event)


class AskedBreaker(CircuitBreaker):
    __slots__ = ()
    policy_type = Asked


class TestLocks:
    def test_what_is_due_and_cannot_be_committed_keeps_nobody_out(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        """It waits once for the lock, and is let in."""
        breaker = make(window="time", gather=0.5)
        breaker.call(lambda: 1)
        clock.advance(0.6)
        storage.calls.clear()
        storage.plan("lock", LATE)
        permit = breaker.acquire()
        assert (storage.calls, told.names) == (["lock"], [])
        permit.success()
        assert breaker.status().success_count == 2

    def test_rejections_are_told_once_a_second(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        breaker.force_open()
        for elapsed, expected in ((0, 0), (0.75, 0), (0.1875, 0), (0.0625, 1), (0.9375, 0), (0.0625, 1)):
            storage.calls.clear()
            clock.advance(elapsed)
            assert not breaker.check()
            assert storage.calls.count("save") == expected


# --- settings that change ---------------------------------------------------------------------------------------------


def test_other_settings_hold_from_the_next_call_on(storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
    looked: list[None] = []
    breaker = make()
    breaker.call(lambda: 1)
    runtime.opened.engine.retune(0.5, 0.0, lambda: looked.append(None))
    patience = Patience(storage)
    clock.advance(1)
    breaker.call(lambda: 1)
    breaker.force_open()
    assert (len(looked), patience.seconds) == (1, [0.5])


@pytest.mark.parametrize("scheme", ["casual"])
def test_so_does_another_staleness(storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
    breaker = make()
    runtime.opened.engine.retune(0.25, 0.75, None)
    for load_count in (1, 1, 2):
        breaker.call(lambda: 1)
        assert storage.calls.count("load") == load_count
        clock.advance(0.375)


@pytest.mark.parametrize("scheme", ["casual"])
def test_a_snapshot_is_trusted_from_when_it_was_asked_for(
    storage: Faulty, runtime: Runtime, clock: ManualClock
) -> None:
    clock.advance(100)
    breaker = make(window="count", gather=0.25)
    breaker.status()
    runtime.opened.engine.retune(0.25, 0.75, None)
    storage.calls.clear()
    for advance, load_count in ((1, 1), (0.3125, 1), (0.375, 1), (0.125, 2)):
        clock.advance(advance)
        breaker.acquire()
        assert storage.calls.count("load") == load_count


@pytest.mark.parametrize("scheme", ["casual"])
def test_so_is_what_the_policy_said_of_it(storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
    clock.advance(100)
    breaker = CountingBreaker("payments")
    breaker.status()
    runtime.opened.engine.retune(0.25, 0.75, None)
    Counting.asked = 0
    clock.advance(1)
    breaker.acquire()
    asked = Counting.asked
    assert asked > 0
    for advance, is_asked in ((0.5, False), (0.125, False), (0.125, True)):
        clock.advance(advance)
        breaker.acquire()
        assert (Counting.asked > asked) is is_asked


def test_what_was_saved_when_a_user_interrupts_is_not_saved_again(storage: Faulty) -> None:
    def interrupted(well: Callable[..., Any], *arguments: Any) -> None:
        well(*arguments)
        raise KeyboardInterrupt

    breaker = make(window="time", gather=60)
    for _ in range(2):
        breaker.call(lambda: 1)
    storage.plan("save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        breaker.status()
    assert breaker.status().success_count == 2


def test_so_is_what_was_saved_when_the_lock_could_not_be_left(storage: Faulty, clock: ManualClock) -> None:
    @contextmanager
    def stuck(well: Callable[..., Any], *arguments: Any) -> Generator[None]:
        with well(*arguments):
            yield
        raise OSError("no lock daemon")

    breaker = make(window="time", gather=60)
    for _ in range(2):
        breaker.call(lambda: 1)
    storage.always = {"lock": stuck}
    assert breaker.status().degraded
    storage.always = {}
    clock.advance(1)
    assert breaker.status().success_count == 2


def test_a_storage_is_told_when_a_record_means_nothing_any_more(storage: Faulty, clock: ManualClock) -> None:
    def noting(well: Callable[..., Any], *arguments: Any) -> Any:
        ends.append(arguments[3])
        return well(*arguments)

    ends: list[float | None] = []
    storage.always = {"save": noting}
    breaker = make(failure_max_age=7200)
    fail(breaker)
    breaker.force_open()
    assert ends == [clock.wall() + 7200, None]


def test_what_concerns_no_key_is_told_with_its_time(runtime: Runtime, clock: ManualClock, told: Recorder) -> None:
    runtime.opened.engine.tell("clock_skew", {"seconds": 5.0})
    assert told.events == [Event("clock_skew", None, clock.wall(), {"seconds": 5.0})]


# --- what is said and asked -------------------------------------------------------------------------------------------


def test_what_a_storage_raises_is_named_and_kept(storage: Faulty) -> None:
    fault = OSError("cable")
    storage.plan("load", fault)
    with pytest.raises(StorageUnavailable, match=r"^storage faulty: its load raised OSError: cable$") as raised:
        make().reset()
    assert raised.value.__cause__ is fault


def test_a_permit_that_is_given_back_asks_nobody(storage: Faulty, clock: ManualClock) -> None:
    permit = make().acquire()
    assert repr(permit) == "<Permit 0>"
    clock.advance(5)
    storage.calls.clear()
    permit.release()
    assert (repr(permit), storage.calls) == ("<Permit 0 (reported)>", [])


def test_a_permit_says_how_long_it_holds(runtime: Runtime, clock: ManualClock) -> None:
    breaker = make(failure_threshold=1, permit_timeout=45)
    assert breaker.acquire().expires_at is None
    breaker.record_failure()
    clock.advance(30)
    assert breaker.acquire().expires_at == clock.wall() + 45


@pytest.mark.parametrize(("seconds", "slow"), [(1, 0), (3, 1)])
def test_a_permit_is_timed_from_its_beginning(runtime: Runtime, clock: ManualClock, seconds: float, slow: int) -> None:
    clock.advance(100)
    breaker = make(window="count", window_size=10, slow_call_rate_threshold=1, slow_call_duration=2)
    permit = breaker.acquire()
    clock.advance(seconds)
    permit.success()
    assert breaker.status().slow_count == slow


def test_a_permit_is_timed_only_if_it_was_from_its_beginning(runtime: Runtime, clock: ManualClock) -> None:
    """The configuration may change while a call is under way."""
    window: dict[str, Any] = {"window": "count", "window_size": 10}
    breaker, slowly = make(**window), make(**window, slow_call_rate_threshold=1, slow_call_duration=2)
    plain, timed = breaker.acquire(), slowly.acquire()
    clock.advance(3)
    plain.cell.follow(timed.cell.policy)
    plain.failure()
    status = breaker.status()
    assert (status.failure_count, status.slow_count) == (1, 0)
    timed.cell.follow(CircuitBreakerPolicy.from_settings(CircuitBreakerPolicy.settings_model()(**window), None))
    timed.failure()
    status = slowly.status()
    assert (status.failure_count, status.slow_count) == (2, 0)


def test_a_permit_says_what_failed(runtime: Runtime) -> None:
    breaker = make()
    breaker.acquire().failure(OSError("x"))
    assert breaker.status().last_error == "OSError"


@pytest.mark.parametrize("hook", ["load", "save"])
def test_what_no_storage_may_return_is_said(storage: Faulty, hook: str) -> None:
    storage.always = {hook: giving(5)}
    with pytest.raises(PluginError, match=f"^storage faulty: {hook} of {KEY} returned int, not a Snapshot$"):
        make().reset()


def test_a_failure_that_changes_nothing_is_not_saved(storage: Faulty) -> None:
    breaker = make()
    breaker.disable()
    storage.calls.clear()
    fail(breaker)
    assert storage.calls == ["lock"]


def test_what_is_committed_though_nothing_changes_is_not_saved(
    storage: Faulty, runtime: Runtime, clock: ManualClock
) -> None:
    breaker = make(window="time", gather=0.5)
    breaker.call(lambda: 1)
    elsewhere = Runtime(storage=runtime.url, clock=clock, environ={})
    CircuitBreaker("payments", runtime=elsewhere).disable()
    elsewhere.close()
    clock.advance(0.6)
    storage.calls.clear()
    breaker.call(lambda: 1)
    assert "lock" in storage.calls
    assert "save" not in storage.calls


@pytest.mark.parametrize(
    ("token", "parts"),
    [("0", (0, None)), ("5.x-1", (5, "x-1")), ("5.x.y", (5, "x.y")), ("1" * 18, (int("1" * 18), None))],
)
def test_tokens(token: str, parts: tuple[int, str | None]) -> None:
    assert parse_token(token) == parts


@pytest.mark.parametrize("token", ["1" * 19, "x" * 100])
def test_what_is_no_token_is_shown_shortened(token: str) -> None:
    with pytest.raises(ValueError, match=f"^'{token[:80]}' is not a token"):
        parse_token(token)


# --- threads for coroutines -------------------------------------------------------------------------------------------

REQUEST: ContextVar[str] = ContextVar("REQUEST")


def test_eight_threads_of_its_own_that_know_whose_call_it_is(tmp_path: Path) -> None:
    seen: list[str] = []
    go_on = threading.Event()

    def noting(well: Callable[..., Any], *arguments: Any) -> Any:
        assert go_on.wait(10)
        seen.append(REQUEST.get())
        return well(*arguments)

    async def main() -> None:
        REQUEST.set("the ninth")
        calls = [asyncio.create_task(make(str(number)).acall(well)) for number in range(9)]
        await asyncio.sleep(0)  # each has asked for a thread
        names = [thread.name for thread in threading.enumerate()]
        go_on.set()
        assert await asyncio.gather(*calls) == ["well"] * 9
        assert sum(name.startswith("resilience_") for name in names) == 8

    with Runtime(storage=f"threaded:{tmp_path}") as runtime:
        runtime.opened.storage.always = {"load": noting}
        asyncio.run(main())
    assert seen == ["the ninth"] * 9


@pytest.mark.parametrize("scheme", ["awaited"])
class TestAwaited:
    def test_a_connection_that_was_given_up_is_a_fault_of_the_storage(self, storage: Faulty) -> None:
        """It ends with the error of a task that is cancelled, and nobody cancelled this one."""
        breaker = make(on_store_error="raise")
        storage.always = {"aload": asyncio.CancelledError()}
        with pytest.raises(StorageUnavailable, match=r"^storage awaited: its load raised CancelledError"):
            asyncio.run(breaker.acall(well))

    @pytest.mark.parametrize(("hook", "named"), [("aload", "load"), ("asave", "save"), ("lock", "lock")])
    def test_what_it_raises_is_named(self, storage: Faulty, told: Recorder, hook: str, named: str) -> None:
        breaker = make()
        storage.always = {hook: OSError("cable")}
        asyncio.run(fails(breaker))
        assert [event.data["error"] for event in told.events] == [f"storage awaited: its {named} raised OSError: cable"]

    def test_what_nobody_waits_for_any_more_is_finished_though_nothing_else_knows_of_it(
        self, storage: Faulty, clock: ManualClock
    ) -> None:
        """A loop keeps only weak references to its tasks."""
        breaker = make(failure_threshold=1, half_open_max_calls=1)
        breaker.record_failure()
        clock.advance(30)
        waiting: list[weakref.ref[asyncio.Future[None]]] = []

        async def slowly(well: Callable[..., Any], *arguments: Any) -> Any:
            answered = asyncio.get_running_loop().create_future()
            waiting.append(weakref.ref(answered))
            await answered
            return well(*arguments)

        async def main() -> None:
            storage.plan("asave", slowly)
            call = asyncio.create_task(breaker.acall(well))
            while not waiting:
                await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            del call
            await asyncio.sleep(0)  # until then it stands in the queue of the loop
            gc.collect()
            answered = waiting[0]()
            assert answered is not None
            answered.set_result(None)
            del answered
            async with asyncio.timeout(10):
                while breaker.status().permits_in_use:
                    await asyncio.sleep(0)

        asyncio.run(main())
        assert breaker.status().state == "half_open"

    def test_a_loop_that_ends_is_none(self, storage: Faulty, told: Recorder) -> None:
        reached = asyncio.Event()

        async def for_ever(well: Callable[..., Any], *arguments: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

        async def main() -> None:
            storage.always = {"aload": for_ever}
            call = asyncio.create_task(make().acall(well))
            await reached.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

        asyncio.run(main())
        assert told.names == []


class TestAwaitedReports:
    """`Permit.areport` tells what `report` does."""

    def test_of_an_earlier_epoch(self, runtime: Runtime) -> None:
        breaker = make()
        permit = breaker.acquire()
        breaker.force_open()
        breaker.close()
        asyncio.run(permit.areport("failure", None, None))
        status = breaker.status()
        assert (status.failure_count, status.late_count) == (0, 1)

    @pytest.mark.parametrize("said", [None, 3.0])
    def test_of_a_slow_failure(self, runtime: Runtime, clock: ManualClock, said: float | None) -> None:
        breaker = make(window="count", window_size=10, slow_call_rate_threshold=1, slow_call_duration=2)
        permit = breaker.acquire()
        clock.advance(1 if said else 3)
        asyncio.run(permit.areport("failure", "OSError", said))
        status = breaker.status()
        assert (status.failure_count, status.slow_count, status.last_error) == (1, 1, "OSError")

    def test_of_nothing(self, storage: Faulty, clock: ManualClock) -> None:
        permit = make().acquire()
        clock.advance(5)
        storage.calls.clear()
        asyncio.run(permit.areport("neutral", None, None))
        assert storage.calls == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_has_threads_of_its_own(tmp_path: Path) -> None:
    with Runtime(storage=f"threaded:{tmp_path}"):
        breaker = make()
        assert asyncio.run(breaker.acall(well)) == "well"
        with warnings.catch_warnings():
            # From 3.12 on a warning says that there are threads, which is what this is about.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(10)
                status = int(asyncio.run(breaker.acall(well)) != "well")
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0


def test_a_span_that_ends_while_what_is_owed_is_committed_lets_a_probe_in(storage: Faulty, clock: ManualClock) -> None:
    breaker = make()
    for _ in range(3):
        fail(breaker)
    with pytest.raises(CircuitOpenError):
        breaker.call(int)  # to be told
    clock.advance(29.9)

    def slowly(well: Callable[..., Any], *arguments: Any) -> Any:
        clock.advance(0.2)
        return well(*arguments)

    storage.always = {"save": slowly}
    permit = breaker.acquire()
    storage.always = {}
    status = breaker.status()
    assert (status.state, status.permits_in_use, status.rejected_count) == ("half_open", 1, 1)
    permit.release()


def test_what_is_owed_stays_so_while_the_lock_is_out_of_reach_after_an_outage(
    storage: Faulty, clock: ManualClock
) -> None:
    breaker = make()
    storage.always = {"lock": LATE}
    fail(breaker)
    everything_fails(storage)
    clock.advance(1.1)
    fail(breaker)
    storage.always = {"lock": LATE}
    clock.advance(1.1)
    assert breaker.status().degraded
    storage.always = {}
    clock.advance(1.1)
    assert breaker.status().failure_count >= 1
