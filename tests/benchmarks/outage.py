"""A server that hangs or is gone: what the first call pays, and those after it; how many failing calls get through."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def outage(call: Callable[[], object], stop: Callable[[], object], following: int) -> dict[str, float]:
    """Stop a server, and call through a breaker that was closed.

    :param call: goes through it.
    :return: `first` and the median of the `following`, in seconds.
    """
    call()
    stop()
    time.sleep(1.1)  # whatever was known of the state before is not trusted any more
    taken = [_timed(call) for _ in range(following + 1)]
    return {"first": taken[0], "following": statistics.median(taken[1:] or taken)}


CALLS = 50
THRESHOLD = 3


class Failing:
    """What is protected: it fails, and counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        """Fail."""
        self.calls += 1
        raise OSError


def reached(protect: Callable[..., Callable[[], object]], url: str, stop: Callable[[], object]) -> int:
    """Count how many of `CALLS` failing calls get through a breaker of this `THRESHOLD` whose server is gone.

    :param protect: of a module of `benchmarks.contenders`.
    """
    failing = Failing()
    call = protect(url, "reached", failing.__call__, threshold=THRESHOLD)
    stop()
    for _ in range(CALLS):
        _timed(call)
    return failing.calls


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    try:
        call()
    except Exception:  # noqa: BLE001 - some let the error of the server through
        pass
    return time.perf_counter() - started
