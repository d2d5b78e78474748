"""Histories that cannot be are found, those that can raise nothing."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Key, StorageConflict, StorageUnavailable, Version
from resilience.testing import (
    Anomaly,
    Diary,
    FaultyStorage,
    Operation,
    RecordedStorage,
    check_history,
    check_order,
    check_replay,
    check_versions,
)
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path


def write(number: int | None, called: float, returned: float | None, event: Any = 1, result: Any = None) -> Operation:
    version = None if number is None else Version("life", number)
    return Operation("p", number or 0, "write", called, returned, version, event, result)


def read(number: int, called: float, returned: float | None) -> Operation:
    return Operation("r", number, "read", called, returned, Version("life", number) if number else None)


def add(state: int, event: int) -> tuple[int, int]:
    return state + event, state + event


def good(size: int, seed: int = 0) -> list[Operation]:
    """Commits and loads of several processes, each at some instant between its call and its return."""
    chance = random.Random(seed)
    made: list[Operation] = []
    total = 0
    for number in range(1, size + 1):
        event = chance.randrange(5)
        total += event
        made.append(write(number, number - chance.random(), number + chance.random(), event, total))
        made.append(read(number, number + 0.1 - chance.random() * 2, number + 0.1 + chance.random()))
    chance.shuffle(made)
    return made


@pytest.mark.parametrize("seed", range(10))
def test_clean_histories_raise_nothing(seed: int) -> None:
    assert check_history(good(300, seed), 0, add) == 300


def swapped(history: list[Operation], number: int) -> list[Operation]:
    """Let two neighbours get each other's versions."""
    numbers = {number: number + 1, number + 1: number}
    return [
        write(numbers[op.number], op.called, op.returned, op.event, op.result)
        if op.kind == "write" and op.number in numbers
        else op
        for op in history
    ]


@pytest.mark.parametrize(
    ("operations", "invariant", "says"),
    [
        ([write(1, 0, 1), write(1, 0, 1)], "I1", "was committed twice"),
        ([write(1, 0, 1), write(3, 2, 3)], "I1", "nobody committed 2@life"),
        ([write(0, 0, 1)], "I1", "begin at 1"),
        ([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], "I3", "a read saw version 1@life although 2@life was there"),
        ([write(1, 0, 1), read(0, 2, 3)], "I3", "a read saw version None"),
        ([write(2, 0, 1), write(1, 2, 3)], "I3", "1@life was committed after 2@life had been"),
    ],
)
def test_each_anomaly_is_found(operations: list[Operation], invariant: str, says: str) -> None:
    with pytest.raises(Anomaly, match=says) as caught:
        check_history(operations)
    assert caught.value.invariant == invariant
    assert caught.value.operations or invariant == "I1"


def test_a_wrong_result_is_found() -> None:
    history = [write(1, 0, 1, 1, 1), write(2, 2, 3, 1, 1)]
    with pytest.raises(Anomaly, match=r"I2: 2@life gave 1, its replay gives 2"):
        check_history(history, 0, add)


@pytest.mark.parametrize("seed", range(10))
def test_seeded_bugs_are_found(seed: int) -> None:
    history = good(100, seed)
    lost = [op for op in history if not (op.kind == "write" and op.number == 50)]
    doubled = [*history, write(50, 49.5, 50.5, 0, 0)]
    for broken in (lost, doubled, swapped(history, 50)):
        if broken is not history:
            with pytest.raises(Anomaly):
                check_history(broken, 0, lambda state, event: (state * 7 + event, state))


def test_a_write_that_never_returned_may_fill_a_gap() -> None:
    killed = write(None, 1.5, None, 5)
    history = [write(1, 0, 1, 1, 1), killed, write(3, 2, 3, 1, 7)]
    assert check_history(history, 0, add) == 2
    with pytest.raises(Anomaly, match="2 gaps"):
        check_versions([write(1, 0, 1), killed, write(4, 2, 3)])


def test_of_several_that_never_returned_the_right_one_is_found() -> None:
    history = [write(1, 0, 1, 1, 1), write(3, 2, 3, 1, 7), *(write(None, 0.5, None, event) for event in (3, 5, 4))]
    assert check_replay(history, 0, add) == 7


@pytest.mark.parametrize(
    ("unknown", "says"), [([], "no operation explains version number 2"), ([write(None, 0, None, 3)], "no operation")]
)
def test_a_gap_that_nothing_explains(unknown: list[Operation], says: str) -> None:
    with pytest.raises(Anomaly, match=says):
        check_replay([write(1, 0, 1, 1, 1), write(3, 2, 3, 1, 7), *unknown], 0, add)


def test_a_read_that_never_returned_says_nothing() -> None:
    check_order([write(1, 0, 1), read(0, 2, None)])


def test_two_incarnations_count_by_themselves() -> None:
    other = Operation("p", 1, "write", 5, 6, Version("other", 1))
    assert check_versions([write(1, 0, 1), write(2, 1, 2), other]) == 3


def test_forty_thousand_operations_in_seconds() -> None:
    assert check_history(good(20_000), 0, add) == 20_000


# --- diaries ----------------------------------------------------------------------------------------------------------


def test_a_diary_on_disk_holds_what_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    diary = Diary("one", str(path))
    done = diary.begin("write", "event")
    diary.end(done, Version("life", 1), "result")
    diary.begin("write", "cut short")
    diary.close()
    diary.close()
    with path.open("a") as file:
        file.write('{"n": 3, "half a l')
    first, second = Diary.read("one", path)
    assert (first.version, first.event, first.result) == (Version("life", 1), "event", "result")
    assert first.returned is not None
    assert (second.returned, second.version, second.event) == (None, None, "cut short")
    assert str(second).startswith("write #2 of one (called ")
    assert "never returned" in str(second)


def test_a_recorded_storage_writes_its_own_history() -> None:
    key = Key("test", "key")
    diary = Diary("one")
    inner = FaultyStorage(MemoryStorage("memory:"))
    storage = RecordedStorage(inner, diary)
    for number in range(1, 4):
        with storage.resilience_lock(key, 1):
            version = storage.resilience_load(key, 1).version
            storage.resilience_save(key, b"%d" % number, version, None, 1)
    assert check_history(diary.operations, None, lambda state, event: (event, event)) == 3
    with pytest.raises(StorageConflict):
        storage.resilience_save(key, b"wrong", None, None, 1)
    assert len(diary.operations) == 6
    inner.fail("save", after=True).fail("load")
    with pytest.raises(StorageUnavailable):
        storage.resilience_save(key, b"4", diary.operations[-1].version, None, 1)
    with pytest.raises(StorageUnavailable):
        storage.resilience_load(key, 1)
    assert [operation.returned for operation in diary.operations[6:]] == [None, None]
    assert check_versions(diary.operations) == 3


def test_partial_history_without_replay() -> None:
    assert check_history(good(5)) == 5
    assert partial(check_history, [])() == 0
