"""A breaker without engine and storage: the pure policy, a clock moved by hand, and the record in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience.policy import FOREVER, KEEP, LATER, Admit, Control, Lease, Rejected, Report
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker._state import State
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

if TYPE_CHECKING:
    from resilience.policy import Outcome, PolicyEvent, Step
    from resilience_circuit_breaker._status import CircuitStatus

START = 1_763_826_000.0


class Driver:
    """Steps a policy as the engine does; checks at each step that it is pure and that the record holds all of it."""

    def __init__(self, **config: Any) -> None:
        self.policy = CircuitBreakerPolicy(CircuitBreakerConfig(**config))
        self.state: State = self.policy.initial()
        self.now = START
        self.draw = 0

    def other(self, **config: Any) -> Driver:
        """Another process with another configuration, on a copy of the same record."""
        other = Driver(**config)
        other.state, other.now, other.draw = self.state, self.now, self.draw
        return other

    def step(self, event: PolicyEvent) -> Step:
        before = self.policy.encode(self.state)
        step = self.policy.step(self.state, event)
        again = self.policy.step(self.state, event)
        assert isinstance(step.state, State)
        assert self.policy.encode(self.state) == before, "the state that was given was changed"
        assert (again.state, again.until, again.keep) == (step.state, step.until, step.keep), "not the same step again"
        assert step.asks == step.state.asks >= self.state.asks
        if step.keep is not KEEP:
            written = self.policy.encode(step.state)
            assert self.policy.decode(written) == step.state, written
            assert step.state.epoch == self.state.epoch + (step.state.epoch != self.state.epoch)
        else:
            assert step.state is self.state
            assert step.moved is None
            assert not step.tells
        if step.keep is LATER:
            assert step.moved is None
            assert step.asks == self.state.asks
        if step.moved is not None:
            assert (step.moved.old, step.moved.new) == (self.state.state, step.state.state)
            assert step.state.epoch == self.state.epoch + 1
        assert step.lets_in == (step.state.state == "closed")
        if step.lets_in:
            for now in (self.now - 1e8, self.now, self.now + 1e8):
                following = self.policy.step(step.state, Admit(now, self.draw))
                assert (following.state, following.decision) == (step.state, None)
                assert (following.keep, following.until) == (KEEP, FOREVER)
        self.state = step.state
        return step

    def admit(self, *, anonymous: bool = False) -> Step:
        return self.step(Admit(self.now, self.draw, anonymous=anonymous))

    def let_in(self, *, anonymous: bool = False) -> Lease | None:
        """Admit, and be let in."""
        decision = self.admit(anonymous=anonymous).decision
        assert decision is None or isinstance(decision, Lease), decision
        return decision

    def refused(self, *, anonymous: bool = False) -> Rejection:
        """Admit, and be rejected."""
        step = self.admit(anonymous=anonymous)
        assert isinstance(step.decision, Rejection)
        return step.decision

    def report(
        self,
        outcome: Outcome,
        *,
        epoch: int | None = None,
        token: str | None = None,
        error: str | None = None,
        at: float | None = None,
        duration: float | None = None,
        count: int = 1,
    ) -> Step:
        at = self.now if at is None else at
        return self.step(
            Report(
                self.now,
                self.draw,
                outcome,
                at=at,
                epoch=epoch,
                token=token,
                error=error,
                duration=duration,
                count=count,
            )
        )

    def succeed(self, times: int = 1, duration: float | None = None) -> Step:
        """Report successes."""
        for _ in range(times - 1):
            self.report("success", duration=duration)
        return self.report("success", duration=duration)

    def rejected(self, count: int) -> Step:
        """Tell of calls that were rejected."""
        return self.step(Rejected(self.now, self.draw, count))

    def control(self, verb: str, **arguments: object) -> Step:
        return self.step(Control(self.now, self.draw, verb, arguments))

    def fail(self, times: int = 1) -> Step:
        for _ in range(times - 1):
            self.report("failure", error="TimeoutError")
        return self.report("failure", error="TimeoutError")

    def opened(self) -> Driver:
        """Fail until it opens."""
        self.fail(self.policy.config.failure_threshold or self.policy.config.minimum_calls)
        assert self.state.state == "open"
        return self

    def probing(self) -> Lease | None:
        """Open, wait, and take the first permit."""
        if self.state.state != "open":
            self.opened()
        assert self.state.until is not None
        self.now = self.state.until
        lease = self.let_in()
        assert self.state.state == "half_open"
        return lease

    @property
    def status(self) -> CircuitStatus:
        return self.policy.status(self.state, name="payments", now=self.now)


def token(lease: Lease | None) -> str:
    """The token of a lease that has one."""
    assert lease is not None
    assert lease.token is not None
    return lease.token
