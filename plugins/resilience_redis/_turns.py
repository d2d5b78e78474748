"""Fairness among those who commit one record at the same time: who is late again and again gets his turn.

Compare-and-set alone is not fair: who has just committed knows the version, and wins again.  What the server does about
it stands in `_script`, at `SAVE`; here is what a process does: it tries again at once as long as that may help, waits a
moment where it does not, and says when it has been late for too long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from resilience import SystemClock, clock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from resilience import Key

_TOO_LONG = 0.003
"""Seconds of being late after which a process asks for its turn."""
_PAUSE = 0.001
"""Seconds that are waited at least, and with chance up to three times as long, so that not all come back at once."""


class Turns:
    """What this process knows of its own lateness."""

    def __init__(self) -> None:
        self._me = uuid4().hex
        self._late: dict[Key, tuple[int, float]] = {}
        """How often in a row a key could not be committed, and since when."""

    def ask(self, key: Key) -> tuple[str, str]:
        """Return the last arguments of `SAVE`."""
        _, since = self._late.get(key, (0, 0.0))
        return self._me, "late" if since and clock.monotonic() - since > _TOO_LONG else ""

    def pause(self, key: Key, reply: Sequence[Any]) -> float:
        """Take note of the reply of `SAVE`; the seconds to wait before the next try."""
        if len(reply) == 2:
            self._late.pop(key, None)
            return 0.0
        now = clock.monotonic()
        times, since = self._late.get(key, (0, now))
        self._late[key] = times + 1, since
        turn = reply[7] if len(reply) > 7 else None
        # The reply has brought the version that is committed now: once more with that may do, but no third time.
        may_do = turn is None and times % 2 == 0 and now - since <= _TOO_LONG
        if turn == b"now" or may_do:
            return 0.0
        return _PAUSE * (1 + 2 * SystemClock.draw() / 2**64)
