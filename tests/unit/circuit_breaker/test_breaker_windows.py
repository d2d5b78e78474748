"""Windows of calls and of time, slow calls, the dry run: the rows of the specification that speak of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.circuit_breaker.breaker_driver import START, Driver, token

from resilience.policy import FAILURE, FOREVER, KEEP, LATER, NOW, SUCCESS
from resilience_circuit_breaker._codec import decode
from resilience_circuit_breaker._window import buckets_of

if TYPE_CHECKING:
    from resilience.policy import Step

WINDOWS: list[dict[str, Any]] = [{"window": "count"}, {"window": "time"}]
both = pytest.mark.parametrize("window", WINDOWS, ids=["count", "time"])


def _opened_by(step: Step) -> str:
    assert step.moved is not None
    assert step.moved.new == "open"
    return step.moved.reason


# --- Configuration ----------------------------------------------------------------------------------------------------


@both
def test_failure_rate_threshold_is_a_quotient_7_of_25_is_0_28(window: dict[str, Any]) -> None:
    breaker = Driver(**window, failure_rate_threshold=0.28, minimum_calls=25)
    breaker.succeed(18)
    assert breaker.fail(6).moved is None
    assert _opened_by(breaker.fail()) == "7 of 25 calls failed"
    assert (breaker.status.failure_rate, breaker.status.failure_count, breaker.status.success_count) == (0.28, 7, 18)


@both
def test_failure_rate_threshold_is_not_reached_just_below_it(window: dict[str, Any]) -> None:
    breaker = Driver(**window, failure_rate_threshold=0.28, minimum_calls=25)
    breaker.succeed(19)
    assert breaker.fail(7).moved is None
    assert breaker.state.state == "closed"


@both
def test_failure_threshold_opens_at_a_number_whatever_the_rate(window: dict[str, Any]) -> None:
    breaker = Driver(**window, failure_threshold=3, minimum_calls=100)
    breaker.succeed(50)
    assert breaker.fail(2).moved is None
    assert _opened_by(breaker.fail()).startswith("3 failures in the last ")
    alone = Driver(**window, failure_threshold=1)
    assert _opened_by(alone.fail()).startswith("1 failure in the last ")


@both
def test_failure_threshold_has_no_default_with_a_window(window: dict[str, Any]) -> None:
    breaker = Driver(**window)
    breaker.fail(9)
    assert breaker.state.state == "closed"
    assert _opened_by(breaker.fail()) == "10 of 10 calls failed"


@both
def test_minimum_calls_must_stand_in_the_window_before_a_rate_is_judged(window: dict[str, Any]) -> None:
    breaker = Driver(**window, minimum_calls=4)
    breaker.succeed()
    breaker.fail(2)
    assert (breaker.status.failure_rate, breaker.status.slow_call_rate) == (None, None)
    assert _opened_by(breaker.fail()) == "3 of 4 calls failed"


def test_window_size_is_the_number_of_the_last_calls() -> None:
    breaker = Driver(window="count", window_size=4, minimum_calls=4, failure_rate_threshold=0.75)
    breaker.fail(2)
    breaker.succeed(4)
    assert (breaker.status.failure_count, breaker.status.success_count) == (0, 4)
    breaker.fail(2)
    breaker.succeed()
    assert breaker.fail().moved is not None, "three of the last four"


def test_more_calls_at_once_than_the_window_holds_fill_it() -> None:
    breaker = Driver(window="count", window_size=5, minimum_calls=5)
    breaker.report(FAILURE)
    breaker.report(SUCCESS, count=64)
    assert (breaker.status.failure_count, breaker.status.success_count) == (0, 5)


def test_window_duration_is_the_running_bucket_and_the_nine_before_it() -> None:
    breaker = Driver(window="time", window_duration=10, failure_threshold=2)
    breaker.now = 1000.999
    breaker.fail()
    breaker.now = 1009.999
    assert breaker.status.failure_count == 1
    breaker.now = 1010.0
    assert breaker.status.failure_count == 0, "its bucket is the tenth before the running one"
    assert breaker.fail().moved is None
    breaker.now = 1019.9
    assert breaker.fail().moved is not None


def test_window_duration_aligns_buckets_to_the_clock_in_integers() -> None:
    breaker = Driver(window="time", window_duration=60)
    for second in (0.0, 5.999, 6.0, 12.5):
        breaker.now = 1_800_000_000.0 + second
        breaker.fail()
    ((_, window),) = breaker.state.windows.items()
    assert isinstance(window, tuple)
    first = 1_800_000_000 * 10 // 60
    assert buckets_of(window) == ((first, 2, 2, 0), (first + 1, 1, 1, 0), (first + 2, 1, 1, 0))


@both
def test_slow_call_rate_threshold_opens_at_slow_calls(window: dict[str, Any]) -> None:
    breaker = Driver(**window, slow_call_rate_threshold=0.5, slow_call_duration=2, minimum_calls=4)
    breaker.succeed(2, duration=2.0)
    assert breaker.succeed(duration=2.1).keep is NOW
    step = breaker.succeed(duration=2.1)
    assert _opened_by(step) == "2 of 4 calls were slow"
    status = breaker.status
    assert (status.slow_count, status.slow_call_rate, status.failure_count, status.success_count) == (2, 0.5, 0, 4)
    assert (status.last_failure_time, status.last_error) == (None, None)


@both
def test_slow_call_rate_threshold_is_not_reached_just_below_it(window: dict[str, Any]) -> None:
    breaker = Driver(**window, slow_call_rate_threshold=0.5, slow_call_duration=2, minimum_calls=4)
    breaker.succeed(4)
    breaker.succeed(3, duration=2.1)
    assert (breaker.state.state, breaker.status.slow_call_rate) == ("closed", 3 / 7)
    assert _opened_by(breaker.succeed(duration=2.1)) == "4 of 8 calls were slow"


@both
def test_the_last_failure_of_a_window_is_the_one_that_ended_last(window: dict[str, Any]) -> None:
    breaker = Driver(**window)
    breaker.fail()
    breaker.now += 3
    breaker.fail()
    assert breaker.status.last_failure_time == START + 3
    breaker.report(FAILURE, at=START + 1)
    assert breaker.status.last_failure_time == START + 3
    breaker.now = START - 20
    breaker.fail()
    assert breaker.status.last_failure_time == START - 20, "the clock was set back: the other lies ahead"


@both
def test_slow_call_duration_makes_a_failure_slow_as_well(window: dict[str, Any]) -> None:
    breaker = Driver(**window, slow_call_rate_threshold=1, slow_call_duration=2)
    breaker.report(FAILURE, duration=3)
    breaker.report(FAILURE, duration=1)
    assert (breaker.status.failure_count, breaker.status.slow_count) == (2, 1)


@both
def test_no_call_is_slow_where_slow_calls_are_not_judged(window: dict[str, Any]) -> None:
    breaker = Driver(**window, slow_call_duration=2)
    assert breaker.policy.slow_after == FOREVER
    assert breaker.succeed(duration=10**6).keep is LATER
    assert breaker.status.slow_count == 0


def test_half_open_failure_threshold_counts_slow_calls() -> None:
    breaker = Driver(window="time", slow_call_rate_threshold=0.5, slow_call_duration=2, half_open_failure_threshold=2)
    first = breaker.probing()
    second = breaker.let_in()
    breaker.report(SUCCESS, token=token(first), duration=3)
    assert (breaker.status.half_open_failures, breaker.status.half_open_successes) == (1, 0)
    moved = breaker.report(SUCCESS, token=token(second), duration=3).moved
    assert moved is not None
    assert (moved.new, moved.reason) == ("open", "a probe was slow")


def test_a_slow_probe_without_token_is_late_and_counted_as_slow() -> None:
    breaker = Driver(window="time", slow_call_rate_threshold=1, slow_call_duration=2)
    breaker.probing()
    before = breaker.status
    breaker.report(SUCCESS, duration=3)
    breaker.report(FAILURE, duration=1)
    status = breaker.status
    assert (status.state, status.late_count) == ("half_open", 2)
    assert (status.slow_count, status.failure_count) == (before.slow_count + 1, before.failure_count + 1)


def test_failure_max_age_means_nothing_to_a_window() -> None:
    breaker = Driver(window="count", failure_threshold=2, failure_max_age=1)
    breaker.fail()
    breaker.now += 10**6
    assert breaker.fail().moved is not None


def test_permit_timeout_is_the_longer_of_reset_timeout_and_slow_call_duration() -> None:
    assert Driver().policy.config.permit_timeout == 60
    assert Driver(reset_timeout=90).policy.config.permit_timeout == 90
    assert Driver(reset_timeout=5, slow_call_duration=7).policy.config.permit_timeout == 7


def test_gather_is_nothing_with_consecutive_and_bounded_by_the_window() -> None:
    assert Driver(gather=5).policy.gather == 0
    breaker = Driver(window="time", gather=5)
    assert (breaker.policy.gather, breaker.policy.gather_limit(breaker.state, breaker.now)) == (5, 64)
    for size, limit in ((1, 1), (19, 1), (100, 10), (10_000, 64)):
        breaker = Driver(window="count", window_size=size)
        breaker.report(SUCCESS, count=size)
        assert breaker.policy.gather_limit(breaker.state, breaker.now) == limit


@pytest.mark.parametrize(
    ("calls", "limit"),
    [(8_192, 64), (16_383, 64), (16_384, 128), (32_767, 128), (32_768, 256), (131_072, 1024), (10**9, 1024)],
)
def test_more_are_gathered_where_they_are_less_than_a_hundredth_of_a_window_of_time(calls: int, limit: int) -> None:
    breaker = Driver(window="time", window_duration=10)
    breaker.report(SUCCESS, count=calls)
    assert breaker.policy.gather_limit(breaker.state, breaker.now) == limit
    assert breaker.policy.gather_limit(breaker.state, breaker.now + 10) == 64, "they have left it"


# --- what is gathered -------------------------------------------------------------------------------------------------


def test_a_success_may_be_gathered_to_the_end_of_its_bucket() -> None:
    breaker = Driver(window="time", window_duration=10)
    breaker.now = 1000.25
    step = breaker.succeed()
    assert (step.keep, step.until, step.asks) == (LATER, 1001.0, 0)
    step = breaker.report(SUCCESS, at=999.5)
    assert step.until == 1000.0
    calls = Driver(window="count").succeed()
    assert (calls.keep, calls.until) == (LATER, FOREVER)


@both
def test_gathered_successes_count_as_so_many(window: dict[str, Any]) -> None:
    breaker = Driver(**window)
    breaker.report(SUCCESS, count=7)
    assert breaker.status.success_count == 7
    breaker.report(SUCCESS, count=5, epoch=9)
    assert breaker.status.late_count == 5


@both
def test_asks_grows_with_failures_and_slow_calls_only(window: dict[str, Any]) -> None:
    breaker = Driver(**window, slow_call_rate_threshold=1, slow_call_duration=2)
    assert breaker.succeed(3).asks == 0
    assert breaker.fail().asks == 1
    assert breaker.succeed(duration=3).asks == 2
    assert breaker.succeed().asks == 2
    assert breaker.admit().asks == 2
    breaker.control("reset")
    assert breaker.admit().asks == 2, "it never goes back"
    assert Driver().fail().asks == 0, "nobody gathers with consecutive"


# --- Choices ----------------------------------------------------------------------------------------------------------


@both
def test_may_a_fast_success_open_it_no(window: dict[str, Any]) -> None:
    breaker = Driver(**window, minimum_calls=10)
    breaker.fail(9)
    step = breaker.succeed()
    assert (step.keep, step.moved) == (LATER, None)
    assert breaker.status.failure_rate == 0.9
    assert _opened_by(breaker.fail()) == "10 of 11 calls failed"


@both
def test_counts_after_opening_stay_as_they_were_until_it_closes(window: dict[str, Any]) -> None:
    breaker = Driver(**window, half_open_success_threshold=1)
    breaker.succeed(8)
    breaker.fail(8)
    breaker.now += 10**5
    status = breaker.status
    assert (status.state, status.failure_count, status.success_count, status.failure_rate) == ("open", 8, 8, 0.5)
    lease = breaker.probing()
    assert breaker.status.failure_count == 8
    breaker.report(SUCCESS, token=token(lease))
    assert (breaker.status.state, breaker.status.failure_count, breaker.status.success_count) == ("closed", 0, 0)


@both
def test_counts_stay_when_it_is_opened_by_hand(window: dict[str, Any]) -> None:
    breaker = Driver(**window)
    breaker.fail(3)
    breaker.control("force_open")
    breaker.now += 10**5
    assert breaker.status.failure_count == 3


@both
@pytest.mark.parametrize("verb", ["reset", "metrics_only"])
def test_every_entry_starts_with_an_empty_window(window: dict[str, Any], verb: str) -> None:
    breaker = Driver(**window)
    breaker.other()
    breaker.fail(3)
    breaker.control(verb)
    assert (breaker.status.failure_count, breaker.state.windows) == (0, {})


def test_a_bucket_from_the_future_is_used_up_to_one_window_ahead_and_dropped_beyond() -> None:
    ahead = Driver(window="time", window_duration=10, failure_threshold=3)
    ahead.now = 1000.5
    ahead.fail(2)
    near = ahead.other(window="time", window_duration=10, failure_threshold=3)
    near.now = 990.5
    assert near.status.failure_count == 2
    assert near.fail().moved is not None
    far = ahead.other(window="time", window_duration=10, failure_threshold=3)
    far.now = 989.5
    assert far.status.failure_count == 0
    assert far.fail().moved is None
    assert far.status.failure_count == 1


def test_a_report_that_waited_for_longer_than_the_window_no_longer_stands_in_it() -> None:
    breaker = Driver(window="time", window_duration=10, failure_threshold=2)
    breaker.report(FAILURE, at=START - 5)
    assert breaker.status.failure_count == 1
    breaker.report(FAILURE, at=START - 30)
    assert (breaker.state.state, breaker.status.failure_count) == ("closed", 1)
    assert breaker.report(FAILURE, at=START + 100).moved is not None, "nothing ends after it was reported"


def test_one_name_different_settings_counts_stand_beside_each_other_and_a_warning_names_both() -> None:
    streak = Driver(failure_threshold=3)
    streak.fail(2)
    calls = streak.other(window="count", window_size=5, failure_threshold=2)
    assert calls.fail().tells == (("settings_conflict", {"window": "count:5", "other": "consecutive"}),)
    assert calls.status.failure_count == 1
    seconds = calls.other(window="time", failure_threshold=2)
    assert seconds.fail().tells == (("settings_conflict", {"window": "time:60", "other": "count:5"}),)
    assert seconds.succeed().tells == (), "once"
    streak.state = seconds.state
    assert streak.status.failure_count == 2
    moved = streak.fail().moved
    assert moved is not None
    assert moved.reason == "3 failures in a row"
    streak.control("close")
    assert streak.state.windows == {}


def test_one_name_different_settings_a_streak_keeps_its_own_time() -> None:
    streak = Driver(failure_threshold=2, failure_max_age=100)
    streak.fail()
    calls = streak.other(window="count")
    calls.now += 90
    calls.fail()
    streak.state, streak.now = calls.state, calls.now + 20
    assert streak.fail().moved is None, "its own last failure is too old"
    assert streak.status.failure_count == 1
    assert streak.succeed().keep is NOW
    assert (streak.status.failure_count, streak.succeed().keep) == (0, KEEP)
    calls.state = streak.state
    assert calls.status.failure_count == 1


def test_one_name_different_settings_an_older_failure_does_not_make_a_streak_older() -> None:
    streak = Driver(failure_threshold=9, failure_max_age=100)
    streak.fail()
    calls = streak.other(window="count")
    calls.fail()
    streak.state = calls.state
    streak.report(FAILURE, at=START - 50)
    assert streak.state.windows["consecutive"] == START


def test_one_name_different_settings_four_shapes_at_most_the_least_used_is_dropped() -> None:
    first = Driver(failure_threshold=9)
    first.fail()
    process = first
    for size in (11, 12, 13):
        process = process.other(window="count", window_size=size)
        process.succeed()
    assert list(process.state.windows) == ["consecutive", "count:11", "count:12", "count:13"]
    process = process.other(window="count", window_size=11)
    process.succeed()
    process = process.other(window="time")
    process.succeed()
    assert list(process.state.windows) == ["count:12", "count:13", "count:11", "time:60"]
    first.state = process.state
    assert first.status.failure_count == 0
    assert first.fail().tells[0][0] == "settings_conflict"


def test_one_name_different_settings_any_of_them_opens_for_all() -> None:
    calls = Driver(window="count", failure_threshold=1)
    calls.fail()
    streak = calls.other()
    streak.refused()
    assert streak.status.failure_count == 0


@both
def test_disable_for_a_time_then_counts_in_the_window_of_the_closed_state(window: dict[str, Any]) -> None:
    breaker = Driver(**window, minimum_calls=1, failure_rate_threshold=0.5)
    breaker.control("disable", seconds=10)
    breaker.now += 10
    step = breaker.succeed()
    assert step.moved is not None
    assert (breaker.state.state, breaker.status.success_count) == ("closed", 1)
    breaker.control("disable", seconds=10)
    breaker.now += 10
    assert _opened_by(breaker.fail()) == "1 of 1 calls failed"


@both
def test_restore_takes_the_counts_of_a_window(window: dict[str, Any]) -> None:
    breaker = Driver(**window)
    breaker.control("restore", state="closed", failure_count=3, success_count=5, slow_count=1, rejected_count=7)
    status = breaker.status
    assert (status.failure_count, status.success_count, status.slow_count, status.rejected_count) == (3, 5, 1, 7)
    breaker.control("restore", state="closed")
    assert breaker.status.failure_count == 0


# --- rejections -------------------------------------------------------------------------------------------------------


def test_rejected_count_belongs_to_the_present_outage_or_the_last_one() -> None:
    breaker = Driver(half_open_success_threshold=1).opened()
    breaker.rejected(5)
    assert breaker.status.rejected_count == 5
    breaker.report(FAILURE, token=token(breaker.probing()))
    breaker.rejected(2)
    assert breaker.status.rejected_count == 7, "probes that failed begin no other outage"
    breaker.report(SUCCESS, token=token(breaker.probing()))
    breaker.rejected(1)
    assert (breaker.status.state, breaker.status.rejected_count) == ("closed", 8), "told late"
    breaker.opened()
    assert breaker.status.rejected_count == 0
    breaker.rejected(3)
    breaker.control("reset")
    assert breaker.status.rejected_count == 0
    breaker.rejected(4)
    breaker.control("force_open")
    assert breaker.status.rejected_count == 0


# --- METRICS_ONLY -----------------------------------------------------------------------------------------------------


def _told(step: Step) -> list[object]:
    return [data["reason"] for name, data in step.tells if name == "would_have_opened"]


@both
def test_metrics_only_lets_all_through_counts_and_reports_once_per_crossing(window: dict[str, Any]) -> None:
    breaker = Driver(**window, minimum_calls=4, window_size=8)
    moved = breaker.control("metrics_only", reason="trial").moved
    assert moved is not None
    assert (moved.new, moved.reason, breaker.status.reason) == ("metrics_only", "trial", "trial")
    assert _told(breaker.fail(3)) == []
    assert _told(breaker.fail()) == ["4 of 4 calls failed"]
    assert _told(breaker.fail()) == []
    step = breaker.admit()
    assert (step.decision, step.keep) == (None, KEEP)
    assert (breaker.status.state, breaker.status.failure_count, breaker.status.retry_after) == ("metrics_only", 5, 0)
    breaker.succeed(20)
    assert not breaker.state.crossed
    told = [reason for _ in range(30) for reason in _told(breaker.fail())]
    assert len(told) == 1


def test_metrics_only_tells_of_a_streak() -> None:
    breaker = Driver(failure_threshold=2)
    breaker.control("metrics_only")
    assert breaker.succeed().keep is KEEP
    assert [_told(breaker.fail()) for _ in range(3)] == [[], ["2 failures in a row"], []]
    breaker.succeed()
    assert [_told(breaker.fail()) for _ in range(2)] == [[], ["2 failures in a row"]]
    breaker.now += 10**6
    assert [_told(breaker.fail()) for _ in range(2)] == [[], ["2 failures in a row"]]
    one = Driver(failure_threshold=1)
    one.control("metrics_only")
    assert _told(one.fail()) == ["1 failure"]


def test_metrics_only_crosses_again_when_the_window_was_empty_in_between() -> None:
    breaker = Driver(window="time", failure_threshold=1)
    breaker.control("metrics_only")
    assert len(_told(breaker.fail())) == 1
    assert _told(breaker.fail()) == []
    breaker.now += 61
    assert len(_told(breaker.fail())) == 1


def test_metrics_only_judges_slow_calls() -> None:
    breaker = Driver(window="count", slow_call_rate_threshold=0.5, slow_call_duration=1, minimum_calls=2)
    breaker.control("metrics_only")
    assert _told(breaker.succeed(duration=2)) == []
    assert _told(breaker.succeed(duration=2)) == ["2 of 2 calls were slow"]


@both
def test_metrics_only_for_a_time_is_then_closed(window: dict[str, Any]) -> None:
    breaker = Driver(**window, failure_threshold=2)
    breaker.control("metrics_only", seconds=30)
    breaker.fail(3)
    assert breaker.admit().until == breaker.now + 30
    breaker.now += 30
    assert breaker.report(FAILURE, epoch=1).moved is None, "a call that was let in by it"
    moved = breaker.admit().moved
    assert moved is not None
    assert (moved.new, breaker.status.failure_count) == ("closed", 0)


@pytest.mark.parametrize("config", [*WINDOWS, {}])
def test_metrics_only_for_a_time_then_counts_where_it_closes(config: dict[str, Any]) -> None:
    breaker = Driver(**config, failure_threshold=2)
    breaker.control("metrics_only", seconds=30)
    breaker.fail(5)
    breaker.now += 30
    moved = breaker.fail().moved
    assert moved is not None
    assert (moved.new, breaker.status.failure_count) == ("closed", 1)
    assert breaker.fail().moved is not None


@pytest.mark.parametrize("config", [{}, {"window": "count"}, {"window": "time"}])
def test_metrics_only_then_opens_if_one_failure_is_enough(config: dict[str, Any]) -> None:
    breaker = Driver(**config, failure_threshold=1)
    breaker.control("metrics_only", seconds=30)
    breaker.now += 30
    moved = breaker.fail().moved
    assert moved is not None
    assert (moved.old, moved.new) == ("metrics_only", "open")
    assert (breaker.state.epoch, breaker.status.failure_count) == (2, 1)


def test_metrics_only_given_again_changes_only_its_end_and_its_reason() -> None:
    breaker = Driver(window="time")
    breaker.control("metrics_only")
    breaker.fail(2)
    epoch = breaker.state.epoch
    breaker.control("metrics_only", seconds=5, reason="a little longer")
    status = breaker.status
    assert (status.failure_count, status.reason, breaker.state.epoch) == (2, "a little longer", epoch)
    assert breaker.state.until == START + 5


def test_metrics_only_after_the_clock_went_back_lasts_as_long_as_it_would_have() -> None:
    breaker = Driver()
    breaker.control("metrics_only", seconds=30)
    breaker.now -= 1000
    step = breaker.admit()
    assert (step.keep, step.until) == (NOW, breaker.now + 30)


# --- how long a record means something --------------------------------------------------------------------------------


def test_a_window_of_time_ends_when_all_calls_have_left_it_and_one_of_calls_never() -> None:
    breaker = Driver(window="time", window_duration=7200)
    breaker.fail()
    end = breaker.policy.expires_at(breaker.state)
    assert end is not None
    assert START + 7200 - 720 + 3600 < end <= START + 7200 + 3600
    streak = breaker.other(failure_max_age=86400)
    streak.fail()
    assert streak.policy.expires_at(streak.state) == START + 86400 + 3600
    streak.succeed()
    assert streak.policy.expires_at(streak.state) == end
    calls = Driver(window="count")
    calls.succeed()
    assert calls.policy.expires_at(calls.state) is None


# --- against counting one by one --------------------------------------------------------------------------------------

CALLS = st.lists(
    st.tuples(st.floats(0, 5), st.sampled_from([SUCCESS, FAILURE]), st.booleans(), st.integers(1, 12)), max_size=40
)


@settings(deadline=None, max_examples=60)
@given(CALLS, st.integers(1, 12))
def test_a_window_of_calls_holds_the_last_ones(calls: list[Any], size: int) -> None:
    breaker = Driver(window="count", window_size=size, slow_call_rate_threshold=1, slow_call_duration=1)
    breaker.control("metrics_only")
    last: list[tuple[bool, bool]] = []
    for wait, outcome, slow, count in calls:
        breaker.now += wait
        breaker.report(outcome, duration=2 if slow else 0, count=count)
        last = [*last, *[(outcome == FAILURE, slow)] * count][-size:]
        status = breaker.status
        assert (status.failure_count, status.slow_count) == (sum(f for f, _ in last), sum(s for _, s in last))
        assert (status.success_count or 0) + status.failure_count == len(last)
        assert decode(breaker.policy.encode(breaker.state)) == breaker.state


@settings(deadline=None, max_examples=60)
@given(CALLS, st.sampled_from([-20.0, -3.0, 3.0, 20.0]))
def test_a_window_of_time_holds_the_buckets_from_nine_before_to_ten_ahead(calls: list[Any], jump: float) -> None:
    breaker = Driver(window="time", window_duration=10, slow_call_rate_threshold=1, slow_call_duration=1)
    breaker.control("metrics_only")
    held: list[tuple[int, bool, bool, int]] = []
    for index, (wait, outcome, slow, count) in enumerate(calls):
        breaker.now += jump if index == 20 else wait
        present = int(breaker.now)
        breaker.report(outcome, duration=2 if slow else 0, count=count)
        held.append((present, outcome == FAILURE, slow, count))
        held = [call for call in held if present - 10 < call[0] <= present + 10]
        status = breaker.status
        assert status.failure_count == sum(count for _, failed, _, count in held if failed)
        assert status.slow_count == sum(count for _, _, was_slow, count in held if was_slow)
        assert (status.success_count or 0) + status.failure_count == sum(count for *_, count in held)
        assert decode(breaker.policy.encode(breaker.state)) == breaker.state
