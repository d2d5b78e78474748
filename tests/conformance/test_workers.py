"""Processes that do what they are told, and end."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from resilience.testing import Failed, Skipped, Violation, Workers, wait_until
from resilience.testing.workers import abandon_shared, shared

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers() as workers:
        yield workers


def violate() -> None:
    raise Violation("what", "why", "fix")


def skip() -> None:
    raise Skipped("because")


def leave() -> None:
    os._exit(3)


def now(delay: float) -> float:
    time.sleep(delay)
    return time.monotonic()


def path() -> list[str]:
    return sys.path


def test_they_begin_at_one_instant(workers: Workers) -> None:
    assert len(set(workers.run(os.getpid, count=3))) == 3
    assert workers.run(path, count=1) == [sys.path]


def test_what_is_raised_there_is_raised_here(workers: Workers) -> None:
    with pytest.raises(Failed, match="ValueError: invalid literal"):
        workers.run(int, "x", count=2)
    with pytest.raises(Violation, match="what to do:     fix"):
        workers.run(violate, count=1)
    with pytest.raises(Skipped, match="because"):
        workers.run(skip, count=1)
    assert workers.run(abs, -1, count=1) == [1]


def test_what_cannot_be_sent_is_said(workers: Workers) -> None:
    with pytest.raises(Failed, match=r"use functions and classes that stand at the top of a module"):
        workers.run(lambda: 1, count=1)


def test_what_does_not_end_is_ended(workers: Workers) -> None:
    with pytest.raises(Failed, match="did not answer"):
        workers.run(now, 60, count=1, limit=0.1)
    assert workers.run(abs, -1, count=1) == [1]


def test_one_that_dies_is_noticed(workers: Workers) -> None:
    with pytest.raises(Failed, match="died before it answered"):
        workers.run(leave, count=1)


def test_one_is_stopped_resumed_and_killed(workers: Workers) -> None:
    worker = workers.begin(0, now, 0.01)
    worker.stop()
    with pytest.raises(Failed, match=r"did not answer in 0\.1 s"):
        worker.answer(0.1)
    worker.resume()
    assert worker.answer() > 0
    pid = worker.pid
    workers.replace(worker)
    assert worker not in workers.members
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_that_does_not_end_with_the_crowd_is_killed() -> None:
    with Workers(1) as crowd:
        worker = crowd.begin(0, now, 60)
        worker.end(0.05)
        crowd.members.clear()
    assert worker.process.returncode == -9


def test_waiting_has_an_end() -> None:
    wait_until(lambda: True, "nothing")
    with pytest.raises(Failed, match=r"the moon did not happen in 0.01 s"):
        wait_until(lambda: False, "the moon", 0.01)


def test_a_check_that_is_given_up_keeps_its_processes_and_no_other_check_meets_them() -> None:
    abandon_shared()
    crowd = shared()
    worker = crowd.begin(0, now, 60)
    abandon_shared()
    assert (worker.process.returncode, crowd.members) == (-9, [])
    crowd.replace(worker)  # its thread finds out late
    others = shared()
    assert others is not crowd
    assert others.run(now, 0.0, count=1) != []
    abandon_shared()
