"""The file storage fails: what callers see, within which time, and what is counted when it is back."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes.disks import Disk, run
from processes.support import METHODS, Crowd, breaker
from storages import Recorder

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Runtime, StorageError, StorageUnavailable
from resilience.fuse import RETRY_EVERY, SPREAD
from resilience.testing import ManualClock, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    Mode = Literal["local", "allow", "deny", "raise"]

MODES = ["local", "allow", "deny", "raise"]
TIMEOUT = 0.1
AGAIN = RETRY_EVERY + SPREAD
"""Seconds after which the storage is asked again, whatever chance adds."""
MARGIN = 2.0
"""Seconds that a busy machine may take to answer besides what was waited."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.eject()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place)
    yield place
    run("umount", "-l", place)


def fill(folder: Path) -> Path:
    stuffing = folder / "stuffing"
    with stuffing.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return stuffing


# --- what is seen -----------------------------------------------------------------------------------------------------


class World:
    """A runtime of this process, on a clock that stands still, and what its observers were told."""

    def __init__(self, url: str) -> None:
        self.clock = ManualClock(time.time())
        self.told = Recorder()
        self.runtime = Runtime(
            storage=url, storage_timeout=TIMEOUT, clock=self.clock, observers=[self.told], environ={}
        )

    def breaker(self, mode: Mode, name: str = "shared", threshold: int = 3) -> CircuitBreaker:
        return CircuitBreaker(name, runtime=self.runtime, failure_threshold=threshold, on_store_error=mode)


def let_in(guarded: CircuitBreaker) -> str:
    """What a caller sees."""
    started = time.monotonic()
    try:
        answer = guarded.call(lambda: "in")
    except CircuitOpenError:
        answer = "rejected"
    except StorageUnavailable:
        answer = "raised"
    assert time.monotonic() - started < TIMEOUT + MARGIN
    return answer


def fail(guarded: CircuitBreaker) -> str:
    """Make a call that fails; what its caller sees."""

    def failing() -> None:
        raise OSError("the dependency")

    answer = "nothing"
    started = time.monotonic()
    try:
        guarded.call(failing)
    except OSError:
        answer = "failed"
    except CircuitOpenError:
        answer = "rejected"
    except StorageUnavailable:
        answer = "raised"
    assert time.monotonic() - started < TIMEOUT + MARGIN
    return answer


EXPECTED = {
    "local": ["failed", "failed", "rejected", "rejected"],  # the private copy opens where the shared one would have
    "allow": ["failed", "failed", "failed", "failed"],
    "deny": ["failed", "rejected", "rejected", "rejected"],
    "raise": ["failed", "raised", "raised", "raised"],
}


class TestReadOnly:
    @pytest.mark.parametrize("mode", MODES)
    def test_while_the_files_are_open(self, disk: Disk, mode: Mode) -> None:
        world = World((disk.place / "state").as_uri())
        guarded = world.breaker(mode)
        assert fail(guarded) == "failed"
        disk.fail()
        assert [fail(guarded) for _ in range(4)] == EXPECTED[mode]
        assert guarded.status().degraded
        with pytest.raises(StorageError):
            guarded.reset()
        assert world.told.names == ["degraded"]
        assert world.told.events[0].data["mode"] == mode
        world.runtime.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_for_a_while(self, small: Path, mode: Mode) -> None:
        """Linux remounts nothing that is open for writing, so this process comes when it has been done."""
        url = (small / "state").as_uri()
        before = World(url)
        assert fail(before.breaker(mode)) == "failed"
        before.runtime.close()
        run("mount", "-o", "remount,ro", small)
        world = World(url)
        guarded = world.breaker(mode)
        answers = [fail(guarded) for _ in range(5)]
        assert answers[2:] == {**EXPECTED, "local": ["failed", "rejected", "rejected"]}[mode][-3:]
        assert guarded.status().degraded
        with pytest.raises(StorageError):
            guarded.reset()
        assert world.told.names == ["degraded"]

        run("mount", "-o", "remount,rw", small)
        world.clock.advance(AGAIN)
        assert fail(guarded) == "failed"
        assert world.told.names == ["degraded", "recovered"]
        status = guarded.status()
        assert (status.degraded, status.state, status.failure_count) == (False, CircuitState.CLOSED, 2)
        world.runtime.close()

    def test_a_state_that_was_open_stays_open(self, disk: Disk) -> None:
        world = World((disk.place / "state").as_uri())
        guarded = world.breaker("local", threshold=1)
        assert fail(guarded) == "failed"
        disk.fail()
        world.clock.advance(30)
        assert let_in(guarded) == "rejected"
        world.clock.advance(31)
        assert let_in(guarded) == "in"  # a probe of the private copy
        assert guarded.status().state is CircuitState.HALF_OPEN
        assert (world.told.names, world.told.transitions[-1].version) == (["degraded"], None)
        world.runtime.close()


class TestFullDisk:
    def test_a_breaker_that_is_there_goes_on(self, small: Path) -> None:
        world = World((small / "state").as_uri())
        guarded = world.breaker("local")
        assert fail(guarded) == "failed"
        fill(small)
        assert [fail(guarded) for _ in range(3)] == ["failed", "failed", "rejected"]
        assert guarded.status().state is CircuitState.OPEN
        assert world.told.names == []
        world.runtime.close()

    @pytest.mark.parametrize("mode", MODES)
    def test_a_new_breaker_has_an_outage_of_its_own(self, small: Path, mode: Mode) -> None:
        world = World((small / "state").as_uri())
        there, new = world.breaker("raise", "there"), world.breaker(mode, "new", threshold=2)
        assert fail(there) == "failed"
        stuffing = fill(small)
        answers = [fail(new) for _ in range(4)]
        assert set(answers[2:]) <= set(EXPECTED[mode])
        assert fail(there) == "failed"
        assert world.told.names == ["degraded"]
        assert world.told.events[0].key == ("circuit_breaker", "new")
        stuffing.unlink()
        world.clock.advance(AGAIN)
        fail(new)
        assert world.told.names == ["degraded", "recovered"]
        status = new.status()
        assert (status.degraded, status.failure_count) == (False, 1)
        world.runtime.close()


# --- a holder of the lock that does not go on -------------------------------------------------------------------------


def stop_with_the_lock(url: str) -> None:
    guarded = breaker(url)
    assert guarded._runtime is not None
    with guarded._runtime.opened.ports.lock(guarded._key, 1.0):
        os.kill(os.getpid(), signal.SIGSTOP)


class Holder:
    """A process that is stopped while it has the lock."""

    def __init__(self, crowd: Crowd, url: str) -> None:
        process = crowd.members[0][0]
        assert process.pid is not None
        self.pid = process.pid
        self._crowd = crowd
        crowd.begin(0, stop_with_the_lock, url)
        wait_until(lambda: self._state() == "T", "the stop")

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        assert self._crowd.answer(0) is None


@pytest.fixture
def stopped(url: str) -> Iterator[Holder]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc to see that a process is stopped")
    breaker(url, failure_threshold=100).record_failure()
    with Crowd(METHODS[0], 1) as crowd:
        holder = Holder(crowd, url)
        yield holder
        os.kill(holder.pid, signal.SIGCONT)


class TestStoppedHolder:
    @pytest.mark.parametrize("mode", MODES)
    def test_answers_in_time_and_counts_once(self, stopped: Holder, url: str, mode: Mode) -> None:
        world = World(url)
        guarded = world.breaker(mode, threshold=100)
        assert let_in(guarded) == "in"  # what is closed needs no lock; that success would forget the first failure
        assert world.told.names == []
        assert fail(guarded) == "failed"
        assert world.told.names == ["degraded"]
        started = time.monotonic()
        answers = [fail(guarded) for _ in range(10)]
        assert time.monotonic() - started < TIMEOUT + MARGIN  # all of them, as nobody asks again within the second
        assert set(answers) == set(EXPECTED[mode][-1:] if mode in {"deny", "raise"} else ["failed"])
        assert guarded.status().degraded

        stopped.go_on()
        world.clock.advance(AGAIN)
        assert fail(guarded) == "failed"
        assert world.told.names == ["degraded", "recovered"]
        # What the shared state let in is owed, and was after the success; so is what a private copy let in in the same
        # epoch: where the lock could not be had, nobody else can have counted it.
        failures = 12 if mode == "local" else 2
        status = guarded.status()
        assert (status.degraded, status.failure_count) == (False, failures)
        world.runtime.close()

    def test_one_time_out_is_no_outage(self, stopped: Holder, url: str) -> None:
        world = World(url)
        guarded = world.breaker("local", threshold=100)
        assert fail(guarded) == "failed"
        stopped.go_on()
        assert fail(guarded) == "failed"
        assert guarded.status().failure_count == 3
        assert world.told.names == []
        world.runtime.close()

    def test_what_is_owed_is_paid_by_looking(self, stopped: Holder, url: str) -> None:
        world = World(url)
        guarded = world.breaker("local", threshold=100)
        assert fail(guarded) == "failed"
        assert guarded.status().failure_count == 1
        stopped.go_on()
        world.clock.advance(AGAIN)
        assert guarded.status().failure_count == 2
        world.runtime.close()

    def test_what_is_owed_is_paid_at_the_end(self, stopped: Holder, url: str) -> None:
        world = World(url)
        assert fail(world.breaker("local", threshold=100)) == "failed"
        kept = world.breaker("local", threshold=100)
        assert fail(kept) == "failed"
        stopped.go_on()
        world.clock.advance(AGAIN)
        world.runtime.close()
        assert breaker(url, failure_threshold=100).status().failure_count >= 2

    def test_a_probe_that_needs_the_lock_is_rejected(self, url: str) -> None:
        world = World(url)
        guarded = world.breaker("local", threshold=1)
        assert fail(guarded) == "failed"
        world.clock.advance(61)
        with Crowd(METHODS[0], 1) as crowd:
            stopped = Holder(crowd, url)
            with pytest.raises(CircuitOpenError, match="lock"):
                guarded.acquire()
            stopped.go_on()
        assert let_in(guarded) == "in"
        assert world.told.moves == [("closed", "open"), ("open", "half_open")]
        world.runtime.close()

    def test_controls_say_that_they_were_not_obeyed(self, stopped: Holder, url: str) -> None:
        world = World(url)
        with pytest.raises(StorageError):
            world.breaker("local").force_open()
        stopped.go_on()
        assert world.breaker("local").status().state is CircuitState.CLOSED
        world.runtime.close()
