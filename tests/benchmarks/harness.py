"""Contenders that take turns, each in a process of its own, so that what else the machine does falls on all alike.

A contender is a module of `benchmarks.contenders` with a function `jobs(folder)`: by name, what is timed.  Its process
imports that library and no other.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TESTS = Path(__file__).parents[1]


class Contender:
    """A process that does the jobs of one library when it is told to."""

    def __init__(self, name: str, folder: Path, python: str = sys.executable) -> None:
        self.name = name
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.child", name, str(folder)],
            env=clean_environment(PYTHONPATH=str(TESTS)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.jobs: frozenset[str] = frozenset(self._answer())

    def time(self, job: str, calls: int) -> float:
        """Let it do a job so many times; seconds of one."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([job, calls]) + "\n")
        self._process.stdin.flush()
        return float(self._answer()[0])

    def _answer(self) -> list[Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        answer: list[Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


def race(
    names: Iterable[str], calls: Mapping[str, Mapping[str, int]], rounds: int, folder: Path, python: str
) -> dict[str, dict[str, float]]:
    """Let contenders take turns at the jobs that they know.

    :param calls: job, then contender: how often it is done in one round; ``""`` stands for all others.
    :return: job, then contender: the median of the rounds, in seconds of one call.
    """
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(name, folder / name, python)) for name in names]
        taken: dict[str, dict[str, list[float]]] = {}
        for _ in range(rounds):
            for job, counts in calls.items():
                for contender in contenders:
                    if job in contender.jobs:
                        count = counts.get(contender.name, counts[""])
                        taken.setdefault(job, {}).setdefault(contender.name, []).append(contender.time(job, count))
    return {job: {who: statistics.median(seconds) for who, seconds in each.items()} for job, each in taken.items()}


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would change a framework's or an interpreter's ways."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("RESILIENCE_", "PYTHON", "COVERAGE"))
    } | more


def quantile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
