"""The contract between the engine and a policy.  Pure: no clock, no I/O, no lock, no randomness, no log.

A policy answers `step(state, event)` with a `Step`.  Time, random bits and outcomes arrive in the event; the same
state and the same event always give the same step, so a step may be computed on a guess, thrown away, and computed
again under the lock.

The engine stamps an event with `now` and `draw` when its answer counts, under the lock; to a policy it is frozen.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any, ClassVar, Literal, Protocol, Self

    from resilience.cli.verbs import Verb
    from resilience.errors import PolicyRejected
    from resilience.guard import Guard
    from resilience.settings import PolicySettings

    Outcome = Literal["success", "failure", "neutral"]
    OnStoreError = Literal["local", "allow", "deny", "raise"]
    Keep = Literal[0, 1, 2]

SUCCESS: Literal["success"] = "success"
FAILURE: Literal["failure"] = "failure"
NEUTRAL: Literal["neutral"] = "neutral"

KEEP: Literal[0] = 0
"""Nothing that others must know has changed: no commit."""
LATER: Literal[1] = 1
"""Others must know, but not at once: a report that is alike until `Step.until` may be gathered and committed as one."""
NOW: Literal[2] = 2
"""Commit before the decision is given."""

FOREVER = float("inf")

_blank: Callable[[type[Report]], Report] = object.__new__


class Admit:
    """A call asks to be let in.

    `now` is wall-clock seconds, `draw` 64 random bits; `anonymous`: whoever reports will have no token.
    """

    __slots__ = ("anonymous", "draw", "now")

    def __init__(self, now: float, draw: int, *, anonymous: bool = False) -> None:
        self.now = now
        self.draw = draw
        self.anonymous = anonymous


class Report:
    """A call that was let in has ended.

    `now` is the wall-clock seconds of the commit, `at` those of the end of the call (earlier, if the report had to
    wait for the lock).  `epoch` is the one the call was admitted in, `None` for the present one; `token` that of its
    lease, if it has one.  `error` is the class name of what failed.  `duration`: seconds that the call took, `None` if
    nobody measured.  `count`: so many calls that ended alike.  `draw`: 64 random bits.
    """

    __slots__ = ("at", "count", "draw", "duration", "epoch", "error", "now", "outcome", "token")

    def __init__(
        self,
        now: float,
        draw: int,
        outcome: Outcome,
        at: float,
        epoch: int | None,
        token: str | None,
        error: str | None,
        duration: float | None = None,
        count: int = 1,
    ) -> None:
        self.now = now
        self.draw = draw
        self.outcome: Outcome = outcome
        self.at = at
        self.epoch = epoch
        self.token = token
        self.error = error
        self.duration = duration
        self.count = count

    def copy(self, count: int | None = None) -> Report:
        """Make another one like it, of so many calls."""
        made = _blank(Report)  # without a call of its constructor: each row of gathered successes has one made
        made.now = self.now
        made.draw = self.draw
        made.outcome = self.outcome
        made.at = self.at
        made.epoch = self.epoch
        made.token = self.token
        made.error = self.error
        made.duration = self.duration
        made.count = self.count if count is None else count
        return made


class Rejected:
    """So many calls were rejected since this process told it last; `now` and `draw` as ever."""

    __slots__ = ("count", "draw", "now")

    def __init__(self, now: float, draw: int, count: int) -> None:
        self.now = now
        self.draw = draw
        self.count = count


class Control:
    """Somebody changes the state by hand: `verb` with its `arguments`, as the policy's guard defines them."""

    __slots__ = ("arguments", "draw", "now", "verb")

    def __init__(self, now: float, draw: int, verb: str, arguments: Mapping[str, object]) -> None:
        self.now = now
        self.draw = draw
        self.verb = verb
        self.arguments = arguments


if TYPE_CHECKING:
    PolicyEvent = Admit | Report | Rejected | Control


class Lease:
    """A permit that the record keeps account of, until `expires_at` (wall-clock seconds).

    `token` names it; `None`: it is anonymous, and whoever reports without a token reports for it.
    """

    __slots__ = ("expires_at", "token")

    def __init__(self, token: str | None, expires_at: float) -> None:
        self.token = token
        self.expires_at = expires_at


class Refusal:
    """The decision not to let a call in; a policy derives its own."""

    __slots__ = ()

    def error(self, name: str, now: float) -> PolicyRejected:
        """Make the error that the caller gets, for the guard `name` at wall-clock second `now`."""
        raise NotImplementedError


class Move:
    """A change of state, to be announced once it is committed."""

    __slots__ = ("new", "old", "reason")

    def __init__(self, old: str, new: str, reason: str) -> None:
        self.old = old
        self.new = new
        self.reason = reason


class Step:
    """What a policy answers.  Treat it as frozen.

    `state` is the state after the event; `decision` answers an `Admit`: `None` lets the call in and keeps no account
    of it, a `Lease` lets it in and does, a `Refusal` does not.  `until` says how long, with the state unchanged, the
    same event gets the same answer (valid while ``event.now <= now < until``).  `keep` says whether others must know.
    `moved` is the change of state to announce, `tells` the names and data of other events.  `asks` is a number of the
    state that grows when other processes should settle what they gathered before their own next decision.  `lets_in`
    says that an `Admit` in `state`, whenever it comes, would be answered by ``Step(state)``: the answer to the next
    call is known with that to this event.
    """

    __slots__ = ("asks", "decision", "keep", "lets_in", "moved", "state", "tells", "until")

    def __init__(
        self,
        state: State,
        decision: Lease | Refusal | None = None,
        until: float = FOREVER,
        keep: Keep = KEEP,
        moved: Move | None = None,
        tells: tuple[tuple[str, Mapping[str, object]], ...] = (),
        asks: int = 0,
        *,
        lets_in: bool = False,
    ) -> None:
        self.state = state
        self.decision = decision
        self.until = until
        self.keep = keep
        self.moved = moved
        self.tells = tells
        self.asks = asks
        self.lets_in = lets_in


if TYPE_CHECKING:

    class State(Protocol):
        """What a policy keeps.  The engine reads nothing of it but its epoch."""

        @property
        def epoch(self) -> int:
            """The number of the present state: it grows by one at each change of state and each reset."""
            ...

    class Policy(Protocol):
        """A pure state machine with its configuration; its class is what the entry point names."""

        kind: ClassVar[str]
        """The name of its entry point in the group ``resilience.policy``, and the first half of each key."""

        @staticmethod
        def settings_model() -> type[PolicySettings]:
            """Load the model of its settings."""
            ...

        @classmethod
        def from_settings(cls, settings: Any, given: Mapping[str, object] | None, /) -> Self:
            """Make the policy.

            `given` are the settings given in code, which it may store for those that have none; `None`: no code.
            """
            ...

        @staticmethod
        def guard_type() -> type[Guard]:
            """Load the guard that users hold."""
            ...

        @staticmethod
        def verbs() -> Sequence[Verb]:
            """Load its verbs on the command line."""
            ...

        @property
        def on_store_error(self) -> OnStoreError:
            """What is decided while the storage does not answer.

            Go on with a private copy (``local``), let all in (``allow``), let none in (``deny``), raise
            `StorageUnavailable` (``raise``).
            """
            ...

        def initial(self) -> State:
            """Return the state of a key that has no record."""
            ...

        def step(self, state: Any, event: PolicyEvent, /) -> Step:
            """Answer an event."""
            ...

        def encode(self, state: Any, /) -> bytes:
            """Write a state as JSON text in UTF-8."""
            ...

        def decode(self, payload: bytes, /) -> State:
            """Read a state; `ValueError` if it is damaged, `StorageIncompatible` if a newer library wrote it."""
            ...

        def expires_at(self, state: Any, /) -> float | None:
            """Wall-clock seconds after which the state means nothing any more; `None`: never."""
            ...

        def stored_settings(self, state: Any, /) -> Mapping[str, object] | None:
            """Return the settings that code stored with the state; `None` if none did."""
            ...

        def refuse(self, state: Any, reason: str, /) -> Refusal:
            """Refuse for a reason that lies outside the state: the storage does not answer, the lock is taken."""
            ...

        @property
        def gather(self) -> float:
            """Seconds for which a process may gather reports that are kept ``LATER``; 0: it commits each."""
            ...

        def gather_limit(self, state: Any, now: float, /) -> int:
            """So many reports a process gathers at most upon a state, at wall-clock second `now`: 1 or more.

            Others do not know of them, so they should be few beside what the state was counted from.
            """
            ...

        @property
        def slow_after(self) -> float:
            """Seconds; a call that took longer is not like others.  Infinity: durations need not be measured."""
            ...

        def judge_error(self, error: BaseException, duration: float | None = None, /) -> Outcome:
            """Say what an exception that left the protected call means; `duration` in seconds, if it was measured."""
            ...

        def judge_result(self, result: object, /) -> Outcome:
            """Say what a returned value means."""
            ...

        @property
        def limited_events(self) -> Collection[str]:
            """Names of the events that callers can bring about as often as they like.

            Of one of these and one key, observers are told once a second.
            """
            ...

        @property
        def judges_results(self) -> bool:
            """Whether `judge_result` can say anything but success.

            Where a reload of the configuration begins to, a call that is under way may still be taken for a success.
            """
            ...
