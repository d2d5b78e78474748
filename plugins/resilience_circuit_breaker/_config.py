"""What a circuit breaker is configured with, resolved and checked: the plain object that the state machine reads.

Knows no pydantic: `CircuitBreakerSettings` reads variables and arguments and builds one of these; the bounds and the
contradictions stand here, once.
"""

from __future__ import annotations

import builtins

from resilience.policy import FOREVER
from resilience_circuit_breaker._window import CONSECUTIVE, COUNT, TIME, WINDOWS, shape_of, span_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Literal, TypeGuard

    from resilience.policy import OnStoreError

    WindowName = Literal["consecutive", "count", "time"]

_DAY = 86400.0

BOUNDS: dict[str, tuple[float, float]] = {
    "window_size": (1, 10_000),
    "window_duration": (0.1, 30 * _DAY),
    "failure_threshold": (1, 1_000_000),
    "failure_max_age": (0.001, 365 * _DAY),
    "minimum_calls": (1, 1_000_000),
    "failure_rate_threshold": (1e-6, 1.0),
    "slow_call_rate_threshold": (1e-6, 1.0),
    "slow_call_duration": (0.001, 30 * _DAY),
    "reset_timeout": (0.0, 30 * _DAY),
    "reset_timeout_backoff": (1.0, 100.0),
    "reset_timeout_max": (0.0, 365 * _DAY),
    "reset_timeout_jitter": (0.0, 1.0),
    "half_open_max_calls": (1, 1000),
    "half_open_success_threshold": (1, 1_000_000),
    "half_open_failure_threshold": (1, 1_000_000),
    "permit_timeout": (0.001, 365 * _DAY),
    "gather": (0.0, 60.0),
}
"""The least and the greatest value of each number, both allowed."""

MODES = ("local", "allow", "deny", "raise")
"""What `on_store_error` may be."""

OF_WINDOWS = {
    "window_size": 100,
    "window_duration": 60.0,
    "minimum_calls": 10,
    "failure_rate_threshold": 0.5,
    "slow_call_rate_threshold": None,
}
"""Settings that mean something with a window of calls or of time only, and their defaults."""

_WHOLE = frozenset(
    {
        "window_size",
        "failure_threshold",
        "minimum_calls",
        "half_open_max_calls",
        "half_open_success_threshold",
        "half_open_failure_threshold",
    }
)

FAILURES_IN_A_ROW = 3
"""`failure_threshold` with the window ``consecutive``, unless it is set; with others there is none then."""

LEAST_RESET_TIMEOUT_MAX = 600.0
"""`reset_timeout_max` is the longer of these seconds and `reset_timeout`, unless it is set."""

NEVER = 10**15
"""A number of failures that is never reached."""


class CircuitBreakerConfig:
    """The configuration of a circuit breaker.  Treat it as frozen.

    The arguments have the names, units and defaults of `CircuitBreakerSettings`.  `None` means the default of a setting
    whose default depends on others, and of those that stand in `OF_WINDOWS`.  A ``module:Class`` name in `failure_on`
    or `ignore` is imported when an exception is judged first, and means nothing if it cannot be.  `given` holds the
    settings given in code as JSON can hold them (see `portable`), to be stored with the record; `None`: there is no
    code, so what is stored stays.

    Made of them: `shape`, the name of the window in the record; `in_a_row`, whether it is ``consecutive``; `opens_at`,
    the failures that open it, whatever their rate; `window_span`, the nanoseconds of `window_duration`; `window_mask`,
    all bits of a window of calls; `slow_after`, the seconds after which a call is slow, infinity if none ever is;
    `failures_from` and `slow_from`, the failures and slow calls in a window with less of which no threshold is reached.

    :raises ValueError: a value lies outside its bounds or contradicts another; the message names field and fix.
    """

    __slots__ = (
        "failure_if",
        "failure_max_age",
        "failure_on",
        "failure_rate_threshold",
        "failure_threshold",
        "failures_from",
        "gather",
        "given",
        "half_open_failure_threshold",
        "half_open_max_calls",
        "half_open_success_threshold",
        "ignore",
        "in_a_row",
        "minimum_calls",
        "on_store_error",
        "opens_at",
        "permit_timeout",
        "reset_timeout",
        "reset_timeout_backoff",
        "reset_timeout_jitter",
        "reset_timeout_max",
        "shape",
        "slow_after",
        "slow_call_duration",
        "slow_call_rate_threshold",
        "slow_from",
        "window",
        "window_duration",
        "window_mask",
        "window_size",
        "window_span",
    )

    def __init__(
        self,
        *,
        window: WindowName = "consecutive",
        window_size: int | None = None,
        window_duration: float | None = None,
        failure_threshold: int | None = None,
        failure_max_age: float = 3600.0,
        minimum_calls: int | None = None,
        failure_rate_threshold: float | None = None,
        slow_call_rate_threshold: float | None = None,
        slow_call_duration: float = 60.0,
        reset_timeout: float = 60.0,
        reset_timeout_backoff: float = 1.0,
        reset_timeout_max: float | None = None,
        reset_timeout_jitter: float = 0.0,
        half_open_max_calls: int | None = 5,
        half_open_success_threshold: int = 2,
        half_open_failure_threshold: int = 1,
        permit_timeout: float | None = None,
        failure_on: type[BaseException] | str | Iterable[type[BaseException] | str] = (Exception,),
        ignore: type[BaseException] | str | Iterable[type[BaseException] | str] = (),
        failure_if: Callable[[Any], object] | None = None,
        gather: float = 0.1,
        on_store_error: OnStoreError = "local",
        given: Mapping[str, object] | None = None,
    ) -> None:
        if window not in WINDOWS:
            raise ValueError(f"window is one of {', '.join(WINDOWS)}")
        numbers: dict[str, float | None] = {
            "window_size": window_size,
            "window_duration": window_duration,
            "failure_threshold": failure_threshold,
            "failure_max_age": failure_max_age,
            "minimum_calls": minimum_calls,
            "failure_rate_threshold": failure_rate_threshold,
            "slow_call_rate_threshold": slow_call_rate_threshold,
            "slow_call_duration": slow_call_duration,
            "reset_timeout": reset_timeout,
            "reset_timeout_backoff": reset_timeout_backoff,
            "reset_timeout_max": reset_timeout_max,
            "reset_timeout_jitter": reset_timeout_jitter,
            "half_open_max_calls": half_open_max_calls,
            "half_open_success_threshold": half_open_success_threshold,
            "half_open_failure_threshold": half_open_failure_threshold,
            "permit_timeout": permit_timeout,
            "gather": gather,
        }
        for name, value in numbers.items():
            if value is not None:
                _check_number(name, value)
        check_window(window, {name: value for name, value in numbers.items() if value is not None})
        self.window = window
        self.window_size = 100 if window_size is None else window_size
        self.window_duration = 60.0 if window_duration is None else window_duration
        self.in_a_row = window == CONSECUTIVE
        self.shape = shape_of(window, self.window_size, self.window_duration)
        self.window_span = span_of(self.shape) if window == TIME else 1
        self.window_mask = (1 << self.window_size) - 1
        if failure_threshold is None and self.in_a_row:
            failure_threshold = FAILURES_IN_A_ROW
        self.failure_threshold = failure_threshold
        self.opens_at = NEVER if failure_threshold is None else failure_threshold
        self.failure_max_age = failure_max_age
        if minimum_calls is None:
            minimum_calls = min(10, self.window_size) if window == COUNT else 10
        self.minimum_calls = minimum_calls
        self.failure_rate_threshold = 0.5 if failure_rate_threshold is None else failure_rate_threshold
        self.slow_call_rate_threshold = slow_call_rate_threshold
        self.failures_from = min(self.opens_at, _fewest(self.failure_rate_threshold, minimum_calls))
        self.slow_from = _fewest(slow_call_rate_threshold, minimum_calls)
        self.slow_call_duration = slow_call_duration
        self.slow_after = FOREVER if slow_call_rate_threshold is None else slow_call_duration
        self.reset_timeout = reset_timeout
        self.reset_timeout_backoff = reset_timeout_backoff
        self.reset_timeout_max = (
            max(LEAST_RESET_TIMEOUT_MAX, reset_timeout) if reset_timeout_max is None else reset_timeout_max
        )
        self.reset_timeout_jitter = reset_timeout_jitter
        self.half_open_max_calls = half_open_max_calls
        self.half_open_success_threshold = half_open_success_threshold
        self.half_open_failure_threshold = half_open_failure_threshold
        self.permit_timeout = max(reset_timeout, slow_call_duration) if permit_timeout is None else permit_timeout
        self.failure_on = exception_classes(failure_on)
        self.ignore = exception_classes(ignore)
        self.failure_if = failure_if
        self.gather = gather
        self.on_store_error: OnStoreError = on_store_error
        self.given: dict[str, object] | None = None if given is None else dict(given)
        if failure_if is not None and not callable(failure_if):
            raise ValueError(f"failure_if is called with each returned value, so it is no {type(failure_if).__name__}")
        if on_store_error not in MODES:
            raise ValueError(f"on_store_error is one of {', '.join(MODES)}")
        check_contradictions(self.reset_timeout, self.reset_timeout_max, self.failure_on, self.ignore)

    def judging(
        self,
        *,
        failure_on: type[BaseException] | str | Iterable[type[BaseException] | str] | None = None,
        ignore: type[BaseException] | str | Iterable[type[BaseException] | str] | None = None,
        **predicate: Callable[[Any], object] | None,
    ) -> CircuitBreakerConfig:
        """Copy it, to judge outcomes by other rules; what is left out stays.

        :raises ValueError: `failure_on` or `ignore` names a class that there is not, or both name one.
        """
        from copy import copy

        other = copy(self)
        if failure_on is not None:
            other.failure_on = resolve("failure_on", exception_classes(failure_on))
        if ignore is not None:
            other.ignore = resolve("ignore", exception_classes(ignore))
        if "failure_if" in predicate:
            other.failure_if = predicate["failure_if"]
        check_contradictions(other.reset_timeout, other.reset_timeout_max, other.failure_on, other.ignore)
        return other


def _fewest(rate: float | None, minimum_calls: int) -> int:
    """How many calls reach a rate among `minimum_calls`; among more calls, fewer never do."""
    if rate is None:
        return NEVER
    fewest = max(0, int(rate * minimum_calls) - 1)
    while fewest / minimum_calls < rate:  # as the rate itself is judged: a product is rounded otherwise
        fewest += 1
    return fewest


def _check_number(name: str, value: float) -> None:
    least, most = BOUNDS[name]
    whole = name in _WHOLE
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not least <= value <= most:
        raise ValueError(f"{name} is a {'whole ' if whole else ''}number from {least:.15g} to {most:.15g}")


def check_window(window: str, given: Mapping[str, object]) -> None:
    """Refuse settings that mean nothing with the window, or cannot be reached in it.

    :param given: the settings that somebody gave, without those that are left to their defaults.
    :raises ValueError: the message names both and says what to change.
    """
    if window == CONSECUTIVE:
        for name in OF_WINDOWS:
            if given.get(name) is not None:
                raise ValueError(
                    f"{name} means nothing with window=consecutive, which counts failures in a row only: set window to "
                    f"count or time, or leave {name} out"
                )
    if window == COUNT:
        size = given.get("window_size", OF_WINDOWS["window_size"])
        assert isinstance(size, int)  # noqa: S101 - for the type checkers; bounds are checked before
        for name in ("minimum_calls", "failure_threshold"):
            number = given.get(name)
            if isinstance(number, int) and number > size:
                raise ValueError(
                    f"{name} ({number}) is above window_size ({size}), so it is never reached: lower the one or raise "
                    "the other"
                )


def check_contradictions(
    reset_timeout: float,
    reset_timeout_max: float | None,
    failure_on: Iterable[type[BaseException] | str],
    ignore: Iterable[type[BaseException] | str],
) -> None:
    """Refuse settings of which one takes away the meaning of another.

    :raises ValueError: the message names both and says what to change.
    """
    if reset_timeout_max is not None and reset_timeout_max < reset_timeout:
        raise ValueError(
            f"reset_timeout_max ({reset_timeout_max:.15g} s) is shorter than reset_timeout ({reset_timeout:.15g} s): "
            "raise the one or lower the other"
        )
    ignored = tuple(ignore)
    for failure in failure_on:
        for other in ignored:
            if _is_a(failure, other):
                raise ValueError(
                    f"failure_on names {class_name(failure)}, which can never count, as ignore names "
                    f"{class_name(other)} and wins: take it out of one of the two"
                )


_NO_CLASS = "an exception is named by its class, or by module:Class, for example requests:Timeout"

mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
"""The classes that a class derives from, itself first.  Read past the metaclass, which may lie or raise."""


def _is_a(kind: type[BaseException] | str, other: type[BaseException] | str) -> bool:
    if isinstance(kind, str) or isinstance(other, str):
        # What a name means is known when it is imported; then this is asked again.
        return isinstance(kind, str) and isinstance(other, str) and kind == other
    return any(base is other for base in mro(kind))


def class_name(kind: type[BaseException] | str) -> str:
    """Return the ``module:Class`` name of a class."""
    return kind if isinstance(kind, str) else f"{kind.__module__}:{kind.__qualname__}"


def exception_classes(value: object) -> tuple[type[BaseException] | str, ...]:
    """Read what `failure_on` or `ignore` was set to: one or several classes or ``module:Class`` names.

    A text may hold several names with commas between.  A name without a module means a built-in class, and has to;
    others are checked for their form only, see `resolve`.

    :raises ValueError: it is something else.
    """
    if isinstance(value, str):
        items: list[object] = [item for item in value.split(",") if item.strip()]
    elif isinstance(value, list | tuple | set | frozenset):
        items = list(value)  # pyright: ignore[reportUnknownArgumentType] - each item is looked at below
    else:
        items = [value]
    classes: list[type[BaseException] | str] = []
    for item in items:
        if isinstance(item, str):
            name = item.strip()
            module, colon, path = name.rpartition(":")
            if not all(part.isidentifier() for part in path.split(".") + (module.split(".") if colon else [])):
                raise ValueError(_NO_CLASS)
            if "." in path and not colon:
                raise ValueError(f"{_NO_CLASS}; {name[:80]!r} has no colon")
            if not colon:
                _need_built_in(name)
            classes.append(name)
        elif _is_exception(item):
            classes.append(item)
        else:
            raise ValueError(_NO_CLASS)
    return tuple(classes)


def _is_exception(found: object) -> TypeGuard[type[BaseException]]:
    return isinstance(found, type) and issubclass(found, BaseException)


def _need_built_in(name: str) -> None:
    if _is_exception(getattr(builtins, name, None)):
        return
    from difflib import get_close_matches

    known = [each for each, found in vars(builtins).items() if _is_exception(found)]
    close = get_close_matches(name[:80], known, 1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{_NO_CLASS}; there is no built-in exception {name[:80]!r}{meant}")


def resolve(setting: str, kinds: Iterable[type[BaseException] | str]) -> tuple[type[BaseException], ...]:
    """Replace ``module:Class`` names by the exception classes that they mean; their modules are imported.

    :raises ValueError: there is no such class; the message names the setting.
    """
    return tuple(kind if isinstance(kind, type) else _imported(setting, kind) for kind in kinds)


def _imported(setting: str, name: str) -> type[BaseException]:
    from importlib import import_module

    module, _, path = name.rpartition(":")
    try:
        found: Any = import_module(module or "builtins")
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{setting}: there is no {name[:80]!r}: {why[:200]}") from error
    if _is_exception(found):
        return found
    raise ValueError(f"{setting}: {name[:80]!r} is no exception class")


def portable(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the arguments given in code as JSON can hold them, to be stored with the record.

    Classes become ``module:Class`` names; `failure_if` is code and is left out, as is what has no JSON form.
    """
    kept: dict[str, object] = {}
    for name, value in arguments.items():
        if name in {"failure_on", "ignore"}:
            kept[name] = [class_name(kind) for kind in exception_classes(value)]
        elif (
            value is None
            or isinstance(value, bool | int | str)
            or (isinstance(value, float) and -FOREVER < value < FOREVER)
        ):
            kept[name] = value
    return kept


_DURATIONS = frozenset(
    {"failure_max_age", "permit_timeout", "reset_timeout", "reset_timeout_max", "slow_call_duration", "window_duration"}
)


def checked(values: Mapping[str, object]) -> dict[str, Any]:
    """Return settings as the settings model would, without it, where it would leave them nearly as they are.

    :raises ValueError: it would not, or that is not certain.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None and name != "half_open_max_calls":
            raise ValueError(f"{name} is none")
        number = _seconds(value) if name in _DURATIONS and isinstance(value, str) else value
        if type(number) is int and name in BOUNDS and name not in _WHOLE:
            number = float(number)
        found[name] = number
    return found


def _seconds(text: str) -> float:
    from resilience.durations import parse_duration

    return parse_duration(text)
