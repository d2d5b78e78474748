"""What a guard decorates keeps its type: read by the type checkers, never run.

A line with an ignored error is a mistake that they find; that they no longer do is an error itself.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Self, assert_type

from resilience import CircuitBreaker, CircuitOpenError, CircuitState

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

breaker = CircuitBreaker("payments", failure_threshold=3, window="count", reset_timeout="30s")
hosts = CircuitBreaker.family("http", failure_threshold=3)


@breaker
def charge(order: int, *, currency: str = "EUR") -> float:
    return order * len(currency)


@breaker.judging(ignore=LookupError)
async def acharge(order: int) -> float:
    return float(order)


@breaker
def rows(table: str) -> Iterator[int]:
    yield len(table)


@breaker
@contextmanager
def session(host: str) -> Generator[bytes]:
    yield host.encode()


@asynccontextmanager
@breaker
async def asession(host: str) -> AsyncGenerator[bytes]:
    yield host.encode()


class Gateway:
    @breaker
    def charge(self, order: int) -> Self:
        return self

    @classmethod
    @breaker
    def of(cls, host: str) -> Self:
        return cls() if host else cls.of("localhost")

    @breaker
    @staticmethod
    def fee(order: int) -> float:
        return order / 100

    @property
    @breaker
    def balance(self) -> float:
        return 0.0


async def use(gateway: Gateway, total: Callable[[], int]) -> None:
    assert_type(charge(1, currency="USD"), float)
    assert_type(await acharge(1), float)
    assert_type(rows("orders"), Iterator[int])
    with session("a") as found:
        assert_type(found, bytes)
    async with asession("a") as found:
        assert_type(found, bytes)

    assert_type(gateway.charge(1), Gateway)
    assert_type(Gateway.of("a"), Gateway)
    assert_type(Gateway.fee(1), float)
    assert_type(gateway.balance, float)

    assert_type(breaker.call(charge, 1, currency="USD"), float)
    assert_type(await breaker.acall(acharge, 1), float)
    assert_type(breaker(functools.partial(charge, 1))(), float)
    assert_type(hosts["a"].call(total), int)
    with breaker as entered:
        assert_type(entered, CircuitBreaker)
    assert_type(breaker.status().state, CircuitState)


def told(error: CircuitOpenError) -> tuple[str, float | None, str | None]:
    return error.name, error.retry_after, error.last_error


def managers() -> tuple[AbstractContextManager[bytes], AbstractAsyncContextManager[bytes]]:
    return session("a"), asession("a")


def mistakes() -> None:
    charge("1")  # type: ignore[arg-type]  # a mistake, to be found
    breaker.call(charge, 1, currency=2)  # type: ignore[arg-type]  # a mistake, to be found
    CircuitBreaker("payments", failure_treshold=3)  # type: ignore[call-arg]  # a mistake, to be found
    CircuitBreaker("payments", window="calls")  # type: ignore[arg-type]  # a mistake, to be found
