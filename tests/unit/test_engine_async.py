"""The roads of coroutines: inline, in a worker thread, awaited; and cancellation at each await."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Key,
    Runtime,
    StorageError,
    StorageLockTimeout,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from storages import Faulty, Recorder

    from resilience.testing import ManualClock

pytestmark = pytest.mark.usefixtures("storages_of_tests")

KEY = Key("circuit_breaker", "payments")
KINDS = ["memory", "faulty", "threaded", "called", "casual", "awaited"]
PATIENCE = 10.0


@pytest.fixture(params=KINDS)
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


def make(**settings: Any) -> CircuitBreaker:
    chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
    return CircuitBreaker("payments", **chosen)


async def well() -> str:
    await asyncio.sleep(0)
    return "well"


async def failing() -> None:
    await asyncio.sleep(0)
    raise KeyError("the dependency")


class TestRoads:
    def test_the_whole_way_round(self, runtime: Runtime, clock: ManualClock, told: Recorder) -> None:
        breaker = make()

        async def main() -> None:
            assert await breaker.acall(well) == "well"
            for _ in range(3):
                with pytest.raises(KeyError):
                    await breaker.acall(failing)
            with pytest.raises(CircuitOpenError):
                await breaker.acall(well)
            with pytest.raises(CircuitOpenError):
                await breaker.acall(well)
            clock.advance(30)
            for _ in range(2):
                async with breaker:
                    await asyncio.sleep(0)
            assert await breaker.acall(well) == "well"

        asyncio.run(main())
        assert told.moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
        assert breaker.status().state is CircuitState.CLOSED

    def test_failures_of_many_tasks(self, runtime: Runtime) -> None:
        breaker = make(failure_threshold=1000)

        async def main() -> None:
            calls = [breaker.acall(failing) for _ in range(100)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(result) for result in results} == {KeyError}

        asyncio.run(main())
        assert breaker.status().failure_count == 100

    def test_probes_of_many_tasks(self, runtime: Runtime, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1, half_open_max_calls=3, half_open_success_threshold=3)
        breaker.record_failure()
        clock.advance(30)

        async def in_flight() -> None:
            admitted = 0
            full = asyncio.Event()

            async def probe() -> None:
                nonlocal admitted
                async with breaker:
                    admitted += 1
                    await full.wait()

            probes = [asyncio.create_task(probe()) for _ in range(10)]
            await ends(lambda: sum(probe.done() for probe in probes) == 7 and admitted == 3)
            assert admitted == 3
            full.set()
            results = await asyncio.gather(*probes, return_exceptions=True)
            assert [type(result) for result in results].count(CircuitOpenError) == 7

        asyncio.run(in_flight())
        assert breaker.status().state is CircuitState.CLOSED

    def test_the_loop_is_never_blocked_by_a_lock(self, tmp_path: Path) -> None:
        """Inline the lock is tried once; if it is taken, the whole commit waits in a thread."""
        with Runtime(storage=f"faulty:{tmp_path}", storage_timeout=PATIENCE) as runtime:
            breaker = make()
            breaker.call(lambda: 1)
            storage = runtime.opened.storage

            async def main() -> None:
                with storage.memory.resilience_lock(KEY, 1):
                    report = asyncio.create_task(breaker.acall(failing))
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert not report.done()
                with pytest.raises(KeyError):
                    await report

            asyncio.run(main())
            assert breaker.status().failure_count == 1

    def test_a_storage_that_is_not_inline_works_in_a_thread(self, tmp_path: Path) -> None:
        threads: set[int] = set()

        def noting(well: Callable[..., Any], *arguments: Any) -> Any:
            threads.add(threading.get_ident())
            return well(*arguments)

        with Runtime(storage=f"threaded:{tmp_path}") as runtime:
            runtime.opened.storage.always = {"load": noting, "save": noting, "lock": noting}
            breaker = make()

            async def main() -> None:
                with pytest.raises(KeyError):
                    await breaker.acall(failing)

            asyncio.run(main())
            assert threads
            assert threading.get_ident() not in threads
            assert breaker.status().failure_count == 1

    def test_a_storage_that_is_awaited_is_never_called(self, tmp_path: Path, clock: ManualClock) -> None:
        with Runtime(storage=f"awaited:{tmp_path}", clock=clock) as runtime:
            breaker = make(failure_threshold=1)

            async def main() -> None:
                await breaker.acall(well)
                with pytest.raises(KeyError):
                    await breaker.acall(failing)

            asyncio.run(main())
            assert {"load", "save"}.isdisjoint(runtime.opened.storage.calls)
            assert {"aload", "asave"} <= set(runtime.opened.storage.calls)


class TestFaults:
    @pytest.mark.parametrize("scheme", ["faulty", "threaded", "awaited"])
    @pytest.mark.parametrize("fault", [StorageUnavailable("down"), OSError("cable")])
    @pytest.mark.parametrize("mode", ["local", "allow", "deny", "raise"])
    def test_an_outage(
        self, runtime: Runtime, clock: ManualClock, told: Recorder, fault: BaseException, mode: str
    ) -> None:
        storage = runtime.opened.storage
        breaker = make(on_store_error=mode)
        answers: list[str] = []

        async def ask() -> None:
            try:
                answers.append(await breaker.acall(well))
            except CircuitOpenError:
                answers.append("rejected")
            except StorageError:
                answers.append("raised")

        async def main() -> None:
            storage.always = dict.fromkeys(["load", "save", "aload", "asave"], fault)
            await ask()
            await ask()
            storage.always = {}
            clock.advance(1)
            await ask()

        asyncio.run(main())
        expected = {"local": "well", "allow": "well", "deny": "rejected", "raise": "raised"}[mode]
        assert answers == [expected, expected, "well"]
        assert told.names == ["degraded", "recovered"]

    @pytest.mark.parametrize("scheme", ["faulty", "threaded", "awaited"])
    def test_a_rejection_leaves_nothing_to_the_garbage_collector(self, runtime: Runtime, clock: ManualClock) -> None:
        breaker = make()
        breaker.force_open()

        async def rejected() -> int:
            clock.advance(2)  # so that the answer is not remembered
            with contextlib.suppress(CircuitOpenError):
                await breaker.acall(well)
            await asyncio.sleep(0)  # a task of the storage's ends
            gc.collect()
            gc.disable()
            try:
                clock.advance(2)
                with contextlib.suppress(CircuitOpenError):
                    await breaker.acall(well)
                await asyncio.sleep(0)
                return gc.collect()
            finally:
                gc.enable()

        assert asyncio.run(rejected()) == 0

    def test_recording_raises_nothing(self, runtime: Runtime) -> None:
        breaker = make(failure_threshold=2)

        async def main() -> None:
            await breaker.acall(well)
            runtime.opened.storage.always = dict.fromkeys(["save", "asave"], OSError("cable"))
            for _ in range(2):
                with pytest.raises(KeyError):
                    await breaker.acall(failing)
            with pytest.raises(CircuitOpenError):
                await breaker.acall(well)

        asyncio.run(main())

    @pytest.mark.parametrize("scheme", ["faulty", "threaded"])
    def test_an_outcome_is_owed(self, runtime: Runtime) -> None:
        late = StorageLockTimeout("somebody else has it", key=KEY)
        breaker = make()

        async def main() -> None:
            await breaker.acall(well)
            storage = runtime.opened.storage
            storage.plan("lock", late, *([late] if storage.capabilities else []))
            with pytest.raises(KeyError):
                await breaker.acall(failing)

        asyncio.run(main())
        assert breaker.status().failure_count == 1


def sent(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine by hand, as no loop of asyncio does."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


class TestWithoutAsyncio:
    """Another event loop than that of asyncio: whatever must be waited for blocks it, and nothing is lost."""

    @pytest.fixture(autouse=True)
    def _warns(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "resilience awaits with asyncio", RuntimeWarning)
            yield

    def test_the_whole_way_round(self, runtime: Runtime, clock: ManualClock, told: Recorder) -> None:
        breaker = make()
        assert sent(breaker.acall(well)) == "well"
        for _ in range(3):
            with pytest.raises(KeyError):
                sent(breaker.acall(failing))
        with pytest.raises(CircuitOpenError):
            sent(breaker.acall(well))
        clock.advance(30)
        for _ in range(2):
            assert sent(breaker.acall(well)) == "well"
        assert told.moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]
        assert told.names == []

    def test_a_report_that_meets_the_lock_is_counted(self, runtime: Runtime, told: Recorder) -> None:
        breaker = make()
        sent(breaker.acall(well))
        storage: Any = runtime.opened.storage
        if runtime.url.startswith("memory") or "casual" in runtime.url or "awaited" in runtime.url:
            pytest.skip("nobody else holds its lock")
        storage.plan("lock", StorageLockTimeout("somebody else has the lock", key=KEY))
        with pytest.raises(KeyError):
            sent(breaker.acall(failing))
        assert (breaker.status().failure_count, told.names) == (1, [])

    def test_what_is_gathered_too(self, runtime: Runtime, told: Recorder) -> None:
        breaker = make(window="count", window_size=20, minimum_calls=20, failure_threshold=20)
        for _ in range(20):
            sent(breaker.acall(well))
        assert (breaker.status().success_count, told.names) == (20, [])

    def test_a_call_that_waits_says_so(self, tmp_path: Path) -> None:
        with Runtime(storage=f"threaded:{tmp_path}"), pytest.warns(RuntimeWarning, match="blocks this event loop"):
            assert sent(make().acall(well)) == "well"


class Gate:
    """A place in the storage where a call waits to be let go on; both for threads and for tasks."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def wait(self, well: Callable[..., Any], *arguments: Any) -> Any:
        self.reached.set()
        assert self.open.wait(PATIENCE)
        return well(*arguments)

    async def await_it(self, well: Callable[..., Any], *arguments: Any) -> Any:
        self.reached.set()
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        return well(*arguments)

    async def is_reached(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.reached.is_set():
                await asyncio.sleep(0.001)


async def ends(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


class TestCancellation:
    @pytest.fixture(params=["threaded", "awaited"])
    def scheme(self, request: pytest.FixtureRequest) -> Any:
        return request.param

    @staticmethod
    def gate(storage: Faulty, hook: str) -> Gate:
        """Let the next call of a hook wait."""
        gate = Gate()
        is_awaited = type(storage).__name__ == "Awaited"
        storage.plan("a" + hook if is_awaited else hook, gate.await_it if is_awaited else gate.wait)
        return gate

    @pytest.fixture
    def probing(self, runtime: Runtime, clock: ManualClock) -> CircuitBreaker:
        breaker = make(failure_threshold=1, half_open_max_calls=1)
        breaker.record_failure()
        clock.advance(30)
        return breaker

    @pytest.mark.parametrize("hook", ["load", "save"])
    def test_during_admission_the_permit_comes_back(self, runtime: Runtime, probing: CircuitBreaker, hook: str) -> None:
        storage = runtime.opened.storage

        async def main() -> None:
            gate = self.gate(storage, hook)
            task = asyncio.create_task(probing.acall(well))
            await gate.is_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            await ends(lambda: state(storage) == "half_open" and not permits(storage))
            assert await probing.acall(well) == "well"

        asyncio.run(main())
        assert probing.status().half_open_successes == 1

    def test_during_admission_at_the_end_of_the_loop(self, runtime: Runtime, probing: CircuitBreaker) -> None:
        """In a thread it is done to its end; awaited, nobody is there any more to do it, and the lease runs out."""
        storage = runtime.opened.storage
        if type(storage).__name__ == "Awaited":
            pytest.skip("what was sent over a network when its loop closed is not known")

        async def main() -> None:
            task = asyncio.create_task(probing.acall(well))
            await gate.is_reached()
            task.cancel()
            gate.open.set()

        gate = self.gate(storage, "save")
        asyncio.run(main())
        asyncio.run(ends(lambda: (state(storage), permits(storage)) == ("half_open", {})))

    def test_at_the_instant_of_the_answer(self, runtime: Runtime, probing: CircuitBreaker) -> None:
        """The permit was taken and its caller is cancelled before it goes on."""
        storage = runtime.opened.storage

        async def main() -> None:
            for delay in range(12):  # one of them hits the instant
                task = asyncio.create_task(probing.acall(well))
                if type(storage).__name__ == "Awaited":
                    for _ in range(delay):
                        await asyncio.sleep(0)
                else:
                    await asyncio.sleep(0)
                    await ends(lambda: bool(permits(storage)) or task.done())  # noqa: B023 - awaited at once
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await ends(lambda: not permits(storage))

        asyncio.run(main())
        assert probing.status().permits_in_use == 0

    def test_in_the_call_it_is_neutral(self, runtime: Runtime, probing: CircuitBreaker) -> None:
        storage = runtime.opened.storage

        async def main() -> None:
            task = asyncio.create_task(probing.acall(asyncio.sleep, 3600))
            await ends(lambda: bool(permits(storage)))
            await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await ends(lambda: not permits(storage))

        asyncio.run(main())
        status = probing.status()
        assert (status.state, status.half_open_successes) == (CircuitState.HALF_OPEN, 0)

    def test_a_generator_that_is_closed_while_it_awaits(self, runtime: Runtime, probing: CircuitBreaker) -> None:
        storage = runtime.opened.storage

        @probing
        async def pages() -> AsyncIterator[int]:
            await asyncio.get_running_loop().create_future()
            yield 1

        async def read() -> None:
            async for _ in pages():
                pass

        async def main() -> None:
            reading = read()
            while not permits(storage):
                waited_for = reading.send(None)
                if waited_for is not None:  # as a task does
                    waited_for._asyncio_future_blocking = False
                    await asyncio.wait([waited_for], timeout=0.05)
                else:
                    await asyncio.sleep(0)
            reading.send(None)
            reading.close()

        asyncio.run(main())
        assert permits(storage) == {}

    @pytest.mark.parametrize("hook", ["save"])
    def test_during_the_report_the_commit_is_finished(self, runtime: Runtime, hook: str) -> None:
        breaker = make()
        storage = runtime.opened.storage

        async def main() -> None:
            await breaker.acall(well)
            gate = self.gate(storage, hook)
            task = asyncio.create_task(breaker.acall(failing))
            await gate.is_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            await ends(lambda: storage.memory.resilience_load(KEY, 1).payload is not None)

        asyncio.run(main())
        assert breaker.status().failure_count == 1

    def test_what_fails_when_nobody_waits_any_more(
        self, runtime: Runtime, probing: CircuitBreaker, caplog: pytest.LogCaptureFixture
    ) -> None:
        probing = make(failure_threshold=1, on_store_error="raise")
        storage = runtime.opened.storage
        is_awaited = type(storage).__name__ == "Awaited"

        async def main() -> None:
            gate = Gate()

            def fails(*_: Any) -> None:
                gate.wait(lambda: None)
                raise StorageUnavailable("down")

            async def afails(*_: Any) -> None:
                await gate.await_it(lambda: None)
                raise StorageUnavailable("down")

            faults: Callable[..., Awaitable[None] | None] = afails if is_awaited else fails
            storage.plan("aload" if is_awaited else "load", faults)
            task = asyncio.create_task(probing.acall(well))
            await gate.is_reached()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open.set()
            await asyncio.sleep(0.05)

        asyncio.run(main())
        assert not [record for record in caplog.records if record.name == "asyncio"]


def record(storage: Faulty) -> dict[str, Any]:
    payload = storage.memory.resilience_load(KEY, 1).payload
    return {} if payload is None else json.loads(payload)


def state(storage: Faulty) -> str:
    return str(record(storage).get("state"))


def permits(storage: Faulty) -> dict[str, Any]:
    return record(storage).get("permits", {})
