"""An open storage as the kit uses it: every answer is looked at, every foreign exception is a violation."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

from resilience.errors import PluginError, ResilienceError, StorageConflict
from resilience.storage import Snapshot, Version
from resilience.testing.calling import awaited, called, foreign, manager_of
from resilience.testing.roads import CALLED, ROADS
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Any, Self

    from resilience.ports import Ports
    from resilience.storage import Key
    from resilience.testing.roads import Road

    Factory = Callable[[], object]

WAIT = 5.0
"""Seconds that a hook may take where a check is not about time-outs."""


class FromURL:
    """A factory of the storage that a URL names, with the variables of the process that made it."""

    def __init__(self, url: str, environ: dict[str, str]) -> None:
        self.url = url
        self.environ = environ

    def __call__(self) -> object:
        """Make and return the storage."""
        from resilience.runtime import Runtime

        return Runtime(storage=self.url, environ=self.environ).opened.storage

    def arguments(self, kind: Any) -> tuple[object, object]:
        """Return URL and settings with which it makes a storage of this class."""
        from resilience.runtime import Runtime

        runtime = Runtime(storage=self.url, environ=self.environ)
        scheme = self.url.partition(":")[0]
        return runtime.opened.url, runtime.configuration.storage_settings(scheme, getattr(kind, "Settings", None))


def as_factory(factory: Factory | str) -> Factory:
    """Return a factory that can be sent to another process; a URL stands for the plugin of its scheme."""
    if isinstance(factory, str):
        from resilience.runtime import Runtime

        return FromURL(factory, dict(Runtime().environ))
    return factory


def arguments_of(factory: Factory, storage: object) -> tuple[object, object] | None:
    """Return URL and settings with which a factory makes a storage; `None` if that cannot be told."""
    if isinstance(factory, FromURL):
        return factory.arguments(type(storage))
    if not isinstance(factory, partial) or factory.func is not type(storage) or not factory.args:
        return None
    url, settings = (*factory.args, factory.keywords.get("settings"))[:2]
    model = getattr(storage, "Settings", None)
    return url, model() if settings is None and model is not None else settings


class Handle:
    """An open storage.  Its methods are the hooks, with time-outs that have a default.

    Errors of the framework pass as they are: a check expects some of them.  Anything else that a hook raises, and
    anything that it returns against its specification, is a `Violation`.

    :param storage: the storage object.
    :param road: how its hooks are reached: ``called``, or ``awaited`` from coroutines.
    :raises Violation: its hooks do not fit the specifications.
    """

    def __init__(self, storage: object, road: str = CALLED) -> None:
        from resilience.ports import connect

        self.storage = storage
        name = type(storage).__name__
        try:
            self.ports: Ports = connect(storage, name, [])[0]
        except PluginError as error:
            raise Violation(
                str(error),
                "a storage whose hooks do not fit is refused when it is opened",
                "give each hook the name and the arguments of its specification, and no argument a default",
            ) from error
        self.road: Road = ROADS[road](self.ports)
        self._road = road
        self._locks: bool | None = None

    @classmethod
    def open(cls, factory: Factory, road: str = CALLED) -> Self:
        """Make a storage and open it."""
        try:
            storage = factory()
        except ResilienceError:
            raise
        except Exception as error:
            raise foreign("making the storage", error) from error
        return cls(storage, road)

    def beside(self) -> Self:
        """Reach the same storage object on a road of its own: in another event loop, where it is one."""
        return type(self)(self.storage, self._road)

    def close(self) -> None:
        """Close the storage, if it can be closed."""
        self.road.close()
        close: Callable[[], object] = getattr(self.storage, "close", _nothing)
        called("close()", close)

    def load(self, key: Key, timeout: float = WAIT) -> Snapshot:
        """Call `resilience_load`."""
        return looked_at(self.road.loads, called("resilience_load", self.road.load, key, timeout))

    def save(
        self,
        key: Key,
        payload: bytes,
        expected: Version | None,
        *,
        expires_at: float | None = None,
        timeout: float = WAIT,
    ) -> Snapshot:
        """Call `resilience_save`."""
        saved = called("resilience_save", self.road.save, key, payload, expected, expires_at, timeout)
        return _saved(self.road.saves, saved)

    def lock(self, key: Key, timeout: float = WAIT) -> Holding:
        """Call `resilience_lock`."""
        return Holding(self.locked(key, timeout))

    def lock_here(self, key: Key) -> Holding:
        """Call `resilience_lock` in this thread, on an event loop, as the engine does: once, without waiting."""
        return Holding(manager_of(called("resilience_lock", self.ports.lock, key, 0.0)))

    def locked(self, key: Key, timeout: float) -> Any:
        """Call `resilience_lock` and return what it returned, not entered."""
        return manager_of(called("resilience_lock", self.road.lock, key, timeout))

    def delete(self, key: Key, expected: Version | None = None, timeout: float = WAIT) -> bool:
        """Call `resilience_delete`."""
        delete = self.ports.delete
        assert delete is not None  # noqa: S101 - checks ask before; for the type checkers
        gone: object = called("resilience_delete", delete, key, expected, timeout)
        if not isinstance(gone, bool):
            raise Violation(
                f"resilience_delete returned {gone!r}, not True or False",
                "administration tells people whether there was a record and it is gone",
                "return True if there was a record and it is gone, False if there was none",
            )
        return gone

    def discard(self, key: Key, reason: str = "conformance", timeout: float = WAIT) -> None:
        """Call `resilience_discard`."""
        called("resilience_discard", self.road.discard, key, reason, timeout)

    def keys(self) -> list[Key]:
        """Call `resilience_keys`."""
        from resilience.storage import Key

        keys = self.ports.keys
        assert keys is not None  # noqa: S101 - checks ask before; for the type checkers

        def listed() -> list[Any]:
            return list(keys())

        found: list[Key] = called("resilience_keys", listed)
        for key in found:
            if not isinstance(key, Key):
                raise Violation(
                    f"resilience_keys gives {key!r}, a {type(key).__name__}",
                    "the command line shows kind and name of each",
                    "give resilience.Key objects, with kind and name exactly as they were saved",
                )
        return found

    async def aload(self, key: Key, timeout: float = WAIT) -> Snapshot:
        """Call `resilience_aload`."""
        assert self.ports.aload is not None  # noqa: S101 - checks ask before; for the type checkers
        return looked_at("resilience_aload", await awaited("resilience_aload", self.ports.aload, key, timeout))

    async def asave(
        self,
        key: Key,
        payload: bytes,
        expected: Version | None,
        *,
        expires_at: float | None = None,
        timeout: float = WAIT,
    ) -> Snapshot:
        """Call `resilience_asave`."""
        assert self.ports.asave is not None  # noqa: S101 - checks ask before; for the type checkers
        saved = await awaited("resilience_asave", self.ports.asave, key, payload, expected, expires_at, timeout)
        return _saved("resilience_asave", saved)

    @property
    def can_delete(self) -> bool:
        """Whether the storage deletes."""
        return self.ports.delete is not None

    @property
    def can_discard(self) -> bool:
        """Whether the storage sets damaged records aside."""
        return self.ports.discard.__module__ != "resilience.ports"

    def has_lock(self, key: Key) -> bool:
        """Whether the storage has a lock; if not, it works by compare-and-set alone and says so by `nullcontext`."""
        if self._locks is None:
            manager = manager_of(called("resilience_lock", self.ports.lock, key, WAIT))
            self._locks = not isinstance(manager, nullcontext)
            with Holding(manager):
                pass
        return self._locks

    def put(self, key: Key, payload: bytes) -> Snapshot:
        """Commit a payload over whatever is there, as the engine does: lock, load, save."""
        with self.lock(key):
            return self.save(key, payload, self.load(key).version)

    def remove(self, key: Key) -> None:
        """Leave nothing of a key behind, as far as the storage can."""
        try:
            if self.can_delete:
                self.delete(key, None, 1.0)
            elif self.can_discard:
                with self.lock(key, 1.0):
                    self.load(key, 1.0)
                    self.discard(key, "conformance", 1.0)
        except (ResilienceError, Violation):
            pass  # a check has said it


class Holding:
    """A lock while it is held; what its context manager raises of its own is translated, what the block raises not."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    def __enter__(self) -> None:
        """Enter the storage's context manager."""
        called("entering the lock", self._manager.__enter__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave it."""
        swallowed: object = False
        try:
            swallowed = self._manager.__exit__(kind, error, traceback)
        except ResilienceError:
            raise
        except Exception as other:
            if other is error:
                raise
            raise foreign("leaving the lock", other) from other
        if swallowed and error is not None:
            raise Violation(
                f"leaving the lock swallowed the {type(error).__name__} that was raised inside",
                "the engine would take a commit that failed for one that went well",
                "let __exit__ return None or False",
            ) from error


def _nothing() -> None:
    pass


def looked_at(hook: str, answer: object) -> Snapshot:
    """Return a snapshot that a hook returned.

    :raises Violation: it is none, or one that makes no sense.
    """
    if not isinstance(answer, Snapshot):
        raise Violation(
            f"{hook} returned {type(answer).__name__}, not a Snapshot",
            "the engine takes anything else for a broken plugin",
            f"return a resilience.Snapshot from {hook}; where nothing is stored, Snapshot(None, None)",
        )
    version: object = answer.version
    payload: object = answer.payload
    if (version is None) != (payload is None):
        raise Violation(
            f"{hook} returned a Snapshot with payload {_short(payload)} and version {version}",
            "payload and version are both there or both None: a record has both, nothing has neither",
            "where nothing is stored return Snapshot(None, None), also after a deletion",
        )
    if payload is not None and not isinstance(payload, bytes):
        raise Violation(
            f"{hook} returned a payload of type {type(payload).__name__}",
            "policies read bytes",
            "give back the bytes that were saved: bytes(...) of what a driver returns, .encode() of text",
        )
    if version is not None and not (isinstance(version, Version) and list(map(type, version)) == [str, int]):
        raise Violation(
            f"{hook} returned the version {version!r}",
            "versions are compared with the ones the engine holds",
            "return resilience.Version(incarnation: str, number: int)",
        )
    is_current: object = answer.is_current
    if is_current is not None and not callable(is_current):
        raise Violation(
            f"{hook} returned a Snapshot whose is_current is {is_current!r}",
            "the engine calls it",
            "give a function without arguments, a resilience.Word, or None",
        )
    return answer


def _saved(hook: str, answer: object) -> Snapshot:
    snapshot = looked_at(hook, answer)
    if snapshot.version is None:
        raise Violation(
            f"{hook} returned a Snapshot of nothing",
            "the engine goes on with what was committed, and would take the record for gone",
            "return the Snapshot of what was committed, with its new version",
        )
    return snapshot


def _short(payload: object) -> str:
    return "None" if payload is None else f"of {len(payload)} bytes" if isinstance(payload, bytes) else repr(payload)


def conflict_of(function: Callable[..., object], *arguments: Any, **named: Any) -> StorageConflict | None:
    """Call a hook that must find a conflict; `None` if it did not."""
    try:
        function(*arguments, **named)
    except StorageConflict as conflict:
        return conflict
    return None


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in an event loop of its own."""
    import asyncio

    return asyncio.run(coroutine)
