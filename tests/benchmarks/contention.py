"""Many processes that report failures of one key: throughput, fairness and waiting, and that none is lost."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from benchmarks import failures
from benchmarks.crowd import crowd, summary

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench

SIZE = 16
THINKING = 0.010
"""Seconds that each sleeps at most between two failures."""


def measure(bench: Bench) -> dict[str, Any]:
    """Return ways of counting with `SIZE` processes, the same with pauses, and throughput by number of processes."""
    seconds = bench.of(1.5, 0.5)
    rounds = [
        {"ours": _ours(bench.folder / f"ours-{number}", SIZE, seconds), **_theirs(bench, number, SIZE, seconds)}
        for number in range(bench.of(5, 1))
    ]
    thinking = [
        _ours(bench.folder / f"thinking-{number}", SIZE, 2 * seconds, THINKING) for number in range(bench.of(3, 1))
    ]
    return {
        "processes": SIZE,
        "ours": _median([each["ours"] for each in rounds]),
        "rewritten": _median([each["rewritten"] for each in rounds]),
        "thinking": _median(thinking),
        "by_processes": {
            size: {
                "ours": _ours(bench.folder / f"ours-of-{size}", size, seconds),
                **_theirs(bench, 1000 + size, size, seconds),
            }
            for size in bench.of((1, 2, 4, 8, 16, 32), (1, 2, 8))
        },
    }


def _ours(folder: Path, size: int, seconds: float, pause: float = 0.0) -> dict[str, float]:
    url = folder.as_uri()
    result = summary(crowd(size, seconds, failures.ours, url, pause=pause), seconds)
    return result | {"lost": result["count"] + size - failures.ours_counted(url)}


def _theirs(bench: Bench, number: int, size: int, seconds: float) -> dict[str, dict[str, float]]:
    folder = bench.folder / f"rewritten-{number}"
    folder.mkdir()
    result = summary(crowd(size, seconds, failures.rewritten, str(folder)), seconds)
    return {"rewritten": result | {"lost": result["count"] + size - failures.rewritten_counted(str(folder))}}


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure; of what was lost, all."""
    return {
        name: sum(each[name] for each in rounds) if name == "lost" else statistics.median(each[name] for each in rounds)
        for name in rounds[0]
    }
