"""purgatory on a Redis: the URL stands in the file `url` of its folder.

Its storage for threads makes an asynchronous client, whose answers nobody awaits; it is given the one that it means.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import purgatory
from benchmarks.jobs import calls, failing, raising, work
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    url = Path(folder, "url").read_text()
    return {
        "closed": calls(protect(url, "purgatory closed", work)),
        "failure": raising(protect(url, "purgatory failures", failing, threshold=1 << 60)),
    }


def protect(
    url: str, name: str, function: Callable[[], object], *, threshold: int = 1, reset: float = 100_000
) -> Callable[[], Any]:
    """Protect a function with a breaker that all processes share."""
    unit = purgatory.SyncRedisUnitOfWork(url)
    contexts: Any = unit.contexts
    contexts.redis = Redis.from_url(url)
    factory = purgatory.SyncCircuitBreakerFactory(default_threshold=threshold, default_ttl=reset, uow=unit)
    guarded: Callable[[], Any] = factory(name)(function)
    return guarded
