"""Fixtures for tests of programs that use guards.

pytest loads this in every run, so it imports nothing of ours before a fixture is used.
"""

from __future__ import annotations

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.testing.applications import Clean, Recorder
    from resilience.testing.manual_clock import ManualClock

pytest.register_assert_rewrite("resilience.testing.conformance")


@pytest.fixture
def resilience_clean() -> Iterator[Clean]:
    """Give this test a runtime of its own: in memory, a clock that stands still, a recorder; no variables are read."""
    from resilience.testing.applications import clean_runtime

    with clean_runtime() as clean:
        yield clean


@pytest.fixture
def resilience_clock(resilience_clean: Clean) -> ManualClock:
    """The clock of `resilience_clean`: ``resilience_clock.advance(30)``."""
    return resilience_clean.clock


@pytest.fixture
def resilience_recorder(resilience_clean: Clean) -> Recorder:
    """The recorder of `resilience_clean`: ``resilience_recorder.assert_path("payments", "closed", "open")``."""
    return resilience_clean.recorder
