"""What this process owes a key: outcomes that are not in the shared record yet.  No I/O.

Three kinds.  Reports that could not be committed, because the lock of the key could not be had.  Reports that are kept
``LATER``, gathered to be committed as one (see `resilience.policy`).  And calls that were rejected.
"""

from __future__ import annotations

from _thread import allocate_lock

from resilience.policy import Rejected, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.cell import Cell

    Gathered = tuple[Report, float]
    """A report, and the wall-clock second at which its bucket ends."""

LIMIT = 64
"""Reports that are owed to one key at most; beyond it the oldest is given up."""

MOST_KEYS = 1000
"""With more, those are let go of that nobody uses."""

UNUSED_AFTER = 60.0
"""Seconds."""

TELL_REJECTIONS_EVERY = 1.0
"""Seconds between two commits that are made for rejections alone."""


class Owed:
    """What is owed to one key, by all guards of it.

    Adding to `gathered` and `rejected` takes no lock: any number of threads append to them on the road of every call,
    and taking never replaces the two lists.
    """

    __slots__ = (
        "_lock",
        "asked",
        "cell",
        "gathered",
        "is_overdue",
        "lock_timeouts",
        "rejected",
        "reports",
        "told_at",
        "used_at",
    )

    def __init__(self, cell: Cell, now: float) -> None:
        self.cell = cell
        """Who commits it if nobody else does, also after its guard is gone: the last one that gathered or owed."""
        self.reports: list[Report] = []
        """Those that could not be committed, oldest first."""
        self.gathered: list[Gathered] = []
        """One item for each call; calls that ended alike may share one object."""
        self.rejected: list[None] = []
        """One item for each call."""
        self.told_at = now
        """Wall-clock second at which rejections were told last."""
        self.asked: int | None = None
        """`Step.asks` of the step that was seen last; `None`: of none yet."""
        self.is_overdue = False
        """Whether somebody gave it back who only tried the lock: it is due at once for whoever may wait."""
        self.lock_timeouts = 0
        """So many in a row."""
        self.used_at = 0.0
        """Monotonic second at which somebody last came here by the slow road, as a key in use does once a second."""
        self._lock = allocate_lock()

    def __bool__(self) -> bool:
        """Whether anything at all is owed."""
        return bool(self.reports or self.gathered or self.rejected)

    def is_due(self, now: float, gather: float, asks: int) -> bool:
        """Whether outcomes were gathered, or calls rejected, that must be committed before the next decision.

        :param now: wall-clock seconds.
        :param gather: seconds for which outcomes may be gathered.
        :param asks: `Step.asks` now; if it is another than before, somebody asked for what was gathered.
        """
        if self.is_overdue:
            return True
        for first, edge in self.gathered[:1]:
            if asks != self.asked or not first.at <= now < min(first.at + gather, edge):
                return True
        return bool(self.rejected) and not self.told_at <= now < self.told_at + TELL_REJECTIONS_EVERY

    def owe(self, *reports: Report) -> None:
        """Keep what could not be committed."""
        with self._lock:
            self.reports += reports
            del self.reports[:-LIMIT]

    def take(self, now: float) -> list[Report | Rejected]:
        """Take all out, to commit it; whoever fails to gives it back with `give_back`."""
        with self._lock:
            self.is_overdue = False
            taken: list[Report | Rejected] = [*self.reports]
            self.reports.clear()
            gathered = self.gathered[:]
            if gathered:
                del self.gathered[: len(gathered)]  # others append at the same time
                taken += _merged(gathered)
            rejected = len(self.rejected)
            if rejected:
                del self.rejected[:rejected]
                taken.append(Rejected(now, 0, rejected))
                self.told_at = now
        return taken

    def give_back(self, taken: list[Report | Rejected], *, overdue: bool) -> None:
        """Owe again what was taken and could not be committed.

        :param overdue: the lock was only tried: whoever may wait for it commits this before a decision.
        """
        self.owe(*[event for event in taken if isinstance(event, Report)])
        for event in taken:
            if isinstance(event, Rejected):
                self.rejected.extend([None] * event.count)
        self.is_overdue = overdue


def _merged(gathered: list[Gathered]) -> list[Report]:
    """Make one report of each row of calls that share one object."""
    alike = gathered[0]
    count = gathered.count(alike)
    if count == len(gathered):  # mostly all are
        return [alike[0].copy(count)]
    merged: list[Report] = []
    begin = 0
    while begin < len(gathered):
        alike = gathered[begin]
        count = 1
        while begin + count < len(gathered) and gathered[begin + count] is alike:
            count += 1
        merged.append(alike[0].copy(count))
        begin += count
    return merged
