"""Two storages as an author would write them first, both right: one with a lock, one by compare-and-set alone."""

from __future__ import annotations

import fcntl
import json
import os
import random
import sqlite3
import threading
import time
import uuid
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from resilience import (
    Capability,
    Key,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    clock,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager


held: set[int] = set()
"""Descriptors of locks that this process holds."""

birth = threading.RLock()
"""Held while one of them is opened or closed, and by `fork`: a child inherits none that is not listed."""


def let_go() -> None:
    """Close what a forked child inherited: its parent's locks.  Unlocking them would free them for all."""
    while held:
        os.close(held.pop())
    birth.release()


os.register_at_fork(before=birth.acquire, after_in_parent=birth.release, after_in_child=let_go)


class FolderStorage:
    """A file per record, replaced whole; a lock file per record, and a lock for threads."""

    Settings = None
    capabilities: Any = frozenset({Capability.PROCESSES})
    pause = 0.0005

    def __init__(self, url: str, settings: None = None) -> None:
        self.folder = Path(url.partition(":")[2])
        self._threads: dict[Key, threading.Lock] = {}
        self._guard = threading.Lock()

    def path(self, key: Key, suffix: str = "record") -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{sha256(repr(tuple(key)).encode()).hexdigest()}.{suffix}"

    def read(self, key: Key) -> tuple[bytes | None, Version | None]:
        try:
            text = self.path(key).read_bytes()
        except FileNotFoundError:
            return None, None
        head, _, payload = text.partition(b"\n")
        try:
            fields = json.loads(head)
            if fields["sum"] != crc32(payload):
                raise ValueError("wrong checksum")
            return payload, Version(fields["incarnation"], fields["number"])
        except (ValueError, KeyError, TypeError) as error:
            raise StorageCorrupt(f"{key}: {error}", key=key) from error

    def encode(self, key: Key, payload: bytes, version: Version) -> bytes:
        fields = {"key": key, "incarnation": version.incarnation, "number": version.number, "sum": crc32(payload)}
        return json.dumps(fields).encode() + b"\n" + payload

    def write(self, key: Key, payload: bytes, version: Version) -> None:
        temporary = self.path(key, uuid.uuid4().hex)
        temporary.write_bytes(self.encode(key, payload, version))
        temporary.replace(self.path(key))

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return Snapshot(*self.read(key))

    def current(self, key: Key, expected: Version | None) -> Version | None:
        payload, version = self.read(key)
        if version != expected:
            raise StorageConflict(f"{key} has {version}, not {expected}", key=key, current=Snapshot(payload, version))
        return version

    def following(self, expected: Version | None) -> Version:
        if expected is None:
            return Version(uuid.uuid4().hex, 1)
        return Version(expected.incarnation, expected.number + 1)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self.current(key, expected)
        version = self.following(expected)
        self.write(key, payload, version)
        return Snapshot(payload, version)

    def of_threads(self, key: Key) -> threading.Lock:
        with self._guard:
            return self._threads.setdefault(key, threading.Lock())

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        end = clock.monotonic() + timeout
        threads = self.of_threads(key)
        if not threads.acquire(timeout=timeout):
            raise StorageLockTimeout(f"{key}: another thread holds the lock", key=key)
        try:
            descriptor = self.open(key)
            try:
                self.wait(descriptor, end, key)
                yield
            finally:
                self.free(descriptor)
        finally:
            threads.release()

    def open(self, key: Key) -> int:
        path = self.path(key, "lock")
        with birth:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.add(descriptor)
        return descriptor

    def free(self, descriptor: int) -> None:
        with birth:
            if descriptor in held:  # else this is a forked child, and the lock its parent's
                held.discard(descriptor)
                self.unlock(descriptor)
                os.close(descriptor)

    def unlock(self, descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing it frees nothing while a child has it too

    def wait(self, descriptor: int, end: float, key: Key) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left = end - clock.monotonic()
                if left <= 0:
                    raise StorageLockTimeout(f"{key}: another process holds the lock", key=key) from None
                clock.sleep(min(self.pause, left))
            else:
                return

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        heads = [path.read_bytes().partition(b"\n")[0] for path in self.folder.glob("*.record")]
        return [Key(*json.loads(head)["key"]) for head in heads]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        with self.resilience_lock(key, timeout):
            if expected is not None:
                self.current(key, expected)
            try:
                self.path(key).unlink()
            except FileNotFoundError:
                return False
            return True

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        self.path(key).replace(self.path(key, f"{uuid.uuid4().hex}.damaged"))


def damage_folder(storage: FolderStorage, key: Key) -> None:
    """Flip a bit of the payload."""
    path = storage.path(key)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


TABLE = (
    "CREATE TABLE IF NOT EXISTS records (kind TEXT, name TEXT, payload BLOB, incarnation TEXT, number INTEGER,"
    " PRIMARY KEY (kind, name))"
)


class Opened:
    """A connection of one thread, closed with the thread; one that a fork inherited is left alone."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        # Whichever thread collects the garbage may close it.
        self.connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        # Else each commit keeps all readers out, and twenty who commit leave a reader no moment on a busy machine.
        self.connection.execute("PRAGMA journal_mode = WAL")
        # A commit outlives its process all the same; the lock is free before the disk has answered.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(TABLE)

    def __del__(self) -> None:
        if self.pid == os.getpid() and hasattr(self, "connection"):
            self.connection.close()


class CasStorage:
    """A table, in which one statement compares the version and writes: no lock at all."""

    Settings = None
    capabilities = frozenset({Capability.PROCESSES, Capability.DURABLE})

    def __init__(self, url: str, settings: None = None) -> None:
        self.path = url.partition(":")[2]
        self._local = threading.local()

    def execute(self, key: Key | None, timeout: float, statement: str, *values: object) -> sqlite3.Cursor:
        """Execute a statement, and again as long as others are at it.

        SQLite's own waiting soon looks every 100 ms only, and who has just committed comes first in between: on a busy
        machine somebody waits for seconds.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                opened: Opened | None = getattr(self._local, "opened", None)
                if opened is None or opened.pid != os.getpid():
                    opened = self._local.opened = Opened(self.path)
                return opened.connection.execute(statement, values)
            except sqlite3.Error as error:
                if "locked" not in str(error) or time.monotonic() >= end:
                    raise StorageUnavailable(f"{self.path}: {error}", key=key) from error
            time.sleep(random.uniform(0, 0.002))

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        select = "SELECT payload, incarnation, number FROM records WHERE kind = ? AND name = ?"
        row = self.execute(key, timeout, select, *key).fetchone()
        return Snapshot(None, None) if row is None else Snapshot(bytes(row[0]), Version(row[1], row[2]))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if expected is None:
            version = Version(uuid.uuid4().hex, 1)
            insert = "INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            cursor = self.execute(key, timeout, insert, *key, payload, *version)
        else:
            version = Version(expected.incarnation, expected.number + 1)
            update = (
                "UPDATE records SET payload = ?, number = ?"
                " WHERE kind = ? AND name = ? AND incarnation = ? AND number = ?"
            )
            cursor = self.execute(key, timeout, update, payload, version.number, *key, *expected)
        if not cursor.rowcount:
            raise StorageConflict(f"{key}: {expected} is not what is stored", key=key)
        return Snapshot(payload, version)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return nullcontext()

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return [Key(*row) for row in self.execute(None, 1, "SELECT kind, name FROM records").fetchall()]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        delete = "DELETE FROM records WHERE kind = ? AND name = ?"
        if expected is None:
            return self.execute(key, timeout, delete, *key).rowcount > 0
        done = self.execute(key, timeout, f"{delete} AND incarnation = ? AND number = ?", *key, *expected).rowcount > 0
        if not done and self.resilience_load(key, timeout).version is not None:
            raise StorageConflict(f"{key}: {expected} is not what is stored", key=key)
        return done

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        return self.resilience_load(key, timeout)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self.resilience_save(key, payload, expected, expires_at, timeout)

    def close(self) -> None:
        self._local = threading.local()
