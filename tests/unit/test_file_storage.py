"""The file storage's contract: load, save, lock, keys, delete, discard."""
# ruff: noqa: FBT001 - parametrized tests take booleans as they come

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import resilience_filelock
from resilience import (
    Capability,
    ConfigurationError,
    Key,
    StorageConflict,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    Word,
    clock,
)
from resilience_filelock import FileSettings, FileStorage, _file, storage
from resilience_filelock._folder import sweep
from resilience_filelock._lock import Held, native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from resilience import Snapshot

KEY = Key("circuit_breaker", "payments")
SECOND = 1.0


def giving(value: object) -> Callable[..., Any]:
    """Make a function that takes anything and gives the same each time."""
    return lambda *_args, **_named: value


def settings(**values: object) -> Any:
    """Make settings without pydantic: anything with the attributes will do."""
    return SimpleNamespace(**{"durability": "none", "freshness": "map", "allow_network_filesystem": False, **values})


@pytest.fixture(params=["map", "read", "fsync", "network"])
def variant(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "fsync":
        return settings(durability="fsync")
    if request.param == "network":
        monkeypatch.setattr(storage, "file_system_of", giving("nfs4"))
        return settings(allow_network_filesystem=True)
    return settings(freshness=request.param)


@pytest.fixture
def make(tmp_path: Path, variant: Any) -> Iterator[Callable[[], FileStorage]]:
    made: list[FileStorage] = []

    def one() -> FileStorage:
        made.append(FileStorage(f"file://{tmp_path}/state", variant))
        return made[-1]

    yield one
    for one_made in made:
        one_made.close()


def put(
    one: FileStorage, payload: bytes, key: Key = KEY, expires_at: float | None = None, version: Version | None = None
) -> Snapshot:
    """Commit on top of whatever is stored."""
    with one.resilience_lock(key, SECOND):
        version = version or one.resilience_load(key, SECOND).version
        return one.resilience_save(key, payload, version, expires_at, SECOND)


def state_file(one: FileStorage) -> Path:
    (found,) = Path(one.folder).glob("*/*.state")
    return found


def test_nothing_is_stored_at_first(make: Callable[[], FileStorage]) -> None:
    one = make()
    snapshot = one.resilience_load(KEY, SECOND)
    assert (snapshot.payload, snapshot.version) == (None, None)
    assert list(one.resilience_keys()) == []


def test_a_commit_is_seen_by_another_storage_on_the_same_folder(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    before = two.resilience_load(KEY, SECOND)
    first = put(one, b'{"state": "open"}')
    assert first.version is not None
    assert first.version.number == 1
    after = two.resilience_load(KEY, SECOND)
    assert (after.payload, after.version) == (b'{"state": "open"}', first.version)
    if before.is_current is not None:
        assert not before.is_current()
    second = put(two, b"next")
    assert second.version == Version(first.version.incarnation, 2)
    assert one.resilience_load(KEY, SECOND).payload == b"next"


def test_a_record_that_does_not_exist_yet_can_be_watched(tmp_path: Path) -> None:
    one, two = (FileStorage(f"file://{tmp_path}/state") for _ in range(2))
    nothing = one.resilience_load(KEY, SECOND)
    assert isinstance(nothing.is_current, Word)
    assert nothing.is_current()
    put(two, b"born")
    assert not nothing.is_current()


def test_reading_what_is_known_and_current_returns_the_very_snapshot(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    snapshot = put(one, b"known")
    assert one.resilience_load(KEY, SECOND) is snapshot
    with one.resilience_lock(KEY, SECOND):
        assert one.resilience_load(KEY, SECOND) is snapshot


def test_a_save_on_another_version_changes_nothing_and_brings_the_current_one(make: Callable[[], FileStorage]) -> None:
    one = make()
    first = put(one, b"first")
    put(one, b"second")
    with one.resilience_lock(KEY, SECOND), pytest.raises(StorageConflict, match="payments") as caught:
        one.resilience_save(KEY, b"late", first.version, None, SECOND)
    assert caught.value.current is not None
    assert caught.value.current.payload == b"second"
    with one.resilience_lock(KEY, SECOND), pytest.raises(StorageConflict):
        one.resilience_save(KEY, b"late", None, None, SECOND)
    assert one.resilience_load(KEY, SECOND).payload == b"second"


def test_a_save_without_the_lock_takes_it(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    assert one.resilience_save(KEY, b"first", None, None, SECOND).payload == b"first"
    with two.resilience_lock(KEY, SECOND), pytest.raises(StorageLockTimeout):
        one.resilience_save(KEY, b"second", None, None, 0)


@pytest.mark.parametrize("length", [0, 1, 1494, 1495, 1496, 1497, 6000, 100_000, 1 << 20])
def test_payloads_of_any_length(make: Callable[[], FileStorage], length: int) -> None:
    one, two = make(), make()
    before = put(two, b"small")
    payload = os.urandom(length)
    after = put(one, payload)
    assert before.version is not None
    assert after.version == Version(before.version.incarnation, 2)
    assert two.resilience_load(KEY, SECOND).payload == payload
    assert put(two, b"small again").version == Version(before.version.incarnation, 3)
    assert one.resilience_load(KEY, SECOND).payload == b"small again"


def test_the_first_payload_may_be_long(make: Callable[[], FileStorage]) -> None:
    assert put(make(), bytes(5000)).version is not None


def test_a_file_that_grows_stays_locked(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    small = put(two, b"small")
    with one.resilience_lock(KEY, SECOND):
        snapshot = one.resilience_save(KEY, bytes(5000), small.version, None, SECOND)
        with pytest.raises(StorageLockTimeout):
            two.resilience_lock(KEY, 0.01)
        one.resilience_save(KEY, b"and on", snapshot.version, None, SECOND)
    assert two.resilience_load(KEY, SECOND).payload == b"and on"
    with two.resilience_lock(KEY, 0):
        pass


def test_a_payload_beyond_all_bounds_is_refused(make: Callable[[], FileStorage]) -> None:
    one = make()
    with pytest.raises(StorageUnavailable, match="1048577 bytes, 1048576 are allowed") as caught:
        put(one, bytes((1 << 20) + 1))
    assert caught.value.key == KEY
    assert not caught.value.outcome_unknown
    assert put(one, b"fine").payload == b"fine"


def test_the_payload_can_be_read_by_a_person(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b'{"state": "open"}')
    data = state_file(one).read_bytes()
    assert b'{"state": "open"}\n' in data
    assert b"circuit_breaker\npayments\n" in data
    assert state_file(one).name.startswith("payments-")
    assert state_file(one).stat().st_mode & 0o777 == 0o600
    assert Path(one.folder).stat().st_mode & 0o777 == 0o700
    assert state_file(one).parent.stat().st_mode & 0o777 == 0o700


def test_a_file_is_never_sparse(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    one.resilience_load(KEY, SECOND)
    status = state_file(one).stat()
    assert status.st_blocks * 512 >= status.st_size > 0


# --- lock -------------------------------------------------------------------------------------------------------------


def test_the_lock_excludes_other_storages_and_threads(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    with one.resilience_lock(KEY, 0):
        for other in (one, two):
            with pytest.raises(StorageLockTimeout, match="payments"):
                other.resilience_lock(KEY, 0)
            before = clock.monotonic()
            with pytest.raises(StorageLockTimeout):
                other.resilience_lock(KEY, 0.05)
            assert 0.05 <= clock.monotonic() - before < 1
        with one.resilience_lock(Key("circuit_breaker", "other"), 0):
            pass
    with two.resilience_lock(KEY, 0), pytest.raises(StorageLockTimeout):
        one.resilience_lock(KEY, 0)


@pytest.mark.parametrize("own", [True, False], ids=["a thread", "another storage"])
def test_who_waits_gets_the_lock(make: Callable[[], FileStorage], own: bool) -> None:
    one = make()
    other = one if own else make()
    order: list[str] = []
    held = one.resilience_lock(KEY, 0)

    def wait() -> None:
        order.append("waits")
        with other.resilience_lock(KEY, 10):
            order.append("has it")

    thread = threading.Thread(target=wait)
    with held:
        thread.start()
        while not order:
            clock.sleep(0.001)
        clock.sleep(0.005)
        order.append("gives it back")
    thread.join(10)
    assert order == ["waits", "gives it back", "has it"]


def waiting(one: FileStorage, meanwhile: Callable[[], object], other: AbstractContextManager[None]) -> None:
    """Let a thread wait for the lock, and something happen before `other` gives it back."""
    has_it = threading.Event()

    def wait() -> None:
        with one.resilience_lock(KEY, 30):
            has_it.set()

    thread = threading.Thread(target=wait)
    with other:
        thread.start()
        while not one._entries[KEY].tokens.empty():
            clock.sleep(0.001)
        clock.sleep(0.02)
        assert not has_it.is_set()
        meanwhile()
    thread.join(30)
    assert has_it.is_set()
    with one.resilience_lock(KEY, 0):
        pass


def test_whatever_still_knows_a_file_that_grew_keeps_no_lock(make: Callable[[], FileStorage]) -> None:
    """Such as the traceback of a conflict in an event loop, which lives until garbage is collected."""
    one, two = make(), make()
    put(one, b"here")
    two.resilience_load(KEY, SECOND)
    known, other = one._entries[KEY].file, two._entries[KEY].file
    assert other is not None
    put(one, bytes(5000))
    assert known is not one._entries[KEY].file
    assert other.lock()
    two._entries[KEY].unlock(other)


def test_a_lock_on_a_file_that_grew_that_cannot_be_given_back_goes_with_it(
    make: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_: int) -> None:
        raise OSError(5, "as planned")

    one = make()
    version = put(one, b"here").version
    with one.resilience_lock(KEY, SECOND), monkeypatch.context() as patched:
        patched.setattr(native, "unlock", stuck)
        one.resilience_save(KEY, bytes(5000), version, None, SECOND)
    assert put(make(), b"there").version is not None


def test_who_waits_follows_a_file_that_grows(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    version = put(one, b"here").version
    other = two.resilience_lock(KEY, SECOND)
    waiting(one, lambda: two.resilience_save(KEY, bytes(5000), version, None, SECOND), other)


@pytest.mark.parametrize("own", [True, False], ids=["a thread", "another storage"])
def test_who_waits_survives_close(make: Callable[[], FileStorage], own: bool) -> None:
    one, two = make(), make()
    put(one, b"here")
    waiting(one, one.close, (one if own else two).resilience_lock(KEY, SECOND))


def test_a_file_that_is_replaced_all_the_time_is_given_up_in_time(
    make: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    monkeypatch.setattr(FileStorage, "_settled", giving(False))
    with pytest.raises(StorageLockTimeout, match="again and again"):
        one.resilience_lock(KEY, 0.01)
    monkeypatch.undo()
    with one.resilience_lock(KEY, 0):
        pass


def test_closing_between_lock_and_work_is_an_error(
    make: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    put(one, b"here")
    lock = FileStorage.resilience_lock

    def closed_at_once(self: FileStorage, key: Key, timeout: float) -> AbstractContextManager[None]:
        held = lock(self, key, timeout)
        self.close()
        return held

    monkeypatch.setattr(FileStorage, "resilience_lock", closed_at_once)
    with pytest.raises(StorageUnavailable, match="was closed"):
        one.resilience_delete(KEY, None, SECOND)
    monkeypatch.undo()
    assert one.resilience_load(KEY, SECOND).payload == b"here"


def test_a_lock_that_was_never_entered_is_given_back(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    one.resilience_lock(KEY, 0)
    gc.collect()
    with two.resilience_lock(KEY, 0), pytest.raises(StorageLockTimeout):
        one.resilience_lock(KEY, 0)


def test_a_lock_whose_end_could_not_give_it_back_is_given_back_by_who_comes_next(
    make: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make(), make()
    put(one, b"1")
    with monkeypatch.context() as patched:
        patched.setattr(Held, "__del__", giving(None))  # as at the end of a thread's stack
        one.resilience_lock(KEY, 0)
    with pytest.raises(StorageLockTimeout):
        other.resilience_lock(KEY, 0)
    with one.resilience_lock(KEY, 0), pytest.raises(StorageLockTimeout):
        one.resilience_lock(KEY, 0)
    with other.resilience_lock(KEY, 0):
        pass


def test_a_lock_that_is_given_back_twice_still_excludes(make: Callable[[], FileStorage]) -> None:
    one = make()
    held = one.resilience_lock(KEY, 0)
    with held:
        pass
    held.__exit__(None, None, None)
    with one.resilience_lock(KEY, 0), pytest.raises(StorageLockTimeout):
        one.resilience_lock(KEY, 0)


def test_an_error_inside_gives_the_lock_back(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    with pytest.raises(KeyError), one.resilience_lock(KEY, 0):
        raise KeyError
    with two.resilience_lock(KEY, 0):
        pass


def test_threads_count_exactly(make: Callable[[], FileStorage]) -> None:
    storages = [make(), make()]

    def count() -> None:
        for turn in range(25):
            one = storages[turn % 2]
            with one.resilience_lock(KEY, 30):
                snapshot = one.resilience_load(KEY, 30)
                number = int(snapshot.payload or b"0") + 1
                one.resilience_save(KEY, b"%d" % number, snapshot.version, None, 30)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    final = storages[0].resilience_load(KEY, SECOND)
    assert final.payload == b"200"
    assert final.version is not None
    assert final.version.number == 200


def test_a_slow_reader_does_not_put_a_commit_back(
    make: Callable[[], FileStorage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that reads without the lock may remember an older version while another one commits."""
    one, other = make(), make()

    def save(storage: FileStorage, payload: bytes) -> Version:
        with storage.resilience_lock(KEY, SECOND):
            saved = storage.resilience_save(
                KEY, payload, storage.resilience_load(KEY, SECOND).version, None, SECOND
            ).version
        assert saved is not None
        return saved

    save(one, b"1")
    save(other, b"2")
    has_read, may_go_on = threading.Event(), threading.Event()
    commit = _file.RecordFile.commit

    def slow_pread(*arguments: int) -> bytes:
        data = os.pread(*arguments)
        if threading.current_thread() is reader:
            has_read.set()
            assert may_go_on.wait(60)
        return data

    def commit_after_the_reader(self: _file.RecordFile, *arguments: Any) -> Snapshot:
        may_go_on.set()
        reader.join(60)
        return commit(self, *arguments)

    monkeypatch.setattr(_file, "pread", slow_pread)
    reader = threading.Thread(target=one.resilience_load, args=(KEY, SECOND))
    reader.start()
    assert has_read.wait(60)
    assert save(other, b"3").number == 3
    monkeypatch.setattr(_file.RecordFile, "commit", commit_after_the_reader)
    assert save(one, b"4").number == 4
    assert [storage.resilience_load(KEY, SECOND).payload for storage in (one, other)] == [b"4", b"4"]


# --- administration ---------------------------------------------------------------------------------------------------


def test_keys_lists_what_has_a_record(make: Callable[[], FileStorage]) -> None:
    one = make()
    names = ["payments", "a/b", "zahlungen-ü", "🦆"]
    for name in names:
        put(one, b"here", Key("circuit_breaker", name))
    one.resilience_load(Key("circuit_breaker", "never written"), SECOND)
    (Path(one.folder) / "a stray file").write_text("here")
    (Path(one.folder) / "circuit_breaker" / "stray.state").write_text("not ours")
    (Path(one.folder) / "circuit_breaker" / "folder.state").mkdir()
    os.mkfifo(Path(one.folder) / "circuit_breaker" / "pipe.state")
    assert {key.name for key in one.resilience_keys()} == set(names)


def test_a_record_that_was_deleted_is_gone_for_all(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    old = put(one, b"here")
    seen = two.resilience_load(KEY, SECOND)
    assert one.resilience_delete(KEY, None, SECOND) is True
    assert one.resilience_delete(KEY, None, SECOND) is False
    assert list(two.resilience_keys()) == []
    if seen.is_current is not None:
        assert not seen.is_current()
    assert two.resilience_load(KEY, SECOND).version is None
    with two.resilience_lock(KEY, SECOND), pytest.raises(StorageConflict):
        two.resilience_save(KEY, b"late", old.version, None, SECOND)
    born = put(two, b"born again").version
    assert born is not None
    assert old.version is not None
    assert born.number == 1
    assert born.incarnation != old.version.incarnation


def test_delete_minds_the_version(make: Callable[[], FileStorage]) -> None:
    one = make()
    first = put(one, b"first")
    second = put(one, b"second")
    with pytest.raises(StorageConflict):
        one.resilience_delete(KEY, first.version, SECOND)
    assert one.resilience_load(KEY, SECOND).payload == b"second"
    assert one.resilience_delete(KEY, second.version, SECOND) is True


def test_delete_of_what_was_only_looked_at_says_that_there_was_nothing(make: Callable[[], FileStorage]) -> None:
    one = make()
    one.resilience_load(KEY, SECOND)
    assert one.resilience_delete(KEY, None, SECOND) is False


def test_delete_waits_for_the_lock(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    put(one, b"here")
    with one.resilience_lock(KEY, 0), pytest.raises(StorageLockTimeout):
        two.resilience_delete(KEY, None, 0.01)
    assert one.resilience_load(KEY, SECOND).payload == b"here"


@pytest.mark.parametrize("locked", [True, False])
def test_discard_sets_the_record_aside(make: Callable[[], FileStorage], locked: bool) -> None:
    one, two = make(), make()
    put(one, b"no policy can read this")
    seen = two.resilience_load(KEY, SECOND)
    if locked:
        with one.resilience_lock(KEY, SECOND):
            one.resilience_discard(KEY, "it is\nnonsense 🦆", SECOND)
            assert one.resilience_load(KEY, SECOND).version is None
            with pytest.raises(StorageLockTimeout):
                two.resilience_lock(KEY, 0)
            one.resilience_save(KEY, b"new", None, None, SECOND)
    else:
        one.resilience_discard(KEY, "it is\nnonsense 🦆", SECOND)
        put(one, b"new")
    if seen.is_current is not None:
        assert not seen.is_current()
    assert two.resilience_load(KEY, SECOND).payload == b"new"
    (kept,) = Path(one.folder).glob("*/*.state.damaged-*")
    assert b"no policy can read this" in kept.read_bytes()
    assert kept.read_bytes().endswith("set aside: it is\nnonsense 🦆\n".encode())
    assert list(one.resilience_keys()) == [KEY]


def test_of_what_was_set_aside_eight_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    now = clock.wall()
    monkeypatch.setattr(clock, "wall", lambda: now)
    (tmp_path / "state/circuit_breaker").mkdir(parents=True, mode=0o700)
    (tmp_path / "state").chmod(0o700)
    for turn in range(12):
        put(one, b"number %d" % turn)
        if turn == 4:
            state_file(one).with_name(state_file(one).name + ".damaged-by hand").touch()
        one.resilience_discard(KEY, "test", SECOND)
    kept = b"".join(path.read_bytes() for path in Path(one.folder).glob("*/*.damaged-*"))
    assert [turn for turn in range(12) if b"number %d\n" % turn in kept] == [4, 5, 6, 7, 8, 9, 10, 11]


# --- life -------------------------------------------------------------------------------------------------------------


def test_the_constructor_touches_nothing(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    assert not (tmp_path / "state").exists()
    assert list(one.resilience_keys()) == []
    assert one.resilience_delete(KEY, None, 0) is False
    assert not (tmp_path / "state").exists()
    assert repr(one) == f"<FileStorage '{tmp_path}/state'>"


def test_close_lets_go_of_everything_and_the_storage_goes_on(make: Callable[[], FileStorage]) -> None:
    one = make()
    snapshot = put(one, b"here")
    other = one.resilience_load(Key("circuit_breaker", "other"), SECOND)
    one.close()
    gc.collect()
    for known in (snapshot, other):
        assert known.is_current is None or not known.is_current()
    assert not _open_files(one.folder)
    one.close()
    assert one.resilience_load(KEY, SECOND).payload == b"here"


def test_a_lock_outlives_close_without_harm(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    snapshot = put(one, b"here")
    with one.resilience_lock(KEY, SECOND):
        one.close()
        put(two, b"committed meanwhile")
        with pytest.raises(StorageConflict):
            one.resilience_save(KEY, b"late", snapshot.version, None, SECOND)
    assert one.resilience_load(KEY, SECOND).payload == b"committed meanwhile"


def _open_files(folder: str) -> list[str]:
    links: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except FileNotFoundError:
            continue  # the descriptor that lists is gone by then
    return [link for link in links if link.startswith(folder)]


def test_open_files_are_bounded_and_the_least_used_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_FILES", 20)
    one = FileStorage(f"file://{tmp_path}/state")
    keys = [Key("circuit_breaker", f"number {number}") for number in range(60)]
    first = put(one, b"first", keys[0])
    for number in range(4):
        one.resilience_delete(Key("circuit_breaker", f"missing {number}"), None, SECOND)
    with one.resilience_lock(keys[1], SECOND):
        for key in keys[2:]:
            put(one, b"here", key)
            one.resilience_load(keys[2], SECOND)
        assert one.resilience_save(keys[1], b"still locked", None, None, SECOND).version is not None
    assert 5 <= len(set(_open_files(one.folder))) <= 20
    assert first.is_current is not None
    assert not first.is_current()
    assert one.resilience_load(keys[0], SECOND).payload == b"first"
    used = one.resilience_load(keys[2], SECOND)
    assert used.is_current is not None
    assert used.is_current()
    assert len(list(one.resilience_keys())) == 60


def test_descriptors_of_the_process_are_left_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, most in ((1024, 128), (64, 16), (1 << 20, 1000), (-1, 1000)):
        monkeypatch.setattr(os, "sysconf", giving(limit))
        monkeypatch.setattr("sys.version_info", (3, 11))
        assert storage.most_files(mapped=True) == most
    monkeypatch.setattr(os, "sysconf", giving(1024))
    assert storage.most_files(mapped=False) == 256


def test_records_that_expired_and_leftovers_are_dropped(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    now = clock.wall()
    put(one, b"keep", Key("circuit_breaker", "lives"), expires_at=now + 1000)
    watched = put(one, b"drop", Key("circuit_breaker", "expired"), expires_at=now - 1)
    put(one, b"drop", Key("circuit_breaker", "expired, locked"), expires_at=now - 1)
    one.resilience_load(Key("circuit_breaker", "never written"), SECOND)
    one.resilience_load(Key("circuit_breaker", "fresh, never written"), SECOND)
    folder = Path(one.folder) / "circuit_breaker"
    for path in (*folder.glob("never-written-*"), folder / "left.1234.new"):
        path.touch()
        os.utime(path, (now - 7200, now - 7200))
    (folder / "fresh.1234.new").touch()
    (folder / "notes.txt").touch()
    (folder / "stray.state").write_text("not ours")
    (folder / "short.state").touch()
    (folder / "folder.state").mkdir()
    os.mkfifo(folder / "pipe.state")
    put(one, b"damaged", Key("circuit_breaker", "damaged"), expires_at=now - 1)
    (damaged,) = folder.glob("damaged-*")
    with damaged.open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 7)
    two = FileStorage(one.url)
    with two.resilience_lock(Key("circuit_breaker", "expired, locked"), SECOND):
        for number in range(30):  # each new file looks at some of its neighbours
            one.resilience_load(Key("circuit_breaker", f"new {number}"), SECOND)
            one.resilience_delete(Key("circuit_breaker", f"new {number}"), None, SECOND)
    left = {path.name.rpartition("-")[0] or path.name for path in folder.iterdir()}
    assert left == {
        *("lives", "expired--locked", "fresh--never-written", "damaged", "pipe.state", "notes.txt"),
        *("fresh.1234.new", "stray.state", "short.state", "folder.state"),
    }
    assert watched.is_current is not None
    assert not watched.is_current()


@pytest.mark.parametrize("meanwhile", ["committed", "replaced"])
def test_a_record_that_comes_to_life_while_it_is_swept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    one, two = (FileStorage(f"file://{tmp_path}/state") for _ in range(2))
    put(one, b"expired", expires_at=clock.wall() - 1)
    lock = native.lock

    def late(fd: int, *, blocking: bool) -> bool:
        monkeypatch.undo()
        if meanwhile == "committed":
            put(two, b"alive")
        else:
            path = state_file(two)
            copy = path.with_name("copy")
            copy.write_bytes(path.read_bytes())
            copy.rename(path)
        return lock(fd, blocking=blocking)

    monkeypatch.setattr(native, "lock", late)
    sweep(str(tmp_path / "state/circuit_breaker"), 0)
    assert two.resilience_load(KEY, SECOND).payload == (b"alive" if meanwhile == "committed" else b"expired")


def test_a_sweep_finishes_what_a_killed_one_began(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"expired", expires_at=clock.wall() - 1)
    path = state_file(one)
    with path.open("r+b") as file:
        file.seek(15)
        file.write(b"\x80")
    sweep(str(path.parent), 0)
    assert not path.exists()


def test_files_replaced_behind_our_back_are_noticed(make: Callable[[], FileStorage]) -> None:
    one, two = make(), make()
    put(one, b"here")
    path = state_file(one)
    copy = path.read_bytes()
    put(one, b"newer")
    two.resilience_load(KEY, SECOND)
    restored = path.with_name("restored")
    restored.write_bytes(copy)
    restored.rename(path)
    assert two.resilience_load(KEY, SECOND).payload == b"here"
    path.unlink()
    assert two.resilience_load(KEY, SECOND).version is None
    put(two, b"anew")
    assert one.resilience_load(KEY, SECOND).payload == b"anew"


@pytest.mark.parametrize("what", ["file", "folder", "moved"])
def test_a_commit_to_a_file_that_was_taken_away_is_refused_after_a_second(
    make: Callable[[], FileStorage], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make()
    snapshot = put(one, b"here")
    folder = Path(one.folder)
    with one.resilience_lock(KEY, SECOND):
        if what == "moved":
            folder.rename(folder.with_name("elsewhere"))
        else:
            state_file(one).unlink()
        if what == "folder":
            (folder / "circuit_breaker").rmdir()
            folder.rmdir()
        later = clock.monotonic() + 2
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        with pytest.raises(StorageConflict, match="deleted or replaced"):
            one.resilience_save(KEY, b"late", snapshot.version, None, SECOND)
        with pytest.raises(StorageConflict, match="deleted or replaced"):
            one.resilience_save(KEY, bytes(5000), snapshot.version, None, SECOND)
    assert one.resilience_load(KEY, SECOND).version is None
    assert put(one, b"anew").payload == b"anew"


def test_growing_into_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    snapshot = put(one, b"here")
    with one.resilience_lock(KEY, SECOND):
        state_file(one).rename(tmp_path / "elsewhere")
        with pytest.raises(StorageConflict, match="deleted or replaced"):
            one.resilience_save(KEY, bytes(5000), snapshot.version, None, SECOND)


def test_discard_of_a_file_that_was_taken_away_is_refused(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"here")
    with one.resilience_lock(KEY, SECOND):
        state_file(one).unlink()
        with pytest.raises(StorageUnavailable, match="deleted or replaced"):
            one.resilience_discard(KEY, "test", SECOND)


# --- settings and capabilities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "missing", "there"),
    [
        ({}, {Capability.DURABLE, Capability.MACHINES}, {Capability.PROCESSES, Capability.PUSH, Capability.INLINE}),
        ({"durability": "fsync"}, {Capability.INLINE}, {Capability.DURABLE, Capability.PUSH}),
        ({"freshness": "read"}, {Capability.PUSH}, {Capability.INLINE, Capability.PROCESSES}),
    ],
)
def test_capabilities_follow_the_settings(values: dict[str, str], missing: set[str], there: set[str]) -> None:
    for chosen in (settings(**values), FileSettings.model_validate(values)):
        capabilities = FileStorage("file:///somewhere", chosen).capabilities
        assert capabilities >= there
        assert not capabilities & missing


def test_the_settings_model_is_found_when_asked_for() -> None:
    assert FileStorage.Settings is FileSettings
    defaults = FileSettings()
    assert (defaults.durability, defaults.freshness, defaults.allow_network_filesystem) == ("none", "map", False)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        resilience_filelock.nothing_of_ours  # noqa: B018 - the access is the test


def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "file_system_of", giving("nfs4"))
    one = FileStorage(f"file://{tmp_path}/state")
    with pytest.raises(StorageUnavailable, match="RESILIENCE_FILE__ALLOW_NETWORK_FILESYSTEM") as caught:
        one.resilience_load(KEY, SECOND)
    assert caught.value.key is None


def test_on_a_network_file_system_nothing_is_mapped_and_nothing_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "file_system_of", giving("nfs4"))
    one = FileStorage(f"file://{tmp_path}/state", settings(allow_network_filesystem=True))
    snapshot = put(one, b"here")
    assert snapshot.is_current is None
    assert one.resilience_load(KEY, SECOND).is_current is None
    assert str(state_file(one)) not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_freshness_read_maps_nothing(tmp_path: Path) -> None:
    mapped = FileStorage(f"file://{tmp_path}/mapped")
    put(mapped, b"here")
    one = FileStorage(f"file://{tmp_path}/read", settings(freshness="read"))
    snapshot = put(one, b"here")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(state_file(mapped)) in maps
    assert str(state_file(one)) not in maps
    assert snapshot.is_current is not None
    assert snapshot.is_current()


def test_a_url_that_names_no_folder_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="file:///absolute/folder"):
        FileStorage("file:relative")


def test_a_descriptor_is_closed_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    closed: list[int] = []
    descriptor = _file.Descriptor(os.open(tmp_path / "file", os.O_RDONLY))
    number = descriptor.number
    descriptor.close(closed.append)
    descriptor.close(closed.append)
    assert closed == [number]
    os.close(number)
