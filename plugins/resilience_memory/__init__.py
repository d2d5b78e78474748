"""Storage in the memory of one process: `memory:`.

For tests, for programs of one process, and as the reference of how short a storage plugin is.  Shared by all threads,
by nobody else; gone with the process.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import contextmanager

from resilience import Capability, Key, Snapshot, StorageConflict, StorageLockTimeout, Version, Word, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator


class _Record:
    """One key: its lock, its last snapshot, and the number that every snapshot's `is_current` looks at."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.number = [0]
        self.forget()

    def forget(self) -> None:
        """Hold nothing; the next save is a birth, with an incarnation of its own."""
        self.put(None, None)
        self.incarnation = uuid.uuid4().hex

    def put(self, payload: bytes | None, version: Version | None) -> Snapshot:
        """Commit: the snapshot first, then the number, which makes all earlier snapshots stale."""
        number = self.number[0] + 1
        self.snapshot = Snapshot(payload, version, Word(self.number, number))
        self.number[0] = number
        return self.snapshot


class MemoryStorage:
    """Keeps each record in a dictionary, under a lock of its own."""

    Settings = None
    capabilities = frozenset({Capability.INLINE, Capability.PUSH})

    def __init__(self, url: str, settings: None = None) -> None:  # noqa: ARG002 - how every storage is called
        self._records: dict[Key, _Record] = {}

    def _record(self, key: Key) -> _Record:
        return self._records.get(key) or self._records.setdefault(key, _Record())

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:  # noqa: ARG002 - never waits
        """Return the last snapshot."""
        return self._record(key).snapshot

    @hookimpl
    def resilience_save(
        self,
        key: Key,
        payload: bytes,
        expected: Version | None,
        expires_at: float | None,  # noqa: ARG002 - the process ends before it matters
        timeout: float,  # noqa: ARG002 - never waits
    ) -> Snapshot:
        """Commit, if nobody else did."""
        record = self._record(key)
        current = record.snapshot
        if current.version != expected:
            raise StorageConflict(f"{key}: expected {expected}, found {current.version}", key=key, current=current)
        version = (
            Version(record.incarnation, 1) if expected is None else Version(expected.incarnation, expected.number + 1)
        )
        return record.put(payload, version)

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        """Hold the lock of a record."""
        lock = self._record(key).lock
        if not lock.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key}: another thread holds the lock", key=key)
        try:
            yield
        finally:
            lock.release()

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        """List what is stored."""
        return [key for key, record in list(self._records.items()) if record.snapshot.version is not None]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """Forget a record."""
        with self.resilience_lock(key, timeout):
            record = self._record(key)
            current = record.snapshot
            if current.version is None:
                return False
            if expected is not None and current.version != expected:
                raise StorageConflict(f"{key}: expected {expected}, found {current.version}", key=key, current=current)
            record.forget()
            return True

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:  # noqa: ARG002 - nobody can inspect it
        """Forget a record; the engine holds its lock."""
        self._record(key).forget()
