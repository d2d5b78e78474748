"""A storage over a network fails: called and awaited, what callers get, what it is asked, and what is counted after."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from storages import Casual, Recorder

from resilience import (
    Capability,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Runtime,
    StorageConflict,
    StorageUnavailable,
)
from resilience import engine as engines
from resilience.fuse import SILENCE
from resilience.testing import AwaitedFaultyStorage, FaultyStorage, ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NETWORK = frozenset({Capability.PROCESSES, Capability.MACHINES})
DOWN = StorageUnavailable("the server is down")


class Server(Casual):
    """Works by compare-and-set, cannot tell whether a snapshot is current, and is no place for an event loop."""

    capabilities = NETWORK


class Process:
    """A process with one breaker on a storage that fails as planned; its clock is moved by hand."""

    def __init__(self, storage: FaultyStorage, clock: ManualClock, **settings: Any) -> None:
        self.storage = storage
        self.clock = clock
        self.told = Recorder()
        self.runtime = Runtime(storage=storage, clock=clock, observers=[self.told])
        chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
        self.breaker = CircuitBreaker("payments", runtime=self.runtime, **chosen)
        self.is_awaited = isinstance(storage, AwaitedFaultyStorage)

    def call(self, error: Exception | None = None) -> str:
        """Make one call, on an event loop of its own where the storage is awaited."""

        def dependency() -> str:
            if error is not None:
                raise error
            return "well"

        async def adependency() -> str:
            await asyncio.sleep(0)
            return dependency()

        try:
            if self.is_awaited:
                return asyncio.run(self.breaker.acall(adependency))
            return self.breaker.call(dependency)
        except CircuitOpenError:
            return "rejected"
        except KeyError:
            return "failed"

    def fail(self) -> str:
        return self.call(KeyError("the dependency"))

    def go_down(self, calls: int = 1000) -> None:
        for hook in ("load", "save", "lock"):
            for nth in range(1, calls + 1):
                self.storage.fail(hook, nth, DOWN)

    def come_back(self) -> None:
        self.storage._plans.clear()

    @property
    def asked(self) -> int:
        """How often the storage was asked for anything since it was last looked at."""
        made = len(self.storage.calls)
        self.storage.calls.clear()
        return made


KINDS: list[type[FaultyStorage]] = [FaultyStorage, AwaitedFaultyStorage]


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Any) -> Iterator[Callable[..., Process]]:
    made: list[Process] = []

    def make(**settings: Any) -> Process:
        made.append(Process(request.param(Server(f"server:{tmp_path}")), clock, **settings))
        return made[-1]

    yield make
    for process in made:
        process.runtime.close()


class TestAnswers:
    def test_open_stays_open_and_failures_still_open_it(self, make: Any, clock: ManualClock) -> None:
        process, other = make(), make()
        process.call()
        process.go_down()
        assert [process.fail() for _ in range(5)] == ["failed"] * 3 + ["rejected"] * 2
        assert process.breaker.status().degraded
        process.come_back()
        clock.advance(1)
        assert process.call() == "well"  # the shared record knows of no failure
        assert process.told.names == ["degraded", "recovered"]
        for _ in range(3):
            other.fail()
        process.call()
        process.go_down()
        clock.advance(1)
        assert (process.call(), process.call()) == ("rejected", "rejected")

    def test_of_fifty_failing_calls_as_many_as_the_threshold_reach_the_dependency(self, make: Any) -> None:
        process = make()
        process.call()
        process.go_down()
        assert [process.fail() for _ in range(50)].count("failed") == 3

    def test_nothing_is_counted_twice_on_return(self, make: Any, clock: ManualClock) -> None:
        process = make(failure_threshold=10)
        process.fail()
        process.go_down()
        process.fail()
        process.fail()
        process.come_back()
        clock.advance(1)
        process.fail()
        assert process.breaker.status().failure_count == 2

    def test_a_save_whose_outcome_is_unknown_is_applied_at_most_once(self, make: Any, clock: ManualClock) -> None:
        process = make(failure_threshold=10)
        process.call()
        process.storage.fail("save", after=True)
        process.fail()
        assert process.told.names == ["degraded"]
        for _ in range(3):
            clock.advance(1)
            process.call()
        assert process.told.names == ["degraded", "recovered"]
        assert process.breaker.status().failure_count == 0  # it was counted once, and a success ended the streak
        status = make().breaker.status()
        assert status.failure_count == 0

    def test_and_one_that_was_not_done_not_at_all(self, make: Any, clock: ManualClock) -> None:
        process, other = make(failure_threshold=10), make(failure_threshold=10)
        process.call()
        process.storage.fail("save", error=StorageUnavailable("cut", outcome_unknown=True))
        process.fail()
        assert other.breaker.status().failure_count == 0
        clock.advance(1)
        process.fail()
        assert other.breaker.status().failure_count == 1

    def test_a_driver_that_cancels_itself_cancels_no_caller(self, make: Any) -> None:
        """A connection pool that is torn down raises `CancelledError` where nobody cancelled anything."""
        process = make()
        process.storage.fail("load", error=asyncio.CancelledError("the pool was closed"))
        if not process.is_awaited:
            pytest.skip("only what is awaited is cancelled")
        assert process.call() == "well"
        (event,) = process.told.events
        assert str(event.data["error"]).endswith("its load raised CancelledError: the pool was closed")


class TestDeadline:
    def test_one_deadline_covers_all_that_a_decision_waits_for(self, make: Any, clock: ManualClock) -> None:
        process = make()
        process.call()
        given: list[float] = []

        def slow(function: Any, arguments: tuple[Any, ...]) -> Any:
            given.append(arguments[-1])
            clock.advance(0.06)
            return function(*arguments)

        def conflict(_: Any, arguments: tuple[Any, ...]) -> Any:
            given.append(arguments[-1])
            clock.advance(0.06)
            raise StorageConflict("another process committed first")

        for nth in range(1, 100):
            process.storage.plan("load", nth, slow)
            process.storage.plan("save", nth, conflict)
        begun = clock.monotonic()
        assert process.fail() == "failed"
        assert all(0 <= seconds <= 0.25 for seconds in given)
        assert sum(earlier > later for earlier, later in pairwise(given)) >= len(given) - 2
        assert clock.monotonic() - begun <= 2 * (0.25 + 2 * 0.06)  # the admission's and the report's

    def test_a_probe_that_others_outrun_is_rejected_in_time(self, make: Any, clock: ManualClock) -> None:
        process = make(failure_threshold=1)
        process.fail()
        clock.advance(30)

        def conflict(*_: Any) -> Any:
            clock.advance(0.1)
            raise StorageConflict("another process committed first")

        for nth in range(1, 100):
            process.storage.plan("save", nth, conflict)
        begun = clock.monotonic()
        assert process.call() == "rejected"
        assert clock.monotonic() - begun <= 0.25 + 0.1
        assert process.told.names == []  # the storage answers

    def test_successes_that_others_outrun_stay_owed(self, make: Any, clock: ManualClock) -> None:
        process = make(window="count", window_size=10, gather=60)
        process.call()
        process.call()

        def conflict(*_: Any) -> Any:
            clock.advance(0.3)
            raise StorageConflict("another process committed first")

        process.storage.plan("save", 1, conflict)
        process.call()
        clock.advance(60)
        process.call()
        assert process.told.names == []
        assert process.breaker.status().success_count == 4


class TestAsked:
    def test_once_a_second_while_it_does_not_answer(self, make: Any, clock: ManualClock) -> None:
        process = make(failure_threshold=1000)
        process.call()
        process.go_down()
        process.call()
        assert process.asked > 0
        for _ in range(5):
            for _ in range(16):
                clock.advance(1 / 16)
                process.call()
                process.fail()
            assert process.asked == 1

    def test_by_eight_processes_eight_times_a_second_and_by_all_when_it_is_back(
        self, make: Any, clock: ManualClock
    ) -> None:
        processes = [make(failure_threshold=1000) for _ in range(8)]
        for process in processes:
            process.call()
            process.go_down()
            process.call()
            assert process.asked
        for _ in range(3):
            for _ in range(8):
                clock.advance(1 / 8)
                for process in processes:
                    process.fail()
            assert [process.asked for process in processes] == [1] * 8
        for process in processes:
            process.come_back()
        clock.advance(1)
        for process in processes:
            assert process.call() == "well"
            assert process.asked <= 4  # lock, load and save show that it is back; then the call is answered
        assert [process.told.names for process in processes] == [["degraded", "recovered"]] * 8


class TestHung:
    """The server takes a connection and never answers: a try costs whoever makes it the whole time-out."""

    @pytest.fixture
    def hung(self, make: Any, clock: ManualClock) -> Callable[..., Process]:
        def hung(**settings: Any) -> Process:
            process: Process = make(failure_threshold=1000, **settings)
            process.call()
            self.hang(process, clock)
            process.call()
            assert process.asked
            return process

        return hung

    def hang(self, process: Process, clock: ManualClock) -> None:
        self.by = by = list[str]()

        def fault(_: Any, arguments: tuple[Any, ...]) -> Any:
            by.append(threading.current_thread().name)
            clock.advance(arguments[-1])
            raise StorageUnavailable("it does not answer")

        for hook in ("load", "save"):
            for nth in range(1, 100):
                process.storage.plan(hook, nth, fault)

    @staticmethod
    def wait(process: Process) -> None:
        prober = process.runtime.opened.engine._outages._prober
        assert prober is not None
        prober.join(10)
        assert not prober.is_alive()

    def test_one_caller_pays_and_none_after_it(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        assert len(self.by) == 1
        for _ in range(3):
            clock.advance(1)
            before = clock.monotonic()
            assert [process.call(), process.fail(), process.call()] == ["well", "failed", "well"]
            self.wait(process)
            assert clock.monotonic() - before == 0.25  # that the thread waited for
        assert self.by[1:] == ["resilience try"] * 3
        assert process.told.names == ["degraded"]

    def test_a_report_hands_it_over_too(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        process.come_back()
        clock.advance(1)
        with_a_permit = process.breaker.acquire()
        self.wait(process)
        assert process.told.names == ["degraded", "recovered"]
        self.hang(process, clock)
        process.breaker.record_failure()
        assert len(self.by) == 1
        clock.advance(1)
        process.breaker.record_failure()
        self.wait(process)
        assert self.by[1:] == ["resilience try"]
        with_a_permit.release()

    @pytest.mark.parametrize(
        ("mode", "meanwhile"), [("local", "well"), ("allow", "well"), ("deny", "rejected"), ("raise", "unavailable")]
    )
    def test_the_call_goes_on_as_in_the_outage_and_the_next_one_finds_it_back(
        self, hung: Any, clock: ManualClock, mode: Any, meanwhile: str
    ) -> None:
        process = hung(on_store_error="local")
        other = CircuitBreaker("payments", runtime=process.runtime, failure_threshold=1000, on_store_error=mode)
        process.breaker = other
        process.come_back()
        clock.advance(1)
        try:
            answer = process.call()
        except StorageUnavailable:
            answer = "unavailable"
        assert answer == meanwhile
        self.wait(process)
        clock.advance(1)
        assert process.call() == "well"
        assert process.told.names == ["degraded", "recovered"]
        assert not process.breaker.status().degraded

    def test_one_thread_at_a_time(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        process.storage._plans.clear()
        process.storage.hang("save")
        for _ in range(3):
            clock.advance(1)
            process.call()
        process.storage.release()
        self.wait(process)
        assert process.storage.calls.count("save") == 1
        assert process.told.names == ["degraded", "recovered"]

    def test_after_a_silence_who_calls_tries_for_himself(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        process.come_back()
        clock.advance(1 + SILENCE)
        assert process.call() == "well"
        assert process.runtime.opened.engine._outages._prober is None
        assert process.told.names == ["degraded", "recovered"]

    def test_where_there_can_be_no_thread_who_calls_tries_for_himself(
        self, hung: Any, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process = hung()
        process.come_back()
        clock.advance(1)

        def none(_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", none)
            permit = process.breaker.acquire()
        permit.release()
        assert process.told.names == ["degraded", "recovered"]

    def test_controls_and_looks_try_for_themselves(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        process.come_back()
        clock.advance(1)
        process.breaker.force_open()
        assert process.runtime.opened.engine._outages._prober is None
        assert process.told.names == ["degraded", "recovered"]

    def test_an_observer_that_closes_the_runtime_in_that_thread_waits_for_nothing(self, hung: Any) -> None:
        engine = hung().runtime.opened.engine
        engine._outages._prober = threading.current_thread()
        engine.finish()
        engine._outages._prober = None

    def test_closing_waits_for_it(self, hung: Any, clock: ManualClock) -> None:
        process = hung()
        process.storage._plans.clear()
        process.storage.hang("save", at_most=0.05)
        clock.advance(1)
        process.call()
        engine = process.runtime.opened.engine
        process.runtime.close()
        assert not engine._outages._prober.is_alive()


@pytest.mark.parametrize("make", KINDS, indirect=True)
@pytest.mark.parametrize("mode", ["local", "allow", "deny"])
class TestRoadInAnOutage:
    """What a call costs while the storage does not answer: nothing of the storage's roads is taken."""

    @pytest.fixture
    def process(self, make: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> Process:
        process: Process = make(on_store_error=mode, failure_threshold=2)
        process.call()
        process.go_down()
        process.call()

        def forbidden(*_: object, **__: object) -> Any:
            pytest.fail("it goes by a task or a thread of its own, or asks the storage")

        monkeypatch.setattr(engines, "shielded", forbidden)
        monkeypatch.setattr(engines, "in_thread", forbidden)
        monkeypatch.setattr(engines, "adrive", forbidden)
        return process

    def test_neither_task_nor_thread(self, process: Process, mode: str) -> None:
        answers = [process.fail() for _ in range(4)]
        assert (
            answers
            == {
                "local": ["failed", "failed", "rejected", "rejected"],
                "allow": ["failed"] * 4,
                "deny": ["rejected"] * 4,
            }[mode]
        )

    def test_the_fast_road_lets_in_and_rejects(
        self, process: Process, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if mode != "local":
            pytest.skip("it keeps no state")

        def slow(*_: object, **__: object) -> Any:
            pytest.fail("it takes the slow road")

        process.call()
        with monkeypatch.context() as patched:
            for name in ("admit", "aadmit"):
                patched.setattr(engines.Engine, name, slow)
            assert process.call() == "well"
        process.fail()
        process.fail()
        assert process.call() == "rejected"
        for name in ("admit", "aadmit"):
            if not process.is_awaited:  # there a rejection is raised by the engine, from the memo
                monkeypatch.setattr(engines.Engine, name, slow)
        monkeypatch.setattr(engines.Engine, "_admit_in_an_outage", slow)
        assert process.call() == "rejected"

    def test_successes_are_gathered_by_the_copy(self, make: Any, mode: str) -> None:
        process = make(on_store_error=mode, window="count", window_size=20, minimum_calls=4)
        process.call()
        process.go_down()
        process.call()
        assert [process.call() for _ in range(8)] == ["rejected" if mode == "deny" else "well"] * 8
        status = process.breaker.status()
        assert status.success_count == (8 if mode == "local" else 0)  # the ninth is gathered for the next pair


@pytest.mark.parametrize("make", [AwaitedFaultyStorage], indirect=True)
class TestLoops:
    def test_two_loops_in_two_threads(self, make: Any) -> None:
        process = make(failure_threshold=1000)

        async def failing() -> None:
            await asyncio.sleep(0)
            raise KeyError("the dependency")

        async def main() -> None:
            calls = [process.breaker.acall(failing) for _ in range(25)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {KeyError}

        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert process.breaker.status().failure_count == 50

    def test_a_loop_that_ends_in_a_commit_leaves_nothing_behind(self, make: Any) -> None:
        """What it had begun is known to nobody; the next loop goes on with the same breaker."""
        process = make(failure_threshold=1000)
        process.call()
        process.storage.hang("save")

        async def main() -> None:
            async def failing() -> None:
                raise KeyError("the dependency")

            task = asyncio.create_task(process.breaker.acall(failing))
            while "asave" not in process.storage.calls:
                await asyncio.sleep(0)
            task.cancel()

        asyncio.run(main())
        process.storage.release()
        assert process.fail() == "failed"
        assert process.breaker.status().failure_count in {1, 2}
        assert process.told.names == []

    @pytest.mark.parametrize("steps", range(14))
    def test_cancelled_at_each_await(self, make: Any, clock: ManualClock, steps: int) -> None:
        process = make(failure_threshold=1, half_open_max_calls=1, half_open_success_threshold=1)
        process.fail()
        clock.advance(30)

        async def main() -> None:
            task = asyncio.create_task(process.breaker.acall(asyncio.sleep, 0))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(20):  # whatever had begun ends
                await asyncio.sleep(0)
            status = process.breaker.status()
            assert status.permits_in_use == 0
            assert status.state is not CircuitState.OPEN or steps < 3
            assert await process.breaker.acall(asyncio.sleep, 0, "well") == "well"

        asyncio.run(main())
        assert process.breaker.status().state is CircuitState.CLOSED
