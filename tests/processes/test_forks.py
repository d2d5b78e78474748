"""A forked child: it never frees its parent's lock or permit, and never reports what its parent reports."""

from __future__ import annotations

import os
import threading
import time
import traceback
import warnings
from typing import TYPE_CHECKING

import pytest
from processes.support import PATIENCE, breaker

from resilience import Capability, CircuitBreaker, CircuitState, Runtime, StorageUnavailable, hookimpl
from resilience.testing import ManualClock, Recorder, wait_until
from resilience_filelock import _folder
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from resilience import Key, Snapshot, Version

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

NEVER = 1_000_000


@pytest.fixture(autouse=True)
def _threads_beside_forks() -> Iterator[None]:
    """From 3.12 on a warning says what is tested here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def child(work: Callable[[], object]) -> int:
    """Fork a child that does something and ends; return its process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child ends here, whatever happens
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def ended(pid: int) -> int:
    """Wait for a child; return its exit status."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    pytest.fail("a child did not end")


def forked(work: Callable[[], object]) -> int:
    return ended(child(work))


@pytest.fixture
def probing(url: str) -> CircuitBreaker:
    guarded = breaker(url, failure_threshold=1, reset_timeout=0, half_open_max_calls=1, half_open_success_threshold=2)
    guarded.record_failure()
    return guarded


@pytest.mark.everywhere
class TestPermits:
    def test_a_child_that_leaves_the_block_frees_nothing(self, probing: CircuitBreaker) -> None:
        with probing:
            pid = os.fork()
            if pid == 0:
                leave_the_block(probing)
            assert ended(pid) == 0
            assert probing.status().permits_in_use == 1
            assert probing.status().half_open_successes == 0
        assert (probing.status().permits_in_use, probing.status().half_open_successes) == (0, 1)

    def test_a_child_that_fails_in_the_block_reports_nothing(self, probing: CircuitBreaker) -> None:
        with probing:

            def fail() -> None:
                probing.__exit__(OSError, OSError(), None)

            assert forked(fail) == 0
            assert probing.status().state is CircuitState.HALF_OPEN
        assert probing.status().half_open_successes == 1

    def test_a_permit_object_is_the_parents(self, probing: CircuitBreaker) -> None:
        permit = probing.acquire()
        assert forked(permit.failure) == 0
        assert forked(permit.release) == 0
        assert probing.status().permits_in_use == 1
        permit.success()
        assert probing.status().half_open_successes == 1

    def test_a_call_that_forks(self, url: str) -> None:
        guarded = breaker(url, failure_threshold=NEVER)

        @guarded
        def forking() -> None:
            if os.fork() == 0:
                children.append(True)
            raise OSError

        children: list[bool] = []
        parent = os.getpid()
        try:
            forking()
        except OSError:
            pass
        finally:
            if os.getpid() != parent:
                os._exit(0)
        assert os.wait()[1] == 0
        assert guarded.status().failure_count == 1

    def test_the_child_uses_it_on_its_own(self, url: str) -> None:
        guarded = breaker(url, failure_threshold=NEVER)
        with guarded:
            assert forked(guarded.record_failure) == 0
        assert forked(guarded.record_failure) == 0
        guarded.record_failure()
        assert guarded.status().failure_count == 2  # the success of the block forgot the first


def leave_the_block(probing: CircuitBreaker) -> None:
    status = 1
    try:
        probing.__exit__(None, None, None)
        status = 0
    finally:
        os._exit(status)


def test_a_child_goes_by_the_configuration_file_too(url: str, tmp_path: Path) -> None:
    file = tmp_path / "resilience.toml"
    file.write_text("[circuit_breaker]\nfailure_threshold = 5\n", "utf-8")
    with Runtime(storage=url, environ={"RESILIENCE_CONFIG": str(file)}) as runtime:
        guarded = CircuitBreaker("shared")
        guarded.record_failure()

        def reload() -> None:
            file.write_text("[circuit_breaker]\nfailure_threshold = 2\n", "utf-8")
            runtime.reload()
            guarded.record_failure()
            assert guarded.status().state is CircuitState.OPEN

        assert forked(reload) == 0
        assert guarded.status().state is CircuitState.OPEN


@pytest.mark.everywhere
class TestLocks:
    @staticmethod
    def impatient(url: str) -> CircuitBreaker:
        runtime = Runtime(storage=url, storage_timeout=0.05, environ={})
        return CircuitBreaker("shared", runtime=runtime, failure_threshold=NEVER)

    def test_a_child_does_not_have_its_parents_lock(self, url: str) -> None:
        """Neither does it free it: the second child finds it taken after the first has come and gone."""
        guarded = self.impatient(url)
        guarded.record_failure()
        assert guarded._runtime is not None
        ports = guarded._runtime.opened.ports

        def fail() -> None:
            child_of_mine = self.impatient(url)
            child_of_mine.record_failure()
            assert child_of_mine.status().failure_count == 1  # not counted yet: the lock is taken

        with ports.lock(guarded._key, 1.0):
            assert forked(fail) == 0
            assert forked(fail) == 0
        assert guarded.status().failure_count == 1

    def test_a_child_waits_for_the_thread_that_has_it(self, url: str) -> None:
        guarded = breaker(url, failure_threshold=NEVER)
        guarded.record_failure()
        assert guarded._runtime is not None
        ports = guarded._runtime.opened.ports
        locked, free = threading.Event(), threading.Event()

        def hold() -> None:
            with ports.lock(guarded._key, 1.0):
                locked.set()
                free.wait(PATIENCE)

        thread = threading.Thread(target=hold)
        thread.start()
        assert locked.wait(PATIENCE)
        pid = child(guarded.record_failure)
        assert guarded.status().failure_count == 1
        free.set()
        thread.join(PATIENCE)
        assert ended(pid) == 0
        assert guarded.status().failure_count == 2

    def test_a_child_keeps_no_lock_of_a_sweep(self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file is locked to be swept, is found alive after all, and a thread forks in between."""
        guarded = self.impatient(url)
        guarded.record_failure()
        (file,) = tmp_path.rglob("*.state")
        looks: list[int] = []
        waiting, goes_on = os.pipe()
        children: list[int] = []

        def live_on() -> None:
            os.close(goes_on)
            os.read(waiting, 1)

        def is_dead(descriptor: int, now: float) -> bool:
            looks.append(descriptor)
            if len(looks) == 2:
                children.append(child(live_on))
            return len(looks) == 1

        monkeypatch.setattr(_folder, "_is_dead", is_dead)
        _folder.sweep(str(file.parent), 1)
        try:
            guarded.record_failure()
            assert guarded.status().failure_count == 2
        finally:
            os.close(goes_on)
            os.close(waiting)
        assert [ended(pid) for pid in children] == [0]

    def test_forks_while_threads_are_at_work(self, url: str) -> None:
        guarded = breaker(url, failure_threshold=NEVER)
        guarded.record_failure()
        stop = threading.Event()
        counts: list[int] = []

        def work() -> None:
            done = 0
            while not stop.is_set():
                guarded.record_failure()
                guarded.acquire().success()  # forgets them all
                guarded.record_failure()
                done += 1
            counts.append(done)

        def in_the_child() -> None:
            for _ in range(5):
                other.record_failure()

        other = CircuitBreaker("other", runtime=guarded._runtime, failure_threshold=NEVER)
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        children = [child(in_the_child) for _ in range(20)]
        statuses = [ended(pid) for pid in children]
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert statuses == [0] * 20
        assert other.status().failure_count == 100
        assert sum(counts) > 0

    def test_what_is_owed_is_owed_by_the_parent_alone(self, url: str) -> None:
        guarded = self.impatient(url)
        guarded.record_failure()
        assert guarded._runtime is not None
        with guarded._runtime.opened.ports.lock(guarded._key, 1.0):
            other = self.impatient(url)
            other.record_failure()  # owed
        assert forked(other.status) == 0
        assert forked(lambda: None) == 0
        wait_until(lambda: other.status().failure_count == 2, "what is owed")
        assert guarded.status().failure_count == 2


class Hanging:
    """A storage in memory that does not answer: calls wait as long as they may, a thread that tries until it may go."""

    capabilities = frozenset({Capability.PROCESSES})

    def __init__(self, clock: ManualClock) -> None:
        self.memory = MemoryStorage("memory:")
        self.clock = clock
        self.hangs = False
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def _ask(self, timeout: float) -> None:
        if not self.hangs:
            return
        if threading.current_thread().name == "resilience try":
            self.asked.set()
            assert self.let_go.wait(PATIENCE)
        self.clock.advance(timeout)
        raise StorageUnavailable("it does not answer")

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self._ask(timeout)
        return self.memory.resilience_load(key, timeout)

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        self._ask(timeout)
        return self.memory.resilience_save(key, payload, expected, expires_at, timeout)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        self._ask(timeout)
        return self.memory.resilience_lock(key, timeout)


class TestOutages:
    """A fork while a thread finds out whether the storage works again: the child has no such thread."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def storage(self, clock: ManualClock) -> Hanging:
        return Hanging(clock)

    @pytest.fixture
    def told(self) -> Recorder:
        return Recorder()

    @pytest.fixture
    def tried(self, storage: Hanging, clock: ManualClock, told: Recorder) -> Iterator[CircuitBreaker]:
        with Runtime(storage=storage, clock=clock, observers=[told], environ={}):
            guarded = CircuitBreaker("shared", failure_threshold=NEVER)
            guarded.record_failure()
            storage.hangs = True
            for _ in range(2):  # the first one pays, the second one lets a thread try
                clock.advance(2)
                assert guarded.call(lambda: 1) == 1
            assert storage.asked.wait(PATIENCE)
            yield guarded
            storage.let_go.set()

    def test_a_child_tries_for_itself(self, tried: CircuitBreaker, storage: Hanging, clock: ManualClock) -> None:
        def on_its_own() -> None:
            assert tried.call(lambda: 1) == 1
            assert tried.status().degraded
            storage.hangs = False
            clock.advance(2)
            tried.record_failure(strict=True)
            status = tried.status(strict=True)
            assert (status.failure_count, status.degraded) == (2, False)

        assert forked(on_its_own) == 0

    def test_the_parent_goes_on(
        self, tried: CircuitBreaker, storage: Hanging, clock: ManualClock, told: Recorder
    ) -> None:
        assert forked(lambda: tried.call(lambda: 1)) == 0
        storage.hangs = False
        storage.let_go.set()
        wait_until(lambda: not any(each.name == "resilience try" for each in threading.enumerate()), "the try")
        clock.advance(2)
        tried.record_failure(strict=True)
        assert tried.status(strict=True).failure_count == 2
        assert [event.name for event in told.events] == ["degraded", "recovered"]
