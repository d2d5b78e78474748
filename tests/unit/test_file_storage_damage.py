"""What the file storage makes of files that were damaged, forged, or written by another version."""
# ruff: noqa: FBT001 - parametrized tests take booleans as they come

from __future__ import annotations

import os
import shutil
import struct
from binascii import crc32
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resilience import (
    Key,
    Snapshot,
    StorageCorrupt,
    StorageError,
    StorageIncompatible,
    StorageUnavailable,
    Version,
    clock,
)
from resilience_filelock import FileStorage, _file, _paths, _record
from resilience_filelock._lock import native

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key("circuit_breaker", "payments")
SECOND = 1.0
RETIRED = 1 << 63


def giving(value: object) -> Callable[..., Any]:
    """Make a function that takes anything and gives the same each time."""
    return lambda *_args, **_named: value


def put(one: FileStorage, payload: bytes, key: Key = KEY) -> Snapshot:
    with one.resilience_lock(key, SECOND):
        return one.resilience_save(key, payload, one.resilience_load(key, SECOND).version, None, SECOND)


def recover(one: FileStorage) -> None:
    """What the engine does with a damaged record."""
    with one.resilience_lock(KEY, SECOND):
        try:
            one.resilience_load(KEY, SECOND)
        except StorageCorrupt as error:
            one.resilience_discard(KEY, str(error), SECOND)
        assert one.resilience_load(KEY, SECOND).version is None
    put(one, b"anew")
    assert one.resilience_load(KEY, SECOND).payload == b"anew"


class Record:
    """A file with two committed versions."""

    def __init__(self, folder: Path) -> None:
        self.url = f"file://{folder}/state"
        one = FileStorage(self.url)
        put(one, b"the first version")
        version = put(one, b"the second version").version
        assert version is not None
        self.version = version
        (self.path,) = Path(one.folder).glob("*/*.state")
        self.data = self.path.read_bytes()
        one.close()

    def write(self, data: bytes) -> FileStorage:
        """Replace the file as a restored backup would; a storage that has not seen it."""
        other = self.path.with_name("other")
        other.write_bytes(data)
        other.rename(self.path)
        return FileStorage(self.url)

    def patched(self, offset: int, part: bytes) -> FileStorage:
        return self.write(self.data[:offset] + part + self.data[offset + len(part) :])


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


HEAD, HEADER, SLOT_0, SLOT_1, END = 8, 16, 512, 2048, 3584


def head(number: int) -> bytes:
    return struct.pack("=Q", _record.word_of(number))


def test_the_layout_is_the_one_that_is_documented(record: Record) -> None:
    assert len(record.data) == END
    assert record.data[HEADER : HEADER + 16] == b"resilience-state"
    assert b"the second version\n" in record.data[SLOT_0:SLOT_1]
    assert b"the first version\n" in record.data[SLOT_1:]
    assert record.data[HEAD:HEADER] == head(2)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16, 17, 40, 67, 68, 90, 511, 512, 1000, 2047, 2048, 2100, 3583])
def test_a_truncated_file_is_corrupt_and_can_be_set_aside(record: Record, length: int) -> None:
    one = record.write(record.data[:length])
    with pytest.raises(StorageCorrupt, match=r"payments.*bytes|header|begin") as caught:
        one.resilience_load(KEY, SECOND)
    assert caught.value.key == KEY
    with one.resilience_lock(KEY, SECOND), pytest.raises(StorageCorrupt):
        one.resilience_save(KEY, b"new", record.version, None, SECOND)
    recover(one)
    (kept,) = record.path.parent.glob("*.damaged-*")
    assert kept.read_bytes()[HEADER:length] == record.data[HEADER:length]


def test_a_file_that_is_truncated_while_it_is_open_is_noticed(record: Record) -> None:
    one = FileStorage(record.url)
    one.resilience_load(KEY, SECOND)
    os.truncate(record.path, 600)
    with pytest.raises(StorageCorrupt):
        one.resilience_load(KEY, SECOND)
    recover(one)


def test_a_file_that_is_truncated_while_it_is_locked_is_noticed(record: Record) -> None:
    one = FileStorage(record.url)
    with one.resilience_lock(KEY, SECOND):
        with record.path.open("r+b") as file:
            file.seek(HEAD)
            file.write(head(3))
            file.truncate(SLOT_1 + 10)
        assert one.resilience_load(KEY, SECOND).payload == b"the second version"
        with record.path.open("r+b") as file:
            file.seek(HEAD)
            file.write(head(4))
            file.truncate(SLOT_0 + 10)
        with pytest.raises(StorageCorrupt, match="no version that is whole"):
            one.resilience_save(KEY, b"new", Version(record.version.incarnation, 3), None, SECOND)


def test_a_file_that_is_truncated_to_nothing_is_noticed_by_those_who_read(tmp_path: Path) -> None:
    record = Record(tmp_path)
    one = FileStorage(record.url, FileStorage.Settings(freshness="read"))
    known = one.resilience_load(KEY, SECOND)
    os.truncate(record.path, 0)
    assert known.is_current is not None
    assert not known.is_current()
    with pytest.raises(StorageCorrupt):
        one.resilience_load(KEY, SECOND)
    with pytest.raises(StorageCorrupt), one.resilience_lock(KEY, SECOND):
        one.resilience_save(KEY, b"new", record.version, None, SECOND)
    recover(one)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_healed_or_noticed(record: Record, bit: int) -> None:
    """Nobody ever sees what was never committed; of the head and of both slots one may be damaged."""
    committed = {b"the first version": 1, b"the second version": 2}
    used = [*range(SLOT_0 + 80), *range(SLOT_1, SLOT_1 + 80), SLOT_1 - 1, END - 1]
    for offset in used:
        one = record.patched(offset, bytes([record.data[offset] ^ (1 << bit)]))
        try:
            snapshot = one.resilience_load(KEY, SECOND)
        except StorageCorrupt:
            assert HEADER <= offset < SLOT_0
            continue
        finally:
            one.close()
        assert snapshot.payload is not None
        assert snapshot.version == Version(record.version.incarnation, committed[snapshot.payload])
        # Only damage to the newest version itself brings back the one before.
        assert snapshot.payload == b"the second version" or SLOT_0 <= offset < SLOT_1


@pytest.mark.parametrize(
    ("offset", "falls_back"), [(SLOT_0 + 50, True), (HEAD, False), (HEAD + 7, False)], ids=["slot", "head", "retired"]
)
def test_after_a_damage_versions_go_on_above_all_that_were(record: Record, offset: int, falls_back: bool) -> None:
    one = record.patched(offset, bytes([record.data[offset] ^ 0x80]))
    snapshot = one.resilience_load(KEY, SECOND)
    assert snapshot.payload == (b"the first version" if falls_back else b"the second version")
    assert snapshot.is_current is not None
    assert snapshot.is_current()
    assert one.resilience_load(KEY, SECOND) is snapshot
    version = put(one, b"goes on").version
    assert version is not None
    assert version.incarnation == record.version.incarnation
    assert version.number == (4 if falls_back else 3)
    other = FileStorage(record.url)
    assert other.resilience_load(KEY, SECOND).payload == b"goes on"
    assert put(other, b"and on").version == Version(version.incarnation, version.number + 1)


def test_the_slot_that_is_whole_survives_the_next_commit(record: Record) -> None:
    """After a fall back the damaged slot is written, so that a crash right then still loses nothing."""
    one = record.patched(SLOT_0 + 50, b"\xff\xff")
    one.resilience_load(KEY, SECOND)
    put(one, b"goes on")
    assert b"the first version" in record.path.read_bytes()[SLOT_1:]


def test_a_commit_that_was_killed_before_its_head_is_taken_if_the_last_one_is_damaged(record: Record) -> None:
    incarnation = record.version.incarnation.encode()
    half_done = _record.encode_slot(3, incarnation, None, b"the third version")
    whole = record.data[:SLOT_1] + half_done + record.data[SLOT_1 + len(half_done) :]
    assert record.write(whole).resilience_load(KEY, SECOND).payload == b"the second version"
    one = record.write(whole[: SLOT_0 + 50] + b"\xff\xff" + whole[SLOT_0 + 52 :])
    snapshot = one.resilience_load(KEY, SECOND)
    assert (snapshot.payload, snapshot.version) == (b"the third version", Version(record.version.incarnation, 3))
    assert put(one, b"goes on").version == Version(record.version.incarnation, 4)


def test_both_slots_damaged_is_corrupt(record: Record) -> None:
    one = record.write(record.data[: SLOT_0 + 50] + bytes(END - SLOT_0 - 50))
    with pytest.raises(StorageCorrupt, match="no version that is whole"):
        one.resilience_load(KEY, SECOND)
    with one.resilience_lock(KEY, SECOND), pytest.raises(StorageCorrupt):
        one.resilience_save(KEY, b"new", record.version, None, SECOND)
    assert one.resilience_delete(KEY, None, SECOND) is True
    assert not record.path.exists()


def test_a_damaged_record_that_grows_goes_on_above(record: Record) -> None:
    one = record.patched(SLOT_0 + 50, b"\xff\xff")
    one.resilience_load(KEY, SECOND)
    assert put(one, bytes(5000)).version == Version(record.version.incarnation, 4)


def test_corrupt_files_can_be_deleted_or_discarded_without_the_lock(record: Record) -> None:
    one = record.write(b"not a record, but long enough to have a header" * 10)
    with pytest.raises(StorageCorrupt, match="does not begin like a record"):
        one.resilience_load(KEY, SECOND)
    one.resilience_discard(KEY, "test", SECOND)
    (kept,) = record.path.parent.glob("*.damaged-*")
    # What never was a record is not written to.
    assert kept.read_bytes().startswith(b"not a record, but long")
    one = record.write(b"\xff" * 600)  # as if it were retired, too
    with one.resilience_lock(KEY, SECOND):
        assert record.path.read_bytes() == b"\xff" * 600
    assert one.resilience_delete(KEY, None, SECOND) is True


# --- hostile ----------------------------------------------------------------------------------------------------------


def forged(key: bytes = b"circuit_breaker\npayments\n", **changed: int) -> bytes:
    """A file with a valid checksum and sizes at will."""
    kind, _, name = key[:-1].partition(b"\n")
    sizes = {"header": 512, "slot": 1536, "kind": len(kind), "name": len(name)} | changed
    parts = (b"resilience-state", 1, 1 ^ 0xFFFF, *sizes.values())
    layout = struct.Struct("=16sHHIIHHI")
    return (bytes(16) + layout.pack(*parts, crc32(layout.pack(*parts, 0) + key)) + key).ljust(9000, b"\0")


def test_the_forger_knows_the_format(record: Record) -> None:
    assert record.write(forged()).resilience_load(KEY, SECOND).version is None


@pytest.mark.parametrize(
    "data",
    [
        forged(header=0),
        forged(header=0xFFFFFE00),
        forged(header=513),
        forged(slot=0),
        forged(slot=0xFFFFFE00),
        forged(slot=1537),
        forged(kind=0xFFFF),
        forged(name=0),
        forged(key=b"circuit_breaker\npay\xff\xfeents\n"),
        forged(key=b"circuit_breaker\n\n"),
        forged(key=b" \n \n"),
    ],
)
def test_hostile_sizes_allocate_nothing(record: Record, data: bytes) -> None:
    one = record.write(data)
    with pytest.raises(StorageCorrupt):
        one.resilience_load(KEY, SECOND)
    assert list(one.resilience_keys()) == [KEY]
    recover(one)


def slot(length: int, number: int, incarnation: bytes, payload: bytes) -> bytes:
    body = struct.pack("=IQd16s", length, number, float("nan"), incarnation) + payload
    return struct.pack("=I", crc32(body)) + body


@pytest.mark.parametrize(
    "content",
    [
        slot(0xFFFFFFFF, 1, b"0" * 16, b"here"),
        slot(5000, 1, b"0" * 16, b"here"),
        slot(4, 1, b"\xff" * 16, b"here"),
        slot(4, 0, b"0" * 16, b"here"),
        slot(4, 1 << 63, b"0" * 16, b"here"),
        slot(4, 3, b"0" * 16, b"other than its checksum"),
    ],
)
def test_hostile_slots_are_not_believed(record: Record, content: bytes) -> None:
    data = bytearray(forged())
    data[HEAD:HEADER] = head(1)
    data[SLOT_1 : SLOT_1 + len(content)] = content
    one = record.write(bytes(data))
    with pytest.raises(StorageCorrupt):
        one.resilience_load(KEY, SECOND)


def test_a_number_beyond_all_counting_is_damage(record: Record) -> None:
    one = record.patched(HEAD, head((1 << 48) - 1))
    assert one.resilience_load(KEY, SECOND).payload == b"the second version"
    assert put(one, b"goes on").version == Version(record.version.incarnation, 3)


def test_a_sparse_gigabyte_is_not_read(record: Record) -> None:
    os.truncate(record.path, 1 << 30)
    one = FileStorage(record.url)
    before = clock.monotonic()
    assert one.resilience_load(KEY, SECOND).payload == b"the second version"
    with record.path.open("r+b") as file:
        file.write(bytes(100))
    with pytest.raises(StorageCorrupt):
        FileStorage(record.url).resilience_load(KEY, SECOND)
    assert clock.monotonic() - before < 1


def test_a_record_copied_to_another_name_is_not_that_names_state(record: Record) -> None:
    other = Key("circuit_breaker", "other")
    one = FileStorage(record.url)
    one.resilience_load(other, SECOND)
    (path,) = record.path.parent.glob("other-*")
    one.close()
    shutil.copy(record.path, path.with_name("copy"))
    path.with_name("copy").rename(path)
    with pytest.raises(StorageCorrupt, match="is the record of circuit_breaker 'payments'"):
        one.resilience_load(other, SECOND)


def test_two_names_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_paths, "_digest", giving("00"))
    one = FileStorage(f"file://{tmp_path}/state")
    put(one, b"of the first", Key("circuit_breaker", "a/b"))
    for work in (one.resilience_load, one.resilience_lock):
        with pytest.raises(StorageUnavailable, match="'a/b', whose names have the same hash; rename one") as caught:
            work(Key("circuit_breaker", "a-b"), SECOND)
        assert caught.value.key == Key("circuit_breaker", "a-b")
    assert one.resilience_load(Key("circuit_breaker", "a/b"), SECOND).payload == b"of the first"


def test_a_newer_format_is_left_alone(record: Record) -> None:
    newer = bytearray(record.data)
    newer[32:36] = struct.pack("=HH", 2, 2 ^ 0xFFFF)
    one = record.write(bytes(newer))
    with pytest.raises(StorageIncompatible, match="has format 2, this library knows 1; update"):
        one.resilience_load(KEY, SECOND)
    with one.resilience_lock(KEY, SECOND):
        with pytest.raises(StorageIncompatible):
            one.resilience_save(KEY, b"new", record.version, None, SECOND)
        with pytest.raises(StorageIncompatible):
            one.resilience_discard(KEY, "test", SECOND)
    with pytest.raises(StorageIncompatible):
        one.resilience_delete(KEY, None, SECOND)
    assert list(one.resilience_keys()) == [KEY]
    assert record.path.read_bytes()[8:] == bytes(newer)[8:]


# --- retired ----------------------------------------------------------------------------------------------------------


def retire(record: Record) -> None:
    with record.path.open("r+b") as file:
        file.seek(HEAD)
        (word,) = struct.unpack("=Q", file.read(8))
        file.seek(HEAD)
        file.write(struct.pack("=Q", word | RETIRED))


@pytest.mark.parametrize("timeout", [SECOND, 0])
def test_a_file_whose_deleter_died_in_between_is_mended(record: Record, timeout: float) -> None:
    one, two = FileStorage(record.url), FileStorage(record.url)
    known = two.resilience_load(KEY, SECOND)
    retire(record)
    assert known.is_current is not None
    assert not known.is_current()
    assert one.resilience_load(KEY, timeout).payload == b"the second version"
    assert known.is_current()
    retire(record)
    assert put(two, b"goes on").version == Version(record.version.incarnation, 3)


def test_an_interrupt_while_a_retired_file_is_given_back_leaves_no_lock(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = FileStorage(record.url), FileStorage(record.url)
    one.resilience_load(KEY, SECOND)
    retire(record)

    def struck(_fd: int) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "unlock", struck)
    with pytest.raises(KeyboardInterrupt):
        one.resilience_lock(KEY, SECOND)
    with two.resilience_lock(KEY, 0):
        pass
    with one.resilience_lock(KEY, 0):
        pass


def test_a_file_that_stays_retired_under_somebody_elses_lock_is_an_error_in_time(record: Record) -> None:
    one, two = FileStorage(record.url), FileStorage(record.url)
    with two.resilience_lock(KEY, SECOND):
        retire(record)
        before = clock.monotonic()
        with pytest.raises(StorageUnavailable, match="is replacing the file") as caught:
            one.resilience_load(KEY, 0.05)
        assert clock.monotonic() - before < 1
        assert caught.value.key == KEY
    assert one.resilience_load(KEY, SECOND).payload == b"the second version"


def test_a_file_that_is_retired_while_locked_is_never_written(record: Record) -> None:
    one = FileStorage(record.url)
    with one.resilience_lock(KEY, SECOND):
        retire(record)
        with pytest.raises(StorageCorrupt, match="retired although it was locked"):
            one.resilience_save(KEY, b"new", record.version, None, SECOND)
    assert one.resilience_load(KEY, SECOND).payload == b"the second version"


def test_deleting_a_record_that_somebody_retired_meanwhile(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    one = FileStorage(record.url)
    settled = FileStorage._settled

    def then_retire(*args: object) -> bool:
        result: bool = settled(*args)  # type: ignore[arg-type]  # whatever it takes
        retire(record)
        return result

    monkeypatch.setattr(FileStorage, "_settled", staticmethod(then_retire))
    assert one.resilience_delete(KEY, None, SECOND) is False
    assert not record.path.exists()


# --- readers and writers at one time ----------------------------------------------------------------------------------


def reading(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Let something happen before each read of a slot."""
    pread = os.pread

    def read(fd: int, length: int, offset: int) -> bytes:
        if offset >= SLOT_0:
            meanwhile()
        return pread(fd, length, offset)

    monkeypatch.setattr(_file, "pread", read)


def test_a_reader_overtaken_by_writers_reads_again(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    one, writer = FileStorage(record.url), FileStorage(record.url)
    put(writer, b"third")
    turns = iter(range(10))

    def overtake() -> None:
        if next(turns) < 3:
            monkeypatch.undo()
            put(writer, b"more")
            put(writer, b"and more")
            reading(monkeypatch, overtake)

    reading(monkeypatch, overtake)
    snapshot = one.resilience_load(KEY, SECOND)
    assert snapshot.payload == b"and more"
    assert snapshot.version is not None
    assert snapshot.version.number == 9


def test_a_reader_that_is_always_overtaken_gives_up_in_time(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    one, writer = FileStorage(record.url), FileStorage(record.url)
    put(writer, b"third")

    def overtake() -> None:
        monkeypatch.undo()
        put(writer, b"more")
        put(writer, b"and more")
        reading(monkeypatch, overtake)

    reading(monkeypatch, overtake)
    before = clock.monotonic()
    with pytest.raises(StorageError, match="faster than it can be read"):
        one.resilience_load(KEY, 0.02)
    assert clock.monotonic() - before < 1


def test_a_file_that_is_closed_again_and_again_gives_up_in_time(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FileStorage(record.url)

    def refresh(self: _file.RecordFile, deadline: float) -> None:
        raise ValueError

    monkeypatch.setattr(_file.RecordFile, "refresh", refresh)
    with pytest.raises(StorageUnavailable, match="closed by another thread"):
        one.resilience_load(KEY, 0.02)


def test_a_long_name_has_its_own_place(tmp_path: Path) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    for key in (Key("k" * 1000, "n" * 1000), Key("🦆" * 1000, "🦆" * 1000)):
        assert put(one, b"here", key).version is not None
    assert {key.name[0] for key in one.resilience_keys()} == {"n", "🦆"}
