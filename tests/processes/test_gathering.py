"""What eight processes gather between them: a healthy dependency stays closed, a broken one opens; nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from processes.support import METHODS, PATIENCE, Crowd, breaker

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Key, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def eight() -> Iterator[Crowd]:
    with Crowd(METHODS[0], 8) as eight:
        yield eight


def shared(url: str, name: str, gather: float | None = None) -> CircuitBreaker:
    given = {} if gather is None else {"gather": gather}
    minimum = 1000 if name == "exact" else 10
    return breaker(url, name, window="time", window_duration=600, minimum_calls=minimum, **given)


def call(url: str, name: str, gather: float | None, well: bool, times: int = 1) -> int:  # noqa: FBT001 - as sent to processes
    """Call a dependency that is well or not; return how many calls were let in."""
    guarded = shared(url, name, gather)
    let_in = 0
    for _ in range(times):
        try:
            with guarded:
                let_in += 1
                if not well:
                    raise ConnectionError
        except ConnectionError:
            pass
        except CircuitOpenError:
            return let_in
    return let_in


@pytest.mark.parametrize("gather", [None, 1.0, 0.0])
@pytest.mark.parametrize("last", range(8))
def test_nine_failures_each_open_it_whoever_fails_last(eight: Crowd, url: str, gather: float | None, last: int) -> None:
    """Of all together: no process by itself reaches `minimum_calls`."""
    order = [member for member in range(8) if member != last] + [last]
    let_in = [eight.one(member, call, url, "failing", gather, False, 9) for member in order]
    assert sum(let_in) == 10
    assert shared(url, "failing").status().state == CircuitState.OPEN


@pytest.mark.parametrize("gather", [None, 1.0])
@pytest.mark.timeout(300)
def test_one_broken_process_of_eight_does_not_open_it(eight: Crowd, url: str, gather: float | None) -> None:
    """12.5 % failures at a threshold of 50 %, fifty times."""
    rounds = 12  # by then the broken one alone has failed as often as `minimum_calls`
    for trial in range(50):
        name = f"trial {trial}"
        for turn in range(rounds):
            broken = trial % 8
            let_in = eight.each([(call, url, name, gather, member != broken or turn == 0, 1) for member in range(8)])
            assert let_in == [1] * 8, f"trial {trial}, turn {turn}: {shared(url, name).status()}"
        eight.run(settle, url, name, gather)
        status = shared(url, name, gather).status()
        assert status.state == CircuitState.CLOSED
        assert (status.failure_count, status.success_count) == (rounds - 1, 7 * (rounds - 1) + 8)


def settle(url: str, name: str, gather: float | None) -> None:
    shared(url, name, gather).status()


def test_with_gather_0_every_count_is_exact(eight: Crowd, url: str) -> None:
    jobs = [(call, url, "exact", 0.0, member != 3, 25) for member in range(8)]
    assert eight.each(jobs) == [25] * 8
    status = shared(url, "exact", 0.0).status()
    assert (status.failure_count, status.success_count) == (25, 175)


def leave(url: str) -> None:
    """Gather, and end."""
    call(url, "leaving", 60.0, True, 5)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_gathered_is_committed_at_exit(url: str, method: str) -> None:
    context: Any = multiprocessing.get_context(method)  # typeshed knows no common class with a `Process`
    leave(url)  # in a forked child, what its parent registered for the end is there or not, as the version has it
    processes = [context.Process(target=leave, args=(url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert shared(url, "leaving", 60.0).status().success_count == 20


def test_what_was_gathered_is_committed_at_the_end_of_a_program(url: str) -> None:
    program = "import sys; from processes.test_gathering import leave; leave(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program, url], env=environment, check=True, timeout=PATIENCE)
    assert shared(url, "leaving").status().success_count == 5


def fork_between(url: str) -> None:
    """Gather, fork, gather on both sides, end both."""
    call(url, "forking", 60.0, True, 5)
    pid = os.fork()
    try:
        call(url, "forking", 60.0, True, 3)
        settle(url, "forking", 60.0)
    except BaseException:
        if pid == 0:
            os._exit(1)
        raise
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


FRESH = """
import multiprocessing, os, sys
from resilience import CircuitBreaker, Runtime

url, way = sys.argv[1:]

def look():
    os._exit(other().status().success_count)

def other():
    runtime = Runtime(storage=url, environ={})
    return CircuitBreaker("fresh", window="time", window_duration=600, gather=60, runtime=runtime)

breaker = other()
assert "filelock" not in sys.modules and "logging" not in sys.modules
for _ in range(7):
    breaker.call(int)
assert other().status().success_count == 0
if way == "os":
    pid = os.fork()
    if pid == 0:
        look()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
else:
    process = multiprocessing.get_context("fork").Process(target=look)
    process.start()
    process.join()
    status = process.exitcode
assert breaker.status().success_count == 7
print(status)
"""


@pytest.mark.everywhere
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("way", ["os", "multiprocessing"])
def test_what_was_gathered_is_committed_before_a_fork(url: str, way: str) -> None:
    """Also by a program that has imported nothing yet that a commit needs, whose hooks would come half."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", FRESH, url, way],
        env=environment,
        check=False,
        timeout=PATIENCE,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("7\n", "", 0)


def test_a_fork_waits_for_a_lock_no_longer_than_the_storage_is_waited_for(url: str) -> None:
    """For all keys together; what could not be committed is the parent's, and is committed once."""
    names = [f"forking {number}" for number in range(8)]
    storage = Runtime(storage=url, environ={}).opened.storage
    runtime = Runtime(storage=url, storage_timeout=0.25, environ={})
    breakers = [CircuitBreaker(name, runtime=runtime, window="time", window_duration=600, gather=60) for name in names]
    for each in breakers * 2:
        each.call(int)
    with ExitStack() as held:
        for name in names:
            held.enter_context(storage.resilience_lock(Key("circuit_breaker", name), 1))
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        took = time.monotonic() - begun
        assert os.waitpid(pid, 0)[1] == 0
    assert 0.2 < took < 0.25 * len(names) / 2
    assert [each.status().success_count for each in breakers] == [2] * len(names)
    runtime.close()


def test_a_child_leaves_to_its_parent_what_the_parent_gathered(eight: Crowd, url: str) -> None:
    eight.run(fork_between, url)
    assert shared(url, "forking").status().success_count == 8 * (5 + 3 + 3)
