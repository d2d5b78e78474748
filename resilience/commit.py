"""Lock, load, step, save, and again on a conflict: written once, as a generator of requests to a storage.

A request is ``(ports, hook, arguments)``; whoever drives the generator makes the call and sends the answer in, or
throws in what the call raised.  `drive` does it with plain calls, `adrive` with awaitable ones.
"""

from __future__ import annotations

from contextlib import suppress

from resilience.errors import (
    PluginError,
    ResilienceError,
    StorageConflict,
    StorageCorrupt,
    StorageError,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.storage import Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence
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
    """What a commit did.

    `step` is its last step, `moves` the changes of state with the epochs that began with them, `tells` the names and
    data of other events, `resets` those of damaged records that were set aside, `now` the wall-clock second that it
    used, `version` the one that is committed now.
    """

    __slots__ = ("is_saving", "moves", "now", "resets", "step", "tells", "version")

    step: Step

    def __init__(self) -> None:
        self.moves: tuple[tuple[Move, int], ...] = ()
        self.tells: tuple[tuple[str, Mapping[str, object]], ...] = ()
        self.resets: tuple[tuple[str, Mapping[str, object]], ...] = ()
        self.now = 0.0
        self.is_saving = False
        self.version: Version | None = None


def commit(  # noqa: C901 - each way out of the lock says whether it was saved
    cell: Cell,
    events: Sequence[PolicyEvent],
    done: Committed,
    clock: Clock,
    deadline: float,
    *,
    patient: bool,
    force: bool = False,
) -> Requests[None]:
    """Answer what is owed and the events in one commit; they are stamped with the time read under the lock.

    :param deadline: monotonic seconds at which to give up.
    :param patient: whether to wait for the lock; else it is tried once.
    :param force: save even if nothing changed.
    :raises StorageError: as the hooks raise it; `StorageUnavailable` if conflicts did not end before the deadline.
    """
    owed = cell.owed.take() if cell.owed else ()
    try:
        while True:
            lock = yield cell.ports, "lock", (cell.key, _left(deadline, clock.monotonic()) if patient else 0.0)
            if lock is None:
                raise PluginError(f"storage {cell.ports.name}: its lock returned None, not a context manager")
            is_done = False
            refused: ValueError | None = None
            try:
                with lock:
                    try:
                        is_done = yield from _under_the_lock(cell, (*owed, *events), done, clock, deadline, force=force)
                    except ValueError as error:  # of the policy, for a control that makes no sense
                        refused = error
                        raise
            except ResilienceError:
                raise
            except Exception as error:
                if error is refused:
                    raise
                named = _named(error, cell.ports, "lock")
                named.outcome_unknown = is_done  # then it was leaving that failed, not entering
                raise named from error
            cell.lock_timeouts = 0
            if is_done:
                return
            if clock.monotonic() >= deadline:
                raise StorageLockTimeout(f"{cell.key}: others committed first until the time was up", key=cell.key)
    except BaseException as error:
        unknown = done.is_saving if not isinstance(error, StorageError) else getattr(error, "outcome_unknown", False)
        if owed and not unknown:
            cell.owe(*owed)
        raise


def _under_the_lock(
    cell: Cell, events: Iterable[PolicyEvent], done: Committed, clock: Clock, deadline: float, *, force: bool
) -> Requests[bool]:
    """Load unless current, step, save; false if somebody without the lock committed first."""
    key, ports, policy = cell.key, cell.ports, cell.policy
    view = cell.view
    if view is None or not view.is_current():
        view = yield from _refresh(cell, done, clock, deadline)
    state, expected = view.state, view.snapshot.version
    done.version = expected
    done.now = now = clock.wall()
    done.moves = done.tells = ()
    keep = force
    for event in events:
        event.now = now
        event.draw = clock.draw()
        done.step = step = policy.step(state, event)
        state = step.state
        if step.keep:
            keep = True
        if step.moved is not None:
            done.moves = (*done.moves, (step.moved, state.epoch))
        if step.tells:
            done.tells = (*done.tells, *step.tells)
    if not keep:
        return True
    payload, expires_at = policy.encode(state), policy.expires_at(state)
    monotonic = clock.monotonic()
    done.is_saving = True  # until it is known that nothing was saved
    try:
        saved = yield ports, "save", (key, payload, expected, expires_at, _left(deadline, monotonic))
    except StorageConflict as conflict:
        done.is_saving = False
        cell.view = None
        if conflict.current is not None:
            with suppress(ValueError):  # if it is damaged, the next turn finds out under the lock
                cell.adopt(conflict.current, monotonic)
        return False
    if not isinstance(saved, Snapshot):
        raise PluginError(f"storage {ports.name}: save of {key} returned {type(saved).__name__}, not a Snapshot")
    done.version = saved.version
    cell.committed(saved, state, monotonic)
    return True


def _refresh(cell: Cell, done: Committed, clock: Clock, deadline: float) -> Requests[View]:
    """With the lock held: take over what is committed; set aside what is damaged beyond reading."""
    key, ports = cell.key, cell.ports
    monotonic = clock.monotonic()
    try:
        return cell.adopt((yield ports, "load", (key, _left(deadline, monotonic))), monotonic)
    except (StorageCorrupt, ValueError) as damage:
        yield ports, "discard", (key, str(damage), _left(deadline, clock.monotonic()))
        empty = yield ports, "load", (key, _left(deadline, clock.monotonic()))
        cell.view = None
        try:
            view = cell.adopt(empty, clock.monotonic())
        except ValueError as error:
            raise StorageUnavailable(f"{key} was set aside and is damaged all the same: {error}", key=key) from error
        done.resets = (*done.resets, ("state_reset", {"error": str(damage)}))
        return view


def _left(deadline: float, now: float) -> float:
    """Seconds that are left, for a hook."""
    return deadline - now if deadline > now else 0.0


def _named(error: Exception, ports: Ports, hook: str) -> StorageUnavailable:
    """Name the plugin that raised anything but our errors: it is treated as a storage that does not answer."""
    return StorageUnavailable(
        f"storage {ports.name}: its {hook} raised {type(error).__name__}: {error}", outcome_unknown=hook == "save"
    )


def drive(requests: Requests[T]) -> T:
    """Serve the requests with plain calls."""
    try:
        request = next(requests)
        while True:
            ports, hook, arguments = request
            try:
                answer = getattr(ports, hook)(*arguments)
            except ResilienceError as error:
                request = requests.throw(error)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                named = _named(error, ports, hook)
                named.__cause__ = error
                request = requests.throw(named)
            else:
                request = requests.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        requests.close()  # frees the lock at once, also while the traceback of a Ctrl-C keeps this frame alive


async def adrive(requests: Requests[T]) -> T:
    """Serve the requests, awaiting those for which the storage has an awaitable hook."""
    try:
        request = next(requests)
        while True:
            ports, hook, arguments = request
            try:
                awaitable = getattr(ports, "a" + hook, None)
                answer = getattr(ports, hook)(*arguments) if awaitable is None else await awaitable(*arguments)
            except ResilienceError as error:
                request = requests.throw(error)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                named = _named(error, ports, hook)
                named.__cause__ = error
                request = requests.throw(named)
            else:
                request = requests.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    finally:
        requests.close()
