"""Observers are told at a bearable rate, whatever callers do."""

from __future__ import annotations

from storages import Recorder

from resilience import CircuitBreaker, Key, Runtime
from resilience.announce import Announcer
from resilience.ports import Observers
from resilience.testing import ManualClock
from resilience_circuit_breaker.policy import CircuitBreakerPolicy


def announcer(clock: ManualClock) -> tuple[Announcer, Recorder]:
    told = Recorder()
    return Announcer(Observers([], [("told", told.resilience_event)]), clock), told


def key(name: str) -> Key:
    return Key("circuit_breaker", name)


def test_one_late_report_a_second_is_told_and_the_next_says_how_many_were_not() -> None:
    clock = ManualClock()
    telling, told = announcer(clock)
    for _ in range(10):
        telling.event("late", key("a"), clock.wall(), {"outcome": "failure"}, limited=True)
    clock.advance(0.5)
    telling.event("late", key("a"), clock.wall(), {"outcome": "failure"}, limited=True)
    assert [dict(event.data) for event in told.events] == [{"outcome": "failure"}]
    clock.advance(0.5)
    for _ in range(2):
        telling.event("late", key("a"), clock.wall(), {"outcome": "success"}, limited=True)
    assert dict(told.events[-1].data) == {"outcome": "success", "suppressed": 10}
    assert len(told.events) == 2
    clock.advance(5)
    telling.event("late", key("a"), clock.wall(), {}, limited=True)
    clock.advance(5)
    telling.event("late", key("a"), clock.wall(), {}, limited=True)
    assert [dict(event.data) for event in told.events[2:]] == [{"suppressed": 1}, {}]


def test_keys_and_names_have_their_own_second() -> None:
    clock = ManualClock()
    telling, told = announcer(clock)
    for name in ("late", "settings_conflict"):
        for who in ("a", "b"):
            telling.event(name, key(who), 0.0, {}, limited=True)
    assert len(told.events) == 4


def test_what_nobody_can_flood_is_always_told() -> None:
    telling, told = announcer(ManualClock())
    for name in ("degraded", "recovered", "reset", "state_reset", "would_have_opened", "configuration_rejected"):
        telling.event(name, None, 0.0, {})
        telling.event(name, None, 0.0, {})
    assert len(told.events) == 12
    assert CircuitBreakerPolicy.limited_events == {"late", "settings_conflict"}


def test_what_is_remembered_for_it_is_bounded() -> None:
    telling, told = announcer(ManualClock())
    for number in range(3000):
        telling.event("late", key(str(number)), 0.0, {}, limited=True)
    assert len(told.events) == 3000
    assert len(telling._limited) <= 1000


def test_a_stream_of_late_reports_is_told_once_a_second() -> None:
    clock, told = ManualClock(), Recorder()
    with Runtime(storage="memory:", clock=clock, observers=[told]):
        breaker = CircuitBreaker("a", failure_threshold=1)
        breaker.record_failure()
        for _ in range(5):
            breaker.record_failure()
        clock.advance(1)
        breaker.record_failure()
        assert breaker.status().late_count == 6
    assert [event.data.get("suppressed") for event in told.events if event.name == "late"] == [None, 4]
