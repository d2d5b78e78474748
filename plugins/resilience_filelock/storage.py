"""The hooks: one record per key, each in a file of its own below the folder of the URL."""

from __future__ import annotations

import os
import sys
from errno import EMFILE, ENFILE, ENOENT

from resilience import (
    Capability,
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
from resilience_filelock._errors import NOT_THERE, fix_of_folder, unavailable
from resilience_filelock._file import (
    LOOK,
    Mode,
    RecordFile,
    Unsure,
    make_file,
    new_incarnation,
    open_file,
)
from resilience_filelock._folder import TEMPORARY, annotate, keep_copy, list_keys, sweep
from resilience_filelock._fork import BIRTH, enrol
from resilience_filelock._lock import Empty, Entry, Held, native
from resilience_filelock._paths import SUFFIX, base_of, file_system_of, folder_of, is_network, prepare
from resilience_filelock._record import MAX_PAYLOAD, RETIRED, UPDATE, Damaged, Newer, encode_file, layout_for
from resilience_filelock._system import publish, sync_folder
from resilience_filelock._waiting import JUST_NOW, TURN, get, pauses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from typing import Final, Protocol

    from resilience_filelock._file import State

    class FilePlan(Protocol):
        """What the storage reads of its settings; `FileSettings` is the model."""

        @property
        def durability(self) -> str:
            """`none` or `fsync`."""
            ...

        @property
        def freshness(self) -> str:
            """`map` or `read`."""
            ...

        @property
        def allow_network_filesystem(self) -> bool:
            """Whether to go on where the folder is on a network file system."""
            ...


MOST_FILES: Final = 1000
"""Files that one storage keeps open at one time."""
_TRIES: Final = 8
_PATIENCE: Final = 0.005
"""Seconds that a retired file may stand at its path before a reader takes the lock to see whether its owner died."""


class _Defaults:
    """The defaults of `FileSettings`, for those who do without."""

    durability: str = "none"
    freshness: str = "map"
    allow_network_filesystem: bool = False


class _SettingsClass:
    """`FileStorage.Settings`, imported when it is asked for: pydantic takes longer than everything else here."""

    def __get__(self, instance: object, owner: type) -> type:
        from resilience_filelock._settings import FileSettings

        return FileSettings


def most_files(*, mapped: bool) -> int:
    """How many files one storage keeps open: `MOST_FILES`, or what a quarter of the descriptors allows."""
    try:
        limit = os.sysconf("SC_OPEN_MAX")
    except (AttributeError, ValueError, OSError):  # pragma: no cover - not on Linux
        limit = 512
    each = 2 if mapped and sys.version_info < (3, 13) else 1
    return min(MOST_FILES, max(16, limit // 4 // each)) if limit > 0 else MOST_FILES


class FileStorage:
    """Keeps each record in a file, shared by all threads and processes of the machine.

    :param url: ``file:///absolute/folder``; made with mode 0700 at first use.
    :param settings: a `FileSettings`, or anything with its attributes; `None` for the defaults.
    :raises ConfigurationError: the URL names no folder of this machine.
    """

    Settings = _SettingsClass()
    plain_settings = True  # anything with the attributes of `FileSettings` will do, see `resilience.plan`
    reader = "resilience_filelock.reading:FileReader"  # see there too
    capabilities: frozenset[Capability]

    def __init__(self, url: str, settings: FilePlan | None = None) -> None:
        chosen: FilePlan = _Defaults() if settings is None else settings
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
        self._most = most_files(mapped=self._mapped)
        enrol(self)

    def __repr__(self) -> str:
        """Show the folder."""
        return f"<FileStorage {self.folder!r}>"

    # -- load ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`.

        What was read before costs one `lstat` if it is still current, and with the lock held nothing; what is new, one
        read.
        """
        entry = self._entries.get(key)
        if entry is not None and (file := entry.locked or entry.file) is not None:
            word, _, snapshot = file.last
            locked = file is entry.locked
            try:
                if file.view[0] == word:
                    if locked or file.in_place():
                        entry.used = file.checked
                        return snapshot
                elif locked or (snapshot.is_current is not None and file.linked()):
                    state = file.refresh(0.0)
                    if state is not None:
                        return state[2]
            except (OSError, ValueError, Damaged, Newer, StorageUnavailable):
                pass  # the long way tries again, and says what is wrong
        return self._load(key, timeout)

    def _load(self, key: Key, timeout: float) -> Snapshot:
        now = clock.monotonic()
        # Also who does not wait gives another process the moment that it takes to replace a file.
        deadline = now + max(timeout, _PATIENCE)
        again = pauses(now + _PATIENCE)
        while True:
            entry = self._entry(key)
            try:
                file = entry.locked or self._open(entry, fresh=True)
                state = file.refresh(deadline)
            except ValueError as error:
                if isinstance(error.__cause__, OSError) or clock.monotonic() > deadline:
                    raise self._unseen(error, entry) from error
                continue
            except OSError as error:
                raise unavailable(error, "cannot read", entry.path, key) from error
            except (Damaged, Newer) as fault:
                raise self._named(fault, entry) from None
            if state is not None:
                return state[2]
            if not again():
                self._mend(key, deadline)

    @staticmethod
    def _unseen(error: ValueError, entry: Entry) -> StorageUnavailable:
        """Say why a head cannot be looked at: the disk fails, or the file is let go of as soon as it is open."""
        if isinstance(error.__cause__, OSError):
            return unavailable(error.__cause__, "cannot read", entry.path, entry.key)
        return StorageUnavailable(f"the file of {entry.key} was closed by another thread", key=entry.key)

    def _mend(self, key: Key, deadline: float) -> None:
        """See to a file that stays retired at its path: who has its lock knows that its owner died, and mends it."""
        try:
            with self.resilience_lock(key, max(0.0, deadline - clock.monotonic())):
                pass
        except StorageLockTimeout as error:
            raise StorageUnavailable(f"somebody is replacing the file of {key} and does not end", key=key) from error

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
            if (
                (file.plea is None or not file.plea[0] or clock.monotonic() < entry.turn_ends)
                and native.lock(file.fd, blocking=False)
                and file.view[0] < RETIRED  # the highest bit
                and file.fault is None
                and file is entry.file
            ):
                entry.locked = file
                return held
        except (OSError, ValueError):
            pass  # the long way says what is wrong
        except BaseException:
            entry.give_back(held, file)
            raise
        entry.give_back(held, file)
        return self._wait(key, timeout)

    def _wait(self, key: Key, timeout: float) -> Held:
        deadline = clock.monotonic() + timeout
        again = pauses(deadline)
        while True:
            entry = self._entry(key)
            entry.see_to_token()
            try:
                held = entry.tokens.get(timeout > 0, max(0.0, deadline - clock.monotonic()))
            except Empty:
                raise self._late(key, timeout, "another thread of this process") from None
            file: RecordFile | None = None
            try:
                while self._entries.get(key) is entry:
                    file = self._open(entry)
                    if not self._take_turn(entry, file, deadline):
                        raise self._late(key, timeout, "another process")
                    if self._settled(entry, file):
                        entry.locked = file
                        return held
                    entry.unlock(file)
                    if not again():
                        raise self._late(key, timeout, "somebody who replaces its file again and again")
            except OSError as error:
                entry.give_back(held, file)
                raise unavailable(error, "cannot lock", entry.path, key) from error
            except BaseException:
                entry.give_back(held, file)
                raise
            entry.give_back(held, file)  # evicted while it was waited for

    @staticmethod
    def _take_turn(entry: Entry, file: RecordFile, deadline: float) -> bool:
        """Get the lock between processes, for a turn if others want it too; false if it could not be had in time."""
        try:
            if not get(file, deadline, in_haste=clock.monotonic() - entry.saved > JUST_NOW):
                return False
        except ValueError:
            pass  # closed meanwhile: whoever looks whether it is settled sees that it is not
        entry.turn_ends = clock.monotonic() + 2 * TURN  # who waits takes over before
        return True

    @staticmethod
    def _late(key: Key, timeout: float, who: str) -> StorageLockTimeout:
        return StorageLockTimeout(f"{who} has held the lock of {key} for the {timeout:g} s that were waited", key=key)

    @staticmethod
    def _settled(entry: Entry, file: RecordFile) -> bool:
        """Whether the file that was just locked is the record; mended if who retired it died before it was gone."""
        try:
            word = file.view[0]
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            return False
        if file is not entry.file or not file.in_place():
            return False
        if word & RETIRED:
            file.mend()
        return True

    # -- save ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`.  Takes the lock itself if its caller has not, as in a child forked meanwhile."""
        entry = self._entries.get(key)
        if entry is None or (file := entry.locked) is None:
            with self.resilience_lock(key, timeout):
                return self.resilience_save(key, payload, expected, expires_at, timeout)
        try:
            state = file.last
            if file.view[0] != state[0]:
                state = self._current(file)
            snapshot = state[2]
            if snapshot.version is not expected and snapshot.version != expected:
                raise StorageConflict(
                    f"{key} has version {snapshot.version}, not {expected}", key=key, current=snapshot
                )
            entry.saved = now = clock.monotonic()
            if now - file.checked >= LOOK and not file.in_place():  # as `linked` does, in line
                raise self._vanished(key)
            if len(payload) > file.capacity:
                return self._grow(entry, file, state, payload, expires_at)
            return file.commit(state, payload, expires_at)
        except ValueError as error:
            raise self._unseen(error, entry) from error
        except OSError as error:
            raise unavailable(error, "cannot write", entry.path, key) from error
        except Unsure as unsure:
            raise unavailable(unsure.args[0], "cannot tell whether it wrote", entry.path, key, unknown=True) from unsure
        except (Damaged, Newer) as fault:
            raise self._named(fault, entry) from None

    @staticmethod
    def _vanished(key: Key) -> StorageConflict:
        return StorageConflict(f"the file of {key} was deleted or replaced by somebody else", key=key)

    @staticmethod
    def _current(file: RecordFile) -> State:
        state = file.refresh(clock.monotonic())
        if state is None:
            raise Damaged("was retired although it was locked")
        return state

    def _grow(self, entry: Entry, file: RecordFile, state: State, payload: bytes, expires_at: float | None) -> Snapshot:
        """Commit a payload that no slot of the file takes: into a bigger file, put in its place."""
        if not file.in_place():
            raise self._vanished(entry.key)
        if len(payload) > MAX_PAYLOAD:
            raise StorageUnavailable(
                f"the record of {entry.key} would have {len(payload)} bytes, {MAX_PAYLOAD} are allowed", key=entry.key
            )
        _, number, snapshot = state
        incarnation = new_incarnation() if snapshot.version is None else snapshot.version.incarnation
        layout = layout_for(entry.key, len(payload))
        image = encode_file(entry.key, layout, number, incarnation, expires_at, payload)
        return self._current(self._succeed(entry, file, image))[2]

    def _succeed(self, entry: Entry, file: RecordFile, image: bytes) -> RecordFile:
        """Put a new file, locked already, into the place of a locked one, in one step that cannot be half done."""
        mode = self._prepare(entry.path)
        with BIRTH:
            temporary = self._temporary(entry.path)
            descriptor = make_file(temporary, image, durable=mode.durable)
            try:
                new = RecordFile(descriptor, temporary, entry.key, mode)
                new.lock()
                file.retire()
                try:
                    os.replace(temporary, entry.path)
                except OSError:
                    file.mend()
                    raise
            except BaseException:
                self._forget_temporary(temporary)
                raise
            new.path = entry.path
            entry.file = entry.locked = new
            try:
                native.unlock(file.fd)  # whatever still knows it, such as the traceback of an error that somebody keeps
            except OSError:
                pass  # it goes with the descriptor
            file.release()
        if mode.durable:
            try:
                new.place()
            except OSError as error:
                raise Unsure(error) from error
        return new

    # -- administration ------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_keys(self) -> Iterable[Key]:
        """See `resilience.hookspecs`.  Files that tell no key, or are another user's, are passed over."""
        try:
            return list_keys(self.folder)
        except OSError as error:
            raise StorageUnavailable(
                f"cannot list {self.folder!r}: {error.strerror or error}; "
                f"{fix_of_folder(error, 'make it readable for this user')}"
            ) from error

    def records(self, kind: str) -> Iterable[tuple[Key, Snapshot | None]]:
        """Read all records of a kind, for ``resilience status``; see `FileReader.records`."""
        from resilience_filelock.reading import FileReader

        return FileReader(self.url).records(kind)

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """See `resilience.hookspecs`."""
        entry = self._entry(key)
        try:
            os.lstat(entry.path)
        except NOT_THERE:
            return False
        except OSError as error:
            raise unavailable(error, "cannot delete", entry.path, key) from error
        with self.resilience_lock(key, timeout):
            entry, file = self._locked(key)
            try:
                there, version = self._stored(file)
                if expected is not None and version != expected:
                    raise StorageConflict(f"{key} has version {version}, not {expected}", key=key)
                file.retire()
                try:
                    os.unlink(entry.path)
                except OSError:
                    file.mend()
                    raise
                entry.file = None
                file.release()
                if self._durable:
                    sync_folder(os.path.dirname(entry.path))
            except OSError as error:
                raise unavailable(error, "cannot delete", entry.path, key) from error
            except Unsure as unsure:
                raise unavailable(unsure.args[0], "cannot delete", entry.path, key, unknown=True) from unsure
            except Newer as fault:
                raise self._named(fault, entry) from None
            return there

    @staticmethod
    def _stored(file: RecordFile) -> tuple[bool, Version | None]:
        """Whether there is something in a locked file, and its version if it can be read."""
        try:
            state = file.refresh(clock.monotonic())
        except Damaged:
            return True, None
        version = None if state is None else state[2].version
        return version is not None, version

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """See `resilience.hookspecs`.

        The file stays beside the new one, as ``….damaged-<time>-<n>`` with `reason` at its end; at most eight of a key.
        """
        entry = self._entries.get(key)
        if entry is None or entry.locked is None:
            with self.resilience_lock(key, timeout):
                return self.resilience_discard(key, reason, timeout)
        entry, file = self._locked(key)
        try:
            if isinstance(file.fault, Newer):
                raise self._named(file.fault, entry)
            if not file.in_place():
                raise StorageUnavailable(f"the file of {key} was deleted or replaced by somebody else", key=key)
            kept = keep_copy(entry.path)
            try:
                self._succeed(entry, file, encode_file(key, layout_for(key)))
            except BaseException:
                self._forget_temporary(kept)
                raise
            annotate(entry.path, kept, reason)
        except OSError as error:
            raise unavailable(error, "cannot set aside", entry.path, key) from error
        except Unsure as unsure:
            raise unavailable(unsure.args[0], "cannot set aside", entry.path, key, unknown=True) from unsure
        return None

    def missing(self) -> str:
        """Say that the folder is not there, for ``resilience storage copy``, and make none; ``""``: it is."""
        if os.path.lexists(self.folder):
            return ""
        return f"there is no folder {self.folder!r}; see that its name is spelt right"

    def examine(self) -> list[tuple[str, bool, str, str]]:
        """Look at everything the storage leans on, for ``resilience doctor``: (what, whether it is well, detail, fix).

        Makes the folder if it is not there, and starts one short process of its own.
        """
        from resilience_filelock._doctor import examine

        return examine(self.folder, mapped=self._mapped, network_allowed=self._network_allowed)

    def prepare_for_fork(self) -> None:
        """Import what a commit needs, which so far nobody had to: called before outcomes are gathered here."""
        native.load()

    def close(self) -> None:
        """Let go of all files.  Snapshots are no longer current; the next hook opens anew what it needs."""
        with BIRTH:
            entries, self._entries = self._entries, {}
            for entry in entries.values():
                file, entry.file = entry.file, None
                if file is not None:
                    file.release()

    # -- files ---------------------------------------------------------------------------------------------------------

    def _entry(self, key: Key) -> Entry:
        with BIRTH:
            entry = self._entries.get(key)
            if entry is None:
                if len(self._entries) >= self._most:
                    self._evict()
                entry = Entry(key, os.path.join(self.folder, base_of(key) + SUFFIX))
                self._entries[key] = entry
            return entry

    def _locked(self, key: Key) -> tuple[Entry, RecordFile]:
        entry = self._entries.get(key)
        file = None if entry is None else entry.locked
        if entry is None or file is None:
            raise StorageUnavailable(f"the storage of {key} was closed", key=key)
        return entry, file

    def _evict(self) -> None:
        """Close the tenth of the files that was not used for the longest time, without those that are locked."""
        by_use = sorted(self._entries.values(), key=lambda entry: entry.used)
        for entry in by_use[: 1 + len(by_use) // 10]:
            try:
                held = entry.tokens.get(False)
            except Empty:
                continue
            del self._entries[entry.key]
            file, entry.file = entry.file, None
            if file is not None:
                file.release()
            entry.tokens.put(held)

    def _open(self, entry: Entry, *, fresh: bool = False) -> RecordFile:
        """The file at an entry's path, opened or made if it is not the one that is open.

        `fresh`: a file whose head cannot be trusted without opening it anew, as on a network, is opened anew.
        """
        with BIRTH:
            file = entry.file
            if file is not None:
                if file.is_well(fresh=fresh) and file.in_place():
                    return file
                entry.file = None
                file.release()
            entry.file = file = self._find(entry)
            entry.used = file.checked
            return file

    def _find(self, entry: Entry) -> RecordFile:
        path = entry.path
        for attempt in range(_TRIES):
            mode = self._prepare(path)
            try:
                return open_file(path, entry.key, mode)
            except FileNotFoundError:
                pass
            except OSError as error:
                if attempt or error.errno not in (EMFILE, ENFILE):
                    raise
                self._evict()
                continue
            try:
                return self._make(entry, mode)
            except FileExistsError:
                pass  # another process was faster
            except FileNotFoundError:
                self._trusted.clear()  # the folder was removed: made anew
        raise FileNotFoundError(ENOENT, os.strerror(ENOENT), path)

    def _make(self, entry: Entry, mode: Mode) -> RecordFile:
        path = entry.path
        temporary = self._temporary(path)
        make_file(temporary, encode_file(entry.key, layout_for(entry.key)), durable=mode.durable)
        try:
            publish(temporary, path)
        finally:
            self._forget_temporary(temporary)
        file = open_file(path, entry.key, mode)
        sweep(os.path.dirname(path), int.from_bytes(os.urandom(4), "little"))
        return file

    @staticmethod
    def _temporary(path: str) -> str:
        return f"{path.removesuffix(SUFFIX)}.{new_incarnation()}{TEMPORARY}"

    @staticmethod
    def _forget_temporary(path: str) -> None:
        try:
            os.unlink(path)
        except OSError:
            pass  # swept later

    def _prepare(self, path: str) -> Mode:
        """Make sure, once, that the folders of a path are there and can be trusted; how files are treated in them."""
        mode = self._mode
        if mode is None or self.folder not in self._trusted:
            prepare(self.folder)
            file_system = file_system_of(self.folder)
            network = is_network(file_system)
            if network and not self._network_allowed:
                raise StorageUnavailable(
                    f"the state folder {self.folder!r} is on a network file system ({file_system}), where commits of "
                    "other machines are not seen and locks may not exclude; choose a local folder with "
                    "RESILIENCE_STORAGE=file:///…, or set RESILIENCE_FILE__ALLOW_NETWORK_FILESYSTEM=true"
                )
            mode = Mode(durable=self._durable, mapped=self._mapped and not network, told=not network)
            self._mode = mode
            self._trusted.add(self.folder)
        folder = os.path.dirname(path)
        if folder not in self._trusted:
            prepare(folder)
            self._trusted.add(folder)
        return mode

    @staticmethod
    def _named(fault: Damaged | Newer, entry: Entry) -> StorageCorrupt | StorageIncompatible:
        text = f"{entry.path!r}, the file of {entry.key}, {fault}"
        if isinstance(fault, Newer):
            return StorageIncompatible(f"{text}; {UPDATE}", key=entry.key)
        return StorageCorrupt(text, key=entry.key)

    def after_fork(self) -> None:
        """Begin anew in a forked child; what it inherited is closed by itself."""
        self._entries = {}
