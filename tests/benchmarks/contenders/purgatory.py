"""purgatory, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import purgatory
from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work

if TYPE_CHECKING:
    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    closed, aclosed = purgatory.SyncCircuitBreakerFactory(), purgatory.AsyncCircuitBreakerFactory()
    failures = purgatory.SyncCircuitBreakerFactory(default_threshold=1 << 60)
    rejecting = purgatory.SyncCircuitBreakerFactory(default_threshold=1, default_ttl=100_000)
    return {
        "closed": calls(closed("closed")(work)),
        "closed async": awaits(aclosed("closed")(awork)),
        "rejection": raising(opened(rejecting("rejecting")(failing))),
        "failure": raising(failures("failures")(failing)),
    }
