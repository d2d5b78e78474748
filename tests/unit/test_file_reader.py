"""Reading records without opening them for good: what the reader says is what the storage says, or it says nothing."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
from storages import giving

from resilience import Key, StorageError, StorageUnavailable
from resilience_filelock import FileReader, FileStorage, _paths, reading
from resilience_filelock._record import HEAD, HEAD_OFFSET, RETIRED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = Key("circuit_breaker", "payments")
SECOND = 1.0


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    return FileStorage(f"file://{tmp_path}/state")


@pytest.fixture
def reader(storage: FileStorage) -> FileReader:
    return FileReader(storage.url)


def put(storage: FileStorage, payload: bytes, key: Key = KEY) -> None:
    with storage.resilience_lock(key, SECOND):
        storage.resilience_save(key, payload, storage.resilience_load(key, SECOND).version, None, SECOND)


def file_of(storage: FileStorage, key: Key = KEY) -> Path:
    from pathlib import Path

    return Path(storage.folder) / f"{_paths.base_of(key)}.state"


def test_it_reads_what_was_committed_last(storage: FileStorage, reader: FileReader) -> None:
    for payload in (b"one", b"two", b"three"):
        put(storage, payload)
        seen, kept = reader.resilience_load(KEY, SECOND), storage.resilience_load(KEY, SECOND)
        assert (seen.payload, seen.version) == (payload, kept.version)
        assert seen.is_current is None


def test_a_file_without_a_record_is_none(storage: FileStorage, reader: FileReader) -> None:
    storage.resilience_load(KEY, SECOND)
    assert reader.resilience_load(KEY, SECOND).version is None
    assert list(reader.records("circuit_breaker")) == []


def test_the_longest_names_fit_into_one_look(storage: FileStorage, reader: FileReader) -> None:
    key = Key("circuit_breaker", "\N{PILE OF POO}" * 1000)
    put(storage, b"here", key)
    assert reader.resilience_load(key, SECOND).payload == b"here"
    assert [(found, snapshot and snapshot.payload) for found, snapshot in reader.records("circuit_breaker")] == [
        (key, b"here")
    ]


def test_without_a_file_or_a_folder_the_storage_has_to_make_them(storage: FileStorage, reader: FileReader) -> None:
    with pytest.raises(FileNotFoundError):
        reader.resilience_load(KEY, SECOND)
    with pytest.raises(FileNotFoundError):
        list(reader.records("circuit_breaker"))
    put(storage, b"other", Key("circuit_breaker", "other"))
    with pytest.raises(FileNotFoundError):
        reader.resilience_load(KEY, SECOND)


def grow(path: Path, storage: FileStorage) -> None:
    put(storage, b"x" * 50_000)
    assert path.stat().st_size > 12_288


def truncate(path: Path, storage: FileStorage) -> None:
    storage.close()
    os.truncate(path, path.stat().st_size - 1)


def retire(path: Path, storage: FileStorage) -> None:
    _change_head(path, lambda word: word | RETIRED)


def flip_the_head(path: Path, storage: FileStorage) -> None:
    _change_head(path, lambda word: word ^ 1 << 20)


def tear_the_slot(path: Path, storage: FileStorage) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"here")] ^= 1
    path.write_bytes(data)


def _change_head(path: Path, change: Callable[[int], int]) -> None:
    data = bytearray(path.read_bytes())
    data[HEAD_OFFSET : HEAD_OFFSET + HEAD.size] = HEAD.pack(change(HEAD.unpack_from(data, HEAD_OFFSET)[0]))
    path.write_bytes(data)


@pytest.mark.parametrize("fault", [grow, truncate, retire, flip_the_head, tear_the_slot])
def test_what_takes_more_than_a_look_is_the_storages(
    storage: FileStorage, reader: FileReader, fault: Callable[[Path, FileStorage], None]
) -> None:
    put(storage, b"there")
    put(storage, b"here")
    fault(file_of(storage), storage)
    with pytest.raises(reading.Unclear):
        reader.resilience_load(KEY, SECOND)
    assert list(reader.records("circuit_breaker")) == [(KEY, None)]


def test_another_keys_file_is_not_believed(storage: FileStorage, reader: FileReader) -> None:
    other = Key("circuit_breaker", "other")
    put(storage, b"here")
    put(storage, b"other", other)
    file_of(storage).write_bytes(file_of(storage, other).read_bytes())
    with pytest.raises(reading.Unclear):
        reader.resilience_load(KEY, SECOND)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def nonsense(path: Path) -> None:
    path.write_bytes(b"no record at all")


def unreadable_name(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"payments", b"payment\n"))


@pytest.mark.parametrize("fault", [link, pipe, folder])
def test_what_is_no_record_is_passed_over(
    storage: FileStorage, reader: FileReader, fault: Callable[[Path], None]
) -> None:
    put(storage, b"here")
    fault(file_of(storage))
    with pytest.raises((reading.Unclear, OSError)):
        reader.resilience_load(KEY, SECOND)
    assert list(reader.records("circuit_breaker")) == []
    assert list(storage.resilience_keys()) == []


@pytest.mark.parametrize("fault", [nonsense, unreadable_name])
def test_a_damaged_record_is_listed_by_the_name_of_its_file(
    storage: FileStorage, reader: FileReader, caplog: pytest.LogCaptureFixture, fault: Callable[[Path], None]
) -> None:
    put(storage, b"here")
    fault(file_of(storage))
    assert list(reader.records("circuit_breaker")) == [(KEY, None)]
    assert list(storage.resilience_keys()) == [KEY]
    assert caplog.records == []
    lost = file_of(storage).rename(file_of(storage).with_name("api-example-com-0123456789abcdef0123.state"))
    for listed in (partial(reader.records, "circuit_breaker"), storage.resilience_keys):
        assert list(listed()) == []
        (logged,) = caplog.records
        assert logged.exc_info is not None
        assert f"'{lost}' cannot be read; restore it" in str(logged.exc_info[1])
        caplog.clear()


def test_another_users_file_is_not_read(
    storage: FileStorage, reader: FileReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, b"here")
    file_of(storage).parent.chmod(0o770)  # somebody else could have put it there
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(reading, "distrust", giving(None))
    with pytest.raises(reading.Unclear):
        reader.resilience_load(KEY, SECOND)
    assert list(reader.records("circuit_breaker")) == []


@pytest.mark.parametrize(
    ("number", "passed_over"), [(errno.ENOENT, True), (errno.EACCES, True), (errno.EMFILE, False), (errno.EIO, False)]
)
def test_a_file_that_goes_while_it_is_listed_is_passed_over_one_that_cannot_be_read_now_is_not(
    storage: FileStorage, reader: FileReader, monkeypatch: pytest.MonkeyPatch, *, number: int, passed_over: bool
) -> None:
    """Else who lists or copies all would miss one, and not know."""
    put(storage, b"here")
    open_file = os.open

    def failing(path: str, flags: int) -> int:
        if str(path).endswith(".state"):
            raise OSError(number, os.strerror(number), path)
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", failing)
    if passed_over:
        assert list(reader.records("circuit_breaker")) == []
        assert list(storage.resilience_keys()) == []
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            list(reader.records("circuit_breaker"))
        with pytest.raises(StorageUnavailable, match=f"cannot list.*{os.strerror(number)}"):
            storage.resilience_keys()


@pytest.mark.parametrize("where", ["state", "state/circuit_breaker"])
def test_a_folder_that_everyone_may_write_to_is_not_believed(
    storage: FileStorage, reader: FileReader, tmp_path: Path, where: str
) -> None:
    put(storage, b"here")
    (tmp_path / where).chmod(0o777)
    with pytest.raises(reading.Unclear):
        reader.resilience_load(KEY, SECOND)
    with pytest.raises(reading.Unclear):
        list(reader.records("circuit_breaker"))
    with pytest.raises(StorageError):
        FileStorage(storage.url).resilience_load(KEY, SECOND)


def test_on_a_network_file_system_the_storage_decides(
    storage: FileStorage, reader: FileReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, b"here")
    monkeypatch.setattr(os, "major", giving(0))
    assert reader.resilience_load(KEY, SECOND).payload == b"here"
    monkeypatch.setattr(_paths, "file_system_of", giving("nfs4"))
    with pytest.raises(reading.Unclear):
        reader.resilience_load(KEY, SECOND)


def test_a_disk_is_told_without_the_table_of_mounts(
    storage: FileStorage, reader: FileReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, b"here")
    monkeypatch.setattr(os, "major", giving(254))
    monkeypatch.setattr(_paths, "file_system_of", None)
    assert reader.resilience_load(KEY, SECOND).payload == b"here"


# --- very many --------------------------------------------------------------------------------------------------------


def count_calls(monkeypatch: pytest.MonkeyPatch, *names: str) -> dict[str, int]:
    calls: dict[str, int] = dict.fromkeys(names, 0)

    def counting(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **named: object) -> object:
            calls[name] += 1
            return call(*arguments, **named)

        return counted

    for name in names:
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    monkeypatch.setattr(reading, "pread", os.pread)
    return calls


def test_each_of_two_hundred_records_costs_three_calls(
    storage: FileStorage, reader: FileReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        put(storage, b"%d" % number, Key("circuit_breaker", f"tool:{number}"))
    storage.close()
    calls = count_calls(monkeypatch, "open", "close", "fstat", "lstat", "stat", "listdir", "pread")
    found = dict(reader.records("circuit_breaker"))
    assert len(found) == 200
    assert calls == {"open": 200, "close": 200, "pread": 200, "lstat": 2, "fstat": 0, "stat": 0, "listdir": 0}


def test_a_commit_costs_the_same_however_many_there_are(storage: FileStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("open", "close", "fstat", "listdir", "scandir", "pread")  # and an `lstat` a second
    put(storage, b"one")
    calls = count_calls(monkeypatch, *names)
    put(storage, b"two")
    few = dict(calls)
    for number in range(200):
        put(storage, b"%d" % number, Key("circuit_breaker", f"tool:{number}"))
    calls.update(dict.fromkeys(names, 0))
    put(storage, b"three")
    assert calls == few
    assert few["scandir"] == few["listdir"] == few["open"] == 0
