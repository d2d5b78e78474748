"""pybreaker on a Redis: the URL stands in the file `url` of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pybreaker
from benchmarks.jobs import calls, failing, raising, work
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    url = Path(folder, "url").read_text()
    return {
        "closed": calls(protect(url, "pybreaker closed", work)),
        "failure": raising(protect(url, "pybreaker failures", failing, threshold=1 << 60)),
    }


def protect(
    url: str, name: str, function: Callable[[], object], *, threshold: int = 1, reset: float = 100_000
) -> Callable[[], Any]:
    """Protect a function with a breaker that all processes share."""
    storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, Redis.from_url(url), namespace=name)
    breaker = pybreaker.CircuitBreaker(fail_max=threshold, reset_timeout=reset, state_storage=storage)
    guarded: Callable[[], Any] = breaker(function)
    return guarded
