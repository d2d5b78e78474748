"""The table of the state machine: complete, and what the code does."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from resilience.policy import KEEP, Admit, Control, Rejected, Report, Step
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker._state import AS_GIVEN, EVENTS, STATES, TABLE, VERBS, Machine, Probes, State, always

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience.policy import PolicyEvent

ROWS: dict[tuple[str, str], list[Any]] = {(state, event): [] for state in STATES for event in EVENTS}
for _row in TABLE:
    ROWS[_row[0], _row[1]].append(_row)

NOW_S = 1000.0
CONFIGS = {
    "limited": CircuitBreakerConfig(failure_threshold=3, half_open_max_calls=2),
    "one of each": CircuitBreakerConfig(failure_threshold=1, half_open_max_calls=1, half_open_success_threshold=1),
    "unlimited": CircuitBreakerConfig(half_open_max_calls=None, half_open_failure_threshold=2),
    "calls": CircuitBreakerConfig(
        window="count",
        window_size=4,
        minimum_calls=3,
        slow_call_rate_threshold=0.5,
        slow_call_duration=2,
        half_open_failure_threshold=2,
    ),
    "seconds": CircuitBreakerConfig(
        window="time", failure_threshold=1, minimum_calls=1, slow_call_rate_threshold=1, slow_call_duration=2
    ),
}
WINDOWS: list[Any] = [
    {"count:4": (2, 1, 1, (0b01, 0b10))},
    {"count:4": (4, 2, 0, (0b0011, 0))},
    {"time:60": (3, 1, 0, ((), "", (166, 3, 1, 0)))},
    {"consecutive": 900.0, "count:4": (1, 0, 0, (0, 0))},
]
SPANS: list[tuple[float, float | None]] = [(900.0, 1100.0), (900.0, 1000.0), (1500.0, 1600.0)]
NONCE = "00000000000000aa"


def states_of(state: str) -> Iterator[State]:
    """Every kind of a state that a condition can tell from another."""
    if state == "closed":
        yield from _closed()
    elif state == "metrics_only":
        yield from _watching()
    elif state == "half_open":
        permits = {1: (990.0, 1050.0, False), 2: (980.0, 995.0, True), 3: (1500.0, 1560.0, True)}
        for held in ({}, {1: permits[1]}, {2: permits[2]}, permits):
            for lapsed in ({}, {4: True, 5: False}):
                for successes in (0, 1):
                    yield State("half_open", 4, opened_at=900.0, probes=Probes(NONCE, successes, 0, held, lapsed, 6))
    else:
        for since, until in SPANS if state == "open" else [*SPANS, (900.0, None)]:
            yield State(state, 4, since, until, "", 3, 900.0, opened_at=900.0)


def _closed() -> Iterator[State]:
    for failures in (0, 1, 2, 7):
        for reason in ("", "by hand"):
            yield State("closed", 4, 900.0, None, reason, failures, 900.0 if failures else None)
    for windows in WINDOWS:
        yield State("closed", 4, windows=windows, asks=2)


def _watching() -> Iterator[State]:
    for since, until in (*SPANS, (900.0, None)):
        for crossed in (False, True):
            for failures in (0, 2, 7):
                last = 900.0 if failures else None
                yield State("metrics_only", 4, since, until, "", failures, last, crossed=crossed)
            for windows in WINDOWS:
                yield State("metrics_only", 4, since, until, windows=windows, asks=2, crossed=crossed)


def events_of(event: str) -> Iterator[PolicyEvent]:
    if event == "admit":
        for anonymous in (False, True):
            yield Admit(NOW_S, 7, anonymous=anonymous)
    elif event == "late":
        yield from _late()
    elif event == "rejected":
        yield Rejected(NOW_S, 7, 3)
    elif event in VERBS:
        for reason in ("", "by hand"):
            for state in STATES if event == "restore" else ("",):
                yield Control(NOW_S, 7, event, {"seconds": 5, "reason": reason, "state": state})
    else:
        outcome: Any = "success" if event == "slow" else event
        for duration in (2.5,) if event == "slow" else (None, 2.0) if event == "success" else (None, 2.0, 2.5):
            for epoch in (None, 4):
                yield Report(NOW_S, 7, outcome, at=NOW_S, epoch=epoch, token=None, error=None, duration=duration)


def _late() -> Iterator[PolicyEvent]:
    for outcome in ("success", "failure", "neutral"):
        for epoch, token in ((3, None), (None, "ffffffffffffffff-1"), (4, f"{NONCE}-99")):
            yield Report(NOW_S, 7, outcome, at=NOW_S, epoch=epoch, token=token, error=None)


def test_each_state_and_event_has_a_row_for_all_other_cases_and_it_is_the_last() -> None:
    for place, rows in ROWS.items():
        conditions = [condition for _, _, condition, _, _ in rows]
        assert conditions.count(always) == 1, place
        assert conditions[-1] is always, place


def test_machines_whose_settings_ask_for_the_same_rows_share_them() -> None:
    Machine(CONFIGS["limited"])
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        machines = [Machine(CONFIGS["one of each"]) for _ in range(10)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / len(machines) < 1000  # bytes; rows of its own take 10,000


def test_the_table_names_only_states_and_events_that_there_are() -> None:
    for state, event, _, target, _ in TABLE:
        assert state in STATES
        assert event in EVENTS
        assert target in (*STATES, AS_GIVEN)


def test_each_condition_and_each_action_says_what_it_is() -> None:
    for _, _, condition, _, action in TABLE:
        for function in (condition, action):
            assert function.__doc__, function
            assert "\n" not in function.__doc__, function


def test_the_changes_of_state_are_those_of_the_specification() -> None:
    by_itself = {(state, target) for state, event, _, target, _ in TABLE if event not in VERBS and target != state}
    assert by_itself == {
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("half_open", "closed"),
        ("forced_open", "half_open"),
        ("disabled", "closed"),
        ("disabled", "open"),  # closed and, at the same failure, open
        ("metrics_only", "closed"),
        ("metrics_only", "open"),  # likewise
    }
    by_hand = {(event, target) for _, event, _, target, _ in TABLE if event in VERBS}
    assert by_hand == {
        ("force_open", "forced_open"),
        ("disable", "disabled"),
        ("metrics_only", "metrics_only"),
        ("close", "closed"),
        ("reset", "closed"),
        ("restore", AS_GIVEN),
    }


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_what_the_table_says_is_what_happens(state: str, event: str) -> None:
    met: set[int] = set()
    for config in CONFIGS.values():
        machine = Machine(config)
        for before in states_of(state):
            for happening in events_of(event):
                index, row = next(
                    (index, row)
                    for index, row in enumerate(ROWS[_named(config, before, happening)])
                    if row[2](config, before, happening)
                )
                if _named(config, before, happening) == (state, event):
                    met.add(index)
                step = machine.step(before, happening)
                assert isinstance(step.state, State)
                expected = row[4](config, before, happening, row[3])
                assert (step.state, step.keep, step.until) == (expected.state, expected.keep, expected.until), row
                target = (
                    happening.arguments["state"] if isinstance(happening, Control) and row[3] is AS_GIVEN else row[3]
                )
                assert step.state.state == target, row
                _check(before, step, step.state, event)
    assert met == set(range(len(ROWS[state, event]))), "a row that nothing leads to"


def _named(config: CircuitBreakerConfig, state: State, event: PolicyEvent) -> tuple[str, str]:
    """Where to look in the table, told apart here once more."""
    if isinstance(event, Admit):
        return state.state, "admit"
    if isinstance(event, Control):
        return state.state, event.verb
    if isinstance(event, Rejected):
        return state.state, "rejected"
    out = {f"{NONCE}-{number}" for number in (*state.probes.permits, *state.probes.lapsed)}
    belongs = event.epoch in {None, state.epoch} and (event.token is None or event.token in out)
    if not belongs:
        return state.state, "late"
    is_slow = config.slow_call_rate_threshold is not None and event.duration is not None and event.duration > 2
    return state.state, "slow" if is_slow and event.outcome == "success" else event.outcome


def _check(before: State, step: Step, after: State, event: str) -> None:
    changed = after.state != before.state
    assert (step.moved is not None) == changed
    if step.moved is not None:
        assert (step.moved.old, step.moved.new) == (before.state, after.state)
        assert step.moved.reason
    assert after.epoch - before.epoch == (1 if changed or event in {"reset", "restore"} else 0)
    assert (after is before) == (step.keep is KEEP)
    if event != "admit":
        assert step.decision is None
    if after.state == "closed" and changed and event != "restore":
        assert (after.reopenings, after.opened_at, after.probes, after.until) == (0, None, Probes(), None)
        assert after.failures <= 1
        assert sum(window[0] for window in after.windows.values() if isinstance(window, tuple)) <= 1
    assert step.asks == after.asks
    if event not in {"failure", "slow"}:
        assert after.asks == before.asks
