"""What the conformance kit cannot know: this storage's own settings, files and errors."""

from __future__ import annotations

import multiprocessing
import sqlite3
import subprocess
import sys
import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from resilience_sqlite_example import SQLiteSettings, SQLiteStorage
from resilience_sqlite_example.reading import SQLiteReader

from resilience import (
    Capability,
    CircuitBreaker,
    ConfigurationError,
    Key,
    Runtime,
    StorageConflict,
    StorageLockTimeout,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.synchronize import Event

KEY = Key("test", "one")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLiteStorage]:
    made = SQLiteStorage(f"sqlite://{tmp_path}/breakers.db", SQLiteSettings(keep_damaged=2))
    yield made
    made.close()


def test_is_found_by_its_scheme_and_configured_by_variables(tmp_path: Path) -> None:
    if not entry_points(group="resilience.storage", name="sqlite"):
        pytest.skip("not installed")
    environ = {
        "RESILIENCE_STORAGE": f"sqlite://{tmp_path}/breakers.db",
        "RESILIENCE_SQLITE__SYNCHRONOUS": "full",
    }
    with Runtime(environ=environ) as runtime:
        CircuitBreaker("payments", failure_threshold=1).record_failure()
        assert Capability.DURABLE in runtime.opened.storage.capabilities
    with Runtime(environ=environ):
        assert CircuitBreaker("payments").status().state == "open"


def test_the_reader_reads_what_the_storage_does_and_makes_nothing(tmp_path: Path, storage: SQLiteStorage) -> None:
    reader = SQLiteReader(storage.url)
    with pytest.raises(FileNotFoundError):
        reader.resilience_load(KEY, 1.0)
    assert list(tmp_path.iterdir()) == []
    for payload in (None, b"one", b"two"):
        kept = storage.resilience_load(KEY, 1.0)
        if payload is not None:
            kept = storage.resilience_save(KEY, payload, kept.version, None, 1.0)
        seen = reader.resilience_load(KEY, 1.0)
        assert (seen.payload, seen.version) == (kept.payload, kept.version)
    assert SQLiteStorage.reader == f"{SQLiteReader.__module__}:SQLiteReader"


def test_durable_only_if_it_waits_for_the_disk(tmp_path: Path, storage: SQLiteStorage) -> None:
    assert storage.capabilities == {Capability.PROCESSES}
    durable = SQLiteStorage(storage.url, SQLiteSettings(synchronous="full"))
    assert durable.capabilities == {Capability.PROCESSES, Capability.DURABLE}


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite:breakers.db", "sqlite://host/x.db"])
def test_urls_that_name_no_file_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="names no file"):
        SQLiteStorage(url)


def test_a_file_that_is_no_database_is_told_and_left_alone(tmp_path: Path, storage: SQLiteStorage) -> None:
    (tmp_path / "breakers.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageUnavailable, match="not a database; move it"):
        storage.resilience_load(KEY, 0.1)
    assert (tmp_path / "breakers.db").read_bytes().startswith(b"no database")


def test_a_database_that_was_removed_is_made_anew(tmp_path: Path, storage: SQLiteStorage) -> None:
    storage.resilience_save(KEY, b"{}", None, None, 1)
    for file in tmp_path.glob("breakers.db*"):
        file.unlink()
    assert storage.resilience_load(KEY, 1).version is None
    storage.resilience_save(KEY, b"{}", None, None, 1)
    other = SQLiteStorage(storage.url)
    assert other.resilience_load(KEY, 1).version == storage.resilience_load(KEY, 1).version
    other.close()


def test_who_writes_for_long_is_waited_for_and_no_longer_than_allowed(tmp_path: Path, storage: SQLiteStorage) -> None:
    version = storage.resilience_save(KEY, b"{}", None, None, 1).version
    other = sqlite3.connect(storage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageLockTimeout, match="others were writing"):
        storage.resilience_save(KEY, b'{"n": 2}', version, None, 0.01)
    with pytest.raises(StorageLockTimeout):
        storage.resilience_delete(KEY, None, 0)
    assert storage.resilience_load(KEY, 0).version == version
    other.execute("ROLLBACK")
    other.close()
    storage.resilience_save(KEY, b'{"n": 2}', version, None, 0.01)


def test_expired_records_go_when_another_is_born(storage: SQLiteStorage) -> None:
    storage.resilience_save(KEY, b"{}", None, 1.0, 1)
    storage.resilience_save(Key("test", "two"), b"{}", None, None, 1)
    assert storage.resilience_keys() == [Key("test", "two")]


def test_what_was_set_aside_can_be_inspected_and_is_bounded(storage: SQLiteStorage) -> None:
    for number in range(3):
        storage.resilience_save(KEY, b'{"n": %d}' % number, None, None, 1)
        storage.resilience_discard(KEY, f"reason {number}", 1)
    storage.close()
    other = sqlite3.connect(storage.path)
    assert other.execute("SELECT name, payload, reason FROM set_aside").fetchall() == [
        ("one", b'{"n": 1}', "reason 1"),
        ("one", b'{"n": 2}', "reason 2"),
    ]
    other.close()


def test_a_successor_of_the_damaged_record_is_not_set_aside(storage: SQLiteStorage) -> None:
    damaged = storage.resilience_save(KEY, b"{}", None, None, 1)
    other = SQLiteStorage(storage.url)
    healthy = other.resilience_save(KEY, b'{"n": 2}', damaged.version, None, 1)
    storage.resilience_discard(KEY, "of what was seen before", 1)
    assert other.resilience_load(KEY, 1).version == healthy.version
    other.close()


def test_a_conflict_brings_what_is_stored(storage: SQLiteStorage) -> None:
    saved = storage.resilience_save(KEY, b"{}", None, None, 1)
    with pytest.raises(StorageConflict) as caught:
        storage.resilience_save(KEY, b"{}", None, None, 1)
    assert caught.value.current is not None
    assert caught.value.current.version == saved.version


def at_work(storage: SQLiteStorage, go_on: Event, is_at_work: Event) -> None:
    version = storage.resilience_load(KEY, 1.0).version
    is_at_work.set()
    go_on.wait(10)
    storage.resilience_save(KEY, b"of the child", version, None, 1.0)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="nobody forks here")
def test_a_child_has_its_own_share_in_the_log(storage: SQLiteStorage) -> None:
    """Else the log goes with the last connection of the parent, while the child writes to it."""
    storage.resilience_save(KEY, b"of the parent", None, None, 1.0)
    fork = multiprocessing.get_context("fork")
    go_on, is_at_work = fork.Event(), fork.Event()
    child = fork.Process(target=at_work, args=(storage, go_on, is_at_work))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests have threads, which the child does not need
        child.start()
    assert is_at_work.wait(10)
    storage.resilience_load(KEY, 1.0)
    storage.close()
    go_on.set()
    child.join(10)
    assert child.exitcode == 0
    assert storage.resilience_load(KEY, 1.0).payload == b"of the child"


AT_THE_FORK = """
import os, sys, threading
from resilience import Key

def at_the_fork():  # registered first, so called last, when the storage keeps others out
    storage.resilience_save(key, b"gathered", version, None, 1.0)  # as the engine does, if it comes later
    descriptors = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert not [path for path in descriptors if path.startswith(sys.argv[1])], descriptors
    other.start()
    other.join(0.05)
    assert other.is_alive()

os.register_at_fork(before=at_the_fork)
from resilience_sqlite_example import SQLiteStorage

key = Key("circuit_breaker", "payments")
storage = SQLiteStorage(f"sqlite://{sys.argv[1]}")
version = storage.resilience_save(key, b"before", None, None, 1.0).version
other = threading.Thread(target=storage.resilience_load, args=(key, 1.0))
child = os.fork()
if child == 0:
    os._exit(storage.resilience_load(key, 1.0).payload != b"gathered")
other.join(10)
assert not other.is_alive()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, and fork")
def test_a_fork_keeps_out_other_threads_and_lets_its_own_commit(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", AT_THE_FORK, str(tmp_path / "breakers.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
