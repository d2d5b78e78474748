"""Every order of a few processes: a missing lock is found on the first tries, a right algorithm passes all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from resilience.testing import Explored, ScheduleFailed, explore, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    Process = Generator[Callable[[], object] | None, None, None]


class Counting:
    """Processes that count in shared memory, with a lock or without one."""

    def __init__(self, *, processes: int = 2, locked: bool = True, freed: bool = True) -> None:
        self.count = 0
        self.done = 0
        self.holder: int | None = None
        self.locked = locked
        self.freed = freed
        self.ticks = 0
        self.processes: Sequence[Process] = [self.work(number) for number in range(processes)]

    def work(self, number: int) -> Process:
        if self.locked:
            while self.holder is not None:
                yield lambda: self.holder is None
            self.holder = number
        seen = self.count
        yield None
        self.count = seen + 1
        self.done += 1
        self.holder = None

    def killed(self, process: int) -> None:
        if self.freed and self.holder == process:
            self.holder = None

    def tick(self) -> None:
        self.ticks += 1

    def check(self) -> None:
        if self.count != self.done:
            raise AssertionError(f"{self.done} counted, {self.count} there")


def test_a_missing_lock_is_found_and_can_be_replayed() -> None:
    with pytest.raises(ScheduleFailed, match="2 counted, 1 there") as caught:
        explore(lambda: Counting(locked=False), limit=10)
    assert "schedule: run:0" in str(caught.value)
    with pytest.raises(ScheduleFailed, match="2 counted, 1 there"):
        replay(lambda: Counting(locked=False), caught.value.schedule)


def test_with_a_lock_every_order_is_right() -> None:
    explored = explore(Counting, kills=1, ticks=1)
    assert explored.complete
    assert explored.schedules > 20


def test_a_lock_that_dies_with_its_holder_is_found() -> None:
    with pytest.raises(ScheduleFailed, match="wait for each other for ever"):
        explore(lambda: Counting(freed=False), kills=1)


def test_random_orders() -> None:
    assert explore(Counting, order="random", limit=50, kills=1, ticks=2) == Explored(50, complete=False)
    with pytest.raises(ScheduleFailed) as first:
        explore(lambda: Counting(locked=False, processes=4), order="random", seed=3)
    with pytest.raises(ScheduleFailed) as again:
        explore(lambda: Counting(locked=False, processes=4), order="random", seed=3)
    assert first.value.schedule == again.value.schedule


def test_the_limit_is_kept() -> None:
    assert explore(lambda: Counting(processes=3), limit=7) == Explored(7, complete=False)


class Raising(Counting):
    def work(self, number: int) -> Process:
        yield None
        raise OSError("boom")


class Endless(Counting):
    def work(self, number: int) -> Process:
        while True:
            yield None


@pytest.mark.parametrize(("kind", "says"), [(Raising, "OSError: boom"), (Endless, "does not end within 10000 steps")])
def test_a_process_that_raises_or_does_not_end(kind: Any, says: str) -> None:
    with pytest.raises(ScheduleFailed, match=says):
        explore(kind, limit=1)


def test_a_schedule_of_another_scenario() -> None:
    with pytest.raises(ValueError, match="the schedule does not fit"):
        replay(Counting, [("run", 7)])
    with pytest.raises(ValueError, match="the schedule does not fit: None"):
        replay(Counting, [("run", 0)])


def test_a_killed_process_runs_no_finally() -> None:
    cleared: list[int] = []

    class Careful(Counting):
        def work(self, number: int) -> Process:
            try:
                yield None
            finally:
                if not self.over:
                    cleared.append(number)

        over = False

        def check(self) -> None:
            assert cleared == [1]
            self.over = True

    replay(lambda: Careful(processes=2), [("run", 0), ("kill", 0), ("run", 1), ("run", 1)])
