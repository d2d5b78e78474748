"""The only place that reads a clock, waits, or draws a random number.

A plugin takes `wall()`, `monotonic()` and `sleep(seconds)`.  Wall-clock seconds are shared between processes and
machines; monotonic seconds measure durations and deadlines.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Clock(Protocol):
        """What a runtime takes its time from; `resilience.testing.ManualClock` is one that a test moves by hand."""

        def wall(self) -> float:
            """Seconds since the epoch, as all processes see them."""
            ...

        def monotonic(self) -> float:
            """Seconds that never go back, for durations and deadlines within this process."""
            ...

        def draw(self) -> int:
            """64 random bits: tokens and jitter are made of them."""
            ...


__all__ = ["SystemClock", "monotonic", "sleep", "wall"]


class SystemClock:
    """The machine's clocks."""

    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    @staticmethod
    def draw() -> int:
        """64 random bits; reseeded in a forked child by the standard library."""
        return (_getrandbits or _load_getrandbits())(64)


_getrandbits: Callable[[int], int] | None = None


def _load_getrandbits() -> Callable[[int], int]:
    """Import `random` when something is drawn first: it takes 6 ms, and most processes never draw."""
    global _getrandbits  # noqa: PLW0603 - a cache of what import would find again and again
    from random import getrandbits

    _getrandbits = getrandbits
    return getrandbits


wall = time.time
"""Seconds since the epoch."""
monotonic = time.monotonic
"""Seconds that never go back, for durations and deadlines."""
sleep = time.sleep
"""Wait for so many seconds."""
