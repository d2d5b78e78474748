"""The scenarios and the model are tested too: each bug that is put into the breaker must be found.

The bugs are put around the policy that the engine asks: into its settings, into what it is told, into what it answers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase
from unit.circuit_breaker.player import by_call
from unit.circuit_breaker.test_model import drive
from unit.circuit_breaker.test_scenarios import played

from resilience.policy import NEUTRAL, SUCCESS, Admit, Report, Step
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.policy import PolicyEvent

    Stepping = Callable[[CircuitBreakerPolicy, Any, PolicyEvent], Step]

_step: Stepping = CircuitBreakerPolicy.step
_from_settings = CircuitBreakerPolicy.from_settings


# --- bugs of the settings: one off, left out --------------------------------------------------------------------------


def _more(name: str, by: float) -> Callable[[Any], dict[str, Any]]:
    def update(given: Any) -> dict[str, Any]:
        value = getattr(given, name)
        return {} if value is None else {name: value + by}

    return update


SETTINGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "a failure too many": _more("failure_threshold", 1),
    "a rate has to be above": _more("failure_rate_threshold", 1e-6),
    "a call too early": _more("minimum_calls", -1),
    "one probe too many": _more("half_open_max_calls", 1),
    "a success too many": _more("half_open_success_threshold", 1),
    "a probe's failure too many": _more("half_open_failure_threshold", 1),
    "no backoff": lambda _: {"reset_timeout_backoff": 1.0},
    "no slow calls": lambda _: {"slow_call_rate_threshold": None},
}
"""What of the settings is taken for what else, if they are given in code."""


WINDOWED = {"failure_rate_threshold", "minimum_calls", "slow_call_rate_threshold"}


def _with(update: Callable[[Any], dict[str, Any]], settings: Any, given: Any) -> CircuitBreakerPolicy:
    changed = {
        name: value
        for name, value in update(settings).items()
        if (settings.window != "consecutive" or name not in WINDOWED)
        and value != 0
        and not (name == "failure_rate_threshold" and value > 1)
        and not (name == "failure_threshold" and settings.window == "count" and value > settings.window_size)
    }
    return _from_settings(settings.model_copy(update=changed), given)


def _keep(step: Step) -> Any:
    return step.keep


# --- bugs of the steps ------------------------------------------------------------------------------------------------


def _retold(event: Report, **change: Any) -> Report:
    fields = {name: getattr(event, name) for name in Report.__slots__} | change
    return Report(fields.pop("now"), fields.pop("draw"), fields.pop("outcome"), **fields)


def after_not_at(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """OPEN ends after its time, not at it."""
    if isinstance(event, Admit) and state.state == "open" and event.now == state.until:
        return _step(policy, state, Admit(event.now - 0.001, event.draw, anonymous=event.anonymous))
    return _step(policy, state, event)


def as_long_is_slow(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """A call that took just as long is slow."""
    if isinstance(event, Report) and event.duration:
        event = _retold(event, duration=event.duration + 1e-6)
    return _step(policy, state, event)


def ignored_is_success(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """What is ignored counts as a success."""
    if isinstance(event, Report) and event.outcome == NEUTRAL:
        event = _retold(event, outcome=SUCCESS)
    return _step(policy, state, event)


def permits_stay_taken(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """A neutral report does not give the permit back."""
    if isinstance(event, Report) and event.outcome == NEUTRAL:
        return Step(state)
    return _step(policy, state, event)


def never_late(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """A report of an earlier epoch belongs to the present one."""
    if isinstance(event, Report) and event.epoch != state.epoch:
        event = _retold(event, epoch=None, token=None)
    return _step(policy, state, event)


def window_stays_full(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """What stood in the window when it opened is still there when it has closed."""
    step = _step(policy, state, event)
    if step.moved is not None and step.moved.new == "closed":
        closed: Any = step.state
        kept = closed.but(failures=state.failures, last_failure=state.last_failure, windows=state.windows)
        return Step(kept, step.decision, keep=_keep(step), moved=step.moved, tells=step.tells, asks=step.asks)
    return step


def opens_by_itself_again(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """A report while it is open prolongs the time."""
    step = _step(policy, state, event)
    after: Any = step.state
    if isinstance(event, Report) and state.state == "open" and after.late_count != state.late_count:
        return Step(after.but(since=event.now, until=event.now + state.until - state.since), keep=_keep(step))
    return step


def clock_never_goes_back(policy: CircuitBreakerPolicy, state: Any, event: PolicyEvent) -> Step:
    """A stored time in the future is believed."""
    if isinstance(event, Admit) and state.since is not None and event.now < state.since:
        later = Admit(state.since, event.draw, anonymous=event.anonymous)
        return _step(policy, state, later)
    return _step(policy, state, event)


STEPS: dict[str, Stepping] = {
    str(bug.__doc__).rstrip("."): bug
    for bug in (
        after_not_at,
        as_long_is_slow,
        ignored_is_success,
        permits_stay_taken,
        never_late,
        window_stays_full,
        opens_by_itself_again,
    )
}
MODEL_ONLY: dict[str, Stepping] = {str(clock_never_goes_back.__doc__).rstrip("."): clock_never_goes_back}


def put(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bug into every breaker that is made from now on."""
    if bug in SETTINGS:
        monkeypatch.setattr(CircuitBreakerPolicy, "from_settings", staticmethod(partial(_with, SETTINGS[bug])))
    else:
        monkeypatch.setattr(CircuitBreakerPolicy, "step", (STEPS | MODEL_ONLY)[bug])


@pytest.mark.parametrize("bug", [*SETTINGS, *STEPS])
def test_the_scenarios_find_a_seeded_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bug, monkeypatch)
    assert next(played(by_call, "memory:"), "nothing was found") != "nothing was found"


def _found_by_the_model() -> None:
    with pytest.raises(AssertionError):
        drive(500, 25, phases=[Phase.generate])


def test_the_model_finds_a_seeded_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    put("OPEN ends after its time, not at it", monkeypatch)
    _found_by_the_model()


@pytest.mark.heavy
@pytest.mark.parametrize("bug", [*SETTINGS, *STEPS, *MODEL_ONLY])
def test_the_model_finds_each_seeded_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bug, monkeypatch)
    _found_by_the_model()
