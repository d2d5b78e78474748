"""Workers that live shortly: each is forked, calls and fails through one breaker, and ends."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.failures import PATIENCE

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from benchmarks.bench import Bench

AT_ONCE = 8
STRETCHES = 10


def measure(bench: Bench) -> dict[str, Any]:
    """Let many live; return seconds of a life, with the breaker and without, and what is left when all are gone.

    `by_stretch` are the seconds of a life in each tenth of them: whatever piles up makes the later ones longer.
    """
    workers = bench.of(10_000, 500)
    folder = bench.folder / "state"
    with Runtime(storage=folder.as_uri(), storage_timeout=PATIENCE, environ={}) as runtime:
        breaker = CircuitBreaker("lives", failure_threshold=1_000_000, runtime=runtime)
        breaker.record_failure()
        before = _left(folder)
        stretches: list[float] = []
        bare: list[float] = []
        for _ in range(STRETCHES):
            stretches.append(_lives(workers // STRETCHES, breaker.record_failure))
            bare.append(_lives(workers // STRETCHES // 5, int))
        after = _left(folder)
        counted = breaker.status().failure_count - 1
    return {
        "workers": workers,
        "seconds": statistics.median(stretches),
        "bare": statistics.median(bare),
        "by_stretch": stretches,
        "lost": workers - counted,
        "left_behind": {name: after[name] - before[name] for name in before},
    }


def _lives(count: int, act: object) -> float:
    """Fork so many, a few at once; seconds of one."""
    assert callable(act)
    started = time.perf_counter()
    living = 0
    for _ in range(count):
        if living == AT_ONCE:
            _wait_for_one()
            living -= 1
        if os.fork() == 0:
            status = 1
            try:
                act()
                status = 0
            finally:
                os._exit(status)
        living += 1
    for _ in range(living):
        _wait_for_one()
    return (time.perf_counter() - started) / count


def _wait_for_one() -> None:
    _, status = os.wait()
    if status:
        raise RuntimeError(f"a worker ended with status {status}")


def _left(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0,
    }
