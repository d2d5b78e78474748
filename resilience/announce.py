"""Telling observers: after the lock, each by itself, and whatever it raises changes nothing for the caller."""

from __future__ import annotations

from resilience.events import Event, Transition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from resilience.cell import Cell
    from resilience.clock import Clock
    from resilience.commit import Committed
    from resilience.ports import Observers
    from resilience.storage import Key

COMPLAIN_EVERY = 60.0
"""Seconds between two reports of one observer that raises."""


class Announcer:
    """Tells all observers of a runtime."""

    __slots__ = ("_clock", "_complained_at", "_observers")

    def __init__(self, observers: Observers, clock: Clock) -> None:
        self._observers = observers
        self._clock = clock
        self._complained_at: dict[str, float] = {}

    def committed(self, cell: Cell, done: Committed) -> None:
        """Tell what a commit changed; one to a private copy has no version that means anything to others."""
        key, version = cell.key, done.version if cell.origin is None else None
        for move, epoch in done.moves:
            transition = Transition(key, move.old, move.new, move.reason, done.now, version, epoch)
            for name, tell in self._observers.transitions:
                self._tell(name, tell, transition)
        for event, data in (*done.resets, *done.tells):
            self.event(event, key, done.now, data)

    def event(self, name: str, key: Key | None, now: float, data: Mapping[str, object]) -> None:
        """Tell one event."""
        if self._observers.events:
            event = Event(name, key, now, data)
            for observer, tell in self._observers.events:
                self._tell(observer, tell, event)

    def _tell(self, observer: str, tell: Callable[[Any], object], told: object) -> None:
        try:
            tell(told)
        except Exception:  # an observer may raise anything
            now = self._clock.monotonic()
            last = self._complained_at.get(observer)
            if last is None or now - last >= COMPLAIN_EVERY:
                self._complained_at[observer] = now
                import logging

                logging.getLogger("resilience").exception("observer failed", extra={"observer": observer})
