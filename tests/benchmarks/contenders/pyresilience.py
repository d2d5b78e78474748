"""pyresilience, in memory, with nothing but its circuit breaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work
from pyresilience import CircuitBreakerConfig, resilient

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed = resilient(circuit_breaker=CircuitBreakerConfig())
    failures = resilient(circuit_breaker=CircuitBreakerConfig(failure_threshold=1 << 60))
    rejecting = resilient(circuit_breaker=CircuitBreakerConfig(failure_threshold=1, recovery_timeout=100_000))
    return {
        "closed": calls(closed(work)),
        "closed async": awaits(closed(awork)),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(failures(failing)),
    }
