"""Storages with one mistake each; every one is a mistake that somebody makes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sqlite3
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from conformance.references import TABLE, CasStorage, FolderStorage, Opened, damage_folder, everywhere

from resilience import (
    Capability,
    Key,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    Word,
    clock,
    hookimpl,
)
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator


class NoLock(FolderStorage):
    """A lock that locks nothing."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        yield


class LockOfThreads(FolderStorage):
    """A `threading.Lock`, though processes share the records."""

    locks: dict[Key, threading.Lock] = {}  # noqa: RUF012 - shared by all objects of the process

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        lock = self.locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key} is locked", key=key)
        try:
            yield
        finally:
            lock.release()


class ComparesThenWrites(FolderStorage):
    """Compare-and-set in two steps."""

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        return nullcontext()


class OneNameBeside(ComparesThenWrites):
    """No lock, and every save is written beside the record under the same name."""

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        beside = self.path(key, "new")
        try:
            beside.write_bytes(self.encode(key, payload, version))
            beside.replace(self.path(key))
        except OSError as error:
            raise StorageUnavailable.from_os_error(error, "writing", key) from error


class IgnoresExpected(MemoryStorage):
    """A save that writes whatever is stored."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return super().resilience_save(key, payload, self._record(key).snapshot.version, expires_at, timeout)


class TornSave(FolderStorage):
    """A save in place, in two writes, without a checksum."""

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        try:
            head, _, payload = self.path(key).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None, None
        fields = json.loads(head)
        return payload, Version(fields["incarnation"], fields["number"])

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        content = self.encode(key, payload, version)
        descriptor = os.open(self.path(key), os.O_WRONLY | os.O_CREAT, 0o600)
        os.pwrite(descriptor, content[:150], 0)
        clock.sleep(0.0002)
        os.pwrite(descriptor, content[150:], 150)
        os.ftruncate(descriptor, len(content))
        os.close(descriptor)


class WritesInPlace(TornSave):
    """A save that empties the file and writes it anew; what is empty is taken for nothing."""

    pause_between = 0.0002

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        try:
            return super().read(key)
        except ValueError:
            return None, None

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        with self.path(key).open("wb") as file:
            file.flush()
            clock.sleep(self.pause_between)
            file.write(self.encode(key, payload, version))


class SkipsVersions(MemoryStorage):
    """A version that counts every write twice."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        assert saved.version is not None
        return self._record(key).put(payload, Version(saved.version.incarnation, 2 * saved.version.number))


class StaleIsCurrent(MemoryStorage):
    """A cache that nothing invalidates."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, lambda: True)


class StaleElsewhere(FolderStorage):
    """`is_current` knows of the commits of this process only."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        _numbers[0] += 1

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return Snapshot(*self.read(key), Word(_numbers, _numbers[0]))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        _numbers[0] += 1
        return Snapshot(payload, saved.version, Word(_numbers, _numbers[0]))

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        _numbers[0] += 1
        return super().resilience_delete(key, expected, timeout)


_numbers = [0]


class ShowsUncommitted(MemoryStorage):
    """A save that writes first, compares then, and takes back what was wrong."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        record = self._record(key)
        before = record.snapshot
        version = Version(record.incarnation, 1 if before.version is None else before.version.number + 1)
        saved = record.put(payload, version)
        clock.sleep(0.0002)
        if before.version != expected:
            record.put(before.payload, before.version)
            raise StorageConflict(f"{key} has {before.version}, not {expected}", key=key)
        return saved


class NeverFreesItsLock(MemoryStorage):
    """A lock that is freed only if all goes well."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        lock = self._record(key).lock
        if not lock.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key} is locked", key=key)
        yield
        lock.release()


class FoldsNames(FolderStorage):
    """File names made safe by leaving out what is not."""

    def path(self, key: Key, suffix: str = "record") -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        safe = "".join(letter if letter.isalnum() else "_" for letter in f"{key.kind}-{key.name}".lower())
        return self.folder / f"{safe[-180:]}.{suffix}"


class LosesSaves(MemoryStorage):
    """Writes behind: what it acknowledged is not there yet, or never."""

    saves = 0

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self.saves += 1
        if self.saves % 10 or expected is None:
            return super().resilience_save(key, payload, expected, expires_at, timeout)
        return Snapshot(payload, Version(expected.incarnation, expected.number + 1))


class PollsItsLock(FolderStorage):
    """Looks every 50 ms whether the lock is free."""

    pause = 0.05


class LockFile(FolderStorage):
    """A file that stands for the lock, and outlives who made it."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        end = clock.monotonic() + timeout
        path = self.path(key, "pid")
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                break
            except FileExistsError:
                if clock.monotonic() >= end:
                    raise StorageLockTimeout(f"{key} is locked", key=key) from None
                clock.sleep(self.pause)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class NothingInsteadOfDamage(FolderStorage):
    """Takes what it cannot read for nothing."""

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        try:
            return super().read(key)
        except Exception:  # noqa: BLE001 - the mistake
            return None, None


class BeginsAgain(MemoryStorage):
    """One incarnation for all lives of a record."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self._record(key).incarnation = "always the same"
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class IgnoresItsTimeout(MemoryStorage):
    """Waits for the lock for as long as it takes."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        with self._record(key).lock:
            yield


class GivesUpAtOnce(MemoryStorage):
    """Tries for the lock once, whatever the time-out."""

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        return super().resilience_lock(key, 0)


class LoadTakesTheLock(MemoryStorage):
    """A load that waits for whoever commits."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        record = self._record(key)
        if record.lock.locked() and threading.current_thread() is not self.holder:
            with super().resilience_lock(key, timeout):
                pass
        return super().resilience_load(key, timeout)

    holder: Any = None

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        with super().resilience_lock(key, timeout):
            self.holder = threading.current_thread()
            yield
            self.holder = None


class ClaimsProcesses(MemoryStorage):
    """Declares what it is not: shared by processes."""

    capabilities = frozenset({Capability.PROCESSES, Capability.INLINE})

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self._records = _records.setdefault(url, {})


_records: dict[str, Any] = {}


class ClaimsPush(CasStorage):
    """Declares PUSH, and has no is_current."""

    capabilities = frozenset({Capability.PROCESSES, Capability.PUSH})


class ClaimsInline(FolderStorage):
    """Declares INLINE, and takes its time."""

    capabilities = frozenset({Capability.PROCESSES, Capability.INLINE})

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        clock.sleep(0.015)
        super().write(key, payload, version)


class Misspells(MemoryStorage):
    """Declares what does not exist."""

    capabilities: Any = frozenset({"process"})


class RaisesItsOwn(MemoryStorage):
    """Lets the error of its driver out."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return {key: record.snapshot for key, record in self._records.items()}[key]


class ReturnsNone(MemoryStorage):
    """Returns `None` where nothing is stored."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any:
        found = super().resilience_load(key, timeout)
        return None if found.version is None else found


class KeepsText(MemoryStorage):
    """Keeps payloads as text, with all spaces tidied."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        text = payload.decode("utf-8", "replace").strip().encode()
        saved = super().resilience_save(key, text, expected, expires_at, timeout)
        return Snapshot(payload, saved.version, saved.is_current)


class WrongCurrent(MemoryStorage):
    """A conflict that brings along what its caller wanted to save."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        try:
            return super().resilience_save(key, payload, expected, expires_at, timeout)
        except StorageConflict as conflict:
            conflict.current = Snapshot(payload, expected or Version("none", 1))
            raise


class CountsMilliseconds(MemoryStorage):
    """Takes the expiry for milliseconds."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        if expires_at is not None and expires_at < clock.wall() * 1000:
            self._record(key).forget()
        return saved


class DeletesAnything(MemoryStorage):
    """A delete that does not look at the version."""

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        return super().resilience_delete(key, None, timeout)


class ListsHashes(FolderStorage):
    """Lists the names of its files."""

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return [Key("conformance", path.stem) for path in self.folder.glob("*.record")]


class ListsAll(MemoryStorage):
    """Lists every key that it ever saw."""

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return list(self._records)


class DriftsAsync(CasStorage):
    """asave was written a second time, and forgot to compare."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        current = self.resilience_load(key, timeout).version
        return self.resilience_save(key, payload, current, expires_at, timeout)


class LeaseWithoutCompare(FolderStorage):
    """A lock that runs out, and a save that does not look whether it did."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        end = clock.monotonic() + timeout
        path = self.path(key, "lease")
        while True:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                break
            except FileExistsError:
                if clock.wall() - path.stat().st_mtime > 0.1:
                    path.unlink(missing_ok=True)
                elif clock.monotonic() >= end:
                    raise StorageLockTimeout(f"{key} is locked", key=key) from None
                clock.sleep(0.005)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def current(self, key: Key, expected: Version | None) -> Version | None:
        return expected


class ChildFreesTheLock(LockFile):
    """Tidies up in every forked child, what is its parent's too."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        os.register_at_fork(after_in_child=self.tidy_up)

    def tidy_up(self) -> None:
        for path in self.folder.glob("*.pid"):
            path.unlink()


class OnlyCloses(FolderStorage):
    """Closes the file that it has locked, and leaves it to that to unlock it."""

    def open(self, key: Key) -> int:
        return os.open(self.path(key, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def free(self, descriptor: int) -> None:
        os.close(descriptor)


class ChildKeepsTheLock(FolderStorage):
    """A lock that its holder unlocks and a forked child leaves alone, which has it all the same."""

    def open(self, key: Key) -> int:
        self.holder = os.getpid()
        return os.open(self.path(key, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def free(self, descriptor: int) -> None:
        if os.getpid() == self.holder:
            self.unlock(descriptor)
        os.close(descriptor)


class ForgetsWhenKilled(WritesInPlace):
    """The same as `WritesInPlace`, as a killed writer leaves it."""

    pause_between = 0.004


class ClaimsDurable(ClaimsProcesses):
    """Declares DURABLE, and keeps its records in a process."""

    capabilities = frozenset({Capability.PROCESSES, Capability.DURABLE})


class DurableAlone(MemoryStorage):
    """Declares DURABLE without PROCESSES."""

    capabilities = frozenset({Capability.DURABLE})


class MachinesAlone(MemoryStorage):
    """Declares MACHINES without PROCESSES."""

    capabilities = frozenset({Capability.MACHINES})


class DeclaresATuple(MemoryStorage):
    """Declares a tuple."""

    capabilities: Any = (Capability.INLINE,)


class ReadsACache(MemoryStorage):
    """Every tenth load comes from a cache."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.loads = 0
        self.cached: dict[Key, Snapshot] = {}

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.loads += 1
        if self.loads % 10 == 0 and key in self.cached:
            return self.cached[key]
        found = super().resilience_load(key, timeout)
        if self.loads % 100 < 2 and found.version is not None:
            self.cached[key] = found
        return found


class MixesTwo(MemoryStorage):
    """Reads version and payload one after the other."""

    last: Snapshot | None = None

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        before: Snapshot | None = self.last
        self.last = found
        if before is None or found.version in {None, before.version}:
            return found
        return found if before.payload is None else Snapshot(before.payload, found.version)


class LockForShow(CasStorage):
    """Works by compare-and-set, and has a lock that locks nothing."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        clock.sleep(0.0005)  # so that another thread comes in between on every machine
        return found

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        return suppress(InterruptedError)


class ComparesSlowly(ComparesThenWrites):
    """Compare-and-set in two steps, far apart."""

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        clock.sleep(0.002)
        super().write(key, payload, version)


class DeleteWaits(MemoryStorage):
    """A delete with a time-out of its own."""

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        return super().resilience_delete(key, expected, 60)


class PollsOnceInFourSeconds(LockFile):
    """Looks every four seconds whether the lock is free."""

    pause = 4.0


class DiscardsNothing(MemoryStorage):
    """A discard that only takes note."""

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        pass


class DiscardsAll(MemoryStorage):
    """A discard that begins anew with everything."""

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        for record in self._records.values():
            record.forget()


class ForgetsOnClose(FolderStorage):
    """Tidies up when it is closed."""

    def close(self) -> None:
        for path in self.folder.glob("*.record"):
            path.unlink()


class NewLifeEachTime(MemoryStorage):
    """Draws an incarnation at each save."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        assert saved.version is not None
        return self._record(key).put(payload, Version(uuid4().hex, saved.version.number))


class NoIncarnation(MemoryStorage):
    """Has no incarnation."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        assert saved.version is not None
        return self._record(key).put(payload, Version("", saved.version.number))


class ConflictChanges(MemoryStorage):
    """A save that is refused and leaves its mark."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        try:
            return super().resilience_save(key, payload, expected, expires_at, timeout)
        except StorageConflict:
            record = self._record(key)
            record.put(payload, Version(record.incarnation, 7))
            raise


class AlwaysConflicts(MemoryStorage):
    """Compares with `is` instead of `==`."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if expected is not None:
            raise StorageConflict(f"{key}: another object", key=key)
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class DriftingLoad(CasStorage):
    """aload reads from elsewhere."""

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        return Snapshot(b"{}", Version("elsewhere", 1))


class DriftingPlace(CasStorage):
    """asave writes elsewhere."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self.resilience_save(Key("elsewhere", key.name), payload, expected, expires_at, timeout)


class NotAwaitable(CasStorage):
    """aload is no coroutine function."""

    @hookimpl
    def resilience_aload(self, key: Key, timeout: float) -> Any:
        return self.resilience_load(key, timeout)


class AwaitsBetween(CasStorage):
    """asave compares, awaits, and then writes whatever is there by now."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if self.resilience_load(key, timeout).version != expected:
            raise StorageConflict(f"{key} changed", key=key)
        await asyncio.sleep(0)
        current = self.resilience_load(key, timeout)
        number = 1 if expected is None else expected.number + 1
        if current.version is not None and current.version.number >= number:
            return Snapshot(payload, current.version)
        return self.resilience_save(key, payload, expected, expires_at, timeout)


class BlocksTheLoop(CasStorage):
    """aload asks with a driver that is not made for coroutines."""

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        clock.sleep(0.04)
        return self.resilience_load(key, timeout)


class LosesTheCancelled(CasStorage):
    """asave answers a cancellation with what it was about to write."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return Snapshot(payload, Version("new", 1) if expected is None else Version(expected[0], expected[1] + 1))
        return self.resilience_save(key, payload, expected, expires_at, timeout)


class CallsItNotSaved(CasStorage):
    """asave takes a cancellation for a store that does not answer, and a save that was sent for one that was not."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = self.resilience_save(key, payload, expected, expires_at, timeout)
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            raise StorageUnavailable(f"{key}: no answer", key=key) from None
        return saved


class TakesTheLastAnswer(CasStorage):
    """One connection for all tasks; a cancelled call leaves its answer there, for the next one."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.answers: list[Snapshot] = []

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        self.answers.append(self.resilience_load(key, timeout))
        await asyncio.sleep(0.001)
        return self.answers.pop(0)


class KeepsItsLoop(CasStorage):
    """A client that belongs to the event loop in which it was made."""

    loop: Any = None

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        running = asyncio.get_running_loop()
        self.loop = self.loop or running
        if self.loop is not running:
            raise RuntimeError("attached to a different loop")
        return self.resilience_load(key, timeout)


class LockOfAThread(FolderStorage):
    """A lock that its thread may take twice; all tasks of a loop are one thread."""

    reentrant: dict[Key, threading.RLock] = {}  # noqa: RUF012 - shared by all objects of the process

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        lock = self.reentrant.setdefault(key, threading.RLock())
        if not lock.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key} is locked", key=key)
        try:
            yield
        finally:
            lock.release()

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        return self.resilience_load(key, timeout)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self.resilience_save(key, payload, expected, expires_at, timeout)


class StopsTheClock(MemoryStorage):
    """Tells the time at which it was opened, over and over."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url, settings)
        self.time = clock.wall()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, found.is_current, self.time)


class DoesNotAnswer(FolderStorage):
    """Its store is away, and it says so much later."""

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        clock.sleep(5)
        raise OSError("the store does not answer")


DAMAGE = {"damage": damage_folder}


class OneTemporaryForAll(FolderStorage):
    """A lock for each key, and one temporary file for all of them."""

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        temporary = self.path(key).with_name("temporary")
        try:
            temporary.write_bytes(self.encode(key, payload, version))
            clock.sleep(0.0005)
            temporary.replace(self.path(key))
        except OSError as error:
            raise StorageUnavailable.from_os_error(error, "writing", key) from error


class OneBufferForAll(MemoryStorage):
    """What is loaded comes by way of a buffer that all threads share."""

    buffer = Snapshot(None, None)

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.buffer = super().resilience_load(key, timeout)
        clock.sleep(0.0001)
        return self.buffer


class OneHeapForAll(FolderStorage):
    """A lock for each key, and one file for all payloads, in which the next free place belongs to no key."""

    def heap(self) -> Any:
        descriptor = os.open(self.folder / "heap", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return open(descriptor, "r+b", buffering=0)  # noqa: PTH123 - it is open

    def places(self, key: Key) -> tuple[list[Any], Version | None]:
        """Where the payload is, and where the next one goes if it has room there: start, room, length."""
        text, version = super().read(key)
        return ([[0, 0, 0], [0, 0, 0]] if text is None else json.loads(text)), version

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        while True:
            places, version = self.places(key)
            if version is None:
                return None, None
            (start, _, length), _ = places
            with self.heap() as heap:
                heap.seek(start)
                payload = heap.read(length)
            if self.places(key)[1] == version:
                return payload, version

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        (now, (start, room, _)), _ = self.places(key)
        with self.heap() as heap:
            if room < len(payload):
                room = max(512, 1 << len(payload).bit_length())
                start = heap.seek(0, os.SEEK_END)
                clock.sleep(0.0005)  # so that another one comes in between on every machine
                heap.truncate(start + room)
            heap.seek(start)
            heap.write(payload)
        super().write(key, json.dumps([[start, room, len(payload)], now]).encode(), version)


class DeletesWithoutLock(FolderStorage):
    """A delete that compares, and then deletes whatever is there by now."""

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        if expected is not None:
            self.current(key, expected)
        clock.sleep(0.0005)
        with suppress(FileNotFoundError):
            self.path(key).unlink()
            return True
        return False


class KeepsTheExpiry(FolderStorage):
    """A save without expiry leaves the one that a record has, as some stores do by themselves."""

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        with suppress(FileNotFoundError):
            if float(self.path(key, "expires").read_text()) < clock.wall():
                return None, None
        return super().read(key)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if expires_at is not None:
            self.path(key, "expires").write_text(str(expires_at))
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class ListsItsOwn(FolderStorage):
    """Remembers what it saved, and lists that."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.saved: dict[Key, None] = {}

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        super().write(key, payload, version)
        self.saved[key] = None

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return [key for key in self.saved if self.path(key).exists()]


class OverlooksDeletes(FolderStorage):
    """`is_current` looks for another version, and takes no version for none."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.deleted: dict[Key, int] = {}

    def snapshot(self, key: Key, payload: bytes | None, version: Version | None) -> Snapshot:
        deleted = self.deleted.get(key)
        return Snapshot(
            payload, version, lambda: self.deleted.get(key) == deleted and self.read(key)[1] in (version, None)
        )

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return self.snapshot(key, *self.read(key))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        return self.snapshot(key, saved.payload, saved.version)

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        self.deleted[key] = self.deleted.get(key, 0) + 1
        return super().resilience_delete(key, expected, timeout)


class CacheOutlivesAFork(FolderStorage):
    """A cache that a thread keeps fresh; a forked child has the cache, and not the thread."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.cache: dict[Key, Snapshot] = {}
        self.fresh_in = os.getpid()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        if key not in self.cache or os.getpid() == self.fresh_in:
            self.cache[key] = super().resilience_load(key, timeout)
        return self.cache[key]


class ComparesHalf(MemoryStorage):
    """Compares the first half of an incarnation."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        stored = self.resilience_load(key, timeout).version
        if stored is not None and expected is not None and stored.number == expected.number:
            half = len(stored.incarnation) // 2
            expected = stored if stored.incarnation[:half] == expected.incarnation[:half] else expected
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class DiscardsWhatIsThere(CasStorage):
    """No lock, and a discard that takes whatever is there by now."""

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        self.execute(key, timeout, "DELETE FROM records WHERE kind = ? AND name = ?", *key)


class KeepsAHundred(MemoryStorage):
    """Keeps the hundred records that were used last."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        for old in list(self.resilience_keys())[:-100]:
            self.resilience_delete(old, None, timeout)
        return saved


class UsesItsParentsConnection(CasStorage):
    """Forked children go on with the connection that their parent has opened, all of them at once."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.line: socket.socket | None = None
        self.turn = threading.Lock()

    def serve(self, line: socket.socket) -> None:
        """What a server does, in a thread: one answer for each request, in their order."""
        while request := line.recv(1 << 16):
            found = CasStorage.resilience_load(self, Key(*json.loads(request)), 5)
            line.send(json.dumps([found.payload and found.payload.decode("latin-1"), found.version]).encode())

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        with self.turn:
            if self.line is None:
                self.line, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
                threading.Thread(target=self.serve, args=(other,), daemon=True).start()
            self.line.send(json.dumps(key).encode())
            clock.sleep(random.uniform(0, 0.0005))
            payload, version = json.loads(self.line.recv(1 << 20))
        return Snapshot(payload and payload.encode("latin-1"), version and Version(*version))


class DrawsFromAGenerator(FolderStorage):
    """Draws incarnations from a `random.Random()`, whose state a fork copies."""

    generator = random.Random()

    def following(self, expected: Version | None) -> Version:
        if expected is None:
            return Version(f"{self.generator.getrandbits(128):032x}", 1)
        return super().following(expected)


class KeptOverAFork(CasStorage):
    """A child opens a connection of its own, and leaves those alone that were open when it was forked."""

    inherited: list[Opened] = []  # noqa: RUF012 - of the process

    def opened(self) -> Opened:
        if getattr(self._local, "process", os.getpid()) != os.getpid():
            self.inherited.append(self._local.opened)
            self._local = threading.local()
        opened = super().opened()
        everywhere.discard(opened)
        self._local.process = os.getpid()
        return opened


class LockOfAnotherThread(FolderStorage):
    """One buffer for all reads, and a lock of threads around it; a forked child has it as another thread held it."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.buffer = threading.Lock()

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        with self.buffer:
            clock.sleep(0.0005)
            return super().read(key)


class WaitsForAMomentOfRest(FolderStorage):
    """Lets a fork wait until nobody reads, and lets others begin to read meanwhile."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.reading = 0
        self.rest = threading.Condition()
        over = self.rest.release
        os.register_at_fork(before=self.wait_for_rest, after_in_parent=over, after_in_child=over)

    def wait_for_rest(self) -> None:
        self.rest.acquire()
        self.rest.wait_for(lambda: not self.reading)

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        with self.rest:
            self.reading += 1
        try:
            clock.sleep(0.001)
            return super().read(key)
        finally:
            with self.rest:
                self.reading -= 1
                self.rest.notify_all()


class CallsItTimedOut(CasStorage):
    """A save that was sent, and for whose answer there was no time, is taken for one that did not happen."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        end = clock.monotonic() + timeout
        saved = super().resilience_save(key, payload, expected, expires_at, 5)
        if clock.monotonic() > end:
            raise StorageUnavailable("the server did not answer in time", key=key)
        return saved


class AnswersInTime(CasStorage):
    """Answers a save when its time is up, whatever became of it."""

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if timeout < 1:
            return Snapshot(payload, Version("soon", 1 if expected is None else expected.number + 1))
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class LeavesItOpen(MemoryStorage):
    """Opens a connection for each load, and closes it with the storage."""

    opened: tuple[int, ...] = ()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.opened += (os.open(os.devnull, os.O_RDONLY),)
        return super().resilience_load(key, timeout)

    def close(self) -> None:
        for descriptor in self.opened:
            os.close(descriptor)
        self.opened = ()


class SavesOverDamage(FolderStorage):
    """A save that takes a damaged record for nothing, though load does not."""

    def current(self, key: Key, expected: Version | None) -> Version | None:
        try:
            return super().current(key, expected)
        except StorageCorrupt:
            return expected


class ForgetsWhatItWaitedWith(FolderStorage):
    """A lock that could not be had in time leaves its file open."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.forgotten: list[int] = []

    def wait(self, descriptor: int, end: float, key: Key) -> None:
        try:
            super().wait(descriptor, end, key)
        except StorageLockTimeout:
            self.forgotten.append(os.dup(descriptor))
            raise

    def close(self) -> None:
        while self.forgotten:
            os.close(self.forgotten.pop())


class Patient(Opened):
    """A connection that waits by itself."""

    def __init__(self, path: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.is_open = True
        self.connection.execute(TABLE)


class WaitsByItself(CasStorage):
    """Leaves it to its library to wait, which takes 5 s whatever the time-out is."""

    def opened(self) -> Opened:
        if getattr(self._local, "opened", None) is None:
            self._local.opened = Patient(self.path)
        return super().opened()

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self.execute(key, timeout, "BEGIN EXCLUSIVE")
        try:
            return super().resilience_save(key, payload, expected, expires_at, timeout)
        finally:
            self.execute(key, timeout, "COMMIT")


class RecordsOfAllKinds(MemoryStorage):
    """Gives all records that it has, whatever the kind that was asked for."""

    def records(self, kind: str) -> list[tuple[Key, Snapshot]]:
        return [(key, record.snapshot) for key, record in self._records.items() if record.snapshot.version]


class RecordsUnchecked(FolderStorage):
    """Reads all records in one go, and checks none of them."""

    def records(self, kind: str) -> Generator[tuple[Key, Snapshot]]:
        for path in self.folder.glob("*.record"):
            head, _, payload = path.read_bytes().partition(b"\n")
            fields = json.loads(head)
            if fields["key"][0] == kind:
                yield Key(*fields["key"]), Snapshot(payload, Version(fields["incarnation"], fields["number"]))


class RecordsOfBirth(MemoryStorage):
    """Gives each record with the version that it was born with."""

    def records(self, kind: str) -> list[tuple[Key, Snapshot]]:
        found = [(key, record.snapshot) for key, record in self._records.items() if key.kind == kind]
        return [(key, Snapshot(now.payload, Version(now.version.incarnation, 1))) for key, now in found if now.version]


class UncheckedReader(FolderStorage):
    """Looks at one record without its checksum."""

    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        try:
            head, _, payload = self.path(key).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return Snapshot(None, None)
        fields = json.loads(head)
        return Snapshot(payload, Version(fields["incarnation"], fields["number"]))


class NamesAnUncheckedReader(FolderStorage):
    """Has a reader that finds the same records, and does not look at their checksums."""

    reader = "conformance.broken:UncheckedReader"


class Mistake(NamedTuple):
    """One broken storage: its class, the check that finds it, how it tells (one of several ways, if chance decides)."""

    storage: Any
    check: str
    says: str | tuple[str, ...]
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed


SHARED = ("beside commits to other keys", "alone committed", "a load gave")
"""How it tells of bytes of another key, of several at once or of one for each."""

MISTAKES = [
    Mistake(NoLock, "lock_excludes_threads", "got the lock while it was held"),
    Mistake(LockOfThreads, "lock_excludes_processes", "another process got the lock while it was held"),
    Mistake(ComparesThenWrites, "counts_threads", "updates are lost"),
    Mistake(ComparesThenWrites, "counts_processes", "updates are lost"),
    Mistake(OneNameBeside, "counts_threads", ("while others were at work", "a load gave", "updates are lost")),
    Mistake(IgnoresExpected, "conflicts", "resilience_save committed although"),
    Mistake(TornSave, "readers_processes", "a load gave"),
    Mistake(WritesInPlace, "readers_processes", "a load beside writers found nothing"),
    Mistake(SkipsVersions, "versions", "the version of commit 1 has the number 2"),
    Mistake(StaleIsCurrent, "is_current", "is_current() is still True for an old snapshot"),
    Mistake(StaleElsewhere, "is_current_elsewhere", "another process made the record"),
    Mistake(ShowsUncommitted, "readers_threads", "a load gave data of a save that was refused"),
    Mistake(NeverFreesItsLock, "lock_is_freed", "the lock is still held after its block raised"),
    Mistake(FoldsNames, "names", "leads to"),
    Mistake(LosesSaves, "acknowledged", "was acknowledged with version"),
    Mistake(PollsItsLock, "fair_share", "a waiter got a lock"),
    Mistake(LockFile, "killed_holder", "the lock of a process that was killed is not free"),
    Mistake(NothingInsteadOfDamage, "damaged", "a record was damaged, and load of it found nothing", DAMAGE),
    Mistake(BeginsAgain, "born_again", "begin again in the same incarnation"),
    Mistake(IgnoresItsTimeout, "lock_timeout", "resilience_lock still waits"),
    Mistake(GivesUpAtOnce, "lock_timeout", "gave up after"),
    Mistake(LoadTakesTheLock, "load_takes_no_lock", "raised StorageLockTimeout while somebody held the lock"),
    Mistake(ClaimsProcesses, "visible", "another process loads version None"),
    Mistake(ClaimsPush, "is_current", "it declares PUSH"),
    Mistake(ClaimsInline, "speed", "it declares INLINE"),
    Mistake(Misspells, "hooks", "`capabilities` has 'process'"),
    Mistake(RaisesItsOwn, "nothing_stored", "resilience_load raised KeyError"),
    Mistake(ReturnsNone, "nothing_stored", "resilience_load returned NoneType, not a Snapshot"),
    Mistake(KeepsText, "round_trip", "load gives"),
    Mistake(WrongCurrent, "conflicts", "StorageConflict.current is"),
    Mistake(CountsMilliseconds, "expiry", "a record whose expiry is an hour from now is gone"),
    Mistake(DeletesAnything, "delete", "removed a record of another version"),
    Mistake(ListsHashes, "keys", "resilience_keys misses"),
    Mistake(ListsAll, "keys", "which have no record"),
    Mistake(ListsAll, "nothing_stored", "lists a key that was only loaded"),
    Mistake(DriftsAsync, "awaitable", "asave committed although"),
    Mistake(LeaseWithoutCompare, "stopped_holder", "saved over his commit"),
    Mistake(ChildFreesTheLock, "fork", "child got the lock"),
    Mistake(OnlyCloses, "fork", "a child that it had forked meanwhile kept it"),
    Mistake(ChildKeepsTheLock, "fork", "a child that another had forked meanwhile keeps it"),
    Mistake(ForgetsWhenKilled, "killed_writers", "after writers were killed"),
    Mistake(ClaimsDurable, "claims", "it declares DURABLE, and a record is gone"),
    Mistake(DurableAlone, "claims", "it declares DURABLE without PROCESSES"),
    Mistake(MachinesAlone, "hooks", "it declares MACHINES without PROCESSES"),
    Mistake(DeclaresATuple, "hooks", "`capabilities` is a tuple"),
    Mistake(ReadsACache, "readers_threads", "a load gave an old record"),
    Mistake(MixesTwo, "readers_threads", "with version number"),
    Mistake(
        IgnoresExpected, "readers_threads", ("`expected` was a version that was never stored", "save that was refused")
    ),
    Mistake(LockForShow, "counts_threads", "conflicted with the lock held"),
    Mistake(ComparesSlowly, "births_threads", "threads were the first to save a new key"),
    Mistake(ComparesSlowly, "births_processes", "processes were the first to save a new key"),
    Mistake(DeleteWaits, "deadlines", "resilience_delete did not end in time"),
    Mistake(PollsOnceInFourSeconds, "lock_is_handed_on", "a waiter did not get the lock"),
    Mistake(DiscardsNothing, "discard", "a record that was set aside, the lock still held"),
    Mistake(DiscardsAll, "discard", "another key's is gone"),
    Mistake(ForgetsOnClose, "reopened", "an object that was made after the first was closed loads None"),
    Mistake(NewLifeEachTime, "versions", "the incarnation changed with a save"),
    Mistake(NoIncarnation, "versions", "the incarnation of a version is empty"),
    Mistake(ConflictChanges, "conflicts", "a save that raised StorageConflict changed the record"),
    Mistake(AlwaysConflicts, "round_trip", "raised StorageConflict"),
    Mistake(ListsHashes, "names", "does not list"),
    Mistake(DriftingLoad, "awaitable", "aload of a key that was never saved gives a record"),
    Mistake(DriftingPlace, "awaitable", "load does not see what asave committed"),
    Mistake(NotAwaitable, "awaitable", "returned Snapshot, not an awaitable"),
    Mistake(AwaitsBetween, "counts_tasks", "8 tasks committed"),
    Mistake(DriftsAsync, "awaited_conflicts", "resilience_save committed although"),
    Mistake(BlocksTheLoop, "loop_stays_free", "the event loop did nothing else for"),
    Mistake(LosesTheCancelled, "cancelled_saves", "returned a Snapshot, and what it saved is not there"),
    Mistake(CallsItNotSaved, "cancelled_saves", "raised StorageUnavailable, as if nothing were saved"),
    Mistake(TakesTheLastAnswer, "cancelled_calls", "after a load was cancelled, another key loads as"),
    Mistake(KeepsItsLoop, "awaited_counts_threads", "resilience_aload raised RuntimeError: attached to a different"),
    Mistake(LockOfAThread, "awaited_lock_excludes_threads", "another task got the lock while it was held"),
    Mistake(OneTemporaryForAll, "keys_threads", "while others were at work"),
    Mistake(OneTemporaryForAll, "keys_processes", "while others were at work"),
    Mistake(OneBufferForAll, "keys_threads", "alone committed"),
    Mistake(OneHeapForAll, "keys_threads", SHARED),
    Mistake(OneHeapForAll, "keys_processes", SHARED),
    Mistake(DeletesWithoutLock, "delete_compares", "at once, were both done"),
    Mistake(KeepsTheExpiry, "expiry", "a record whose expiry is taken back by a save with None is gone"),
    Mistake(ListsItsOwn, "keys", "that of a second object misses"),
    Mistake(OverlooksDeletes, "is_current", "a delete by another storage object"),
    Mistake(CacheOutlivesAFork, "fork", "the child loads what was committed before the fork"),
    Mistake(ComparesHalf, "conflicts", "resilience_save committed although"),
    Mistake(DiscardsWhatIsThere, "discard_spares", "set aside a record that was saved after the one"),
    Mistake(KeepsAHundred, "many_records", "of 150 records, all without an expiry"),
    Mistake(StopsTheClock, "time", "from where the ones before it say it should be"),
    Mistake(UsesItsParentsConnection, "forked_at_work", "after a fork, while parent and children commit,"),
    Mistake(DrawsFromAGenerator, "forked_births", "both drew the incarnation"),
    Mistake(KeptOverAFork, "forked_alone", "a forked child, whose parent has ended, made commit"),
    Mistake(LockOfAnotherThread, "forked_beside_threads", "a child that was forked beside threads at work died, or"),
    Mistake(WaitsForAMomentOfRest, "forked_beside_threads", "a fork beside 8 threads that load and commit did not"),
    Mistake(CallsItTimedOut, "hurried_saves", "as if nothing were saved; it was"),
    Mistake(LeavesItOpen, "nothing_left_open", "descriptors and threads more are open after 40 loads and saves"),
    Mistake(AnswersInTime, "hurried_saves", "returned a Snapshot, and what it saved is not there"),
    Mistake(SavesOverDamage, "damaged_saves", "`expected` None over a damaged record was committed", DAMAGE),
    Mistake(ForgetsWhatItWaitedWith, "nothing_left_open", "after 40 waits in vain for a lock"),
    Mistake(WaitsByItself, "stopped_writer", "while another process was stopped in the middle of its commits"),
    Mistake(RecordsOfAllKinds, "records", "a record of the kind 'conformance'"),
    Mistake(RecordsUnchecked, "records", "for a damaged record, for which load raises StorageCorrupt", DAMAGE),
    Mistake(RecordsOfBirth, "records", "records gives version 1@"),
    Mistake(NamesAnUncheckedReader, "reader", "for a damaged record, for which load raises StorageCorrupt", DAMAGE),
]
