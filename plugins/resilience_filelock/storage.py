"""The hooks: one record per key, each in a file of its own below the folder of the URL."""

from __future__ import annotations

import os
from errno import EEXIST, EMFILE, ENFILE, ENOENT

from resilience import (
    Capability,
    ConfigurationError,
    Key,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageIncompatible,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    clock,
    hookimpl,
)

from resilience_filelock._errors import NOT_THERE, unavailable
from resilience_filelock._file import (
    Mode,
    RecordFile,
    Unsure,
    make_file,
    new_incarnation,
    open_file,
    sync_folder,
)
from resilience_filelock._fork import BIRTH, enrol
from resilience_filelock._lock import Empty, Entry, Held, pauses
from resilience_filelock._paths import SUFFIX, base_of, file_system_of, folder_of, is_network, prepare
from resilience_filelock._record import MAX_PAYLOAD, RETIRED, Damaged, Newer, encode_file, layout_for
from resilience_filelock._sweep import set_aside_name, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import ClassVar, Final, Literal, Protocol

    class Settings(Protocol):
        """What the storage reads of its settings; `FileSettings` is the model."""

        @property
        def durability(self) -> Literal["none", "fsync"]: ...
        @property
        def freshness(self) -> Literal["map", "read"]: ...
        @property
        def allow_network_filesystem(self) -> bool: ...


MOST_FILES: Final = 1000
"""Files that one storage keeps open at one time."""
_PATIENCE: Final = 0.005
"""Seconds that a retired file may stand at its path before a reader takes the lock to see whether its owner died."""


class _Defaults:
    durability: Final = "none"
    freshness: Final = "map"
    allow_network_filesystem: Final = False


class _SettingsClass:
    """`FileStorage.Settings`, imported when it is asked for: pydantic takes longer than everything else here."""

    def __get__(self, instance: object, owner: type) -> type:
        from resilience_filelock._settings import FileSettings

        return FileSettings


class FileStorage:
    """Keeps each record in a file, shared by all threads and processes of the machine.

    :param url: ``file:///absolute/folder``; made with mode 0700 at first use.
    :param settings: a `FileSettings`, or anything with its attributes; `None` for the defaults.
    :raises ConfigurationError: the URL names no folder of this machine.
    """

    Settings = _SettingsClass()
    capabilities: frozenset[Capability]

    def __init__(self, url: str, settings: Settings | None = None) -> None:
        chosen = _Defaults if settings is None else settings
        self.url = url
        self.folder = folder_of(url)
        self._durable = chosen.durability == "fsync"
        self._mapped = chosen.freshness == "map"
        self._network_allowed = chosen.allow_network_filesystem
        self._mode: Mode | None = None
        self._trusted: set[str] = set()
        self._entries: dict[Key, Entry] = {}
        self.capabilities = frozenset(
            [
                Capability.PROCESSES,
                *([Capability.PUSH] if self._mapped else []),
                Capability.DURABLE if self._durable else Capability.INLINE,
            ]
        )
        enrol(self)

    def __repr__(self) -> str:
        """The folder."""
        return f"<FileStorage {self.folder!r}>"

    # -- load ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`.

        What was read before costs one `lstat` if it is still current, and with the lock held nothing.
        """
        entry = self._entries.get(key)
        if entry is not None and (file := entry.locked or entry.file) is not None:
            word, _, snapshot = file.last
            try:
                if file.view[0] == word and (file is entry.locked or file.in_place()):
                    entry.used = file.checked
                    return snapshot
            except (OSError, ValueError):
                pass  # the long way says what is wrong
        return self._load(key, clock.monotonic() + timeout)

    def _load(self, key: Key, deadline: float) -> Snapshot:
        again = pauses(min(deadline, clock.monotonic() + _PATIENCE))
        while True:
            entry = self._entry(key)
            try:
                file = entry.locked or self._open(entry, fresh=True)
                state = file.refresh(deadline)
            except ValueError:
                continue  # evicted or replaced between the two lines
            except OSError as error:
                raise unavailable(error, "cannot read", entry.path, key) from error
            except (Damaged, Newer) as fault:
                raise self._named(fault, entry) from None
            if state is not None:
                return state[2]
            if not again():  # who retired it may have died before it was gone; with the lock that is seen and mended
                with self.resilience_lock(key, max(0.0, deadline - clock.monotonic())):
                    pass

    # -- lock ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        """See `resilience.hookspecs`.  All waiting happens here, none on entering."""
        entry = self._entries.get(key)
        if entry is None or (file := entry.file) is None:
            return self._wait(key, timeout)
        try:
            held = entry.tokens.get(False)
        except Empty:
            return self._wait(key, timeout)
        try:
            if file.lock():
                if not file.view[0] & RETIRED and file.fault is None and file is entry.file:
                    entry.locked = file
                    return held
                file.unlock()
        except (OSError, ValueError):
            pass  # the long way says what is wrong
        except BaseException:
            file.unlock()
            entry.tokens.put(held)
            raise
        entry.tokens.put(held)
        return self._wait(key, timeout)

    def _wait(self, key: Key, timeout: float) -> Held:
        deadline = clock.monotonic() + timeout
        again = pauses(deadline)
        entry = self._entry(key)
        try:
            held = entry.tokens.get(timeout > 0, timeout)
        except Empty:
            raise self._late(key, timeout, "another thread of this process") from None
        file: RecordFile | None = None
        try:
            while True:
                file = self._open(entry)
                while not file.lock():
                    if not again():
                        raise self._late(key, timeout, "another process")
                if self._settled(entry, file):
                    entry.locked = file
                    return held
                file.unlock()
                if not again():
                    raise self._late(key, timeout, "somebody who keeps replacing the file")
        except BaseException as error:
            if file is not None:
                file.unlock()
            entry.tokens.put(held)
            if isinstance(error, OSError):
                raise unavailable(error, "cannot lock", entry.path, key) from error
            raise

    @staticmethod
    def _late(key: Key, timeout: float, who: str) -> StorageLockTimeout:
        return StorageLockTimeout(f"{who} has held the lock of {key} for the {timeout:g} s that were waited", key=key)

    @staticmethod
    def _settled(entry: Entry, file: RecordFile) -> bool:
        """Whether the file that was just locked is the record, mended if who retired it died before it was gone."""
        try:
            word = file.view[0]
            if not file.in_place():
                return False
            if word & RETIRED:
                file.mend()
        except ValueError:
            return False
        return file is entry.file

    # -- save ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`.  Takes the lock itself if its caller has not, as in a child forked meanwhile."""
        entry = self._entries.get(key)
        file = entry.locked if entry is not None else None
        if entry is None or file is None:
            with self.resilience_lock(key, timeout):
                return self.resilience_save(key, payload, expected, expires_at, timeout)
        try:
            word, _, snapshot = file.last
            if file.view[0] != word:
                snapshot = self._current(file)
            if snapshot.version != expected:
                raise StorageConflict(
                    f"{key} has version {snapshot.version}, not {expected}", key=key, current=snapshot
                )
            if not file.linked():
                raise StorageConflict(f"the file of {key} was deleted or replaced by somebody else", key=key)
            if len(payload) > file.capacity:
                return self._grow(entry, file, payload, expires_at)
            return file.commit(payload, expires_at)
        except ValueError as error:
            raise StorageUnavailable(f"the storage of {key} was closed", key=key) from error
        except OSError as error:
            raise unavailable(error, "cannot write", entry.path, key) from error
        except Unsure as unsure:
            raise unavailable(unsure.args[0], "cannot tell whether it wrote", entry.path, key, unknown=True) from unsure
        except (Damaged, Newer) as fault:
            raise self._named(fault, entry) from None

    @staticmethod
    def _current(file: RecordFile) -> Snapshot:
        state = file.refresh(clock.monotonic())
        if state is None:
            raise Damaged("was retired although it was locked")
        return state[2]

    def _grow(self, entry: Entry, file: RecordFile, payload: bytes, expires_at: float | None) -> Snapshot:
        """Commit a payload that no slot of the file takes: into a bigger file, put in its place."""
        if len(payload) > MAX_PAYLOAD:
            raise StorageUnavailable(
                f"the record of {entry.key} would have {len(payload)} bytes, {MAX_PAYLOAD} are allowed", key=entry.key
            )
        _, number, snapshot = file.last
        incarnation = new_incarnation() if snapshot.version is None else snapshot.version.incarnation
        layout = layout_for(entry.key, len(payload))
        image = encode_file(entry.key, layout, number, incarnation, expires_at, payload)
        return self._current(self._succeed(entry, file, image))

    def _succeed(self, entry: Entry, file: RecordFile, image: bytes) -> RecordFile:
        """Put a new file, locked already, into the place of a locked one, in one step that cannot be half done."""
        mode = self._prepare(entry.path)
        with BIRTH:
            temporary = self._temporary(entry.path)
            new = make_file(temporary, image, entry.key, mode)
            try:
                new.lock()
                file.retire()
                try:
                    os.replace(temporary, entry.path)
                except OSError:
                    file.mend()
                    raise
            except BaseException:
                with suppressed(OSError):
                    os.unlink(temporary)
                raise
            new.path = entry.path
            entry.file = entry.locked = new
            file.release()
        if mode.durable:
            try:
                sync_folder(os.path.dirname(entry.path))
            except OSError as error:
                raise Unsure(error) from error
        return new

    # -- administration ------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_keys(self) -> Iterable[Key]:
        """See `resilience.hookspecs`.  Files that are damaged beyond their key, or another user's, are passed over."""
        return list_keys(self.folder)

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """See `resilience.hookspecs`."""
        entry = self._entry(key)
        if not os.path.lexists(entry.path):
            return False
        with self.resilience_lock(key, timeout):
            file = entry.locked
            if file is None:
                raise StorageUnavailable(f"the storage of {key} was closed", key=key)
            try:
                version = self._version_for_delete(file)
                if expected is not None and version != expected:
                    raise StorageConflict(f"{key} has version {version}, not {expected}", key=key)
                file.retire()
                try:
                    os.unlink(entry.path)
                except OSError:
                    file.mend()
                    raise
                if self._durable:
                    sync_folder(os.path.dirname(entry.path))
            except OSError as error:
                raise unavailable(error, "cannot delete", entry.path, key) from error
            except Newer as fault:
                raise self._named(fault, entry) from None
            entry.file = None
            file.release()
            return version is not None or file.fault is not None
