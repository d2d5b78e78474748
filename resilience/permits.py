"""The permit that a caller holds between admission and report, and the stack of those held by `with`."""

from __future__ import annotations

from _contextvars import ContextVar  # what `contextvars` offers under this name

from resilience.policy import FAILURE, NEUTRAL, SUCCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, NoReturn

    from resilience.cell import Cell, Memo
    from resilience.engine import Engine
    from resilience.policy import Outcome
    from resilience.storage import Indexed, Key


class Permit:
    """Leave to make one call, and the promise to report how it went.  Report once; further reports do nothing.

    A permit that was taken while the policy probes is a lease: it is free for others once it was reported, or at
    `expires_at` (wall-clock seconds; `None`: nobody waits for it).  `token` names the permit in other processes.
    """

    __slots__ = ("_begun", "_reported", "cell", "epoch", "expires_at", "lease")

    # In the place of what a memo has: a success of a permit always must be reported.
    quiet: ClassVar[None] = None
    view: ClassVar[Indexed] = (0,)
    tickets: ClassVar[None] = None
    until: ClassVar[float] = 0.0
    clock: ClassVar[type[float]] = float  # of which nobody asks the time

    def __init__(
        self,
        cell: Cell,
        epoch: int | None,
        lease: str | None = None,
        expires_at: float | None = None,
        *,
        accounted: bool = True,
    ) -> None:
        self.cell = cell
        self._reported = not accounted
        self.epoch = epoch
        self.lease = lease
        self.expires_at = expires_at
        timer = cell.timer
        self._begun = None if timer is None else timer()

    @property
    def token(self) -> str:
        """The permit as text: hand it to the process that reports."""
        return str(self.epoch) if self.lease is None else f"{self.epoch}.{self.lease}"

    def success(self) -> None:
        """Report that the call went well."""
        self.report(SUCCESS, None, None)

    def failure(self, error: BaseException | str | None = None, duration: float | None = None) -> None:
        """Report that the call failed.

        :param error: of which the class name is kept.
        :param duration: seconds that it took, if not since the permit was taken.
        :raises TypeError: the duration is no number; the permit is not reported.
        """
        self.report(FAILURE, error_name(error), None if duration is None else checked_duration(duration))

    def release(self) -> None:
        """Give the permit back: the call was never made, or says nothing of the dependency."""
        self.report(NEUTRAL, None, None)

    def report(self, outcome: Outcome, error: str | None, duration: float | None) -> None:
        """Tell how the call went.

        :param error: the class name of what failed.
        :param duration: seconds that it took; `None`: since the permit was taken.
        """
        engine = self._reporter(outcome)
        if engine is not None:
            engine.report(self.cell, outcome, self.epoch, self.lease, error, self._lasted(duration))

    async def areport(self, outcome: Outcome, error: str | None, duration: float | None) -> None:
        """Do what `report` does without blocking the event loop."""
        engine = self._reporter(outcome)
        if engine is not None:
            await engine.areport(self.cell, outcome, self.epoch, self.lease, error, self._lasted(duration))

    def _lasted(self, duration: float | None) -> float | None:
        timer = self.cell.timer
        if duration is None and timer is not None and self._begun is not None:
            return timer() - self._begun
        return duration

    def _reporter(self, outcome: Outcome) -> Engine | None:
        """Whom to tell; `None` if it was told, or if nobody keeps account of the call."""
        if self._reported:
            return None
        self._reported = True
        if outcome == NEUTRAL and self.lease is None and self.expires_at is None:
            return None
        return self.cell.engine

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied: a copy would be a second report."""
        raise TypeError(f"{self!r} cannot be pickled or copied; hand its token to who reports: record_success(token=…)")

    def __repr__(self) -> str:
        """Token and whether it was reported."""
        return f"<Permit {self.token}{' (reported)' if self._reported else ''}>"


def checked_duration(duration: float) -> float:
    """Return seconds that somebody measured.

    Any number will do: what is below 0, as after a clock was set back, was not slow.

    :raises TypeError: it is no number.
    """
    if not hasattr(type(duration), "__float__"):
        raise TypeError(f"a duration is a number of seconds, not {type(duration).__name__}")
    return duration


def error_name(error: BaseException | str | None) -> str | None:
    """Return the class name of an error, or what was said of it, as it is kept in a record."""
    if error is None:
        return None
    return kept_text(error) if isinstance(error, str) else class_name(type(error))


def kept_text(text: str) -> str:
    """Return what somebody said as it is kept in a record: without the secrets of a URL that it quotes."""
    if "://" not in text:
        return text
    from resilience.redaction import redact_within

    return redact_within(text)


class_name: Callable[[type], str] = type.__dict__["__name__"].__get__
"""The name of a class, read past a metaclass, which may lie or raise."""


def parse_token(token: str) -> tuple[int, str | None]:
    """Split the text of a permit into epoch and lease.

    :raises ValueError: it is no token.
    """
    if not isinstance(token, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are checked
        raise ValueError(f"a token is the text that `check --token` printed, not {type(token).__name__}")  # noqa: TRY004 - as for any other that is none
    epoch, dot, lease = token.partition(".")
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) < 19) or bool(dot) != bool(lease):
        raise ValueError(f"{token[:80]!r} is not a token that `check --token` printed")
    return int(epoch), lease or None


if TYPE_CHECKING:
    Entered = tuple[Permit | Memo, float | None]
    Held = tuple[tuple[Key, Entered], ...]

_held: ContextVar[Held] = ContextVar("resilience_permits", default=())


def push(key: Key, permit: Permit | Memo, begun: float | None) -> None:
    """Hold a permit for the body of a `with`, in this thread or task, and when that began."""
    _held.set((*_held.get(), (key, (permit, begun))))


def pop(key: Key) -> Entered | None:
    """Take back the youngest permit that this thread or task holds for a key; `None` if it holds none.

    There is none if the block is left in another context than it was entered in, as when a framework runs the two
    halves of a generator in copies of a context; its lease, if it has one, runs out.
    """
    held = _held.get()
    for index in range(len(held) - 1, -1, -1):
        if held[index][0] == key:
            _held.set(held[:index] + held[index + 1 :])
            return held[index][1]
    return None
