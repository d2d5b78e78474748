"""circuitbreaker, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import circuitbreaker
from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed = circuitbreaker.CircuitBreaker(name="closed")
    failures = circuitbreaker.CircuitBreaker(failure_threshold=1 << 60, name="failures")
    rejecting = circuitbreaker.CircuitBreaker(failure_threshold=1, recovery_timeout=100_000, name="rejecting")
    return {
        "closed": calls(closed(work)),
        "closed async": awaits(closed(awork)),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(failures(failing)),
    }
