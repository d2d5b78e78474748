"""What the tests of the PostgreSQL storage do in processes of their own."""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING

from resilience import CircuitBreaker, CircuitOpenError, Key, Runtime
from resilience_postgres import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_runtimes: dict[str, Runtime] = {}
_admitted: list[AbstractContextManager[object]] = []


def breaker(url: str, name: str, **settings: float) -> CircuitBreaker:
    """A breaker on a runtime that lives as long as the process."""
    runtime = _runtimes.setdefault(url, Runtime(storage=url, storage_timeout=2, environ={}))
    return CircuitBreaker(name, runtime=runtime, reset_timeout=settings.pop("reset_timeout", 30), **settings)  # type: ignore[arg-type]


def fork() -> int:
    """Fork, also beside threads: that is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def close() -> None:
    """Close the runtimes of this process."""
    while _runtimes:
        _runtimes.popitem()[1].close()


def fail(url: str, name: str, times: int) -> int:
    """Record failures that open nothing; how many."""
    guarded = breaker(url, name, failure_threshold=1_000_000)
    for _ in range(times):
        guarded.record_failure()
    return times


def fail_for(url: str, name: str, seconds: float) -> int:
    """Record failures for so long; how many."""
    guarded = breaker(url, name, failure_threshold=1_000_000)
    guarded.record_failure()
    done, end = 1, time.monotonic() + seconds
    while time.monotonic() < end:
        guarded.record_failure()
        done += 1
    return done


def let_in(url: str, name: str, settings: dict[str, float]) -> bool:
    """Whether a call is let in; its permit is kept."""
    guarded = breaker(url, name, **settings)
    try:
        _admitted.append(guarded.acquire())  # type: ignore[arg-type]
    except CircuitOpenError:
        return False
    return True


def reject_at(url: str, name: str, ready: str) -> float:
    """Call until a call is rejected; the wall-clock second of it."""
    guarded = breaker(url, name, failure_threshold=1)
    for _ in _calls(ready, guarded):
        try:
            guarded.call(int)
        except CircuitOpenError:
            return time.time()
    raise AssertionError


def _calls(ready: str, guarded: CircuitBreaker) -> Iterator[None]:
    guarded.call(int)
    guarded.status()
    guarded.call(int)
    os.close(os.open(ready, os.O_WRONLY | os.O_CREAT, 0o600))
    end = time.monotonic() + 20
    while time.monotonic() < end:
        yield
        time.sleep(0.0001)  # as whoever calls something over a network; one that computes hears every 5 ms


def save_for_ever(url: str, name: str) -> None:
    """Commit until killed."""
    storage = PostgresStorage(url)
    key = Key("test", name)
    version = storage.resilience_load(key, 5).version
    while True:
        version = storage.resilience_save(key, b"{}", version, None, 5).version
