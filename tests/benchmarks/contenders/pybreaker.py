"""pybreaker, in memory.  Its way with coroutines needs Tornado, so it has no part in what is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pybreaker
from benchmarks.jobs import calls, failing, opened, raising, work

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed = pybreaker.CircuitBreaker()
    failures = pybreaker.CircuitBreaker(fail_max=1 << 60)
    rejecting = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=100_000)
    return {
        "closed": calls(closed(work)),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(failures(failing)),
    }
