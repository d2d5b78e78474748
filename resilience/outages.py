"""Outages, of the storage or of one key: what counts as one, who may try meanwhile, and who is told.

There is one fuse for the storage and one for each key of which alone it gives no answer; all guards of a key share it.
"""

from __future__ import annotations

from resilience.errors import PluginError, StorageError, StorageLockTimeout, StorageUnavailable, revive
from resilience.fuse import Fuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

    from resilience.announce import Announcer
    from resilience.gather import Owed
    from resilience.sharedclock import SharedClock
    from resilience.storage import Key

    Fault = StorageError | PluginError

FAULTS = (StorageError, PluginError)
"""What a storage may come up with: it does not answer, or with what no storage may answer."""

LOCK_TIMEOUTS = 2
"""So many lock time-outs of a key in a row count as `StorageUnavailable`."""

_MOST_DRAWN = 2.0**64
"""What a clock draws is less."""


class Outages:
    """Those of one open storage.

    :param storage: its name, for observers.
    :param timeout: seconds that the waiting of one decision may take in all.
    """

    __slots__ = ("_announcer", "_clock", "_fuse", "_fuses", "_prober", "_storage", "timeout")

    def __init__(self, storage: str, announcer: Announcer, clock: SharedClock, timeout: float) -> None:
        self._storage = storage
        self._announcer = announcer
        self._clock = clock
        self.timeout = timeout
        self._fuse = Fuse()
        self._fuses: dict[Key, Fuse] = {}
        self._prober: Thread | None = None

    @property
    def is_everywhere(self) -> bool:
        """Whether the storage answers for no key."""
        return self._fuse.is_blown

    def touch(self, key: Key) -> bool:
        """Whether there is one, of the storage or of this key."""
        fuse, fuses = self._fuse, self._fuses
        return fuse.is_blown or (fuses.get(key, fuse).is_blown if fuses else False)

    def ask(self, key: Key) -> tuple[StorageError | None, bool]:
        """Why the storage may not be asked now; or that it may, and whether that is the one try of this second.

        That try is a commit that saves even if nothing changed: nothing less shows that the storage works again.
        """
        trying = False
        for fuse in (self._fuse, self._fuses.get(key)):
            if fuse is not None and fuse.is_blown:
                error = fuse.ask(self._clock.monotonic())
                if error is not None:
                    return error, False
                trying = True
        return None, trying

    def ask_for_call(self, key: Key, attempt: Callable[[], object]) -> tuple[StorageError | None, bool]:
        """Do what `ask` does, for a call: while a try takes as long as it may, a thread makes the `attempt`.

        The thread is there for one try, and there is one at a time; a forked child has none, and makes its own.
        """
        error, trying = self.ask(key)
        if trying:
            for fuse in (self._fuse, self._fuses.get(key)):
                if fuse is not None and fuse.is_slow and fuse.is_blown:
                    error = fuse.error
                    if error is not None and self._try_elsewhere(attempt):
                        return error, False
        return None if trying else error, trying

    def _try_elsewhere(self, attempt: Callable[[], object]) -> bool:
        """Let a thread find out whether the storage works again; false if there can be none."""
        from threading import Thread

        prober = self._prober
        if prober is not None and prober.is_alive():
            return True  # it takes longer than a second, or is at another key
        self._prober = prober = Thread(target=attempt, name="resilience try", daemon=True)
        try:
            prober.start()
        except RuntimeError:  # the interpreter ends, or has no thread left: whoever calls tries for himself
            self._prober = None
            return False
        return True

    def finish(self) -> None:
        """Wait for a try that a thread makes, as long as it may take, so that the storage can be closed after it."""
        prober = self._prober
        if prober is not None:
            try:
                prober.join(self.timeout)
            except RuntimeError:  # an observer in that very thread closes the runtime
                pass

    def retry_at_once(self, key: Key) -> None:
        """Take back a leave to ask that was not used: the lock would have had to be waited for."""
        for fuse in (self._fuse, self._fuses.get(key)):
            if fuse is not None:
                fuse.retry_at_once()

    def seconds_to_retry(self, key: Key, error: StorageError) -> float:
        """How long nobody may ask in the outage that `error` told of."""
        fuse = self._fuse if error.key is None else self._fuses.get(key, self._fuse)
        return fuse.seconds_to_retry(self._clock.monotonic())

    def locks_out(self, key: Key) -> bool:
        """Whether the outage of a key is that its lock cannot be had."""
        fuse = self._fuses.get(key)
        error = None if fuse is None else fuse.error
        return error is not None and isinstance(error.__cause__, StorageLockTimeout)

    @staticmethod
    def meant_by(error: Fault, owed: Callable[[], Owed], key: Key, *, trying: bool) -> StorageError | None:
        """Say what a failure of the storage means; `None`: a lock that could not be had, for the first time.

        :param owed: what is owed to the key, which knows how often in a row that was so.
        :param trying: there is an outage; then there is no first time: it goes on.
        """
        if not isinstance(error, StorageLockTimeout):
            return unusable(error)
        debts = owed()
        debts.lock_timeouts += 1
        if debts.lock_timeouts < LOCK_TIMEOUTS and not trying:
            return None
        outage = StorageUnavailable(str(error), key=key)
        outage.__cause__ = error
        return outage

    def failed(self, key: Key, error: StorageError, mode: str, deadline: float) -> None:
        """Note a failure, of what had to end by `deadline`: it was slow if less than half of the time is left.

        :param mode: what `on_store_error` says, for observers, if an outage begins.
        """
        if is_of_the_caller(error):
            return
        fuse = self._fuse if error.key is None else self._fuses.setdefault(key, Fuse())
        now = self._clock.monotonic()
        kept = _told_to_all(error, key) if error.key is None else error
        if fuse.blow(now, kept, self._clock.draw() / _MOST_DRAWN, is_slow=deadline - now < self.timeout / 2):
            data = {"error": str(error), "mode": mode, "storage": self._storage}
            self._announcer.event("degraded", error.key, self._clock.wall(), data)

    def succeeded(self, key: Key) -> None:
        """Note that a try went well: what there was is over."""
        for fuse, told in ((self._fuse, None), (self._fuses.get(key), key)):
            seconds = None if fuse is None else fuse.mend(self._clock.monotonic())
            if seconds is not None:
                data = {"seconds": seconds, "storage": self._storage}
                self._announcer.event("recovered", told, self._clock.wall(), data)


def is_of_the_caller(error: StorageError) -> bool:
    """Whether it was the caller's stack that came to its end: that says nothing of the storage, nor of other calls."""
    return isinstance(error.__cause__, RecursionError)


def _told_to_all(error: StorageError, key: Key) -> StorageError:
    """Return an error as those are told who ask for other keys meanwhile: without the one at which it was met."""
    text = str(error).replace(str(key), "a record")
    if text == str(error):
        return error
    told = revive(type(error), (text, *error.args[1:]), dict(error.__dict__))
    told.__cause__ = error.__cause__
    return told


def unusable(error: Fault) -> StorageError:
    """Say as an error of the storage what it came up with: one that breaks its contract is as good as none."""
    if isinstance(error, StorageError):
        return error
    outage = StorageUnavailable(str(error))
    outage.__cause__ = error
    return outage
