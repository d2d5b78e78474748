"""Writers killed at random moments: nothing damaged, nothing acknowledged lost, nothing twice; permits come back."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes.support import METHODS, PATIENCE, Crowd, breaker, number

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Runtime
from resilience.testing import wait_until

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

NEVER = 1_000_000

MOST = 900
"""Failures of one writer: all of a thousand together open no breaker, however long it takes to kill them."""

INTENT, DONE = b"?", b"!"


def write_until_killed(url: str, diary: str) -> None:
    """Record failures; say of each before it that it will be, and after it that it was."""
    descriptor = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    guarded = breaker(url, failure_threshold=NEVER)
    guarded.status()
    for _ in range(MOST):
        os.write(descriptor, INTENT)
        guarded.record_failure()
        os.write(descriptor, DONE)
    signal.pause()


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)


def kill_forks(url: str, folder: str, kills: int, seed: int) -> None:
    """Keep four forks of this process writing, and kill one after the other; each has a diary of its own."""
    chance = random.Random(seed)
    breaker(url, failure_threshold=NEVER).status()  # what is imported for it, the forks need not import each
    at_work: list[tuple[int, Path]] = []

    def hire() -> tuple[int, Path]:
        diary = Path(folder, f"diary {seed} {chance.random()}")
        diary.touch()
        writer = os.fork()
        if writer == 0:
            try:
                write_until_killed(url, str(diary))
            finally:  # whatever it was, the test sees a writer that says no more
                os._exit(1)
        return writer, diary

    def dismiss() -> None:
        writer, diary = at_work.pop(0)
        wait_until(lambda: diary.stat().st_size > 20, "the writer's work")
        time.sleep(chance.random() * 0.002)  # any moment of its work
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)

    try:
        for _ in range(kills):
            while len(at_work) < 4:
                at_work.append(hire())
            dismiss()
    finally:
        for writer, _ in at_work:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)


def kill_writers(url: str, folder: Path, kills: int, seed: int) -> None:
    """Kill writers, and see that what they said is what is counted."""
    diaries = folder / "diaries"
    diaries.mkdir()
    with Crowd("forkserver", 1) as butcher:  # a small process, whose forks are quick
        for turn in range(0, kills, 50):
            butcher.one(0, kill_forks, url, str(diaries), 50, seed + turn)
    said = [diary.read_bytes() for diary in diaries.iterdir()]
    assert len(said) >= kills
    meant, done = (sum(text.count(sign) for text in said) for sign in (INTENT, DONE))
    status = breaker(url, failure_threshold=NEVER).status()
    assert done <= status.failure_count <= meant
    assert meant - done <= len(said)  # each left one in the open at the most
    assert (status.state, number(status.version)) == (CircuitState.CLOSED, status.failure_count)
    left = [path for path in (folder / "state").rglob("*") if path.is_file() and path.name != "events.jsonl"]
    assert [path.suffix for path in left] == [".state"]  # nothing set aside, nothing left over


@pytest.mark.timeout(600)
def test_a_thousand_killed_writers(url: str, tmp_path: Path) -> None:
    kill_writers(url, tmp_path, 1000, seed=2)


# --- permits ----------------------------------------------------------------------------------------------------------


def probing(url: str) -> CircuitBreaker:
    return breaker(
        url,
        failure_threshold=1,
        reset_timeout=0,
        half_open_max_calls=2,
        half_open_success_threshold=NEVER,
        permit_timeout=0.5,
    )


def hold(url: str) -> tuple[str, float | None]:
    permit = probing(url).acquire()
    _held.append(permit)
    return permit.token, permit.expires_at


_held: list[object] = []


def is_let_in(guarded: CircuitBreaker) -> bool:
    try:
        guarded.acquire().release()
    except CircuitOpenError:
        return False
    return True


@pytest.mark.everywhere
def test_the_permit_of_a_killed_holder_comes_back(url: str) -> None:
    guarded = probing(url)
    guarded.record_failure()
    with Crowd(METHODS[0], 2) as holders:
        expiries = [expires_at for _, expires_at in (holders.one(member, hold, url) for member in range(2))]
        for process, _ in holders.members:
            kill(process)
    if time.time() < min(expiry for expiry in expiries if expiry is not None) - 0.1:
        assert not is_let_in(guarded)
    wait_until(lambda: is_let_in(guarded), "a permit", 5)
    assert time.time() >= min(expiry for expiry in expiries if expiry is not None)
    wait_until(lambda: guarded.status().permits_in_use == 0, "the other one", 5)


def test_a_killed_holder_of_the_lock_frees_it(url: str, tmp_path: Path) -> None:
    guarded = breaker(url, failure_threshold=NEVER)
    guarded.record_failure()
    with Crowd(METHODS[0], 1) as holder:
        holder.begin(0, hold_the_lock, url, str(tmp_path / "locked"))
        wait_until((tmp_path / "locked").exists, "the lock")
        impatient = CircuitBreaker("shared", runtime=Runtime(storage=url, storage_timeout=0.05, environ={}))
        impatient.record_failure()
        assert guarded_count(url) == 1  # owed
        kill(holder.members[0][0])
        impatient.record_failure()
    assert guarded_count(url) == 3


def guarded_count(url: str) -> int:
    """What the record says, read past everything that this process holds."""
    runtime = Runtime(storage=url, environ={})
    payload = runtime.opened.ports.load(breaker(url)._key, 1.0).payload
    runtime.close()
    assert payload is not None
    return int(json.loads(payload)["failures"])


def hold_the_lock(url: str, sign: str) -> None:
    guarded = breaker(url)
    runtime = guarded._runtime
    assert runtime is not None
    with runtime.opened.ports.lock(guarded._key, 1.0):
        Path(sign).touch()
        time.sleep(PATIENCE)
