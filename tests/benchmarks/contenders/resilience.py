"""Ours, on the file storage: the state is shared with every process of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.jobs import awaits, awork, calls, failing, opened, raising, work

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from benchmarks.jobs import Job

FILL = 200_000
"""Calls that stand in a window before it is measured: as many as a loop like ours makes in the first of its seconds.
Until then fewer are gathered together."""

NEVER: dict[str, Any] = {"minimum_calls": 1_000_000}
"""Settings of a time window that opens never."""


def jobs(folder: str) -> dict[str, Job]:
    return jobs_on(Path(folder, "state").as_uri())


def jobs_on(url: str) -> dict[str, Job]:
    """The same jobs on any storage."""
    runtime = Runtime(storage=url, environ={})

    def breaker(name: str, **settings: Any) -> CircuitBreaker:
        return CircuitBreaker(name, runtime=runtime, **settings)

    def window(name: str, **settings: Any) -> CircuitBreaker:
        return breaker(name, window="time", **settings)

    def filled(job: Job) -> Job:
        to_fill = [FILL]

        def measured(count: int) -> float:
            if to_fill:
                job(to_fill.pop())
            return job(count)

        return measured

    rejecting = breaker("rejecting", failure_threshold=1, reset_timeout=100_000)
    return {
        "closed": calls(breaker("closed")(work)),
        "closed, time window": filled(calls(window("timed")(work))),
        "closed, time window, slow calls": filled(calls(window("slow", slow_call_rate_threshold=0.5)(work))),
        "closed async": awaits(breaker("closed async")(awork)),
        "closed async, time window": filled(awaits(window("timed async")(awork))),
        "rejection": raising(opened(rejecting(failing))),
        "failure": raising(breaker("failures", failure_threshold=1_000_000)(failing)),
        "failure, time window": raising(window("timed failures", **NEVER)(failing)),
    }
