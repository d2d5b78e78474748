"""What a person or a program sees of a circuit breaker."""

from __future__ import annotations

from enum import StrEnum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class CircuitState(StrEnum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    """Lets all calls through and counts failures."""
    OPEN = "open"
    """Rejects all calls until its time is up."""
    HALF_OPEN = "half_open"
    """Lets some calls through as probes, and closes or opens by what they report."""
    FORCED_OPEN = "forced_open"
    """Rejects all calls, by hand."""
    DISABLED = "disabled"
    """Lets all calls through and counts nothing, by hand."""
    METRICS_ONLY = "metrics_only"
    """Lets all calls through, counts, and tells when it would have opened, by hand: a dry run."""


class CircuitStatus:
    """A circuit breaker at one instant.  Frozen; equal to another with the same fields.

    `name`
        of the breaker; ``""`` for a status that was made by hand.
    `state`
        a `CircuitState`.  After the time-out still ``open``, with a `retry_after` of 0, until a call comes: reading
        changes nothing.
    `failure_count`
        with a window of calls or of time, the failures in it; else those in a row, as stored: an old streak is shown
        until the next failure starts anew.  After opening it stays as it was until the breaker closes, as do the
        others that are counted.
    `success_count`
        successes in the window; `None` without a window of calls or of time.
    `slow_count`
        calls in the window that took too long; 0 where slow calls are not judged.
    `failure_rate`, `slow_call_rate`
        shares of all calls in the window; `None` without one, and before `minimum_calls` stand in it.
    `last_failure_time`
        wall-clock seconds of the last failure that was counted since the breaker closed; `None`: there was none.
    `last_error`
        class name of that failure, if it had one.
    `opened_at`
        wall-clock seconds at which it opened last, `None` while it is closed, disabled or only watching.
    `retry_after`
        seconds after which asking again makes sense: 0 where a call would be let in, `None` where it cannot be known.
    `half_open_successes`, `half_open_failures`
        what the probes of the last half-open phase reported.
    `permits_in_use`
        probes in flight.
    `late_count`
        reports that came after the state they belong to.
    `rejected_count`
        calls that were rejected since it opened last from a state that lets calls in; it stays after it closes, and
        begins anew with the next outage.  Gathered: up to a second behind.
    `reason`
        what was said by the person who put it into this state; ``""`` if nobody did.
    `version`
        of the record, as text; `None`: nothing is stored.
    `degraded`
        whether the storage does not answer at present.
    """

    __slots__ = (  # noqa: RUF023 - the order of arguments
        "state",
        "failure_count",
        "last_failure_time",
        "half_open_successes",
        "name",
        "last_error",
        "opened_at",
        "retry_after",
        "half_open_failures",
        "permits_in_use",
        "late_count",
        "reason",
        "version",
        "degraded",
        "success_count",
        "slow_count",
        "failure_rate",
        "slow_call_rate",
        "rejected_count",
    )

    def __init__(
        self,
        state: CircuitState | str = CircuitState.CLOSED,
        failure_count: int = 0,
        last_failure_time: float | None = None,
        half_open_successes: int = 0,
        *,
        name: str = "",
        last_error: str | None = None,
        opened_at: float | None = None,
        retry_after: float | None = 0.0,
        half_open_failures: int = 0,
        permits_in_use: int = 0,
        late_count: int = 0,
        reason: str = "",
        version: str | None = None,
        degraded: bool = False,
        success_count: int | None = None,
        slow_count: int = 0,
        failure_rate: float | None = None,
        slow_call_rate: float | None = None,
        rejected_count: int = 0,
    ) -> None:
        _set(self, "state", CircuitState(state))
        _set(self, "failure_count", failure_count)
        _set(self, "last_failure_time", last_failure_time)
        _set(self, "half_open_successes", half_open_successes)
        _set(self, "name", name)
        _set(self, "last_error", last_error)
        _set(self, "opened_at", opened_at)
        _set(self, "retry_after", retry_after)
        _set(self, "half_open_failures", half_open_failures)
        _set(self, "permits_in_use", permits_in_use)
        _set(self, "late_count", late_count)
        _set(self, "reason", reason)
        _set(self, "version", version)
        _set(self, "degraded", degraded)
        _set(self, "success_count", success_count)
        _set(self, "slow_count", slow_count)
        _set(self, "failure_rate", failure_rate)
        _set(self, "slow_call_rate", slow_call_rate)
        _set(self, "rejected_count", rejected_count)

    state: CircuitState
    failure_count: int
    last_failure_time: float | None
    half_open_successes: int
    name: str
    last_error: str | None
    opened_at: float | None
    retry_after: float | None
    half_open_failures: int
    permits_in_use: int
    late_count: int
    reason: str
    version: str | None
    degraded: bool
    success_count: int | None
    slow_count: int
    failure_rate: float | None
    slow_call_rate: float | None
    rejected_count: int

    @classmethod
    def default(cls) -> Self:
        """Return the status of a breaker that nothing has happened to: closed, no failures."""
        return cls()

    def to_dict(self) -> dict[str, str | int | float | bool | None]:
        """All fields as plain values that JSON can hold."""
        return {name: str(value) if name == "state" else value for name, value in self._items()}

    def _items(self) -> list[tuple[str, str | int | float | bool | None]]:
        return [(name, getattr(self, name)) for name in self.__slots__]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("CircuitStatus is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("CircuitStatus is frozen")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._items() == other._items()

    def __hash__(self) -> int:
        return hash(tuple(self._items()))

    def __repr__(self) -> str:
        return f"CircuitStatus({', '.join(f'{name}={value!r}' for name, value in self._items())})"

    def __reduce__(self) -> tuple[object, ...]:
        return _revive, (self.to_dict(),)


_set = object.__setattr__


def _revive(fields: dict[str, object]) -> CircuitStatus:
    return CircuitStatus(**fields)  # type: ignore[arg-type]  # written by `to_dict`
