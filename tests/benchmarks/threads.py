"""One breaker in many threads: together they do no less than one alone."""

from __future__ import annotations

import statistics
import threading
import time
from itertools import repeat
from typing import TYPE_CHECKING, Any

from benchmarks.jobs import work

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench


def measure(bench: Bench) -> dict[str, Any]:
    """Return closed calls a second by number of threads, for each kind of window."""
    calls = bench.of(400_000, 100_000)
    with Runtime(storage=(bench.folder / "state").as_uri(), environ={}) as runtime:
        guarded = {
            "consecutive": CircuitBreaker("threads", runtime=runtime)(work),
            "time": CircuitBreaker("threads, timed", window="time", runtime=runtime)(work),
        }
        paces: dict[str, dict[int, list[float]]] = {window: {} for window in guarded}
        for _ in range(bench.of(9, 3)):
            for window, function in guarded.items():
                for size in (1, 2, 4, 8, 16):
                    paces[window].setdefault(size, []).append(calls / _seconds(function, size, calls // size))
    return {window: {size: statistics.median(each) for size, each in sizes.items()} for window, sizes in paces.items()}


def _seconds(function: Callable[[], object], size: int, calls: int) -> float:
    start = threading.Barrier(size + 1)

    def run() -> None:
        start.wait()
        for _ in repeat(None, calls):
            function()

    threads = [threading.Thread(target=run) for _ in range(size)]
    for thread in threads:
        thread.start()
    start.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started
