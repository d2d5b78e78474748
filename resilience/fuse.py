"""May the storage be asked now?  While it fails: at most one try a second."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.errors import StorageError

RETRY_EVERY = 1.0
"""Seconds between two tries while the storage fails."""


class Fuse:
    """One outage, from the first failure to the first success.  Times are monotonic seconds."""

    __slots__ = ("_blown_at", "_lock", "_retry_at", "error")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blown_at: float | None = None
        self._retry_at = 0.0
        self.error: StorageError | None = None

    @property
    def is_blown(self) -> bool:
        """Whether there is an outage."""
        return self._blown_at is not None

    def ask(self, now: float) -> StorageError | None:
        """Why the storage may not be asked; while it fails, one caller a second gets `None` and may."""
        if self._blown_at is None:
            return None
        with self._lock:
            if now >= self._retry_at:
                self._retry_at = now + RETRY_EVERY
                return None
            return self.error

    def seconds_to_retry(self, now: float) -> float:
        """How long nobody may ask."""
        return max(0.0, self._retry_at - now)

    def blow(self, now: float, error: StorageError) -> bool:
        """Note a failure; true if an outage begins with it."""
        with self._lock:
            begins = self._blown_at is None
            if begins:
                self._blown_at = now
            self._retry_at = now + RETRY_EVERY
            self.error = error
            return begins

    def mend(self, now: float) -> float | None:
        """Note a success; the length of the outage in seconds if one ends with it, else `None`."""
        if self._blown_at is None:
            return None
        with self._lock:
            blown_at, self._blown_at = self._blown_at, None
            return None if blown_at is None else now - blown_at  # another thread may have been first
