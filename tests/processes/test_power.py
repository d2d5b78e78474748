"""The power fails before each call that changes something: with `fsync` what was acknowledged is there afterwards.

A child works on a small disk, an ext4 in a file, and is killed before its n-th call.  What that file holds then, and
not what the system had yet to write to it, is mounted beside it and looked at.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import contextmanager
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import tracing
from processes.disks import Disk, without_power
from processes.test_file_storage import KEY, LONG, add_one, alone
from processes.test_system_calls import counted, hooks, look, struck

from resilience import StorageCorrupt
from resilience_filelock import FileStorage

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Literal

    from processes.test_system_calls import Say

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""


@pytest.fixture(scope="module", autouse=True)
def _traceable() -> None:
    if not alone(tracing.works):
        pytest.skip("a child may not be traced here by ptrace, or it is not Linux on x86-64")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.eject()


def on_the_disk(place: str) -> None:
    """See that a folder is there afterwards, which is not what is tested."""
    folder = os.open(place, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def storage(place: Path | str, durability: Literal["none", "fsync"] = "none") -> FileStorage:
    return FileStorage(f"file://{place}/state", FileStorage.Settings(durability=durability))


@contextmanager
def power_failed(image: Path, place: str) -> Generator[str]:
    """Copy the disk as it is now, and tell where a folder of it is in the copy."""
    aside = image.parent / "aside"
    aside.mkdir()
    with without_power(image, aside) as disk:
        yield str(disk / Path(place).name)
    shutil.rmtree(aside)


# --- all that changes a record ----------------------------------------------------------------------------------------


def all_hooks(durability: str, place: str, say: Say) -> None:
    on_the_disk(place)
    hooks(durability, place, say)


def fail_with_fsync(image: Path, disk: str) -> int:
    times = 0
    for place, run in struck(partial(all_hooks, "fsync"), disk, refused=False):
        with power_failed(image, place) as found:
            look(found, run.said)
        one = storage(place, "fsync")
        acknowledged = add_one(one)  # upon what the other one began, and may not have brought to the disk
        one.close()
        with power_failed(image, place) as found:
            again = storage(found)
            assert add_one(again) == acknowledged + 1, run.said
            again.close()
        times += 1
    return times


def test_with_fsync_nothing_acknowledged_is_lost(disk: Disk) -> None:
    assert alone(fail_with_fsync, disk.image, str(disk.place)) > 50


def fail_without(image: Path, disk: str) -> tuple[int, int]:
    """How often the power failed, and how often something was lost by it."""
    times = lost = 0
    for place, run in struck(partial(all_hooks, "none"), disk, refused=False, every=3):
        with power_failed(image, place) as found:
            lost += begun_again(found) < counted(run.said)
        times += 1
    return times, lost


def begun_again(found: str) -> int:
    """The count that was found, damaged or not; from there all goes on."""
    one = storage(found)
    with one.resilience_lock(KEY, LONG):
        try:
            snapshot = one.resilience_load(KEY, LONG)
        except StorageCorrupt:
            one.resilience_discard(KEY, "the power failed", LONG)
            snapshot = one.resilience_load(KEY, LONG)
        saved = one.resilience_save(KEY, b"afterwards", snapshot.version, None, LONG)
        assert one.resilience_load(KEY, LONG) == saved
    one.close()
    return json.loads(snapshot.payload)["count"] if snapshot.payload else 0


def test_without_it_something_is_and_all_goes_on(disk: Disk) -> None:
    times, lost = alone(fail_without, disk.image, str(disk.place))
    assert times > 10
    assert lost


# --- a commit that is half on the disk --------------------------------------------------------------------------------


def long_commits(durability: Literal["none", "fsync"], place: str, say: Say) -> None:
    """Commits of more than one sector, to a record that is on the disk."""
    add_one(storage(place, "fsync"), padding=SECTOR)
    one = storage(place, durability)
    one.resilience_load(KEY, LONG)
    tracing.begin()
    for _ in range(2):
        say("commit")  # said before it is done: so what was done is one less
        add_one(one, padding=SECTOR)
    tracing.end()
    one.close()


def torn(old: bytes, new: bytes) -> Iterator[bytes]:
    """What was on the disk with some sectors of what had yet to be written to it, each way in turn."""
    changed = [place for place in range(0, len(old), SECTOR) if old[place:][:SECTOR] != new[place:][:SECTOR]]
    for some in chain.from_iterable(combinations(changed, many) for many in range(len(changed) + 1)):
        image = bytearray(old)
        for place in some:
            image[place : place + SECTOR] = new[place : place + SECTOR]
        yield bytes(image)


def tear(durability: Literal["none", "fsync"], image: Path, disk: str) -> int:
    """How many torn records were looked at."""
    times = 0
    for place, run in struck(partial(long_commits, durability), disk, refused=False):
        (file,) = Path(place, "state").rglob("*.state")
        with power_failed(image, place) as found:
            old = Path(found, file.relative_to(place)).read_bytes()
        for record in torn(old, file.read_bytes()):
            state = image.parent / "torn"
            copy = state / file.relative_to(place)
            copy.parent.mkdir(parents=True)
            copy.write_bytes(record)
            count = begun_again(str(state))
            assert count in range(1 if durability == "none" else len(run.said), len(run.said) + 2), run.said
            shutil.rmtree(state)
            times += 1
    return times


@pytest.mark.parametrize("durability", ["none", "fsync"])
def test_a_torn_record_is_the_old_one_or_the_new(disk: Disk, durability: str) -> None:
    assert alone(tear, durability, disk.image, str(disk.place)) > 10
