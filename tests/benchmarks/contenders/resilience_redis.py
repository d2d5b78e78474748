"""Ours, on a Redis: the URL stands in the file `url` of its folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.resilience import jobs_on
from benchmarks.failures import PATIENCE

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.jobs import Job


def jobs(folder: str) -> dict[str, Job]:
    every = jobs_on(Path(folder, "url").read_text())
    return {name: every[name] for name in ("closed", "failure")}


def protect(
    url: str,
    name: str,
    function: Callable[[], object],
    *,
    threshold: int = 1,
    reset: float = 100_000,
    timeout: float = PATIENCE,
) -> Callable[[], Any]:
    """Protect a function with a breaker that all processes share, and that lets one call through when it half opens."""
    return CircuitBreaker(
        name,
        failure_threshold=threshold,
        reset_timeout=reset,
        half_open_max_calls=1,
        runtime=_runtime(url, timeout),
    )(function)


@cache
def _runtime(url: str, timeout: float) -> Runtime:
    return Runtime(storage=url, storage_timeout=timeout, environ={})
