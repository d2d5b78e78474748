"""What authors of applications get: a clean runtime, a breaker that is open, what was announced."""

from __future__ import annotations

import pytest

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Runtime
from resilience.testing import Clean, ManualClock, Recorder, clean_runtime, forced_open
from resilience.testing.pytest_plugin import (  # as pytest finds them where the plugin is installed
    resilience_clean,
    resilience_clock,
    resilience_recorder,
)

__all__ = ["resilience_clean", "resilience_clock", "resilience_recorder"]

payments = CircuitBreaker("payments", failure_threshold=2, reset_timeout=30, half_open_success_threshold=1)


def test_clean_runtime_is_the_current_one_and_ends() -> None:
    with clean_runtime() as clean:
        assert Runtime.current() is clean.runtime
        payments.record_failure()
        payments.record_failure()
        assert payments.status().state == CircuitState.OPEN
    with clean_runtime():
        assert payments.status().state == CircuitState.CLOSED
    assert Runtime.current() is not clean.runtime


def test_variables_are_read_if_given() -> None:
    with clean_runtime(environ={"RESILIENCE_CIRCUIT_BREAKER__FAILURE_MAX_AGE": "10"}):
        payments.record_failure()
        assert payments.status().failure_count == 1


def test_fixtures_belong_together(
    resilience_clean: Clean,
    resilience_clock: ManualClock,
    resilience_recorder: Recorder,
) -> None:
    payments.record_failure()
    payments.record_failure()
    resilience_clock.advance(30)
    payments.call(int)
    resilience_recorder.assert_path("payments", "closed", "open", "half_open", "closed")
    assert resilience_clean.recorder is resilience_recorder
    assert resilience_recorder.path("other") == []
    resilience_recorder.assert_path("other")


def test_a_wrong_path_is_told_with_reasons(resilience_recorder: Recorder) -> None:
    payments.record_failure()
    payments.record_failure()
    with pytest.raises(AssertionError, match=r"payments: expected closed, seen closed -> open\n  closed -> open: "):
        resilience_recorder.assert_path("payments", "closed")
    payments.reset("by a test")
    assert "reset" in resilience_recorder.told("payments")
    resilience_recorder.clear()
    with pytest.raises(AssertionError, match="seen no change"):
        resilience_recorder.assert_path("payments", "open")
    assert resilience_recorder.told("payments") == []


def test_forced_open_for_a_block(resilience_clean: Clean) -> None:
    with forced_open(payments) as breaker:
        assert breaker is payments
        with pytest.raises(CircuitOpenError):
            payments.call(int)
    assert payments.call(int) == 0
    assert payments.status().state == CircuitState.CLOSED


def test_manual_clock() -> None:
    clock = ManualClock(100.0, seed=7)
    clock.advance(5)
    clock.jump_wall(-50)
    assert (clock.wall(), clock.monotonic()) == (55.0, 5.0)
    assert [clock.draw(), clock.draw()] != [clock.draw(), clock.draw()]
    assert ManualClock(seed=7).draw() == ManualClock(seed=7).draw()
    with pytest.raises(ValueError, match="time does not go back"):
        clock.advance(-1)
