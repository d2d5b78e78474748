"""What contenders protect, and how it is timed.

Each function here makes a job: called with a number of calls, it returns the seconds of one.
"""

from __future__ import annotations

import asyncio
import time
from itertools import repeat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Job = Callable[[int], float]


def work() -> int:
    """Do next to nothing."""
    return 1


async def awork() -> int:
    """Do next to nothing, without ever waiting."""
    return 1


def failing() -> int:
    """Fail as cheaply as can be."""
    raise OSError


async def afailing() -> int:
    """Fail as cheaply as can be."""
    raise OSError


def calls(function: Callable[[], object]) -> Job:
    """Time a function."""

    def job(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            function()
        return (time.perf_counter() - started) / count

    return job


def raising(function: Callable[[], object]) -> Job:
    """Time a function that raises each time."""

    def job(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            try:
                function()
            except Exception:  # noqa: BLE001 - each library raises its own
                continue
            raise AssertionError("it was let in, or did not fail")
        return (time.perf_counter() - started) / count

    return job


def awaits(function: Callable[[], Awaitable[object]]) -> Job:
    """Time a coroutine function, awaited again and again by one task."""

    async def task(count: int) -> float:
        started = time.perf_counter()
        for _ in repeat(None, count):
            await function()
        return (time.perf_counter() - started) / count

    runner = asyncio.Runner()

    def job(count: int) -> float:
        return runner.run(task(count))

    return job


def opened(function: Callable[[], object]) -> Callable[[], object]:
    """Fail once through a breaker that opens at the first failure; return the function that it now rejects."""
    try:
        function()
    except Exception:  # noqa: BLE001 - the failure itself, or that it opened
        return function
    raise AssertionError("it did not fail")


def opened_async(function: Callable[[], Any]) -> Callable[[], Any]:
    """Do the same as `opened`."""
    opened(lambda: asyncio.run(function()))
    return function
