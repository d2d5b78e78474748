"""aload and asave do what load and save do."""

from __future__ import annotations

from resilience.errors import StorageConflict
from resilience.storage import Version
from resilience.testing.checks.registry import check
from resilience.testing.handle import run_coroutine
from resilience.testing.jobs import checked, payload_of
from resilience.testing.roads import CALLED
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.storage import Key
    from resilience.testing.handle import Handle
    from resilience.testing.subject import Subject


def need_awaitable(subject: Subject) -> None:
    """Go on only with a storage that has the awaitable hooks.

    :raises Skipped: it has not.
    """
    if subject.handle.ports.aload is None:
        raise Skipped("the storage has no resilience_aload and resilience_asave: there is nothing to await")


@check("aload and asave do what load and save do", after=("conflicts",), roads=(CALLED,))
def check_awaitable(subject: Subject) -> None:
    """Save one way and load the other."""
    need_awaitable(subject)
    run_coroutine(_both_ways(subject.handle, subject.key()))


async def _both_ways(handle: Handle, key: Key) -> None:
    if (await handle.aload(key)).version is not None:
        raise _drifted("aload of a key that was never saved gives a record")
    with handle.lock(key):
        first = await handle.asave(key, b'{"n": 1}', None)
    if first.version is None or first.version.number != 1:
        raise _drifted(f"the first asave of a key gave version {first.version}")
    found = handle.load(key)
    if (found.payload, found.version) != (b'{"n": 1}', first.version):
        raise _drifted(f"load does not see what asave committed: it gives {found.version}, not {first.version}")
    with handle.lock(key):
        second = handle.save(key, b'{"n": 2}', first.version)
    again = await handle.aload(key)
    if (again.payload, again.version) != (b'{"n": 2}', second.version):
        raise _drifted(f"aload does not see what save committed: it gives {again.version}, not {second.version}")
    for wrong in (None, first.version, Version("never stored", 2)):
        with handle.lock(key):
            try:
                await handle.asave(key, b'{"n": "wrong"}', wrong)
            except StorageConflict:
                continue
        raise _drifted("asave committed although the stored version was not `expected`")
    if handle.load(key).version != second.version:
        raise _drifted("an asave that raised StorageConflict changed the record")


def _drifted(what: str) -> Violation:
    return Violation(
        what,
        "the same breaker decides otherwise in coroutines than in threads",
        "write both pairs around one core: the same statement, the same comparison of `expected`",
    )


@check("commits of many tasks are counted exactly", after=("awaitable",), roads=(CALLED,))
def check_counts_tasks(subject: Subject) -> None:
    """Let many tasks commit at once, as the engine does from coroutines."""
    need_awaitable(subject)
    handle, key = subject.handle, subject.key()
    tasks, times = 8, subject.pick(5, 25)
    run_coroutine(_crowd(handle, key, tasks, times))
    number, _ = checked(handle.load(key))
    if number != tasks * times:
        raise Violation(
            f"{tasks} tasks committed {times} times each, {number} of {tasks * times} are counted",
            "failures are lost, and a breaker opens too late or never",
            "let asave compare `expected` and write in one step, without an await between the two",
        )


async def _crowd(handle: Handle, key: Key, tasks: int, times: int) -> None:
    import asyncio

    locks = handle.has_lock(key)
    turn = asyncio.Lock()  # a lock of the storage would block the loop; the engine takes it in a thread

    async def commit(who: str) -> None:
        done = 0
        while done < times:
            try:
                if locks:
                    async with turn:
                        with handle.lock(key):
                            await _once(handle, key, who)
                else:
                    await _once(handle, key, who)
            except StorageConflict:
                await asyncio.sleep(0)
            else:
                done += 1

    await asyncio.gather(*(commit(f"task {number}") for number in range(tasks)))


async def _once(handle: Handle, key: Key, who: str) -> None:
    snapshot = await handle.aload(key)
    number, _ = checked(snapshot)
    await handle.asave(key, payload_of(number + 1, who), snapshot.version)
