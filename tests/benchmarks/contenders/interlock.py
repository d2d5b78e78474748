"""interlock-cb, in memory.  It has windows only: the last hundred calls, judged from the tenth on, or ten seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work
from interlock import CircuitBreaker, Config, WindowType

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed = CircuitBreaker(name="closed")
    timed = CircuitBreaker(name="timed", config=Config(window_type=WindowType.TIME_BASED, window_size=60))
    failures = CircuitBreaker(name="failures", config=Config(minimum_number_of_calls=1 << 60))
    one = Config(minimum_number_of_calls=1, window_size=1, wait_duration_in_open=100_000)
    rejecting = CircuitBreaker(name="rejecting", config=one)
    return {
        "closed": calls(closed(work)),
        "closed, time window": calls(timed(work)),
        "closed async": awaits(closed(awork)),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(failures(failing)),
    }
