"""The state machine of the circuit breaker.

Two rules hold here:

1. Everything that affects the state of a breaker stands in this file, and in it, everything goes through `TABLE`: a
   row for each state, event and condition, tried in their order.  A condition only looks; what a row does makes a new
   state and leaves the old one as it was.  The diagram in the docs is drawn from the table, the tests enumerate it.
2. Nothing here reads a clock, does I/O, takes a lock, draws a random number or writes a log.  Time, random bits and
   outcomes arrive in the event; the same state and the same event always give the same step.

What a report belongs to is settled before the table is asked (`Machine.step`): a report of an earlier epoch, or with a
token that is not out, is the event ``late``, whatever its outcome.  All other reports belong to the present epoch.

Cases that one configuration alone does not bring, but several processes with different ones do:

* Permits are kept in the record, not in the configuration.  A token is accepted by every process, also by one whose
  configuration knows no permits; a permit runs out when its taker said, whoever looks.
* A limit that was lowered frees nothing: calls are let in again when fewer than the new limit are in flight.
* A report with the present epoch and no token was let in by a process without a limit, which keeps no account.  It
  counts in every process: its guard reports once, so it cannot count twice.
* A report without epoch and token (``record_*``) gives back the oldest anonymous permit that is in flight, or else the
  oldest that ran out: several of them cannot be told apart, and one that is still held would block another call.  If
  there is none, it counts where the reporter's configuration has no limit, and is late where it has one.
* A neutral report that is late says nothing about nothing: it is not counted.
* A breaker that is disabled counts nothing, late reports included.  Once its time is up it is closed in all but name:
  a failure without epoch closes it and counts there; an outcome of a call that was let in while it was disabled does
  not.
"""

from __future__ import annotations

from resilience.policy import (
    FAILURE,
    FOREVER,
    NEUTRAL,
    NOW,
    SUCCESS,
    Admit,
    Control,
    Lease,
    Move,
    Report,
    Step,
)
from resilience_circuit_breaker._errors import Rejection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from resilience.policy import PolicyEvent
    from resilience_circuit_breaker._config import CircuitBreakerConfig

    Held = tuple[float, float, bool]
    Condition = Callable[[CircuitBreakerConfig, "State", Any], bool]
    Action = Callable[[CircuitBreakerConfig, "State", Any, str], Step]
    Choice = tuple[Condition, Action, str]
    Row = tuple[str, str, Condition, str, Action]

# States.  Plain text, so that the road of every call imports no enum; `CircuitState` is their public form.
CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half_open"
FORCED_OPEN = "forced_open"
DISABLED = "disabled"
STATES = (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED)

# Events: an admission, the outcomes of a report, a report that belongs to nothing present, and the verbs of a control.
ADMIT = "admit"
LATE = "late"
FORCE_OPEN = "force_open"
DISABLE = "disable"
CLOSE = "close"
RESET = "reset"
RESTORE = "restore"
EVENTS = (ADMIT, SUCCESS, FAILURE, NEUTRAL, LATE, FORCE_OPEN, DISABLE, CLOSE, RESET, RESTORE)

AS_GIVEN = "(as given)"
"""The state after ``restore``, which says itself which one."""

LONGEST_ERROR = 200
"""Characters of a class name that are kept."""
LONGEST_REASON = 500
"""Characters of a reason that are kept."""
LEAST_LAPSED = 64
"""Permits that ran out unreported and are remembered, at least."""
LONGEST_BY_HAND = 100 * 365 * 86400.0
"""Seconds that a state put by hand lasts at most, unless it lasts until it is taken back."""
LARGEST = 10**12
"""The greatest count, and the greatest number of seconds, that a record or a control may bring."""


class Probes:
    """The account of a half-open phase.  Treat it as frozen.

    `nonce` begins the tokens of the phase, so that a token of another phase or of another life of the record never
    matches.  `successes` and `failures` count what was reported.  `permits` holds those in flight, by their number:
    when it was taken, when it runs out (both wall-clock seconds), whether it is anonymous.  `lapsed` holds those that
    ran out unreported: whether it is anonymous, by number.  `next_permit` is the next number.
    """

    __slots__ = ("failures", "lapsed", "next_permit", "nonce", "permits", "successes")

    def __init__(
        self,
        nonce: str = "",
        successes: int = 0,
        failures: int = 0,
        permits: Mapping[int, Held] = {},
        lapsed: Mapping[int, bool] = {},
        next_permit: int = 1,
    ) -> None:
        self.nonce = nonce
        self.successes = successes
        self.failures = failures
        self.permits = permits
        self.lapsed = lapsed
        self.next_permit = next_permit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Probes) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # holds mappings

    def __repr__(self) -> str:
        return _show(self)


NO_PROBES = Probes()

NO_FIELDS: Mapping[str, object] = {}


class State:
    """The state of a breaker.  Treat it as frozen.

    `state` is one of `STATES`; `epoch` grows by one at each change of it and each reset.
    `since` and `until` (wall-clock seconds): the span that OPEN, and by hand FORCED_OPEN and DISABLED, last; `until`
    is `None` without an end.  In CLOSED, `since` is when the streak of failures was last empty and changed, `None`
    while there is a streak, whose last failure says more.
    `reason`: what was said by the person who put it there.
    `failures`: in a row; `last_failure` (wall-clock seconds) and `last_error` (class name) of the last one.
    `opened_at`: when it opened last, until it closes.
    `reopenings`: failed half-open phases since it was closed, the exponent of the backoff.
    `probes`: the account of the last half-open phase.
    `late_count`: reports that belonged to nothing present.
    `settings`: those given in code, stored for who has no code.
    `extra`: fields of the record that this version does not know, kept.
    """

    __slots__ = (  # noqa: RUF023 - the order of arguments
        "state",
        "epoch",
        "since",
        "until",
        "reason",
        "failures",
        "last_failure",
        "last_error",
        "opened_at",
        "reopenings",
        "probes",
        "late_count",
        "settings",
        "extra",
    )

    def __init__(
        self,
        state: str = CLOSED,
        epoch: int = 0,
        since: float | None = None,
        until: float | None = None,
        reason: str = "",
        failures: int = 0,
        last_failure: float | None = None,
        last_error: str | None = None,
        opened_at: float | None = None,
        reopenings: int = 0,
        probes: Probes = NO_PROBES,
        late_count: int = 0,
        settings: Mapping[str, object] = NO_FIELDS,
        extra: Mapping[str, object] = NO_FIELDS,
    ) -> None:
        self.state = state
        self.epoch = epoch
        self.since = since
        self.until = until
        self.reason = reason
        self.failures = failures
        self.last_failure = last_failure
        self.last_error = last_error
        self.opened_at = opened_at
        self.reopenings = reopenings
        self.probes = probes
        self.late_count = late_count
        self.settings = settings
        self.extra = extra

    def but(self, **changes: Any) -> State:
        """Copy it, with other values in some fields."""
        return State(
            *[changes.pop(name) if name in changes else getattr(self, name) for name in self.__slots__], **changes
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # holds mappings

    def __repr__(self) -> str:
        return _show(self)


def _show(thing: Probes | State) -> str:
    return f"{type(thing).__name__}({', '.join(f'{name}={getattr(thing, name)!r}' for name in thing.__slots__)})"


# --- looking: time ----------------------------------------------------------------------------------------------------


def end_of_span(state: State, now: float) -> float:
    """Wall-clock second at which the present state's time is up; infinity: it has no end.

    A beginning in the future, seen after the clock went back, is taken as now.
    """
    until = state.until
    if until is None:
        return FOREVER
    since = state.since
    return until if since is None or since <= now else now + (until - since)


def free_at(config: CircuitBreakerConfig, probes: Probes, now: float) -> float:
    """Wall-clock second at which fewer permits than the limit are in flight; `now`: there are fewer now."""
    limit = config.half_open_max_calls
    if limit is None:
        return now
    expiries = in_flight(probes, now)
    return now if len(expiries) < limit else expiries[len(expiries) - limit]


def in_flight(probes: Probes, now: float) -> list[float]:
    """Wall-clock seconds at which the permits that are in flight run out, the earliest first."""
    expiries = (
        expires_at if taken_at <= now else now + (expires_at - taken_at)
        for taken_at, expires_at, _ in probes.permits.values()
    )
    return sorted(expiry for expiry in expiries if expiry > now)


# --- conditions: (config, state, event) -> whether the row is the one -------------------------------------------------


def always(_config: CircuitBreakerConfig, _state: State, _event: PolicyEvent) -> bool:
    """In all other cases."""
    return True


def time_is_up(_config: CircuitBreakerConfig, state: State, event: PolicyEvent) -> bool:
    """The state's end has come."""
    return end_of_span(state, event.now) <= event.now


def clock_went_back(_config: CircuitBreakerConfig, state: State, event: Admit) -> bool:
    """The state's span begins in the future."""
    return state.until is not None and state.since is not None and state.since > event.now


def no_streak(_config: CircuitBreakerConfig, state: State, _event: Report) -> bool:
    """There are no failures to forget."""
    return state.failures == 0


def reaches_threshold(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """It is the `failure_threshold`-th failure in a row."""
    threshold = config.failure_threshold
    return state.failures + 1 >= threshold and _streak(config, state, event.at) >= threshold


def over_and_unclaimed(_config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """The state's end has come, and the report is not one of a call that it let in."""
    return event.epoch is None and end_of_span(state, event.now) <= event.now


def over_and_trips(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """The same, and the first failure opens."""
    return config.failure_threshold == 1 and over_and_unclaimed(config, state, event)


def no_limit(config: CircuitBreakerConfig, _state: State, _event: Admit) -> bool:
    """Any number of probes may be in flight."""
    return config.half_open_max_calls is None


def permit_is_free(config: CircuitBreakerConfig, state: State, event: Admit) -> bool:
    """Fewer than `half_open_max_calls` permits are in flight."""
    return free_at(config, state.probes, event.now) <= event.now


def permits_from_the_future(_config: CircuitBreakerConfig, state: State, event: Admit) -> bool:
    """The clock went back since a permit was taken."""
    return any(taken_at > event.now for taken_at, _, _ in state.probes.permits.values())


def unclaimed(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """It says neither epoch nor token, there is no anonymous permit, and permits are kept."""
    return (
        config.half_open_max_calls is not None
        and event.epoch is None
        and event.token is None
        and _claimed(state.probes, event) is None
    )


def nothing_held(_config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """There is no permit to give back."""
    return _claimed(state.probes, event) is None


def enough_successes(config: CircuitBreakerConfig, state: State, _event: Report) -> bool:
    """It is the `half_open_success_threshold`-th success."""
    return state.probes.successes + 1 >= config.half_open_success_threshold


def enough_failures(config: CircuitBreakerConfig, state: State, _event: Report) -> bool:
    """It is the `half_open_failure_threshold`-th failure."""
    return state.probes.failures + 1 >= config.half_open_failure_threshold


def says_nothing(_config: CircuitBreakerConfig, _state: State, event: Report) -> bool:
    """Its outcome is neutral."""
    return event.outcome == NEUTRAL


def same_reason(_config: CircuitBreakerConfig, state: State, event: Control) -> bool:
    """It gives no other reason."""
    return _reason(event) == state.reason


# --- actions: (config, state, event, target) -> step ------------------------------------------------------------------


def nothing(_config: CircuitBreakerConfig, state: State, _event: PolicyEvent, _target: str) -> Step:
    """Changes nothing."""
    return Step(state)


def let_in(_config: CircuitBreakerConfig, state: State, _event: Admit, _target: str) -> Step:
    """Lets the call in and keeps no account of it."""
    return Step(state)


def let_in_meanwhile(_config: CircuitBreakerConfig, state: State, event: Admit, _target: str) -> Step:
    """Lets the call in until the state's end."""
    return Step(state, None, until=end_of_span(state, event.now))


def refuse(_config: CircuitBreakerConfig, state: State, event: Admit, _target: str) -> Step:
    """Rejects the call until the state's end."""
    until = end_of_span(state, event.now)
    return Step(state, Rejection(state.state, until, state.last_error, state.reason), until=until)


def refuse_from_now(config: CircuitBreakerConfig, state: State, event: Admit, target: str) -> Step:
    """Rejects the call; the span begins now, and others must know."""
    return _kept(refuse(config, _from_now(config, state, event.now), event, target))


def let_in_from_now(config: CircuitBreakerConfig, state: State, event: Admit, target: str) -> Step:
    """Lets the call in; the span begins now, and others must know."""
    return _kept(let_in_meanwhile(config, _from_now(config, state, event.now), event, target))


def close_and_let_in(config: CircuitBreakerConfig, state: State, event: Admit, _target: str) -> Step:
    """Closes and lets the call in."""
    return Step(_closed(config, state, event.now), None, keep=NOW, moved=Move(state.state, CLOSED, "its time was up"))


def probe(config: CircuitBreakerConfig, state: State, event: Admit, target: str) -> Step:
    """Lets the call in as the first probe, with the first permit."""
    probing = state.but(
        state=HALF_OPEN,
        epoch=state.epoch + 1,
        since=None,
        until=None,
        reason="",
        probes=Probes(_nonce(event.draw)),
        settings=_settings(config, state),
    )
    moved = Move(state.state, HALF_OPEN, "its time was up")
    if config.half_open_max_calls is None:
        return Step(probing, None, keep=NOW, moved=moved)
    taken = take_permit(config, probing, event, target)
    return Step(taken.state, taken.decision, until=taken.until, keep=NOW, moved=moved)


def take_permit(config: CircuitBreakerConfig, state: State, event: Admit, _target: str) -> Step:
    """Lets the call in as a probe, with a permit."""
    now = event.now
    probes = _settled(config, state.probes, now)
    number = probes.next_permit
    expires_at = now + config.permit_timeout
    probes = Probes(
        probes.nonce,
        probes.successes,
        probes.failures,
        {**probes.permits, number: (now, expires_at, event.anonymous)},
        probes.lapsed,
        number + 1,
    )
    lease = Lease(None if event.anonymous else f"{probes.nonce}-{number}", expires_at)
    # The next call gets another permit, so the answer holds no time at all.
    return Step(state.but(probes=probes, settings=_settings(config, state)), lease, until=now, keep=NOW)


def refuse_probe(config: CircuitBreakerConfig, state: State, event: Admit, _target: str) -> Step:
    """Rejects the call until a permit runs out."""
    until = free_at(config, state.probes, event.now)
    return Step(state, Rejection(HALF_OPEN, until, state.last_error, state.reason), until=until)


def refuse_probe_from_now(config: CircuitBreakerConfig, state: State, event: Admit, target: str) -> Step:
    """Rejects the call; the permits begin now, and others must know."""
    state = state.but(probes=_settled(config, state.probes, event.now), settings=_settings(config, state))
    return _kept(refuse_probe(config, state, event, target))


def forget_streak(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Forgets the failures."""
    forgotten = state.but(
        since=event.now, failures=0, last_failure=None, last_error=None, settings=_settings(config, state)
    )
    return Step(forgotten, keep=NOW)


def count_failure(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts the failure."""
    # The road of every failure, hence in line what `trip` has from functions.
    at = event.at
    now = event.now
    if at > now:  # noqa: PLR1730 - `min` costs three times as much
        at = now
    last_failure = state.last_failure
    failures = state.failures + 1
    if last_failure is not None:
        if at - last_failure > config.failure_max_age:
            failures = 1
        elif at < last_failure <= now:
            at = last_failure
    error = event.error
    if error is not None:
        error = error[:LONGEST_ERROR]
    given = config.given
    counted = State(
        CLOSED,
        state.epoch,
        None,
        None,
        state.reason,
        failures,
        at,
        error,
        None,
        0,
        state.probes,
        state.late_count,
        state.settings if given is None else given,
        state.extra,
    )
    return Step(counted, None, keep=NOW)


def trip(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Opens."""
    failures = _streak(config, state, event.at)
    state = state.but(failures=failures, last_failure=_last_failure(state, event), last_error=_error(event))
    opened = _opened(config, state, event, reopenings=0, probes=NO_PROBES)
    return Step(
        opened, keep=NOW, moved=Move(CLOSED, OPEN, "1 failure" if failures == 1 else f"{failures} failures in a row")
    )


def close_and_count(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Closes and counts the failure there."""
    counted = count_failure(config, _closed(config, state, event.now), event, target)
    return Step(counted.state, keep=NOW, moved=Move(state.state, CLOSED, "its time was up"))


def close_and_trip(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Opens."""
    closed = _closed(config, state, event.now).but(epoch=state.epoch)  # one change of state, so one epoch
    tripped = trip(config, closed, event, target)
    return Step(tripped.state, keep=NOW, moved=Move(state.state, OPEN, "1 failure"))


def count_probe_success(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts the success and gives its permit back."""
    probes = _given_back(config, state.probes, event, successes=1)
    return Step(state.but(probes=probes, settings=_settings(config, state)), keep=NOW)


def count_probe_failure(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts the failure and gives its permit back."""
    return Step(_failed_probe(config, state, event), keep=NOW)


def close_again(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Closes, with an empty window."""
    return Step(_closed(config, state, event.now), keep=NOW, moved=Move(HALF_OPEN, CLOSED, "probes succeeded"))


def open_again(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Opens again, for longer where there is a backoff."""
    failed = _failed_probe(config, state, event)
    # What the probes said stays to be seen; their permits are void.
    probes = Probes("", failed.probes.successes, failed.probes.failures)
    opened = _opened(config, failed, event, reopenings=state.reopenings + 1, probes=probes)
    return Step(opened, keep=NOW, moved=Move(HALF_OPEN, OPEN, "a probe failed"))


def give_back(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Gives its permit back."""
    probes = _given_back(config, state.probes, event)
    return Step(state.but(probes=probes, settings=_settings(config, state)), keep=NOW)


def count_late(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it as late."""
    late = state.but(late_count=state.late_count + 1, settings=_settings(config, state))
    return Step(late, keep=NOW, tells=_tell_late(state, event))


def count_late_failure(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it as late and as a failure; the state stays."""
    late = state.but(
        failures=state.failures + 1,
        last_failure=_last_failure(state, event),
        last_error=_error(event),
        late_count=state.late_count + 1,
        settings=_settings(config, state),
    )
    return Step(late, keep=NOW, tells=_tell_late(state, event))


def enter_by_hand(config: CircuitBreakerConfig, state: State, event: Control, target: str) -> Step:
    """Goes there, for the given time or until taken back."""
    reason = _reason(event)
    entered = state.but(
        state=target,
        epoch=state.epoch + 1,
        since=event.now,
        until=_end(event),
        reason=reason,
        opened_at=event.now if target == FORCED_OPEN else None,
        probes=Probes("", state.probes.successes, state.probes.failures),
        settings=_settings(config, state),
    )
    return Step(entered, keep=NOW, moved=Move(state.state, target, reason or f"{event.verb} by hand"))


def renew(config: CircuitBreakerConfig, state: State, event: Control, _target: str) -> Step:
    """Changes the end and the reason."""
    renewed = state.but(since=event.now, until=_end(event), reason=_reason(event), settings=_settings(config, state))
    return Step(renewed, keep=NOW)


def note(config: CircuitBreakerConfig, state: State, event: Control, _target: str) -> Step:
    """Changes the reason."""
    return Step(state.but(reason=_reason(event), settings=_settings(config, state)), keep=NOW)


def close_by_hand(config: CircuitBreakerConfig, state: State, event: Control, _target: str) -> Step:
    """Closes, with an empty window."""
    reason = _reason(event)
    closed = _closed(config, state, event.now, reason)
    return Step(closed, keep=NOW, moved=Move(state.state, CLOSED, reason or "close by hand"))


def empty(config: CircuitBreakerConfig, state: State, event: Control, _target: str) -> Step:
    """Closes, with nothing counted, in a new epoch."""
    reason = _reason(event)
    emptied = _closed(config, state, event.now, reason).but(late_count=0)
    moved = None if state.state == CLOSED else Move(state.state, CLOSED, reason or "reset by hand")
    return Step(emptied, keep=NOW, moved=moved, tells=((RESET, {"state": state.state, "reason": reason}),))


def take_over(config: CircuitBreakerConfig, state: State, event: Control, _target: str) -> Step:
    """Takes state and counts from the arguments, in a new epoch; OPEN since the last failure."""
    given = event.arguments
    now = event.now
    target = str(given.get("state"))
    if target not in STATES:
        raise ValueError(f"{target[:80]!r} is no state of a circuit breaker: {', '.join(STATES)}")
    # The constants, not what the caller has: a member of an enum stays out of the state.
    target = STATES[STATES.index(target)]
    last_failure = _time(given, "last_failure_time")
    since = now
    until = None
    opened_at = None if target in {CLOSED, DISABLED} else _time(given, "opened_at")
    if target == OPEN:
        since = opened_at = now if last_failure is None else min(last_failure, now)
        until = since + config.reset_timeout
    reason = _reason(event)
    error = given.get("last_error")
    taken = State(
        target,
        state.epoch + 1,
        None if target == HALF_OPEN else since,
        until,
        reason,
        _count(given, "failure_count"),
        last_failure,
        None if error is None else str(error)[:LONGEST_ERROR],
        opened_at,
        0,
        Probes(
            _nonce(event.draw) if target == HALF_OPEN else "",
            _count(given, "half_open_successes"),
            _count(given, "half_open_failures"),
        ),
        _count(given, "late_count"),
        _settings(config, state),
        state.extra,
    )
    moved = None if target == state.state else Move(state.state, target, reason or "restore by hand")
    return Step(taken, keep=NOW, moved=moved)


# --- the table --------------------------------------------------------------------------------------------------------

TABLE: tuple[Row, ...] = (
    # in state     at event     if                       to state     it
    (CLOSED,       ADMIT,       always,                  CLOSED,      let_in),
    (CLOSED,       SUCCESS,     no_streak,               CLOSED,      nothing),
    (CLOSED,       SUCCESS,     always,                  CLOSED,      forget_streak),
    (CLOSED,       FAILURE,     reaches_threshold,       OPEN,        trip),
    (CLOSED,       FAILURE,     always,                  CLOSED,      count_failure),
    (CLOSED,       NEUTRAL,     always,                  CLOSED,      nothing),
    (CLOSED,       LATE,        says_nothing,            CLOSED,      nothing),
    (CLOSED,       LATE,        always,                  CLOSED,      count_late),
    (CLOSED,       FORCE_OPEN,  always,                  FORCED_OPEN, enter_by_hand),
    (CLOSED,       DISABLE,     always,                  DISABLED,    enter_by_hand),
    (CLOSED,       CLOSE,       same_reason,             CLOSED,      nothing),
    (CLOSED,       CLOSE,       always,                  CLOSED,      note),
    (CLOSED,       RESET,       always,                  CLOSED,      empty),
    (CLOSED,       RESTORE,     always,                  AS_GIVEN,    take_over),

    (OPEN,         ADMIT,       time_is_up,              HALF_OPEN,   probe),
    (OPEN,         ADMIT,       clock_went_back,         OPEN,        refuse_from_now),
    (OPEN,         ADMIT,       always,                  OPEN,        refuse),
    (OPEN,         SUCCESS,     always,                  OPEN,        count_late),
    (OPEN,         FAILURE,     always,                  OPEN,        count_late),
    (OPEN,         NEUTRAL,     always,                  OPEN,        nothing),
    (OPEN,         LATE,        says_nothing,            OPEN,        nothing),
    (OPEN,         LATE,        always,                  OPEN,        count_late),
    (OPEN,         FORCE_OPEN,  always,                  FORCED_OPEN, enter_by_hand),
    (OPEN,         DISABLE,     always,                  DISABLED,    enter_by_hand),
    (OPEN,         CLOSE,       always,                  CLOSED,      close_by_hand),
    (OPEN,         RESET,       always,                  CLOSED,      empty),
    (OPEN,         RESTORE,     always,                  AS_GIVEN,    take_over),

    (HALF_OPEN,    ADMIT,       no_limit,                HALF_OPEN,   let_in),
    (HALF_OPEN,    ADMIT,       permit_is_free,          HALF_OPEN,   take_permit),
    (HALF_OPEN,    ADMIT,       permits_from_the_future, HALF_OPEN,   refuse_probe_from_now),
    (HALF_OPEN,    ADMIT,       always,                  HALF_OPEN,   refuse_probe),
    (HALF_OPEN,    SUCCESS,     unclaimed,               HALF_OPEN,   count_late),
    (HALF_OPEN,    SUCCESS,     enough_successes,        CLOSED,      close_again),
    (HALF_OPEN,    SUCCESS,     always,                  HALF_OPEN,   count_probe_success),
    (HALF_OPEN,    FAILURE,     unclaimed,               HALF_OPEN,   count_late_failure),
    (HALF_OPEN,    FAILURE,     enough_failures,         OPEN,        open_again),
    (HALF_OPEN,    FAILURE,     always,                  HALF_OPEN,   count_probe_failure),
    (HALF_OPEN,    NEUTRAL,     nothing_held,            HALF_OPEN,   nothing),
    (HALF_OPEN,    NEUTRAL,     always,                  HALF_OPEN,   give_back),
    (HALF_OPEN,    LATE,        says_nothing,            HALF_OPEN,   nothing),
    (HALF_OPEN,    LATE,        always,                  HALF_OPEN,   count_late),
    (HALF_OPEN,    FORCE_OPEN,  always,                  FORCED_OPEN, enter_by_hand),
    (HALF_OPEN,    DISABLE,     always,                  DISABLED,    enter_by_hand),
    (HALF_OPEN,    CLOSE,       always,                  CLOSED,      close_by_hand),
    (HALF_OPEN,    RESET,       always,                  CLOSED,      empty),
    (HALF_OPEN,    RESTORE,     always,                  AS_GIVEN,    take_over),

    (FORCED_OPEN,  ADMIT,       time_is_up,              HALF_OPEN,   probe),
    (FORCED_OPEN,  ADMIT,       clock_went_back,         FORCED_OPEN, refuse_from_now),
    (FORCED_OPEN,  ADMIT,       always,                  FORCED_OPEN, refuse),
    (FORCED_OPEN,  SUCCESS,     always,                  FORCED_OPEN, count_late),
    (FORCED_OPEN,  FAILURE,     always,                  FORCED_OPEN, count_late),
    (FORCED_OPEN,  NEUTRAL,     always,                  FORCED_OPEN, nothing),
    (FORCED_OPEN,  LATE,        says_nothing,            FORCED_OPEN, nothing),
    (FORCED_OPEN,  LATE,        always,                  FORCED_OPEN, count_late),
    (FORCED_OPEN,  FORCE_OPEN,  always,                  FORCED_OPEN, renew),
    (FORCED_OPEN,  DISABLE,     always,                  DISABLED,    enter_by_hand),
    (FORCED_OPEN,  CLOSE,       always,                  CLOSED,      close_by_hand),
    (FORCED_OPEN,  RESET,       always,                  CLOSED,      empty),
    (FORCED_OPEN,  RESTORE,     always,                  AS_GIVEN,    take_over),

    (DISABLED,     ADMIT,       time_is_up,              CLOSED,      close_and_let_in),
    (DISABLED,     ADMIT,       clock_went_back,         DISABLED,    let_in_from_now),
    (DISABLED,     ADMIT,       always,                  DISABLED,    let_in_meanwhile),
    (DISABLED,     SUCCESS,     always,                  DISABLED,    nothing),
    (DISABLED,     FAILURE,     over_and_trips,          OPEN,        close_and_trip),
    (DISABLED,     FAILURE,     over_and_unclaimed,      CLOSED,      close_and_count),
    (DISABLED,     FAILURE,     always,                  DISABLED,    nothing),
    (DISABLED,     NEUTRAL,     always,                  DISABLED,    nothing),
    (DISABLED,     LATE,        always,                  DISABLED,    nothing),
    (DISABLED,     FORCE_OPEN,  always,                  FORCED_OPEN, enter_by_hand),
    (DISABLED,     DISABLE,     always,                  DISABLED,    renew),
    (DISABLED,     CLOSE,       always,                  CLOSED,      close_by_hand),
    (DISABLED,     RESET,       always,                  CLOSED,      empty),
    (DISABLED,     RESTORE,     always,                  AS_GIVEN,    take_over),
)  # fmt: skip


def _indexed(table: tuple[Row, ...]) -> dict[str, dict[str, tuple[tuple[Choice, ...], Action, str]]]:
    """Sort rows by state and event; the last one of each stands apart, as nothing is left to ask."""
    rows: dict[str, dict[str, list[Choice]]] = {state: {event: [] for event in EVENTS} for state in STATES}
    for state, event, condition, target, action in table:
        rows[state][event].append((condition, action, target))
    return {
        state: {event: (tuple(choices[:-1]), *choices[-1][1:]) for event, choices in events.items()}
        for state, events in rows.items()
    }


_ROWS = _indexed(TABLE)

VERBS = (FORCE_OPEN, DISABLE, CLOSE, RESET, RESTORE)
"""What a control may do."""


class Machine:
    """The state machine under one configuration."""

    __slots__ = ("config",)

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self.config = config

    def step(self, state: State, event: PolicyEvent, /) -> Step:
        """Answer an event, by the first row of `TABLE` whose state, event and condition are these.

        :raises ValueError: a control has a verb or an argument that makes no sense.
        """
        if isinstance(event, Admit):
            name = ADMIT
        elif isinstance(event, Report):
            epoch = event.epoch
            name = event.outcome
            if (epoch is not None and epoch != state.epoch) or (
                event.token is not None and _number(state.probes, event.token) is None
            ):
                name = LATE
        else:
            name = event.verb
            if name not in VERBS:
                raise ValueError(f"a circuit breaker knows no {name[:80]!r}, but {', '.join(VERBS)}")
        choices, action, target = _ROWS[state.state][name]
        config = self.config
        for condition, its_action, its_target in choices:
            if condition(config, state, event):
                return its_action(config, state, event, its_target)
        return action(config, state, event, target)


# --- the parts that actions are made of -------------------------------------------------------------------------------


def _kept(step: Step) -> Step:
    return Step(step.state, step.decision, until=step.until, keep=NOW)


def _settings(config: CircuitBreakerConfig, state: State) -> Mapping[str, object]:
    return state.settings if config.given is None else config.given


def _from_now(config: CircuitBreakerConfig, state: State, now: float) -> State:
    """Let the present span begin now."""
    opened_at = state.opened_at
    return state.but(
        since=now,
        until=end_of_span(state, now),
        opened_at=None if opened_at is None else min(opened_at, now),
        settings=_settings(config, state),
    )


def _closed(config: CircuitBreakerConfig, state: State, now: float, reason: str = "") -> State:
    """Make it CLOSED, with an empty window, no backoff and no permits."""
    return State(
        epoch=state.epoch + 1,
        since=now,
        reason=reason,
        late_count=state.late_count,
        settings=_settings(config, state),
        extra=state.extra,
    )


def _opened(config: CircuitBreakerConfig, state: State, event: Report, *, reopenings: int, probes: Probes) -> State:
    """Make it OPEN; what was counted stays to be seen."""
    return state.but(
        state=OPEN,
        epoch=state.epoch + 1,
        since=event.now,
        until=event.now + open_seconds(config, reopenings, event.draw),
        reason="",
        opened_at=event.now,
        reopenings=reopenings,
        probes=probes,
        settings=_settings(config, state),
    )


def open_seconds(config: CircuitBreakerConfig, reopenings: int, draw: int) -> float:
    """How long OPEN lasts after so many failed half-open phases, with the jitter that 64 random bits give."""
    try:
        seconds = config.reset_timeout * config.reset_timeout_backoff**reopenings
    except OverflowError:
        # The power alone leaves what a float can hold: far beyond any maximum, unless it multiplies nothing.
        seconds = config.reset_timeout and FOREVER
    seconds *= 1.0 + config.reset_timeout_jitter * ((draw >> 11) / 2**53)
    return min(seconds, config.reset_timeout_max)


def _streak(config: CircuitBreakerConfig, state: State, at: float) -> int:
    """How many failures follow each other with one at this second.

    A last failure in the future is taken as now: not too old.  So is one that is younger than the failure at hand,
    which had to wait for the lock.
    """
    last_failure = state.last_failure
    if last_failure is not None and at - last_failure > config.failure_max_age:
        return 1
    return state.failures + 1


def _last_failure(state: State, event: Report) -> float:
    at = event.at
    now = event.now
    at = min(at, now)
    last_failure = state.last_failure
    return at if last_failure is None or last_failure > now or at > last_failure else last_failure


def _error(event: Report) -> str | None:
    error = event.error
    return error if error is None else error[:LONGEST_ERROR]


def _nonce(draw: int) -> str:
    return f"{draw:016x}"


def _tell_late(state: State, event: Report) -> tuple[tuple[str, Mapping[str, object]], ...]:
    return ((LATE, {"outcome": event.outcome, "state": state.state, "epoch": event.epoch, "error": _error(event)}),)


# Permits.


def _settled(config: CircuitBreakerConfig, probes: Probes, now: float) -> Probes:
    """Bring the account up to now: what ran out is set aside, what was taken in the future was taken now."""
    permits: dict[int, Held] = {}
    lapsed = dict(probes.lapsed)
    for number, (taken_at, expires_at, anonymous) in probes.permits.items():
        if taken_at > now:
            permits[number] = (now, now + (expires_at - taken_at), anonymous)
        elif expires_at > now:
            permits[number] = (taken_at, expires_at, anonymous)
        else:
            lapsed[number] = anonymous
    most = max(LEAST_LAPSED, 4 * (config.half_open_max_calls or 0))
    kept = {number: lapsed[number] for number in sorted(lapsed)[-most:]}
    return Probes(probes.nonce, probes.successes, probes.failures, permits, kept, probes.next_permit)


def _number(probes: Probes, token: str) -> int | None:
    """Find the number of the permit with this token, if it is out."""
    nonce, _, digits = token.rpartition("-")
    if not nonce or nonce != probes.nonce:
        return None
    # `int` reads more than we write: signs, spaces, other scripts, millions of digits.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(digits)) == digits):
        return None
    number = int(digits)
    return number if number in probes.permits or number in probes.lapsed else None


def _claimed(probes: Probes, event: Report) -> int | None:
    """Find the number of the permit that a report gives back, if any."""
    if event.token is not None:
        return _number(probes, event.token)
    if event.epoch is not None:
        return None  # let in without a permit
    now = event.now
    held = [number for number, (_, expires_at, anonymous) in probes.permits.items() if anonymous and expires_at > now]
    if held:
        return min(held)
    gone = [number for number, (_, _, anonymous) in probes.permits.items() if anonymous]
    gone += [number for number, anonymous in probes.lapsed.items() if anonymous]
    return min(gone, default=None)


def _given_back(
    config: CircuitBreakerConfig, probes: Probes, event: Report, *, successes: int = 0, failures: int = 0
) -> Probes:
    """Bring the account up to a report: its permit is free, its outcome counted."""
    number = _claimed(probes, event)
    settled = _settled(config, probes, event.now)
    return Probes(
        settled.nonce,
        settled.successes + successes,
        settled.failures + failures,
        {other: held for other, held in settled.permits.items() if other != number},
        {other: anonymous for other, anonymous in settled.lapsed.items() if other != number},
        settled.next_permit,
    )


def _failed_probe(config: CircuitBreakerConfig, state: State, event: Report) -> State:
    return state.but(
        last_failure=_last_failure(state, event),
        last_error=_error(event),
        probes=_given_back(config, state.probes, event, failures=1),
        settings=_settings(config, state),
    )


# Arguments of controls.


def _reason(event: Control) -> str:
    reason = event.arguments.get("reason")
    return "" if reason is None else str(reason)[:LONGEST_REASON]


def _end(event: Control) -> float | None:
    seconds = event.arguments.get("seconds")
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_BY_HAND:
        raise ValueError(f"{event.verb} lasts a number of seconds from 0 to {LONGEST_BY_HAND:.0f}, or None: for ever")
    return event.now + seconds


def _count(given: Mapping[str, object], name: str) -> int:
    value = given.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST:
        raise ValueError(f"{name} is a whole number from 0 to {LARGEST}")
    return value


def _time(given: Mapping[str, object], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{name} is a number of seconds since 1970, or None")
    return float(value)
