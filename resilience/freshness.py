"""Whether a snapshot is still the last committed record, for a storage that is told of commits: what was heard of each.

Each key has a number in memory that goes up when another version than the known one is heard of, and a snapshot holds
the number that it was made at: so its `is_current` is one comparison, a `Word`.  Versions say what is news: a process
is told of its own commits too, and they make its own snapshots no older.

What was heard is trusted only while whoever hears can prove that he does; when he cannot, all numbers go up.  A storage
that is told by messages on a connection does both of these:

- it has a thread that waits for them, and that asks again and again for a sign of life (`prove`, `distrust`);
- it gives `Freshness` a function that reads what has come, and the engine calls that where time passes, see `Word`.
  A thread that was woken by a message has to wait for the interpreter, in a program that computes all the time for
  `sys.getswitchinterval()`, which is 5 ms; a call that decides need not wait for it.

Where many commit one record all the time, to tell all of them of each commit takes more than the commits do.  So a
storage may leave commits untold of a record that *moves*, as long as it says so of each snapshot that may be followed
by one (`judge`): then that is held for current for `MOVING` only, and after that the record is loaded again.  The
commit after one that was said to rest must be told.  While it goes on, one is told at least every
`resilience.storage.UNTOLD`, as those who wait for their turn listen for that.  `FEW` and `CALM` are when ours take a
record for one that moves.
"""

from __future__ import annotations

from _thread import allocate_lock
from weakref import WeakValueDictionary

from resilience.clock import monotonic
from resilience.storage import Version, Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

FEW = 16
"""Commits, one soon after the other, of which all are told: a breaker that opens has mostly failed less often."""

CALM = 0.005
"""Seconds without one that was told after which a record moves no more; those who commit in turns leave less."""

MOVING = 0.001
"""Seconds for which a snapshot of one is held for current, or as long as it took to get it if nobody got it sooner."""

_NEVER = float("inf")

_UNKNOWN = Version("", 0)
"""What is known of a key before anything was heard of it; no record has this version."""


class Heard(list[int]):
    """What was heard of one key: a number that goes up whenever snapshots get stale, and how much was news."""

    __slots__ = ("__weakref__", "doubted_at", "latest")

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__([0, 0])
        self.latest: Version | None = _UNKNOWN
        self.doubted_at = _NEVER
        """Monotonic seconds at which snapshots get stale by themselves."""

    def outdate(self, latest: Version | None) -> None:
        """Let all snapshots be stale; those to come are of `latest`, or of nothing (`None`)."""
        self.latest = latest
        self.doubted_at = _NEVER
        self[0] += 1
        self[1] += 1


class _Passing(Word):
    """The `is_current` of a snapshot of a record that moves, which whoever calls it need not wait to be told of."""

    __slots__ = ("until",)

    def __init__(self, heard: Heard, look: Callable[[], object] | None, until: float) -> None:
        super().__init__(heard, heard[0], look)
        self.until = until

    def __call__(self) -> bool:
        """Whether the snapshot may still be held for the last committed record."""
        return monotonic() < self.until and super().__call__()


Begun = tuple[Heard, int, float]
"""What is heard of a key, and its number and the monotonic seconds when the storage is asked."""


class Freshness:
    """What was heard of all keys that somebody holds a snapshot of.  Safe to use from many threads.

    :param look: reads what has come, without waiting and without raising; see `resilience.Word`.
    """

    def __init__(self, look: Callable[[], object] | None = None) -> None:
        self.look = look
        self._lock = allocate_lock()
        self._heard: WeakValueDictionary[Hashable, Heard] = WeakValueDictionary()
        self._moving: WeakValueDictionary[int, Heard] = WeakValueDictionary()
        """Those that get stale by themselves, by their identity; nobody may ever look."""
        self.is_proven = False
        """Whether commits of others are heard of for certain."""

    def begin(self, key: Hashable) -> Begun | None:
        """Before a record is loaded or saved: what `judge` must be told after it; `None` if nothing is heard."""
        if not self.is_proven:
            return None
        with self._lock:
            heard = self._heard.get(key)
            if heard is None:
                heard = self._heard[key] = Heard()
        return heard, heard[0], monotonic()

    def judge(self, version: Version | None, begun: Begun | None, *, moves: bool = False) -> Word | None:
        """After it: the `is_current` of what was loaded or committed; `None` if nothing was heard when it began.

        :param version: its version; `None`: there is no record.
        :param begun: what `begin` returned.
        :param moves: whether the next commits may be left untold; see `doubt_moving`.
        """
        if begun is None:
            return None
        heard, number, began = begun
        with self._lock:
            if version != heard.latest:
                if heard[0] != number and not _follows(version, heard.latest):
                    return Word(heard, heard[0] - 1)  # something else was heard of meanwhile: which is newer?
                heard.outdate(version)  # it was not heard of yet; what comes of it is no news then
            if moves:
                now = monotonic()
                until = now + max(MOVING, now - began)
                if now < heard.doubted_at < until:  # others hold it too, who got it sooner
                    until = max(heard.doubted_at, now + MOVING)
                heard.doubted_at = until
                self._moving[id(heard)] = heard
                return _Passing(heard, self.look, until)
            if self._moving:
                self._moving.pop(id(heard), None)
            return Word(heard, heard[0], self.look)

    def hear(self, key: Hashable, version: Version | None) -> None:
        """Learn of a commit; `None`: that the record is gone."""
        with self._lock:
            heard = self._heard.get(key)
            if heard is None:
                return
            latest = heard.latest
            if version != latest and not _follows(latest, version):
                heard.outdate(version)

    def doubt(self, key: Hashable) -> None:
        """Hold nothing for current of one key: this process changed it, and others may have done so since."""
        with self._lock:
            heard = self._heard.get(key)
            if heard is not None:
                heard.outdate(_UNKNOWN)

    def doubt_moving(self) -> None:
        """Hold no snapshot of a record that moves for current any longer than `MOVING`.

        To be called by `look`; only of use to storages that leave commits untold.
        """
        if not self._moving:
            return
        with self._lock:
            now = monotonic()
            for heard in [heard for heard in self._moving.values() if now >= heard.doubted_at]:
                heard[0] += 1
                del self._moving[id(heard)]

    def prove(self) -> None:
        """From now on commits of others are heard of."""
        self.is_proven = True

    def distrust(self) -> None:
        """Something may have been missed: no snapshot is current."""
        with self._lock:
            self.is_proven = False
            self._moving.clear()
            for heard in list(self._heard.values()):
                heard.outdate(_UNKNOWN)

    def after_fork(self) -> None:
        """Hear nothing in a child: whoever hears is its parent's, and a thread of his may have held the lock."""
        self._lock = allocate_lock()
        self.distrust()


def _follows(version: Version | None, other: Version | None) -> bool:
    """Whether a version is a later one of the same record."""
    if version is None or other is None:
        return False
    return version.incarnation == other.incarnation and version.number > other.number
