"""Many breakers: what a call costs beside them, what they take in memory, how soon `status` has listed them."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from benchmarks.harness import clean_environment
from benchmarks.jobs import calls, failing, raising, work

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

MANY = 100_000


def measure(bench: Bench) -> dict[str, Any]:
    """Return seconds of calls by number of breakers, of `status --json` over all, and bytes of a breaker."""
    counts = bench.of((1, 10, 100, 1_000, 10_000, MANY), (1, 100, 1_000))
    folder = bench.folder / "state"
    return {
        "keys": counts[-1],
        "bytes": _bytes(bench.folder / "few"),
        "by_keys": _by_keys(folder, counts, bench.of(31, 15)),
        "status": _status(folder, bench.of(3, 1)),
    }


def _by_keys(folder: Path, counts: tuple[int, ...], rounds: int) -> dict[int, dict[str, float]]:
    """Calls of one breaker beside all others, and of one after the other in turn."""
    results: dict[int, dict[str, float]] = {}
    with Runtime(storage=folder.as_uri(), environ={}) as runtime:

        def breaker(number: int) -> CircuitBreaker:
            return CircuitBreaker(f"breaker {number}", failure_threshold=1_000_000, runtime=runtime)

        breakers: list[CircuitBreaker] = []
        one = breaker(0)
        closed, failure = calls(one(work)), raising(one(failing))
        for count in counts:
            started = time.perf_counter()
            for number in range(len(breakers), count):
                breakers.append(breaker(number))
                breakers[number].record_failure()
            made = time.perf_counter() - started
            gc.collect()
            several = breakers[:: max(1, count // 1_000)]
            measured: dict[str, list[float]] = {"closed": [], "failure": [], "in turn": []}
            for _ in range(rounds):
                measured["closed"].append(closed(2_000))
                measured["failure"].append(failure(100))
                measured["in turn"].append(_in_turn(several))
            results[count] = {name: statistics.median(each) for name, each in measured.items()} | {"made": made}
    return results


def _in_turn(breakers: list[CircuitBreaker]) -> float:
    functions = [breaker(work) for breaker in breakers]
    repeats = max(1, 2_000 // len(functions))
    started = time.perf_counter()
    for _ in range(repeats):
        for function in functions:
            function()
    return (time.perf_counter() - started) / repeats / len(functions)


def _status(folder: Path, rounds: int) -> dict[str, float]:
    """Run `status --json` over all that are in a folder."""
    seconds: list[float] = []
    listed = 0
    for _ in range(rounds):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "resilience", "status", "--json"],
            env=clean_environment(RESILIENCE_STORAGE=folder.as_uri()),
            check=True,
            capture_output=True,
        )
        seconds.append(time.perf_counter() - started)
        listed = len(json.loads(done.stdout))
    return {"seconds": statistics.median(seconds), "listed": listed}


def _bytes(folder: Path, count: int = 500) -> dict[str, float]:
    """What one more breaker takes: guard, cell and key by themselves; and all that is kept once it was used."""
    with Runtime(storage=folder.as_uri(), environ={}) as runtime:

        def make(number: int) -> CircuitBreaker:
            breaker = CircuitBreaker(f"breaker {number}", failure_threshold=1_000_000, runtime=runtime)
            breaker.check()
            return breaker

        first = [make(number) for number in range(count)]  # what is made once is there
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        more = [make(number) for number in range(count, 2 * count)]
        gc.collect()
        whole = (tracemalloc.get_traced_memory()[0] - before) / count
        tracemalloc.stop()
        del first
        guard = more[0]
        cell = guard._cell
        parts = (guard, cell, cell.key)
        return {"guard, cell, key": sum(sys.getsizeof(part) for part in parts), "used": whole}
