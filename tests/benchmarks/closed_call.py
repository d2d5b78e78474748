"""What a protected call costs, as ratios to pybreaker in memory in the same run.

python tests/benchmarks/closed_call.py [rounds]

The contenders take turns, so that what else the machine does falls on all of them alike; medians of the rounds.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pybreaker

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 41
GOALS = {
    "closed call": 0.35,
    "closed call, time window, gathered": 0.5,
    "the same, slow calls judged": 0.6,
    "closed call, count window, gathered": 0.6,
    "rejection": 0.4,
    "failure": 4.0,
    "failure, time window": 5.0,
}


def work() -> int:
    """Do next to nothing."""
    return 1


def failing() -> int:
    """Fail as cheaply as can be."""
    raise OSError


def timed(function: Callable[[], object], calls: int) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def timed_raising(function: Callable[[], object], calls: int) -> float:
    """Seconds of one call that raises."""
    started = time.perf_counter()
    for _ in range(calls):
        try:
            function()
        except Exception:  # noqa: BLE001 - that is what is timed
            pass
    return (time.perf_counter() - started) / calls


def contenders(url: str) -> dict[str, dict[str, tuple[Callable[[], object], bool, int]]]:
    """Who does what, whether it raises, and how often in one round."""
    runtime = Runtime(storage=url, environ={})

    def ours(name: str, **settings: Any) -> CircuitBreaker:
        return CircuitBreaker(name, runtime=runtime, **settings)

    open_ones = ours("open", failure_threshold=1, reset_timeout=100_000)
    open_ones.record_failure()
    theirs_open = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=100_000)
    try:
        theirs_open.call(failing)
    except pybreaker.CircuitBreakerError:
        pass
    closed, failures = ours("closed"), ours("failures", failure_threshold=1_000_000)
    timed, counted = ours("timed", window="time"), ours("counted", window="count", window_size=1000)
    slow = ours("slow", window="time", slow_call_rate_threshold=0.5)
    timed_failures = ours("timed failures", window="time", minimum_calls=1_000_000)
    theirs = pybreaker.CircuitBreaker()
    theirs_failures = pybreaker.CircuitBreaker(fail_max=1_000_000)
    return {
        "closed call": {
            "bare": (work, False, 20_000),
            "pybreaker": (theirs(work), False, 5_000),
            "resilience": (closed(work), False, 20_000),
        },
        "closed call, time window, gathered": {
            "pybreaker": (theirs(work), False, 5_000),
            "resilience": (timed(work), False, 6_400),
        },
        "the same, slow calls judged": {
            "pybreaker": (theirs(work), False, 5_000),
            "resilience": (slow(work), False, 6_400),
        },
        "closed call, count window, gathered": {
            "pybreaker": (theirs(work), False, 5_000),
            "resilience": (counted(work), False, 6_400),
        },
        "rejection": {
            "pybreaker": (theirs_open(work), True, 2_000),
            "resilience": (open_ones(work), True, 2_000),
        },
        "failure": {
            "bare": (failing, True, 5_000),
            "pybreaker": (theirs_failures(failing), True, 1_000),
            "resilience": (failures(failing), True, 500),
        },
        "failure, time window": {
            "pybreaker": (theirs_failures(failing), True, 1_000),
            "resilience": (timed_failures(failing), True, 500),
        },
    }


def measure(url: str, rounds: int) -> None:
    """Print a table."""
    table = contenders(url)
    print(f"{url.partition(':')[0]}:  nanoseconds, ratio to pybreaker, medians of {rounds} rounds")
    for task, who in table.items():
        seconds: dict[str, list[float]] = {name: [] for name in who}
        for _ in range(rounds):
            for name, (function, raises, calls) in who.items():
                gc.collect()
                seconds[name].append((timed_raising if raises else timed)(function, calls))
        pace = statistics.median(seconds["pybreaker"])
        for name, taken in seconds.items():
            median = statistics.median(taken)
            goal = f"   goal {GOALS[task]}" if name == "resilience" else ""
            print(f"  {task:36} {name:12} {median * 1e9:9.0f} {median / pace:7.3f}{goal}")


def imports(rounds: int) -> None:
    """Print what an import adds to a bare interpreter."""
    statements = {
        "bare": "pass",
        "import resilience": "import resilience",
        "from resilience import CircuitBreaker": "from resilience import CircuitBreaker",
        "first call": (
            "from resilience import *\nCircuitBreaker('x', runtime=Runtime(storage='memory:', environ={})).call(int)"
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(rounds):
        for name, statement in statements.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["bare"])
    print(f"start-up: milliseconds, beyond the bare interpreter's, medians of {rounds} rounds")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"  {name:38} {median * 1e3:7.1f} {(median - bare) * 1e3:+7.1f}")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder, "state").as_uri(), rounds)
    measure("memory:", rounds)
    imports(max(5, rounds // 3))
