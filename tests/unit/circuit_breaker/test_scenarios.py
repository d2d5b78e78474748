"""The published behaviour of other breakers, through every way to make a call, on memory and on files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes.support import METHODS, Crowd
from unit.circuit_breaker.player import SPAN, START, WAYS, Player, Ways, breaker_of, by_call, quiet, words
from unit.circuit_breaker.scenarios import SCENARIOS

from resilience import Runtime
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unit.circuit_breaker.player import Way


@pytest.fixture(scope="module")
def ways() -> Iterator[Ways]:
    ways = Ways()
    yield ways
    ways.close()


def begin(clock: ManualClock) -> None:
    """Wait for the next instant at which a scenario may begin."""
    clock.advance(SPAN - (clock.wall() - START) % SPAN)


def played(way: Way, url: str) -> Iterator[str]:
    """Play all scenarios; yield what goes wrong."""
    clock = ManualClock(START)
    with quiet(), Runtime(storage=url, clock=clock, environ={}) as runtime:
        for number, scenario in enumerate(SCENARIOS):
            begin(clock)
            player = Player(breaker_of(f"scenario {number}", scenario.settings, runtime), clock, way)
            try:
                player.play(scenario.steps)
            except AssertionError as error:
                yield f"{scenario.source}: {error}"


def url_of(storage: str, folder: Path) -> str:
    return "memory:" if storage == "memory" else (folder / "state").as_uri()


def test_there_are_enough_scenarios_and_each_says_where_it_is_from() -> None:
    assert len(SCENARIOS) >= 60
    assert len({scenario.source for scenario in SCENARIOS}) == len(SCENARIOS)
    projects = {scenario.source.replace(",", "").split()[0] for scenario in SCENARIOS}
    assert projects == {"resilience4j", "gobreaker", "failsafe-go", "failsafe", "Polly"}
    assert sum(bool(scenario.differs) for scenario in SCENARIOS) >= 10
    page = (Path(__file__).parents[3] / "docs" / "trust.md").read_text("utf-8")
    assert f"| {len(SCENARIOS)} scenarios from the published behaviour" in page


@pytest.mark.parametrize("storage", ["memory", "file"])
@pytest.mark.parametrize("way", WAYS)
def test_it_does_what_others_publish_or_what_we_chose(way: str, storage: str, ways: Ways, tmp_path: Path) -> None:
    assert list(played(ways[way], url_of(storage, tmp_path))) == []


# --- two processes ----------------------------------------------------------------------------------------------------

_theirs: dict[str, tuple[Player, ManualClock]] = {}


def take_step(url: str, name: str, settings: dict[str, Any], at: float, word: str) -> float:
    """Take one step in the process that was started, at an instant; return the instant at which it ended."""
    if name not in _theirs:
        clock = ManualClock(START)
        runtime = Runtime(storage=url, clock=clock, environ={})
        _theirs[name] = Player(breaker_of(name, settings, runtime), clock, by_call), clock
    player, clock = _theirs[name]
    clock.advance(at - clock.wall())
    player.step(word)
    return clock.wall()


def take_token(url: str, name: str, settings: dict[str, Any], at: float, token: str, outcome: str) -> None:
    """Report there for a permit that was taken here."""
    take_step(url, name, settings, at, "wait:0")
    breaker = _theirs[name][0].breaker
    (breaker.record_success if outcome == "ok" else breaker.record_failure)(token=token)


@pytest.mark.heavy
def test_it_does_the_same_where_every_other_step_is_taken_by_another_process(tmp_path: Path) -> None:
    url = (tmp_path / "state").as_uri()
    clock = ManualClock(START)
    wrong: list[str] = []
    with Crowd(METHODS[0], 1) as crowd, Runtime(storage=url, clock=clock, environ={}) as runtime:
        for number, scenario in enumerate(SCENARIOS):
            name, settings = f"scenario {number}", scenario.settings
            begin(clock)
            ours = Player(breaker_of(name, settings, runtime), clock, by_call)
            word = ""
            try:
                for turn, word in enumerate(words(scenario.steps)):
                    taker, _, outcome = word.partition(".")
                    if turn % 2 == 0 or word.startswith(("take", "wait")) or outcome == "free":
                        ours.step(word)
                    elif taker in ours.permits:
                        crowd.one(0, take_token, url, name, settings, clock.wall(), ours.permits[taker].token, outcome)
                    else:
                        ended = crowd.one(0, take_step, url, name, settings, clock.wall(), word)
                        clock.advance(ended - clock.wall())
            except AssertionError as error:
                wrong.append(f"{scenario.source}: {word}: {error}")
    assert wrong == []
