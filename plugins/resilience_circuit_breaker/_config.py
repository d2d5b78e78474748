"""What a circuit breaker is configured with, resolved and checked: the plain object that the state machine reads.

Knows no pydantic: `CircuitBreakerSettings` reads variables and arguments and builds one of these; the bounds and the
contradictions stand here, once.
"""

from __future__ import annotations

from resilience.policy import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from resilience.policy import OnStoreError

_DAY = 86400.0

BOUNDS: dict[str, tuple[float, float]] = {
    "failure_threshold": (1, 1_000_000),
    "failure_max_age": (0.001, 365 * _DAY),
    "reset_timeout": (0.0, 30 * _DAY),
    "reset_timeout_backoff": (1.0, 100.0),
    "reset_timeout_max": (0.0, 365 * _DAY),
    "reset_timeout_jitter": (0.0, 1.0),
    "half_open_max_calls": (1, 1000),
    "half_open_success_threshold": (1, 1_000_000),
    "half_open_failure_threshold": (1, 1_000_000),
    "permit_timeout": (0.001, 365 * _DAY),
}
"""The least and the greatest value of each number, both allowed."""

MODES = ("local", "allow", "deny", "raise")
"""What `on_store_error` may be."""

_WHOLE = ("failure_threshold", "half_open_max_calls", "half_open_success_threshold", "half_open_failure_threshold")

LEAST_RESET_TIMEOUT_MAX = 600.0
"""`reset_timeout_max` is the longer of these seconds and `reset_timeout`, unless it is set."""

LEAST_PERMIT_TIMEOUT = 60.0
"""`permit_timeout` is the longer of these seconds and `reset_timeout`, unless it is set."""


class CircuitBreakerConfig:
    """The configuration of a circuit breaker.  Treat it as frozen.

    The arguments have the names, units and defaults of `CircuitBreakerSettings`.  `reset_timeout_max` and
    `permit_timeout` of `None` mean their defaults, which depend on `reset_timeout`.  A ``module:Class`` name in
    `failure_on` or `ignore` is imported when an exception is judged first, and means nothing if it cannot be.
    `given` holds the settings given in code as JSON can hold them (see `portable`), to be stored with the record;
    `None`: there is no code, so what is stored stays.

    :raises ValueError: a value lies outside its bounds or contradicts another; the message names field and fix.
    """

    __slots__ = (
        "failure_if",
        "failure_max_age",
        "failure_on",
        "failure_threshold",
        "given",
        "half_open_failure_threshold",
        "half_open_max_calls",
        "half_open_success_threshold",
        "ignore",
        "on_store_error",
        "permit_timeout",
        "reset_timeout",
        "reset_timeout_backoff",
        "reset_timeout_jitter",
        "reset_timeout_max",
    )

    def __init__(
        self,
        *,
        failure_threshold: int = 3,
        failure_max_age: float = 3600.0,
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
        on_store_error: OnStoreError = "local",
        given: Mapping[str, object] | None = None,
    ) -> None:
        # Before the defaults that are made of it.
        _check_number("reset_timeout", reset_timeout)
        self.failure_threshold = failure_threshold
        self.failure_max_age = failure_max_age
        self.reset_timeout = reset_timeout
        self.reset_timeout_backoff = reset_timeout_backoff
        self.reset_timeout_max = (
            max(LEAST_RESET_TIMEOUT_MAX, reset_timeout) if reset_timeout_max is None else reset_timeout_max
        )
        self.reset_timeout_jitter = reset_timeout_jitter
        self.half_open_max_calls = half_open_max_calls
        self.half_open_success_threshold = half_open_success_threshold
        self.half_open_failure_threshold = half_open_failure_threshold
        self.permit_timeout = max(LEAST_PERMIT_TIMEOUT, reset_timeout) if permit_timeout is None else permit_timeout
        self.failure_on = exception_classes(failure_on)
        self.ignore = exception_classes(ignore)
        self.failure_if = failure_if
        self.on_store_error: OnStoreError = on_store_error
        self.given: dict[str, object] | None = None if given is None else dict(given)
        for name in BOUNDS:
            value = getattr(self, name)
            if value is not None:
                _check_number(name, value)
        if failure_if is not None and not callable(failure_if):
            raise ValueError(f"failure_if is called with each returned value, so it is no {type(failure_if).__name__}")
        if on_store_error not in MODES:
            raise ValueError(f"on_store_error is one of {', '.join(MODES)}")
        check_contradictions(self.reset_timeout, self.reset_timeout_max, self.failure_on, self.ignore)


def _check_number(name: str, value: float) -> None:
    least, most = BOUNDS[name]
    whole = name in _WHOLE
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not least <= value <= most:
        raise ValueError(f"{name} is a {'whole ' if whole else ''}number from {least:.15g} to {most:.15g}")


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

    A text may hold several names with commas between.  A name without a module means a built-in class.  Names are
    checked for their form only, see `resolve`.

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
            classes.append(name)
        elif isinstance(item, type) and issubclass(item, BaseException):
            classes.append(item)
        else:
            raise ValueError(_NO_CLASS)  # noqa: TRY004 - pydantic makes a message of a ValueError only
    return tuple(classes)


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
        raise ValueError(f"{setting}: there is no {name!r}: {type(error).__name__}: {error}") from error
    if isinstance(found, type) and issubclass(found, BaseException):
        return found
    raise ValueError(f"{setting}: {name!r} is no exception class")


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
