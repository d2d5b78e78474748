"""Every row of the specification has a test, and this says which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from resilience_circuit_breaker._settings import CircuitBreakerSettings
from resilience_circuit_breaker._state import STATES

CONFIGURATION = {
    "window": "test_a_window_of_calls_holds_the_last_ones",
    "window_size": "test_window_size_is_the_number_of_the_last_calls",
    "window_duration": "test_window_duration_is_the_running_bucket_and_the_nine_before_it",
    "failure_threshold": "test_failure_threshold_opens_at_a_number_whatever_the_rate",
    "failure_max_age": "test_a_streak_whose_last_failure_is_too_old_starts_anew",
    "minimum_calls": "test_minimum_calls_must_stand_in_the_window_before_a_rate_is_judged",
    "failure_rate_threshold": "test_failure_rate_threshold_is_a_quotient_7_of_25_is_0_28",
    "slow_call_rate_threshold": "test_slow_call_rate_threshold_opens_at_slow_calls",
    "slow_call_duration": "test_slow_call_duration_makes_a_failure_slow_as_well",
    "reset_timeout": "test_open_rejects_until_its_end_and_lets_a_probe_in_at_it",
    "reset_timeout_backoff": (
        "test_backoff_lasts_longer_after_each_failed_phase_up_to_the_maximum_and_ends_when_it_closes"
    ),
    "reset_timeout_max": "test_backoff_never_overflows",
    "reset_timeout_jitter": "test_jitter_adds_a_share_drawn_by_who_opens_and_the_maximum_holds_after_it",
    "half_open_max_calls": "test_no_more_permits_in_flight_than_the_limit_and_the_earliest_to_run_out_says_when",
    "half_open_success_threshold": (
        "test_half_open_closes_at_the_success_that_reaches_its_threshold_with_an_empty_window"
    ),
    "half_open_failure_threshold": "test_half_open_failure_threshold_counts_slow_calls",
    "permit_timeout": "test_permit_timeout_is_the_longer_of_reset_timeout_and_slow_call_duration",
    "failure_on": "test_what_an_exception_means",
    "ignore": "test_what_an_exception_means",
    "failure_if": "test_what_a_result_means",
    "gather": "test_gather_is_nothing_with_consecutive_and_bounded_by_the_window",
    "on_store_error": "test_the_policy_says_what_the_engine_asks",
}
STATES_ENTERED = {
    "closed": "test_half_open_closes_at_the_success_that_reaches_its_threshold_with_an_empty_window",
    "open": "test_closed_opens_at_the_failure_that_reaches_the_threshold",
    "half_open": "test_open_rejects_until_its_end_and_lets_a_probe_in_at_it",
    "forced_open": "test_force_open_rejects_all_until_taken_back",
    "disabled": "test_disable_lets_all_through_and_counts_nothing",
    "metrics_only": "test_metrics_only_lets_all_through_counts_and_reports_once_per_crossing",
}
CHOICES = {
    "may a fast success open it?": "test_may_a_fast_success_open_it_no",
    "`Exception` outside `failure_on`": "test_what_an_exception_means",
    "ignored exception": "test_a_neutral_outcome_gives_its_permit_back_and_nothing_else",
    "other `BaseException`": "test_what_an_exception_means",
    "cancelled after more than `slow_call_duration`": (
        "test_cancelled_after_more_than_slow_call_duration_is_a_slow_call"
    ),
    "report of a call begun in an earlier epoch": ("test_a_report_of_an_earlier_epoch_changes_nothing_and_is_counted"),
    "report after its own permit ran out": "test_a_report_after_its_own_permit_ran_out_counts_once",
    "`check()`": "test_check_takes_an_anonymous_permit_and_a_record_without_token_reports_for_it",
    "`record_*` without a token": "test_a_late_failure_without_token_is_counted_and_the_state_stays",
    "`record_failure` while OPEN": "test_record_failure_while_open_is_late_and_does_not_prolong_it",
    "reading the state after the timeout": ("test_reading_the_state_after_the_timeout_says_open_and_changes_nothing"),
    "counts after opening": "test_counts_after_opening_stay_as_they_were_until_it_closes",
    "a shell verb on a breaker made in code": ("test_settings_given_in_code_are_stored_and_left_alone_by_who_has_none"),
    "one name, different settings in two processes": (
        "test_one_name_different_settings_counts_stand_beside_each_other_and_a_warning_names_both"
    ),
    "a bucket from the future": ("test_a_bucket_from_the_future_is_used_up_to_one_window_ahead_and_dropped_beyond"),
    "a success in one process, `consecutive`": "test_a_success_clears_the_shared_streak",
}


def test_every_setting_and_every_state_has_its_test() -> None:
    assert list(CONFIGURATION) == list(CircuitBreakerSettings.model_fields)
    assert list(STATES_ENTERED) == list(STATES)


@pytest.mark.parametrize("rows", [CONFIGURATION, STATES_ENTERED, CHOICES], ids=["configuration", "states", "choices"])
def test_the_tests_of_the_rows_are_there(rows: dict[str, str]) -> None:
    written = {
        node.name
        for file in Path(__file__).parent.glob("test_*.py")
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert set(rows.values()) <= written
