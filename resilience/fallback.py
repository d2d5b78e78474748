"""`on_store_error = local`: the same ports over private memory, so that `commit` knows nothing of outages."""

from __future__ import annotations

from _thread import allocate_lock

from resilience.errors import StorageConflict, StorageLockTimeout
from resilience.ports import Ports
from resilience.storage import Snapshot, Version, Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from contextlib import AbstractContextManager
    from types import TracebackType

    from resilience.storage import Key


class PrivateRecord:
    """One record in the memory of this process, that begins as a copy of what was last seen of the shared one."""

    def __init__(self, payload: bytes | None, version: Version | None) -> None:
        self._lock = allocate_lock()
        self._incarnation = "private" if version is None else version.incarnation
        self._number = [0 if version is None else version.number]
        self._snapshot = Snapshot(payload, version, Word(self._number, self._number[0]))

    def ports(self, name: str) -> Ports:
        """Make the hooks of a storage that holds this one record."""
        ports = Ports(name, frozenset())
        ports.load = self._load
        ports.save = self._save
        ports.lock = self._hold
        ports.keys = ports.delete = ports.aload = ports.asave = None
        ports.discard = self._discard
        return ports

    def _load(self, key: Key, timeout: float) -> Snapshot:  # noqa: ARG002 - the hook's signature
        return self._snapshot

    def _save(
        self,
        key: Key,
        payload: bytes,
        expected: Version | None,
        expires_at: float | None,  # noqa: ARG002 - the hook's signature
        timeout: float,  # noqa: ARG002 - the hook's signature
    ) -> Snapshot:
        if expected != self._snapshot.version:
            raise StorageConflict(f"{key}: another thread committed first", key=key, current=self._snapshot)
        number = self._number[0] + 1
        self._snapshot = saved = Snapshot(payload, Version(self._incarnation, number), Word(self._number, number))
        self._number[0] = number
        return saved

    def _hold(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        if not self._lock.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key}: another thread holds the private copy", key=key)
        return _Held(self._lock)

    def _discard(self, key: Key, reason: str, timeout: float) -> None:  # noqa: ARG002 - the hook's signature
        number = self._number[0] + 1
        self._snapshot = Snapshot(None, None, Word(self._number, number))
        self._number[0] = number


class _Held:
    """A lock that was taken, as a context manager that gives it back."""

    __slots__ = ("_lock",)

    def __init__(self, lock: LockType) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        """It is held already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give it back."""
        self._lock.release()
