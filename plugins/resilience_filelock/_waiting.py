"""Waiting for the lock of a file that another process has: for moments while few want it, in turns when many do.

What is dear about a lock that is wanted by many is not the lock.  It is that whoever gets it must read what the others
did, and that those who look whether it is free take the processor from those who have work.  So, when many want it,

- who has it goes on for a `TURN`, some hundred commits, before the next one takes over, which it does between two
  commits: no moment is lost;
- only the first in the row tries to; all others sleep, and look now and then whether they are the first;
- the first is who has waited longest.  He says in the file since when (the plea), and who waits for longer writes over
  it.

That somebody has his turn is seen by the version, which runs.  Where it does not, everyone tries: the lock is free, or
wanted now and then only.  So nobody waits for somebody who is gone, and a plea is no more than a wish: who gets the
lock wipes it out.
"""

from __future__ import annotations

from resilience import clock
from resilience_filelock._record import NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience_filelock._file import RecordFile

__all__ = ["JUST_NOW", "NOBODY", "TURN", "get", "pauses"]

SHORTEST_PAUSE: Final = 20e-6
LONGEST_PAUSE: Final = 1e-3
TURN: Final = 2e-3
"""Seconds for which a process goes on though another waits."""
JUST_NOW: Final = 0.2e-3
"""Seconds; who committed so short a time ago and finds the lock taken has had its turn."""
_HASTE: Final = 0.5e-3
"""Seconds for which one who comes now and then tries again and again, before it queues."""
_TRIES: Final = 8
"""Attempts in a row.  Between two commits in a row a lock is free for a third of the time, but for microseconds."""
_PAUSE_OF_FIRST: Final = TURN / 8
_PAUSE_OF_OTHERS: Final = TURN * 3 / 4
_PACE: Final = 100e-6
"""Seconds that a commit takes at most of a process that makes one after the other."""
_MOMENTS: Final = 1 << 32
"""A moment is microseconds in 32 bits: it comes again after 71 minutes, and is never 0."""
NOBODY: Final = 0
"""The plea while nobody pleads."""


class pauses:  # noqa: N801 - used like a function
    """Waits between attempts, growing, until the time is up.

    Each call sleeps a little and tells whether there is time for another attempt.
    """

    __slots__ = ("_deadline", "_pause")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._pause = SHORTEST_PAUSE

    def __call__(self) -> bool:
        """Wait; false if the time is up and there was no waiting."""
        left = self._deadline - clock.monotonic()
        if left <= 0:
            return False
        clock.sleep(min(self._pause, left))
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return True


def get(file: RecordFile, deadline: float, *, in_haste: bool) -> bool:
    """Get the lock, or tell that it could not be had.

    :param deadline: monotonic seconds; if they are past, it is tried all the same.
    :param in_haste: whether one that finds nobody waiting may try at once; not if it has just had its turn.
    :raises OSError: the system cannot lock.
    :raises ValueError: the file was released meanwhile.
    """
    plea = file.plea
    if plea is None:  # the file is not mapped
        return _try_often(file, pauses(deadline))
    got = in_haste and not plea[0] and _try_often(file, pauses(min(deadline, clock.monotonic() + _HASTE)), plea)
    if not (got or _queue(file, plea, deadline)):
        return False
    file.plead(NOBODY)  # whose it was may be gone; who still waits says so anew
    return True


def _try_often(file: RecordFile, again: pauses, plea: memoryview[int] | None = None) -> bool:
    """Try, with growing pauses, until the time is up or somebody pleads."""
    while not _try(file):
        if (plea is not None and plea[0]) or not again():
            return False
    return True


def _try(file: RecordFile) -> bool:
    """Try some times in a row."""
    return any(file.lock() for _ in range(_TRIES))


def _queue(file: RecordFile, plea: memoryview[int], deadline: float) -> bool:
    """Wait for those who came earlier, then take over from who has had its turn."""
    now = looked = first_since = clock.monotonic()
    mine = int(now * 1e6) % _MOMENTS or 1
    number = file.view[0] & NUMBER
    while now < deadline:
        asked = plea[0]
        if asked == NOBODY or 0 < (asked - mine) % _MOMENTS < _MOMENTS // 2:  # or one who came later
            file.plead(mine)
            asked, first_since = mine, now
        is_first = asked == mine
        before, number = number, file.view[0] & NUMBER
        is_free = (number - before) * _PACE < now - looked
        if (is_free or (is_first and now - first_since >= TURN)) and _try(file):
            return True
        looked = now
        clock.sleep(min(_PAUSE_OF_FIRST if is_first else _PAUSE_OF_OTHERS, deadline - now))
        now = clock.monotonic()
    if plea[0] == mine:
        file.plead(NOBODY)
    return _try(file)
