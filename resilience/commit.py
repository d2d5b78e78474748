"""Lock, load, step, save, and again on a conflict: written once, as a generator of requests to a storage.

A request is a hook of the cell's ports and its arguments; whoever drives the generator makes the call and sends the
answer in, or throws in what the call raised.  `drive` and `perform` do it with plain calls, `adrive` with awaitable
ones.  `sleep` and `wait` are asked for like hooks, where others commit the same record: other processes (see
`resilience.contention`), or other threads and tasks of this one (see `resilience.lane`).
"""

from __future__ import annotations

from resilience.clock import sleep
from resilience.contention import PATIENCE, Contention
from resilience.errors import (
    PluginError,
    ResilienceError,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.policy import Control, Report
from resilience.storage import Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from typing import Any, TypeVar

    from resilience.announce import Announcer
    from resilience.cell import Cell, View
    from resilience.lane import Lane, Ride
    from resilience.policy import Move, PolicyEvent, State, Step
    from resilience.ports import Ports
    from resilience.sharedclock import SharedClock
    from resilience.storage import Version

    Request = tuple[Callable[..., object], tuple[object, ...]]
    T = TypeVar("T")
    Requests = Generator[Request, Any, T]
    Tell = tuple[str, Mapping[str, object]]


IN_A_ROW = 1e-3
"""Seconds; who committed so short a time ago commits one after the other, and mostly nobody else in between."""


class Outrun(StorageLockTimeout):
    """Others committed first until the deadline: there was no lock to wait for, and there is no time to."""


class Committed:
    """What a commit did.

    `step` is its last step, `state` the one to save, `now` the wall-clock second that it used, `version` the one that
    it saved as.
    `moves` are the changes of state, with the epochs that began with them, `tells` the names and data of other events,
    `resets` those of records that were set aside, or are older than before.  `is_unknown`: it may have been saved, or
    not.  `joined` are those of other threads or tasks that it takes along.
    """

    # Defaults stand in the class: hardly a commit has more to say, and to set them each time takes 0.1 µs.
    step: Step | None = None
    moves: Sequence[tuple[Move, int]] = ()
    tells: Sequence[Tell] = ()
    resets: Sequence[Tell] = ()
    joined: Sequence[Ride] = ()
    is_unknown = False
    version: Version | None = None
    state: State
    now: float


def commit(  # noqa: C901, PLR0912, PLR0915 - one road, each way out of which says whether it was saved
    cell: Cell,
    events: Sequence[PolicyEvent],
    announcer: Announcer,
    clock: SharedClock,
    deadline: float,
    *,
    patient: bool,
    force: bool = False,
    now: float | None = None,
) -> Requests[Committed]:
    """Answer the events, after what is owed, in one commit, and tell the observers when the lock is free again.

    The events are stamped with the time that is read under the lock.

    :param deadline: monotonic seconds at which to give up.
    :param patient: whether to wait for the lock; else it is tried once.
    :param force: save even if nothing changed.
    :param now: monotonic second, where the caller has just read it.
    :raises StorageError: as the hooks raise it; `StorageLockTimeout` if conflicts did not end before the deadline.
    :raises ValueError: as the policy raises it, for a control that makes no sense; nothing was saved.
    """
    done = Committed()
    if cell.contention is not None:
        now = None
        if not (yield from _take_turn(cell, cell.contention, events, done, clock, deadline, patient=patient)):
            return done
        if done.joined:
            events = (*_events(done.joined), *events)
    key, ports, owed = cell.key, cell.ports, cell.owed
    taken = owed.take(clock.wall()) if owed else ()
    everything = (*taken, *events) if taken else events
    conflicts = 0
    refused: ValueError | None = None
    view = cell.view
    if now is None:
        now = clock.monotonic()
    try:
        if view is not None and now - view.loaded_at > IN_A_ROW and view.is_outdated():
            yield from _read_ahead(cell, view, done, clock, deadline)
            now = clock.monotonic()
        while True:
            try:
                lock: Any = ports.lock(key, deadline - now if patient and now < deadline else 0.0)  # never awaited
                if lock is None:
                    raise PluginError(f"storage {ports.name}: its lock returned None, not a context manager")
                with lock:
                    view = cell.view
                    if view is None or not view.is_current():
                        view = yield from _refresh(cell, events, done, clock, deadline)
                    try:
                        record = answer(cell, view, everything, taken, done, clock, force)
                    except ValueError as error:
                        refused, record = error, None
                    if record is None:
                        break
                    payload, expires_at = record
                    expected = view.snapshot.version
                    now = clock.monotonic()
                    seconds = deadline - now if now < deadline else 0.0
                    done.is_unknown = True  # until an answer says more
                    try:
                        if ports.asave is None:  # nobody would await it: not to stop here saves 0.3 µs
                            saved: object = ports.save(key, payload, expected, expires_at, seconds)
                        elif not seconds:  # no server answers in no time, and whether it was saved nobody would know
                            done.is_unknown = False
                            raise Outrun(
                                f"{key}: RESILIENCE_STORAGE_TIMEOUT was over before it could be saved", key=key
                            )
                        else:
                            saved = yield ports.save, (key, payload, expected, expires_at, seconds)
                    except StorageConflict as conflict:
                        done.is_unknown = False
                        _overtaken(cell, view, conflict, done, now)
                    except ResilienceError:
                        raise
                    except Exception as error:
                        raise name_error(error, ports, "save") from error
                    else:
                        cell.committed(saved, done, now)
                        break
            except ResilienceError:
                raise
            except Exception as error:
                named = name_error(error, ports, "lock")
                named.outcome_unknown = done.is_unknown  # then it was leaving that failed, not entering
                raise named from error
            if owed is not None:
                owed.lock_timeouts = 0
            done.moves = done.tells = ()  # the next try answers anew
            conflicts += 1
            yield from _wait(cell, conflicts, clock, deadline, patient=patient)
            if cell.lane is not None and (joined := cell.lane.join(done, cell)):
                done.joined = (*done.joined, *joined)
                events = (*_events(joined), *events)
                everything = (*taken, *events)
            now = clock.monotonic()
        if owed is not None:
            owed.lock_timeouts = 0
        if refused is not None:
            raise refused
    except BaseException as error:
        unknown = error.outcome_unknown if isinstance(error, StorageUnavailable) else done.is_unknown
        if owed is not None and taken and not unknown:
            cell.owing().give_back(taken, overdue=not patient)
        if cell.lane is not None:
            left = cell.lane.leave(done, done.joined, clock.monotonic(), error, unknown=unknown)
            if left:
                cell.owe(*left)
        if done.resets:  # a record that was set aside stays so
            done.moves = done.tells = ()
            announcer.committed(cell, done)
        raise
    if cell.contention is not None:
        now = clock.monotonic()
        cell.contention.committed(now)
        if cell.lane is not None:
            cell.lane.leave(done, done.joined, now)
    if done.moves or done.tells or done.resets:
        announcer.committed(cell, done)
    return done


def _take_turn(
    cell: Cell,
    contention: Contention,
    events: Sequence[PolicyEvent],
    done: Committed,
    clock: SharedClock,
    deadline: float,
    *,
    patient: bool,
) -> Requests[bool]:
    """Before a commit: wait for others of this process, and for those who were met, where this one had its turn.

    :return: whether it is still to be done; else another one has taken it along.
    :raises Outrun: it was not its turn in time.
    """
    lane, now = cell.lane, clock.monotonic()
    if lane is not None and (ride := lane.enter(done, cell, events, now, deadline)) is not None:
        if not (yield from _ride(cell, lane, ride, clock, patient=patient)):
            return False
        now = clock.monotonic()
    if contention.is_over(now):
        cell.contention = None
        return True
    try:
        pause = contention.gives_way(now, clock.draw())
        if pause:
            yield from _pause(cell, contention, pause, clock, deadline, patient=patient)
    except BaseException as error:
        if lane is not None:
            lane.leave(done, (), clock.monotonic(), error)
        raise
    if lane is not None:
        done.joined = lane.join(done, cell)
    return True


def _ride(cell: Cell, lane: Lane, ride: Ride, clock: SharedClock, *, patient: bool) -> Requests[bool]:
    """Wait until a commit that found another one under way leads or was served.

    :return: whether it is still to be done.
    :raises Outrun: neither came in time.
    :raises ResilienceError: whoever took it along failed.
    """
    from resilience.lane import ABOARD, LEADS, SERVED, WAITS, wait  # where there is a lock, nobody needs it

    try:
        if not patient and cell.ports.asave is None:
            lane.stray(ride)  # this is the thread of an event loop, and nothing is awaited
        while lane.ask(ride, now := clock.monotonic()):
            yield wait, (ride, lane.patience(ride, now))
    except BaseException as error:
        if lane.stop(ride) == LEADS:
            lane.leave(ride.owner, (), clock.monotonic(), error)
        raise
    state = lane.stop(ride)
    if ride.error is not None:
        from copy import copy  # each raises his own

        raise copy(ride.error) from ride.error
    if state == WAITS:
        raise Outrun(f"{cell.key}: others of this process committed until the time was up", key=cell.key)
    return state not in {ABOARD, SERVED}


def _events(rides: Iterable[Ride]) -> list[PolicyEvent]:
    return [event for ride in rides for event in ride.events]


def _wait(cell: Cell, times: int, clock: SharedClock, deadline: float, *, patient: bool) -> Requests[None]:
    """After a conflict: wait until the next try.

    :param times: how many there were in a row.
    :raises Outrun: there is no time for another try.
    """
    now = clock.monotonic()
    contention = cell.contention
    if contention is None:
        contention = cell.contention = Contention(now)
    if now + contention.takes >= deadline:
        raise Outrun(f"{cell.key}: others committed first until the time was up", key=cell.key)
    pause = contention.met(now, times, clock.draw())
    if pause:
        yield from _pause(cell, contention, pause, clock, deadline, patient=patient)


def _pause(
    cell: Cell, contention: Contention, pause: float, clock: SharedClock, deadline: float, *, patient: bool
) -> Requests[None]:
    """Let others go first; where their commits are heard of, until no more are."""
    begun = now = clock.monotonic()
    view = cell.view
    word = None if view is None else view.snapshot.is_current
    if not isinstance(word, Word) or word.look is None:
        yield from _sleep(cell.ports, pause, deadline - now, patient=patient)
        return
    until = min(begun + PATIENCE, (begun + deadline) / 2)
    while now < until:
        heard = word.view[-1]
        yield from _sleep(cell.ports, pause, 2 * (until - now), patient=patient)
        word.look()
        if word.view[-1] == heard:
            break
        now = clock.monotonic()
        pause = contention.listens(now, now - begun, clock.draw())
    contention.listened(clock.monotonic() - begun)


def _sleep(ports: Ports, seconds: float, left: float, *, patient: bool) -> Requests[None]:
    """Ask for a pause, of half the time that is left at most: then there is some for a try."""
    if ports.asave is None and not patient:
        return  # this is the thread of an event loop, and nothing is awaited
    yield sleep, (max(0.0, min(seconds, left / 2)),)


def load(cell: Cell, clock: SharedClock, deadline: float) -> Requests[View]:
    """Load the record, and take it over.

    :raises StorageError: as the hook and `Cell.adopt` raise it.
    :raises ValueError: the record is damaged.
    """
    now = clock.monotonic()
    return cell.adopt((yield cell.ports.load, (cell.key, _left(deadline, now))), now)


def _read_ahead(cell: Cell, before: View, done: Committed, clock: SharedClock, deadline: float) -> Requests[None]:
    """Take over what others committed before the lock is taken: to read and decode it is half of what is done under it.

    What is damaged is met again under the lock, and seen to there.
    """
    try:
        view = yield from load(cell, clock, deadline)
    except (StorageCorrupt, ValueError):
        return
    _compare(before, view, done)


def answer(
    cell: Cell,
    view: View,
    events: Iterable[PolicyEvent],
    taken: Sequence[PolicyEvent],
    done: Committed,
    clock: SharedClock,
    force: bool,  # noqa: FBT001 - as `commit` has it
) -> tuple[bytes, float | None] | None:
    """Answer events one after the other: what to save of the state after them, or `None` if nothing need be saved.

    One of those that were owed (`taken`), or of others, that the policy cannot answer is given up: each commit would
    meet it again.

    :raises ValueError: a control makes no sense.
    :raises StorageUnavailable: the policy raised anything else, at an event that the commit is for or at the state.
    """
    policy, state = cell.policy, view.state
    done.now = now = clock.wall()
    keep = force
    for event in events:
        event.now = now
        event.draw = clock.draw()
        try:
            done.step = step = policy.step(state, event)
        except Exception as error:
            if isinstance(error, ValueError) and isinstance(event, Control):
                raise
            blamed = _blamed(cell, error)
            if all(event is not other for other in (*taken, *_events(done.joined))):
                raise blamed from error
            done.tells = (*done.tells, ("dropped", {"error": str(blamed)}))
            continue
        state = step.state
        if step.keep:
            keep = True
        if step.moved is not None:
            done.moves = (*done.moves, (step.moved, state.epoch))
        if step.tells:
            done.tells = (*done.tells, *step.tells)
    if not keep:
        return None
    done.state = state
    try:
        return policy.encode(state), policy.expires_at(state)
    except Exception as error:
        raise _blamed(cell, error) from error


def _overtaken(cell: Cell, before: View, conflict: StorageConflict, done: Committed, now: float) -> None:
    """Somebody without the lock committed first: go on from what he committed, if the storage says what that is."""
    cell.view = None
    if conflict.current is not None:
        try:
            view = cell.adopt(conflict.current, now)
        except ValueError:
            return  # if it is damaged, the next turn finds out under the lock
        _compare(before, view, done)


def _blamed(cell: Cell, error: Exception) -> StorageUnavailable:
    """Name a policy that raised: its bug is no fault of the storage, and an outage of no other key."""
    return StorageUnavailable(f"{cell.key}: its policy raised {type(error).__name__}: {error}", key=cell.key)


def _refresh(
    cell: Cell, events: Iterable[PolicyEvent], done: Committed, clock: SharedClock, deadline: float
) -> Requests[View]:
    """With the lock held: take over what is committed; set aside what is damaged beyond reading.

    Reports that were dated by this machine's clock, as the storage had not told its time yet, are taken as of now.
    """
    key, ports, before = cell.key, cell.ports, cell.view
    was_agreed = clock.is_agreed
    try:
        view = yield from load(cell, clock, deadline)
    except (StorageCorrupt, ValueError) as damage:
        yield ports.discard, (key, str(damage), _left(deadline, clock.monotonic()))
        now = clock.monotonic()
        empty = yield ports.load, (key, _left(deadline, now))
        cell.view = None
        try:
            view = cell.adopt(empty, now)
        except ValueError as error:
            raise StorageUnavailable(f"{key} was set aside and is damaged all the same: {error}", key=key) from error
        done.resets = (*done.resets, ("state_reset", {"error": str(damage)}))
    else:
        _compare(before, view, done)
    if clock.is_agreed and not was_agreed:
        for event in events:
            if isinstance(event, Report):
                event.at = clock.wall()
    return view


def _compare(before: View | None, view: View, done: Committed) -> None:
    regression = view.regression(before)
    if regression is not None:
        done.resets = (*done.resets, regression)


def _left(deadline: float, now: float) -> float:
    """Seconds that are left, for a hook."""
    return deadline - now if deadline > now else 0.0


def name_error(error: BaseException, ports: Ports, hook: str) -> StorageUnavailable:
    """Name the plugin that raised anything but our errors: it is treated as a storage that does not answer."""
    named = StorageUnavailable(
        f"storage {ports.name}: its {hook} raised {type(error).__name__}: {error}", outcome_unknown=hook == "save"
    )
    named.__cause__ = error
    return named


def drive(ports: Ports, requests: Requests[T]) -> T:
    """Serve the requests with plain calls."""
    try:
        return _serve(ports, requests, next(requests))
    except StopIteration as stop:  # there were none
        return stop.value  # type: ignore[no-any-return]  # untyped in typeshed
    finally:
        requests.close()  # frees the lock at once, also while the traceback of a Ctrl-C keeps this frame alive


def perform(ports: Ports, requests: Requests[object]) -> None:
    """Do what `drive` does where nobody needs the answer.

    Mostly there are no requests: a loop over none makes no `StopIteration`, which saves 0.15 µs.
    """
    try:
        for request in requests:
            _serve(ports, requests, request)
    except BaseException:
        requests.close()  # see `drive`; at its end it is closed
        raise


def _serve(ports: Ports, requests: Requests[T], request: Request) -> T:
    """Serve a request and all that follow it."""
    try:
        while True:
            hook, arguments = request
            try:
                given = hook(*arguments)
            except ResilienceError as error:
                request = requests.throw(error)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                request = requests.throw(name_error(error, ports, ports.name_of(hook)))
            else:
                request = requests.send(given)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # untyped in typeshed


async def adrive(ports: Ports, requests: Requests[T]) -> T:
    """Serve the requests, awaiting those for which the storage has an awaitable hook."""
    import asyncio
    from asyncio import CancelledError, current_task

    from resilience.lane import wait, wait_on_loop

    try:
        hook, arguments = next(requests)
        while True:
            try:
                awaitable: Any = (
                    asyncio.sleep if hook is sleep else wait_on_loop if hook is wait else ports.awaitable(hook)
                )
                given = hook(*arguments) if awaitable is None else await awaitable(*arguments)
            except ResilienceError as error:
                hook, arguments = requests.throw(error)
            except CancelledError as error:
                task = current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancelled this: it is something of the storage's own, a connection that was given up.
                hook, arguments = requests.throw(name_error(error, ports, ports.name_of(hook)))
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                hook, arguments = requests.throw(name_error(error, ports, ports.name_of(hook)))
            else:
                hook, arguments = requests.send(given)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # untyped in typeshed
    finally:
        requests.close()
