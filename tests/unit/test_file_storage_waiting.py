"""How processes wait for the lock of one file: the clock stands still but for their pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from resilience import Key, clock
from resilience_filelock import FileStorage, _waiting, storage
from resilience_filelock._waiting import JUST_NOW, LONGEST_PAUSE, NOBODY, SHORTEST_PAUSE, TURN, get, pauses

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = Key("circuit_breaker", "payments")
START = 1000.0
NEVER = float("inf")
MOMENT = 1e-6


class File:
    """The file of a record, as one who waits sees it.

    Its lock is taken until `free_at`.  While others `commit_every` so many seconds, its head runs.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.free_at = NEVER
        self.commit_every = NEVER
        self.plea: Any = [NOBODY]
        self.tried: list[float] = []

    @property
    def view(self) -> list[int]:
        return [int((self._world.now - START) / self.commit_every)]

    def lock(self) -> bool:
        now = self._world.now
        self.tried.append(now)
        self._world.now += MOMENT
        return now >= self.free_at

    def plead(self, moment: int) -> None:
        self.plea[0] = moment


class World:
    """Time, which passes while somebody sleeps, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = START
        self.slept: list[float] = []
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.file = File(self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + MOMENT
        due = [each for each in self.later if each[0] <= self.now]
        for each in due:
            self.later.remove(each)
            each[1]()

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Let something happen so many seconds after the start."""
        self.later.append((START + seconds, action))

    def get(self, seconds: float, *, in_haste: bool) -> bool:
        file: Any = self.file
        return get(file, START + seconds, in_haste=in_haste)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(_waiting, "clock", made)
    return made


def plea_since(seconds: float) -> int:
    """Return the plea of one who has waited since so many seconds after the start."""
    return int((START + seconds) * 1e6) % 2**32


def test_pauses_grow_and_end(world: World) -> None:
    again = pauses(START + 1)
    while world.slept[-1:] != [LONGEST_PAUSE]:
        assert again()
    assert world.slept[0] == SHORTEST_PAUSE
    assert world.slept == sorted(world.slept)
    world.now = START + 0.9999
    assert again()
    assert world.slept[-1] == pytest.approx(0.0001)
    assert not again()
    assert len(world.slept) < 20


def test_who_comes_now_and_then_waits_for_moments_and_asks_nobody(world: World) -> None:
    world.file.free_at = START + 100e-6
    said: list[int] = []
    world.at(0, lambda: said.append(world.file.plea[0]))
    assert world.get(1, in_haste=True)
    assert world.now - START < 200e-6
    assert said == [NOBODY]


def test_who_finds_somebody_waiting_queues(world: World) -> None:
    world.file.plead(plea_since(-1))
    world.file.free_at = START
    assert world.get(1, in_haste=True)
    assert world.slept[0] > SHORTEST_PAUSE


def test_who_sees_that_somebody_begins_to_wait_queues_too(world: World) -> None:
    world.at(SHORTEST_PAUSE, lambda: world.file.plead(plea_since(-1)))
    world.file.free_at = START + 10e-3
    assert world.get(1, in_haste=True)
    assert max(world.slept[:2]) > 2 * SHORTEST_PAUSE


def test_who_has_had_its_turn_lets_that_of_another_pass(world: World) -> None:
    world.file.commit_every = 20e-6
    world.file.free_at = START  # between any two commits
    assert world.get(1, in_haste=False)
    assert TURN <= world.file.tried[0] - START < 1.5 * TURN
    assert len(world.slept) < 10


@pytest.mark.parametrize("every", [300e-6, NEVER], ids=["now and then", "never"])
def test_where_no_turn_is_used_everyone_tries(world: World, every: float) -> None:
    world.file.commit_every = every
    world.file.plead(plea_since(-1))  # of one who may be gone
    world.file.free_at = START
    assert world.get(1, in_haste=False)
    assert world.now - START < TURN
    assert world.file.plea == [NOBODY]


def test_who_waits_long_says_since_when_and_takes_it_back(world: World) -> None:
    said: list[int] = []
    world.at(2e-3, lambda: said.append(world.file.plea[0]))
    world.file.free_at = START + 3e-3
    assert world.get(1, in_haste=True)
    assert world.file.tried[8] - START < 100e-6
    assert plea_since(0) < said[0] < plea_since(1.5e-3)
    assert world.file.plea == [NOBODY]


@pytest.mark.parametrize(
    ("other", "is_first"), [(-5e-3, False), (5e-3, True), (-900.0, False), (900.0, True)], ids="{}".format
)
def test_the_first_is_who_has_waited_longest(world: World, other: float, *, is_first: bool) -> None:
    world.file.plead(plea_since(other))
    said: list[int] = []
    world.at(1e-3, lambda: said.append(world.file.plea[0]))
    assert not world.get(1e-3, in_haste=False)
    assert said == [plea_since(0) if is_first else plea_since(other)]
    assert world.file.plea == [NOBODY if is_first else plea_since(other)]  # another's is not taken back


def test_the_others_wait_until_they_are_the_first(world: World) -> None:
    world.file.commit_every = 20e-6
    world.file.free_at = START
    world.file.plead(plea_since(-1))
    world.at(3 * TURN, lambda: world.file.plead(NOBODY))  # the first has taken over
    assert world.get(1, in_haste=False)
    assert 4 * TURN <= world.file.tried[0] - START < 6 * TURN


@pytest.mark.parametrize("in_haste", [False, True])
def test_it_is_tried_at_least_once_and_at_most_until_the_time_is_up(world: World, *, in_haste: bool) -> None:
    assert not world.get(-1, in_haste=in_haste)
    assert world.file.tried
    assert not world.slept
    assert not world.get(20e-3, in_haste=in_haste)
    assert world.now - START == pytest.approx(20e-3, abs=1e-4)
    assert world.file.tried[-1] - START == pytest.approx(20e-3, abs=1e-4)
    assert world.file.plea == [NOBODY]


def test_where_the_file_is_not_mapped_it_is_tried_with_growing_pauses(world: World) -> None:
    world.file.plea = None
    world.file.free_at = START + 20e-3
    assert world.get(1, in_haste=False)
    assert max(world.slept) == LONGEST_PAUSE
    world.file.free_at = NEVER
    assert not world.get(30e-3, in_haste=False)


def test_who_commits_in_a_row_lets_others_in_when_its_turn_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = FileStorage(f"file://{tmp_path}/state")
    asked: list[bool] = []

    def got(file: Any, deadline: float, *, in_haste: bool) -> bool:
        asked.append(in_haste)
        return get(file, deadline, in_haste=in_haste)

    def commit() -> None:
        with one.resilience_lock(KEY, 1.0):
            one.resilience_save(KEY, b"{}", one.resilience_load(KEY, 1.0).version, None, 1.0)

    monkeypatch.setattr(storage, "get", got)
    commit()
    commit()
    assert asked == [True], "nobody waits: nothing is asked but once, when the file is opened"
    entry = one._entries[KEY]
    assert entry.file is not None
    assert entry.file.plea is not None
    entry.saved, entry.turn_ends = clock.monotonic() + JUST_NOW, 0.0
    entry.file.plead(1)
    commit()
    assert asked == [True, False], "it has committed just now, and its turn is over"
    assert entry.file.plea[0] == NOBODY
    assert 0 < entry.turn_ends - clock.monotonic() < 3 * TURN
    entry.file.plead(1)
    entry.turn_ends = NEVER
    commit()
    assert asked == [True, False], "it is its turn"
