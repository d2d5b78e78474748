"""Storages that do what a test wants of them, found as every other plugin is: by the name of an entry point."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict, deque
from contextlib import nullcontext
from importlib import invalidate_caches
from typing import TYPE_CHECKING, Any

from resilience import Capability, Key, Snapshot, Version, hookimpl, testing
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pytest

    Fault = BaseException | Callable[..., Any] | None

SCHEMES = {
    "faulty": "Faulty",
    "threaded": "Threaded",
    "casual": "Casual",
    "called": "Called",
    "awaited": "Awaited",
}


def giving(value: object) -> Callable[..., Any]:
    """Make a function that takes anything and gives the same each time."""
    return lambda *_arguments, **_named: value


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storages be found, in this process and in those that it starts with its `sys.path`."""
    information = folder / "storages_of_tests-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: storages-of-tests\nVersion: 1\n")
    lines = "".join(f"{scheme} = storages:{name}\n" for scheme, name in SCHEMES.items())
    (information / "entry_points.txt").write_text(f"[resilience.storage]\n{lines}")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    invalidate_caches()


_memories: dict[str, MemoryStorage] = {}


class Faulty:
    """Storage in memory; what its next calls do can be planned.  Those with the same URL share their records."""

    Settings = None
    capabilities: frozenset[Capability] = frozenset({Capability.INLINE})

    def __init__(self, url: str, settings: None = None) -> None:
        self.memory = _memories.setdefault(url, MemoryStorage("memory:"))
        self.calls: list[str] = []
        self.is_closed = False
        self.always: dict[str, Fault] = {}
        self._plans: dict[str, deque[Fault]] = defaultdict(deque)

    def plan(self, hook: str, *faults: Fault) -> None:
        """Let the next calls of a hook raise, be answered by a function, or (`None`) go well."""
        self._plans[hook].extend(faults)

    def _fault(self, hook: str) -> Fault:
        self.calls.append(hook)
        plan = self._plans[hook]
        return plan.popleft() if plan else self.always.get(hook)

    def _do(self, hook: str, well: Callable[..., Any], *arguments: Any) -> Any:
        fault = self._fault(hook)
        if fault is None:
            return well(*arguments)
        if isinstance(fault, BaseException):
            raise fault
        return fault(well, *arguments)

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return self._do("load", self._load, key, timeout)

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return self.memory.resilience_load(key, timeout)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self._do("save", self._save, key, payload, expected, expires_at, timeout)

    def _save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self.memory.resilience_save(key, payload, expected, expires_at, timeout)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return self._do("lock", self._lock, key, timeout)

    def _lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return self.memory.resilience_lock(key, timeout)

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        return self._do("discard", self.memory.resilience_discard, key, reason, timeout)

    def close(self) -> None:
        self.is_closed = True


class Threaded(Faulty):
    """The same, too slow for an event loop."""

    capabilities = frozenset()


class Called(Faulty):
    """The same, with snapshots whose `is_current` has to be called."""

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return _called(super()._load(key, timeout))

    def _save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return _called(super()._save(key, payload, expected, expires_at, timeout))


def _called(snapshot: Snapshot) -> Snapshot:
    word = snapshot.is_current
    return Snapshot(snapshot.payload, snapshot.version, lambda: word is not None and word())


class Casual(Faulty):
    """A storage that works by compare-and-set alone, and cannot tell whether a snapshot is current."""

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return _untold(super()._load(key, timeout))

    def _save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        with self.memory.resilience_lock(
            key, 10
        ):  # to compare and to set is one step; the memory leaves that to its lock
            return _untold(super()._save(key, payload, expected, expires_at, timeout))

    def _lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return nullcontext()


def _untold(snapshot: Snapshot) -> Snapshot:
    return Snapshot(snapshot.payload, snapshot.version)


class Awaited(Casual):
    """The same, over a network, which lets other tasks run meanwhile."""

    capabilities = frozenset()

    async def _ado(self, hook: str, well: Callable[..., Any], *arguments: Any) -> Any:
        fault = self._fault(hook)
        await asyncio.sleep(0)
        if fault is None:
            return well(*arguments)
        if isinstance(fault, BaseException):
            raise fault
        return await fault(well, *arguments)

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        return await self._ado("aload", self._load, key, timeout)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return await self._ado("asave", self._save, key, payload, expected, expires_at, timeout)


class Recorder(testing.Recorder):
    """An observer that remembers, asked in short."""

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [(transition.old, transition.new) for transition in self.transitions]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]
