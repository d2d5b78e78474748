"""The settings of a circuit breaker, as variables and arguments give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping  # noqa: TC003 - pydantic reads annotations at run time
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, model_validator

from resilience.settings import Duration, PolicySettings
from resilience_circuit_breaker._config import (
    BOUNDS,
    OF_WINDOWS,
    CircuitBreakerConfig,
    check_contradictions,
    check_window,
    exception_classes,
    portable,
    resolve,
)


def _setting(name: str, default: object, description: str) -> Any:
    least, most = BOUNDS[name]
    return Field(default=default, ge=least, le=most, description=description)


Classes = Annotated[tuple[type[BaseException] | str, ...], PlainValidator(exception_classes)]


class CircuitBreakerSettings(PolicySettings):
    """What can be set of a circuit breaker.  Durations are in seconds, or text such as ``500ms``, ``30s``, ``2m``."""

    window: Literal["consecutive", "count", "time"] = Field(
        default="consecutive",
        description="What is judged: failures that follow each other (consecutive), the last calls (count), or the "
        "calls of the last seconds (time).",
    )
    window_size: int = _setting("window_size", 100, "count: so many of the last calls are judged.")
    window_duration: Duration = _setting(
        "window_duration",
        60.0,
        "time: the calls of so many seconds are judged, in ten buckets that all processes share.",
    )
    failure_threshold: int | None = _setting(
        "failure_threshold",
        None,
        "consecutive: it opens when this many failures follow each other.  count, time: it opens when this many stand "
        "in the window, whatever the rate.  Default: 3 with consecutive, else none.",
    )
    failure_max_age: Duration = _setting(
        "failure_max_age",
        3600.0,
        "A streak of failures whose last one is older starts anew: the state outlives the processes.",
    )
    minimum_calls: int | None = _setting(
        "minimum_calls",
        None,
        "count, time: no rate is judged before so many calls stand in the window.  Default: 10, or window_size if that "
        "is less.",
    )
    failure_rate_threshold: float = _setting(
        "failure_rate_threshold", 0.5, "count, time: it opens when failures / calls is this or more."
    )
    slow_call_rate_threshold: float | None = _setting(
        "slow_call_rate_threshold",
        None,
        "count, time: it opens when slow calls / calls is this or more.  none: no call is slow.",
    )
    slow_call_duration: Duration = _setting(
        "slow_call_duration", 60.0, "A call that took longer is slow, whether it succeeded or failed."
    )
    reset_timeout: Duration = _setting(
        "reset_timeout", 60.0, "It stays open for this long; the first call after it is let through as a probe."
    )
    reset_timeout_backoff: float = _setting(
        "reset_timeout_backoff", 1.0, "Each time that probes fail, it stays open this many times longer than before."
    )
    reset_timeout_max: Duration | None = _setting(
        "reset_timeout_max",
        None,
        "It never stays open for longer, backoff and jitter included.  Default: 10 minutes, or reset_timeout if that "
        "is longer.",
    )
    reset_timeout_jitter: float = _setting(
        "reset_timeout_jitter",
        0.0,
        "It stays open for longer by a random share between 0 and this, drawn by who opens it.",
    )
    half_open_max_calls: int | None = _setting(
        "half_open_max_calls",
        5,
        "Probes that may be in flight at one time, over all processes and machines.  none: any number; no permits are "
        "kept then, and every report counts.",
    )
    half_open_success_threshold: int = _setting(
        "half_open_success_threshold", 2, "This many successful probes close it."
    )
    half_open_failure_threshold: int = _setting(
        "half_open_failure_threshold", 1, "This many failed probes open it again."
    )
    permit_timeout: Duration | None = _setting(
        "permit_timeout",
        None,
        "A probe that has not reported for this long no longer keeps others from being let in; its report counts all "
        "the same.  Default: the longer of reset_timeout and slow_call_duration.",
    )
    failure_on: Classes = Field(
        default=(Exception,),
        description="Exceptions that count as failures, as module:Class names with commas between.  An exception group "
        "is judged by what is in it.",
    )
    ignore: Classes = Field(
        default=(),
        description="Exceptions that count neither as failures nor as successes, as module:Class names with commas "
        "between.  Wins over failure_on.",
    )
    failure_if: Callable[[Any], object] | None = Field(
        default=None,
        description="Called with each returned value: true makes it a failure.  In code only.",
        json_schema_extra={"code_only": True},
    )
    gather: Duration = _setting(
        "gather",
        0.1,
        "count, time: a process keeps successes for so long before it commits them together; a failure takes them "
        "along at once.  0 commits each.",
    )
    on_store_error: Literal["local", "allow", "deny", "raise"] = Field(
        default="local",
        description="While the storage does not answer: go on with a private copy of the state (local), let all calls "
        "through (allow), reject them (deny), or raise StorageUnavailable (raise).",
    )

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        check_window(self.window, {name: value for name, value in given.items() if value is not None})
        check_contradictions(self.reset_timeout, self.reset_timeout_max, self.failure_on, self.ignore)
        return self

    def effective(self) -> Mapping[str, object]:
        """Return what the settings come to that were left open: defaults that depend on others."""
        config = self.config()
        return {name: getattr(config, name) for name in type(self).model_fields if getattr(self, name) is None}

    def config(self, given: Mapping[str, object] | None = None) -> CircuitBreakerConfig:
        """Resolve what the settings leave open: defaults that depend on others, names of classes.

        :param given: the arguments given in code, which are stored with the record for who has no code; `None`: this
            is such a one.  Then `failure_on` and `ignore` stay names until an exception has to be judged: the modules
            that they name may not be there, and a shell does not need them.
        :raises ValueError: `failure_on` or `ignore` names a class that there is not, or both name one.
        """
        values = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name in self.model_fields_set or name not in OF_WINDOWS
        }
        if given is None:
            return CircuitBreakerConfig(**values)
        for name in ("failure_on", "ignore"):
            values[name] = resolve(name, values[name])
        return CircuitBreakerConfig(**values, given=portable(given))
