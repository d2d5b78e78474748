"""The shells of a guard: what it decorates, enters and calls, and what each makes of how it ended."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import pickle
import threading
import types
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, CircuitStatus, ConfigurationError, Key, Runtime

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterator

    from resilience.testing import ManualClock

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def runtime(clock: ManualClock) -> Iterator[Runtime]:
    with Runtime(storage="memory:", clock=clock) as runtime:
        yield runtime


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker("payments", failure_threshold=2, reset_timeout=30, half_open_success_threshold=1)


def failures(breaker: CircuitBreaker) -> int:
    return breaker.status().failure_count


def half_open(breaker: CircuitBreaker, clock: ManualClock) -> None:
    breaker.force_open()
    breaker.force_open(seconds=1)
    clock.advance(1)


class TestFunctions:
    def test_it_is_called_with_what_it_is_called_with(self, breaker: CircuitBreaker) -> None:
        @breaker
        def charge(order: int, /, *more: int, currency: str, **rest: int) -> tuple[object, ...]:
            """Charge."""
            return order, more, currency, rest

        assert charge(1, 2, 3, currency="eur", tip=4) == (1, (2, 3), "eur", {"tip": 4})
        assert (charge.__name__, charge.__doc__) == ("charge", "Charge.")
        assert list(inspect.signature(charge).parameters) == ["order", "more", "currency", "rest"]
        assert breaker.call(charge, 1, currency="usd") == (1, (), "usd", {})

    def test_its_error_is_its_own(self, breaker: CircuitBreaker) -> None:
        error = KeyError("x")

        @breaker
        def failing() -> None:
            raise error

        with pytest.raises(KeyError) as raised:
            failing()
        assert raised.value is error
        assert error.__context__ is None
        assert failures(breaker) == 1

    def test_rejected_it_is_not_called(self, breaker: CircuitBreaker) -> None:
        breaker.force_open()
        with pytest.raises(CircuitOpenError):
            breaker(pytest.fail)()

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), GeneratorExit(), BaseException()])
    def test_what_says_nothing_of_the_dependency_gives_the_permit_back(
        self, breaker: CircuitBreaker, clock: ManualClock, error: BaseException
    ) -> None:
        half_open(breaker, clock)

        def interrupted() -> None:
            raise error

        with pytest.raises(type(error)):
            breaker.call(interrupted)
        status = breaker.status()
        assert (status.state, status.permits_in_use, status.half_open_successes) == (CircuitState.HALF_OPEN, 0, 0)

    def test_what_is_ignored_and_what_is_no_failure(self, clock: ManualClock) -> None:
        breaker = CircuitBreaker("x", failure_on=OSError, ignore=BlockingIOError, half_open_success_threshold=9)
        half_open(breaker, clock)
        for error in (BlockingIOError, ValueError):
            with pytest.raises(error):
                breaker.call(_raise, error())
        status = breaker.status()
        assert (status.half_open_successes, status.half_open_failures, status.permits_in_use) == (1, 0, 0)

    def test_results_are_judged(self, clock: ManualClock) -> None:
        breaker = CircuitBreaker("x", failure_if=lambda status: status >= 500, failure_threshold=3)
        codes = iter([500, 200, 503, 501])
        assert [breaker.call(next, codes) for _ in range(2)] == [500, 200]
        assert failures(breaker) == 0
        assert [breaker.call(next, codes) for _ in range(2)] == [503, 501]
        status = breaker.status()
        assert (status.failure_count, status.last_error) == (2, "failure_if")
        with pytest.raises(TypeError), breaker:  # a block has no result
            raise TypeError
        assert breaker.status().state is CircuitState.OPEN

    def test_a_predicate_that_raises_is_kept_from_the_caller(self) -> None:
        breaker = CircuitBreaker("x", failure_if=lambda result: result.code >= 500)
        assert breaker.call(lambda: 1) == 1
        assert failures(breaker) == 1

    def test_methods(self, breaker: CircuitBreaker) -> None:
        class Client:
            @breaker
            def method(self) -> object:
                return self

            @breaker
            @classmethod
            def of_class(cls) -> object:
                return cls

            @classmethod
            @breaker
            def of_class_too(cls) -> object:
                return cls

            @breaker
            @staticmethod
            def of_none() -> object:
                raise KeyError

        client = Client()
        assert client.method() is client
        assert client.of_class() is Client
        assert Client.of_class_too() is Client
        with pytest.raises(KeyError):
            client.of_none()
        assert failures(breaker) == 1

    def test_partials_and_callable_objects(self, breaker: CircuitBreaker) -> None:
        class Doubling:
            def __call__(self, value: int) -> int:
                return 2 * value

        class Awaiting:
            async def __call__(self) -> int:
                raise KeyError

        assert breaker(functools.partial(pow, 2))(3) == 8
        assert breaker(Doubling())(4) == 8
        assert breaker(len)([1]) == 1
        for function in (Awaiting(), functools.partial(Awaiting())):
            guarded = breaker(function)
            assert inspect.iscoroutinefunction(guarded)
            with pytest.raises(KeyError):
                asyncio.run(guarded())
        assert breaker.status().state is CircuitState.OPEN

    def test_what_says_that_it_is_a_coroutine_function(self, breaker: CircuitBreaker) -> None:
        @types.coroutine
        def by_steps() -> Generator[None, None, None]:
            yield
            raise KeyError

        for function in (AsyncMock(side_effect=KeyError), by_steps):
            guarded: Any = breaker(function)
            assert inspect.iscoroutinefunction(guarded)
            with pytest.raises(KeyError):
                asyncio.run(guarded())
        assert breaker.status().state is CircuitState.OPEN

    def test_a_coroutine_that_is_returned_is_told_of_and_not_judged(
        self, breaker: CircuitBreaker, clock: ManualClock
    ) -> None:
        async def fetch() -> None:
            raise KeyError

        def through_another() -> Coroutine[None, None, None]:
            return fetch()

        half_open(breaker, clock)
        for function in (breaker(through_another), lambda: breaker.call(functools.partial(fetch))):
            with pytest.warns(RuntimeWarning, match="returned a coroutine, of which nothing is judged"):
                coroutine = function()
            coroutine.close()
        status = breaker.status()
        assert (status.state, status.permits_in_use) == (CircuitState.HALF_OPEN, 0)

    def test_a_generator_function_is_not_called_as_a_function(self, breaker: CircuitBreaker) -> None:
        def count() -> Iterator[int]:
            yield 1

        async def acount() -> AsyncIterator[int]:
            yield 1

        for function in (count, acount):
            with pytest.raises(TypeError, match="generator function, which runs step by step; decorate it"):
                _ = breaker.call(function)

    @pytest.mark.parametrize("thing", [int, None, 7, CircuitBreaker])
    def test_what_is_no_function(self, breaker: CircuitBreaker, thing: Any) -> None:
        with pytest.raises(TypeError, match="decorates functions"):
            breaker(thing)

    def test_a_coroutine_function(self, breaker: CircuitBreaker) -> None:
        @breaker
        async def fetch(what: str) -> str:
            await asyncio.sleep(0)
            if what == "bad":
                raise KeyError(what)
            return what

        assert inspect.iscoroutinefunction(fetch)
        assert asyncio.run(fetch("good")) == "good"
        with pytest.raises(KeyError):
            asyncio.run(fetch("bad"))
        assert failures(breaker) == 1

    def test_results_of_coroutines_are_judged(self) -> None:
        breaker = CircuitBreaker("x", failure_if=bool)

        async def answer() -> int:
            return 500

        assert asyncio.run(breaker.acall(answer)) == 500
        assert breaker.status().last_error == "failure_if"


def _raise(error: BaseException) -> None:
    raise error


class TestGenerators:
    def test_it_is_admitted_at_its_first_step(self, breaker: CircuitBreaker) -> None:
        @breaker
        def rows() -> Iterator[int]:
            yield 1

        assert inspect.isgeneratorfunction(rows)
        begun = rows()
        breaker.force_open()
        with pytest.raises(CircuitOpenError):
            next(begun)

    def test_it_passes_everything_through(self, breaker: CircuitBreaker) -> None:
        @breaker
        def echo() -> Generator[object, object]:
            try:
                got = yield "ready"
                while True:
                    try:
                        got = yield got
                    except KeyError as error:
                        got = error
            finally:
                ended.append(True)

        ended: list[bool] = []
        generator = echo()
        assert next(generator) == "ready"
        assert generator.send(1) == 1
        error = KeyError()
        assert generator.throw(error) is error
        generator.close()
        assert ended == [True]

    def test_it_is_judged_when_it_ends(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        def rows() -> Any:
            yield 1
            return "end"

        @breaker
        def broken() -> Iterator[int]:
            yield 1
            raise KeyError

        half_open(breaker, clock)
        generator = rows()
        next(generator)
        assert breaker.status().permits_in_use == 1
        with pytest.raises(StopIteration) as stop:
            next(generator)
        assert stop.value.value == "end"
        assert breaker.status().state is CircuitState.CLOSED
        with pytest.raises(KeyError):
            list(broken())
        assert failures(breaker) == 1

    def test_closed_early_it_is_neutral(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        def rows() -> Iterator[int]:
            yield 1
            yield 2

        half_open(breaker, clock)
        for number in rows():
            assert number == 1
            break
        status = breaker.status()
        assert (status.state, status.permits_in_use, status.half_open_successes) == (CircuitState.HALF_OPEN, 0, 0)

    def test_arguments_that_do_not_fit(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        def rows(table: str) -> Iterator[int]:
            yield len(table)

        wrong: Any = rows
        with pytest.raises(TypeError):
            next(wrong())


class TestAsyncGenerators:
    def test_it_passes_everything_through(self, breaker: CircuitBreaker) -> None:
        @breaker
        async def echo() -> AsyncGenerator[object, object]:
            try:
                got = yield "ready"
                while got != "end":
                    try:
                        got = yield got
                    except KeyError as error:
                        got = error
            finally:
                await asyncio.sleep(0)
                ended.append(True)

        async def main() -> None:
            generator: Any = echo()
            assert await anext(generator) == "ready"
            assert await generator.asend(1) == 1
            error = KeyError()
            assert await generator.athrow(error) is error
            await generator.aclose()
            assert ended == [True]
            another: Any = echo()
            await anext(another)
            with pytest.raises(StopAsyncIteration):
                await another.asend("end")

        assert inspect.isasyncgenfunction(echo)
        ended: list[bool] = []
        asyncio.run(main())
        assert failures(breaker) == 0

    def test_it_is_judged_when_it_ends(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        async def rows() -> AsyncIterator[int]:
            yield 1

        @breaker
        async def broken() -> AsyncIterator[int]:
            yield 1
            raise KeyError

        async def main() -> None:
            half_open(breaker, clock)
            assert [number async for number in rows()] == [1]
            assert breaker.status().state is CircuitState.CLOSED
            with pytest.raises(KeyError):
                [number async for number in broken()]

        asyncio.run(main())
        assert failures(breaker) == 1

    def test_closed_early_it_is_neutral(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        async def rows() -> AsyncIterator[int]:
            yield 1
            yield 2

        async def main() -> None:
            half_open(breaker, clock)
            generator: Any = rows()
            assert await anext(generator) == 1
            assert breaker.status().permits_in_use == 1
            await generator.aclose()

        asyncio.run(main())
        status = breaker.status()
        assert (status.state, status.permits_in_use, status.half_open_successes) == (CircuitState.HALF_OPEN, 0, 0)

    def test_an_error_thrown_in_that_it_does_not_handle(self, breaker: CircuitBreaker) -> None:
        @breaker
        async def rows() -> AsyncIterator[int]:
            yield 1

        async def main() -> None:
            generator: Any = rows()
            await anext(generator)
            with pytest.raises(KeyError):
                await generator.athrow(KeyError())

        asyncio.run(main())
        assert failures(breaker) == 1

    def test_arguments_that_do_not_fit(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        async def rows(table: str) -> AsyncIterator[int]:
            yield len(table)

        async def main() -> None:
            wrong: Any = rows
            with pytest.raises(TypeError):
                await anext(wrong())

        half_open(breaker, clock)
        asyncio.run(main())
        assert breaker.status().permits_in_use == 0

    def test_rejected(self, breaker: CircuitBreaker) -> None:
        @breaker
        async def rows() -> AsyncIterator[int]:
            yield 1

        async def main() -> None:
            generator: Any = rows()
            breaker.force_open()
            with pytest.raises(CircuitOpenError):
                await anext(generator)

        asyncio.run(main())


class TestContextManagers:
    """What `contextlib` makes of a generator function, in either order of the two decorators."""

    @pytest.mark.parametrize("outermost", [True, False])
    def test_its_block_is_judged_when_it_is_left(
        self, breaker: CircuitBreaker, clock: ManualClock, *, outermost: bool
    ) -> None:
        def session(host: str) -> Generator[str]:
            """Connect."""
            yield host

        connect = breaker(contextmanager(session)) if outermost else contextmanager(breaker(session))
        assert connect.__doc__ == "Connect."
        for _ in range(2):
            with pytest.raises(KeyError), connect("a"):
                raise KeyError
        with pytest.raises(CircuitOpenError), connect("a"):
            pytest.fail("ran")
        half_open(breaker, clock)
        with connect("a") as host:
            assert (host, breaker.status().permits_in_use) == ("a", 1)
        assert breaker.status().state is CircuitState.CLOSED

    @pytest.mark.parametrize("outermost", [True, False])
    def test_an_awaited_block_is_judged_when_it_is_left(self, breaker: CircuitBreaker, *, outermost: bool) -> None:
        async def session(host: str) -> AsyncGenerator[str]:
            yield host

        connect = breaker(asynccontextmanager(session)) if outermost else asynccontextmanager(breaker(session))

        async def main() -> None:
            for _ in range(2):
                with pytest.raises(KeyError):
                    async with connect("a"):
                        raise KeyError
            with pytest.raises(CircuitOpenError):
                await connect("a").__aenter__()

        asyncio.run(main())

    def test_what_it_decorates_is_guarded(self, breaker: CircuitBreaker) -> None:
        @breaker
        @contextmanager
        def session() -> Generator[None]:
            yield

        @session()
        def fetch() -> None:
            raise KeyError

        with pytest.raises(KeyError):
            fetch()
        assert failures(breaker) == 1


class TestBlocks:
    def test_it_is_judged_when_it_is_left(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        with pytest.raises(KeyError), breaker:
            raise KeyError
        assert failures(breaker) == 1
        with breaker as entered:
            assert entered is breaker
        assert failures(breaker) == 0
        half_open(breaker, clock)
        with breaker:
            assert breaker.status().permits_in_use == 1
        assert breaker.status().state is CircuitState.CLOSED

    def test_rejected_it_does_not_run(self, breaker: CircuitBreaker) -> None:
        breaker.force_open()
        with pytest.raises(CircuitOpenError), breaker:
            pytest.fail("ran")
        breaker.close()
        with breaker:
            pass

    def test_it_is_entered_again_inside(self, clock: ManualClock) -> None:
        breaker = CircuitBreaker("x", half_open_max_calls=3, half_open_success_threshold=9)
        half_open(breaker, clock)
        with breaker:
            with breaker, breaker:
                assert breaker.status().permits_in_use == 3
                with pytest.raises(CircuitOpenError):
                    breaker.__enter__()
            assert breaker.status().permits_in_use == 1
        status = breaker.status()
        assert (status.permits_in_use, status.half_open_successes) == (0, 3)

    def test_blocks_of_others_inside(self, clock: ManualClock) -> None:
        one, other = CircuitBreaker("one"), CircuitBreaker("other")
        with pytest.raises(KeyError), one, other:
            with one:
                pass
            raise KeyError
        assert (failures(one), failures(other)) == (1, 1)

    def test_threads_and_tasks_have_their_own(self, clock: ManualClock) -> None:
        breaker = CircuitBreaker("x", half_open_max_calls=9, half_open_success_threshold=99)
        half_open(breaker, clock)
        inside, leave = threading.Barrier(5), threading.Barrier(5)

        def block() -> None:
            with breaker:
                inside.wait(10)
                leave.wait(10)

        threads = [threading.Thread(target=block) for _ in range(4)]
        for thread in threads:
            thread.start()
        inside.wait(10)
        assert breaker.status().permits_in_use == 4
        leave.wait(10)
        for thread in threads:
            thread.join(10)

        async def main() -> None:
            async def task() -> None:
                async with breaker:
                    await full.wait()

            full = asyncio.Event()
            tasks = [asyncio.create_task(task()) for _ in range(4)]
            await asyncio.sleep(0)
            assert breaker.status().permits_in_use == 4
            full.set()
            await asyncio.gather(*tasks)

        asyncio.run(main())
        status = breaker.status()
        assert (status.permits_in_use, status.half_open_successes) == (0, 8)

    def test_a_block_left_in_another_context_counts_in_the_present_epoch(self, breaker: CircuitBreaker) -> None:
        contextvars.Context().run(breaker.__enter__)
        breaker.__exit__(KeyError, KeyError(), None)
        assert failures(breaker) == 1
        asyncio.run(breaker.__aexit__(KeyError, KeyError(), None))
        assert failures(breaker) == 2

    def test_awaited(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        async def main() -> None:
            async with breaker as entered:
                assert entered is breaker
            with pytest.raises(KeyError):
                async with breaker:
                    raise KeyError
            assert failures(breaker) == 1
            async with breaker:
                await asyncio.sleep(0)
            assert failures(breaker) == 0
            half_open(breaker, clock)
            async with breaker:
                assert breaker.status().permits_in_use == 1
            assert breaker.status().state is CircuitState.CLOSED

        asyncio.run(main())


class TestObjects:
    def test_repr_and_name(self, breaker: CircuitBreaker) -> None:
        assert (breaker.name, repr(breaker)) == ("payments", "CircuitBreaker('payments')")

    @pytest.mark.parametrize("name", ["", " x", "x" * 1001, "a\nb", 7, None])
    def test_impossible_names(self, name: Any) -> None:
        with pytest.raises(ConfigurationError, match="CircuitBreaker"):
            CircuitBreaker(name)

    def test_impossible_settings_are_told_at_once(self) -> None:
        settings: list[dict[str, Any]] = [{"failure_threshold": 0}, {"reset_timeout": "soon"}, {"treshold": 3}]
        for given in settings:
            with pytest.raises(ConfigurationError, match=next(iter(given))):
                CircuitBreaker("x", **given)

    def test_it_pickles_and_copies_as_its_configuration(self, breaker: CircuitBreaker) -> None:
        breaker.record_failure()
        for again in (pickle.loads(pickle.dumps(breaker)), copy.copy(breaker), copy.deepcopy(breaker)):
            assert (again.name, failures(again)) == ("payments", 1)
        pickle.loads(pickle.dumps(breaker)).record_failure()
        assert breaker.status().state is CircuitState.OPEN
        stored = pickle.loads(pickle.dumps(CircuitBreaker.stored("payments")))
        assert stored.status().state is CircuitState.OPEN

    def test_one_of_a_runtime_does_not_pickle(self) -> None:
        runtime = Runtime(storage="memory:")
        with pytest.raises(TypeError, match="bound to a runtime"):
            pickle.dumps(CircuitBreaker("x", runtime=runtime))

    @pytest.mark.parametrize("again", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_a_permit_stays_where_it_is(self, breaker: CircuitBreaker, again: Callable[[object], object]) -> None:
        permit = breaker.acquire()
        with pytest.raises(TypeError, match="hand its token to who reports"):
            again(permit)

    def test_a_rejection_pickles(self, breaker: CircuitBreaker) -> None:
        breaker.force_open(seconds=60, reason="maintenance")
        with pytest.raises(CircuitOpenError) as rejection:
            breaker.acquire()
        again = pickle.loads(pickle.dumps(rejection.value))
        assert (again.name, again.state, again.retry_after, str(again)) == (
            "payments",
            CircuitState.FORCED_OPEN,
            60,
            str(rejection.value),
        )
        assert again.reason == "maintenance"


class TestWhatIsKept:
    """A record is for all to see, so what somebody said with a password in it is kept without."""

    URL = "redis://me:hunter2@host/0"

    @pytest.fixture
    def kept(self, breaker: CircuitBreaker, runtime: Runtime) -> Callable[[], bytes]:
        def kept() -> bytes:
            payload = runtime.opened.ports.load(Key("circuit_breaker", breaker.name), 1).payload
            assert payload is not None
            return payload

        return kept

    @pytest.mark.parametrize("control", ["force_open", "disable", "metrics_only", "close", "reset"])
    def test_a_reason(self, control: str, breaker: CircuitBreaker, kept: Callable[[], bytes]) -> None:
        getattr(breaker, control)(reason=f"see {self.URL}")
        assert breaker.status().reason == "see redis://***@host/0"
        assert b"hunter2" not in kept()

    def test_an_error(self, breaker: CircuitBreaker, kept: Callable[[], bytes]) -> None:
        breaker.record_failure(f"no answer of {self.URL}")
        assert breaker.status().last_error == "no answer of redis://***@host/0"
        breaker.acquire().failure(f"again {self.URL}")
        assert breaker.status().last_error == "again redis://***@host/0"
        assert b"hunter2" not in kept()

    def test_a_state_that_is_restored(self, breaker: CircuitBreaker, kept: Callable[[], bytes]) -> None:
        breaker.restore(CircuitStatus(state="forced_open", last_error=self.URL, reason=self.URL))
        status = breaker.status()
        assert (status.last_error, status.reason) == ("redis://***@host/0", "redis://***@host/0")
        assert b"hunter2" not in kept()
