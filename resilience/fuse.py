"""May the storage be asked now?  While it fails: at most one try a second.

Processes that lost it at one instant do not come back to it in step: each try waits for a share of a second more.
"""

from __future__ import annotations

from _thread import RLock  # `threading` and what it imports take half as long as a bare interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.errors import StorageError

RETRY_EVERY = 1.0
"""Seconds between two tries while the storage fails, at least."""

SPREAD = 0.25
"""Seconds that chance may add to them, at most."""

SILENCE = 10.0
"""Seconds without a call after which the next one tries for itself, however long a try takes."""


class Fuse:
    """One outage, from the first failure to the first success.  Times are monotonic seconds."""

    __slots__ = ("__weakref__", "_blown_at", "_lock", "_retry_at", "error", "is_blown", "is_slow")

    def __init__(self) -> None:
        self._lock = RLock()  # a signal handler may ask in the middle of this
        self._blown_at = 0.0
        self.is_blown = False
        """Whether there is an outage; a plain attribute, as every commit looks at it."""
        self.is_slow = False
        """Whether a try takes as long as it may: the storage hangs.  Then nobody who waits for an answer makes one."""
        self._retry_at = 0.0
        self.error: StorageError | None = None

    def ask(self, now: float) -> StorageError | None:
        """Why the storage may not be asked; while it fails, one caller a second gets `None` and may."""
        if not self.is_blown:
            return None
        with self._lock:
            if now >= self._retry_at:
                if now >= self._retry_at + SILENCE:
                    self.is_slow = False
                self._retry_at = now + RETRY_EVERY
                return None
            return self.error  # `None` if another thread has just mended it

    def retry_at_once(self) -> None:
        """Take back a leave to ask that was not used: the lock would have had to be waited for."""
        self._retry_at = 0.0

    def seconds_to_retry(self, now: float) -> float:
        """How long nobody may ask."""
        return max(0.0, self._retry_at - now)

    def blow(self, now: float, error: StorageError, chance: float, *, is_slow: bool) -> bool:
        """Note a failure; true if an outage begins with it.

        :param chance: 0 to 1, drawn at random.
        :param is_slow: whether it took as long as it may.
        """
        with self._lock:
            begins = not self.is_blown
            if begins:
                self._blown_at = now
                self.is_blown = True
            self._retry_at = now + RETRY_EVERY + SPREAD * chance
            self.is_slow = is_slow
            self.error = error.with_traceback(None)  # which would keep the first caller's variables alive
            return begins

    def mend(self, now: float) -> float | None:
        """Note a success; the length of the outage in seconds if one ends with it, else `None`."""
        with self._lock:
            if not self.is_blown:
                return None
            self.is_blown = False
            self.error = None
            return now - self._blown_at
