"""The tables 'States' and 'Choices' of the specification, row by row."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from unit.circuit_breaker.breaker_driver import START, Driver, token

from resilience.policy import FAILURE, FOREVER, KEEP, NEUTRAL, NOW, SUCCESS, Admit, Lease, Report
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker._state import LONGEST_ERROR, LONGEST_REASON, open_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.policy import Step


# --- States -----------------------------------------------------------------------------------------------------------


def test_a_breaker_without_a_record_is_closed_in_epoch_0() -> None:
    breaker = Driver()
    assert (breaker.state.state, breaker.state.epoch) == ("closed", 0)
    step = breaker.admit()
    assert (step.decision, step.keep, step.until) == (None, KEEP, FOREVER)


def test_closed_opens_at_the_failure_that_reaches_the_threshold() -> None:
    breaker = Driver(failure_threshold=3, reset_timeout=30)
    assert breaker.fail(2).moved is None
    moved = breaker.fail().moved
    assert moved is not None
    assert (moved.old, moved.new, moved.reason) == ("closed", "open", "3 failures in a row")
    assert (breaker.state.epoch, breaker.state.since, breaker.state.until) == (1, START, START + 30)


def test_a_threshold_of_one_opens_at_the_first_failure() -> None:
    moved = Driver(failure_threshold=1).fail().moved
    assert moved is not None
    assert moved.reason == "1 failure"


def test_open_rejects_until_its_end_and_lets_a_probe_in_at_it() -> None:
    breaker = Driver(reset_timeout=30).opened()
    breaker.now = START + 29.75
    step = breaker.admit()
    assert (step.keep, step.until) == (KEEP, START + 30)
    assert isinstance(step.decision, Rejection)
    assert step.decision.error("payments", breaker.now).retry_after == 0.25
    breaker.now = START + 30
    step = breaker.admit()
    assert isinstance(step.decision, Lease)
    assert step.keep is NOW
    assert step.moved is not None
    assert (step.moved.old, step.moved.new) == ("open", "half_open")
    assert breaker.status.permits_in_use == 1


def test_half_open_reopens_at_the_failure_that_reaches_its_threshold() -> None:
    breaker = Driver(half_open_failure_threshold=2)
    first = breaker.probing()
    second = breaker.let_in()
    assert breaker.report(FAILURE, token=token(first)).moved is None
    assert breaker.status.half_open_failures == 1
    moved = breaker.report(FAILURE, token=token(second), error="OSError").moved
    assert moved is not None
    assert (moved.old, moved.new) == ("half_open", "open")
    assert (breaker.status.half_open_failures, breaker.status.last_error) == (2, "OSError")


def test_half_open_closes_at_the_success_that_reaches_its_threshold_with_an_empty_window() -> None:
    breaker = Driver(half_open_success_threshold=2)
    first = breaker.probing()
    assert breaker.report(SUCCESS, token=token(first)).moved is None
    assert breaker.status.half_open_successes == 1
    moved = breaker.report(SUCCESS, token=token(breaker.let_in())).moved
    assert moved is not None
    assert (moved.old, moved.new) == ("half_open", "closed")
    status = breaker.status
    assert (status.failure_count, status.last_failure_time, status.last_error, status.opened_at) == (
        0,
        None,
        None,
        None,
    )
    assert (status.half_open_successes, status.half_open_failures, status.permits_in_use) == (0, 0, 0)


def test_force_open_rejects_all_until_taken_back() -> None:
    breaker = Driver()
    moved = breaker.control("force_open", reason="migration").moved
    assert moved is not None
    assert (moved.old, moved.new, moved.reason) == ("closed", "forced_open", "migration")
    breaker.now += 10**9
    step = breaker.admit()
    assert step.until == FOREVER
    assert isinstance(step.decision, Rejection)
    error = step.decision.error("payments", breaker.now)
    assert (error.retry_after, error.reason) == (None, "migration")
    assert (breaker.status.reason, breaker.status.opened_at, breaker.status.retry_after) == ("migration", START, None)


def test_force_open_for_a_time_is_then_an_open_whose_time_is_up() -> None:
    breaker = Driver()
    breaker.control("force_open", seconds=600)
    assert breaker.refused().until == START + 600
    breaker.now += 600
    step = breaker.admit()
    assert isinstance(step.decision, Lease)
    assert step.moved is not None
    assert (step.moved.old, step.moved.new) == ("forced_open", "half_open")


def test_what_a_person_said_of_a_state_ends_with_it() -> None:
    breaker = Driver()
    breaker.control("force_open", seconds=600, reason="moving house")
    assert breaker.status.reason == "moving house"
    breaker.now += 600
    breaker.admit()
    assert (breaker.status.state, breaker.status.reason) == ("half_open", "")


def test_disable_lets_all_through_and_counts_nothing() -> None:
    breaker = Driver(failure_threshold=1)
    breaker.control("disable")
    assert breaker.admit().until == FOREVER
    for outcome in (FAILURE, SUCCESS, NEUTRAL):
        assert breaker.report(outcome, epoch=1).keep is KEEP
        assert breaker.report(outcome).keep is KEEP
        assert breaker.report(outcome, epoch=0).keep is KEEP
    assert (breaker.status.state, breaker.status.late_count, breaker.status.retry_after) == ("disabled", 0, 0.0)


def test_disable_for_a_time_is_then_closed() -> None:
    breaker = Driver()
    breaker.fail(2)
    breaker.control("disable", seconds=600)
    step = breaker.admit()
    assert (step.decision, step.keep, step.until) == (None, KEEP, START + 600)
    breaker.now += 600
    step = breaker.admit()
    assert (step.decision, step.keep, step.until) == (None, NOW, FOREVER)
    assert step.moved is not None
    assert (step.moved.old, step.moved.new) == ("disabled", "closed")
    assert breaker.status.failure_count == 0


def test_disable_for_a_time_then_counts_a_failure_of_the_closed_state() -> None:
    breaker = Driver(failure_threshold=2)
    breaker.control("disable", seconds=600)
    breaker.now += 600
    assert breaker.report(SUCCESS).keep is KEEP
    assert breaker.report(FAILURE, epoch=1).keep is KEEP, "that call was let in while it was disabled"
    moved = breaker.fail().moved
    assert moved is not None
    assert moved.new == "closed"
    assert breaker.status.failure_count == 1
    moved = breaker.fail().moved
    assert moved is not None
    assert moved.new == "open"


def test_disable_for_a_time_then_opens_if_one_failure_is_enough() -> None:
    breaker = Driver(failure_threshold=1)
    breaker.control("disable", seconds=600)
    breaker.now += 600
    moved = breaker.fail().moved
    assert moved is not None
    assert (moved.old, moved.new) == ("disabled", "open")
    assert breaker.state.epoch == 2
    assert breaker.status.failure_count == 1


@pytest.mark.parametrize("verb", ["close", "reset"])
@pytest.mark.parametrize("begin", ["open", "half_open", "forced_open", "disabled"])
def test_close_and_reset_lead_from_any_state_to_closed_with_an_empty_window(begin: str, verb: str) -> None:
    breaker = _in(begin)
    step = breaker.control(verb, reason="repaired")
    assert step.moved is not None
    assert (step.moved.old, step.moved.new, step.moved.reason) == (begin, "closed", "repaired")
    status = breaker.status
    assert (status.failure_count, status.last_error, status.opened_at, status.permits_in_use) == (0, None, None, 0)
    assert (status.half_open_successes, status.half_open_failures, breaker.state.reopenings) == (0, 0, 0)
    assert status.reason == "repaired"


@pytest.mark.parametrize("verb", ["force_open", "disable"])
@pytest.mark.parametrize("begin", ["closed", "open", "half_open", "forced_open", "disabled"])
def test_a_control_that_names_the_present_state_changes_only_its_end_and_its_reason(begin: str, verb: str) -> None:
    breaker = _in(begin)
    epoch = breaker.state.epoch
    target = {"force_open": "forced_open", "disable": "disabled"}[verb]
    step = breaker.control(verb, seconds=5, reason="again")
    assert step.keep is NOW
    assert breaker.state.state == target
    assert (breaker.state.until, breaker.state.reason) == (breaker.now + 5, "again")
    assert (step.moved is None) == (begin == target)
    assert breaker.state.epoch == epoch + (begin != target)


def test_close_of_a_closed_one_changes_only_its_reason() -> None:
    breaker = Driver()
    breaker.fail()
    assert breaker.control("close").keep is KEEP
    step = breaker.control("close", reason="checked")
    assert (step.keep, step.moved) == (NOW, None)
    assert (breaker.status.reason, breaker.status.failure_count, breaker.state.epoch) == ("checked", 1, 0)
    assert breaker.control("close", reason="checked").keep is KEEP


def test_reset_empties_even_a_closed_one_and_is_told() -> None:
    breaker = Driver()
    breaker.fail()
    breaker.report(FAILURE, epoch=7)
    step = breaker.control("reset", reason="drill")
    assert step.moved is None
    assert step.tells == (("reset", {"state": "closed", "reason": "drill"}),)
    assert (breaker.status.failure_count, breaker.status.late_count, breaker.state.epoch) == (0, 0, 1)


@pytest.mark.parametrize("target", ["closed", "open", "half_open", "forced_open", "disabled"])
@pytest.mark.parametrize("begin", ["closed", "open", "half_open", "forced_open", "disabled"])
def test_restore_enters_the_given_state_with_its_counts(begin: str, target: str) -> None:
    breaker = _in(begin)
    epoch = breaker.state.epoch
    step = breaker.control(
        "restore",
        state=target,
        failure_count=7,
        last_failure_time=START - 5,
        last_error="OSError",
        half_open_successes=1,
        half_open_failures=2,
        late_count=4,
        opened_at=START - 9,
        reason="as it was",
    )
    assert (step.moved is None) == (begin == target)
    status = breaker.status
    assert (status.state, status.failure_count, status.last_failure_time) == (target, 7, START - 5)
    assert (status.half_open_successes, status.half_open_failures, status.late_count) == (1, 2, 4)
    assert (status.last_error, status.reason, status.permits_in_use) == ("OSError", "as it was", 0)
    opened_at = {"open": START - 5, "half_open": START - 9, "forced_open": START - 9}.get(target)
    assert status.opened_at == opened_at
    assert breaker.state.epoch == epoch + 1


def test_restore_of_open_lasts_from_the_last_failure() -> None:
    breaker = Driver(reset_timeout=300)
    breaker.control("restore", state="open", failure_count=3, last_failure_time=START - 299)
    assert breaker.refused().until == START + 1
    breaker.control("restore", state="open", failure_count=3, last_failure_time=START - 300)
    assert breaker.status.retry_after == 0
    breaker.let_in()
    assert breaker.state.state == "half_open"
    breaker.control("restore", state="open")
    assert breaker.state.until == START + 300
    breaker.control("restore", state="open", last_failure_time=START + 10**6)
    assert breaker.state.until == START + 300, "a time in the future is taken as now"


# --- Choices ----------------------------------------------------------------------------------------------------------


def test_a_success_never_opens_it() -> None:
    breaker = Driver(failure_threshold=2)
    breaker.control("restore", state="closed", failure_count=10)
    assert breaker.report(SUCCESS).moved is None
    assert breaker.status.failure_count == 0


def test_a_neutral_outcome_gives_its_permit_back_and_nothing_else() -> None:
    breaker = Driver(half_open_max_calls=1)
    lease = breaker.probing()
    breaker.refused()
    step = breaker.report(NEUTRAL, token=token(lease))
    assert (step.keep, step.moved) == (NOW, None)
    status = breaker.status
    assert (status.permits_in_use, status.half_open_successes, status.half_open_failures) == (0, 0, 0)
    breaker.let_in()
    assert breaker.report(NEUTRAL).keep is KEEP, "there is no anonymous permit to give back"


def test_a_neutral_outcome_changes_nothing_in_other_states() -> None:
    for begin in ("closed", "open", "forced_open", "disabled"):
        breaker = _in(begin)
        assert breaker.report(NEUTRAL).keep is KEEP
        assert breaker.report(NEUTRAL, epoch=breaker.state.epoch).keep is KEEP


@pytest.mark.parametrize("outcome", [SUCCESS, FAILURE])
@pytest.mark.parametrize("begin", ["closed", "open", "half_open", "forced_open"])
def test_a_report_of_an_earlier_epoch_changes_nothing_and_is_counted(begin: str, outcome: Any) -> None:
    breaker = _in(begin)
    before = breaker.state
    step = breaker.report(outcome, epoch=before.epoch + 5, error="OSError")
    assert step.keep is NOW
    data = {"outcome": outcome, "state": begin, "epoch": before.epoch + 5, "error": "OSError"}
    assert step.tells == (("late", data),)
    assert breaker.state == before.but(late_count=1)
    assert breaker.report(NEUTRAL, epoch=before.epoch + 5).keep is KEEP, "nothing was said, so nothing came late"


def test_a_report_after_its_own_permit_ran_out_counts_once() -> None:
    breaker = Driver(permit_timeout=10, half_open_max_calls=1, half_open_success_threshold=3)
    slow = breaker.probing()
    breaker.now += 10
    quick = breaker.let_in()
    assert breaker.status.permits_in_use == 1
    assert breaker.report(SUCCESS, token=token(slow)).moved is None
    assert (breaker.status.half_open_successes, breaker.status.permits_in_use) == (1, 1)
    breaker.report(SUCCESS, token=token(slow))
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (1, 1)
    breaker.report(SUCCESS, token=token(quick))
    breaker.report(FAILURE, token=token(quick))
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (2, 2)


def test_a_permit_that_ran_out_and_was_not_set_aside_yet_counts_as_well() -> None:
    breaker = Driver(permit_timeout=10, half_open_success_threshold=2)
    slow = breaker.probing()
    breaker.now += 11
    assert breaker.status.permits_in_use == 0
    breaker.report(SUCCESS, token=token(slow))
    assert breaker.status.half_open_successes == 1


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "-",
        "1",
        "-1",
        "ffff-1",
        "{nonce}",
        "{nonce}-",
        "{nonce}-2",
        "{nonce}-01",
        "{nonce}-+1",
        "{nonce}-¹",
        "{nonce}-1 ",
        "{nonce}-" + "1" * 5000,
    ],
)
def test_a_token_that_is_not_out_is_late(bad: str) -> None:
    breaker = Driver()
    breaker.probing()
    breaker.report(SUCCESS, token=bad.replace("{nonce}", breaker.state.probes.nonce))
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (0, 1)


def test_a_token_of_another_phase_or_another_life_never_matches() -> None:
    breaker = Driver(reset_timeout=0)
    breaker.draw = 1
    old = token(breaker.probing())
    breaker.report(FAILURE, token=old)
    breaker.draw = 2
    new = token(breaker.probing())
    assert old != new
    breaker.report(SUCCESS, token=old)
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (0, 1)
    reborn = Driver(reset_timeout=0)
    reborn.draw = 3
    reborn.probing()
    reborn.report(SUCCESS, token=old, epoch=2)
    assert (reborn.status.half_open_successes, reborn.status.late_count) == (0, 1)


def test_a_token_in_any_other_state_is_late() -> None:
    for begin in ("closed", "open", "forced_open"):
        breaker = _in(begin)
        breaker.report(FAILURE, token="0000000000000000-1")
        assert (breaker.status.late_count, breaker.status.failure_count) == (1, breaker.state.failures)


def test_check_takes_an_anonymous_permit_and_a_record_without_token_reports_for_it() -> None:
    breaker = Driver(half_open_max_calls=2, half_open_success_threshold=2).opened()
    breaker.now = START + 60
    first = breaker.let_in(anonymous=True)
    assert first is not None
    assert first.token is None
    assert first.expires_at == breaker.now + 60
    breaker.let_in(anonymous=True)
    breaker.refused(anonymous=True)
    breaker.report(SUCCESS)
    assert (breaker.status.permits_in_use, breaker.status.half_open_successes) == (1, 1)
    breaker.report(SUCCESS)
    assert breaker.state.state == "closed"


def test_a_record_without_token_does_not_report_for_a_permit_with_one() -> None:
    breaker = Driver(half_open_success_threshold=1)
    breaker.probing()
    breaker.report(SUCCESS)
    assert (breaker.state.state, breaker.status.late_count, breaker.status.permits_in_use) == ("half_open", 1, 1)


def test_a_record_without_token_reports_for_an_anonymous_permit_that_ran_out() -> None:
    breaker = Driver(permit_timeout=10, half_open_max_calls=1, half_open_success_threshold=5).opened()
    breaker.now = START + 60
    breaker.let_in(anonymous=True)
    breaker.now += 10
    breaker.report(SUCCESS)  # it ran out, but nobody set it aside yet
    assert breaker.status.half_open_successes == 1
    breaker.let_in(anonymous=True)
    breaker.now += 10
    lease = breaker.let_in()  # sets it aside
    breaker.report(SUCCESS)
    assert (breaker.status.half_open_successes, breaker.status.permits_in_use, breaker.status.late_count) == (2, 1, 0)
    breaker.report(SUCCESS)
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (2, 1)
    breaker.report(SUCCESS, token=token(lease))
    assert breaker.status.half_open_successes == 3


def test_a_record_without_token_frees_a_permit_in_flight_rather_than_one_that_ran_out() -> None:
    breaker = Driver(permit_timeout=10, half_open_max_calls=1, half_open_success_threshold=5).opened()
    breaker.now = START + 60
    breaker.let_in(anonymous=True)  # its process dies
    breaker.now += 10
    breaker.let_in(anonymous=True)
    breaker.report(SUCCESS)
    breaker.let_in(anonymous=True)  # at once


def test_a_late_failure_without_token_is_counted_and_the_state_stays() -> None:
    breaker = Driver(half_open_failure_threshold=1)
    breaker.probing()
    breaker.now += 1
    step = breaker.report(FAILURE, error="OSError")
    assert step.moved is None
    assert step.tells[0][0] == "late"
    status = breaker.status
    assert (status.state, status.failure_count, status.late_count) == ("half_open", 4, 1)
    assert (status.last_error, status.last_failure_time) == ("OSError", breaker.now)


def test_a_late_success_without_token_neither_closes_it_nor_holds_it_open() -> None:
    breaker = Driver(half_open_success_threshold=1)
    lease = breaker.probing()
    for _ in range(10):
        breaker.report(SUCCESS)
    assert (breaker.state.state, breaker.status.late_count) == ("half_open", 10)
    breaker.report(SUCCESS, token=token(lease))
    assert breaker.state.state == "closed"


def test_record_failure_while_open_is_late_and_does_not_prolong_it() -> None:
    breaker = Driver().opened()
    until = breaker.state.until
    breaker.now += 10
    for epoch in (None, 1):
        breaker.report(FAILURE, epoch=epoch)
    assert (breaker.state.until, breaker.status.failure_count, breaker.status.late_count) == (until, 3, 2)


def test_reading_the_state_after_the_timeout_says_open_and_changes_nothing() -> None:
    breaker = Driver().opened()
    breaker.now += 10**6
    status = breaker.status
    assert (status.state, status.retry_after) == ("open", 0.0)
    assert status == breaker.status


def test_counts_after_opening_stay_as_they_were_until_it_closes() -> None:
    breaker = Driver(failure_threshold=3, half_open_success_threshold=2)
    lease = breaker.probing()
    assert breaker.status.failure_count == 3
    breaker.report(SUCCESS, token=token(lease))
    breaker.report(FAILURE, token=token(breaker.let_in()))
    status = breaker.status
    assert (status.state, status.failure_count, status.half_open_successes, status.half_open_failures) == (
        "open",
        3,
        1,
        1,
    )
    breaker.probing()
    status = breaker.status
    assert (status.failure_count, status.half_open_successes, status.half_open_failures) == (3, 0, 0)
    breaker.control("force_open")
    assert breaker.status.failure_count == 3


def test_settings_given_in_code_are_stored_and_left_alone_by_who_has_none() -> None:
    code = Driver(failure_threshold=1, given={"failure_threshold": 1})
    assert code.policy.stored_settings(code.state) in (None, {})
    code.opened()
    assert code.policy.stored_settings(code.state) == {"failure_threshold": 1}
    shell = code.other()
    shell.control("reset")
    assert shell.policy.stored_settings(shell.state) == {"failure_threshold": 1}
    other_code = shell.other(given={"reset_timeout": 5})
    other_code.report(FAILURE)
    assert other_code.policy.stored_settings(other_code.state) == {"reset_timeout": 5}


@pytest.mark.parametrize("begin", ["closed", "open", "half_open", "forced_open", "disabled"])
def test_every_commit_by_code_stores_its_settings(begin: str) -> None:
    given = {"failure_threshold": 3}
    events: list[Callable[[Driver], Step]] = [
        lambda breaker: breaker.admit(),
        lambda breaker: breaker.report(SUCCESS),
        lambda breaker: breaker.report(FAILURE),
        lambda breaker: breaker.report(FAILURE, epoch=99),
        lambda breaker: breaker.report(NEUTRAL),
        *(
            partial(Driver.control, verb=verb, state="open", reason="x")
            for verb in ("force_open", "disable", "close", "reset", "restore")
        ),
    ]
    for clock in (-1000, 0, 1000):
        for event in events:
            breaker = _in(begin, given=given)
            breaker.state = breaker.state.but(settings={})
            breaker.now += clock
            if event(breaker).keep is NOW:
                assert breaker.policy.stored_settings(breaker.state) == given


def test_one_name_different_settings_state_permits_and_backoff_are_shared() -> None:
    strict = Driver(failure_threshold=1, reset_timeout=10, half_open_max_calls=1)
    strict.fail()
    lax = strict.other(failure_threshold=100, reset_timeout=1000, half_open_max_calls=3)
    lax.now += 9
    assert lax.refused().until == START + 10, "the end was stored by who opened"
    lax.now += 1
    first, second, third = (token(lax.let_in()) for _ in range(3))
    lax.refused()
    strict.state, strict.now = lax.state, lax.now
    rejection = strict.refused()
    assert rejection.until == strict.now + 1000, "a permit runs out when its taker said"
    for lease in (first, second):
        strict.report(NEUTRAL, token=lease)
        strict.refused()
    strict.report(NEUTRAL, token=third)
    strict.let_in()


def test_a_limit_that_was_lowered_is_kept_once_enough_permits_ran_out() -> None:
    wide = Driver(half_open_max_calls=3, permit_timeout=30)
    wide.probing()
    for _ in range(2):
        wide.now += 10
        wide.let_in()
    narrow = wide.other(half_open_max_calls=2, permit_timeout=30)
    assert narrow.refused().until == wide.now + 20, "the first one running out is not enough"
    assert narrow.status.retry_after == 20
    narrow.now += 19
    narrow.refused()
    narrow.now += 1
    narrow.let_in()


def test_a_success_clears_the_shared_streak() -> None:
    breaker = Driver(failure_threshold=3)
    breaker.fail(2)
    other = breaker.other()
    step = other.report(SUCCESS)
    assert (step.keep, step.moved) == (NOW, None)
    assert other.status.failure_count == 0
    assert other.report(SUCCESS).keep is KEEP


# --- Configuration ----------------------------------------------------------------------------------------------------


def test_a_streak_whose_last_failure_is_too_old_starts_anew() -> None:
    breaker = Driver(failure_threshold=3, failure_max_age=100)
    breaker.fail(2)
    breaker.now += 100.001
    breaker.fail()
    assert breaker.status.failure_count == 1
    breaker.now += 100
    breaker.fail()
    assert breaker.status.failure_count == 2
    breaker.now += 101
    breaker.fail()
    assert (breaker.state.state, breaker.status.failure_count) == ("closed", 1), "nor may the third failure open it"


def test_a_failure_that_had_to_wait_keeps_its_own_time() -> None:
    breaker = Driver(failure_threshold=9, failure_max_age=100)
    breaker.report(FAILURE, at=START - 50)
    assert breaker.status.last_failure_time == START - 50
    breaker.fail()
    breaker.report(FAILURE, at=START - 50)
    assert (breaker.status.last_failure_time, breaker.status.failure_count) == (START, 3)
    breaker.report(FAILURE, at=START + 50)
    assert breaker.status.last_failure_time == START, "nothing ends after it was reported"


def test_half_open_failures_keep_their_own_time_as_well() -> None:
    breaker = Driver(half_open_failure_threshold=9)
    breaker.probing()
    lease = breaker.let_in()
    breaker.now += 50
    breaker.report(FAILURE, token=token(lease), at=breaker.now - 20)
    assert breaker.status.last_failure_time == breaker.now - 20
    breaker.report(FAILURE, token=token(breaker.let_in()), at=breaker.now - 30)
    assert breaker.status.last_failure_time == breaker.now - 20
    breaker.report(FAILURE, token=token(breaker.let_in()), at=breaker.now + 30)
    assert breaker.status.last_failure_time == breaker.now


def test_backoff_lasts_longer_after_each_failed_phase_up_to_the_maximum_and_ends_when_it_closes() -> None:
    breaker = Driver(reset_timeout=10, reset_timeout_backoff=2.0, reset_timeout_max=35, half_open_success_threshold=1)
    spans: list[float] = []
    breaker.opened()
    for _ in range(4):
        assert breaker.state.since is not None
        assert breaker.state.until is not None
        spans.append(breaker.state.until - breaker.state.since)
        breaker.report(FAILURE, token=token(breaker.probing()))
    assert spans == [10, 20, 35, 35]
    breaker.report(SUCCESS, token=token(breaker.probing()))
    breaker.opened()
    assert breaker.state.until == breaker.now + 10


def test_backoff_never_overflows() -> None:
    config = Driver(reset_timeout=1, reset_timeout_backoff=100.0, reset_timeout_max=86400).policy.config
    assert open_seconds(config, 10**12, 2**64 - 1) == 86400
    nothing = Driver(reset_timeout=0, reset_timeout_backoff=100.0, reset_timeout_jitter=1.0).policy.config
    assert open_seconds(nothing, 10**12, 2**64 - 1) == 0


def test_jitter_adds_a_share_drawn_by_who_opens_and_the_maximum_holds_after_it() -> None:
    config = Driver(reset_timeout=100, reset_timeout_jitter=0.5, reset_timeout_max=140).policy.config
    assert open_seconds(config, 0, 0) == 100
    assert open_seconds(config, 0, 2**63) == 125
    assert open_seconds(config, 0, 2**64 - 1) == 140
    breaker = Driver(reset_timeout=100, reset_timeout_jitter=0.5)
    breaker.draw = 2**63
    breaker.opened()
    assert breaker.state.until == START + 125
    breaker.draw = 0
    assert breaker.refused().until == START + 125


def test_no_more_permits_in_flight_than_the_limit_and_the_earliest_to_run_out_says_when() -> None:
    breaker = Driver(half_open_max_calls=2, permit_timeout=60)
    first = breaker.probing()
    begun = breaker.now
    breaker.now += 10
    breaker.let_in()
    step = breaker.admit()
    assert isinstance(step.decision, Rejection)
    assert (step.keep, step.until) == (KEEP, begun + 60)
    assert step.decision.error("payments", breaker.now).retry_after == 50
    assert breaker.status.retry_after == 50
    breaker.report(SUCCESS, token=token(first))
    assert breaker.status.retry_after == 0
    breaker.let_in()


def test_without_a_limit_all_are_let_in_no_permits_are_kept_and_every_report_counts() -> None:
    breaker = Driver(half_open_max_calls=None, half_open_success_threshold=3).opened()
    breaker.now += 60
    step = breaker.admit()
    assert (step.decision, step.keep, step.until) == (None, NOW, FOREVER)
    step = breaker.admit()
    assert (step.decision, step.keep, step.until) == (None, KEEP, FOREVER)
    assert breaker.status.permits_in_use == 0
    assert breaker.status.retry_after == 0
    breaker.report(SUCCESS, epoch=2)
    breaker.report(SUCCESS)
    assert breaker.report(NEUTRAL, epoch=2).keep is KEEP
    breaker.report(SUCCESS)
    assert breaker.state.state == "closed"


def test_without_a_limit_a_failure_opens_it_again() -> None:
    breaker = Driver(half_open_max_calls=None).opened()
    breaker.now += 60
    breaker.admit()
    breaker.fail()
    assert breaker.state.state == "open"


def test_a_call_let_in_by_a_process_without_limit_counts_in_one_with_a_limit() -> None:
    unlimited = Driver(half_open_max_calls=None).opened()
    unlimited.now += 60
    unlimited.let_in()
    limited = unlimited.other(half_open_max_calls=1, half_open_success_threshold=2)
    limited.report(SUCCESS, epoch=2)
    assert limited.status.half_open_successes == 1
    limited.report(SUCCESS)
    assert (limited.status.half_open_successes, limited.status.late_count) == (1, 1)


def test_a_permit_of_a_process_with_a_limit_is_given_back_by_one_without() -> None:
    limited = Driver(half_open_max_calls=1, half_open_success_threshold=9).opened()
    limited.now += 60
    limited.let_in(anonymous=True)
    unlimited = limited.other(half_open_max_calls=None, half_open_success_threshold=9)
    unlimited.report(SUCCESS)
    assert (unlimited.status.half_open_successes, unlimited.status.permits_in_use) == (1, 0)
    limited.state = unlimited.state
    lease = limited.let_in()
    unlimited.state = limited.state
    unlimited.report(SUCCESS, token=token(lease))
    unlimited.report(SUCCESS, token=token(lease))
    status = unlimited.status
    assert (status.half_open_successes, status.permits_in_use, status.late_count) == (2, 0, 1)


def test_a_permit_whose_holder_has_not_reported_is_free_for_others() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=20)
    breaker.probing()
    breaker.now += 19.9
    breaker.refused()
    breaker.now += 0.1
    breaker.let_in()


def test_permits_that_ran_out_are_remembered_up_to_a_bound() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=1)
    tokens = [token(breaker.probing())]
    for _ in range(100):
        breaker.now += 1
        tokens.append(token(breaker.let_in()))
    assert len(breaker.state.probes.lapsed) == 64
    breaker.report(SUCCESS, token=tokens[-66])
    assert (breaker.status.half_open_successes, breaker.status.late_count) == (0, 1), "forgotten"
    breaker.report(SUCCESS, token=tokens[-65])
    assert breaker.status.half_open_successes == 1
    assert len(breaker.state.probes.lapsed) == 63
    wide = Driver(half_open_max_calls=50, permit_timeout=1, half_open_success_threshold=9)
    wide.probing()
    for _ in range(6):
        for _ in range(wide.policy.config.half_open_max_calls or 0):
            wide.admit()
        wide.now += 1
    assert len(wide.state.probes.lapsed) == 200


# --- Time -------------------------------------------------------------------------------------------------------------


def test_an_open_from_the_future_begins_now_and_others_are_told() -> None:
    breaker = Driver(reset_timeout=30).opened()
    breaker.now -= 10**6
    step = breaker.admit()
    assert (step.keep, step.moved, step.until) == (NOW, None, breaker.now + 30)
    assert (breaker.state.since, breaker.state.until) == (breaker.now, breaker.now + 30)
    assert breaker.status.opened_at == breaker.now
    assert breaker.admit().keep is KEEP
    assert breaker.status.retry_after == 30
    breaker.now += 30
    breaker.let_in()


def test_reading_an_open_from_the_future_takes_it_as_now() -> None:
    breaker = Driver(reset_timeout=30).opened()
    breaker.now -= 10**6
    assert breaker.status.retry_after == 30


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_a_span_by_hand_from_the_future_begins_now(verb: str) -> None:
    breaker = Driver()
    breaker.control(verb, seconds=60)
    breaker.now -= 10**6
    step = breaker.admit()
    assert (step.keep, step.moved, step.until) == (NOW, None, breaker.now + 60)
    breaker.now += 60
    assert breaker.admit().moved is not None


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_a_renewed_span_by_hand_from_the_future_lasts_no_longer_than_renewed(verb: str) -> None:
    breaker = Driver()
    breaker.control(verb, seconds=60)
    breaker.now += 50
    breaker.control(verb, seconds=60)
    breaker.now -= 10**6
    assert breaker.admit().until == breaker.now + 60


@pytest.mark.parametrize("verb", ["force_open", "disable"])
def test_a_state_by_hand_without_end_knows_no_clock(verb: str) -> None:
    breaker = Driver()
    breaker.control(verb)
    breaker.now -= 10**6
    step = breaker.admit()
    assert (step.keep, step.until) == (KEEP, FOREVER)


def test_permits_from_the_future_begin_now_and_others_are_told() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=30)
    lease = breaker.probing()
    breaker.now -= 10**6
    assert breaker.status.permits_in_use == 1
    step = breaker.admit()
    assert isinstance(step.decision, Rejection)
    assert (step.keep, step.until) == (NOW, breaker.now + 30)
    assert breaker.admit().keep is KEEP
    breaker.report(SUCCESS, token=token(lease))
    assert breaker.status.half_open_successes == 1


def test_permits_from_the_future_are_taken_as_now_when_another_is_taken_or_one_reports() -> None:
    acts: list[Callable[[Driver], object]] = [
        lambda breaker: breaker.let_in(),
        lambda breaker: breaker.report(NEUTRAL, token="0000000000000000-2"),
    ]
    for act in acts:
        breaker = Driver(half_open_max_calls=3, permit_timeout=30)
        breaker.probing()
        breaker.let_in()
        breaker.now -= 10**6
        act(breaker)
        taken_at, expires_at, _ = breaker.state.probes.permits[1]
        assert (taken_at, expires_at) == (breaker.now, breaker.now + 30)


def test_an_anonymous_permit_from_the_future_is_in_flight() -> None:
    breaker = Driver(half_open_max_calls=2, half_open_success_threshold=9).opened()
    breaker.now += 60
    breaker.let_in(anonymous=True)
    breaker.now -= 10**6
    breaker.report(SUCCESS)
    assert (breaker.status.half_open_successes, breaker.status.permits_in_use) == (1, 0)


def test_a_last_failure_in_the_future_is_taken_as_now() -> None:
    breaker = Driver(failure_threshold=9, failure_max_age=100)
    breaker.fail()
    breaker.now -= 10**6
    breaker.fail()
    assert (breaker.status.failure_count, breaker.status.last_failure_time) == (2, breaker.now)
    assert breaker.admit().keep is KEEP


# --- Arguments --------------------------------------------------------------------------------------------------------


def test_what_is_kept_of_names_and_reasons_is_bounded() -> None:
    breaker = Driver(failure_threshold=9)
    breaker.report(FAILURE, error="E" * 10**6)
    assert breaker.status.last_error == "E" * LONGEST_ERROR
    breaker.control("force_open", reason="r" * 10**6)
    assert breaker.status.reason == "r" * LONGEST_REASON
    breaker.control("restore", state="closed", last_error="E" * 10**6)
    assert breaker.status.last_error == "E" * LONGEST_ERROR
    breaker.control("close", reason=None)
    assert breaker.status.reason == ""


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        ("explode", {}, "knows no 'explode', but force_open, disable, metrics_only, close, reset, restore"),
        ("force_open", {"seconds": -1}, "force_open lasts a number of seconds from 0"),
        ("disable", {"seconds": float("inf")}, "disable lasts a number of seconds"),
        ("disable", {"seconds": float("nan")}, "disable lasts a number of seconds"),
        ("disable", {"seconds": True}, "disable lasts a number of seconds"),
        ("disable", {"seconds": "5"}, "disable lasts a number of seconds"),
        ("restore", {}, "'None' is no state"),
        ("restore", {"state": "ajar"}, "'ajar' is no state of a circuit breaker: closed, open"),
        ("restore", {"state": "open", "failure_count": -1}, "failure_count is a whole number from 0"),
        ("restore", {"state": "open", "failure_count": 10**13}, "failure_count is a whole number from 0"),
        ("restore", {"state": "open", "half_open_successes": True}, "half_open_successes is a whole number"),
        ("restore", {"state": "open", "late_count": 1.0}, "late_count is a whole number"),
        ("restore", {"state": "open", "last_failure_time": float("nan")}, "last_failure_time is a number of seconds"),
        ("restore", {"state": "open", "opened_at": "now"}, "opened_at is a number of seconds"),
        ("restore", {"state": "half_open", "opened_at": True}, "opened_at is a number of seconds"),
    ],
)
def test_a_control_that_makes_no_sense_is_refused(verb: str, arguments: dict[str, object], message: str) -> None:
    breaker = Driver()
    with pytest.raises(ValueError, match=message):
        breaker.control(verb, **arguments)


def test_states_and_what_is_in_them_say_what_they_are() -> None:
    breaker = Driver()
    breaker.probing()
    assert "state='half_open', epoch=2" in repr(breaker.state)
    assert "nonce='0000000000000000'" in repr(breaker.state)
    assert breaker.state != "half_open"
    assert breaker.state.probes != "probes"
    with pytest.raises(TypeError):
        breaker.state.but(colour="red")


def test_an_answer_holds_as_long_as_it_says() -> None:
    """The engine keeps an answer until `until`: asked again in between, nothing else may come."""
    for begin in ("closed", "open", "half_open", "forced_open", "disabled"):
        breaker = _in(begin)
        if begin in {"forced_open", "disabled"}:
            breaker.control({"forced_open": "force_open", "disabled": "disable"}[begin], seconds=50)
        while breaker.admit().keep is NOW:
            pass
        step = breaker.admit()
        assert step.keep is KEEP
        for now in (breaker.now, breaker.now + 10, min(step.until - 0.001, 2 * START)):
            again = breaker.policy.step(breaker.state, Admit(now, 0))
            assert (again.keep, again.until, type(again.decision)) == (KEEP, step.until, type(step.decision))


def test_a_success_of_the_closed_state_is_nothing_for_ever() -> None:
    """The engine asks this once, and then spares the report."""
    breaker = Driver()
    step = breaker.policy.step(breaker.state, Report(START, 0, SUCCESS, at=START, epoch=0, token=None, error=None))
    assert (step.keep, step.tells, step.until) == (KEEP, (), FOREVER)


def _in(state: str, **config: Any) -> Driver:
    """A breaker in a state that it came to by itself."""
    breaker = Driver(**config)
    if state == "open":
        breaker.opened()
    elif state == "half_open":
        breaker.probing()
    elif state == "forced_open":
        breaker.control("force_open")
    elif state == "disabled":
        breaker.control("disable")
    assert breaker.state.state == state
    return breaker
