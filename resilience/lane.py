"""One process at one record: its threads and tasks commit one after the other, and who waits is taken along.

Where no lock is held, those of one process would race for a record like strangers: all but one come too late each time.
So one of them leads.  The others wait in line, and before each try the leader takes the reports of all who wait with
his own: one commit serves them all.  What is no report, or is made by another guard of the key, waits for its turn.

Nothing depends on it, as the storage compares versions; so nothing is trusted to end.  A leader whose time is up, such
as a task of a loop that was stopped, holds up nobody; who waits until his own time is up leaves the line, or leaves his
report with the leader who has taken it; and who would wait for himself does not wait.
"""

from __future__ import annotations

from _thread import allocate_lock, get_ident

from resilience.awaiting import is_asyncio
from resilience.errors import ResilienceError, StorageLockTimeout, StorageUnavailable
from resilience.policy import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from resilience.policy import PolicyEvent

MOST = 64
"""Commits that one takes along at one time."""

WAITS, ABOARD, LEADS, SERVED, STRAYS = range(5)
"""What becomes of a commit that does not begin at once: it waits in line, its reports are in another one's commit, it
leads, it was served by another one, or it goes by itself like a stranger."""


class Ride:
    """A commit that found another one under way.

    :param lane: where it waits.
    :param owner: what stands for it there, see `Lane.enter`.
    :param guard: who may take it along: a commit of the same one.
    """

    __slots__ = ("_wake", "deadline", "error", "events", "guard", "is_left", "lane", "owner", "state", "thread")

    def __init__(
        self, lane: Lane, owner: object, guard: object, events: Sequence[PolicyEvent], deadline: float
    ) -> None:
        self.lane = lane
        self.owner = owner
        self.guard = guard
        self.events = events
        self.deadline = deadline
        self.thread = get_ident()
        self.state = WAITS
        self.error: ResilienceError | None = None
        """Why it was not served."""
        self.is_left = False
        """Whether nobody waits for it any more: then the leader who has taken it settles it."""
        self._wake: Callable[[], object] | None = None

    @property
    def may_join(self) -> bool:
        """Whether another commit may do it: nobody asks what its step was."""
        return bool(self.events) and all(isinstance(event, Report) for event in self.events)

    def call(self, wake: Callable[[], object]) -> bool:
        """Let it be called when it leads or was served; false if it is so far."""
        with self.lane.lock:
            if self.state not in {WAITS, ABOARD}:
                return False
            self._wake = wake
            return True

    def wake(self) -> None:
        """Call whoever waits."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()


class Lane:
    """The commits of one process at one record."""

    __slots__ = ("__weakref__", "_deadline", "_leader", "_line", "_thread", "lock")

    def __init__(self) -> None:
        self.lock = allocate_lock()
        self._line: list[Ride] = []
        self._leader: object = None
        self._thread = 0
        self._deadline = 0.0
        """The monotonic second after which the leader leads no longer."""

    def enter(
        self, owner: object, guard: object, events: Sequence[PolicyEvent], now: float, deadline: float
    ) -> Ride | None:
        """Begin a commit; if another one is under way, wait in line: see `wait` and `ask`.

        :param owner: stands for the commit in what follows.
        :param guard: whose it is: it takes along no other's.
        :param now: monotonic seconds, as is `deadline`, after which it leads no longer.
        """
        with self.lock:
            if self._leader is not None and now < self._deadline:
                ride = Ride(self, owner, guard, events, deadline)
                self._line.append(ride)
                return ride
            self._lead(owner, get_ident(), deadline)
        return None

    def join(self, owner: object, guard: object) -> list[Ride]:
        """Take along those who wait and may join; none if somebody else leads by now."""
        if not self._line:
            return []
        with self.lock:
            if self._leader is not owner:
                return []
            joining = [ride for ride in self._line if ride.guard is guard and ride.may_join][:MOST]
            for ride in joining:
                ride.state = ABOARD
                self._line.remove(ride)
        return joining

    def leave(
        self,
        owner: object,
        joined: Sequence[Ride],
        now: float,
        error: BaseException | None = None,
        *,
        unknown: bool = False,
    ) -> list[Report]:
        """End a commit, tell those who were taken along, and let the next one lead.

        Who was taken along gets the failure of the storage as his own, and after any other goes back into the line.

        :param joined: those who were taken along.
        :param error: why it failed.
        :param unknown: whether it may have been saved.
        :return: reports of those who did not wait for the end, to be owed: they are in no record.
        """
        failure = None if error is None else _told(error, unknown=unknown)
        is_over = error is None or failure is not None
        with self.lock:
            waiting = [ride for ride in joined if not ride.is_left]
            for ride in waiting:
                ride.state, ride.error = SERVED if is_over else WAITS, failure
            if not is_over:
                self._line[:0] = waiting
            woken = waiting if is_over else []
            if self._leader is owner:
                self._leader = None
                while self._line and self._leader is None:
                    ride = self._line.pop(0)
                    if now < ride.deadline:  # else its time is up, and whoever waits finds it out
                        ride.state = LEADS
                        self._lead(ride.owner, ride.thread, ride.deadline)
                        woken = [ride, *woken]
        for ride in woken:
            ride.wake()
        if error is None or unknown:
            return []
        return [event for ride in joined if ride.is_left for event in ride.events if isinstance(event, Report)]

    def _lead(self, owner: object, thread: int, deadline: float) -> None:
        self._leader, self._thread, self._deadline = owner, thread, deadline

    def patience(self, ride: Ride, now: float) -> float:
        """Return the seconds to wait: until its time is up, or the leader's, who holds up nobody after that."""
        return min(ride.deadline, self._deadline) - now

    def ask(self, ride: Ride, now: float) -> bool:
        """Whether it is to wait on; it leads if the leader's time is up."""
        with self.lock:
            if ride.state != WAITS or now >= ride.deadline:
                return False
            if now < self._deadline:
                return True
            self._line.remove(ride)
            ride.state = LEADS
            self._lead(ride.owner, ride.thread, ride.deadline)
            return False

    def stop(self, ride: Ride) -> int:
        """Wait no longer: say what became of it.  What was taken along is left to the leader."""
        with self.lock:
            if ride.state == ABOARD:
                ride.is_left = True
            elif ride in self._line:
                self._line.remove(ride)
            return ride.state

    def stray(self, ride: Ride) -> bool:
        """Let a commit go by itself, unless it was taken along or leads."""
        with self.lock:
            if ride.state != WAITS:
                return False
            self._line.remove(ride)
            ride.state = STRAYS
            return True

    def is_led_here(self) -> bool:
        """Whether this thread, or a task of its loop, leads: to wait for it would be to wait for oneself."""
        return self._thread == get_ident()


def _told(error: BaseException, *, unknown: bool) -> ResilienceError | None:
    """Return what those who were taken along are told of a failure; `None`: it was none of theirs."""
    if isinstance(error, ResilienceError) and not isinstance(error, StorageLockTimeout):
        return error
    if unknown:
        return StorageUnavailable(f"whoever committed it was interrupted: {type(error).__name__}", outcome_unknown=True)
    return None


def wait(ride: Ride, seconds: float) -> None:
    """Wait in this thread until a commit leads or was served, for so many seconds at most.

    Not in the thread of an event loop: one of its tasks may lead next, and could not while it is stopped.
    """
    if (ride.lane.is_led_here() or is_asyncio()) and ride.lane.stray(ride):
        return
    woken = allocate_lock()
    woken.acquire()
    if ride.call(woken.release):
        woken.acquire(timeout=max(0.0, seconds))


async def wait_on_loop(ride: Ride, seconds: float) -> None:
    """Wait as a task."""
    import asyncio

    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        try:
            loop.call_soon_threadsafe(_end, ready)
        except RuntimeError:
            pass  # the loop was closed meanwhile: nobody waits there any more

    if ride.call(wake):
        timer = loop.call_later(max(0.0, seconds), _end, ready)
        try:
            await ready
        finally:
            timer.cancel()


def _end(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
