"""What only coroutines do to a storage: they share a thread with all others, and are cancelled in the middle."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageUnavailable
from resilience.testing.checks.awaitable import need_awaitable
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import Handle, run_coroutine
from resilience.testing.jobs import checked, payload_of, was_saved
from resilience.testing.roads import AWAITED, Awaited
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from random import Random
    from typing import Any

    from resilience.storage import Key, Snapshot, Version
    from resilience.testing.subject import Subject

LOOP_LIMIT = 0.01
"""Seconds for which a call may keep an event loop from doing anything else, as the median of many: INLINE's."""

ONLY_AWAITED = (AWAITED,)


@check(
    "a load or a commit keeps the event loop from other work for 10 ms at most",
    kit=SECOND,
    after=("round_trip", "awaited_round_trip"),
    roads=ONLY_AWAITED,
)
def check_loop_stays_free(subject: Subject) -> None:
    """Watch the loop while the hooks are called, and while nothing is."""
    key = subject.key()
    subject.handle.put(key, b"{}")
    _let_go(subject, subject.handle, "a load", lambda: subject.handle.load(key))
    _let_go(subject, subject.handle, "a commit", lambda: subject.handle.put(key, b"{}"))
    if subject.unreachable is not None:
        away = Handle.open(subject.unreachable, AWAITED)
        _let_go(subject, away, "a load from a store that does not answer", lambda: _in_vain(away, key))
        away.close()


def _in_vain(handle: Handle, key: Key) -> None:
    try:
        handle.load(key, 0.1)
    except StorageUnavailable:
        pass


def _let_go(subject: Subject, handle: Handle, what: str, call: Callable[[], object]) -> None:
    road = handle.road
    assert isinstance(road, Awaited)  # noqa: S101 - the check is of that road alone; for the type checkers
    gap = 0.0
    for _ in range(3):  # a machine that has much else to do keeps the loop waiting itself, now and then
        kept: list[float] = []
        idle: list[float] = []
        for _ in range(subject.pick(7, 15)):
            kept.append(road.longest_gap(call))
            idle.append(road.longest_gap(lambda: clock.sleep(0.005)))
        gap, rest = sorted(kept)[len(kept) // 2], sorted(idle)[len(idle) // 2]
        if gap <= LOOP_LIMIT + 2 * rest:
            subject.measured[f"event loop kept by {what}, s"] = gap
            return
    raise Violation(
        f"the event loop did nothing else for {gap * 1e3:.0f} ms while {what} was under way",
        "every other task of the program stands still meanwhile, those that have nothing to do with a breaker too",
        "await what takes time: a driver that is made for asyncio, never a call that blocks; or leave resilience_aload"
        " and resilience_asave out and do not declare INLINE, then a worker thread calls the storage",
    )


class Cancelled:
    """A save that was cancelled in the middle, and what was said of it."""

    def __init__(self, key: Key, before: Version | None, answer: object) -> None:
        self.key = key
        self.before = before
        self.answer = answer


@check(
    "a cancelled asave is done or not; what was said of it is true",
    kit=SECOND,
    after=("awaitable", "counts_tasks", "awaited_conflicts"),
    roads=ONLY_AWAITED,
)
def check_cancelled_saves(subject: Subject) -> None:
    """Cancel saves at any moment, and look at once and later what became of them."""
    need_awaitable(subject)
    handle, rounds = subject.handle, subject.pick(30, 100)
    keys = [subject.key() for _ in range(rounds)]
    run_coroutine(_cancel_saves(handle, keys, subject.chance))


async def _cancel_saves(handle: Handle, keys: list[Key], chance: Random) -> None:
    import asyncio

    takes = await _duration(lambda: _save(handle, keys[0], 1, None))
    done: list[Cancelled] = []
    for key in keys[1:]:
        first = await _save(handle, key, 1, None)
        answer = await _cut(_save(handle, key, 2, first.version), chance, takes)
        cancelled = Cancelled(key, first.version, answer)
        await _look(handle, cancelled)
        done.append(cancelled)
    await asyncio.sleep(max(0.02, 4 * takes))
    for cancelled in done:  # one that was said not to be saved must not be saved later either
        await _look(handle, cancelled)


async def _save(handle: Handle, key: Key, number: int, expected: Version | None) -> Snapshot:
    with handle.lock_here(key):
        return await handle.asave(key, payload_of(number, "a task"), expected)


async def _look(handle: Handle, cancelled: Cancelled) -> None:
    number, _ = checked(await handle.aload(cancelled.key))
    said = was_saved(cancelled.answer)
    if number not in {1, 2}:
        raise Violation(
            f"after a save was cancelled a load gives commit {number}, where 1 was before and 2 was saved",
            "a commit that was acknowledged is gone",
            "make a commit one step, which is done whole or not at all, whoever is cancelled",
        )
    if said is None or said == (number == 2):
        return
    if said:
        raise Violation(
            "an asave that was cancelled returned a Snapshot, and what it saved is not there",
            "a failure that was counted is lost; a breaker opens too late or never",
            "let CancelledError out: never return from it; and return from asave only what is committed",
        )
    raise Violation(
        f"an asave that was cancelled raised {type(cancelled.answer).__name__}, as if nothing were saved; it was",
        "the engine commits that outcome again, and it counts twice",
        "let CancelledError out, or raise StorageUnavailable with outcome_unknown=True: the request may be under way",
    )


@check(
    "after a cancelled call the next one gets its own answer",
    kit=SECOND,
    after=("awaitable", "counts_tasks", "awaited_round_trip"),
    roads=ONLY_AWAITED,
)
def check_cancelled_calls(subject: Subject) -> None:
    """Cancel loads at any moment, and load and save other keys right after it."""
    need_awaitable(subject)
    run_coroutine(_cancel_calls(subject.handle, subject.key("one"), subject.key("other"), subject))


async def _cancel_calls(handle: Handle, one: Key, other: Key, subject: Subject) -> None:
    await _save(handle, one, 1, None)
    expected = (await _save(handle, other, 1, None)).version
    takes = await _duration(lambda: handle.aload(one))
    for number in range(2, subject.pick(30, 100)):
        await _cut(handle.aload(one), subject.chance, takes)
        found = await handle.aload(other)
        if found.version != expected:
            raise Violation(
                f"after a load was cancelled, another key loads as {found.version}, not {expected}",
                "an answer that came too late is taken for the next one's: breakers read the state of others",
                "close the connection of a call that was cancelled, or read its answer to the end before it is used"
                " again",
            )
        expected = (await _save(handle, other, number, expected)).version


async def _duration(make: Callable[[], Coroutine[Any, Any, object]]) -> float:
    """Measure how long something takes, the second time."""
    begun = 0.0
    for _ in range(2):
        begun = clock.monotonic()
        try:
            await make()
        except Exception:  # noqa: BLE001, S110 - a save that conflicts takes as long
            pass
    return clock.monotonic() - begun


async def _cut(work: Coroutine[Any, Any, object], chance: Random, takes: float) -> object:
    """Cancel something at any moment of the time that it takes, and return what it answered or raised."""
    import asyncio

    task = asyncio.ensure_future(work)
    if chance.random() < 0.5:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
    else:
        await asyncio.sleep(chance.uniform(0, takes))
    task.cancel()
    (answer,) = await asyncio.gather(task, return_exceptions=True)
    return answer
