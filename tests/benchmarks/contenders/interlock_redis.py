"""interlock-cb on a Redis: the URL stands in the file `url` of its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.jobs import calls, failing, raising, work
from interlock import CircuitBreaker, Config
from interlock.integrations.redis import RedisStorage
from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    url = Path(folder, "url").read_text()
    return {
        "closed": calls(protect(url, "interlock closed", work, threshold=10)),
        "failure": raising(protect(url, "interlock failures", failing, threshold=1 << 60)),
    }


def protect(
    url: str, name: str, function: Callable[[], object], *, threshold: int = 1, reset: float = 100_000
) -> Callable[[], Any]:
    """Protect a function with a breaker that all processes share; each counts its failures by itself."""
    config = Config(minimum_number_of_calls=threshold, window_size=min(threshold, 100), wait_duration_in_open=reset)
    storage = RedisStorage(Redis.from_url(url))
    guarded: Callable[[], Any] = CircuitBreaker(name=name, config=config, storage=storage)(function)
    return guarded
