"""What a user of the circuit breaker holds."""

from __future__ import annotations

from resilience.errors import ConfigurationError, PolicyRejected
from resilience.guard import Guard
from resilience.policy import FAILURE, SUCCESS
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, Self, TypedDict, Unpack

    from resilience.cell import Cell
    from resilience.runtime import Runtime
    from resilience_circuit_breaker._status import CircuitStatus
    from resilience_circuit_breaker.family import CircuitBreakerFamily

    Duration = float | str
    Classes = type[BaseException] | str | Iterable[type[BaseException] | str]

    class Settings(TypedDict, total=False):
        """The settings that code may give; see `CircuitBreaker`."""

        window: Literal["consecutive", "count", "time"]
        window_size: int
        window_duration: Duration
        failure_threshold: int
        failure_max_age: Duration
        minimum_calls: int
        failure_rate_threshold: float
        slow_call_rate_threshold: float
        slow_call_duration: Duration
        reset_timeout: Duration
        reset_timeout_backoff: float
        reset_timeout_max: Duration
        reset_timeout_jitter: float
        half_open_max_calls: int | None
        half_open_success_threshold: int
        half_open_failure_threshold: int
        permit_timeout: Duration
        failure_on: Classes
        ignore: Classes
        failure_if: Callable[[Any], bool]
        gather: Duration
        on_store_error: Literal["local", "allow", "deny", "raise"]

    class Judgement(TypedDict, total=False):
        """What `CircuitBreaker.judging` may change."""

        failure_on: Classes
        ignore: Classes
        failure_if: Callable[[Any], bool] | None


_MOST_JUDGING = 64
"""So many ways to judge are kept of one breaker."""


class CircuitBreaker(Guard):
    """A circuit breaker whose state everybody shares who names the same storage.

    Durations are seconds, or text such as ``"500ms"`` and ``"2m"``.  What is left out comes from the environment, else
    from the defaults; the configuration reference has the bounds of each setting.

    :param name: 1 to 1000 printable characters.
    :param runtime: bind to this runtime instead of the current one.
    :param window: what is judged: ``consecutive`` failures, the last calls (``count``), or the calls of the last
        seconds (``time``).
    :param window_size: calls; with ``count``, so many of the last ones are judged.
    :param window_duration: seconds; with ``time``, the calls of so many are judged.
    :param failure_threshold: calls; so many failures open it: that follow each other with ``consecutive``, that stand
        in the window with the others.
    :param failure_max_age: seconds; a streak whose last failure is older starts anew.
    :param minimum_calls: no rate is judged before so many calls stand in the window.
    :param failure_rate_threshold: share of all calls in the window; so many failures open it.
    :param slow_call_rate_threshold: share of all calls in the window; so many slow calls open it.
    :param slow_call_duration: seconds; a call that took longer is slow.
    :param reset_timeout: seconds that it stays open before a call is let through as a probe.
    :param reset_timeout_backoff: each opening that follows failed probes lasts that many times longer.
    :param reset_timeout_max: seconds; no opening lasts longer.
    :param reset_timeout_jitter: share of the open time; up to so much, drawn at random, is added to it.
    :param half_open_max_calls: probes in flight at one time, over all processes; `None`: no limit.
    :param half_open_success_threshold: so many successful probes close it.
    :param half_open_failure_threshold: so many failed probes open it again.
    :param permit_timeout: seconds after which the permit of a probe that has not reported is free for others.
    :param failure_on: exception classes, or their names as ``module:Class``, that are failures; others are successes.
    :param ignore: exception classes that are neither; stronger than `failure_on`.
    :param failure_if: says of a returned value whether it is a failure.
    :param gather: seconds for which successes in a window are kept before they are committed together.
    :param on_store_error: what is decided while the storage does not answer.
    :raises ConfigurationError: a setting is unknown or impossible or contradicts another.
    """

    __slots__ = ("_judgement", "_judging")

    # Both are made where they are needed; most breakers have neither.
    _judgement: dict[str, Any]
    _judging: Callable[..., Any]

    policy_type = CircuitBreakerPolicy

    def __init__(self, name: str, *, runtime: Runtime | None = None, **settings: Unpack[Settings]) -> None:
        super().__init__(name, settings, runtime)

    # -- its kin ------------------------------------------------------------------------------------------------------

    @classmethod
    def family(
        cls, name: str, *, max_guards: int = 1000, runtime: Runtime | None = None, **settings: Unpack[Settings]
    ) -> CircuitBreakerFamily[Self]:
        """Make breakers by key, for hosts, tenants or tools: ``family["api.example.com"]``.

        :param name: without a colon; the breaker of a key is named ``name:key``.
        :param max_guards: so many are kept in this process, those that were used last; what they share is in the
            storage, so a breaker that was dropped comes back as it was.
        :raises ConfigurationError: name or settings are impossible.
        """
        from resilience_circuit_breaker.family import CircuitBreakerFamily

        return CircuitBreakerFamily(cls, name, settings, max_guards=max_guards, runtime=runtime)

    def judging(self, **judgement: Unpack[Judgement]) -> Self:
        """Return a breaker with the same name, settings and state that judges outcomes by other rules.

        For one function, ``@payments.judging(ignore=NotFound)``, or for one call,
        ``payments.judging(ignore=NotFound).call(f)``: the breakers so made are kept, so asking again is cheap, as long
        as the arguments are equal (a `lambda` written in place never is).  What is left out stays; what is given here
        is stronger than all variables.

        :param failure_on: exception classes, or their names as ``module:Class``, that are failures.
        :param ignore: exception classes that are neither failures nor successes.
        :param failure_if: says of a returned value whether it is a failure; `None`: none is.
        :raises ConfigurationError: a rule is impossible or contradicts another.
        """
        kept: Callable[..., Self] | None = getattr(self, "_judging", None)
        if kept is None:
            from functools import lru_cache, partial  # which a shell never needs, and takes two milliseconds

            made: Any = partial(_judging, type(self), self.name, self._given, self._runtime, self._its_judgement)
            kept = self._judging = lru_cache(maxsize=_MOST_JUDGING)(made)
        rules: dict[str, Any] = {**judgement}
        try:
            return kept(**rules)
        except TypeError:  # a list of classes, which is no key
            return kept(**{name: tuple(rule) if isinstance(rule, list | set) else rule for name, rule in rules.items()})  # pyright: ignore[reportUnknownArgumentType] - checked by who judges

    @property
    def _its_judgement(self) -> dict[str, Any]:
        return getattr(self, "_judgement", {})

    def _bind(self, runtime: Runtime) -> Cell:
        cell = super()._bind(runtime)
        judgement = self._its_judgement
        if not judgement:
            return cell
        policy = cell.policy
        assert isinstance(policy, CircuitBreakerPolicy)  # noqa: S101 - what `policy_type` made; for the type checkers
        remake: Any = runtime.remaking(cell)
        return runtime.bind(
            self._key, policy.judging(**judgement), lambda configuration: remake(configuration).judging(**judgement)
        )

    def __repr__(self) -> str:
        """Class, name and what it judges by; the state would need a look at the storage."""
        judgement = ", ".join(f"{name}={value!r}" for name, value in self._its_judgement.items())
        return f"{super().__repr__()}{f'.judging({judgement})' if judgement else ''}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as name and settings: what is bound here means nothing elsewhere."""
        made, arguments = super().__reduce__()
        judgement = self._its_judgement
        return (_judging_again, (made, arguments, dict(judgement))) if judgement else (made, arguments)

    # -- without a permit: one process asks, another may report ------------------------------------------------------

    def check(self) -> bool:
        """Whether a call may be made now; asking is a promise to report it with `record_success` or `record_failure`.

        While the breaker is half open this takes one of the permits.  To look without a promise, use `status`.

        :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
        """
        try:
            self.admit()
        except PolicyRejected:
            return False
        return True

    def record_success(self, *, token: str | None = None, duration: float | None = None, strict: bool = False) -> None:
        """Report that a call went well.

        :param duration: seconds that it took; it may have been slow.
        :param token: that of the permit, where the caller has one; else the report belongs to the present state.
        :param strict: raise if the report is not in the shared record afterwards; else that never raises.
        :raises TypeError: the duration is no number.
        :raises ValueError: it is no token.
        :raises StorageError: `strict`, and the storage did not do it.
        """
        self.record(SUCCESS, None, duration, token=token, strict=strict)

    def record_failure(
        self,
        error: BaseException | str | None = None,
        duration: float | None = None,
        *,
        token: str | None = None,
        strict: bool = False,
    ) -> None:
        """Report that a call failed.

        :param error: of which the class name is kept.
        :param duration: seconds that it took; it may have been slow as well.
        :param token: that of the permit, where the caller has one; else the report belongs to the present state.
        :param strict: raise if the report is not in the shared record afterwards; else that never raises.
        :raises TypeError: the duration is no number.
        :raises ValueError: it is no token.
        :raises StorageError: `strict`, and the storage did not do it.
        """
        self.record(FAILURE, error, duration, token=token, strict=strict)

    # -- looking and steering ----------------------------------------------------------------------------------------

    def status(self, *, strict: bool = False) -> CircuitStatus:
        """Look without changing anything; after `reset_timeout` it still says OPEN, with `retry_after` 0.

        :param strict: raise if the shared record cannot be read; else the status is `degraded`, and never raises.
        :raises StorageError: `strict`, and it cannot be read.
        """
        seen = self.read(strict=strict)
        return seen.policy.status(  # type: ignore[no-any-return]  # the policy's own type is known to it
            seen.state,
            name=self.name,
            now=seen.now,
            version=None if seen.version is None else str(seen.version),
            degraded=seen.degraded is not None,
        )

    def force_open(self, seconds: float | None = None, reason: str = "") -> None:
        """Reject all calls, until it is taken back or for so many seconds; then it probes.

        :raises StorageError: the storage did not do it.
        """
        self.control("force_open", seconds=_checked("force_open", seconds), reason=reason)

    def disable(self, seconds: float | None = None, reason: str = "") -> None:
        """Let all calls through and count nothing, until it is taken back or for so many seconds; then it is closed.

        :raises StorageError: the storage did not do it.
        """
        self.control("disable", seconds=_checked("disable", seconds), reason=reason)

    def metrics_only(self, seconds: float | None = None, reason: str = "") -> None:
        """Let all calls through, count them, and tell observers when it would have opened: a dry run.

        Until it is taken back or for so many seconds; then it is closed.  It starts with an empty window, and tells
        ``would_have_opened`` once each time that a threshold is crossed.

        :raises StorageError: the storage did not do it.
        """
        self.control("metrics_only", seconds=_checked("metrics_only", seconds), reason=reason)

    def close(self, reason: str = "") -> None:
        """Close it, whatever its state; closed, it keeps its count.

        :raises StorageError: the storage did not do it.
        """
        self.control("close", reason=reason)

    def reset(self, reason: str = "") -> None:
        """Close it and forget all counts.

        :raises StorageError: the storage did not do it.
        """
        self.control("reset", reason=reason)

    def restore(self, status: CircuitStatus) -> None:
        """Put it into the state of `status`, counts included; OPEN since its `last_failure_time`.

        :raises TypeError: `status` is no `CircuitStatus`.
        :raises ValueError: a count or a time of `status` makes no sense.
        :raises StorageError: the storage did not do it.
        """
        from resilience_circuit_breaker._status import CircuitStatus

        if not isinstance(status, CircuitStatus):  # pyright: ignore[reportUnnecessaryIsInstance] - as in `family`
            raise TypeError(f"{self!r}: what is restored is a CircuitStatus, not {type(status).__name__}")
        fields = ("failure_count", "last_failure_time", "half_open_successes", "half_open_failures", "last_error")
        more = ("opened_at", "late_count", "reason", "success_count", "slow_count", "rejected_count")
        self.control("restore", state=str(status.state), **{name: getattr(status, name) for name in (*fields, *more)})


def _checked(verb: str, seconds: Any) -> float | None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if seconds is None or (is_number and 0 < seconds <= 100 * 365 * 86400):
        return seconds  # type: ignore[no-any-return]  # `None` or a number, as was just seen
    raise ConfigurationError(f"{verb}: {seconds!r:.80} is no time; give seconds above 0, at most 100 years, or None")


def _judging(
    kind: type[CircuitBreaker],
    name: str,
    given: Mapping[str, Any] | None,
    runtime: Runtime | None,
    already: dict[str, Any],
    **judgement: Any,
) -> CircuitBreaker:
    if unknown := judgement.keys() - {"failure_on", "ignore", "failure_if"}:
        raise ConfigurationError(f"{kind.__name__}({name!r}): judging changes no {min(unknown)}, only the judgement")
    together: Any = {**already, **judgement}
    changes = {rule: value for rule, value in together.items() if value is not None or rule == "failure_if"}
    settings: Any = {**(given or {}), **changes}
    kind(name, **settings)  # says what is wrong with them together
    guard = kind.__new__(kind)
    Guard.__init__(guard, name, given, runtime)
    guard._judgement = changes  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - this module's own
    return guard


def _judging_again(
    made: Callable[..., CircuitBreaker], arguments: tuple[Any, ...], judgement: dict[str, Any]
) -> object:
    return made(*arguments).judging(**judgement)
