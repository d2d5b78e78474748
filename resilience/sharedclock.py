"""The time that all who share a storage agree on: its server's, where it tells one; else this machine's.

An answer that tells the server's time shows how far the two clocks are apart, to within the time that it took.  Each
answer bounds the difference from both sides, and what is known is what all of them allow; the difference in use is
changed only when it is proven wrong.  Between two answers time goes on by this machine's monotonic clock, so a wall
clock that is wrong, or set, changes nothing here.

Nearly every call reads this clock.  So it is here that a process finds a moment to look whether commits of others were
told (see `resilience.Word`), which costs a comparison.

A process knows the time to within what its best answer took, plus twice `MOST_DRIFT` for each second since; two of them
agree to within the sum.  On a network within one place that is a few milliseconds.  The first answer may take most of a
second, as a connection has to be made for it; then the server told its time near the end, which is what is taken.
"""

from __future__ import annotations

from resilience.errors import PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.clock import Clock

MOST_DRIFT = 0.0005
"""Seconds in a second by which two clocks may part; time servers correct no faster."""

WELL_SET = 1.0
"""Seconds by which a machine's clock may be off and is taken as well set: nothing is told."""

TELL_EVERY = 3600.0
"""Seconds after which a clock that is still off is told again."""

BACK = 0.020
"""Seconds that an answer takes back at most, where nothing else is known: what takes longer is to get there."""

LOOK_EVERY = 0.0005
"""Seconds after which the next who reads the time looks what was told."""

_LAST = 1e11
"""A time that is no wall-clock second of the next three thousand years is a fault of the storage."""


class SharedClock:
    """A clock that every storage that tells its time sets right; for all others it is the machine's clock itself.

    Safe to use from many threads: what belongs together is replaced as one.

    :param clock: the clock of this machine.
    :param storage: the name of the storage, for messages.
    """

    __slots__ = (
        "_bounds",
        "_clock",
        "_look",
        "_look_at",
        "_offset",
        "_storage",
        "_told_at",
        "draw",
        "is_agreed",
        "monotonic",
        "off_by",
        "wall",
    )

    def __init__(self, clock: Clock, storage: str) -> None:
        self._clock = clock
        self._storage = storage
        self.monotonic = clock.monotonic
        self.draw = clock.draw
        self.wall: Callable[[], float] = clock.wall
        """Wall-clock seconds.  Another function once a server has told its time; no call pays for it before."""
        self.is_agreed = False
        """Whether a server has told its time."""
        self.off_by: float | None = None
        """Seconds by which the machine's clock is ahead of the server's, until somebody has told it."""
        self._offset = 0.0
        self._bounds = (0.0, 0.0, 0.0)
        self._told_at = float("-inf")
        self._look: Callable[[], object] | None = None
        self._look_at = float("inf")

    def _agreed(self) -> float:
        now = self.monotonic()
        if now >= self._look_at and self._look is not None:
            self._look_at = now + LOOK_EVERY
            self._look()
        return now + self._offset

    def beneath(self) -> tuple[Callable[[], float], float]:
        """Return the machine's clock that it goes by now, and the seconds by which it is ahead of that.

        For an answer that holds for a second or so: to read that clock is no call of ours, and nothing is looked at.
        """
        return (self.monotonic, self._offset) if self.is_agreed else (self._clock.wall, 0.0)

    def attend(self, look: Callable[[], object]) -> None:
        """Call `look` where the time is read from now on, after each `LOOK_EVERY`."""
        if look is not self._look:
            self._look, self._look_at = look, 0.0

    def learn(self, time: object, sent: float) -> None:
        """Take in the time that an answer told, which has just come.

        :param time: wall-clock seconds of the server, at any instant between request and answer.
        :param sent: monotonic seconds of the request.
        :raises PluginError: it is no time.
        """
        if not isinstance(time, float | int) or not 0 <= time < _LAST:
            raise PluginError(
                f"storage {self._storage}: a snapshot has the time {time!r}, which is no wall-clock second"
            )
        received = self.monotonic()
        low, high = time - received, time - sent
        if self.is_agreed:
            least, most, since = self._bounds
            drift = (received - since) * MOST_DRIFT
            if low <= most + drift and least - drift <= high:
                low, high = max(low, least - drift), min(high, most + drift)
            # Else the server's clock was set, or it is another server: what was known before says nothing any more.
        self._bounds = low, high, received
        if not (self.is_agreed and low <= self._offset <= high):
            self._offset = low + min((high - low) / 2, BACK)
        if not self.is_agreed:
            self.wall = self._agreed
            self.is_agreed = True
        off_by = self._clock.wall() - received - self._offset
        if abs(off_by) <= WELL_SET + (high - low):
            self._told_at = float("-inf")
        elif received - self._told_at >= TELL_EVERY:
            self._told_at = received
            self.off_by = off_by
