"""The state machine of the circuit breaker.

Two rules hold here:

1. Everything that affects the state of a breaker stands in this file, and in it, everything goes through `TABLE`: a
   row for each state, event and condition, tried in their order.  A condition only looks; what a row does makes a new
   state and leaves the old one as it was.  The diagram in the docs is drawn from the table, the tests enumerate it.
   How calls are counted in a window, as plain numbers, stands in `_window`; whether what was counted trips, here.
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
* Windows of different shapes stand beside each other, each counting what the processes with its shape report; any of
  them may open, and all are emptied together.  The streak of failures is one of these shapes; as long as it is the
  only one, its number and the time of its last failure stand in the state alone.
* A success that took too long is the event ``slow``: where slow calls are judged it does what a failure does, except
  that the window knows what it was.  A failure that took too long is both.
* A neutral report that is late says nothing about nothing: it is not counted.
* A breaker that is disabled counts nothing, late reports included.  Once its time is up it is closed in all but name:
  an outcome without epoch closes it and counts there, if there is something to count; an outcome of a call that was
  let in while it was disabled does not.  The same goes for one that only watches (METRICS_ONLY), which counts the
  outcomes of its own calls to the end.
* Calls that were rejected are told now and then, so a number of them may arrive when the state is another; it is
  counted in any.  `rejected_count` begins anew when a breaker opens that was not, and at a reset: it belongs to the
  present outage, or to the last one.
"""

from __future__ import annotations

from _operator import attrgetter  # see `resilience.storage`

from resilience.policy import (
    FAILURE,
    FOREVER,
    LATER,
    NEUTRAL,
    NOW,
    SUCCESS,
    Admit,
    Control,
    Lease,
    Move,
    Rejected,
    Report,
    Step,
)
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker._window import (
    CONSECUTIVE,
    COUNT,
    MOST_SHAPES,
    NO_WINDOWS,
    NOTHING,
    TIME,
    added,
    added_late,
    all_seen,
    filled,
    running,
    seen,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Literal

    from resilience.policy import PolicyEvent
    from resilience_circuit_breaker._config import CircuitBreakerConfig
    from resilience_circuit_breaker._window import Window, Windows

    Tells = tuple[tuple[str, Mapping[str, object]], ...]
    Held = tuple[float, float, bool]
    Condition = Callable[[CircuitBreakerConfig, "State", Any], bool]
    Action = Callable[[CircuitBreakerConfig, "State", Any, str], Step]
    Choice = tuple[Condition, Action, str]
    Row = tuple[str, str, Condition, str, Action]
    Rows = Mapping[str, Mapping[str, tuple[tuple[Choice, ...], Action, str]]]

# States.  Plain text, so that the road of every call imports no enum; `CircuitState` is their public form.
CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half_open"
FORCED_OPEN = "forced_open"
DISABLED = "disabled"
METRICS_ONLY = "metrics_only"
STATES = (CLOSED, OPEN, HALF_OPEN, FORCED_OPEN, DISABLED, METRICS_ONLY)
COUNTING = (CLOSED, METRICS_ONLY)
"""States whose windows are alive; in all others what was counted stays as it was."""

# Events: an admission, the outcomes of a report, a success that took too long, a report that belongs to nothing
# present, calls that were rejected, and the verbs of a control, of which METRICS_ONLY is called as the state.
ADMIT = "admit"
SLOW = "slow"
LATE = "late"
REJECTED = "rejected"
FORCE_OPEN = "force_open"
DISABLE = "disable"
CLOSE = "close"
RESET = "reset"
RESTORE = "restore"
EVENTS = (
    ADMIT, SUCCESS, SLOW, FAILURE, NEUTRAL, LATE, REJECTED, FORCE_OPEN, DISABLE, METRICS_ONLY, CLOSE, RESET, RESTORE,
)  # fmt: skip

CONFLICT = "settings_conflict"
WOULD_HAVE_OPENED = "would_have_opened"

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
        return _show(self, self.__slots__)


NO_PROBES = Probes()

NO_FIELDS: Mapping[str, object] = {}

UNFIT = object()
"""`Rest.fit` of what has to be changed before a state that counts may have it."""


class Rest:
    """What seldom changes of a state: carried on by reference, from failure to failure.  Treat it as frozen.

    The fields are those of `State`.  That they stand apart makes a failure a third cheaper: nine fields are copied
    instead of eighteen, the text of these is made once, and in a record that ends with the same text they are known.

    `fit` is the settings, if a state that counts may have all of this as it is, else `UNFIT`.  `text` is what the
    codec makes of it, the end of the record, once it did.
    """

    __slots__ = (
        "crossed",
        "extra",
        "fit",
        "late_count",
        "opened_at",
        "probes",
        "reason",
        "rejected_count",
        "reopenings",
        "settings",
        "text",
        "until",
    )

    def __init__(
        self,
        until: float | None = None,
        reason: str = "",
        opened_at: float | None = None,
        reopenings: int = 0,
        probes: Probes = NO_PROBES,
        late_count: int = 0,
        settings: Mapping[str, object] = NO_FIELDS,
        extra: Mapping[str, object] = NO_FIELDS,
        rejected_count: int = 0,
        crossed: bool = False,  # noqa: FBT001, FBT002 - a field like the others
    ) -> None:
        self.until = until
        self.reason = reason
        self.opened_at = opened_at
        self.reopenings = reopenings
        self.probes = probes
        self.late_count = late_count
        self.settings = settings
        self.extra = extra
        self.rejected_count = rejected_count
        self.crossed = crossed
        is_fit = until is None and opened_at is None and not reopenings and not crossed
        self.fit: object = settings if is_fit else UNFIT
        self.text: str | None = None


class State:
    """The state of a breaker.  Treat it as frozen.

    `state` is one of `STATES`; `epoch` grows by one at each change of it and each reset.
    `since` and `until` (wall-clock seconds): the span that OPEN, and by hand FORCED_OPEN, DISABLED and METRICS_ONLY,
    last; `until` is `None` without an end.  In CLOSED, `since` is when it was last emptied, `None` while something is
    counted, whose time says more.
    `reason`: what was said by the person who put it there.
    `failures`: in a row; `last_failure` (wall-clock seconds) and `last_error` (class name) of the last one.
    `opened_at`: when it opened last, until it closes.
    `reopenings`: failed half-open phases since it was closed, the exponent of the backoff.
    `probes`: the account of the last half-open phase.
    `late_count`: reports that belonged to nothing present.
    `windows`: those of other shapes than ``consecutive``, by shape, the one used last at the end; once there is one,
    ``consecutive`` stands among them with the time of the streak's last failure.
    `rejected_count`: calls rejected in this outage or the last one.
    `asks`: grows with each failure and each slow call in a window; see `Step.asks`.
    `crossed`: METRICS_ONLY told that it would have opened, and did not fall below the thresholds since.
    `settings`: those given in code, stored for who has no code.
    `extra`: fields of the record that this version does not know, kept.

    What a counted call changes stands here, the others in `rest`.
    """

    __slots__ = ("asks", "epoch", "failures", "last_error", "last_failure", "rest", "since", "state", "windows")

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
        windows: Windows = NO_WINDOWS,
        rejected_count: int = 0,
        asks: int = 0,
        crossed: bool = False,  # noqa: FBT001, FBT002 - a field like the others
    ) -> None:
        self.state = state
        self.epoch = epoch
        self.since = since
        self.failures = failures
        self.last_failure = last_failure
        self.last_error = last_error
        self.windows = windows
        self.asks = asks
        self.rest = Rest(
            until, reason, opened_at, reopenings, probes, late_count, settings, extra, rejected_count, crossed
        )

    if TYPE_CHECKING:

        @property
        def until(self) -> float | None: ...
        @property
        def reason(self) -> str: ...
        @property
        def opened_at(self) -> float | None: ...
        @property
        def reopenings(self) -> int: ...
        @property
        def probes(self) -> Probes: ...
        @property
        def late_count(self) -> int: ...
        @property
        def settings(self) -> Mapping[str, object]: ...
        @property
        def extra(self) -> Mapping[str, object]: ...
        @property
        def rejected_count(self) -> int: ...
        @property
        def crossed(self) -> bool: ...

    else:
        until = property(attrgetter("rest.until"))
        reason = property(attrgetter("rest.reason"))
        opened_at = property(attrgetter("rest.opened_at"))
        reopenings = property(attrgetter("rest.reopenings"))
        probes = property(attrgetter("rest.probes"))
        late_count = property(attrgetter("rest.late_count"))
        settings = property(attrgetter("rest.settings"))
        extra = property(attrgetter("rest.extra"))
        rejected_count = property(attrgetter("rest.rejected_count"))
        crossed = property(attrgetter("rest.crossed"))

    def but(self, **changes: Any) -> State:
        """Copy it, with other values in some fields."""
        values = tuple(map(changes.pop, FIELDS, fields_of(self)))
        return State(*values, **changes)  # whatever is left has no place, and is refused

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and fields_of(self) == fields_of(other)

    __hash__ = None  # type: ignore[assignment]  # holds mappings

    def __repr__(self) -> str:
        return _show(self, FIELDS)


FIELDS = (
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
    "windows",
    "rejected_count",
    "asks",
    "crossed",
)
"""The fields of a `State` in the order of its arguments."""
fields_of: Callable[[State], tuple[Any, ...]] = attrgetter(*FIELDS)
_blank: Callable[[type[State]], State] = object.__new__
_blank_step: Callable[[type[Step]], Step] = object.__new__


def made_of(
    state: str,
    epoch: int,
    since: float | None,
    failures: int,
    last_failure: float | None,
    last_error: str | None,
    windows: Windows,
    asks: int,
    rest: Rest,
) -> State:
    """Make a state with a `Rest` that there is already: for the roads of every call that is counted."""
    made = _blank(State)
    made.state = state
    made.epoch = epoch
    made.since = since
    made.failures = failures
    made.last_failure = last_failure
    made.last_error = last_error
    made.windows = windows
    made.asks = asks
    made.rest = rest
    return made


def _counting(state: State, until: float, keep: Literal[1, 2], tells: Tells) -> Step:
    """Make the step that counts a call: with `made_of` for the state, 0.1 µs less a call than with constructors."""
    step = _blank_step(Step)
    step.state = state
    step.decision = None
    step.until = until
    step.keep = keep
    step.moved = None
    step.tells = tells
    return step  # `Machine.step` sets the others


def _show(thing: Probes | State, names: tuple[str, ...]) -> str:
    return f"{type(thing).__name__}({', '.join(f'{name}={getattr(thing, name)!r}' for name in names)})"


_EMPTY = State()
"""CLOSED, with nothing counted."""

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


# --- looking: what was counted ----------------------------------------------------------------------------------------


def window_of(config: CircuitBreakerConfig, state: State, now: float) -> Window:
    """What stands in the configured window: at wall-clock second `now`, or when it opened."""
    window = state.windows.get(config.shape)
    if not isinstance(window, tuple):
        return NOTHING
    return seen(config.window_span, window, now) if state.state in COUNTING and config.window == TIME else window


def reason_of(config: CircuitBreakerConfig, calls: int, failures: int, slow: int) -> str:
    """Say which threshold is reached by what stands in a window, the first of them."""
    if failures >= config.opens_at:
        within = f"last {config.window_size} calls" if config.window == COUNT else f"last {config.window_duration:g} s"
        return f"{failures} {'failure' if failures == 1 else 'failures'} in the {within}"
    if failures / calls >= config.failure_rate_threshold:
        return f"{failures} of {calls} calls failed"
    return f"{slow} of {calls} calls were slow"


def _is_reached(config: CircuitBreakerConfig, calls: int, failures: int, slow: int) -> bool:
    if failures >= config.opens_at:
        return True
    if calls < config.minimum_calls:
        return False
    limit = config.slow_call_rate_threshold
    return failures / calls >= config.failure_rate_threshold or (limit is not None and slow / calls >= limit)


def _is_over_threshold(config: CircuitBreakerConfig, state: State, now: float) -> bool:
    if config.in_a_row:
        last = _last_of_streak(state)
        is_young = last is None or now - last <= config.failure_max_age
        return is_young and state.failures >= config.opens_at
    return _is_reached(config, *window_of(config, state, now)[:3])


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


def no_streak(config: CircuitBreakerConfig, state: State, _event: Report) -> bool:
    """Failures in a row are judged, and there are none to forget."""
    return state.failures == 0 and config.in_a_row


def has_window(config: CircuitBreakerConfig, _state: State, _event: Report) -> bool:
    """A window of calls or of time is judged."""
    return not config.in_a_row


def reaches_threshold(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """With it, a threshold of the window is reached."""
    if config.in_a_row:
        opens_at = config.opens_at
        return state.failures + event.count >= opens_at and _streak(config, state, event) >= opens_at
    window: Any = state.windows.get(config.shape, NOTHING)
    count = event.count
    if window[1] + count < config.failures_from and window[2] + count < config.slow_from:
        return False  # whatever has left the window meanwhile, and however many calls stand in it
    return _is_reached(config, *added(config, state.windows, event)[:3])


def crosses_threshold(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """With it, a threshold of the window is reached that was not before."""
    return reaches_threshold(config, state, event) and not (
        state.crossed and _is_over_threshold(config, state, event.now)
    )


def over_and_unclaimed(_config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """The state's end has come, and the report is not one of a call that it let in."""
    return event.epoch is None and end_of_span(state, event.now) <= event.now


def over_with_window(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """The same, and a window is judged."""
    return not config.in_a_row and over_and_unclaimed(config, state, event)


def over_and_trips(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """The same, and it opens alone."""
    return over_and_unclaimed(config, state, event) and reaches_threshold(config, _EMPTY, event)


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


def enough_successes(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """It is the `half_open_success_threshold`-th success."""
    return state.probes.successes + event.count >= config.half_open_success_threshold


def enough_failures(config: CircuitBreakerConfig, state: State, event: Report) -> bool:
    """It is the `half_open_failure_threshold`-th failure or slow call."""
    return state.probes.failures + event.count >= config.half_open_failure_threshold


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
    if state.windows:  # `last_failure` may be another window's
        windows, _ = _beside_others(state.windows, CONSECUTIVE, None)
        forgotten = state.but(failures=0, windows=windows, settings=_settings(config, state))
    else:
        rest = state.rest
        if rest.fit is not config.given:
            rest = state.but(settings=_settings(config, state)).rest
        forgotten = made_of(state.state, state.epoch, event.now, 0, None, None, NO_WINDOWS, state.asks, rest)
    return Step(forgotten, keep=NOW)


def count_success(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts the success in the window."""
    counted, tells = _counted(config, state, event, added(config, state.windows, event))
    until = FOREVER
    if config.window == TIME:
        until = running(config.window_span, _ended(event)).ends_at
    return _counting(counted, until, LATER, tells)


def count_failure(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Counts the failure."""
    if not config.in_a_row:
        return count_in_window(config, state, event, target)
    if state.windows:
        counted, tells = _in_a_row_among_others(config, state, event)
        return Step(counted, keep=NOW, tells=tells)
    # The road of every failure, hence in line what `trip` has from functions, and what `made_of` and
    # `_counting` do.
    at = event.at
    now = event.now
    if at > now:  # noqa: PLR1730 - `min` costs three times as much
        at = now
    failures = state.failures + event.count
    last_failure = state.last_failure
    if last_failure is not None:
        if at - last_failure > config.failure_max_age:
            failures = event.count
        elif at < last_failure <= now:
            at = last_failure
    error = event.error
    if error is not None:
        error = error[:LONGEST_ERROR]
    rest = state.rest
    if rest.fit is not config.given:
        rest = _fitting(config, rest)
    counted = _blank(State)
    counted.state = CLOSED
    counted.epoch = state.epoch
    counted.since = None
    counted.failures = failures
    counted.last_failure = at
    counted.last_error = error
    counted.windows = NO_WINDOWS
    counted.asks = state.asks
    counted.rest = rest
    step = _blank_step(Step)
    step.state = counted
    step.decision = None
    step.until = FOREVER
    step.keep = NOW
    step.moved = None
    step.tells = ()
    return step


def count_in_window(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it in the window."""
    counted, tells = _counted(config, state, event, added(config, state.windows, event))
    return _counting(counted, FOREVER, NOW, tells)


def trip(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Opens."""
    tells: Tells
    if config.in_a_row:
        failures = _streak(config, state, event)
        reason = "1 failure" if failures == 1 else f"{failures} failures in a row"
        counted, tells = _in_a_row_among_others(config, state, event) if state.windows else (state, ())
        counted = counted.but(
            failures=failures, last_failure=_last_failure(state, event), last_error=_last_error(state, event)
        )
    else:
        window = added(config, state.windows, event)
        reason = reason_of(config, *window[:3])
        counted, tells = _counted(config, state, event, window)
    counted = counted.but(windows=all_seen(counted.windows, event.now), rejected_count=0)
    opened = _opened(config, counted, event, reopenings=0, probes=NO_PROBES)
    return Step(opened, keep=NOW, moved=Move(CLOSED, OPEN, reason), tells=tells)


def watch(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Counts it, and lets all calls in as before."""
    if event.outcome == SUCCESS and not _is_slow(config, event):
        count: Action = forget_streak if config.in_a_row else count_success
    else:
        count = count_failure
    step = count(config, state, event, target)
    crossed = (
        state.crossed
        and _is_over_threshold(config, state, event.now)
        and _is_over_threshold(config, step.state, event.now)  # type: ignore[arg-type]  # our own state
    )
    watched = _watched(state, step, crossed=crossed)
    keep = LATER if step.keep == LATER else NOW
    return Step(watched, None, until=step.until, keep=keep, tells=step.tells)


def watch_and_tell(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Counts it and tells that it would have opened."""
    step = count_failure(config, state, event, target)
    watched = _watched(state, step, crossed=True)
    if config.in_a_row:
        failures = watched.failures
        reason = "1 failure" if failures == 1 else f"{failures} failures in a row"
    else:
        reason = reason_of(config, *window_of(config, watched, event.now)[:3])
    tell = (WOULD_HAVE_OPENED, {"reason": reason, "error": _error(event)})
    return Step(watched, None, keep=NOW, tells=(*step.tells, tell))


def close_and_count(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Closes and counts it there."""
    closed = _closed(config, state, event.now)
    count = count_success if event.outcome == SUCCESS and not _is_slow(config, event) else count_failure
    counted = count(config, closed, event, target)
    return Step(counted.state, keep=NOW, moved=Move(state.state, CLOSED, "its time was up"))


def close_and_trip(config: CircuitBreakerConfig, state: State, event: Report, target: str) -> Step:
    """Opens."""
    closed = _closed(config, state, event.now).but(epoch=state.epoch)  # one change of state, so one epoch
    tripped = trip(config, closed, event, target)
    reason = "" if tripped.moved is None else tripped.moved.reason
    return Step(tripped.state, keep=NOW, moved=Move(state.state, OPEN, reason))


def count_probe_success(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts the success and gives its permit back."""
    probes = _given_back(config, state.probes, event, successes=event.count)
    return Step(state.but(probes=probes, settings=_settings(config, state)), keep=NOW)


def count_probe_failure(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it as a failure and gives its permit back."""
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
    reason = "a probe failed" if event.outcome == FAILURE else "a probe was slow"
    return Step(opened, keep=NOW, moved=Move(HALF_OPEN, OPEN, reason))


def give_back(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Gives its permit back."""
    probes = _given_back(config, state.probes, event)
    return Step(state.but(probes=probes, settings=_settings(config, state)), keep=NOW)


def count_late(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it as late."""
    late = state.but(late_count=state.late_count + event.count, settings=_settings(config, state))
    return Step(late, keep=NOW, tells=_tell_late(state, event))


def count_late_failure(config: CircuitBreakerConfig, state: State, event: Report, _target: str) -> Step:
    """Counts it as late and as a failure or slow call; the state stays."""
    late = state.but(
        last_failure=_last_failure(state, event),
        last_error=_last_error(state, event),
        late_count=state.late_count + event.count,
        settings=_settings(config, state),
    )
    if config.in_a_row:
        late = late.but(failures=state.failures + event.count)
    else:
        window = added_late(config, state.windows, event)
        late = late.but(windows=_beside_others(state.windows, config.shape, window)[0])
    return Step(late, keep=NOW, tells=_tell_late(state, event))


def count_rejected(config: CircuitBreakerConfig, state: State, event: Rejected, _target: str) -> Step:
    """Counts the rejected calls."""
    counted = state.but(
        rejected_count=min(state.rejected_count + event.count, LARGEST), settings=_settings(config, state)
    )
    return Step(counted, keep=NOW)


def enter_by_hand(config: CircuitBreakerConfig, state: State, event: Control, target: str) -> Step:
    """Goes there, for the given time or until taken back."""
    reason = _reason(event)
    was_counting = state.state in COUNTING
    begins = target == FORCED_OPEN and (was_counting or state.state == DISABLED)
    entered = state.but(
        state=target,
        epoch=state.epoch + 1,
        since=event.now,
        until=_end(event),
        reason=reason,
        opened_at=event.now if target == FORCED_OPEN else None,
        probes=Probes("", state.probes.successes, state.probes.failures),
        settings=_settings(config, state),
        windows=all_seen(state.windows, event.now) if was_counting else state.windows,
        rejected_count=0 if begins else state.rejected_count,
        crossed=False,
    )
    return Step(entered, keep=NOW, moved=Move(state.state, target, reason or f"{event.verb} by hand"))


def watch_by_hand(config: CircuitBreakerConfig, state: State, event: Control, target: str) -> Step:
    """Goes there with an empty window, for the given time or until taken back."""
    reason = _reason(event)
    watching = _closed(config, state, event.now, reason).but(state=target, until=_end(event))
    return Step(watching, keep=NOW, moved=Move(state.state, target, reason or "metrics_only by hand"))


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
    emptied = _closed(config, state, event.now, reason).but(late_count=0, rejected_count=0)
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
    opened_at = None if target in {CLOSED, DISABLED, METRICS_ONLY} else _time(given, "opened_at")
    if target == OPEN:
        since = opened_at = now if last_failure is None else min(last_failure, now)
        until = since + config.reset_timeout
    reason = _reason(event)
    error = given.get("last_error")
    failures = _count(given, "failure_count")
    successes, slow = (_count(given, name) for name in ("success_count", "slow_count"))
    windows = NO_WINDOWS
    if not config.in_a_row:
        windows = {config.shape: filled(config, now, successes, failures, slow)}
        failures = 0
    taken = State(
        target,
        state.epoch + 1,
        None if target == HALF_OPEN else since,
        until,
        reason,
        failures,
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
        windows,
        _count(given, "rejected_count"),
        state.asks,
    )
    moved = None if target == state.state else Move(state.state, target, reason or "restore by hand")
    return Step(taken, keep=NOW, moved=moved)


# --- the table --------------------------------------------------------------------------------------------------------

TABLE: tuple[Row, ...] = (
    # in state       at event       if                       to state       it
    (CLOSED,        ADMIT,         always,                  CLOSED,        let_in),
    (CLOSED,        SUCCESS,       has_window,              CLOSED,        count_success),
    (CLOSED,        SUCCESS,       no_streak,               CLOSED,        nothing),
    (CLOSED,        SUCCESS,       always,                  CLOSED,        forget_streak),
    (CLOSED,        SLOW,          reaches_threshold,       OPEN,          trip),
    (CLOSED,        SLOW,          always,                  CLOSED,        count_in_window),
    (CLOSED,        FAILURE,       reaches_threshold,       OPEN,          trip),
    (CLOSED,        FAILURE,       always,                  CLOSED,        count_failure),
    (CLOSED,        NEUTRAL,       always,                  CLOSED,        nothing),
    (CLOSED,        LATE,          says_nothing,            CLOSED,        nothing),
    (CLOSED,        LATE,          always,                  CLOSED,        count_late),
    (CLOSED,        REJECTED,      always,                  CLOSED,        count_rejected),
    (CLOSED,        FORCE_OPEN,    always,                  FORCED_OPEN,   enter_by_hand),
    (CLOSED,        DISABLE,       always,                  DISABLED,      enter_by_hand),
    (CLOSED,        METRICS_ONLY,  always,                  METRICS_ONLY,  watch_by_hand),
    (CLOSED,        CLOSE,         same_reason,             CLOSED,        nothing),
    (CLOSED,        CLOSE,         always,                  CLOSED,        note),
    (CLOSED,        RESET,         always,                  CLOSED,        empty),
    (CLOSED,        RESTORE,       always,                  AS_GIVEN,      take_over),

    (OPEN,          ADMIT,         time_is_up,              HALF_OPEN,     probe),
    (OPEN,          ADMIT,         clock_went_back,         OPEN,          refuse_from_now),
    (OPEN,          ADMIT,         always,                  OPEN,          refuse),
    (OPEN,          SUCCESS,       always,                  OPEN,          count_late),
    (OPEN,          SLOW,          always,                  OPEN,          count_late),
    (OPEN,          FAILURE,       always,                  OPEN,          count_late),
    (OPEN,          NEUTRAL,       always,                  OPEN,          nothing),
    (OPEN,          LATE,          says_nothing,            OPEN,          nothing),
    (OPEN,          LATE,          always,                  OPEN,          count_late),
    (OPEN,          REJECTED,      always,                  OPEN,          count_rejected),
    (OPEN,          FORCE_OPEN,    always,                  FORCED_OPEN,   enter_by_hand),
    (OPEN,          DISABLE,       always,                  DISABLED,      enter_by_hand),
    (OPEN,          METRICS_ONLY,  always,                  METRICS_ONLY,  watch_by_hand),
    (OPEN,          CLOSE,         always,                  CLOSED,        close_by_hand),
    (OPEN,          RESET,         always,                  CLOSED,        empty),
    (OPEN,          RESTORE,       always,                  AS_GIVEN,      take_over),

    (HALF_OPEN,     ADMIT,         no_limit,                HALF_OPEN,     let_in),
    (HALF_OPEN,     ADMIT,         permit_is_free,          HALF_OPEN,     take_permit),
    (HALF_OPEN,     ADMIT,         permits_from_the_future, HALF_OPEN,     refuse_probe_from_now),
    (HALF_OPEN,     ADMIT,         always,                  HALF_OPEN,     refuse_probe),
    (HALF_OPEN,     SUCCESS,       unclaimed,               HALF_OPEN,     count_late),
    (HALF_OPEN,     SUCCESS,       enough_successes,        CLOSED,        close_again),
    (HALF_OPEN,     SUCCESS,       always,                  HALF_OPEN,     count_probe_success),
    (HALF_OPEN,     SLOW,          unclaimed,               HALF_OPEN,     count_late_failure),
    (HALF_OPEN,     SLOW,          enough_failures,         OPEN,          open_again),
    (HALF_OPEN,     SLOW,          always,                  HALF_OPEN,     count_probe_failure),
    (HALF_OPEN,     FAILURE,       unclaimed,               HALF_OPEN,     count_late_failure),
    (HALF_OPEN,     FAILURE,       enough_failures,         OPEN,          open_again),
    (HALF_OPEN,     FAILURE,       always,                  HALF_OPEN,     count_probe_failure),
    (HALF_OPEN,     NEUTRAL,       nothing_held,            HALF_OPEN,     nothing),
    (HALF_OPEN,     NEUTRAL,       always,                  HALF_OPEN,     give_back),
    (HALF_OPEN,     LATE,          says_nothing,            HALF_OPEN,     nothing),
    (HALF_OPEN,     LATE,          always,                  HALF_OPEN,     count_late),
    (HALF_OPEN,     REJECTED,      always,                  HALF_OPEN,     count_rejected),
    (HALF_OPEN,     FORCE_OPEN,    always,                  FORCED_OPEN,   enter_by_hand),
    (HALF_OPEN,     DISABLE,       always,                  DISABLED,      enter_by_hand),
    (HALF_OPEN,     METRICS_ONLY,  always,                  METRICS_ONLY,  watch_by_hand),
    (HALF_OPEN,     CLOSE,         always,                  CLOSED,        close_by_hand),
    (HALF_OPEN,     RESET,         always,                  CLOSED,        empty),
    (HALF_OPEN,     RESTORE,       always,                  AS_GIVEN,      take_over),

    (FORCED_OPEN,   ADMIT,         time_is_up,              HALF_OPEN,     probe),
    (FORCED_OPEN,   ADMIT,         clock_went_back,         FORCED_OPEN,   refuse_from_now),
    (FORCED_OPEN,   ADMIT,         always,                  FORCED_OPEN,   refuse),
    (FORCED_OPEN,   SUCCESS,       always,                  FORCED_OPEN,   count_late),
    (FORCED_OPEN,   SLOW,          always,                  FORCED_OPEN,   count_late),
    (FORCED_OPEN,   FAILURE,       always,                  FORCED_OPEN,   count_late),
    (FORCED_OPEN,   NEUTRAL,       always,                  FORCED_OPEN,   nothing),
    (FORCED_OPEN,   LATE,          says_nothing,            FORCED_OPEN,   nothing),
    (FORCED_OPEN,   LATE,          always,                  FORCED_OPEN,   count_late),
    (FORCED_OPEN,   REJECTED,      always,                  FORCED_OPEN,   count_rejected),
    (FORCED_OPEN,   FORCE_OPEN,    always,                  FORCED_OPEN,   renew),
    (FORCED_OPEN,   DISABLE,       always,                  DISABLED,      enter_by_hand),
    (FORCED_OPEN,   METRICS_ONLY,  always,                  METRICS_ONLY,  watch_by_hand),
    (FORCED_OPEN,   CLOSE,         always,                  CLOSED,        close_by_hand),
    (FORCED_OPEN,   RESET,         always,                  CLOSED,        empty),
    (FORCED_OPEN,   RESTORE,       always,                  AS_GIVEN,      take_over),

    (DISABLED,      ADMIT,         time_is_up,              CLOSED,        close_and_let_in),
    (DISABLED,      ADMIT,         clock_went_back,         DISABLED,      let_in_from_now),
    (DISABLED,      ADMIT,         always,                  DISABLED,      let_in_meanwhile),
    (DISABLED,      SUCCESS,       over_with_window,        CLOSED,        close_and_count),
    (DISABLED,      SUCCESS,       always,                  DISABLED,      nothing),
    (DISABLED,      SLOW,          over_and_trips,          OPEN,          close_and_trip),
    (DISABLED,      SLOW,          over_and_unclaimed,      CLOSED,        close_and_count),
    (DISABLED,      SLOW,          always,                  DISABLED,      nothing),
    (DISABLED,      FAILURE,       over_and_trips,          OPEN,          close_and_trip),
    (DISABLED,      FAILURE,       over_and_unclaimed,      CLOSED,        close_and_count),
    (DISABLED,      FAILURE,       always,                  DISABLED,      nothing),
    (DISABLED,      NEUTRAL,       always,                  DISABLED,      nothing),
    (DISABLED,      LATE,          always,                  DISABLED,      nothing),
    (DISABLED,      REJECTED,      always,                  DISABLED,      count_rejected),
    (DISABLED,      FORCE_OPEN,    always,                  FORCED_OPEN,   enter_by_hand),
    (DISABLED,      DISABLE,       always,                  DISABLED,      renew),
    (DISABLED,      METRICS_ONLY,  always,                  METRICS_ONLY,  watch_by_hand),
    (DISABLED,      CLOSE,         always,                  CLOSED,        close_by_hand),
    (DISABLED,      RESET,         always,                  CLOSED,        empty),
    (DISABLED,      RESTORE,       always,                  AS_GIVEN,      take_over),

    (METRICS_ONLY,  ADMIT,         time_is_up,              CLOSED,        close_and_let_in),
    (METRICS_ONLY,  ADMIT,         clock_went_back,         METRICS_ONLY,  let_in_from_now),
    (METRICS_ONLY,  ADMIT,         always,                  METRICS_ONLY,  let_in_meanwhile),
    (METRICS_ONLY,  SUCCESS,       over_with_window,        CLOSED,        close_and_count),
    (METRICS_ONLY,  SUCCESS,       no_streak,               METRICS_ONLY,  nothing),
    (METRICS_ONLY,  SUCCESS,       always,                  METRICS_ONLY,  watch),
    (METRICS_ONLY,  SLOW,          over_and_trips,          OPEN,          close_and_trip),
    (METRICS_ONLY,  SLOW,          over_and_unclaimed,      CLOSED,        close_and_count),
    (METRICS_ONLY,  SLOW,          crosses_threshold,       METRICS_ONLY,  watch_and_tell),
    (METRICS_ONLY,  SLOW,          always,                  METRICS_ONLY,  watch),
    (METRICS_ONLY,  FAILURE,       over_and_trips,          OPEN,          close_and_trip),
    (METRICS_ONLY,  FAILURE,       over_and_unclaimed,      CLOSED,        close_and_count),
    (METRICS_ONLY,  FAILURE,       crosses_threshold,       METRICS_ONLY,  watch_and_tell),
    (METRICS_ONLY,  FAILURE,       always,                  METRICS_ONLY,  watch),
    (METRICS_ONLY,  NEUTRAL,       always,                  METRICS_ONLY,  nothing),
    (METRICS_ONLY,  LATE,          says_nothing,            METRICS_ONLY,  nothing),
    (METRICS_ONLY,  LATE,          always,                  METRICS_ONLY,  count_late),
    (METRICS_ONLY,  REJECTED,      always,                  METRICS_ONLY,  count_rejected),
    (METRICS_ONLY,  FORCE_OPEN,    always,                  FORCED_OPEN,   enter_by_hand),
    (METRICS_ONLY,  DISABLE,       always,                  DISABLED,      enter_by_hand),
    (METRICS_ONLY,  METRICS_ONLY,  always,                  METRICS_ONLY,  renew),
    (METRICS_ONLY,  CLOSE,         always,                  CLOSED,        close_by_hand),
    (METRICS_ONLY,  RESET,         always,                  CLOSED,        empty),
    (METRICS_ONLY,  RESTORE,       always,                  AS_GIVEN,      take_over),
)  # fmt: skip


OF_CONFIG: tuple[Condition, ...] = (has_window, no_limit)
"""Conditions that look at the configuration alone: a machine has asked them when it is made."""


def _indexed(table: tuple[Row, ...], known: Mapping[Condition, bool]) -> Rows:
    """Sort rows by state and event, those left out that are known not to be the one.

    The last one of each stands apart, as nothing is left to ask.
    """
    rows: dict[str, dict[str, list[Choice]]] = {state: {event: [] for event in EVENTS} for state in STATES}
    settled: set[tuple[str, str]] = set()
    for state, event, condition, target, action in table:
        holds = known.get(condition)
        if holds is not False and (state, event) not in settled:
            rows[state][event].append((condition, action, target))
            if holds:
                settled.add((state, event))
    return {
        state: {event: (tuple(choices[:-1]), *choices[-1][1:]) for event, choices in events.items()}
        for state, events in rows.items()
    }


def _rows_of(config: CircuitBreakerConfig) -> Rows:
    known = {condition: condition(config, _EMPTY, None) for condition in OF_CONFIG}
    answers = tuple(known.values())
    rows = _rows.get(answers)
    if rows is None:
        rows = _rows[answers] = _indexed(TABLE, known)
    return rows


_rows: dict[tuple[bool, ...], Rows] = {}
"""The table as it is for configurations that give these answers to `OF_CONFIG`."""
_LETTING_IN = frozenset(
    state for state in STATES if [row[2:] for row in TABLE if row[:2] == (state, ADMIT)] == [(always, state, let_in)]
)
"""States in which every call is let in, without a question: see `Step.lets_in`."""

VERBS = (FORCE_OPEN, DISABLE, METRICS_ONLY, CLOSE, RESET, RESTORE)
"""What a control may do."""


class Machine:
    """The state machine under one configuration."""

    __slots__ = ("_rows", "config")

    def __init__(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self._rows = _rows_of(config)

    def step(self, state: State, event: PolicyEvent, /) -> Step:
        """Answer an event, by the first row of `TABLE` whose state, event and condition are these.

        :raises ValueError: a control has a verb or an argument that makes no sense.
        """
        config = self.config
        name: str
        if isinstance(event, Report):
            epoch = event.epoch
            name = event.outcome
            if (epoch is not None and epoch != state.epoch) or (
                event.token is not None and _number(state.probes, event.token) is None
            ):
                name = LATE
            elif event.duration is not None and name == SUCCESS and event.duration > config.slow_after:
                name = SLOW
        elif isinstance(event, Admit):
            name = ADMIT
        elif isinstance(event, Rejected):
            name = REJECTED
        else:
            name = event.verb
            if name not in VERBS:
                raise ValueError(f"a circuit breaker knows no {name[:80]!r}, but {', '.join(VERBS)}")
        choices, action, target = self._rows[state.state][name]
        for condition, its_action, its_target in choices:
            if condition(config, state, event):
                action = its_action
                target = its_target
                break
        step = action(config, state, event, target)
        after: Any = step.state  # our own
        step.asks = after.asks
        step.lets_in = after.state in _LETTING_IN
        return step


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
        rejected_count=state.rejected_count,
        asks=state.asks,
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
        crossed=False,
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


# What is counted.


def _streak(config: CircuitBreakerConfig, state: State, event: Report) -> int:
    """How many failures follow each other with these.

    A last failure in the future is taken as now: not too old.  So is one that is younger than the failure at hand,
    which had to wait for the lock.
    """
    last = _last_of_streak(state)
    if last is not None and event.at - last > config.failure_max_age:
        return event.count
    return state.failures + event.count


def _last_of_streak(state: State) -> float | None:
    if not state.windows:
        return state.last_failure
    last = state.windows.get(CONSECUTIVE)
    return None if isinstance(last, tuple) else last


def _is_slow(config: CircuitBreakerConfig, event: Report) -> bool:
    return event.duration is not None and event.duration > config.slow_after


def _ended(event: Report) -> float:
    """When the call ended; nothing ends after it was reported."""
    at = event.at
    now = event.now
    return now if at > now else at  # noqa: FURB136 - `min` costs three times as much


def _counted(config: CircuitBreakerConfig, state: State, event: Report, window: Window) -> tuple[State, Tells]:
    """Count a report in a window of the configured shape, which becomes the one that was used last."""
    shape = config.shape
    windows = state.windows
    failures = state.failures
    tells: Tells = ()
    if len(windows) < 2 and shape in windows:
        windows = {shape: window}
    else:
        if not windows and failures:
            windows = {CONSECUTIVE: state.last_failure}
        windows, tells = _beside_others(windows, shape, window)
        if failures and CONSECUTIVE not in windows:
            failures = 0
    last_failure = state.last_failure
    last_error = state.last_error
    asks = state.asks
    if event.outcome == FAILURE:
        at = event.at
        now = event.now
        if at > now:  # noqa: PLR1730 - see `count_failure`
            at = now
        if last_failure is None or at > last_failure or last_failure > now:
            last_failure = at
        last_error = event.error
        if last_error is not None:
            last_error = last_error[:LONGEST_ERROR]
        asks += 1
    elif event.duration is not None and event.duration > config.slow_after:
        asks += 1
    rest = state.rest
    if rest.fit is not config.given:
        rest = _fitting(config, rest)
    return made_of(CLOSED, state.epoch, None, failures, last_failure, last_error, windows, asks, rest), tells


def _fitting(config: CircuitBreakerConfig, rest: Rest) -> Rest:
    """What a state that counts has of it: the settings given in code, and nothing that other states left behind."""
    settings = rest.settings if config.given is None else config.given
    if rest.fit is settings:
        return rest
    return Rest(None, rest.reason, None, 0, rest.probes, rest.late_count, settings, rest.extra, rest.rejected_count)


def _in_a_row_among_others(config: CircuitBreakerConfig, state: State, event: Report) -> tuple[State, Tells]:
    """Count failures in a row where windows of other shapes stand in the record."""
    at = _ended(event)
    last = _last_of_streak(state)
    if last is not None and at < last <= event.now:
        at = last
    windows, tells = _beside_others(state.windows, CONSECUTIVE, at)
    counted = state.but(
        state=CLOSED,
        since=None,
        until=None,
        failures=_streak(config, state, event),
        last_failure=_last_failure(state, event),
        last_error=_error(event),
        windows=windows,
        settings=_settings(config, state),
    )
    return counted, tells


def _beside_others(windows: Windows, shape: str, window: Window | float | None) -> tuple[Windows, Tells]:
    """Put a window among those of other shapes, at the end; if it is new there, they are told of each other."""
    tells: Tells = ()
    if shape not in windows and windows:
        tells = ((CONFLICT, {"window": shape, "other": [*windows][-1]}),)
    others = {other: held for other, held in windows.items() if other != shape}
    while len(others) >= MOST_SHAPES:
        del others[next(iter(others))]
    return {**others, shape: window}, tells


def _watched(state: State, step: Step, *, crossed: bool) -> State:
    """What was counted as in CLOSED, where METRICS_ONLY counts it."""
    counted: Any = step.state
    watched: State = counted.but(state=METRICS_ONLY, since=state.since, until=state.until, crossed=crossed)
    return watched


def _last_failure(state: State, event: Report) -> float | None:
    last_failure = state.last_failure
    if event.outcome != FAILURE:  # a slow call
        return last_failure
    at = _ended(event)
    return at if last_failure is None or last_failure > event.now or at > last_failure else last_failure


def _last_error(state: State, event: Report) -> str | None:
    return _error(event) if event.outcome == FAILURE else state.last_error


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
        last_error=_last_error(state, event),
        probes=_given_back(config, state.probes, event, failures=event.count),
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
    value = given.get(name)
    if value is None:
        return 0
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
