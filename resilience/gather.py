"""What this process owes a key: outcomes that are not in the shared record yet.  No I/O.

Three kinds.  Reports that could not be committed, because the lock of the key could not be had.  Reports that are kept
``LATER``, gathered to be committed as one (see `resilience.policy`).  And calls that were rejected.
"""

from __future__ import annotations

from _operator import length_hint  # see `resilience.storage`
from _thread import RLock  # what `threading` offers under this name

from resilience.policy import Rejected, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.cell import Cell

    Gathered = tuple[Report, float]
    """A report, and the wall-clock second at which its bucket ends."""

LIMIT = 64
"""Reports that are owed to one key at most; beyond it the oldest is given up."""

MOST_IN_ROW = 1024
"""Successes that are gathered of one kind, whatever the policy allows."""

MOST_KEYS = 1000
"""With more, those are let go of that nobody uses."""

UNUSED_AFTER = 60.0
"""Seconds."""

TELL_REJECTIONS_EVERY = 1.0
"""Seconds between two commits that are made for rejections alone."""


class Row:
    """Successes that end alike, gathered by any number of threads: one report stands for each, tickets count them.

    Whoever gathers a success takes one of the `tickets`, an iterator.  That is one instruction of the interpreter, so
    it needs no lock, and each ticket is with one taker or still here.  The last one is false: who takes that commits
    them all.  To append to a list instead, if there is room, takes 25 to 35 ns more a call.

    A row is closed until `Owed.enter` opens it.

    :param alike: the report that stands for each.
    :param edge: wall-clock second at which its bucket ends.
    :param limit: so many are gathered at most.
    """

    __slots__ = ("_all", "alike", "edge", "room", "tickets")

    def __init__(self, alike: Report, edge: float, limit: int) -> None:
        self.alike = alike
        self.edge = edge
        self.tickets: Iterator[bool] = iter(())
        self.room = 0
        """So many tickets there are, those that were taken included."""
        self._all = _TICKETS[-limit:]

    def open(self, others: int) -> None:
        """Give out tickets, where so many others are gathered already."""
        tickets = self._all[min(others, len(self._all) - 1) :]
        self.room = len(tickets)
        self.tickets = iter(tickets)

    def count(self) -> int:
        """So many were taken."""
        return self.room - length_hint(self.tickets)

    def close(self) -> int:
        """Take what is left, so that nobody else does; so many were taken by others."""
        count = self.room - len([*self.tickets])
        self.room = 0
        return count

    def renew(self) -> int:
        """Close it, and give out all tickets anew."""
        count = self.room - len([*self.tickets])
        self.room = len(self._all)
        self.tickets = iter(self._all)
        return count

    def takes(self, other: Row) -> bool:
        """Whether the successes of another row are like those of this one."""
        alike, others = self.alike, other.alike
        return (
            self.edge == other.edge
            and len(self._all) == len(other._all)
            and alike.epoch == others.epoch
            and alike.at <= others.at
        )


_TICKETS = (True,) * (MOST_IN_ROW - 1) + (False,)


class Owed:
    """What is owed to one key, by all guards of it.

    What nearly every call adds takes no lock: a ticket of `row`, or an item of `rejected`, to which any number of
    threads append, and which is never replaced.

    A signal handler or a `__del__` may use a breaker in the middle of what is done here, in the same thread, which has
    the lock and cannot wait for itself.  Such a one finds nothing to take and nowhere to gather: it commits by itself.
    """

    __slots__ = (
        "_is_entered",
        "_lock",
        "asked",
        "cell",
        "gathered",
        "is_overdue",
        "lock_timeouts",
        "rejected",
        "reports",
        "row",
        "told_at",
        "used_at",
    )

    def __init__(self, cell: Cell, now: float) -> None:
        self.cell = cell
        """Who commits it if nobody else does, also after its guard is gone: the last one that gathered or owed."""
        self.reports: list[Report] = []
        """Those that could not be committed, oldest first."""
        self.gathered: list[Gathered] = []
        """What is no part of the `row`, oldest first; older than what is."""
        self.row: Row | None = None
        """The one that successes are gathered in at present."""
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
        self._lock = RLock()
        self._is_entered = False
        """Whether somebody is at work who has the lock; only he himself can see that."""

    def __bool__(self) -> bool:
        """Whether anything at all is owed."""
        row = self.row
        if row is not None and length_hint(row.tickets) != row.room:  # `Row.count`, without its call
            return True
        return True if self.reports or self.gathered or self.rejected else False  # noqa: SIM210 - `bool` costs a call

    def is_due(self, now: float, gather: float, asks: int) -> bool:
        """Whether outcomes were gathered, or calls rejected, that must be committed before the next decision.

        :param now: wall-clock seconds.
        :param gather: seconds for which outcomes may be gathered.
        :param asks: `Step.asks` now; if it is another than before, somebody asked for what was gathered.
        """
        if self.is_overdue:
            return True
        row = self.row
        in_row = [(row.alike, row.edge)] if row is not None and row.count() else []
        for first, edge in self.gathered[:1] or in_row:
            if asks != self.asked or not first.at <= now < min(first.at + gather, edge):
                return True
        return bool(self.rejected) and not self.told_at <= now < self.told_at + TELL_REJECTIONS_EVERY

    def owe(self, *reports: Report) -> None:
        """Keep what could not be committed."""
        with self._lock:
            self.reports += reports
            del self.reports[:-LIMIT]

    def enter(self, row: Row) -> Row:
        """Open a row, unless there is one that takes its successes; return that in which they are to be gathered.

        What is in another one stays gathered.
        """
        with self._lock:
            present = self.row
            if self._is_entered:
                return row  # as it is: there is no ticket in it
            if present is not None and present.takes(row):
                return present
            try:
                self._is_entered = True
                self._close_row()
                row.open(self._gathered_calls())
                self.row = row
            finally:
                self._is_entered = False
            return row

    def gather(self, report: Report, edge: float, limit: int) -> bool:
        """Gather a report that is like no other; false if with it there are as many as `limit`, which are committed."""
        with self._lock:
            if self._is_entered:
                return False
            try:
                self._is_entered = True
                self._close_row()
                if self._gathered_calls() + 1 >= limit:
                    return False
                self.gathered.append((report, edge))
            finally:
                self._is_entered = False
            return True

    def _close_row(self) -> None:
        row, self.row = self.row, None
        count = 0 if row is None else row.close()
        if row is not None and count:
            self.gathered.append((row.alike.copy(count), row.edge))

    def _gathered_calls(self) -> int:
        return sum(report.count for report, _ in self.gathered)

    def take(self, now: float) -> list[Report | Rejected]:
        """Take all out, to commit it; whoever fails to gives it back with `give_back`."""
        taken: list[Report | Rejected] = []
        with self._lock:
            if self._is_entered:
                return taken
            try:
                self._is_entered = True
                self.is_overdue = False
                if self.reports:
                    taken += self.reports
                    del self.reports[: len(taken)]  # more may have been owed
                if self.gathered:
                    taken += [report for report, _ in self.gathered]
                    self.gathered.clear()
                row = self.row
                if row is not None:
                    count = row.renew()
                    if count:
                        taken.append(row.alike.copy(count))
                if self.rejected:
                    rejected = len(self.rejected)
                    del self.rejected[:rejected]  # others append at the same time
                    taken.append(Rejected(now, 0, rejected))
                    self.told_at = now
            finally:
                self._is_entered = False
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
