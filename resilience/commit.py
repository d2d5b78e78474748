"""Lock, load, step, save, and again on a conflict: written once, as a generator of requests to a storage.

A request is ``(ports, hook, arguments)``; whoever drives the generator makes the call and sends the answer in, or
throws in what the call raised.  `drive` does it with plain calls, `adrive` with awaitable ones.
"""

from __future__ import annotations

from resilience.errors import (
    PluginError,
    ResilienceError,
    StorageConflict,
    StorageCorrupt,
    StorageUnavailable,
)
from resilience.storage import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from typing import Any, TypeVar

    from resilience.cell import Cell, View
    from resilience.clock import Clock
    from resilience.policy import Move, PolicyEvent, Step
    from resilience.ports import Ports
    from resilience.storage import Version

    Request = tuple[Ports, str, tuple[object, ...]]
    T = TypeVar("T")
    Requests = Generator[Request, Any, T]


class Committed:
    """What a commit did: its last step, what is to be announced, at which wall-clock second, as which version."""

    __slots__ = ("moves", "now", "step", "tells", "version")

    def __init__(
        self,
        step: Step,
        moves: list[tuple[Move, int]],
        tells: list[tuple[str, Mapping[str, object]]],
        now: float,
        version: Version | None,
    ) -> None:
        self.step = step
        self.moves = moves
        self.tells = tells
        self.now = now
        self.version = version


def commit(
    cell: Cell,
    events: Callable[[float], Iterable[PolicyEvent]],
    clock: Clock,
    deadline: float,
    *,
    patient: bool,
    force: bool = False,
) -> Requests[Committed]:
    """Answer the events in one commit; they are made with the wall-clock second read under the lock.

    :param deadline: monotonic seconds at which to give up.
    :param patient: whether to wait for the lock; else it is tried once.
    :param force: save even if nothing changed.
    :raises StorageError: as the hooks raise it; `StorageUnavailable` if conflicts did not end before the deadline.
    """
    key, ports, policy = cell.key, cell.ports, cell.policy
    tells: list[tuple[str, Mapping[str, object]]] = []
    known: Snapshot | None = None
    while True:
        lock = yield ports, "lock", (key, max(0.0, deadline - clock.monotonic()) if patient else 0.0)
        if lock is None:
            raise PluginError(f"storage {ports.name}: lock of {key} returned None, not a context manager")
        with lock:
            view = cell.view
            if known is not None or view is None or not view.is_current():
                view = yield from _refresh(cell, known, tells, clock, deadline)
            state, expected = view.state, view.snapshot.version
            now = clock.wall()
            keep = force
            moves: list[tuple[Move, int]] = []
            told = list(tells)
            for event in events(now):
                step = policy.step(state, event)
                state = step.state
                if step.keep:
                    keep = True
                if step.moved is not None:
                    moves.append((step.moved, state.epoch))
                told.extend(step.tells)
            if not keep:
                return Committed(step, moves, told, now, expected)
            arguments = (
                key,
                policy.encode(state),
                expected,
                policy.expires_at(state),
                max(0.0, deadline - clock.monotonic()),
            )
            try:
                saved = yield ports, "save", arguments
            except StorageConflict as conflict:
                known = conflict.current
                cell.view = None
                error: StorageConflict = conflict
            else:
                if not isinstance(saved, Snapshot):
                    what = type(saved).__name__
                    raise PluginError(f"storage {ports.name}: save of {key} returned {what}, not a Snapshot")
                cell.committed(saved, state, clock.monotonic())
                return Committed(step, moves, told, now, saved.version)
        if clock.monotonic() >= deadline:
            raise StorageUnavailable(f"{key}: others committed first until the time was up", key=key) from error


def _refresh(
    cell: Cell,
    known: Snapshot | None,
    tells: list[tuple[str, Mapping[str, object]]],
    clock: Clock,
    deadline: float,
) -> Requests[View]:
    """With the lock held: take over what is committed; set aside what is damaged beyond reading."""
    key, ports = cell.key, cell.ports
    try:
        if known is None:
            known = yield ports, "load", (key, max(0.0, deadline - clock.monotonic()))
        return cell.adopt(known, clock.monotonic())
    except (StorageCorrupt, ValueError) as damage:
        yield ports, "discard", (key, str(damage), max(0.0, deadline - clock.monotonic()))
        tells.append(("state_reset", {"error": str(damage)}))
        empty = yield ports, "load", (key, max(0.0, deadline - clock.monotonic()))
        cell.view = None
        return cell.adopt(empty, clock.monotonic())


def _named(error: Exception, request: Request) -> ResilienceError:
    """Name the plugin if it raised anything but our errors: it is treated as a storage that does not answer."""
    if isinstance(error, ResilienceError):
        return error
    ports, hook, _ = request
    named = StorageUnavailable(f"storage {ports.name}: its {hook} raised {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def drive(requests: Requests[T]) -> T:
    """Serve the requests with plain calls."""
    try:
        request = next(requests)
        while True:
            try:
                ports, hook, arguments = request
                answer = getattr(ports, hook)(*arguments)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                request = requests.throw(_named(error, request))
            else:
                request = requests.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def adrive(requests: Requests[T]) -> T:
    """Serve the requests, awaiting those for which the storage has an awaitable hook."""
    try:
        request = next(requests)
        while True:
            try:
                ports, hook, arguments = request
                awaitable = getattr(ports, "a" + hook, None)
                answer = getattr(ports, hook)(*arguments) if awaitable is None else await awaitable(*arguments)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                request = requests.throw(_named(error, request))
            else:
                request = requests.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
