"""The engine on storages in memory that behave: admission, reports, controls, reading, binding."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    ConfigurationError,
    Event,
    ResilienceError,
    Runtime,
    Transition,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from storages import Recorder

    from resilience.testing import ManualClock


def one() -> int:
    return 1


pytestmark = pytest.mark.usefixtures("storages_of_tests")

KINDS = ["memory", "faulty", "threaded", "called", "casual", "awaited"]


@pytest.fixture(params=KINDS)
def each(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, told: Recorder) -> Iterator[Runtime]:
    with Runtime(storage=f"{request.param}:{tmp_path}", clock=clock, observers=[told]) as runtime:
        yield runtime


def calls(runtime: Runtime) -> list[str]:
    """What the storage was asked since it was last looked at."""
    storage = runtime.opened.storage
    made, storage.calls = storage.calls, []
    return made


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    def raising() -> None:
        raise KeyError("the dependency")

    for _ in range(times):
        with pytest.raises(KeyError):
            breaker.call(raising)


class TestRoad:
    def test_the_whole_way_round(self, each: Runtime, clock: ManualClock, told: Recorder) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=3, reset_timeout=30)
        assert breaker.call(lambda: "charged") == "charged"
        fail(breaker, 3)
        status = breaker.status()
        assert (status.state, status.failure_count, status.last_error) == (CircuitState.OPEN, 3, "KeyError")
        clock.advance(10)
        with pytest.raises(CircuitOpenError) as rejection:
            breaker.call(pytest.fail)
        assert (rejection.value.name, rejection.value.retry_after) == ("payments", 20)
        clock.advance(20)
        assert breaker.call(lambda: 1) == 1
        assert breaker.status().half_open_successes == 1
        assert breaker.call(lambda: 2) == 2
        assert breaker.status().state is CircuitState.CLOSED
        assert told.moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
        versions = [transition.version.number for transition in told.transitions if transition.version is not None]
        assert versions == [3, 4, 7]
        assert [transition.epoch for transition in told.transitions] == [1, 2, 3]

    def test_two_guards_of_one_name_share_the_state(self, each: Runtime) -> None:
        one, other = (CircuitBreaker("payments", failure_threshold=2) for _ in range(2))
        fail(one)
        assert other.status().failure_count == 1
        fail(other)
        with pytest.raises(CircuitOpenError):
            one.call(pytest.fail)

    def test_names_are_apart(self, each: Runtime) -> None:
        fail(CircuitBreaker("a", failure_threshold=1))
        assert CircuitBreaker("b").call(lambda: 1) == 1

    @pytest.mark.parametrize("each", KINDS[1:], indirect=True)
    def test_what_others_commit_is_seen_by_the_next_call(self, each: Runtime, clock: ManualClock) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        breaker.call(lambda: 1)
        breaker.call(lambda: 1)
        elsewhere = Runtime(storage=each.url, clock=clock)
        fail(CircuitBreaker("payments", failure_threshold=1, runtime=elsewhere))
        with pytest.raises(CircuitOpenError):
            breaker.call(pytest.fail)
        elsewhere.close()

    def test_a_call_that_changes_nothing_asks_the_storage_once_a_second(
        self, runtime: Runtime, clock: ManualClock
    ) -> None:
        breaker = CircuitBreaker("payments")
        for _ in range(5):
            breaker.call(lambda: 1)
        assert calls(runtime) == ["load"]
        clock.advance(0.9)
        breaker.call(lambda: 1)
        assert calls(runtime) == []
        clock.advance(0.1)
        breaker.call(lambda: 1)
        assert calls(runtime) == ["load"]

    def test_a_rejection_asks_the_storage_once_a_second(self, runtime: Runtime) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        fail(breaker)
        calls(runtime)
        for _ in range(5):
            with pytest.raises(CircuitOpenError):
                breaker.call(pytest.fail)
        assert calls(runtime) == []

    def test_a_failure_is_one_commit(self, runtime: Runtime) -> None:
        breaker = CircuitBreaker("payments")
        breaker.call(lambda: 1)
        calls(runtime)
        fail(breaker)
        assert calls(runtime) == ["lock", "save"]

    def test_a_success_commits_only_if_there_is_something_to_forget(self, runtime: Runtime) -> None:
        breaker = CircuitBreaker("payments")
        fail(breaker)
        breaker.call(lambda: 1)
        assert calls(runtime)[-2:] == ["lock", "save"]
        breaker.call(lambda: 1)
        assert calls(runtime) == []
        assert breaker.status().failure_count == 0

    def test_a_snapshot_that_cannot_tell_is_trusted_for_max_staleness(self, tmp_path: Path, clock: ManualClock) -> None:
        environ = {"RESILIENCE_MAX_STALENESS": "0.5"}
        with Runtime(storage=f"casual:{tmp_path}", clock=clock, environ=environ) as runtime:
            breaker = CircuitBreaker("payments", failure_threshold=1)
            for _ in range(3):
                breaker.call(lambda: 1)
            assert calls(runtime) == ["load"]
            clock.advance(0.5)
            breaker.call(lambda: 1)
            assert calls(runtime) == ["load"]
            fail(breaker)
            with pytest.raises(CircuitOpenError):  # what it committed itself it knows
                breaker.call(pytest.fail)

    def test_without_max_staleness_it_loads_each_time(self, tmp_path: Path) -> None:
        with Runtime(storage=f"casual:{tmp_path}") as runtime:
            breaker = CircuitBreaker("payments")
            breaker.call(lambda: 1)
            breaker.call(lambda: 1)
            assert calls(runtime).count("load") >= 2

    def test_the_wall_clock_going_back_prolongs_nothing(self, each: Runtime, clock: ManualClock) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1, reset_timeout=30)
        fail(breaker)
        clock.jump_wall(-3600)
        with pytest.raises(CircuitOpenError) as rejection:
            breaker.call(pytest.fail)
        assert rejection.value.retry_after == 30
        clock.advance(30)
        assert breaker.call(lambda: 1) == 1


class TestPermits:
    @pytest.fixture
    def probing(self, each: Runtime, clock: ManualClock) -> CircuitBreaker:
        breaker = CircuitBreaker(
            "payments", failure_threshold=1, reset_timeout=30, half_open_max_calls=2, permit_timeout=40
        )
        fail(breaker)
        clock.advance(30)
        return breaker

    def test_no_more_than_the_limit_at_one_time(self, probing: CircuitBreaker) -> None:
        first, second = probing.acquire(), probing.acquire()
        assert first.token != second.token
        with pytest.raises(CircuitOpenError) as rejection:
            probing.acquire()
        assert rejection.value.retry_after == 40
        assert probing.status().permits_in_use == 2
        first.release()
        probing.acquire().success()
        second.success()
        assert probing.status().state is CircuitState.CLOSED

    def test_a_permit_reports_once(self, probing: CircuitBreaker) -> None:
        permit = probing.acquire()
        permit.success()
        permit.success()
        permit.failure()
        status = probing.status()
        assert (status.state, status.half_open_successes) == (CircuitState.HALF_OPEN, 1)
        assert "reported" in repr(permit)

    def test_a_permit_whose_holder_does_not_report_comes_back(
        self, probing: CircuitBreaker, clock: ManualClock
    ) -> None:
        permits = [probing.acquire(), probing.acquire()]
        clock.advance(39)
        with pytest.raises(CircuitOpenError):
            probing.acquire()
        clock.advance(1)
        probing.acquire().release()
        permits[0].success()
        assert probing.status().half_open_successes == 1

    def test_a_token_reports_from_elsewhere(self, probing: CircuitBreaker, each: Runtime) -> None:
        token = probing.acquire().token
        CircuitBreaker("payments", half_open_max_calls=2).record_failure(OSError("x"), token=token)
        status = probing.status()
        assert (status.state, status.last_error) == (CircuitState.OPEN, "OSError")

    @pytest.mark.parametrize("token", ["", "x", "1.", "-1", "1" * 30, "\u0661"])
    def test_what_is_no_token(self, runtime: Runtime, token: str) -> None:
        with pytest.raises(ValueError, match="is not a token"):
            CircuitBreaker("payments").record_success(token=token)

    def test_check_takes_an_anonymous_permit(self, probing: CircuitBreaker) -> None:
        assert [probing.check() for _ in range(3)] == [True, True, False]
        probing.record_success()
        assert probing.check()
        probing.record_success()
        assert probing.status().state is CircuitState.CLOSED

    def test_a_report_of_an_earlier_epoch_is_late(self, each: Runtime, told: Recorder) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        permit = breaker.acquire()
        fail(breaker)
        permit.success()
        status = breaker.status()
        assert (status.state, status.late_count) == (CircuitState.OPEN, 1)
        assert told.names == ["late"]
        assert told.events[0].data["outcome"] == "success"

    def test_permits_of_calm_times_name_their_epoch(self, each: Runtime) -> None:
        permit = CircuitBreaker("payments").acquire()
        assert (permit.token, permit.lease, permit.expires_at) == ("0", None, None)
        permit.release()
        assert repr(permit) == "<Permit 0 (reported)>"


class TestControls:
    def test_by_hand(self, each: Runtime, clock: ManualClock) -> None:
        breaker = CircuitBreaker("payments", reset_timeout=30)
        breaker.force_open(seconds=60, reason="maintenance")
        with pytest.raises(CircuitOpenError, match="maintenance"):
            breaker.call(pytest.fail)
        breaker.disable()
        fail(breaker, 5)
        breaker.close()
        fail(breaker)
        assert breaker.status().failure_count == 1
        breaker.reset("new key")
        assert breaker.status() == breaker.status()
        assert (breaker.status().failure_count, breaker.status().reason) == (0, "new key")

    def test_impossible_times_are_refused(self, runtime: Runtime) -> None:
        for seconds in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ConfigurationError):
                CircuitBreaker("payments").force_open(seconds)

    def test_a_verb_that_the_policy_does_not_know(self, runtime: Runtime) -> None:
        breaker: Any = CircuitBreaker("payments")
        with pytest.raises(ValueError, match="explode"):
            breaker.control("explode")
        assert breaker.call(lambda: 1) == 1


class TestObservers:
    def test_one_that_raises_is_reported_and_changes_nothing(
        self, tmp_path: Path, clock: ManualClock, told: Recorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            @hookimpl
            def resilience_transition(self, transition: Transition) -> None:
                raise RuntimeError("no disk for the log")

            @hookimpl
            def resilience_event(self, event: Event) -> None:
                raise RuntimeError("no disk for the log")

        with Runtime(storage="memory:", clock=clock, observers=[Broken(), told]):
            breaker = CircuitBreaker("payments", failure_threshold=1)
            fail(breaker)
            breaker.reset()
            assert told.moves == [("closed", "open"), ("open", "closed")]
            complaints = [record for record in caplog.records if record.message == "observer failed"]
            assert len(complaints) == 1
            clock.advance(61)
            fail(breaker)
        assert len([record for record in caplog.records if record.message == "observer failed"]) == 2

    def test_the_lock_is_free_when_observers_are_told(self, clock: ManualClock) -> None:
        class Resetting:
            """Uses the guard that it observes."""

            @hookimpl
            def resilience_transition(self, transition: Transition) -> None:
                seen.append(transition.new)
                if transition.new == "open":
                    breaker.reset()

        seen: list[str] = []
        with Runtime(storage="memory:", clock=clock, observers=[Resetting()]):
            breaker = CircuitBreaker("payments", failure_threshold=1)
            fail(breaker)
            assert seen == ["open", "closed"]
            assert breaker.status().state is CircuitState.CLOSED

    def test_a_guard_inside_itself(self, each: Runtime) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=5)

        @breaker
        def outer() -> None:
            fail(breaker)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            outer()
        assert breaker.status().failure_count == 2


class TestBinding:
    def test_making_one_touches_nothing(self, runtime: Runtime) -> None:
        CircuitBreaker("payments")(lambda: 1)
        assert runtime._opened is None

    def test_it_follows_the_current_runtime(self, runtime: Runtime, clock: ManualClock) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        guarded = breaker(one)
        for _ in range(2):
            with Runtime(storage="memory:", clock=clock):
                fail(breaker)
                with pytest.raises(CircuitOpenError):
                    guarded()
            assert guarded() == 1
        fail(breaker)
        with pytest.raises(CircuitOpenError):
            guarded()

    def test_a_runtime_of_its_own(self, runtime: Runtime, clock: ManualClock) -> None:
        elsewhere = Runtime(storage="memory:", clock=clock)
        breaker = CircuitBreaker("payments", failure_threshold=1, runtime=elsewhere)
        fail(breaker)
        assert CircuitBreaker("payments").call(lambda: 1) == 1
        elsewhere.close()
        assert breaker.call(lambda: 1) == 1  # opened anew, and memory forgets
        elsewhere.close()

    def test_closing_closes_the_storage(self, runtime: Runtime) -> None:
        breaker = CircuitBreaker("payments")
        breaker.call(lambda: 1)
        storage = runtime.opened.storage
        runtime.close()
        assert storage.is_closed
        assert breaker.call(lambda: 1) == 1
        assert runtime.opened.storage is not storage

    def test_reports_of_calls_that_outlive_their_runtime_are_dropped(
        self, runtime: Runtime, clock: ManualClock
    ) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        permit = breaker.acquire()
        with breaker, Runtime(storage="memory:", clock=clock):
            pass
        with pytest.raises(ConnectionError), breaker, Runtime(storage="memory:", clock=clock):
            raise ConnectionError
        permit.failure()
        assert breaker.status().failure_count == 0

    def test_cells_of_dead_guards_are_let_go(self, runtime: Runtime) -> None:
        CircuitBreaker("payments").call(lambda: 1)
        gc.collect()
        assert not list(runtime._cells)

    def test_variables_of_the_runtime(self, clock: ManualClock) -> None:
        environ = {
            "RESILIENCE_STORAGE": "memory:",
            "RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD": "1",
            "RESILIENCE_POLICIES__PAYMENTS__CIRCUIT_BREAKER__FAILURE_THRESHOLD": "2",
        }
        with Runtime(clock=clock, environ=environ):
            other, payments = CircuitBreaker("other"), CircuitBreaker("payments", failure_threshold=7)
            fail(other)
            assert other.status().state is CircuitState.OPEN
            fail(payments)
            assert payments.status().state is CircuitState.CLOSED
            fail(payments)
            assert payments.status().state is CircuitState.OPEN

    def test_a_guard_without_code_takes_what_code_stored(self, each: Runtime) -> None:
        fail(CircuitBreaker("payments", failure_threshold=2))
        CircuitBreaker.stored("payments").record_failure()
        assert CircuitBreaker.stored("payments").status().state is CircuitState.OPEN
        fresh = CircuitBreaker.stored("fresh")
        fresh.record_failure()
        fresh.record_failure()
        assert fresh.status().state is CircuitState.CLOSED

    def test_threads_bind_one_guard(self, each: Runtime) -> None:
        breaker = CircuitBreaker("payments", failure_threshold=1000)
        together = threading.Barrier(8)

        def work() -> None:
            together.wait(10)
            for _ in range(25):
                breaker.record_failure()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert breaker.status().failure_count == 200

    def test_used_without_a_runtime_it_makes_one_of_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("RESILIENCE_STORAGE", f"faulty:{tmp_path}")
        Runtime.current().close()
        assert CircuitBreaker("payments").call(lambda: 1) == 1
        assert Runtime.current().url == f"faulty:{tmp_path}"

    def test_a_runtime_that_was_closed_in_the_middle(self, runtime: Runtime) -> None:
        breaker: Any = CircuitBreaker("payments")
        cell = breaker._bound()
        runtime.close()
        with pytest.raises(ResilienceError, match="closed while this call began"):
            cell.reach()
