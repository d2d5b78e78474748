"""The state machine at its edges: what changes if a comparison there is another one, found missing by mutation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.circuit_breaker.breaker_driver import START, Driver, token

from resilience.policy import FAILURE, SUCCESS
from resilience_circuit_breaker._state import LARGEST

if TYPE_CHECKING:
    from resilience.policy import Step


def would_have_opened(step: Step) -> bool:
    return any(name == "would_have_opened" for name, _ in step.tells)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"window": "count", "window_size": 20, "failure_threshold": 2}, "2 failures in the last 20 calls"),
        ({"window": "time", "window_duration": 7.5, "failure_threshold": 2}, "2 failures in the last 7.5 s"),
        ({"failure_threshold": 2}, "2 failures in a row"),
    ],
)
def test_a_number_of_failures_says_of_what(config: dict[str, Any], reason: str) -> None:
    breaker = Driver(**config)
    moved = breaker.fail(2).moved
    assert moved is not None
    assert moved.reason == reason


def test_what_trips_is_named_by_slow_calls_where_too_few_failed() -> None:
    breaker = Driver(
        window="count", minimum_calls=4, failure_rate_threshold=1, slow_call_rate_threshold=0.5, slow_call_duration=1
    )
    breaker.fail()
    breaker.succeed()
    breaker.succeed(duration=2)
    moved = breaker.succeed(duration=2).moved
    assert moved is not None
    assert moved.reason == "2 of 4 calls were slow"


@pytest.mark.parametrize(("age", "state"), [(100, "open"), (100.5, "closed")])
def test_a_streak_is_too_old_only_beyond_failure_max_age(age: float, state: str) -> None:
    breaker = Driver(failure_threshold=2, failure_max_age=100)
    breaker.fail()
    breaker.now += age
    breaker.fail()
    assert breaker.state.state == state


@pytest.mark.parametrize(("age", "again"), [(100, False), (100.5, True)])
def test_metrics_only_tells_again_of_a_streak_after_one_that_is_too_old(age: float, *, again: bool) -> None:
    breaker = Driver(failure_threshold=1, failure_max_age=100)
    breaker.control("metrics_only")
    assert would_have_opened(breaker.fail())
    breaker.now += age
    assert would_have_opened(breaker.fail()) is again


def test_metrics_only_is_not_crossed_by_a_success_that_reaches_the_minimum() -> None:
    breaker = Driver(window="count", minimum_calls=10)
    breaker.control("metrics_only")
    breaker.fail(9)
    assert not would_have_opened(breaker.succeed())
    assert would_have_opened(breaker.fail())
    assert not would_have_opened(breaker.fail())


def test_a_success_that_ends_a_streak_beside_a_window_stores_the_settings() -> None:
    streak = Driver(failure_threshold=9, given={"failure_threshold": 9})
    streak.fail()
    window = streak.other(window="count", given={"window": "count"})
    window.fail()
    streak.state = window.state
    assert streak.state.settings == {"window": "count"}
    streak.succeed()
    assert (streak.state.settings, streak.state.failures) == ({"failure_threshold": 9}, 0)


@pytest.mark.parametrize("name", ["failure_count", "success_count", "half_open_successes", "late_count"])
@pytest.mark.parametrize("count", [0, 1, LARGEST])
def test_restore_takes_any_count_up_to_the_largest(name: str, count: int) -> None:
    breaker = Driver()
    breaker.control("restore", state="half_open", **{name: count})
    shown = breaker.status.to_dict()
    assert shown[name] == (None if name == "success_count" else count)


@pytest.mark.parametrize("time", [-LARGEST, 0, LARGEST, 5])
def test_restore_takes_any_time_up_to_the_largest(time: float) -> None:
    breaker = Driver()
    breaker.control("restore", state="closed", last_failure_time=time)
    assert breaker.status.last_failure_time == time


def test_restore_without_an_error_has_none() -> None:
    breaker = Driver()
    breaker.control("restore", state="open", failure_count=3)
    assert breaker.status.last_error is None
    assert breaker.status.opened_at == START


def test_an_unknown_state_is_named_up_to_eighty_characters() -> None:
    with pytest.raises(ValueError, match=f"^'{'x' * 80}' is no state of a circuit breaker: closed, "):
        Driver().control("restore", state="x" * 100)


def test_a_probe_that_is_late_by_its_token_says_so() -> None:
    breaker = Driver(half_open_max_calls=2)
    lease = breaker.probing()
    breaker.report(SUCCESS, token=token(lease))
    step = breaker.report(FAILURE, token=token(lease), error="TimeoutError")
    assert step.tells == (("late", {"outcome": FAILURE, "state": "half_open", "epoch": None, "error": "TimeoutError"}),)
