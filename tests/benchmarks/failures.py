"""Ways to count failures of one key together, for `crowd`: ours, and what people write themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Doing = tuple[Callable[[], object], Callable[[], object]]

THRESHOLD = 1_000_000
"""So many failures open it, the most that can be asked for: more than are measured."""


PATIENCE = 5.0
"""Seconds that ours waits for the storage, as the others would for ever.  By default it goes on by itself after a
quarter of one, and what is measured would be that."""


def ours(url: str, environ: dict[str, str] | None = None) -> Doing:
    """Failures that are recorded with a breaker; each process records one before it begins.

    :param environ: the variables that it is configured by.
    """
    from resilience import CircuitBreaker, Runtime

    runtime = Runtime(storage=url, storage_timeout=PATIENCE, environ=environ or {})
    breaker = CircuitBreaker("crowded", failure_threshold=THRESHOLD, runtime=runtime)
    breaker.record_failure()  # what is done for the first time is done
    return breaker.record_failure, runtime.close


def ours_counted(url: str) -> int:
    """How many stand in the shared record."""
    from resilience import CircuitBreaker, Runtime

    with Runtime(storage=url, environ={}) as runtime:
        return CircuitBreaker("crowded", failure_threshold=THRESHOLD, runtime=runtime).status().failure_count


def rewritten(folder: str) -> Doing:
    """A JSON file behind a `FileLock`: lock, load, change, dump; one failure of each process before it begins."""
    from filelock import FileLock

    path = Path(folder, "state.json")
    lock = FileLock(f"{path}.lock")

    def fail() -> None:
        with lock:
            state: dict[str, Any] = {"state": "closed", "failure_count": 0}
            if path.exists():
                state = json.loads(path.read_text())
            state["failure_count"] += 1
            with path.open("w") as file:
                json.dump(state, file)

    fail()
    return fail, lambda: None


def rewritten_counted(folder: str) -> int:
    """How many stand in the file."""
    return int(json.loads(Path(folder, "state.json").read_text())["failure_count"])
