"""Taking turns at one record: who has committed for a while lets others go first, who came too late waits a moment.

Compare-and-set alone is neither fast nor fair where many commit one record at once.  Each try but one is futile, and
keeps the server and a processor from the one that is not; and who has just committed knows the version and is ready for
the next, while who was too late begins with what has been overtaken by then: the same one wins again and again.  So of
those who want a record, one commits as often as he can for a few milliseconds, while the others sleep.  Then he sleeps,
and whoever wakes first has his turn.  Nobody knows of anybody but by the conflicts that he meets; or, where a storage
tells of commits, by what he hears: then he goes on sleeping as long as others commit, and asks the server nothing.  How
long it took the last time says how many others there are, so for most of that he need not even listen.  Who never meets
one may be keeping all others out: so on a storage that machines share he gives way too, now and then.

Behind a lock there are no conflicts, and nothing of this happens.
"""

from __future__ import annotations

from resilience.storage import UNTOLD

STREAK = 0.005
"""Seconds for which one commits as often as he can, once he knows that there are others; or as long as `MANY` tries
take, up to `LONGEST_STREAK`, as it takes some milliseconds until the next one notices that it is his turn."""

MANY = 64

LONGEST_STREAK = 0.008

TRIES = 4
"""So many tries he has at least."""

UNKNOWING = 0.050
"""Seconds for which one commits as often as he can who knows of no others."""

AWAY = 0.002
"""Seconds for which he gives way after that, and a bit more or less; or as long as `CHANCE` tries take."""

CHANCE = 3
"""So many tries another one needs in that time: one finds what is committed now, the next is made upon it."""

STEP = 0.001
"""Seconds by which each pause is longer than the one before it, or as long as a try takes: the more who wait, the
longer all of them wait."""

LONGEST = 0.010
"""Seconds of the longest pause, and again a bit more or less."""

QUIET = 0.0007
"""Seconds without a commit after which the turn is free, where commits are heard of, and a bit more or less; or as long
as `CHANCE` tries take."""

AGED = 0.5
"""To this part of it that time shrinks for one who has listened long: of those who hear one silence he is the first."""

ASLEEP = 0.85
"""For this part of the time that his turn took to come the last time, he does not listen at all.  Whoever listens wakes
a thousand times a second, with caches that are cold: all others together took more of the processor than the one who
commits.  Less than all of it, so that he finds out when others are gone."""

PATIENCE = 0.050
"""Seconds for which one listens before he tries all the same: others may never give way."""

SLOWEST = 0.020
"""Seconds of a try; one that takes longer counts as this."""

FORGOTTEN = 0.100
"""Seconds after the last conflict when it is forgotten that there were others."""


class Contention:
    """What one view of a record knows of others who commit it.

    Threads share it without a lock: a streak that one of them measured wrong is a bit longer or shorter.

    :param now: monotonic seconds of the first conflict; `None`: there was none yet, and it is kept when there is none.
    """

    __slots__ = ("_began", "_conflict", "_ended", "_is_kept", "_listened", "takes")

    def __init__(self, now: float | None = None) -> None:
        self._is_kept = now is None
        self._began = self._ended = self._conflict = float("-inf") if now is None else now
        self._listened = 0.0
        """Seconds until his turn came, the last time."""
        self.takes = 0.0
        """Seconds of a try, where one was overtaken."""

    def is_over(self, now: float) -> bool:
        """Whether it may go, as no conflict was met for a while."""
        return not self._is_kept and now - self._conflict >= FORGOTTEN

    def gives_way(self, now: float, draw: int) -> float:
        """Before a commit: the seconds to wait for others to go first.

        :param draw: 64 random bits.
        """
        away = max(AWAY, CHANCE * self.takes)
        if now - self._ended >= away:  # he was away by himself
            self._began = now
        streak = UNKNOWING if self._forgets(now) else min(max(STREAK, MANY * self.takes), LONGEST_STREAK)
        if now - self._began < max(streak, TRIES * self.takes):
            return 0.0
        pause = _about(away, draw)
        self._began = now + pause
        return pause

    def met(self, now: float, times: int, draw: int) -> float:
        """After a conflict, of which this is the one with this number in a row: the seconds to wait.

        What the conflict brought is tried at once, in case that the other one is done; if it was overtaken as well, he
        is not.
        """
        self._forgets(now)
        before, self._began, self._conflict = self._conflict, now, now
        if times % 2:
            return 0.0
        self.takes = min(now - before, SLOWEST)  # from one answer to the next, on a busy machine too
        return _about(min(max(STEP, self.takes) * times / 2, LONGEST), draw)

    def listens(self, now: float, waited: float, draw: int) -> float:
        """While others have the turn: the seconds until he listens again, and takes it if they were silent meanwhile.

        :param waited: seconds for which he has waited.
        """
        self._began = self._conflict = now
        quiet = _about(max(QUIET, CHANCE * self.takes) * max(AGED, 1 - waited / PATIENCE), draw)
        return max(UNTOLD + quiet, ASLEEP * self._listened - waited)

    def listened(self, waited: float) -> None:
        """After that, with the seconds for which he has waited in all."""
        self._listened = waited

    def committed(self, now: float) -> None:
        """After a commit."""
        self._ended = now

    def _forgets(self, now: float) -> bool:
        """Whether it is forgotten that there were others, and with it how many."""
        if now - self._conflict < FORGOTTEN:
            return False
        self._listened = 0.0
        return True


def _about(seconds: float, draw: int) -> float:
    """Return half as long to one and a half times as long, so that not all come back at once."""
    return seconds * (0.5 + draw / 2**64)
