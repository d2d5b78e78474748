"""Plays the steps of `scenarios` on a breaker, by one of the ways to make a call; started processes import it too."""

from __future__ import annotations

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from resilience import CircuitBreaker, CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from resilience import Runtime
    from resilience.permits import Permit
    from resilience.testing import ManualClock

    Way = Callable[[CircuitBreaker, Callable[[], object]], None]

START = 1_000_000_200.0
"""At the edge of a bucket of every window that the scenarios use."""

SPAN = 600.0
"""Scenarios begin at a multiple of it."""


class Left(BaseException):
    """What leaves a call without saying anything of the dependency."""


ERRORS: dict[str, type[BaseException]] = {
    "fail": TimeoutError,
    "ignored": LookupError,
    "other": ValueError,
    "cancel": Left,
}
RAISED = tuple(ERRORS.values())
CONTROLS = {"force_open", "disable", "metrics_only", "close", "reset"}
SHOWN = {
    "failures": "failure_count",
    "successes": "success_count",
    "slow": "slow_count",
    "rate": "failure_rate",
    "slow_rate": "slow_call_rate",
    "well": "half_open_successes",
    "bad": "half_open_failures",
    "permits": "permits_in_use",
    "late": "late_count",
    "retry": "retry_after",
}


@contextmanager
def quiet() -> Generator[None]:
    """Log nothing: pytest would keep thousands of lines that nobody reads."""
    logger = logging.getLogger("resilience")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


# --- the ways to make a call ------------------------------------------------------------------------------------------


def by_decorator(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    breaker(work)()


def by_call(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    breaker.call(work)


def by_with(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    with breaker:
        if work() is False:  # a block returns nothing that could be judged
            raise TimeoutError


def by_permit(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    permit = breaker.acquire()
    try:
        returned = work()
    except (LookupError, Left):
        permit.release()
        raise
    except ValueError:
        permit.success()
        raise
    except TimeoutError as error:
        permit.failure(error)
        raise
    if returned is False:
        permit.failure("failure_if")
    else:
        permit.success()


async def _async_decorator(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    @breaker
    async def protected() -> object:
        return work()

    await protected()


async def _acall(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async def protected() -> object:
        return work()

    await breaker.acall(protected)


async def _async_with(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async with breaker:
        if work() is False:
            raise TimeoutError


SYNC: dict[str, Way] = {"decorator": by_decorator, "call": by_call, "with": by_with, "acquire": by_permit}
ASYNC = {"async decorator": _async_decorator, "acall": _acall, "async with": _async_with}
WAYS = [*SYNC, *ASYNC, "threads"]


class Ways:
    """Gives the ways by name; holds the event loop and the threads that some need."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool = ThreadPoolExecutor(3)

    def __getitem__(self, name: str) -> Way:
        if name in ASYNC:
            made = ASYNC[name]
            return lambda breaker, work: self._runner.run(made(breaker, work))
        if name == "threads":
            return lambda breaker, work: self._pool.submit(by_call, breaker, work).result()
        return SYNC[name]

    def close(self) -> None:
        self._runner.close()
        self._pool.shutdown()


# --- the steps --------------------------------------------------------------------------------------------------------


def words(steps: str) -> Iterator[str]:
    """The steps one by one."""
    for step in steps.split():
        step, _, times = step.partition("*")  # noqa: PLW2901 - what is left of it
        yield from [step] * int(times or 1)


def breaker_of(name: str, settings: dict[str, Any], runtime: Runtime) -> CircuitBreaker:
    """The breaker of a scenario; it gathers nothing, so that every count is exact."""
    given = dict(settings)
    if given.pop("failure_if", None):
        given["failure_if"] = _is_false
    return CircuitBreaker(name, runtime=runtime, gather=0, **given)


def _is_false(returned: object) -> bool:
    return returned is False


class Player:
    """Plays on one breaker."""

    def __init__(self, breaker: CircuitBreaker, clock: ManualClock, way: Way) -> None:
        self.breaker = breaker
        self.clock = clock
        self.way = way
        self.permits: dict[str, Permit] = {}

    def play(self, steps: str) -> None:
        """Take all steps; `AssertionError` names the first that goes otherwise."""
        for index, word in enumerate(words(steps)):
            try:
                self.step(word)
            except AssertionError as error:
                raise AssertionError(f"step {index + 1}, {word}: {error} ({self.breaker.status()!r})") from None

    def step(self, word: str) -> None:
        """Take one step."""
        name, _, value = word.partition(":")
        shown, _, expected = word.partition("=")
        if not shown:
            assert str(self.breaker.status().state) == expected
        elif shown in SHOWN:
            got = getattr(self.breaker.status(), SHOWN[shown])
            assert _same(got, expected), f"{SHOWN[shown]} is {got!r}"
        elif name == "wait":
            self.clock.advance(float(value))
        elif name == "no":
            self._rejected(value)
        elif name == "take":
            self._take(value)
        elif name == "check":
            assert self.breaker.check() is (value != "no")
        elif name in CONTROLS:
            getattr(self.breaker, name)(*([float(value)] if value else []))
        elif "." in name and name.split(".")[1].isalpha():
            self._report(*name.split("."))
        else:
            self._call(word)

    def _call(self, word: str) -> None:
        kind, _, took = word.partition("@")
        assert kind in ERRORS or kind in {"ok", "false"}, "no such step"

        def work() -> bool:
            self.clock.advance(float(took or 0))
            if kind in ERRORS:
                raise ERRORS[kind]
            return kind != "false"

        try:
            self.way(self.breaker, work)
        except CircuitOpenError as error:
            raise AssertionError(f"rejected: {error}") from None
        except RAISED:
            pass

    def _rejected(self, expected: str) -> None:
        made: list[str] = []
        refusal = None
        try:
            self.way(self.breaker, lambda: made.append("made"))
        except CircuitOpenError as error:
            refusal = error
        assert refusal is not None, "a call was let in"
        assert not made, "a rejected call was made"
        assert not expected or _same(refusal.retry_after, expected), f"retry_after is {refusal.retry_after!r}"

    def _take(self, name: str) -> None:
        try:
            permit = self.breaker.acquire()
        except CircuitOpenError:
            assert name == "no", "no permit was given"
        else:
            assert name != "no", "a permit was given"
            self.permits[name] = permit

    def _report(self, name: str, outcome: str) -> None:
        report: Callable[[], None]
        if name == "said":
            report = {"ok": self.breaker.record_success, "fail": self.breaker.record_failure}[outcome]
        else:
            permit = self.permits[name]
            report = {"ok": permit.success, "fail": permit.failure, "free": permit.release}[outcome]
        report()


def _same(got: float | None, expected: str) -> bool:
    if expected == "none" or got is None:
        return expected == "none" and got is None
    return math.isclose(got, float(expected), rel_tol=1e-9, abs_tol=1e-6)
