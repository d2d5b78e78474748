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
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet
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
    """A file per record, replaced whole; a lock file per record, whose descriptors exclude threads as well."""

    Settings = None
    capabilities: Any = frozenset({Capability.PROCESSES})
    pause = 0.0005

    def __init__(self, url: str, settings: None = None) -> None:
        self.folder = Path(url.partition(":")[2])

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

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        end = clock.monotonic() + timeout
        descriptor = self.open(key)
        try:
            self.wait(descriptor, end, key)
            yield
        finally:
            self.free(descriptor)

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
                    raise StorageLockTimeout(f"{key}: somebody else holds the lock", key=key) from None
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
    """A connection of one thread, closed with the thread, and before a fork."""

    def __init__(self, path: str) -> None:
        # Whoever forks, or collects the garbage, may close it.
        self.connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.is_open = True
        # Else each commit keeps all readers out, and twenty who commit leave a reader no moment on a busy machine.
        self.connection.execute("PRAGMA journal_mode = WAL")
        # A commit outlives its process all the same; the lock is free before the disk has answered.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(TABLE)
        everywhere.add(self)

    def close(self) -> None:
        self.is_open = False
        self.connection.close()

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()


everywhere: WeakSet[Opened] = WeakSet()
"""The connections of this process.  SQLite's books on locks are of no use in a child: it begins with none open."""


class Gate:
    """Whoever uses a connection is inside; who forks waits until nobody is, and lets nobody in meanwhile."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside = 0
        self.forking: int | None = None
        os.register_at_fork(before=self.shut, after_in_parent=self.open, after_in_child=self.open)

    @contextmanager
    def __call__(self) -> Generator[None]:
        me = threading.get_ident()
        with self.changed:
            self.changed.wait_for(lambda: self.forking in {None, me})  # the engine commits before a fork
            self.inside += 1
        try:
            yield
        finally:
            with self.changed:
                self.inside -= 1
                self.changed.notify_all()
                if self.forking == me:
                    self.close_all()

    def shut(self) -> None:
        self.changed.acquire()
        self.changed.wait_for(lambda: self.forking is None)
        self.forking = threading.get_ident()
        self.changed.wait_for(lambda: not self.inside)
        self.close_all()

    def close_all(self) -> None:
        for opened in list(everywhere):
            opened.close()

    def open(self) -> None:
        self.forking = None
        self.changed.notify_all()
        self.changed.release()


gate = Gate()


class Done(NamedTuple):
    """What a statement gave."""

    rows: list[Any]
    changed: int


class CasStorage:
    """A table, in which one statement compares the version and writes: no lock at all."""

    Settings = None
    capabilities = frozenset({Capability.PROCESSES, Capability.DURABLE})

    def __init__(self, url: str, settings: None = None) -> None:
        self.path = url.partition(":")[2]
        self._local = threading.local()

    def execute(self, key: Key | None, timeout: float, statement: str, *values: object) -> Done:
        """Execute a statement, and again as long as others are at it.

        SQLite's own waiting soon looks every 100 ms only, and who has just committed comes first in between: on a busy
        machine somebody waits for seconds.
        """
        end = time.monotonic() + timeout
        while True:
            try:
                with gate():
                    opened = self.opened()  # kept until its statement is over: it closes the connection at its end
                    cursor = opened.connection.execute(statement, values)
                    return Done(cursor.fetchall(), cursor.rowcount)
            except sqlite3.Error as error:
                if "locked" not in str(error) or time.monotonic() >= end:
                    raise StorageUnavailable(f"{self.path}: {error}", key=key) from error
            time.sleep(random.uniform(0, 0.002))

    def opened(self) -> Opened:
        opened: Opened | None = getattr(self._local, "opened", None)
        if opened is None or not opened.is_open:
            opened = self._local.opened = Opened(self.path)
        return opened

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        select = "SELECT payload, incarnation, number FROM records WHERE kind = ? AND name = ?"
        rows = self.execute(key, timeout, select, *key).rows
        return Snapshot(bytes(rows[0][0]), Version(*rows[0][1:])) if rows else Snapshot(None, None)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        if expected is None:
            version = Version(uuid.uuid4().hex, 1)
            insert = "INSERT INTO records VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            done = self.execute(key, timeout, insert, *key, payload, *version)
        else:
            version = Version(expected.incarnation, expected.number + 1)
            update = (
                "UPDATE records SET payload = ?, number = ?"
                " WHERE kind = ? AND name = ? AND incarnation = ? AND number = ?"
            )
            done = self.execute(key, timeout, update, payload, version.number, *key, *expected)
        if not done.changed:
            raise StorageConflict(f"{key}: {expected} is not what is stored", key=key)
        return Snapshot(payload, version)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return nullcontext()

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return [Key(*row) for row in self.execute(None, 1, "SELECT kind, name FROM records").rows]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        delete = "DELETE FROM records WHERE kind = ? AND name = ?"
        if expected is None:
            return self.execute(key, timeout, delete, *key).changed > 0
        done = self.execute(key, timeout, f"{delete} AND incarnation = ? AND number = ?", *key, *expected).changed > 0
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
