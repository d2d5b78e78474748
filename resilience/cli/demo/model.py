"""What the demo shows: the script of the play, what each worker met, what the server counted.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKERS = 4
"""Processes that share one breaker, and as many again that have none."""

INTERVAL = 0.125
"""Seconds between two calls of one worker."""

SLOTS = 30
"""Pieces into which the time of the play is cut where it is drawn from left to right."""

HEALTHY, FAILING, RECOVERING = "healthy", "failing", "recovering"

# Each phase's share of the play.
_SHARES = ((HEALTHY, 0.2), (FAILING, 0.5), (RECOVERING, 0.3))

# Where several things happen in one slot, the last of these is drawn.
_RANKS = {
    kind: rank
    for kinds in ((RECOVERING, HEALTHY, FAILING), ("closed", "open", "half_open"), ("rejected", "ok", "failed"))
    for rank, kind in enumerate(kinds, 1)
} | {"": 0}


@dataclass(frozen=True, slots=True)
class Script:
    """When what happens, in seconds from the first call."""

    seconds: float

    @property
    def reset_timeout(self) -> float:
        """How long the breaker stays open: short enough for some probes that fail and some that do not."""
        return self.seconds / 12

    @property
    def failing_seconds(self) -> float:
        """How long the server fails."""
        return self.seconds * dict(_SHARES)[FAILING]

    def phase(self, elapsed: float) -> str:
        """Tell what the server does at a second of the play."""
        end = 0.0
        for phase, share in _SHARES:
            end += self.seconds * share
            if elapsed < end:
                return phase
        return RECOVERING

    def slot(self, elapsed: float) -> int:
        """Tell where a second of the play is drawn."""
        return max(0, min(SLOTS - 1, int(elapsed / self.seconds * SLOTS)))


class Strip:
    """What happened over the time of the play, a kind for each slot; ``""`` where nothing did."""

    def __init__(self) -> None:
        self.kinds = [""] * SLOTS

    def mark(self, slot: int, kind: str) -> None:
        """Let something have happened."""
        if _RANKS[kind] > _RANKS[self.kinds[slot]]:
            self.kinds[slot] = kind


@dataclass(slots=True)
class Row:
    """What one worker met.

    `state` is that of the breaker as the worker saw it last, ``""`` for a worker without one.
    """

    label: str
    protected: bool
    state: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0, "rejected": 0})
    strip: Strip = field(default_factory=Strip)

    @property
    def calls(self) -> int:
        """How often it wanted something of the server."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Move:
    """A change of the breaker's state, as the worker announced it that made it."""

    elapsed: float
    label: str
    old: str
    new: str
    reason: str


class Play:
    """All that is shown, at one second of the play."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.rows = [
            Row(f"{'worker' if protected else 'bare'} {number}", protected)
            for protected in (True, False)
            for number in range(1, WORKERS + 1)
        ]
        self.elapsed = 0.0
        self.state = "closed"
        self.moves: list[Move] = []
        self.hits = {True: 0, False: 0}
        """What the server counted while it failed: requests of the workers with the breaker, and without."""
        self.server_strip, self.breaker_strip = Strip(), Strip()
        self._epoch = -1

    @property
    def phase(self) -> str:
        """What the server does."""
        return self.script.phase(self.elapsed)

    def advance(self, elapsed: float) -> None:
        """Let time pass."""
        self.elapsed = elapsed
        slot = self.script.slot(elapsed)
        self.server_strip.mark(slot, self.phase)
        self.breaker_strip.mark(slot, self.state)

    def take(self, number: int, message: Mapping[str, object]) -> None:
        """Take in what the worker of row `number` reports: a call, or a change of state."""
        row, slot = self.rows[number], self.script.slot(self.elapsed)
        match message:
            case {"did": str(outcome), "state": str(state)}:
                row.counts[outcome] += 1
                row.state = state
                row.strip.mark(slot, outcome)
            case {"old": str(old), "new": str(new), "reason": str(reason), "epoch": int(epoch)}:
                self.moves.append(Move(self.elapsed, row.label, old, new, reason))
                self.breaker_strip.mark(slot, new)
                # Two workers' reports may come in another order than what they report.
                if epoch > self._epoch:
                    self._epoch, self.state = epoch, new
            case _:
                raise ValueError(f"{row.label} reports {message}")

    def total(self, *, protected: bool, outcome: str | None = None) -> int:
        """How many calls the workers made, with the breaker or without; or those with one outcome."""
        return sum(
            row.calls if outcome is None else row.counts[outcome] for row in self.rows if row.protected is protected
        )


def readable(state: str) -> str:
    """Write a state for a person."""
    return state.replace("_", "-")


def summary(play: Play) -> list[str]:
    """Say what came of it, in lines."""
    shared, bare = play.hits[True], play.hits[False]
    share = round(100 * (bare - shared) / bare) if bare else 0
    lines = [f"While the server failed, {play.script.failing_seconds:.1f} s long, it was hit by"]
    for protected, text in ((False, "without a breaker"), (True, "that share one")):
        calls, rejected = play.total(protected=protected), play.total(protected=protected, outcome="rejected")
        requests = f"{play.hits[protected]:4} requests of {WORKERS} processes {text:17}"
        lines.append(f"  {requests}  ({calls} calls, {rejected} rejected)")
    return [*lines, f"The breaker spared it {bare - shared} requests, {share} %."]
