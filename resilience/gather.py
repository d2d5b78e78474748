"""What this process owes a key: outcomes that could not be committed yet.  No I/O.

An outcome is owed while the lock of its key cannot be had; it goes out with the next commit that gets the lock.
"""

from __future__ import annotations

from collections import deque

from resilience.policy import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.policy import Outcome

LIMIT = 64
"""Outcomes that are owed to one key at most; beyond it the oldest is given up."""


class Owing:
    """An outcome, and when it happened (wall-clock seconds)."""

    __slots__ = ("at", "epoch", "error", "outcome", "token")

    def __init__(self, outcome: Outcome, at: float, epoch: int | None, token: str | None, error: str | None) -> None:
        self.outcome = outcome
        self.at = at
        self.epoch = epoch
        self.token = token
        self.error = error

    def report(self, now: float, draw: int) -> Report:
        """Make the event that it becomes when it is committed."""
        return Report(now, draw, self.outcome, at=self.at, epoch=self.epoch, token=self.token, error=self.error)


class Owed:
    """The outcomes that are owed to one key, oldest first.  Safe to use from many threads without a lock."""

    __slots__ = ("_outcomes",)

    def __init__(self) -> None:
        self._outcomes: deque[Owing] = deque(maxlen=LIMIT)

    def __len__(self) -> int:
        """How many are owed."""
        return len(self._outcomes)

    def add(self, *outcomes: Owing) -> None:
        """Owe these too."""
        self._outcomes.extend(outcomes)

    def take(self) -> list[Owing]:
        """Take all out, to commit them; whoever fails to gives them back with `add`."""
        taken: list[Owing] = []
        while True:
            try:
                taken.append(self._outcomes.popleft())
            except IndexError:
                return taken
