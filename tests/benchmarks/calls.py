"""What one call costs: ours and the others', closed, rejecting and failing, on each interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.harness import race

if TYPE_CHECKING:
    from benchmarks.bench import Bench

CONTENDERS = (
    "bare",
    "locks",
    "resilience",
    "resilience_memory",
    "pybreaker",
    "circuitbreaker",
    "purgatory",
    "aiobreaker",
    "interlock",
    "pyresilience",
)

GATHERED = 1024
"""Calls of a round in which some are gathered: with the commit of the longest row."""

CALLS = {
    "threading.Lock": {"": 5_000},
    "filelock.lock_descriptor": {"": 300},
    "filelock.FileLock": {"": 10},
    "two writes": {"": 100},
    "closed": {"": 1_000, "bare": 10_000, "resilience": 2_000, "resilience_memory": 2_000, "interlock": 200},
    "closed, time window": {"": GATHERED, "interlock": 200},
    "closed, time window, slow calls": {"": GATHERED},
    "closed async": {"": 1_000, "bare": 5_000, "interlock": 200},
    "closed async, time window": {"": GATHERED},
    "rejection": {"": 500, "purgatory": 100, "interlock": 200},
    "failure": {"": 100},
    "failure, time window": {"": 100},
}
"""Job, then contender: how often in one round.  A round is short, half a millisecond, and there are many: where other
programs run too, most rounds are over before one of them has its turn."""


def measure(bench: Bench) -> dict[str, Any]:
    """Return interpreter, job, contender: seconds of a call."""
    return {
        version: race(CONTENDERS, CALLS, bench.of(101, 21), bench.folder / f"calls-{version}", python)
        for version, python in bench.pythons.items()
    }
