"""Processes as generators, run in every order: what kills, clocks and interleavings can do to an algorithm.

A process gives way at each `yield`: there another may go on, it may be killed, the clock may tick.  ``yield condition``
(a function) waits until it is true.  A schedule is the list of these choices; the same choices give the same run again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from resilience.errors import revive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, Literal

    Choice = tuple[str, int]
    Process = Generator[Callable[[], object] | None, None, object]


class Scenario(Protocol):
    """One run: fresh processes over a fresh store."""

    @property
    def processes(self) -> Sequence[Process]:
        """The processes; each gives way at its `yield`s, and waits for what it yields."""
        ...

    def killed(self, process: int) -> None:
        """A process is gone: what the system would free is freed."""
        ...

    def tick(self) -> None:
        """Time passes."""
        ...

    def check(self) -> None:
        """All processes have ended: raise if that cannot be."""
        ...


class ScheduleFailed(AssertionError):
    """A schedule broke a scenario; its cause is what was raised.

    `schedule` is the list of choices: ``("run", n)``, ``("kill", n)``, ``("tick", 0)``; `replay` runs it again.
    """

    def __init__(self, schedule: Sequence[Choice], error: BaseException) -> None:
        steps = " ".join(name if name == "tick" else f"{name}:{process}" for name, process in schedule)
        super().__init__(f"{type(error).__name__}: {error}\n  schedule: {steps}")
        self.schedule = tuple(schedule)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as it is: what a process pool cannot bring back, it waits for."""
        return revive, (type(self), self.args, dict(self.__dict__))


@dataclass(frozen=True, slots=True)
class Explored:
    """How far an exploration came: `schedules` were run; `complete` if there are no others."""

    schedules: int
    complete: bool


MOST_STEPS = 10_000
"""Choices of one schedule; a scenario that takes more does not end."""


def explore(
    build: Callable[[], Scenario],
    *,
    limit: int = 10_000,
    kills: int = 0,
    ticks: int = 0,
    order: Literal["depth", "random"] = "depth",
    seed: int = 0,
) -> Explored:
    """Run a scenario under many schedules, each once.

    :param build: makes a fresh scenario.
    :param limit: schedules to run at most.
    :param kills: processes that may be killed in one schedule.
    :param ticks: times that the clock may tick in one schedule.
    :param order: ``depth`` goes through all of them in order; ``random`` draws them, also again.
    :param seed: of what is drawn.
    :raises ScheduleFailed: a process or the final check raised.
    """
    path: list[tuple[int, int]] = []  # of the last schedule: which choice was taken, of how many
    chance = random.Random(seed) if order == "random" else None  # noqa: S311 - a run can be repeated
    for number in range(1, limit + 1):
        turn = _Turn(path, chance)
        _Run(build(), turn.choose, kills, ticks).go()
        if chance is None:
            path = turn.taken
            while path and path[-1][0] + 1 == path[-1][1]:
                path.pop()
            if not path:
                return Explored(number, complete=True)
            path[-1] = (path[-1][0] + 1, path[-1][1])
    return Explored(limit, complete=False)


class _Turn:
    """The choices of one schedule: those of `path`, and then the first ones; or drawn."""

    def __init__(self, path: Sequence[tuple[int, int]], chance: random.Random | None) -> None:
        self.path = path
        self.chance = chance
        self.taken: list[tuple[int, int]] = []

    def choose(self, choices: Sequence[Choice]) -> Choice:
        depth = len(self.taken)
        if self.chance is not None:
            index = self.chance.randrange(len(choices))
        else:
            index = self.path[depth][0] if depth < len(self.path) else 0
        self.taken.append((index, len(choices)))
        return choices[index]


def replay(build: Callable[[], Scenario], schedule: Sequence[Choice]) -> None:
    """Run one schedule again.

    :raises ScheduleFailed: as it did.
    :raises ValueError: it does not fit the scenario.
    """
    steps = iter(schedule)

    def choose(choices: Sequence[Choice]) -> Choice:
        wanted = next(steps, None)
        if wanted is None or wanted not in choices:
            raise ValueError(f"the schedule does not fit: {wanted} where {', '.join(map(str, choices))} are possible")
        return wanted

    _Run(build(), choose, kills=MOST_STEPS, ticks=MOST_STEPS).go()


class _Run:
    """One run of a scenario."""

    def __init__(
        self, scenario: Scenario, choose: Callable[[Sequence[Choice]], Choice], kills: int, ticks: int
    ) -> None:
        self.scenario = scenario
        self.choose = choose
        self.kills = kills
        self.ticks = ticks
        self.processes = dict(enumerate(scenario.processes))
        self.waits: dict[int, Callable[[], object]] = {}
        self.dead: list[Process] = []  # kept: a killed process runs no `finally`
        self.schedule: list[Choice] = []

    def go(self) -> None:
        """Run it to its end."""
        while self.processes:
            choices = self._choices()
            if not choices:
                waiting = RuntimeError(f"processes {sorted(self.processes)} wait for each other for ever")
                raise ScheduleFailed(self.schedule, waiting)
            choice = self.choose(choices)
            self.schedule.append(choice)
            try:
                self._take(*choice)
            except Exception as error:
                raise ScheduleFailed(self.schedule, error) from error
        try:
            self.scenario.check()
        except Exception as error:
            raise ScheduleFailed(self.schedule, error) from error

    def _choices(self) -> list[Choice]:
        waits = self.waits
        choices = [("run", number) for number in self.processes if number not in waits or waits[number]()]
        if self.kills:
            choices += [("kill", number) for number in self.processes]
        if self.ticks:
            choices.append(("tick", 0))
        return choices

    def _take(self, name: str, number: int) -> None:
        if len(self.schedule) > MOST_STEPS:
            raise RuntimeError(f"the scenario does not end within {MOST_STEPS} steps")
        if name == "run":
            self.waits.pop(number, None)
            try:
                condition = next(self.processes[number])
            except StopIteration:
                del self.processes[number]
            else:
                if condition is not None:
                    self.waits[number] = condition
        elif name == "kill":
            self.kills -= 1
            self.waits.pop(number, None)
            self.dead.append(self.processes.pop(number))
            self.scenario.killed(number)
        else:
            self.ticks -= 1
            self.scenario.tick()
