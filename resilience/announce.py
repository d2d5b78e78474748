"""Telling observers: after the lock, each by itself, and whatever it raises changes nothing for the caller."""

from __future__ import annotations

from _thread import RLock

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

LIMIT = 1.0
"""Seconds between two events that a caller can bring about as often as he likes, of one name and key."""
_MOST_LIMITED = 1000

COMPLAIN_EVERY = 60.0
"""Seconds between two reports of one observer that raises."""


class Announcer:
    """Tells all observers of a runtime."""

    __slots__ = ("_clock", "_complained_at", "_limited", "_limiting", "_observers")

    def __init__(self, observers: Observers, clock: Clock) -> None:
        self._limiting = RLock()  # a signal handler may bring about one in the middle of another
        # Monotonic second at which an event was told last, and how many were not told since.
        self._limited: dict[tuple[str, Key | None], tuple[float, int]] = {}
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
        for event, data in done.resets:
            self.event(event, key, done.now, data)
        limited = cell.policy.limited_events
        for event, data in done.tells:
            self.event(event, key, done.now, data, limited=event in limited)

    def event(
        self, name: str, key: Key | None, now: float, data: Mapping[str, object], *, limited: bool = False
    ) -> None:
        """Tell one event; if it is `limited`, unless one was told just now: then the next says how many were not."""
        if self._observers.events:
            if limited:
                suppressed = self._suppressed((name, key))
                if suppressed is None:
                    return
                if suppressed:
                    data = {**data, "suppressed": suppressed}
            event = Event(name, key, now, data)
            for observer, tell in self._observers.events:
                self._tell(observer, tell, event)

    def _suppressed(self, what: tuple[str, Key | None]) -> int | None:
        """Count an event: how many were not told since the last one that was; `None`: nor is this one."""
        now = self._clock.monotonic()
        with self._limiting:
            told_at, suppressed = self._limited.get(what, (float("-inf"), 0))
            if now - told_at < LIMIT:
                self._limited[what] = told_at, suppressed + 1
                return None
            if what not in self._limited and len(self._limited) >= _MOST_LIMITED:
                self._limited.clear()  # some may be told once too often, and some are never counted
            self._limited[what] = now, 0
            return suppressed

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
