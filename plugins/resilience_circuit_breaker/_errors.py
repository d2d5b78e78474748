"""The rejection of a circuit breaker: the error that a caller gets, and the decision that it is made from."""

from __future__ import annotations

from resilience.errors import PolicyRejected
from resilience.policy import FOREVER, Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilience_circuit_breaker._status import CircuitState


class CircuitOpenError(PolicyRejected):
    """The breaker did not let a call through.

    `name` is the breaker's, `state` the `CircuitState` that rejected (``open``, ``half_open``, ``forced_open``),
    `retry_after` the number of seconds after which asking again makes sense (0: at once; `None`: it cannot be known),
    `last_error` the class name of the last failure, `reason` what the person said who opened it by hand, or why the
    storage could not be asked.  `None` and ``""`` where there is none.

    Made fresh for each rejection, and cheap: the message is put together when somebody reads it, and the fields have
    slots, which take half as long as a dictionary.
    """

    __slots__ = ("_state", "last_error", "name", "reason", "retry_after")

    def __init__(
        self,
        name: str,
        state: str,
        retry_after: float | None = None,
        last_error: str | None = None,
        reason: str = "",
    ) -> None:
        # Not the base's __init__: it wants the message, and a breaker that is open makes errors all day.
        self.name = name
        self._state = state
        self.retry_after = retry_after
        self.last_error = last_error
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle the fields as well, which stand in no dictionary."""
        revive, (kind, args, attributes) = super().__reduce__()
        fields = {name: getattr(self, name) for name in CircuitOpenError.__slots__}
        return revive, (kind, args, {**attributes, **fields})

    @property
    def state(self) -> CircuitState:
        """The state that rejected the call."""
        from resilience_circuit_breaker._status import CircuitState

        return CircuitState(self._state)

    def __str__(self) -> str:
        """Say what happened, to which breaker, and when to come again."""
        lets_in = self._state in {
            "closed",
            "disabled",
            "metrics_only",
        }  # and yet no call may be made: the storage is at fault
        state = "rejects calls" if lets_in else f"is {self._state.replace('_', ' ')}"
        text = f"circuit breaker {self.name!r} {state}"
        if self.reason:
            text += f" ({self.reason})"
        if self.retry_after is not None:
            after = self.retry_after
            text += f"; try again in {after:.0f} s" if after >= 100 else f"; try again in {after:.3g} s"
        if self.last_error is not None:
            text += f"; the last error was {self.last_error}"
        return text


class Rejection(Refusal):
    """The decision not to let a call in, `until` (wall-clock seconds; infinity: nobody knows)."""

    __slots__ = ("last_error", "reason", "state", "until")

    def __init__(self, state: str, until: float, last_error: str | None, reason: str) -> None:
        self.state = state
        self.until = until
        self.last_error = last_error
        self.reason = reason

    def error(self, name: str, now: float) -> CircuitOpenError:
        """Make the error that the caller gets, for the breaker `name` at wall-clock second `now`."""
        until = self.until
        retry_after = None if until == FOREVER else until - now if until > now else 0.0
        return CircuitOpenError(name, self.state, retry_after, self.last_error, self.reason)
