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

GATHERED = 64 * 60
"""Calls of a round in which some are gathered: whole rows, each with its commit."""

CALLS = {
    "threading.Lock": {"": 10_000},
    "filelock.lock_descriptor": {"": 1_000},
    "filelock.FileLock": {"": 50},
    "two writes": {"": 1_000},
    "closed": {"": 2_000, "bare": 10_000, "resilience": 10_000, "resilience_memory": 10_000},
    "closed, time window": {"": GATHERED, "interlock": 500},
    "closed, time window, slow calls": {"": GATHERED},
    "closed async": {"": 2_000, "bare": 10_000, "resilience": 5_000, "resilience_memory": 5_000},
    "closed async, time window": {"": GATHERED},
    "rejection": {"": 1_000, "purgatory": 200},
    "failure": {"": 500},
    "failure, time window": {"": 500},
}
"""Job, then contender: how often in one round."""


def measure(bench: Bench) -> dict[str, Any]:
    """Return interpreter, job, contender: seconds of a call."""
    return {
        version: race(CONTENDERS, CALLS, bench.of(61, 9), bench.folder / f"calls-{version}", python)
        for version, python in bench.pythons.items()
    }
