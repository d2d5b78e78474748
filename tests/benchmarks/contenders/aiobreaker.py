"""aiobreaker, in memory."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import aiobreaker
from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed = aiobreaker.CircuitBreaker()
    failures = aiobreaker.CircuitBreaker(fail_max=1 << 60)
    rejecting = aiobreaker.CircuitBreaker(fail_max=1, timeout_duration=timedelta(days=1))
    return {
        "closed": calls(closed(work)),
        "closed async": awaits(closed(awork)),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(failures(failing)),
    }
