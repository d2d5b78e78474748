"""What this process owes a key: reports that could not be committed yet.  No I/O.

A report is owed while the lock of its key cannot be had; it goes out with the next commit that gets the lock.
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.policy import Report

LIMIT = 64
"""Reports that are owed to one key at most; beyond it the oldest is given up."""


class Owed:
    """The reports that are owed to one key, oldest first.  Safe to use from many threads without a lock."""

    __slots__ = ("_reports",)

    def __init__(self) -> None:
        self._reports: deque[Report] = deque(maxlen=LIMIT)

    def __len__(self) -> int:
        """Return how many are owed."""
        return len(self._reports)

    def add(self, *reports: Report) -> None:
        """Owe these too."""
        self._reports.extend(reports)

    def take(self) -> list[Report]:
        """Take all out, to commit them; whoever fails to gives them back with `add`."""
        taken: list[Report] = []
        while True:
            try:
                taken.append(self._reports.popleft())
            except IndexError:
                return taken
