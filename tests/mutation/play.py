"""Mutation testing: whatever is changed in the state machine or the engine, some test says so.

    tox run -e mutation                              the state machine
    tox run -e mutation -- engine                    the engine
    tox run -e mutation -- engine --only gather.Owed a part of it

mutmut changes one thing at a time, and `loop.py` runs the tests that reach it.  A change that no test finds must stand
in `survivors.toml` with the reason why it changes nothing that anybody can see; any other is an error.  A reason for a
change that is found after all is named: either it is a mistake, or a busy machine ended the tests too early.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tomllib
from collections import Counter
from difflib import unified_diff
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from mutation.loop import FOUND, SURVIVED, TIMEOUT, Played, play

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")
HANGS_AFTER = 60
"""Seconds for one test; the slowest takes three."""


class Target(NamedTuple):
    """What is changed, and the tests that shall find it."""

    modules: list[str]
    tests: list[str]


TARGETS = {
    "state": Target(
        ["resilience_circuit_breaker/_state.py", "resilience_circuit_breaker/_window.py"],
        # The quickest of those that play the machine itself; the models and scenarios would find the same, later.
        [
            f"tests/unit/circuit_breaker/test_{name}.py"
            for name in (
                "breaker_steps",
                "breaker_edges",
                "window_arithmetic",
                "breaker_table",
                "breaker_states",
                "breaker_windows",
                "breaker_kin",
                "breaker_policy",
            )
        ],
    ),
    "engine": Target(
        [f"resilience/{name}.py" for name in ("engine", "commit", "gather", "permits", "outages", "fuse", "awaiting")],
        [
            "tests/unit/test_engine.py",
            "tests/unit/test_engine_async.py",
            "tests/unit/test_engine_faults.py",
            "tests/unit/test_gathering.py",
            "tests/unit/test_contention.py",
            "tests/unit/test_lane.py",
            "tests/unit/test_core_edges.py",
            "tests/unit/test_engine_particulars.py",
            "tests/unit/test_engine_deadlines.py",
            "tests/unit/test_network_outages.py",
            "tests/unit/test_guard.py",
            "tests/unit/test_wrong_arguments.py",
            "tests/unit/test_freshness.py",
            "tests/unit/test_ports.py",
            "tests/unit/test_reload.py",
            "tests/unit/test_shared_clock.py",
        ],
    ),
}


class Mutant(NamedTuple):
    """What it changes, and the function as it was made from: what became of it holds as long as that is the same."""

    change: str
    function: str


def lay_out(target: Target, folder: Path) -> dict[str, Mutant]:
    """Put sources, with all mutants in them, and tests where they are played; return the mutants by their names."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in (ROOT / "resilience", *(ROOT / "plugins").iterdir()):
        if source.is_dir():
            shutil.copytree(source, folder / "src" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    settings = {
        name: project["tool"]["pytest"][name] for name in ("pythonpath", "consider_namespace_packages", "markers")
    }
    settings |= {"addopts": ["--import-mode=importlib"], "filterwarnings": ["error"], "timeout": str(HANGS_AFTER)}
    lines = ["[tool.pytest]", *(f"{name} = {json.dumps(value)}" for name, value in settings.items())]
    lines += ["[tool.mutmut]", 'source_paths = ["src"]']
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", "utf-8")
    made: dict[str, Mutant] = {}
    os.chdir(folder)  # where mutmut looks for its settings
    for module in target.modules:
        made |= mutate(folder / "src" / module, module.removesuffix(".py").replace("/", "."))
    return made


def mutate(path: Path, module: str) -> dict[str, Mutant]:
    """Put all its mutants into a module."""
    mutmut: Any = import_module("mutmut.mutation.file_mutation")  # no part of the project's own environments
    mutated = mutmut.mutate_file_contents(str(path), path.read_text("utf-8"))
    path.write_text(mutated.code, "utf-8")
    lines = mutated.code.splitlines()
    made: dict[str, Mutant] = {}
    for name in mutated.mutant_names:
        mangled = name.rpartition("__mutmut_")[0]
        old, new = (
            [line.replace(each, mangled) for line in lines[span.start - 1 : span.end]]
            for each in (f"{mangled}__mutmut_orig", name)
            for span in (mutated.line_span_by_function_name[each],)
        )
        function = mangled.replace("xǁ", "").replace("ǁ", ".").removeprefix("x_")
        made[f"{module}.{name}"] = Mutant(f"{module.rpartition('.')[2]}.{function}: {change(old, new)}", "\n".join(old))
    return made


def change(old: list[str], new: list[str]) -> str:
    """Say what a mutant changes: the line as it became or, where one is left out, as it was."""
    changed = [line for line in unified_diff(old, new, lineterm="", n=0) if not line.startswith(("---", "+++"))]
    added = [line[1:].strip() for line in changed if line.startswith("+")]
    removed = [line[1:].strip() for line in changed if line.startswith("-")]
    return added[0] if added and added[0] not in {")", ""} else f"without {removed[0]}"


def explained() -> dict[str, str]:
    """Why mutants that no test finds change nothing."""
    reasons: list[dict[str, Any]] = tomllib.loads(SURVIVORS.read_text("utf-8"))["reason"]
    return {mutant: reason["why"] for reason in reasons for mutant in reason["mutants"]}


def judge(target: Target, mutants: dict[str, Mutant], played: dict[str, Played]) -> int:
    """Compare what survived with what is explained; return the exit status."""
    known = explained()
    outcomes = Counter(played[name].outcome if name in played else "not played" for name in mutants)
    survived = [mutants[name].change for name, what in played.items() if what.outcome == SURVIVED]
    unknown = sorted(change for change in survived if change not in known)
    modules = {Path(module).stem for module in target.modules}
    stale = [change for change in known if change.split(".")[0] in modules and change not in survived]
    for change in unknown:
        print(f"no test finds   {change}")
    for change in () if outcomes["not played"] else stale:  # of what was not played nothing can be said
        print(f"is found by now {change}")
    found = outcomes[FOUND] + outcomes[TIMEOUT]
    print(
        f"{len(mutants)} mutants: {found} found ({found / max(len(played), 1):.1%}; {outcomes[TIMEOUT]} a test without"
        f" end), {len(survived) - len(unknown)} that change nothing, {len(unknown)} not found,"
        f" {outcomes['not played']} not played"
    )
    return 1 if unknown or outcomes["not played"] else 0


def main() -> int:
    """Play."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?", default="state", choices=TARGETS)
    parser.add_argument("--folder", type=Path, default=Path("build/mutation"), help="where it is played, and kept")
    parser.add_argument("--only", nargs="+", default=[""], help="those whose change contains one of these texts")
    parser.add_argument("--children", type=int, default=2 * (os.cpu_count() or 1), help="one that hangs takes no CPU")
    parser.add_argument("--again", action="store_true", help="also those that no test found and no reason explains")
    parser.add_argument("--anew", action="store_true", help="all, even those whose function is as it was")
    parser.add_argument("--judge", action="store_true", help="play nothing")
    options = parser.parse_args()
    target = TARGETS[options.target]
    folder: Path = options.folder.resolve() / options.target
    mutants = lay_out(target, folder / "mutants")
    journal = folder / "played.jsonl"
    played: dict[str, Played] = {}
    before: dict[str, str] = {}
    for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
        name, function, *what = json.loads(line)
        before[name] = Played(*what).test
        if name in mutants and mutants[name].function == function and not options.anew:
            played[name] = Played(*what)

    with journal.open("a", encoding="utf-8") as lines:

        def note(name: str, what: Played) -> None:
            played[name] = what
            lines.write(json.dumps([name, mutants[name].function, *what]) + "\n")
            lines.flush()
            print(f"{len(played):5} {what.outcome:9} {mutants[name].change}", file=sys.stderr)

        known = explained()
        chosen = [
            name
            for name, mutant in mutants.items()
            if any(text in mutant.change for text in options.only)
            and (name not in played or (options.again and played[name].outcome != FOUND and mutant.change not in known))
        ]
        if chosen and not options.judge:
            last = {name for name in chosen if mutants[name].change in known}
            play(target.tests, chosen, before, last, options.children, note)
    return judge(target, mutants, played)


if __name__ == "__main__":
    sys.exit(main())
