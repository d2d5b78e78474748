"""The arithmetic of windows at its edges, where one call more or less, or one nanosecond, makes the difference."""

from __future__ import annotations

from typing import Any

import pytest
from unit.circuit_breaker.breaker_driver import START, Driver

from resilience.policy import FAILURE, SUCCESS
from resilience_circuit_breaker._window import (
    BUCKETS,
    NOTHING,
    bucket_of,
    buckets_of,
    end_of_bucket,
    ends_at,
    leaves_at,
    running,
    seen,
)

SECONDS: dict[str, Any] = {"window": "time", "window_duration": 10}
"""Ten buckets of a second."""


def buckets(breaker: Driver) -> list[tuple[int, int, int]]:
    """Number, calls and failures of each bucket of its only window."""
    (window,) = breaker.state.windows.values()
    assert isinstance(window, tuple)
    return [(number, calls, failures) for number, calls, failures, _ in buckets_of(window)]


@pytest.mark.parametrize(
    ("config", "shape"), [({}, "consecutive"), (SECONDS, "time:10"), ({"window": "count"}, "count:100")]
)
def test_each_window_has_its_own_shape(config: dict[str, Any], shape: str) -> None:
    assert Driver(**config).policy.config.shape == shape


@pytest.mark.parametrize("span", [1_000_000_001, 60_000_000_000])
def test_a_bucket_ends_at_the_first_nanosecond_of_the_next(span: int) -> None:
    for number in range(25):
        end = end_of_bucket(span, number)
        assert bucket_of(span, end) == number + 1
        assert bucket_of(span, end - 2e-9) == number
        assert running(span, end - 2e-9).ends_at == end
        assert running(span, end).ends_at == end_of_bucket(span, number + 1)


@pytest.mark.parametrize("span", [1_000_000_001, 60_000_000_000])
@pytest.mark.parametrize("begun", [0.0, START, -START, 5e9, 1e12], ids=lambda begun: f"{begun:g}")
def test_the_running_bucket_is_that_of_the_nanosecond_however_near_to_an_edge(span: int, begun: float) -> None:
    first = bucket_of(span, begun)
    for number in (first, first + 1, first, first + 2):
        edge = end_of_bucket(span, number)
        for distance in (0.0, 1e-9, 2e-7, 9e-7, 1e-6, 1.1e-6, 2e-6, 1e-3, span / 2e10):
            for at in (edge - distance, edge + distance, edge - distance):
                bucket = running(span, at)
                assert bucket.number == bucket_of(span, at)
                assert (bucket.ends_at, bucket.leaves_at) == (
                    end_of_bucket(span, bucket.number),
                    end_of_bucket(span, bucket.number + BUCKETS - 1),
                )


def test_a_microsecond_from_its_edges_a_bucket_is_known_by_the_second() -> None:
    bucket = running(10_000_000_000, START + 0.5)
    assert (bucket.surely_from, bucket.surely_until) == (START + 1e-6, START + 1 - 1e-6)


@pytest.mark.parametrize(
    ("span", "at", "next_at"),
    [(60_000_000_000, 1e11 + 0.5, 1e11 + 6), (10_000_000_000, 538134771718.75854, 538134771719.0)],
)
def test_where_a_second_is_a_number_too_coarse_for_that_no_bucket_is(span: int, at: float, next_at: float) -> None:
    bucket = running(span, at)
    assert not bucket.surely_from <= at < bucket.surely_until
    assert running(span, next_at).number == bucket_of(span, next_at) == bucket.number + 1


@pytest.mark.parametrize("span", [1_000_000_001, 60_000_000_000])
@pytest.mark.parametrize("ahead", [None, 0, 1], ids=["none runs", "it runs", "the next one runs"])
def test_a_bucket_leaves_the_window_when_the_tenth_after_it_begins(
    monkeypatch: pytest.MonkeyPatch, span: int, ahead: int | None
) -> None:
    monkeypatch.setattr("resilience_circuit_breaker._window._running", {})
    for number in range(25):
        if ahead is not None:
            running(span, end_of_bucket(span, number + ahead) - 2e-9)
        leaves = leaves_at(span, number)
        assert bucket_of(span, leaves) == number + BUCKETS
        assert bucket_of(span, leaves - 2e-9) == number + BUCKETS - 1


def test_buckets_end_at_whole_seconds_today_as_in_1970() -> None:
    span = 10_000_000_000
    second = int(START)
    assert end_of_bucket(span, second) == second + 1
    assert running(span, second + 0.999).ends_at == second + 1


def test_a_call_is_counted_in_the_bucket_in_which_it_ended() -> None:
    breaker = Driver(**SECONDS)
    breaker.now = START + 3.5
    breaker.report(FAILURE, at=START + 1.25)
    assert buckets(breaker) == [(int(START) + 1, 1, 1)]


def test_what_has_left_the_window_is_not_seen() -> None:
    breaker = Driver(**SECONDS)
    breaker.fail()
    breaker.now += 5
    breaker.fail(2)
    (window,) = breaker.state.windows.values()
    assert isinstance(window, tuple)
    span = 10_000_000_000
    assert seen(span, window, START + 9) == window
    later = seen(span, window, START + 10)
    assert (later[:3], buckets_of(later)) == ((2, 2, 0), buckets_of(window)[1:])
    assert seen(span, window, START + 15) == NOTHING


def test_a_bucket_that_is_not_the_last_goes_on_counting() -> None:
    breaker = Driver(**SECONDS)
    breaker.fail(2)
    breaker.now += 1
    breaker.fail()
    breaker.report(FAILURE, at=START)
    assert buckets(breaker) == [(int(START), 3, 3), (int(START) + 1, 1, 1)]


def test_a_call_that_ended_ten_buckets_ago_no_longer_stands_in_the_window_and_nine_ago_does() -> None:
    breaker = Driver(**SECONDS)
    breaker.fail()
    breaker.report(FAILURE, at=START - 9)
    breaker.report(FAILURE, at=START - 10)
    assert buckets(breaker) == [(int(START) - 9, 1, 1), (int(START), 1, 1)]


def test_what_a_slower_clock_kept_leaves_the_window_of_a_faster_one() -> None:
    """The one behind still counts the tenth bucket before the one ahead, whose running bucket is the last already."""
    ahead = Driver(**SECONDS)
    ahead.now = START + 14
    ahead.fail()
    behind = ahead.other(**SECONDS)
    behind.now = START + 4
    behind.fail()
    assert [number for number, *_ in buckets(behind)] == [int(START) + 4, int(START) + 14]
    ahead.state = behind.state
    ahead.fail()
    assert buckets(ahead) == [(int(START) + 14, 2, 2)]


@pytest.mark.parametrize("since", [0.0, 0.5])
def test_what_is_restored_stands_in_the_running_bucket(since: float) -> None:
    breaker = Driver(**SECONDS)
    breaker.now = START + since
    breaker.control("restore", state="closed", failure_count=2, success_count=1)
    assert buckets(breaker) == [(int(START), 3, 2)]
    assert isinstance(buckets(breaker)[0][0], int)


@pytest.mark.parametrize("config", [SECONDS, {"window": "count"}], ids=["time", "count"])
@pytest.mark.parametrize(("duration", "slow"), [(2.0, 0), (2.5, 1), (None, 0)])
def test_a_late_failure_and_a_late_slow_call_are_counted_as_what_they_are(
    config: dict[str, Any], duration: float | None, slow: int
) -> None:
    breaker = Driver(**config, slow_call_rate_threshold=1, slow_call_duration=2)
    breaker.probing()  # opened by ten failures; without its token a report belongs to no probe
    breaker.report(FAILURE, duration=duration)
    assert breaker.status.late_count == 1
    assert (breaker.status.failure_count, breaker.status.slow_count, breaker.status.success_count) == (11, slow, 0)


def test_what_was_counted_is_brought_up_to_the_time_at_which_it_opens() -> None:
    """Of another shape too, which nobody looks at with its own clock again before it closes."""
    breaker = Driver(**SECONDS, failure_threshold=9)
    breaker.fail()
    streak = breaker.other(failure_threshold=1)
    streak.now += 20
    streak.fail()
    assert streak.state.state == "open"
    breaker.state = streak.state
    assert breaker.status.failure_count == 0


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_what_was_counted_is_brought_up_to_the_time_of_a_change_by_hand(verb: str) -> None:
    breaker = Driver(**SECONDS)
    breaker.fail()
    breaker.now += 20
    breaker.control(verb)
    assert breaker.status.failure_count == 0


def test_a_window_in_which_nothing_stands_has_ended() -> None:
    assert ends_at("time:10", NOTHING) == 0.0
    assert ends_at("count:100", NOTHING) is None


def test_more_failures_at_once_than_a_window_of_calls_holds_are_as_many_as_it_holds() -> None:
    breaker = Driver(window="count", window_size=3, minimum_calls=3, failure_rate_threshold=1)
    breaker.report(SUCCESS, count=3)
    breaker.report(FAILURE, count=5)
    assert (breaker.state.state, breaker.status.failure_count) == ("open", 3)


def test_windows_of_more_spans_than_are_kept_in_mind_have_their_own_buckets() -> None:
    spans = [second * 1_000_000_000 for second in range(1, 100)]
    for _ in range(2):
        assert [running(span, START).number for span in spans] == [bucket_of(span, START) for span in spans]
