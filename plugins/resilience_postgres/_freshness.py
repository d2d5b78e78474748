"""Whether a snapshot is still the last committed record: what this process heard of each key.

Each key has a number that goes up when another version than the known one is heard of, and every snapshot holds the
number it was made at: so `is_current` is one comparison (`resilience.Word`).  What was heard is trusted only while the
listener proves that it hears; when it cannot, all numbers go up.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from resilience import Version, Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_UNKNOWN: Final = Version("", 0)
"""What is known of a key before anything was heard of it; no record has this version."""

STALE: Final = Word([0], 1)
"""The `is_current` of a snapshot of which nobody can tell."""


class Heard(list[int]):
    """What was heard of one key; its only item is the number, which goes up whenever snapshots get stale."""

    __slots__ = ("__weakref__", "latest")

    def __init__(self) -> None:
        super().__init__([0])
        self.latest: Version | None = _UNKNOWN

    def outdate(self, latest: Version | None) -> None:
        """Let all snapshots be stale; those to come are of `latest`."""
        self.latest = latest
        self[0] += 1


Begun = tuple[Heard, int]
"""What is heard of a key, and its number when the server is asked."""


class Freshness:
    """What was heard of all keys that somebody holds a snapshot of; a key is known by its identity in the table."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: WeakValueDictionary[bytes, Heard] = WeakValueDictionary()
        self.is_proven = False
        """Whether commits of others are heard of for certain."""

    def begin(self, tag: bytes) -> Begun | None:
        """Before a key is read or saved: what `judge` must be told after it; `None` if nothing is heard."""
        with self._lock:
            heard = self._heard.get(tag)
            if heard is None:
                heard = self._heard[tag] = Heard()
        number = heard[0]
        return (heard, number) if self.is_proven else None

    def judge(self, version: Version | None, begun: Begun | None) -> Word:
        """After it: the `is_current` of what was read or committed.

        :param begun: what `begin` returned.
        """
        with self._lock:
            if begun is None or not self.is_proven:
                return STALE
            heard, number = begun
            if version != heard.latest:
                if _is_older(version, heard.latest, something_heard=heard[0] != number):
                    return STALE
                heard.outdate(version)  # it was not heard of yet; what comes of it is no news then
            return Word(heard, heard[0])

    def hear(self, tag: bytes, version: Version | None) -> None:
        """Learn of a commit, or (`None`) that a record is gone."""
        with self._lock:
            heard = self._heard.get(tag)
            if heard is None:
                return
            latest = heard.latest
            if version is None or latest is None or version.incarnation != latest.incarnation:
                if version != latest:
                    heard.outdate(version)
            elif version.number > latest.number:
                heard.outdate(version)

    def doubt(self, tag: bytes) -> None:
        """Hold nothing for current of one key: this process changed it, and others may have done so since."""
        with self._lock:
            heard = self._heard.get(tag)
            if heard is not None:
                heard.outdate(_UNKNOWN)

    def prove(self) -> None:
        """From now on commits of others are heard of."""
        with self._lock:
            self.is_proven = True

    def distrust(self) -> None:
        """Something may have been missed: no snapshot is current."""
        with self._lock:
            self.is_proven = False
            for heard in list(self._heard.values()):
                heard.outdate(_UNKNOWN)

    def after_fork(self) -> None:
        """Hear nothing in a child: the listener is its parent's."""
        self._lock = threading.Lock()
        self.distrust()


def _is_older(version: Version | None, latest: Version | None, *, something_heard: bool) -> bool:
    """Whether a version may have been overtaken by the latest that was heard of."""
    if version is not None and latest is not None and version.incarnation == latest.incarnation:
        return version.number < latest.number
    return something_heard  # of two lives of a record nobody can tell which came first, but by when they were heard of
