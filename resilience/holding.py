"""A storage that holds another one and changes what it keeps: the base for encryption, compression and the like.

``name+file:///var/lib/app`` builds ``Name(url, settings, inner)``.  All that a storage must be (versions, locks,
freshness, one time for all) is the inner one's, and passes through.
"""

from __future__ import annotations

from functools import partial

from resilience.errors import StorageConflict, StorageCorrupt, StorageError
from resilience.markers import PROJECT, hookimpl
from resilience.storage import InnerStorage, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any, ClassVar

    from resilience.storage import Key, Version

_OPTIONAL = ("keys", "delete", "aload", "asave")
_PASSED = frozenset({"examine", "folder", "missing", "prepare", "records"})
"""What is no hook and yet asked of a storage.  Anything else is not passed on: it might show what is kept as it is."""


class HoldingStorage:
    """Passes everything on to the storage that it holds, and every payload through `outgoing` and `incoming`.

    A subclass overrides these two.  What is no hook and optional (`examine`, `missing`, `prepare`, `records`, the
    `folder` of one that has its place on this machine) is the inner storage's.

    :param url: the whole one: ``name+inner:…``.
    :param settings: an instance of the subclass's `Settings`, if it has one.
    :param inner: the storage that it holds, open; or a storage object, which is opened.
    """

    holds_storage: ClassVar[bool] = True
    """Whether the class is called with an inner storage."""
    Settings: ClassVar[Any] = None

    def __init__(self, url: str, settings: Any, inner: InnerStorage | object) -> None:
        self.url = url
        self.settings = settings
        self.inner = inner if isinstance(inner, InnerStorage) else _opened(inner)
        self.capabilities = self.inner.capabilities
        for hook in _OPTIONAL:
            if getattr(self.inner, hook) is None:
                setattr(self, f"{PROJECT}_{hook}", None)

    def outgoing(self, key: Key, payload: bytes) -> bytes:  # noqa: ARG002 - for those that bind what they keep to it
        """Return what the inner storage shall keep: JSON text in UTF-8, as some keep only that."""
        return payload

    def incoming(self, key: Key, payload: bytes) -> bytes:  # noqa: ARG002 - likewise
        """Return what `outgoing` was given.

        :raises StorageCorrupt: it is damaged; a `ValueError` is taken as that.
        :raises StorageIncompatible: it is not, and cannot be read here: left alone.
        """
        return payload

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        return self._read(key, self.inner.load(key, timeout))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`."""
        try:
            saved = self.inner.save(key, self.outgoing(key, payload), expected, expires_at, timeout)
        except StorageConflict as conflict:
            self._translate(key, conflict)
            raise
        return Snapshot(payload, saved.version, saved.is_current, saved.time)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        """See `resilience.hookspecs`."""
        return self.inner.lock(key, timeout)

    @hookimpl
    def resilience_keys(self) -> Iterable[Key]:
        """See `resilience.hookspecs`."""
        keys: Iterable[Key] = _given(self.inner.keys)()
        return keys

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """See `resilience.hookspecs`."""
        try:
            gone: bool = _given(self.inner.delete)(key, expected, timeout)
        except StorageConflict as conflict:
            self._translate(key, conflict)
            raise
        return gone

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """See `resilience.hookspecs`."""
        self.inner.discard(key, reason, timeout)

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        return self._read(key, await _given(self.inner.aload)(key, timeout))

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`."""
        try:
            sealed = self.outgoing(key, payload)
            saved = await _given(self.inner.asave)(key, sealed, expected, expires_at, timeout)
        except StorageConflict as conflict:
            self._translate(key, conflict)
            raise
        return Snapshot(payload, saved.version, saved.is_current, saved.time)

    def close(self) -> None:
        """Close the inner storage."""
        getattr(self.inner.storage, "close", _nothing)()

    def __getattr__(self, name: str) -> Any:
        """Find what is no hook and optional at the inner storage; its records are made readable."""
        if name in _PASSED and "inner" in self.__dict__:
            found = getattr(self.inner.storage, name)
            return partial(self._readable, found) if name == "records" else found
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _readable(
        self, records: Callable[[str], Iterable[tuple[Key, Snapshot | None]]], kind: str
    ) -> Iterator[tuple[Key, Snapshot | None]]:
        """Give the records of a kind; one that cannot be read is to be loaded, which says why."""
        for key, snapshot in records(kind):
            try:
                yield key, None if snapshot is None else self._read(key, snapshot)
            except StorageError:
                yield key, None

    def _read(self, key: Key, snapshot: Snapshot) -> Snapshot:
        """Return the same record, readable."""
        if snapshot.payload is None:
            return snapshot
        try:
            payload = self.incoming(key, snapshot.payload)
        except ValueError as error:
            raise StorageCorrupt(f"the record of {key} {error}", key=key) from error
        return Snapshot(payload, snapshot.version, snapshot.is_current, snapshot.time)

    def _translate(self, key: Key, conflict: StorageConflict) -> None:
        """Make the record that a conflict brought along readable; where it is not, the next load says why."""
        if conflict.current is not None:
            try:
                conflict.current = self._read(key, conflict.current)
            except StorageError:
                conflict.current = None


def _given(hook: Any) -> Any:
    """For the type checkers: without the inner one's hook, there is none here either."""
    return hook


def _nothing() -> None: ...


def _opened(storage: object) -> InnerStorage:
    from resilience.ports import connect

    return connect(storage, type(storage).__name__, [])[0]
