"""For tests of programs that use guards: a runtime of its own, a breaker that is open, what was announced."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from resilience.markers import hookimpl
from resilience.runtime import Runtime
from resilience.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from resilience.events import Event, Transition


class Forced(Protocol):
    """What can be forced open: a `CircuitBreaker`, or the guard of another policy with the same controls."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def force_open(self, seconds: float | None = None, reason: str = "") -> None:
        """Reject all calls."""
        ...

    def reset(self, reason: str = "") -> None:
        """Begin anew."""
        ...


G = TypeVar("G", bound=Forced)


class Recorder:
    """An observer that remembers what it was told: ``Runtime(observers=[recorder])``."""

    def __init__(self) -> None:
        self.transitions: list[Transition] = []
        self.events: list[Event] = []

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        """Remember a change of state."""
        self.transitions.append(transition)

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        """Remember anything else."""
        self.events.append(event)

    def path(self, name: str) -> list[str]:
        """List the states that a guard went through, the first one included; nothing if it never changed."""
        moves = [transition for transition in self.transitions if transition.key.name == name]
        return [moves[0].old, *(transition.new for transition in moves)] if moves else []

    def told(self, name: str) -> list[str]:
        """List the names of the events of a guard."""
        return [event.name for event in self.events if event.key is not None and event.key.name == name]

    def assert_path(self, name: str, *states: str) -> None:
        """Assert that a guard went through exactly these states: ``assert_path("payments", "closed", "open")``.

        :raises AssertionError: it did not; the message has what it did, and why.
        """
        path = self.path(name)
        if path != list(states):
            reasons = "".join(
                f"\n  {transition.old} -> {transition.new}: {transition.reason}"
                for transition in self.transitions
                if transition.key.name == name
            )
            seen = " -> ".join(path) or "no change"
            raise AssertionError(f"{name}: expected {' -> '.join(states) or 'no change'}, seen {seen}{reasons}")

    def clear(self) -> None:
        """Forget everything."""
        self.transitions.clear()
        self.events.clear()


class Clean(NamedTuple):
    """A runtime for one test: in memory, with a clock that stands still, all that happens recorded."""

    runtime: Runtime
    clock: ManualClock
    recorder: Recorder


@contextmanager
def clean_runtime(storage: str | object = "memory:", environ: Mapping[str, str] | None = None) -> Generator[Clean]:
    """Let guards bind to a runtime that nothing outside reaches, until the block ends.

    :param storage: another storage than the memory: a URL or an object.
    :param environ: the variables that it reads; none, if left out.
    """
    clock, recorder = ManualClock(), Recorder()
    given: Mapping[str, str] = {} if environ is None else environ
    with Runtime(storage=storage, clock=clock, observers=[recorder], environ=given) as runtime:
        yield Clean(runtime, clock, recorder)


@contextmanager
def forced_open(guard: G, reason: str = "forced open by a test") -> Generator[G]:
    """Let a breaker reject all calls until the block ends; then it is closed and has counted nothing."""
    guard.force_open(reason=reason)
    try:
        yield guard
    finally:
        guard.reset("no longer forced open by a test")
