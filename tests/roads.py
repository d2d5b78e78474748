"""The roads that a call can take, each warm and as a function without arguments, to be counted or measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WARM = 200
"""Calls after which nothing is done for the first time."""

GATHERED = 64
"""Successes in a window that are committed as one."""


def work() -> None:
    """Succeed."""


def fail() -> None:
    """Fail."""
    raise OSError


async def awork() -> None:
    """Succeed without waiting."""


def roads(runtime: Runtime) -> dict[str, Callable[[], None]]:
    """Make breakers, and call through each until it is warm.

    In order: a closed call with `consecutive`; the same awaited; one whose success is gathered, without and with a
    look at its duration; all that are committed as one, with that commit; a rejection; failures that are committed.
    """

    def breaker(name: str, **settings: Any) -> CircuitBreaker:
        return CircuitBreaker(name, runtime=runtime, **settings)

    closed, aclosed = breaker("closed")(work), breaker("closed async")(awork)
    timed = breaker("timed", window="time")(work)
    slow = breaker("slow", window="time", slow_call_rate_threshold=0.5)(work)
    filled = breaker("filled", window="time", gather=60)(work)  # on a busy machine, too, a row ends when it is full
    rejecting = breaker("rejecting", failure_threshold=1, reset_timeout=100_000)
    rejecting.record_failure()
    rejected = rejecting(work)
    failing = breaker("failing", failure_threshold=1_000_000)(fail)
    timed_failing = breaker("timed failing", window="time", minimum_calls=1_000_000)(fail)

    def awaited() -> None:
        try:
            aclosed().send(None)
        except StopIteration:
            pass

    def row() -> None:
        for _ in range(GATHERED):
            filled()

    found = {
        "closed": _once(closed),
        "closed async": awaited,
        "gathered": _once(timed),
        "gathered, slow calls": _once(slow),
        "row of gathered": row,
        "rejection": _once(rejected),
        "failure": _once(failing),
        "failure, time window": _once(timed_failing),
    }
    _walk(found.values())
    return found


def _once(function: Callable[[], object]) -> Callable[[], None]:
    """Make a road of this module, which is not counted, around a call that may raise."""

    def road() -> None:
        try:
            function()
        except Exception:  # noqa: BLE001 - the failure itself, or the rejection
            pass

    return road


def _walk(roads: Iterable[Callable[[], None]]) -> None:
    for road in roads:
        for _ in range(WARM):
            road()
