"""What each row of the table does, to the letter: `steps.txt` shows it, and a change of it shows in the diff.

    PYTHONPATH=tests python tests/unit/circuit_breaker/test_breaker_steps.py

writes it anew.  Read the difference: each line is something that a caller, an operator or another process sees.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unit.circuit_breaker.test_breaker_table import NONCE, NOW_S, ROWS, events_of, states_of

from resilience.policy import FOREVER, KEEP, LATER, NOW, Admit, Control, Lease, Rejected, Report, Step
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker._state import FIELDS, Machine, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.policy import PolicyEvent

STEPS = Path(__file__).with_name("steps.txt")

GIVEN = {"given": "in code"}
CONFIGS = {
    "streak": CircuitBreakerConfig(failure_threshold=3, half_open_max_calls=2, reset_timeout_backoff=2, given=GIVEN),
    "one": CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, half_open_success_threshold=1),
    "no limit": CircuitBreakerConfig(half_open_max_calls=None, half_open_failure_threshold=2, given=GIVEN),
    "calls": CircuitBreakerConfig(
        window="count",
        window_size=4,
        minimum_calls=3,
        slow_call_rate_threshold=0.5,
        slow_call_duration=2,
        half_open_failure_threshold=2,
        given=GIVEN,
    ),
    "seconds": CircuitBreakerConfig(
        window="time",
        failure_threshold=1,
        minimum_calls=1,
        slow_call_rate_threshold=1,
        slow_call_duration=2,
        reset_timeout_jitter=0.5,
    ),
}


def _before(state: str) -> Iterator[State]:
    """The states that conditions can tell apart, with something in every field that is carried on."""
    for each in states_of(state):
        yield each.but(
            last_error="OldError", late_count=5, settings={"given": "before"}, extra={"of": "another"}, rejected_count=2
        )


def _events(event: str) -> Iterator[PolicyEvent]:
    for each in events_of(event):
        if isinstance(each, Report):
            yield Report(
                NOW_S,
                2**63,
                each.outcome,
                at=NOW_S - 0.5,
                epoch=each.epoch,
                token=each.token,
                error="NewError" if each.outcome == "failure" else None,
                duration=each.duration,
            )
            if each.token is None:
                yield Report(NOW_S, 1, each.outcome, at=NOW_S, epoch=4, token=f"{NONCE}-1", error=None)
        elif isinstance(each, Admit):
            yield Admit(NOW_S, 2**64 - 1, anonymous=each.anonymous)
        elif isinstance(each, Rejected):
            yield each
        else:
            arguments = each.arguments
            if event == "restore":
                arguments = {
                    **arguments,
                    "failure_count": 3,
                    "success_count": 1,
                    "slow_count": 1,
                    "last_failure_time": 990.0,
                    "opened_at": 970.0,
                    "last_error": "GivenError",
                    "half_open_successes": 6,
                    "half_open_failures": 7,
                    "late_count": 8,
                    "rejected_count": 9,
                }
            yield Control(NOW_S, 7, event, arguments)


def _shown(before: State, step: Step) -> str:
    """What a step changes, answers and tells."""
    after = step.state
    assert isinstance(after, State)
    parts = [f"{name}={new!r}" for name in FIELDS if (new := getattr(after, name)) != getattr(before, name)]
    decision: Any = step.decision
    if isinstance(decision, Rejection):
        parts.append(f"rejects: {decision.state}, {decision.until}, {decision.last_error}, {decision.reason!r}")
    elif isinstance(decision, Lease):
        parts.append(f"permit: {decision.token}, {decision.expires_at}")
    elif decision is not None:
        parts.append(repr(decision))
    if step.until != FOREVER:
        parts.append(f"holds until {step.until}")
    parts.append(KEEPS[step.keep])
    if step.moved is not None:
        parts.append(f"moved {step.moved.old} to {step.moved.new}: {step.moved.reason!r}")
    parts += [f"tells {name} {dict(data)}" for name, data in step.tells]
    return "; ".join(parts)


def steps() -> str:
    """Show, for each row and each configuration that gets there, what the first cases and the last one do."""
    lines: list[str] = []
    for (state, event), rows in ROWS.items():
        for index, row in enumerate(rows):
            lines.append(f"\n{state}, {event}, {row[2].__name__}: {row[4].__name__}")
            cases: dict[str, list[str]] = {}
            for name, config in CONFIGS.items():
                for shown in _cases(config, state, event, index):
                    cases.setdefault(shown, []).append(name)
            lines += [f"  {', '.join(names)}: {shown}" for shown, names in cases.items()]
    return "\n".join(lines).lstrip() + "\n"


def _cases(config: CircuitBreakerConfig, state: str, event: str, index: int) -> list[str]:
    machine = Machine(config)
    found: dict[str, None] = {}
    rows = ROWS[state, event]
    for before in _before(state):
        for happening in _events(event):
            step = machine.step(before, happening)
            if isinstance(happening, Report) and _elsewhere(config, before, happening, event):
                continue
            if next(number for number, row in enumerate(rows) if row[2](config, before, happening)) == index:
                found.setdefault(_shown(before, step))
    cases = list(found)
    return cases if len(cases) <= MOST else [*cases[: MOST - 1], cases[-1]]


KEEPS = {KEEP: "keep", LATER: "commit later", NOW: "commit"}
MOST = 3
"""Cases of a row under one configuration: the first ones and the last one."""


def _elsewhere(config: CircuitBreakerConfig, before: State, happening: Report, event: str) -> bool:
    """Whether a report is another event to the table than the one it was made for."""
    out = {f"{NONCE}-{number}" for number in (*before.probes.permits, *before.probes.lapsed)}
    late = happening.epoch not in {None, before.epoch} or (happening.token is not None and happening.token not in out)
    if late or event == "late":
        return late != (event == "late")
    slow = happening.outcome == "success" and (happening.duration or 0) > config.slow_after
    return slow != (event == "slow")


def test_each_row_does_what_is_written() -> None:
    written = STEPS.read_text("utf-8").splitlines()
    assert steps().splitlines() == written, "if it is meant: see the head of this file"


if __name__ == "__main__":
    STEPS.write_text(steps(), "utf-8")
