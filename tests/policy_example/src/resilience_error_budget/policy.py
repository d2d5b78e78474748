"""The state machine: pure, so one object serves all threads, and a step may be computed again."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from resilience import PolicyRejected, StorageIncompatible
from resilience.policy import FAILURE, FOREVER, NEUTRAL, NOW, SUCCESS, Admit, Control, Move, Refusal, Report, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar, Literal, Self

    from resilience.cli.verbs import Verb
    from resilience.policy import OnStoreError, Outcome, PolicyEvent
    from resilience_error_budget.guard import ErrorBudget
    from resilience_error_budget.settings import ErrorBudgetSettings

KIND = "error_budget"
FORMAT = 1
WITHIN, SPENT = "within", "spent"


class BudgetSpentError(PolicyRejected):
    """So many calls failed that none is let in before the next period."""


class State(NamedTuple):
    """The failures of the period that began at `since` (wall-clock seconds; `None`: none began yet)."""

    since: float | None = None
    failures: int = 0
    state: str = WITHIN
    epoch: int = 0


class Spent(Refusal):
    """The budget is spent until `until`."""

    __slots__ = ("until", "why")

    def __init__(self, until: float, why: str) -> None:
        self.until = until
        self.why = why

    def error(self, name: str, now: float) -> BudgetSpentError:
        """Make the error."""
        left = None if self.until == FOREVER else max(0.0, self.until - now)
        return BudgetSpentError(f"error budget {name!r}: {self.why}", name=name, retry_after=left)


class ErrorBudgetPolicy:
    """An error budget under one configuration."""

    kind: ClassVar[str] = KIND

    # No report is gathered, durations do not matter, no result is a failure.
    gather = 0.0
    slow_after = math.inf
    judges_results = False
    limited_events = frozenset({"late"})

    def __init__(self, failures: int, period: float, on_store_error: OnStoreError) -> None:
        self.failures = failures
        self.period = period
        self.on_store_error: OnStoreError = on_store_error

    @staticmethod
    def settings_model() -> type[ErrorBudgetSettings]:
        """Load the model of its settings."""
        from resilience_error_budget.settings import ErrorBudgetSettings

        return ErrorBudgetSettings

    @classmethod
    def from_settings(
        cls,
        settings: ErrorBudgetSettings,
        given: Mapping[str, object] | None,  # noqa: ARG003 - how every policy is made
        /,
    ) -> Self:
        """Make the policy; settings of code are not stored: a shell takes its own from the variables."""
        return cls(settings.failures, settings.period, settings.on_store_error)

    @staticmethod
    def guard_type() -> type[ErrorBudget]:
        """Load the guard that users hold."""
        from resilience_error_budget.guard import ErrorBudget

        return ErrorBudget

    @staticmethod
    def verbs() -> Sequence[Verb]:
        """Load its verbs."""
        from resilience_error_budget.verbs import VERBS

        return VERBS

    def initial(self) -> State:
        """Return the state of a budget that has no record."""
        return State()

    def gather_limit(self, state: State, now: float, /) -> int:
        """Gather nothing."""
        return 1

    def step(self, state: State, event: PolicyEvent, /) -> Step:
        """Answer an event."""
        if isinstance(event, Admit):
            return self._admit(state, event.now)
        if isinstance(event, Control):
            if event.verb != "refill":
                raise ValueError(f"an error budget has no {event.verb!r}")
            return _moved(state, State(event.now, 0, WITHIN, state.epoch + 1), "refilled by hand")
        if isinstance(event, Report) and event.outcome == FAILURE:
            return self._failed(state, event)
        return Step(state)

    def _admit(self, state: State, now: float) -> Step:
        end = self.end(state, now)
        if state.state == WITHIN:
            return Step(state)
        if now < end:
            return Step(state, Spent(end, f"{state.failures} failures"), until=end)
        return _moved(state, State(now, 0, WITHIN, state.epoch + 1), "a new period")

    def _failed(self, state: State, event: Report) -> Step:
        if event.epoch is not None and event.epoch != state.epoch:
            return Step(state, tells=(("late", {"outcome": event.outcome, "state": state.state}),))
        if state.since is None or event.now >= self.end(state, event.now):
            state = state._replace(since=event.now, failures=0)
        after = state._replace(failures=state.failures + event.count)
        if state.state == WITHIN and after.failures >= self.failures:
            spent = after._replace(state=SPENT, epoch=state.epoch + 1)
            return _moved(state, spent, f"{after.failures} failures")
        return Step(after, keep=NOW)

    def end(self, state: State, now: float) -> float:
        """Return when the period ends; one that began in the future, by another clock, is taken as beginning now."""
        return now if state.since is None else min(state.since, now) + self.period

    def encode(self, state: State, /) -> bytes:
        """Write a state."""
        return json.dumps({"v": FORMAT, **state._asdict()}, separators=(",", ":")).encode("ascii")

    def decode(self, payload: bytes, /) -> State:
        """Read a state."""
        fields: Any = json.loads(payload)
        try:
            number, since, failures, state, epoch = (fields[name] for name in ("v", *State._fields))
        except (TypeError, KeyError) as error:
            raise ValueError("it is no error budget") from error
        if number != FORMAT:
            raise StorageIncompatible("the record was written by another version of resilience-error-budget")
        numbers = (failures, epoch, 0 if since is None else since)
        if state not in {WITHIN, SPENT} or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a field of it is damaged")
        return State(since, failures, state, epoch)

    def expires_at(self, state: State, /) -> float | None:
        """Nothing is left of a period two of them later."""
        return None if state.since is None else state.since + 2 * self.period

    def stored_settings(self, state: State, /) -> None:
        """None are stored."""

    def refuse(self, state: State | None, reason: str, /) -> Spent:
        """Refuse for a reason that lies outside."""
        return Spent(FOREVER, reason)

    def judge_error(self, error: BaseException, duration: float | None = None, /) -> Outcome:
        """Each `Exception` is a failure."""
        return FAILURE if isinstance(error, Exception) else NEUTRAL

    def judge_result(self, result: object, /) -> Literal["success"]:
        """Each result is a success."""
        return SUCCESS


def _moved(old: State, new: State, reason: str) -> Step:
    return Step(new, keep=NOW, moved=Move(old.state, new.state, reason))
