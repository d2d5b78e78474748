"""What users hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from resilience import Guard
from resilience.policy import FAILURE
from resilience_error_budget.policy import SPENT, ErrorBudgetPolicy

if TYPE_CHECKING:
    from resilience import Runtime


class BudgetStatus(NamedTuple):
    """How much is left; `retry_after` is 0 where a call would be let in."""

    name: str
    state: str
    failures: int
    left: int
    retry_after: float
    degraded: bool


class ErrorBudget(Guard):
    """Lets calls in as long as no more than so many have failed.

    :param failures: so many are allowed in each period.
    :param period: seconds, or text such as ``"24h"``.
    :param on_store_error: what is decided while the storage does not answer.
    """

    __slots__ = ()

    policy_type = ErrorBudgetPolicy

    def __init__(self, name: str, *, runtime: Runtime | None = None, **settings: Any) -> None:
        super().__init__(name, settings, runtime)

    def spend(self, error: BaseException | str | None = None, *, strict: bool = False) -> None:
        """Report a failure."""
        self.record(FAILURE, error, strict=strict)

    def refill(self) -> None:
        """Make the budget whole."""
        self.control("refill")

    def status(self, *, strict: bool = False) -> BudgetStatus:
        """Look without changing anything."""
        seen = self.read(strict=strict)
        policy, state = seen.policy, seen.state
        end = policy.end(state, seen.now)
        failures = 0 if state.since is None or seen.now >= end else state.failures
        return BudgetStatus(
            self.name,
            state.state,
            failures,
            max(0, policy.failures - failures),
            max(0.0, end - seen.now) if state.state == SPENT else 0.0,
            seen.degraded is not None,
        )
