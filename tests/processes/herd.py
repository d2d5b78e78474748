"""A process among many whose storage does not answer, and then does again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storages import Recorder

from resilience import Capability, CircuitBreaker, Key, Runtime, StorageUnavailable, clock, hookimpl
from resilience_filelock import FileStorage

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resilience import Snapshot


class Away(FileStorage):
    """Does not answer until a monotonic second; writes down when it was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__((folder / "state").as_uri())
        self.capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES})
        self.until = 0.0
        self.asked: list[float] = []

    def _ask(self) -> None:
        now = clock.monotonic()
        if now < self.until:
            self.asked.append(now)
            raise StorageUnavailable("the server is down")

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self._ask()
        return super().resilience_load(key, timeout)

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        self._ask()
        return super().resilience_save(key, payload, expected, expires_at, timeout)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        self._ask()
        return super().resilience_lock(key, timeout)


def call_until_it_is_back(folder: str, away: float, seconds: float) -> tuple[list[float], int, list[str]]:
    """Call again and again; when the storage was asked in vain, how many calls were made, and what was told."""
    storage, told = Away(Path(folder)), Recorder()
    calls = 0
    with Runtime(storage=storage, observers=[told]):
        breaker = CircuitBreaker("payments")
        breaker.call(os.getpid)  # all that is imported first is imported now
        begun = clock.monotonic()
        storage.until, end = begun + away, begun + seconds
        while clock.monotonic() < end and "recovered" not in told.names:
            breaker.call(os.getpid)
            calls += 1
            clock.sleep(0.002)
    storage.close()
    return storage.asked, calls, told.names
