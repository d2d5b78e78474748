"""A clock that a test moves by hand."""

from __future__ import annotations

import random
import threading


class ManualClock:
    """A clock that stands still until a test moves it: ``Runtime(storage="memory:", clock=ManualClock())``.

    Random bits are drawn from a generator of its own, so that a test with the same seed sees the same tokens and the
    same jitter.  Safe to use from many threads.

    :param now: wall-clock seconds that it begins with.
    :param seed: of the random bits.
    """

    def __init__(self, now: float = 1_000_000_000.0, *, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._wall = now
        self._monotonic = 0.0
        self._random = random.Random(seed)  # noqa: S311 - a test wants them to come again

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds that only `advance` moves."""
        return self._monotonic

    def draw(self) -> int:
        """64 random bits, the same ones in the same order for the same seed."""
        with self._lock:
            return self._random.getrandbits(64)

    def advance(self, seconds: float) -> None:
        """Let time pass.

        :raises ValueError: `seconds` is negative; only the wall clock goes back, by `jump_wall`.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back ({seconds} s); a wall clock that is set back is jump_wall")
        with self._lock:
            self._wall += seconds
            self._monotonic += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back by a negative number of seconds; no time passes."""
        with self._lock:
            self._wall += seconds
