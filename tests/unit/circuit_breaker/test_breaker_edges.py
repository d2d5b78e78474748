"""The state machine at its edges: what changes if a comparison there is another one, found missing by mutation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.circuit_breaker.breaker_driver import START, Driver, token

from resilience.policy import FAILURE, SUCCESS
from resilience_circuit_breaker._state import LARGEST, LONGEST_BY_HAND

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


@pytest.mark.parametrize("seconds", [0, 0.5, LONGEST_BY_HAND])
def test_a_state_by_hand_lasts_from_no_time_to_the_longest(seconds: float) -> None:
    breaker = Driver()
    breaker.control("force_open", seconds=seconds)
    assert breaker.status.retry_after == seconds


def test_a_permit_that_runs_out_right_now_is_not_in_flight() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=30)
    breaker.probing()
    breaker.now += 30
    assert breaker.status.permits_in_use == 0


def test_a_record_without_token_is_for_the_permit_in_flight_not_for_one_that_runs_out_right_now() -> None:
    breaker = Driver(half_open_max_calls=2, half_open_success_threshold=9, permit_timeout=30)
    breaker.opened()
    breaker.now += 60
    breaker.let_in(anonymous=True)
    breaker.now += 10
    breaker.let_in(anonymous=True)
    breaker.now += 20
    breaker.report(SUCCESS)
    assert (breaker.status.permits_in_use, breaker.state.probes.lapsed) == (0, {1: True})


def test_a_look_at_permits_from_the_future_says_when_they_would_run_out() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=30)
    breaker.probing()
    breaker.now -= 1000
    assert (breaker.status.permits_in_use, breaker.status.retry_after) == (1, 30)


@pytest.mark.parametrize("config", [{"window": "count"}, {"window": "time"}, {}])
def test_an_older_failure_of_the_same_moment_is_not_the_last(config: dict[str, Any]) -> None:
    breaker = Driver(**config, failure_threshold=9)
    breaker.fail()
    breaker.report(FAILURE, at=START - 2)
    assert breaker.status.last_failure_time == START


def test_an_older_failure_of_a_probe_of_the_same_moment_is_not_the_last() -> None:
    breaker = Driver(half_open_failure_threshold=9, half_open_max_calls=None)
    breaker.probing()
    epoch = breaker.state.epoch
    breaker.report(FAILURE, epoch=epoch)
    breaker.report(FAILURE, epoch=epoch, at=breaker.now - 2)
    assert breaker.status.last_failure_time == breaker.now


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_what_tripped_it_stays_to_be_seen_when_it_is_held_by_hand(verb: str) -> None:
    breaker = Driver(window="time", failure_threshold=3)
    breaker.fail(3)
    breaker.now += 10**5
    breaker.control(verb)
    assert breaker.status.failure_count == 3


def test_a_streak_that_trips_beside_windows_is_the_one_that_was_used_last() -> None:
    window = Driver(window="count")
    window.fail()
    streak = window.other(failure_threshold=1)
    streak.now += 5
    step = streak.fail()
    assert step.moved is not None
    assert step.tells == (("settings_conflict", {"window": "consecutive", "other": "count:100"}),)
    assert list(streak.state.windows.items())[-1] == ("consecutive", START + 5)


def test_an_unknown_verb_is_named_up_to_eighty_characters() -> None:
    with pytest.raises(ValueError, match=f"^a circuit breaker knows no '{'x' * 80}', but force_open, "):
        Driver().control("x" * 100)


def test_the_error_of_a_late_report_is_told_up_to_its_bound() -> None:
    breaker = Driver().opened()
    ((_, data),) = breaker.report(FAILURE, error="x" * 300).tells
    assert data["error"] == "x" * 200


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_what_probes_said_stays_to_be_seen_when_it_is_held_by_hand(verb: str) -> None:
    breaker = Driver(half_open_failure_threshold=9, half_open_success_threshold=9)
    lease = breaker.probing()
    second, third = breaker.let_in(), breaker.let_in()
    breaker.report(SUCCESS, token=token(lease))
    breaker.report(FAILURE, token=token(second))
    breaker.report(FAILURE, token=token(third))
    breaker.control(verb)
    assert (breaker.status.half_open_successes, breaker.status.half_open_failures) == (1, 2)
