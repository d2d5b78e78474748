"""The circuit breaker as the engine sees it: the state machine, its record, and what it makes of outcomes."""

from __future__ import annotations

import sys

from resilience.errors import ConfigurationError
from resilience.policy import FAILURE, FOREVER, NEUTRAL, SUCCESS
from resilience_circuit_breaker._codec import decode, dumps, encode
from resilience_circuit_breaker._config import BOUNDS, CircuitBreakerConfig, checked, mro, resolve
from resilience_circuit_breaker._errors import Rejection
from resilience_circuit_breaker._state import (
    CLOSED,
    DISABLED,
    HALF_OPEN,
    METRICS_ONLY,
    NO_FIELDS,
    Machine,
    Rest,
    State,
    end_of_span,
    free_at,
    in_flight,
    window_of,
)
from resilience_circuit_breaker._window import COUNT, TIME, ends_at, leaves_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, ClassVar, Literal, Self

    from resilience.cli.verbs import Verb
    from resilience.policy import OnStoreError, Outcome
    from resilience_circuit_breaker._settings import CircuitBreakerSettings
    from resilience_circuit_breaker._status import CircuitStatus
    from resilience_circuit_breaker.breaker import CircuitBreaker

    Judged = tuple[type, Outcome | Literal["cancelled"]]

__all__ = ["KIND", "CircuitBreakerConfig", "CircuitBreakerPolicy", "State"]

KIND = "circuit_breaker"
"""The name of the entry point, and the first half of each key."""

LEAST_KEPT = 3600.0
"""Seconds that a closed record is kept at least after what it tells of.  A record that is born again begins at epoch 0;
were it dropped sooner, a failure of a call that is still under way would belong to an epoch that nobody knows."""

FEW_GATHERED = 64
"""So many reports a process gathers at most, and with a window of calls at most a tenth of it."""

MOST_GATHERED = 1024
"""So many it gathers at most where the window holds so many calls that they change nothing."""

SHARE_GATHERED = 128
"""Of so many calls in the window one is gathered at most, where that is more than a few."""

_MOST_JUDGED = 256
"""Exception classes whose judgement is remembered."""

_INITIAL = State()
_CANCELLED: Literal["cancelled"] = "cancelled"
"""Judgement of a cancellation: neutral, unless the call was slow before it was cancelled."""
_GROUP = id(BaseExceptionGroup)
_EXCEPTION = id(Exception)
# Read past what a class derived from it may say.
_leaves_of: Callable[[BaseException], tuple[BaseException, ...]] = BaseExceptionGroup.__dict__["exceptions"].__get__
_SETTINGS = frozenset({*BOUNDS, "window", "failure_on", "ignore", "on_store_error"})


class CircuitBreakerPolicy(Machine):
    """A circuit breaker under one configuration: see `resilience.policy.Policy`.

    Pure, so one object serves any number of threads; what changes is in the states that it takes and gives.
    """

    __slots__ = (
        "_failing",
        "_ignored",
        "_judged",
        "_judged_last",
        "_kept",
        "_known",
        "gather",
        "judges_results",
        "on_store_error",
        "slow_after",
    )

    kind: ClassVar[str] = KIND
    limited_events = frozenset({"late", "settings_conflict"})

    def __init__(self, config: CircuitBreakerConfig) -> None:
        super().__init__(config)
        self.on_store_error: OnStoreError = config.on_store_error
        self.judges_results = config.failure_if is not None
        self.slow_after = config.slow_after
        self.gather = 0.0 if config.in_a_row else config.gather
        # Made at the first judgement: names of classes are imported then.
        self._failing: frozenset[int] | None = None
        self._ignored: frozenset[int] = frozenset()
        self._judged: dict[int, Judged] = {}
        self._judged_last: Judged = (type(None), NEUTRAL)
        self._kept = max(LEAST_KEPT, config.failure_max_age)
        self._known = Rest(settings=NO_FIELDS if config.given is None else config.given)

    @staticmethod
    def settings_model() -> type[CircuitBreakerSettings]:
        """Load the model of its settings."""
        from resilience_circuit_breaker._settings import CircuitBreakerSettings

        return CircuitBreakerSettings

    @classmethod
    def from_settings(cls, settings: CircuitBreakerSettings, given: Mapping[str, object] | None, /) -> Self:
        """Make the policy; `given` are the settings given in code, to be stored; `None`: there is no code.

        :raises ConfigurationError: `failure_on` or `ignore` names a class that there is not.
        """
        try:
            return cls(settings.config(given))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    @classmethod
    def from_values(cls, values: Mapping[str, object], /) -> Self:
        """Make the policy of settings that were checked before, and of those stored with a record; there is no code.

        :raises ValueError: the settings model has to look at them: it would change or refuse one, or they contradict
            each other.
        """
        return cls(CircuitBreakerConfig(**checked(values)))

    def judging(self, **judgement: Any) -> Self:
        """Make the policy that judges outcomes by other rules (`failure_on`, `ignore`, `failure_if`), else the same.

        :raises ConfigurationError: the rules contradict each other, or one names a class that there is not.
        """
        try:
            return type(self)(self.config.judging(**judgement))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    @staticmethod
    def guard_type() -> type[CircuitBreaker]:
        """Load the guard that users hold."""
        from resilience_circuit_breaker.breaker import CircuitBreaker

        return CircuitBreaker

    @staticmethod
    def verbs() -> Sequence[Verb]:
        """Load the verbs on the command line."""
        from resilience_circuit_breaker.verbs import VERBS

        return VERBS

    @staticmethod
    def stored_settings(state: State, /) -> Mapping[str, object]:
        """Return the settings given in code that are stored with a record, for who has no code, such as a shell.

        Only those that this version knows; their values are as they were stored and still have to be checked.
        """
        settings = state.settings
        if settings.keys() <= _SETTINGS:
            return settings
        return {name: value for name, value in settings.items() if name in _SETTINGS}

    def initial(self) -> State:
        """Return the state of a breaker that has no record: CLOSED, epoch 0."""
        return _INITIAL

    encode = staticmethod(encode)

    def decode(self, payload: bytes, /) -> State:
        """Read a state.

        :raises ValueError: it is damaged; the message says what is wrong.
        :raises StorageIncompatible: a newer version of the library wrote it.
        """
        known = self._known
        state = decode(payload, known)
        rest = state.rest
        if rest is not known:
            given = self.config.given
            # What was read is what the code gave: the same object says so at a glance, see `Rest.fit`.
            if given is not None and given is not rest.settings and dumps(rest.settings) == dumps(given):
                state = state.but(settings=given)
                rest = state.rest
            self._known = rest
        return state

    def expires_at(self, state: State, /) -> float | None:
        """Wall-clock seconds after which the state means nothing any more; `None`: never.

        Only a breaker that is CLOSED, about which no person said anything, comes to an end: with a streak
        `failure_max_age` after its last failure, without one as long after it was emptied, with windows of time when
        all calls have left them; `LEAST_KEPT` seconds at the least.  A window of calls has no end.  What is lost then
        are the number of its epoch, its `late_count`, and the settings given in code, which come back with the next
        commit by code.
        """
        if state.state != CLOSED or state.rest.reason:
            return None
        if state.windows:
            return self._windows_end(state)
        told = state.last_failure
        since = state.since
        if since is not None and (told is None or since > told):  # emptied, or restored with a failure of long ago
            told = since
        if told is None:
            return None
        return told + self._kept

    def _windows_end(self, state: State) -> float | None:
        windows = state.windows
        config = self.config
        window: Any = windows.get(config.shape)
        if len(windows) == 1 and config.window == TIME and window and window[3]:  # nearly always
            return leaves_at(config.window_span, window[3][2][0]) + LEAST_KEPT
        end = 0.0
        for shape, window in windows.items():
            if window is None:
                continue
            if isinstance(window, float):
                its_end: float | None = window + config.failure_max_age
            else:
                its_end = ends_at(shape, window)
            if its_end is None:
                return None
            end = max(end, its_end)
        return end + LEAST_KEPT

    def gather_limit(self, state: State, now: float, /) -> int:
        """So many reports a process gathers at most: what the others do not know of must not decide for them.

        `FEW_GATHERED`, and of a window of calls a tenth at most.  Where a window of time holds so many calls that more
        are still less than a hundredth of it, more: else who calls thousands of times a second would commit for each
        64 of them, which takes as long as they do.  Then it is a power of two, as successes are gathered together only
        where the limit is the same.
        """
        config = self.config
        if config.window == COUNT:
            return max(1, min(config.window_size // 10, FEW_GATHERED))
        share = window_of(config, state, now)[0] // SHARE_GATHERED
        if share <= FEW_GATHERED:
            return FEW_GATHERED
        return min(1 << share.bit_length() - 1, MOST_GATHERED)

    def refuse(self, state: State | None, reason: str, /) -> Rejection:
        """Refuse for a reason that lies outside the state: the storage does not answer, the lock is taken.

        When to ask again cannot be known, unless the breaker was last seen in a state that has an end.
        """
        if state is None:
            state = _INITIAL
        lets_in = state.state in {DISABLED, METRICS_ONLY}
        until = FOREVER if state.until is None or lets_in else state.until
        return Rejection(state.state, until, state.last_error, reason)

    def judge_error(self, error: BaseException, duration: float | None = None, /) -> Outcome:
        """Say what an exception that left the protected call means; `duration` in seconds, if it was measured.

        ``neutral`` if `ignore` names a class of it; else ``failure`` if `failure_on` does; else ``success`` for an
        `Exception`, as the dependency answered; else ``neutral`` (cancellation, `KeyboardInterrupt`, `SystemExit`,
        `GeneratorExit`).  A cancellation by asyncio after more than `slow_call_duration`, where slow calls are judged,
        is a success that took too long: a time-out around the call reaches it as one.  An exception group is judged
        by its leaves: ``failure`` if one is, else ``success`` if one is, else ``neutral``.

        Classes match as in an `except` clause: by what the exception is, not by what its class or its metaclass say.
        Nothing of the exception's own code is run.
        """
        kind, outcome = self._judged_last
        if kind is not type(error):
            outcome = self._judgement(error, type(error))
        if outcome == _CANCELLED:
            return SUCCESS if duration is not None and duration > self.slow_after else NEUTRAL
        return outcome

    def _judgement(self, error: BaseException, kind: type) -> Outcome | Literal["cancelled"]:
        judged = self._judged.get(id(kind))
        if judged is not None:
            self._judged_last = judged  # mostly one kind fails; `id` and a look into a mapping take 0.25 µs
            return judged[1]
        kinds = mro(kind)
        if any(id(kind) == _GROUP for kind in kinds):
            outcomes = {self._judge(mro(type(leaf))) for leaf in _leaves(error)}
            if FAILURE in outcomes:
                return FAILURE
            if SUCCESS in outcomes:
                return SUCCESS
            return _CANCELLED if _CANCELLED in outcomes else NEUTRAL
        outcome = self._judge(kinds)
        if len(self._judged) < _MOST_JUDGED:
            self._judged[id(kind)] = (kind, outcome)  # with the class, so that no other one gets its identity
        return outcome

    def _judge(self, kinds: Iterable[type]) -> Outcome | Literal["cancelled"]:
        ids = frozenset(map(id, kinds))
        if self._failing is None:  # the first exception: names of classes are resolved now, see `CircuitBreakerConfig`
            self._ignored = _identities(self.config.ignore)
            self._failing = _identities(self.config.failure_on)
        if not self._ignored.isdisjoint(ids):
            return NEUTRAL
        if not self._failing.isdisjoint(ids):
            return FAILURE
        if _EXCEPTION in ids:
            return SUCCESS
        # Whoever raises it has imported it.
        asyncio = sys.modules.get("asyncio.exceptions")
        return NEUTRAL if asyncio is None or id(asyncio.CancelledError) not in ids else _CANCELLED

    def judge_result(self, result: object, /) -> Outcome:
        """Say what a returned value means: ``failure`` if `failure_if` says so, else ``success``.

        A predicate that raises an `Exception` means ``failure``: a value that cannot be judged is no proof that the
        dependency is well, and a breaker that opens shows the mistake, one that never opens hides it.  The caller
        gets the value all the same.
        """
        failure_if = self.config.failure_if
        if failure_if is None:
            return SUCCESS
        try:
            return FAILURE if failure_if(result) else SUCCESS
        except Exception:  # noqa: BLE001 - the caller's result survives the mistake of the predicate
            return FAILURE

    def status(
        self, state: State, /, *, name: str, now: float, version: object = None, degraded: bool = False
    ) -> CircuitStatus:
        """Show a state as it is at wall-clock second `now`; `version` is that of its record.  Changes nothing."""
        from resilience_circuit_breaker._status import CircuitStatus

        fields: Any = self.shown(state, name=name, now=now, version=version, degraded=degraded)
        return CircuitStatus(**fields)

    def shown(
        self, state: State, /, *, name: str, now: float, version: object = None, degraded: bool = False
    ) -> dict[str, str | int | float | bool | None]:
        """Return what `CircuitStatus.to_dict` makes of the status, without it: for very many."""
        rest = state.rest
        probes = rest.probes
        config = self.config
        failures = state.failures
        successes = failure_rate = slow_rate = None
        slow = 0
        if not config.in_a_row:
            calls, failures, slow, _ = window_of(config, state, now)
            successes = calls - failures
            if calls >= config.minimum_calls:
                failure_rate = failures / calls
                slow_rate = slow / calls
        return {
            "state": state.state,
            "failure_count": failures,
            "last_failure_time": state.last_failure,
            "half_open_successes": probes.successes,
            "name": name,
            "last_error": state.last_error,
            "opened_at": rest.opened_at,
            "retry_after": self._retry_after(state, now),
            "half_open_failures": probes.failures,
            "permits_in_use": len(in_flight(probes, now)) if probes.permits else 0,
            "late_count": rest.late_count,
            "reason": rest.reason,
            "version": None if version is None else str(version),
            "degraded": degraded,
            "success_count": successes,
            "slow_count": slow,
            "failure_rate": failure_rate,
            "slow_call_rate": slow_rate,
            "rejected_count": rest.rejected_count,
        }

    def _retry_after(self, state: State, now: float) -> float | None:
        if state.state in {CLOSED, DISABLED, METRICS_ONLY}:
            return 0.0
        until = free_at(self.config, state.probes, now) if state.state == HALF_OPEN else end_of_span(state, now)
        return None if until == FOREVER else max(0.0, until - now)


def _leaves(group: BaseException) -> list[BaseException]:
    """List the exceptions in a group and in the groups in it.  Each group is opened once, however often it is held."""
    leaves: list[BaseException] = []
    opened = {id(group)}
    closed = [group]
    while closed:
        for inner in _leaves_of(closed.pop()):
            if all(id(kind) != _GROUP for kind in mro(type(inner))):
                leaves.append(inner)
            elif id(inner) not in opened:
                opened.add(id(inner))
                closed.append(inner)
    return leaves


def _identities(kinds: Iterable[type[BaseException] | str]) -> frozenset[int]:
    """Return the identities of classes; a name that means nothing here (see `CircuitBreakerConfig`) matches nothing."""
    identities: set[int] = set()
    for kind in kinds:
        try:
            identities.update(map(id, resolve("", (kind,))))
        except ValueError:
            continue
    return frozenset(identities)
