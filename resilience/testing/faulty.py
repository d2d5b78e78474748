"""A storage that holds a storage, and fails as it was told: to see what a program or a policy makes of it."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import nullcontext

from resilience import clock
from resilience.errors import StorageUnavailable
from resilience.markers import hookimpl
from resilience.storage import Capability, Snapshot, Version
from resilience.testing.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import Any, Self

    from resilience.storage import Key

    Fault = Callable[[Callable[..., Any], tuple[Any, ...]], Any]

HOOKS = ("load", "save", "lock", "keys", "delete", "discard")


class FaultyStorage:
    """Wraps a storage object; faults are planned for its next calls and happen once each.

    ``storage = FaultyStorage(MemoryStorage("memory:")).fail("save", 3)``

    Hooks have short names here: ``load``, ``save``, ``lock``, ``keys``, ``delete``, ``discard``.

    :param inner: the storage that does the work.
    """

    Settings = None

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.capabilities: frozenset[str] = frozenset(getattr(inner, "capabilities", ()))
        self.calls: list[str] = []
        """The short names of all hooks that were called, in order."""
        self._ports = Handle(inner).ports
        self._plans: dict[str, deque[Fault | None]] = defaultdict(deque)
        self.gate = threading.Event()
        """Where calls hang that were told to; `release` opens it and puts up another one."""

    # -- planning ----------------------------------------------------------------------------------------------------

    def plan(self, hook: str, nth: int, fault: Fault) -> Self:
        """Let the `nth` of the calls to come (1: the next) be answered by ``fault(hook function, arguments)``.

        :raises ValueError: there is no such hook, or no such call.
        """
        if hook not in HOOKS or nth < 1:
            raise ValueError(f"plan({hook!r}, {nth}): hooks are {', '.join(HOOKS)}; calls count from 1")
        plan = self._plans[hook]
        plan.extend([None] * (nth - len(plan)))
        plan[nth - 1] = fault
        return self

    def fail(self, hook: str, nth: int = 1, error: BaseException | None = None, *, after: bool = False) -> Self:
        """Let a call raise: `StorageUnavailable`, if nothing else is given.

        :param after: it does what it was asked first; then its outcome is unknown to the caller.
        """
        raised = error or StorageUnavailable(f"{hook} fails as planned", outcome_unknown=after)

        def fault(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            if after:
                function(*arguments)
            raise raised

        return self.plan(hook, nth, fault)

    def hang(self, hook: str, nth: int = 1, *, at_most: float = 30.0) -> Self:
        """Let a call hang, whatever its time-out, until `release`."""
        return self.plan(hook, nth, _Hang(self, at_most))

    def release(self) -> None:
        """Let every call that hangs go on."""
        self.gate.set()
        self.gate = threading.Event()

    def tear(self, nth: int = 1) -> Self:
        """Let a save be acknowledged that wrote only the first half of its payload."""

        def fault(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            key, payload, *rest = arguments
            saved: Snapshot = function(key, payload[: len(payload) // 2], *rest)
            return Snapshot(payload, saved.version, saved.is_current, saved.time)

        return self.plan("save", nth, fault)

    def lose(self, nth: int = 1) -> Self:
        """Let a save be acknowledged that wrote nothing."""

        def fault(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ARG001 - that is the fault
            _, payload, expected, *_ = arguments
            old = expected or Version("lost", 0)
            return Snapshot(payload, Version(old.incarnation, old.number + 1))

        return self.plan("save", nth, fault)

    def lie(self, nth: int = 1, by: int = 1) -> Self:
        """Let a load tell a version whose number is off by `by`."""

        def fault(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
            found: Snapshot = function(*arguments)
            version = found.version and Version(found.version.incarnation, found.version.number + by)
            return Snapshot(found.payload, version, found.is_current, found.time)

        return self.plan("load", nth, fault)

    # -- hooks -------------------------------------------------------------------------------------------------------

    def _do(self, hook: str, *arguments: Any) -> Any:
        self.calls.append(hook)
        function = getattr(self._ports, hook)
        if function is None:
            raise StorageUnavailable(f"{type(self.inner).__name__} has no resilience_{hook}")
        fault = self._next(hook)
        return function(*arguments) if fault is None else fault(function, arguments)

    def _next(self, hook: str) -> Fault | None:
        plan = self._plans[hook]
        return plan.popleft() if plan else None

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """Load, or fail as planned."""
        snapshot: Snapshot = self._do("load", key, timeout)
        return snapshot

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """Save, or fail as planned."""
        snapshot: Snapshot = self._do("save", key, payload, expected, expires_at, timeout)
        return snapshot

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        """Lock, or fail as planned."""
        lock: AbstractContextManager[None] = self._do("lock", key, timeout)
        return lock

    @hookimpl
    def resilience_keys(self) -> Iterable[Key]:
        """List, or fail as planned."""
        keys: Iterable[Key] = self._do("keys")
        return keys

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """Delete, or fail as planned."""
        gone: bool = self._do("delete", key, expected, timeout)
        return gone

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """Discard, or fail as planned."""
        self._do("discard", key, reason, timeout)

    def close(self) -> None:
        """Close the storage inside."""
        self.release()
        getattr(self.inner, "close", nullcontext)()


class AwaitedFaultyStorage(FaultyStorage):
    """The same, with loads and saves that are awaited, as over a network.

    What is planned for ``load`` and ``save`` happens to the next of these calls, awaited or not; in `calls` the awaited
    ones are ``aload`` and ``asave``.  Other tasks run while one of them is under way.  The storage inside is called, be
    it one that is awaited or not.

    :param inner: the storage that does the work.
    """

    def __init__(self, inner: object) -> None:
        super().__init__(inner)
        self.capabilities -= {Capability.INLINE}

    async def _ado(self, hook: str, *arguments: Any) -> Any:
        from asyncio import sleep

        self.calls.append(f"a{hook}")
        fault = self._next(hook)
        await sleep(0)
        if isinstance(fault, _Hang):
            gate, end = self.gate, clock.monotonic() + fault.at_most
            while not gate.is_set() and clock.monotonic() < end:  # noqa: ASYNC110 - any thread opens it
                await sleep(0.001)
            fault = None
        function = getattr(self._ports, hook)
        return function(*arguments) if fault is None else fault(function, arguments)

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        """Load, or fail as planned."""
        snapshot: Snapshot = await self._ado("load", key, timeout)
        return snapshot

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """Save, or fail as planned."""
        snapshot: Snapshot = await self._ado("save", key, payload, expected, expires_at, timeout)
        return snapshot


class _Hang:
    """A fault: the call waits until the gate opens, and is then done."""

    def __init__(self, storage: FaultyStorage, at_most: float) -> None:
        self._storage = storage
        self.at_most = at_most

    def __call__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        self._storage.gate.wait(self.at_most)
        return function(*arguments)
