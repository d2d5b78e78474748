"""Guards against decay: what a call executes, allocates and asks of the system is bounded, in counts and not in times.

A count is the same on a busy machine and on a quiet one.  Each bound is what the interpreter that needs most executes
today, and a few in a hundred on top.  Whoever makes a road longer raises its bound and says in the commit what for;
whoever makes it shorter lowers it.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from counting import instructions
from roads import GATHERED, WARM, roads
from storages import Casual

import resilience
from resilience import CircuitBreaker, Key, Runtime, Snapshot, StorageUnavailable, Word
from resilience.clock import wall
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from counting import Instructions

    from resilience import Version

TESTS = Path(__file__).parents[1]

BOUNDS = {
    "closed": 80,
    "closed async": 85,
    "gathered": 91,
    "gathered, slow calls": 95,
    "row of gathered": 7_600,
    "rejection": 124,
    "failure": 1_420,
    "failure, time window": 1_800,
}
"""Bytecode instructions of each road at most, all that is called included, the protected function aside."""

LONG = {"closed": 50_000, "gathered": 10_000, "failure": 500, "failure, time window": 500}
"""So often does a process that lives long walk a road."""

ROOM = 4_096
"""Bytes in which what is gathered at the moment, the ten buckets of a window and numbers that became longer find room;
a leak does not: a pointer a walk is 4,000 bytes at least, an object twice that."""


# --- instructions -----------------------------------------------------------------------------------------------------

COUNTING = """
import json, sys
from counting import counted_roads
print(json.dumps({watched: counted_roads(sys.argv[1] + watched, watched=bool(watched)) for watched in ("", "watched")}))
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Instructions]]:
    """Count in a process without pytest, which rewrites the asserts of every distribution that has a plugin for it.

    Returned is, for a runtime that nobody watches (``""``) and for one whose hooks are wrapped (``watched``), what each
    road executes.
    """
    folder = tmp_path_factory.mktemp("counted").as_uri()
    done = subprocess.run(
        [sys.executable, "-c", COUNTING, folder],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        watched: {road: Counter(each) for road, each in by_road.items()}
        for watched, by_road in json.loads(done.stdout).items()
    }


@pytest.mark.parametrize("road", BOUNDS)
def test_a_call_executes_no_more_than_it_did(counted: dict[str, dict[str, Instructions]], road: str) -> None:
    found = counted[""][road]
    where = ", ".join(f"{module} {count}" for module, count in found.most_common())
    assert found.total() <= BOUNDS[road], (
        f"{road}: {found.total()} bytecode instructions, at most {BOUNDS[road]} are allowed; they stand in {where}"
    )


def test_every_road_has_its_bound(counted: dict[str, dict[str, Instructions]]) -> None:
    assert list(counted[""]) == list(BOUNDS)


def test_instructions_are_counted_by_the_file_that_they_stand_in() -> None:
    one = instructions(lambda: Key("circuit_breaker", "name"))
    assert set(one) == {"resilience/storage"}
    assert instructions(lambda: Key("circuit_breaker", "name")) == one
    assert instructions(lambda: (Key("circuit_breaker", "name"), Key("circuit_breaker", "name"))) == one + one


class Server(Casual):
    """What a server is to its clients: it tells its time, and of commits; it may be down."""

    is_down = False

    def _told(self, snapshot: Snapshot) -> Snapshot:
        if self.is_down:
            raise StorageUnavailable("the server is down")
        return Snapshot(snapshot.payload, snapshot.version, Word([0], 0, look=int), time=wall())

    def _load(self, key: Key, timeout: float) -> Snapshot:
        return self._told(super()._load(key, timeout))

    def _save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self._told(super()._save(key, payload, expected, expires_at, timeout))


REPORTING = {"row of gathered", "failure", "failure, time window", "permit"}
"""The roads on which something is reported to the engine: in an outage, it has to find the private copy first."""


def other_roads(runtime: Runtime) -> dict[str, Callable[[], None]]:
    """Make a block and a permit: the roads of those who decorate nothing."""
    breaker = CircuitBreaker("blocks and permits", runtime=runtime)

    def block() -> None:
        with breaker:
            pass

    def permit() -> None:
        breaker.acquire().success()

    for _ in range(WARM):
        block()
        permit()
    return {"block": block, "permit": permit}


def test_in_an_outage_a_call_executes_what_one_in_memory_does() -> None:
    server = Server("memory:")
    with Runtime(storage=server, environ={}) as runtime, Runtime(storage="memory:", environ={}) as here:
        breaker = CircuitBreaker("learns the time of the server", runtime=runtime)
        breaker.call(int)
        server.is_down = True
        in_outage, in_memory = (
            {name: instructions(road).total() for name, road in (roads(each) | other_roads(each)).items()}
            for each in (runtime, here)
        )
        assert breaker.status().degraded
    most = {name: count * 1.1 if name in REPORTING else count for name, count in in_memory.items()}
    assert {name: (count, most[name]) for name, count in in_outage.items() if count > most[name]} == {}


# --- hooks ------------------------------------------------------------------------------------------------------------


def in_pluggy(found: Instructions) -> int:
    return sum(count for module, count in found.items() if module.startswith("pluggy/"))


def test_no_hook_is_called_through_pluggy(counted: dict[str, dict[str, Instructions]]) -> None:
    assert {road: in_pluggy(found) for road, found in counted[""].items()} == dict.fromkeys(BOUNDS, 0)


def test_a_closed_call_calls_no_hook_even_if_somebody_watches(counted: dict[str, dict[str, Instructions]]) -> None:
    calls = {road: in_pluggy(found) for road, found in counted["watched"].items()}
    assert calls["failure"] > 0, "the wrappers were not called: the test finds nothing"
    quiet = ("closed", "closed async", "gathered", "gathered, slow calls", "rejection")
    assert {road: calls[road] for road in quiet} == dict.fromkeys(quiet, 0)


# --- allocations ------------------------------------------------------------------------------------------------------


@pytest.fixture
def still(tmp_path: Path) -> Iterator[Runtime]:
    """Return a runtime for which no time passes, so that nothing is renewed or told meanwhile."""
    with Runtime(storage=tmp_path.as_uri(), environ={}, clock=ManualClock()) as runtime:
        yield runtime


DEEP = 30
"""Frames from an allocation to the test that it is made for, at most."""


def grown(work: Callable[[], object], rounds: int = 3, first: Callable[[], object] = int) -> Counter[str]:
    """How many bytes each line of our packages holds more after something was done: of the round with the least of all.

    Counted is what this thread does: others may be left by other tests, and go on.
    What is held already when counting begins is not counted; `first` replaces it by what is.
    """
    folder = resilience.__path__[0].rpartition("resilience")[0]
    ours = [tracemalloc.Filter(inclusive=True, filename_pattern=f"{folder}*resilience*")]
    from_here = [tracemalloc.Filter(inclusive=True, filename_pattern=__file__, all_frames=True)]

    def held() -> tracemalloc.Snapshot:
        gc.collect()
        return tracemalloc.take_snapshot().filter_traces(ours).filter_traces(from_here)

    found: list[Counter[str]] = []
    tracemalloc.start(DEEP)
    try:
        first()
        for _ in range(rounds):
            before = held()
            work()
            more = held().compare_to(before, "lineno")
            found.append(Counter({str(each.traceback): each.size_diff for each in more if each.size_diff}))
    finally:
        tracemalloc.stop()
    return min(found, key=lambda each: each.total())


def repeated(road: Callable[[], None], times: int) -> Callable[[], None]:
    def work() -> None:
        for _ in range(times):
            road()

    for _ in range(WARM):
        road()
    return work


@pytest.mark.parametrize("road", ["closed", "closed async", "gathered", "gathered, slow calls"])
def test_no_allocation_outlives_a_call(road: str, still: Runtime) -> None:
    # Less than a byte a call: a few floats that take others' places may not have been counted when they were made.
    calls = 4 * GATHERED
    assert grown(repeated(roads(still)[road], calls)).total() < calls


def test_of_a_rejection_one_pointer_stays_until_it_is_told(still: Runtime) -> None:
    # Which shows as well that what stays is found.
    assert 4 * 1_000 < grown(repeated(roads(still)["rejection"], 1_000)).total() < 16 * 1_000


@pytest.mark.parametrize("road", LONG)
def test_a_process_that_lives_long_does_not_grow(road: str, tmp_path: Path) -> None:
    with Runtime(storage=tmp_path.as_uri(), environ={}) as runtime:
        walk = roads(runtime)[road]
        # Twice: on a slow machine the first one is the first to last for a second, after which the storage is asked.
        assert grown(repeated(walk, LONG[road]), rounds=2, first=repeated(walk, WARM)).total() < ROOM


# --- the system -------------------------------------------------------------------------------------------------------

STRACE = shutil.which("strace")
TRACED = """
import os, sys
from pathlib import Path
from resilience import Runtime
from roads import roads
folder, name, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with Runtime(storage=(folder / "state").as_uri(), environ={}) as runtime:
    road = roads(runtime)[name]
    os.rmdir(folder / "begin")
    for _ in range(times):
        road()
    os.rmdir(folder / "end")
"""
MEMORY = "brk,mmap,munmap,mremap,madvise"
"""How the interpreter gets memory, whenever it does, says nothing of a call; a file that is mapped is opened first."""


def strace_works() -> bool:
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "-qq", "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0


def system_calls(folder: Path, road: str, times: int) -> tuple[list[str], float]:
    """Walk a road so often; the names of all system calls meanwhile, and the seconds that it took."""
    assert STRACE is not None
    for mark in ("begin", "end"):
        (folder / mark).mkdir()
    log = folder / "log"
    subprocess.run(
        [
            STRACE,
            "-f",
            "-qq",
            "-ttt",
            "-e",
            f"trace=!{MEMORY}",
            "-e",
            "signal=none",
            "-o",
            log,
            sys.executable,
            "-c",
            TRACED,
            folder,
            road,
            str(times),
        ],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        check=True,
    )
    lines = [line.split(maxsplit=2) for line in log.read_text().splitlines()]
    begin, end = (
        next(i for i, (*_, call) in enumerate(lines) if f'/{mark}"' in call and call.startswith("rmdir"))
        for mark in ("begin", "end")
    )
    return [call.partition("(")[0] for *_, call in lines[begin + 1 : end]], float(lines[end][1]) - float(
        lines[begin][1]
    )


@pytest.mark.skipif(not strace_works(), reason="strace is not here or may not trace")
def test_a_closed_call_asks_nothing_of_the_system_but_one_stat_a_second(tmp_path: Path) -> None:
    calls, seconds = system_calls(tmp_path, "closed", 20_000)
    assert set(calls) <= {"stat", "newfstatat", "statx"}
    assert len(calls) <= seconds / 0.9 + 1


@pytest.mark.skipif(not strace_works(), reason="strace is not here or may not trace")
def test_a_failure_costs_few_system_calls(tmp_path: Path) -> None:
    # Lock, slot, head, unlock; and it shows that what is asked of the system is found.
    calls, seconds = system_calls(tmp_path, "failure", 100)
    assert 400 <= len(calls) <= 400 + 10 * (seconds + 1)
