"""Taking turns: between the threads of this process by a token, between processes by the lock on the file.

There is one token per key and process.  Who has it may try for the file's lock, and gives both back on leaving.
Waiting is ours, see `_waiting`: `filelock.FileLock` looks every 50 ms, which lets sixteen processes on one key wait for
most of a second.
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

__all__ = ["Empty", "Entry", "Held", "native"]

LONG_AGO: Final = float("-inf")


class Entry:
    """What this process has of one key: the token, the open file, and the file while it is locked."""

    __slots__ = ("__weakref__", "file", "key", "locked", "path", "saved", "token", "tokens", "turn_ends", "used")

    def __init__(self, key: Key, path: str) -> None:
        self.key = key
        self.path = path
        self.tokens: SimpleQueue[Held] = SimpleQueue()
        """The token, while nobody has it."""
        self._issue()
        self.file: RecordFile | None = None
        self.locked: RecordFile | None = None
        self.used = clock.monotonic()
        self.saved = LONG_AGO
        """Monotonic second of the last commit of this process."""
        self.turn_ends = LONG_AGO
        """Monotonic second until which this process goes on though another waits."""

    def _issue(self) -> None:
        held = Held(self)
        self.token = ref(held)
        self.tokens.put(held)

    def replace_token(self) -> None:
        """Undo what a token stood for that nobody has any more, and issue another."""
        self.unlock(self.locked or self.file)
        self.locked = None
        self._issue()

    def see_to_token(self) -> None:
        """Replace a token that was lost and could not see to that itself, at the end of its thread's stack."""
        if self.token() is None:
            with BIRTH:
                if self.token() is None:  # pragma: no branch - else another thread has done it meanwhile
                    self.replace_token()

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
    lock and remembering it.  Then this object is lost, and its end gives back what it stood for; or, where it cannot
    even do that, whoever comes next for the lock.
    """

    __slots__ = ("__weakref__", "_entry")

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
            entry.replace_token()
