"""Run the tests against one mutant after the other, quickly.

The tests are collected once.  A mutant gets a process that is forked from there and runs the tests that reach its
function until one fails: no interpreter is started, nothing is imported or collected again.  Those that found another
mutant of the same function come first.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

FOUND, TIMEOUT, SURVIVED = "found", "timeout", "survived"
CHOICE = "MUTANT_UNDER_TEST"
"""The variable by which mutmut's mutants know which of them is meant."""
ARGUMENTS = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-m", "not heavy"]


def function_of(mutant: str) -> str:
    """Name the function that a mutant is one of, as mutmut does."""
    return mutant.rpartition("__mutmut_")[0]


class Played(NamedTuple):
    """What became of a mutant, which test found it, and how that said so."""

    outcome: str
    test: str = ""
    said: str = ""


class Reach(NamedTuple):
    """What a test reaches, and how long it takes in seconds."""

    functions: list[str]
    seconds: float


class _Child(NamedTuple):
    mutant: str
    folder: Path
    begun: float
    limit: float


class Loop:
    """The plugin of pytest that does it.

    :param mutants: their names.
    :param before: the tests that found them the last time: those come first.
    :param last: those of them that are expected to survive, which takes all tests: they come last.
    :param children: how many to play at one time.
    :param note: called with each mutant's name and what became of it.
    """

    def __init__(
        self,
        mutants: Sequence[str],
        before: Mapping[str, str],
        last: Collection[str],
        children: int,
        note: Callable[[str, Played], None],
    ) -> None:
        self._mutants = mutants
        self._last = last
        self._before = before
        self._children = children
        self._note = note
        self._running: dict[int, _Child] = {}
        self._found_by: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._said: Path | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In the process of a mutant: keep which test fails first, and how."""
        if report.failed and self._said is not None:
            lines = report.longreprtext.splitlines()
            self._said.write_text(json.dumps([report.nodeid, lines[-1] if lines else ""]), "utf-8")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Play, in the place of running the tests."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        reached = self._measure(session)
        gc.collect()
        gc.freeze()  # what is never looked at is never copied
        tests: defaultdict[str, list[str]] = defaultdict(list)
        for test, reach in reached.items():
            for function in reach.functions:
                tests[function].append(test)

        def length(mutant: str) -> float:
            return sum(reached[test].seconds for test in tests[function_of(mutant)])

        for mutant in sorted(self._mutants, key=lambda mutant: (mutant in self._last, length(mutant))):
            while len(self._running) >= self._children:
                self._collect()
            found = self._found_by[function_of(mutant)]
            # What no test seems to reach may be reached in a process that a test forks.
            before = self._before.get(mutant)
            chosen = sorted(
                tests[function_of(mutant)] or reached,
                key=lambda test: (test != before, -found[test], reached[test].seconds),
            )
            # Seconds of CPU, which hardly grow on a busy machine; a mutant that hangs is a rare one.
            self._begin(session, mutant, chosen, 5 + 2 * sum(reached[test].seconds for test in chosen))
        while self._running:
            self._collect()
        return True

    def _measure(self, session: pytest.Session) -> dict[str, Reach]:
        """Run all tests as they are, to see what each of them reaches."""
        reached: dict[str, Reach] = {}
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "reached"
            pid = os.fork()
            if pid == 0:
                self._said = Path(folder) / "said"
                _be_a_child(Path(folder), "stats")
                hit: set[str] = import_module("mutmut.state").state()._stats  # where the mutants note it
                for number, item in enumerate(session.items):
                    hit.clear()
                    begun = time.process_time()
                    _run(item, session.items[number + 1 : number + 2])
                    reached[item.nodeid] = Reach(sorted(hit), time.process_time() - begun)
                    if session.testsfailed:
                        break
                result.write_text(json.dumps([reached, list(sys.modules)]), "utf-8")
                os._exit(0)
            os.waitpid(pid, 0)
            said = Path(folder) / "said"
            if said.exists():
                print(f"a test fails without any mutant: {said.read_text('utf-8')}", file=sys.stderr)
                raise session.Failed
            measured, modules = json.loads(result.read_text("utf-8"))
            for name in modules:  # what tests import when they need it is imported once
                with suppress(ImportError):
                    import_module(name)
            return {test: Reach(*reach) for test, reach in measured.items()}

    def _begin(self, session: pytest.Session, mutant: str, tests: list[str], limit: float) -> None:
        folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        pid = os.fork()
        if pid:
            self._running[pid] = _Child(mutant, folder, time.monotonic(), limit)
            return
        self._said = folder / "said"
        _be_a_child(folder, mutant)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
        faulthandler.dump_traceback_later(60 + 20 * limit, exit=True)
        items = {item.nodeid: item for item in session.items}
        for number, test in enumerate(tests):
            _run(items[test], [items[after] for after in tests[number + 1 : number + 2]])
            if session.testsfailed:
                os._exit(1)
        os._exit(0)

    def _collect(self) -> None:
        pid, status = os.wait()
        child = self._running.pop(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what a test has started, and did not live to end
        said = child.folder / "said"
        if said.exists():
            test, line = json.loads(said.read_text("utf-8"))
            self._found_by[function_of(child.mutant)][test] += 1
            played = Played(TIMEOUT if "from pytest-timeout" in line else FOUND, test, line)
        elif status:  # it was ended at its limit, or the interpreter itself fell
            played = Played(TIMEOUT, said=f"status {os.waitstatus_to_exitcode(status)}")
        else:
            played = Played(SURVIVED)
        shutil.rmtree(child.folder, ignore_errors=True)
        self._note(child.mutant, played)


def _be_a_child(folder: Path, mutant: str) -> None:
    os.setsid()
    os.environ[CHOICE] = mutant
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)


def _run(item: pytest.Item, following: Sequence[pytest.Item]) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following[0] if following else None)


def play(
    tests: list[str],
    mutants: Sequence[str],
    before: Mapping[str, str],
    last: Collection[str],
    children: int,
    note: Callable[[str, Played], None],
) -> None:
    """Play mutants that stand below `src` in the present folder; see `Loop`."""
    source = str(Path("src").resolve())
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source  # for the processes that tests start
    pytest.main([*ARGUMENTS, *tests], plugins=[Loop(mutants, before, last, children, note)])
