"""Threads and tasks of one process at one record: one leads and takes the others along; nobody waits for himself."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from storages import Casual, Recorder

from resilience import (
    Capability,
    CircuitBreaker,
    Key,
    Runtime,
    StorageConflict,
    StorageLockTimeout,
    StorageUnavailable,
    commit,
    contention,
    hookimpl,
)
from resilience.lane import ABOARD, LEADS, SERVED, STRAYS, WAITS, Lane, Ride, wait, wait_on_loop
from resilience.policy import Admit, Report
from resilience.testing import AwaitedFaultyStorage, FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from resilience.policy import PolicyEvent

KEY = Key("circuit_breaker", "payments")
OTHERS = 7
PATIENCE = 10.0
"""Seconds that nothing here takes."""


class Server(Casual):
    """Works by compare-and-set, for many machines."""

    capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES})


class Office:
    """A breaker on such a storage, and what of it is looked at."""

    def __init__(self, storage: FaultyStorage, timeout: float = PATIENCE) -> None:
        self.storage = storage
        self.told = Recorder()
        self.runtime = Runtime(storage=storage, storage_timeout=timeout, observers=[self.told], environ={})
        self.breaker = self.another()
        self.breaker.record_failure()

    def another(self) -> CircuitBreaker:
        """A guard of the same key."""
        return CircuitBreaker("payments", runtime=self.runtime, failure_threshold=1000)

    @property
    def lane(self) -> Lane:
        lanes = self.runtime.opened.engine._lanes
        assert lanes is not None
        return lanes[KEY]

    def line_of(self, number: int) -> None:
        """Wait until so many wait."""
        until(lambda: len(self.lane._line) == number)

    @property
    def saves(self) -> int:
        return self.storage.calls.count("save") + self.storage.calls.count("asave")

    @property
    def count(self) -> int:
        return self.breaker.status().failure_count

    @contextmanager
    def led(self, plan: Callable[[], object]) -> Generator[None]:
        """Let a thread lead, whose save does what is planned; what is in the block begins after it has begun."""
        before = self.saves
        plan()
        leader = threading.Thread(target=self.breaker.record_failure)
        leader.start()
        until(lambda: self.saves > before)
        yield
        leader.join(PATIENCE)
        assert not leader.is_alive()


def ignore(*_: object) -> None: ...


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def started(count: int, work: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def office(tmp_path: Any) -> Iterator[Office]:
    made = Office(FaultyStorage(Server(f"server:{tmp_path}")))
    yield made
    made.runtime.close()


# --- what is taken along ----------------------------------------------------------------------------------------------


def test_the_reports_of_all_threads_that_wait_go_into_one_commit(office: Office) -> None:
    before = office.saves
    with office.led(partial(office.storage.hang, "save")):
        threads = started(OTHERS, office.breaker.record_failure)
        office.line_of(OTHERS)
        office.storage.release()
    joined(threads)
    assert (office.count, office.saves - before) == (2 + OTHERS, 2)


def test_so_do_those_of_all_tasks_of_a_loop(tmp_path: Any) -> None:
    office = Office(AwaitedFaultyStorage(Server(f"server:{tmp_path}")))
    before = office.saves

    async def dependency() -> None:
        raise KeyError

    async def call() -> None:
        with suppress(KeyError):
            await office.breaker.acall(dependency)

    async def all_at_once() -> None:
        await asyncio.gather(*[call() for _ in range(1 + OTHERS)])

    asyncio.run(all_at_once())
    assert (office.count, office.saves - before) == (2 + OTHERS, 2)
    office.runtime.close()


def test_who_waits_joins_the_next_try_of_one_who_came_too_late(office: Office) -> None:
    def late(*_: Any) -> Any:
        gate.wait(PATIENCE)
        raise StorageConflict("others were faster")

    gate, before = threading.Event(), office.saves
    with office.led(lambda: office.storage.plan("save", 1, late)):
        threads = started(OTHERS, office.breaker.record_failure)
        office.line_of(OTHERS)
        gate.set()
    joined(threads)
    assert (office.count, office.saves - before) == (2 + OTHERS, 2)  # of which one was in vain


def test_other_guards_of_the_key_and_what_is_no_report_wait_for_their_turn(office: Office) -> None:
    before = office.saves
    with office.led(partial(office.storage.hang, "save")):
        others = started(2, office.another().record_failure)
        office.line_of(2)
        controls = started(1, partial(office.breaker.force_open, reason="by hand"))
        office.line_of(3)
        office.storage.release()
    joined([*others, *controls])
    assert office.storage.calls.count("save") - before == 3  # one of the two others has taken the other along
    assert office.breaker.status().state == "forced_open"


# --- failures ---------------------------------------------------------------------------------------------------------


def test_an_outage_is_everybodys_and_nothing_is_counted_twice(office: Office) -> None:
    def gone(*_: Any) -> Any:
        gate.wait(PATIENCE)
        raise StorageUnavailable("gone")

    gate = threading.Event()
    with office.led(partial(office.storage.hang, "save")):
        threads = started(3, office.breaker.record_failure)
        office.line_of(3)
        office.storage.plan("save", 1, gone)
        gate.set()
        office.storage.release()
    joined(threads)
    assert office.told.names == ["degraded"]
    reading = office.breaker.status()
    assert reading.degraded
    assert reading.failure_count == 5  # in the private copy: the two that were committed, and the three


def test_who_was_interrupted_leaves_those_in_his_commit_without_an_answer(office: Office) -> None:
    ride, lane = aboard()
    assert lane.leave("leader", [ride], 0.0, KeyboardInterrupt(), unknown=True) == []
    assert ride.state == SERVED
    assert isinstance(ride.error, StorageUnavailable)
    assert ride.error.outcome_unknown
    assert office.count == 1


def test_what_may_have_been_saved_before_an_interruption_nobody_saves_again(office: Office) -> None:
    def late(*_: Any) -> Any:
        gate.wait(PATIENCE)
        raise StorageConflict("others were faster")

    def interrupted(save: Callable[..., Any], arguments: Sequence[Any]) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            office.breaker.record_failure()

    gate, before = threading.Event(), office.saves
    office.storage.plan("save", 1, late).plan("save", 2, interrupted)
    leaders = started(1, lead)
    until(lambda: office.saves > before)
    others = started(1, office.breaker.record_failure)
    office.line_of(1)
    gate.set()
    joined([*leaders, *others])
    assert (office.saves - before, office.told.names) == (2, ["degraded"])


def test_after_a_failure_the_next_one_leads(office: Office) -> None:
    def taken(*_: Any) -> Any:
        gate.wait(PATIENCE)
        raise StorageLockTimeout("somebody else has it", key=KEY)

    gate = threading.Event()
    with office.led(lambda: office.storage.plan("save", 1, taken)):
        others = started(1, office.another().record_failure)
        office.line_of(1)
        gate.set()
    joined(others)
    assert (office.count, office.told.names) == (3, [])


def test_after_any_other_failure_they_wait_again(office: Office) -> None:
    ride, lane = aboard()
    other = lane.enter("another", "guard", (), 0.0, 9.0)
    assert lane.leave("leader", [ride], 0.0, ValueError()) == []
    assert (ride.state, ride.error, other and other.state) == (LEADS, None, WAITS)  # before those who came later
    assert office.count == 1


def report() -> Report:
    return Report(0.0, 0, "failure", 0.0, 0, None, None)


def aboard() -> tuple[Ride, Lane]:
    """Somebody who was taken along."""
    lane = Lane()
    assert lane.enter("leader", "guard", (), 0.0, 9.0) is None
    ride = lane.enter("other", "guard", (report(),), 0.0, 10.0)
    assert ride is not None
    assert lane.join("leader", "guard") == [ride]
    assert ride.state == ABOARD
    return ride, lane


# --- time -------------------------------------------------------------------------------------------------------------


def test_who_waited_in_vain_owes_his_report(tmp_path: Any) -> None:
    office = Office(FaultyStorage(Server(f"server:{tmp_path}")), timeout=0.1)
    with office.led(lambda: office.storage.hang("save")):
        begun = time.monotonic()
        assert office.lane.enter("stopped", "another guard", (), begun, begun + 5)  # is the next, and never comes
        office.breaker.record_failure()
        assert time.monotonic() - begun < 5
        office.storage.release()
    office.runtime.opened.engine.retune(PATIENCE, 0.0, None)
    office.lane._deadline = 0.0
    assert office.count == 3
    office.runtime.close()


def test_who_waited_in_vain_for_what_must_be_done_is_told(office: Office) -> None:
    with office.led(partial(office.storage.hang, "save")):
        office.runtime.opened.engine.retune(0.02, 0.0, None)  # the leader has more
        message = f"^{KEY}: others of this process committed until the time was up$"
        with pytest.raises(StorageLockTimeout, match=message) as raised:
            office.breaker.force_open()
        office.storage.release()
    assert raised.value.key == KEY


def test_nobody_waits_for_a_leader_whose_time_is_up() -> None:
    lane = Lane()
    assert lane.enter("stopped", "guard", (), 0.0, 1.0) is None
    ride = lane.enter("first", "guard", (), 0.5, 2.0)
    second = lane.enter("second", "guard", (), 0.6, 2.1)
    assert ride is not None
    assert second is not None
    assert lane.patience(ride, 0.5) == 0.5
    assert lane.ask(ride, 0.9)
    assert not lane.ask(ride, 1.0)
    assert ride.state == LEADS
    assert lane.join("stopped", "guard") == []
    assert lane.leave("stopped", (), 1.1) == []
    assert second.state == WAITS
    assert lane.leave("first", (), 2.1) == []
    assert second.state == WAITS  # its own time is up
    assert lane.enter("third", "guard", (), 2.2, 3.0) is None


def test_who_was_taken_along_and_cannot_wait_leaves_his_report_there() -> None:
    ride, lane = aboard()
    assert not lane.ask(ride, 10.0)
    assert lane.stop(ride) == ABOARD
    assert lane.leave("leader", [ride], 0.0) == []
    ride, lane = aboard()
    lane.stop(ride)
    assert lane.leave("leader", [ride], 0.0, StorageUnavailable("gone"), unknown=True) == []
    ride, lane = aboard()
    lane.stop(ride)
    assert lane.leave("leader", [ride], 0.0, StorageUnavailable("gone")) == [*ride.events]


def test_a_report_that_was_left_is_owed(office: Office) -> None:
    def late(*_: Any) -> Any:
        met.wait(PATIENCE)
        raise StorageConflict("others were faster")

    def gone(*_: Any) -> Any:
        left.wait(PATIENCE)
        raise StorageUnavailable("gone", key=KEY)

    met, left, engine = threading.Event(), threading.Event(), office.runtime.opened.engine
    with office.led(lambda: office.storage.plan("save", 1, late).plan("save", 2, gone)):
        engine.retune(0.3, 0.0, None)
        threads = started(1, office.breaker.record_failure)
        office.line_of(1)
        met.set()
        joined(threads)  # his time is up, and nothing was committed yet
        left.set()
    assert [each.outcome for each in engine._debts[KEY].reports] == ["failure"]


# --- nobody waits for himself -----------------------------------------------------------------------------------------


def test_a_call_in_the_thread_of_a_loop_does_not_wait_for_its_tasks(tmp_path: Any) -> None:
    office = Office(AwaitedFaultyStorage(Server(f"server:{tmp_path}")))

    async def dependency() -> None:
        raise KeyError

    async def call() -> None:
        with suppress(KeyError):
            await office.breaker.acall(dependency)

    async def main() -> float:
        office.storage.hang("save")
        task = asyncio.create_task(call())
        before = office.saves
        while office.saves == before:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # by then it hangs
        begun = time.monotonic()
        office.breaker.record_failure()
        taken = time.monotonic() - begun
        office.storage.release()
        await task
        return taken

    assert asyncio.run(main()) < PATIENCE / 2
    assert office.count == 3
    office.runtime.close()


def test_a_wrapper_that_uses_the_guard_does_not_wait_for_itself(tmp_path: Any) -> None:
    class Curious:
        is_in = False

        @hookimpl(wrapper=True)
        def resilience_save(self) -> Generator[None, object, object]:
            if not self.is_in:
                self.is_in = True
                breaker.record_failure()
            return (yield)

    storage = FaultyStorage(Server(f"server:{tmp_path}"))
    runtime = Runtime(storage=storage, storage_timeout=PATIENCE, observers=[Curious()], environ={})
    breaker = CircuitBreaker("payments", runtime=runtime, failure_threshold=1000)
    begun = time.monotonic()
    breaker.record_failure()
    assert time.monotonic() - begun < PATIENCE / 2
    assert breaker.status().failure_count == 2
    runtime.close()


def test_where_nothing_is_awaited_on_a_loop_nobody_waits(tmp_path: Any) -> None:
    class Inline(Server):
        capabilities = Server.capabilities | {Capability.INLINE}

    office = Office(FaultyStorage(Inline(f"server:{tmp_path}")))

    async def dependency() -> None:
        raise KeyError

    with office.led(partial(office.storage.hang, "save")):
        with pytest.raises(KeyError):
            asyncio.run(office.breaker.acall(dependency))
        office.storage.release()
    assert office.count == 3
    office.runtime.close()


# --- the end of a loop, and of a thread's patience --------------------------------------------------------------------


def test_a_task_that_is_ended_while_it_waits_holds_up_nobody(tmp_path: Any) -> None:
    office = Office(AwaitedFaultyStorage(Server(f"server:{tmp_path}")))

    async def dependency() -> None:
        raise KeyError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(ignore)
        tasks.append(asyncio.ensure_future(office.breaker.acall(dependency)))
        while not office.lane._line:
            await asyncio.sleep(0)

    tasks: list[asyncio.Future[Any]] = []
    with office.led(partial(office.storage.hang, "save")):
        asyncio.run(main())
        assert office.lane._line == []
        office.storage.release()
    office.breaker.record_failure()
    assert office.count == 3
    office.runtime.close()


def test_a_task_that_is_ended_when_it_leads_lets_the_next_one_lead(tmp_path: Any) -> None:
    office = Office(AwaitedFaultyStorage(Server(f"server:{tmp_path}")))

    async def dependency() -> None:
        raise KeyError

    loop = asyncio.new_event_loop()

    async def main() -> None:
        tasks.append(asyncio.ensure_future(office.breaker.acall(dependency)))
        while not office.lane._line:
            await asyncio.sleep(0)

    tasks: list[asyncio.Future[Any]] = []
    with office.led(partial(office.storage.hang, "save")):
        loop.run_until_complete(main())
        others = started(1, office.another().record_failure)
        office.line_of(2)
        office.storage.release()
    assert office.lane._leader is not None  # that task, whose loop stands still
    for task in asyncio.all_tasks(loop):
        task.cancel()
    begun = time.monotonic()
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(tasks[0])
    joined(others)
    assert time.monotonic() - begun < PATIENCE / 2
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert office.count == 3
    office.runtime.close()


def test_who_is_called_when_his_loop_is_closed_is_not_missed() -> None:
    lane = Lane()
    lane.enter("leader", "guard", (), 0.0, 9.0)
    ride = lane.enter("task", "guard", (), 0.0, 9.0)
    assert ride is not None

    async def main() -> None:
        await wait_on_loop(ride, 0.0)
        assert ride.state == WAITS
        tasks.append(asyncio.ensure_future(wait_on_loop(ride, 60.0)))
        await asyncio.sleep(0)

    tasks: list[asyncio.Future[None]] = []
    asyncio.run(main())
    lane.leave("leader", (), 0.0)
    assert ride.state == LEADS


@pytest.mark.parametrize("capabilities", [Server.capabilities, {Capability.PROCESSES}])
def test_who_is_interrupted_while_he_gives_way_leads_no_longer(
    capabilities: set[Capability], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        now = time.monotonic()
        if Capability.MACHINES in capabilities:
            waiting.append(office.lane.enter("next", "another guard", (), now, now + PATIENCE))
        raise KeyboardInterrupt

    class Crowded(Server):
        pass

    Crowded.capabilities = frozenset(capabilities)
    office = Office(FaultyStorage(Crowded(f"server:{tmp_path}")))
    waiting: list[Ride | None] = []
    office.storage.fail("save", 1, StorageConflict("others were faster"))
    office.breaker.record_failure()
    monkeypatch.setattr(contention, "STREAK", 0.0)  # his turn is over
    monkeypatch.setattr(contention, "TRIES", 0)
    monkeypatch.setattr(commit, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        office.breaker.record_failure()
    monkeypatch.undo()
    for ride in waiting:
        assert ride is not None
        assert ride.state == LEADS
        assert office.lane.leave("next", (), 0.0) == []
    begun = time.monotonic()
    office.breaker.record_failure()
    assert time.monotonic() - begun < PATIENCE / 2
    assert office.count == 3
    office.runtime.close()


def test_a_report_of_somebody_else_that_the_policy_cannot_answer_is_given_up(office: Office) -> None:
    with office.led(partial(office.storage.hang, "save")):
        threads = started(2, office.breaker.record_failure)
        office.line_of(2)
        (poison, *_) = office.lane._line[0].events
        assert isinstance(poison, Report)
        poison.count = None  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]
        office.storage.release()
    joined(threads)
    assert office.count == 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timer")
def test_a_thread_that_is_interrupted_while_it_waits_leaves_the_line(office: Office) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with office.led(partial(office.storage.hang, "save")):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                office.breaker.record_failure()
            assert office.lane._line == []
            office.storage.release()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert office.count == 2


def test_a_commit_that_was_served_meanwhile_does_not_wait() -> None:
    ride, lane = aboard()
    lane.leave("leader", [ride], 0.0)
    wait(ride, PATIENCE)
    assert not ride.call(lambda: pytest.fail("nobody waits"))
    assert not lane.stray(ride)
    assert lane.stop(ride) == SERVED


def test_in_the_thread_of_a_loop_nobody_waits_for_another_thread_either(monkeypatch: pytest.MonkeyPatch) -> None:
    lane, waiting = Lane(), list[Ride | None]()
    joined(started(1, lambda: lane.enter("leader", "guard", (), 0.0, 9.0)))

    async def main() -> None:  # of whose tasks one may be the next to lead
        for number in range(2):
            waiting.append(lane.enter(number, "guard", (), 0.0, 9.0))
        assert waiting[0] is not None
        wait(waiting[0], PATIENCE)
        lane.leave("leader", (), 0.0)
        assert waiting[1] is not None
        await wait_on_loop(waiting[1], PATIENCE)

    asyncio.run(main())
    assert [ride and ride.state for ride in waiting] == [STRAYS, LEADS]
    monkeypatch.delitem(sys.modules, "asyncio")
    last = lane.enter("last", "guard", (), 0.0, 9.0)
    assert last is not None
    lane._thread = 0
    wait(last, 0.0)
    assert last.state == WAITS


def test_only_reports_are_taken_along_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.lane.MOST", 2)
    lane = Lane()
    lane.enter("leader", "guard", (), 0.0, 9.0)
    asked: list[Sequence[PolicyEvent]] = [(), [Admit(0.0, 0)], [report()], [report()], [report()]]
    waiting = [lane.enter(number, "guard", events, 0.0, 9.0) for number, events in enumerate(asked)]
    assert lane.join("leader", "guard") == waiting[2:4]
    assert lane.join("nobody", "guard") == []
    assert STRAYS not in [ride and ride.state for ride in waiting]
