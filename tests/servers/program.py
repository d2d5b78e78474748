"""A program with one breaker, on a server of which another test says what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from storages import Recorder

from resilience import CircuitBreaker, CircuitOpenError, Runtime
from resilience.testing import wait_until

if TYPE_CHECKING:
    from resilience_postgres import PostgresStorage
    from resilience_redis import RedisStorage


class Program:
    """Its breaker opens at the third failure; a machine that has much to do is no outage to it."""

    def __init__(self, storage: RedisStorage | PostgresStorage) -> None:
        self.storage = storage
        self.told = Recorder()
        self.runtime = Runtime(storage=storage, storage_timeout=30, observers=[self.told])
        self.breaker = CircuitBreaker("payments", runtime=self.runtime, failure_threshold=3)

    def fail(self) -> str:
        """Make a call that fails."""

        def failing() -> None:
            raise OSError("the dependency")

        try:
            self.breaker.call(failing)
        except OSError:
            return "failed"
        except CircuitOpenError:
            return "rejected"
        raise AssertionError("it neither failed nor was rejected")

    def comes_back(self, failures: int) -> None:
        """See one recovery, told once, with so many failures in the shared record: one fewer than open it."""
        wait_until(lambda: not self.breaker.status().degraded, "the recovery")
        assert self.told.names == ["degraded", "recovered"]
        assert self.breaker.status().failure_count == failures  # those of the private copy are no part of it
        assert [self.fail(), self.fail()] == ["failed", "rejected"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.runtime.close()
        self.storage.close()
