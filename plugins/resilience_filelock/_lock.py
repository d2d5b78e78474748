"""Taking turns: between the threads of this process by a token, between processes by the lock on the file.

There is one token per key and process.  Who has it may try for the file's lock, and gives both back on leaving.
Waiting is ours: `filelock.FileLock` looks every 50 ms, which lets sixteen processes on one key wait for most of a
second.
"""

from __future__ import annotations

try:
    from _queue import Empty, SimpleQueue  # what `queue` offers under the same names, without what it imports
except ImportError:  # pragma: no cover - an interpreter that has it elsewhere
    from queue import Empty, SimpleQueue
from _weakref import ref  # see `_fork`

from resilience import clock
from resilience_filelock._fork import BIRTH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Final

    from resilience import Key
    from resilience_filelock._file import RecordFile


class _Native:
    """The lock of the operating system, as `filelock` gives it.

    Imported at the first use, which many programs that only ask never come to.
    """

    lock: Callable[..., bool]
    unlock: Callable[[int], None]

    def __getattr__(self, name: str) -> Any:
        if name not in {"lock", "unlock"}:
            raise AttributeError(name)
        self.load()
        return self.__dict__[name]

    def load(self) -> None:
        """Import it."""
        with BIRTH:  # a child forked by another thread in the middle of an import could never import it
            from filelock import lock_descriptor, unlock_descriptor

        self.lock = lock_descriptor
        self.unlock = unlock_descriptor


native: Final = _Native()

__all__ = ["Empty", "Entry", "Held", "native", "pauses"]

SHORTEST_PAUSE: Final = 20e-6
LONGEST_PAUSE: Final = 1e-3


class Entry:
    """What this process has of one key: the token, the open file, and the file while it is locked."""

    __slots__ = ("__weakref__", "file", "key", "locked", "path", "tokens", "used")

    def __init__(self, key: Key, path: str) -> None:
        self.key = key
        self.path = path
        self.tokens: SimpleQueue[Held] = SimpleQueue()
        self.tokens.put(Held(self))
        self.file: RecordFile | None = None
        self.locked: RecordFile | None = None
        self.used = clock.monotonic()

    def give_back(self, held: Held, file: RecordFile | None) -> None:
        """Undo what was taken of a lock, however little it was."""
        try:
            self.unlock(file)
        except BaseException:  # it struck before the lock was given back
            self.unlock(file)
            raise
        finally:
            self.locked = None
            self.tokens.put(held)

    def unlock(self, file: RecordFile | None) -> None:
        """Give the lock on a file back, if there is one; never a parent's."""
        if file is not None and file.fd >= 0:
            try:
                native.unlock(file.fd)
            except OSError:
                self.file = None
                file.release()  # closing it unlocks it too


class Held:
    """The token, and as a context manager the lock.

    An exception that comes from outside (Ctrl-C) may strike between any two instructions, also between taking the
    lock and remembering it.  Then this object is lost, and its end gives back what it stood for.
    """

    __slots__ = ("_entry",)

    def __init__(self, entry: Entry) -> None:
        self._entry = ref(entry)

    def __enter__(self) -> None:
        """Nothing is left to do: it was handed out with the lock held."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unlock the file, then let the next thread in."""
        entry = self._entry()
        file = None if entry is None else entry.locked
        if entry is None or file is None:
            return  # given back before, closed meanwhile, or in a forked child, where the lock is the parent's
        try:
            native.unlock(file.fd)
        except OSError:
            entry.give_back(self, file)
        except BaseException:
            entry.give_back(self, file)
            raise
        else:
            entry.locked = None
            entry.tokens.put(self)

    def __del__(self) -> None:
        entry = self._entry()
        if entry is not None:
            entry.give_back(Held(entry), entry.locked or entry.file)


class pauses:  # noqa: N801 - used like a function
    """Waits between attempts, growing, until the time is up.

    Each call sleeps a little and tells whether there is time for another attempt.
    """

    __slots__ = ("_deadline", "_pause")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._pause = SHORTEST_PAUSE

    @property
    def are_long(self) -> bool:
        """Whether the longest pause is reached, after some 3 ms."""
        return self._pause == LONGEST_PAUSE

    def step_back(self) -> None:
        """Let somebody else try who has waited for long: a pause in which he tries at least once."""
        left = self._deadline - clock.monotonic()
        if left > 0:
            clock.sleep(min(1.5 * LONGEST_PAUSE, left))

    def __call__(self) -> bool:
        """Wait; false if the time is up and there was no waiting."""
        left = self._deadline - clock.monotonic()
        if left <= 0:
            return False
        clock.sleep(min(self._pause, left))
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)
        return True
