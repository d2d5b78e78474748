"""Many who commit one record: one has his turn, the others sleep, and none past his deadline or on an event loop."""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import TYPE_CHECKING, Any

import pytest
from storages import Casual

from resilience import (
    Capability,
    CircuitBreaker,
    Freshness,
    Key,
    Runtime,
    Snapshot,
    StorageConflict,
    StorageLockTimeout,
    Version,
)
from resilience import commit as commits
from resilience.contention import (
    AGED,
    ASLEEP,
    AWAY,
    CHANCE,
    FORGOTTEN,
    LONGEST,
    LONGEST_STREAK,
    MANY,
    PATIENCE,
    QUIET,
    SLOWEST,
    STEP,
    STREAK,
    TRIES,
    UNKNOWING,
    Contention,
)
from resilience.storage import UNTOLD
from resilience.testing import AwaitedFaultyStorage, FaultyStorage, ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = Key("circuit_breaker", "payments")
MIDDLE = 2**63
"""Random bits that make a pause neither shorter nor longer."""


class TestTurns:
    def test_every_second_conflict_in_a_row_makes_the_pause_longer(self) -> None:
        contention = Contention(0.0)
        pauses = [contention.met(0.0, times, MIDDLE) for times in range(1, 9)]
        assert pauses == pytest.approx([0, STEP, 0, 2 * STEP, 0, 3 * STEP, 0, 4 * STEP])
        assert contention.met(0.0, 1000, MIDDLE) == pytest.approx(LONGEST)

    def test_pauses_differ(self) -> None:
        contention = Contention(0.0)
        assert contention.met(0.0, 2, 0) == pytest.approx(STEP / 2)
        assert contention.met(0.0, 2, 2**64 - 1) == pytest.approx(STEP * 1.5)
        assert contention.met(0.0, 1000, 2**64 - 1) == pytest.approx(LONGEST * 1.5)

    def test_who_had_his_turn_gives_way_and_then_has_another(self) -> None:
        contention, now, pauses = Contention(0.0), 0.0, list[float]()
        while now < 2 * (STREAK + AWAY):
            pauses.append(contention.gives_way(now, MIDDLE))
            now += pauses[-1] + STREAK / 9.5
            contention.committed(now)
        (first, second) = [number for number, pause in enumerate(pauses) if pause]
        assert (first, second - first) == (10, 10)
        assert pauses[first] == pytest.approx(AWAY)

    @pytest.mark.parametrize(
        ("takes", "lasts"),
        [(STREAK / MANY / 2, STREAK), (0.0001, MANY * 0.0001), (0.0002, LONGEST_STREAK), (0.01, TRIES * 0.01)],
    )
    def test_a_turn_is_worth_what_it_takes_to_notice_it(self, takes: float, lasts: float) -> None:
        contention = Contention(0.0)
        contention.met(0.0, 1, MIDDLE)
        contention.met(takes, 2, MIDDLE)
        contention.committed(takes + lasts)
        assert contention.gives_way(takes + lasts - 0.0001, MIDDLE) == 0
        assert contention.gives_way(takes + lasts + 0.0001, MIDDLE) > 0

    def test_who_was_away_by_himself_need_not_give_way(self) -> None:
        contention = Contention(0.0)
        contention.committed(STREAK)
        assert contention.gives_way(STREAK + AWAY, MIDDLE) == 0
        contention.committed(STREAK + AWAY)
        assert contention.gives_way(2 * STREAK + AWAY - 0.0001, MIDDLE) == 0

    def test_a_conflict_begins_a_turn(self) -> None:
        contention = Contention(0.0)
        contention.committed(STREAK)
        contention.met(STREAK, 1, MIDDLE)
        assert contention.gives_way(STREAK + 0.001, MIDDLE) == 0

    def test_where_a_try_takes_long_all_of_it_does(self) -> None:
        contention = Contention(0.0)
        contention.met(0.0, 1, MIDDLE)
        assert contention.met(0.005, 2, MIDDLE) == pytest.approx(0.005)
        now = 0.005 + TRIES * 0.005
        contention.committed(now)
        assert contention.gives_way(now - 0.001, MIDDLE) == 0
        assert contention.gives_way(now, MIDDLE) == pytest.approx(CHANCE * 0.005)
        contention.met(now, 1, MIDDLE)
        contention.met(now + 1, 2, MIDDLE)
        now += 1 + TRIES * SLOWEST
        contention.committed(now)
        assert contention.gives_way(now, MIDDLE) == pytest.approx(CHANCE * SLOWEST)

    def test_who_knows_of_nobody_gives_way_now_and_then(self) -> None:
        contention, now, pauses = Contention(), 0.0, list[float]()
        while now < 1:
            pauses.append(contention.gives_way(now, MIDDLE))
            now += pauses[-1] + 0.001
            contention.committed(now)
        assert sum(pause > 0 for pause in pauses) == pytest.approx(1 / (UNKNOWING + AWAY), abs=1)
        assert not contention.is_over(now)

    def test_who_has_listened_long_takes_a_shorter_silence_for_one(self) -> None:
        contention = Contention(0.0)
        assert contention.listens(0.0, 0.0, MIDDLE) == pytest.approx(UNTOLD + QUIET)
        assert contention.listens(0.0, PATIENCE / 4, MIDDLE) == pytest.approx(UNTOLD + 0.75 * QUIET)
        assert contention.listens(0.0, PATIENCE, MIDDLE) == pytest.approx(UNTOLD + AGED * QUIET)
        contention.met(0.0, 1, MIDDLE)
        contention.met(0.005, 2, MIDDLE)
        assert contention.listens(0.0, 0.0, MIDDLE) == pytest.approx(UNTOLD + CHANCE * 0.005)

    def test_who_knows_how_long_it_took_the_last_time_sleeps_for_most_of_that(self) -> None:
        contention = Contention(0.0)
        contention.listened(0.040)
        assert contention.listens(0.0, 0.002, MIDDLE) == pytest.approx(ASLEEP * 0.040 - 0.002)
        assert contention.listens(0.03, 0.035, MIDDLE) < UNTOLD + QUIET

    @pytest.mark.parametrize("by", ["met", "gives_way"])
    def test_how_long_it_took_is_forgotten_with_the_others(self, by: str) -> None:
        contention = Contention()
        contention.met(0.0, 1, MIDDLE)
        contention.listened(0.040)
        if by == "met":
            contention.met(FORGOTTEN, 1, MIDDLE)
        else:
            contention.gives_way(FORGOTTEN, MIDDLE)
        assert contention.listens(FORGOTTEN, 0.0, MIDDLE) == pytest.approx(UNTOLD + QUIET)

    def test_who_has_listened_has_a_whole_turn(self) -> None:
        contention = Contention()
        contention.listens(1.0, 0.0, MIDDLE)
        contention.committed(1.0 + STREAK - AWAY / 2)
        assert contention.gives_way(1.0 + STREAK - 0.0001, MIDDLE) == 0
        assert contention.gives_way(1.0 + STREAK + 0.0001, MIDDLE) > 0

    def test_it_is_forgotten(self) -> None:
        contention = Contention(1.0)
        contention.met(2.0, 1, MIDDLE)
        assert not contention.is_over(2.0 + FORGOTTEN - 0.001)
        assert contention.is_over(2.0 + FORGOTTEN)


class Server(Casual):
    """Works by compare-and-set, and is no place for an event loop."""

    capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES})


class Neighbourhood(Casual):
    """The same, for the processes of one machine."""

    capabilities = frozenset({Capability.PROCESSES})


class Crowded:
    """A breaker whose commits meet others; a clock that sleeping moves."""

    def __init__(self, storage: FaultyStorage) -> None:
        self.storage = storage
        self.clock = ManualClock()
        self.slept: list[float] = []
        self.runtime = Runtime(storage=storage, clock=self.clock)
        self.breaker = CircuitBreaker("payments", runtime=self.runtime, failure_threshold=1000)
        self.breaker.record_failure()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        if seconds:  # as the storage does, to let others run
            self.sleep(seconds)

    def conflicts(self, times: int, takes: float = 0.0) -> None:
        """Let others be faster so often, each time after so many seconds."""

        def conflict(*_: Any) -> Any:
            self.clock.advance(takes)
            raise StorageConflict("others were faster")

        for nth in range(1, times + 1):
            self.storage.plan("save", nth, conflict)

    def fail(self) -> None:
        if isinstance(self.storage, AwaitedFaultyStorage):
            asyncio.run(self.afail())
        else:
            self.breaker.record_failure()

    async def afail(self) -> None:
        async def dependency() -> None:
            raise KeyError

        with pytest.raises(KeyError):
            await self.breaker.acall(dependency)

    @property
    def count(self) -> int:
        return self.breaker.status().failure_count


@pytest.fixture(params=[FaultyStorage, AwaitedFaultyStorage])
def crowded(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crowded]:
    made = Crowded(request.param(Server(f"server:{tmp_path}")))
    monkeypatch.setattr(commits, "sleep", made.sleep)
    monkeypatch.setattr(asyncio, "sleep", made.asleep)
    yield made
    made.runtime.close()


def test_who_is_too_late_waits_before_every_second_try(crowded: Crowded) -> None:
    crowded.conflicts(6)
    crowded.fail()
    assert crowded.count == 2
    assert len(crowded.slept) == 3
    for nth, seconds in enumerate(crowded.slept, 1):
        assert nth * STEP / 2 <= seconds <= nth * STEP * 1.5


def test_without_others_nobody_sleeps(crowded: Crowded) -> None:
    for _ in range(20):
        crowded.clock.advance(STREAK / 2)
        crowded.fail()
    assert crowded.slept == []


def test_who_met_others_gives_way_until_he_has_met_none_for_a_while(crowded: Crowded) -> None:
    crowded.conflicts(1)
    crowded.fail()
    begun = crowded.clock.monotonic()
    while crowded.clock.monotonic() < begun + 2 * FORGOTTEN:
        crowded.clock.advance(0.001)
        crowded.fail()
    assert all(AWAY / 2 <= seconds <= AWAY * 1.5 for seconds in crowded.slept)
    assert FORGOTTEN / (STREAK + 2 * AWAY) <= len(crowded.slept) <= FORGOTTEN / STREAK


def test_on_one_machine_nobody_gives_way_once_the_others_are_forgotten(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowded = Crowded(FaultyStorage(Neighbourhood(f"server:{tmp_path}")))
    monkeypatch.setattr(commits, "sleep", crowded.sleep)
    crowded.conflicts(1)
    crowded.fail()
    crowded.clock.advance(FORGOTTEN)
    for _ in range(int(2 * UNKNOWING / 0.001)):
        crowded.fail()
        crowded.clock.advance(0.001)
    crowded.runtime.close()
    assert crowded.slept == []


def test_no_pause_takes_the_time_for_the_next_try(crowded: Crowded) -> None:
    crowded.conflicts(100, takes=0.06)
    begun = crowded.clock.monotonic()
    crowded.fail()
    assert crowded.clock.monotonic() - begun < 0.25 + 0.06
    assert all(seconds < 0.25 / 2 for seconds in crowded.slept)
    crowded.storage._plans.clear()
    assert crowded.count == 2  # it was owed


def test_a_pause_takes_half_of_what_is_left_at_most(crowded: Crowded) -> None:
    crowded.conflicts(2, takes=0.12)
    crowded.fail()
    assert crowded.slept == pytest.approx([0.005])


def test_so_does_giving_way(crowded: Crowded) -> None:
    crowded.runtime.opened.engine.retune(0.05, 0.0, None)
    crowded.conflicts(2, takes=0.02)
    for seconds in (0.05, 0.03, 0.0):
        crowded.fail()
        crowded.clock.advance(seconds)
    assert crowded.slept == pytest.approx([0.005, 0.025])


@pytest.mark.parametrize("crowded", [AwaitedFaultyStorage], indirect=True)
def test_no_save_begins_without_time_for_an_answer(crowded: Crowded) -> None:
    def slowly(load: Any, arguments: Any) -> Any:
        crowded.clock.advance(0.25)
        return load(*arguments)

    crowded.storage.plan("load", 1, slowly).plan("load", 2, slowly)
    before = len(crowded.storage.calls)
    crowded.breaker.record_failure()
    with pytest.raises(
        StorageLockTimeout, match=f"^{KEY}: RESILIENCE_STORAGE_TIMEOUT was over before it could be saved$"
    ) as raised:
        crowded.breaker.force_open()  # it takes the failure along, and gives it back
    assert raised.value.key == KEY
    assert "save" not in crowded.storage.calls[before:]  # nobody would know whether it was done
    assert not crowded.breaker.status().degraded
    assert crowded.count == 2  # it was owed


@pytest.mark.parametrize("crowded", [AwaitedFaultyStorage], indirect=True)
def test_a_coroutine_stops_nobody_else(crowded: Crowded, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: float) -> None:
        pytest.fail("it sleeps where others wait")

    monkeypatch.setattr(commits, "sleep", stopped)
    crowded.conflicts(2)
    crowded.fail()
    assert (crowded.count, len(crowded.slept)) == (2, 1)


def test_on_an_event_loop_that_nothing_is_awaited_on_nobody_sleeps(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Inline(Server):
        capabilities = Server.capabilities | {Capability.INLINE}

    crowded = Crowded(FaultyStorage(Inline(f"inline:{tmp_path}")))
    monkeypatch.setattr(commits, "sleep", crowded.sleep)
    crowded.conflicts(4)
    asyncio.run(crowded.afail())
    crowded.clock.advance(STREAK)
    asyncio.run(crowded.afail())
    assert (crowded.count, crowded.slept) == (3, [])
    crowded.conflicts(2)
    crowded.breaker.record_failure()  # called, it may
    assert (crowded.count, len(crowded.slept)) == (4, 1)
    crowded.runtime.close()


# --- where commits are heard of ---------------------------------------------------------------------------------------


class Told(Server):
    """The same; whoever looks hears of so many commits of others more, one each time."""

    heard = 0

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.freshness = Freshness(self.look)
        self.freshness.prove()

    def look(self) -> None:
        if self.heard:
            self.heard -= 1
            for key in self.memory.resilience_keys():
                self.freshness.hear(key, Version("others", 1000 - self.heard))

    def _judged(self, key: Key, snapshot: Snapshot) -> Snapshot:
        begun = self.freshness.begin(key)
        return Snapshot(snapshot.payload, snapshot.version, self.freshness.judge(snapshot.version, begun))

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return self._judged(key, super()._load(key, timeout))

    def _save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        return self._judged(key, super()._save(key, payload, expected, expires_at, timeout))


class Listening(Crowded):
    """A breaker on it."""

    def __init__(self, storage: FaultyStorage, told: Told) -> None:
        super().__init__(storage)
        self.told = told

    def too_late(self, heard: int) -> None:
        """Let others be faster twice, and commit so often while this one listens."""

        def conflict(function: Any, arguments: Any) -> Any:
            key, *_ = arguments
            raise StorageConflict("others were faster", current=self.told._load(key, 1.0))

        self.storage.plan("save", 1, conflict).plan("save", 2, conflict)
        self.told.heard = heard


@pytest.fixture(params=[FaultyStorage, AwaitedFaultyStorage])
def listening(request: pytest.FixtureRequest, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    told = Told(f"server:{tmp_path}")
    made = Listening(request.param(told), told)
    monkeypatch.setattr(commits, "sleep", made.sleep)
    monkeypatch.setattr(asyncio, "sleep", made.asleep)
    yield made
    made.runtime.close()


def test_who_hears_of_others_asks_the_server_nothing_until_they_are_quiet(listening: Listening) -> None:
    listening.too_late(heard=4)
    before = len(listening.storage.calls)
    listening.fail()
    assert listening.told.heard == 0
    assert len(listening.slept) == 5  # the first as after any conflict, and the last heard nothing
    assert all(AGED * QUIET / 2 <= seconds - UNTOLD <= QUIET * 1.5 for seconds in listening.slept[1:])
    asked = [call for call in listening.storage.calls[before:] if "lock" not in call]
    assert [call.removeprefix("a") for call in asked] == ["save", "save", "load", "save"]
    assert listening.count == 2


def test_who_hears_of_others_for_long_tries_all_the_same(listening: Listening) -> None:
    listening.too_late(heard=1000)
    begun = listening.clock.monotonic()
    listening.fail()
    assert PATIENCE <= listening.clock.monotonic() - begun <= PATIENCE + UNTOLD + QUIET * 1.5
    assert listening.told.heard > 0
    listening.told.heard = 0
    assert listening.count == 2


def test_who_has_little_time_listens_for_half_of_it(listening: Listening) -> None:
    listening.runtime.opened.engine.retune(0.02, 0.0, None)
    listening.too_late(heard=1000)
    begun = listening.clock.monotonic()
    listening.fail()
    assert 0.01 <= listening.clock.monotonic() - begun <= 0.01 + UNTOLD + QUIET * 1.5
    listening.told.heard = 0
    assert listening.count == 2


def test_who_has_listened_sleeps_for_most_of_that_the_next_time(listening: Listening) -> None:
    listening.clock.advance(100)
    listening.too_late(heard=4)
    listening.fail()
    waited = sum(listening.slept)
    listening.slept.clear()
    listening.too_late(heard=4)
    listening.fail()
    first, second, *others = listening.slept
    assert second == pytest.approx(ASLEEP * waited - first)
    assert all(AGED * QUIET / 2 <= seconds - UNTOLD <= QUIET * 1.5 for seconds in others)
    assert listening.count == 3


def test_nobody_sleeps_for_longer_than_he_has_the_patience(listening: Listening) -> None:
    listening.too_late(heard=1000)
    listening.fail()
    listening.runtime.opened.engine.retune(0.02, 0.0, None)
    listening.slept.clear()
    listening.too_late(heard=1000)
    listening.fail()
    assert sum(listening.slept) == pytest.approx(0.01)
    listening.told.heard = 0


def test_who_gives_way_listens_too(listening: Listening) -> None:
    listening.conflicts(1)
    listening.fail()
    while not listening.slept:
        listening.told.heard = 3
        listening.clock.advance(0.001)
        listening.fail()
    assert listening.told.heard == 0
    assert AWAY / 2 <= listening.slept[0] <= AWAY * 1.5
    assert len(listening.slept) == 4


# --- a crowd, in time that is counted ---------------------------------------------------------------------------------


class Member:
    """One of many processes that commit as fast as they can; does what `commit` does about turns."""

    def __init__(self, number: int, *, takes_turns: bool) -> None:
        self.random = random.Random(number)
        self.takes_turns = takes_turns
        self.contention = Contention()
        self.known = 0
        self.conflicts = self.futile = self.woken = 0
        self.waits: list[float] = []
        self.begun = 0.0
        self.since: float | None = None
        """When it began to listen."""
        self.heard = 0

    def draw(self) -> int:
        return self.random.getrandbits(64)

    def before(self, now: float) -> float:
        """Begin a commit; the seconds until its first try."""
        self.begun, self.conflicts = now, 0
        return self.contention.gives_way(now, self.draw()) if self.takes_turns else 0.0

    def lost(self, now: float) -> float:
        self.conflicts += 1
        self.futile += 1
        return self.contention.met(now, self.conflicts, self.draw()) if self.takes_turns else 0.0

    def listens(self, now: float) -> float:
        assert self.since is not None
        self.woken += 1
        return self.contention.listens(now, now - self.since, self.draw()) + 30e-6

    def won(self, now: float) -> None:
        self.waits.append(now - self.begun)
        self.contention.committed(now)


def crowd(
    size: int, seconds: float, *, takes_turns: bool = True, listens: bool = False
) -> tuple[float, float, float, float, float]:
    """Let processes commit one record of a server that does one thing at a time.

    As on Redis: 35 µs for a try, 15 for each way, 55 to prepare the next; 200 for who has slept, whose caches are cold.

    :param listens: whether each hears of the others' commits.

    :return: commits a second, tries by commit, the smallest share by the mean, the seconds that 99 of 100 commits
        take at most, and how often one woke in vain by commit.
    """
    members = [Member(number, takes_turns=takes_turns) for number in range(size)]
    version, free = 0, 0.0
    arrivals = [(number * 1e-5, number) for number in range(size)]
    while True:
        now, number = heapq.heappop(arrivals)
        if now > seconds:
            break
        member = members[number]
        if member.since is not None:
            if member.heard != version and now - member.since < PATIENCE:
                member.heard = version
                heapq.heappush(arrivals, (now + member.listens(now), number))
                continue
            member.contention.listened(now - member.since)
            member.since, member.known = None, version  # it is loaded
            heapq.heappush(arrivals, (now + 250e-6, number))
            continue
        free = max(now, free) + 35e-6 * member.random.uniform(0.8, 1.3)
        answered = free + 15e-6
        won, member.known = member.known == version, version + (member.known == version)
        version += won
        if won:
            member.won(answered)
            pause = member.before(answered)
        else:
            pause = member.lost(answered)
        if listens and pause:
            member.since, member.heard = answered, version
        prepared = answered + pause + member.random.uniform(0.9, 1.3) * (200e-6 if pause else 55e-6)
        heapq.heappush(arrivals, (prepared + 15e-6, number))
    counts = [len(member.waits) for member in members]
    waits = sorted(wait for member in members for wait in member.waits)
    tries = 1 + sum(member.futile for member in members) / len(waits)
    share, most = min(counts) * size / len(waits), waits[len(waits) * 99 // 100]
    return len(waits) / seconds, tries, share, most, sum(member.woken for member in members) / len(waits)


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("size", [2, 8, 16])
def test_many_get_through_in_fair_shares_and_few_tries(size: int, listens: bool) -> None:  # noqa: FBT001 - pytest's
    rate, tries, share, most, woken = crowd(size, 2.0, listens=listens)
    alone, *_ = crowd(1, 0.1)
    print(
        f"{rate:.0f}/s, one alone {alone:.0f}/s, {tries:.2f} tries, share {share:.2f}, p99 {most * 1e3:.0f} ms, "
        f"woken {woken:.2f} times"
    )
    assert rate > 0.6 * alone
    assert tries < (1.3 if listens else 1.7)
    assert share > 0.25
    assert most < 0.01 * size
    assert woken < 0.1 * size  # who listened all the time would wake 0.15 times the size


def test_without_turns_each_commit_takes_as_many_tries_as_there_are_processes() -> None:
    _, tries, share, _, _ = crowd(8, 0.5, takes_turns=False)
    assert tries > 4
    assert share < 0.25


def test_one_alone_pays_nothing() -> None:
    _, tries, share, most, _ = crowd(1, 0.1)
    assert (tries, share) == (1, 1)
    assert most < 0.001
