"""The suite: plain functions that take a `Subject` and raise `Violation`, in the order in which they are run."""

from __future__ import annotations

from resilience.testing.checks import (
    awaitable,
    concurrency,
    contract,
    coroutines,
    faults,
    forks,
    freshness,
    locking,
    processes,
    reading,
    speed,
)
from resilience.testing.checks.registry import Check, all_checks

__all__ = [
    "Check",
    "all_checks",
    "awaitable",
    "concurrency",
    "contract",
    "coroutines",
    "faults",
    "forks",
    "freshness",
    "locking",
    "processes",
    "reading",
    "speed",
]
