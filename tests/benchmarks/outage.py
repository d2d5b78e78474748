"""A server that hangs or is gone: what the first call pays, and those after it; how many failing calls get through."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def outage(
    calls: Mapping[str, Callable[[], object]], stop: Callable[[], object], turns: int = 1, size: int = 1
) -> dict[str, dict[str, float]]:
    """Stop servers, and call through breakers that were closed.

    After the first call of each they take turns, so that what else the machine does falls on all alike.  A turn is
    timed as a whole: to look at the clock for each call takes a good part of what a call does.

    :param calls: by name: goes through one of the breakers.
    :param stop: stops the servers.
    :param size: so many calls are one turn.
    :return: by name: the `first` call, and of the `following` the median of the turns, in seconds of one.
    """
    for call in calls.values():
        call()
    stop()
    time.sleep(1.1)  # whatever was known of the state before is not trusted any more
    first = {name: _timed(call) for name, call in calls.items()}
    following: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            following[name].append(_timed(call, size))
    return {name: {"first": first[name], "following": statistics.median(following[name])} for name in calls}


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


def _timed(call: Callable[[], object], times: int = 1) -> float:
    """Call so many times; seconds of one."""
    started = time.perf_counter()
    for _ in range(times):
        try:
            call()
        except Exception:  # noqa: BLE001 - some let any error of a client through; `suppress` would be timed too
            pass
    return (time.perf_counter() - started) / times
