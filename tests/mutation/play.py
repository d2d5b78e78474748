"""Mutation testing: whatever is changed in the state machine or the engine, some test says so.

    tox run -e mutation                         the state machine, wholly
    tox run -e mutation -- engine --sample 400  the engine: so many mutants, drawn with a seed

mutmut changes one thing at a time and runs the tests that reach it.  A change that no test finds must stand in
`survivors.toml` with the reason why it changes nothing that anybody can see; any other is an error.  A reason for a
change that is found after all is named: either it is a mistake, or a busy machine ended the tests too early.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from contextlib import chdir
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.toml")


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
            )
        ],
    ),
    "engine": Target(
        ["resilience/engine.py", "resilience/commit.py", "resilience/gather.py", "resilience/permits.py"],
        [
            "tests/unit/test_engine.py",
            "tests/unit/test_engine_async.py",
            "tests/unit/test_engine_faults.py",
            "tests/unit/test_gathering.py",
            "tests/unit/test_core_edges.py",
            "tests/unit/test_engine_particulars.py",
            "tests/unit/test_guard.py",
            "tests/unit/test_ports.py",
        ],
    ),
}
KILLED = {1: "killed", 3: "killed", -24: "timeout", 24: "timeout", 36: "timeout", 152: "timeout", 255: "timeout"}
"""What mutmut writes down of a mutant that was found; one that makes a test run for ever is found too."""
PYTEST = ["-q", "-p", "no:cacheprovider", "-m", "not heavy"]


def lay_out(target: Target, folder: Path) -> None:
    """Put sources and tests where mutmut expects them: all packages below `src`."""
    folder.mkdir(parents=True, exist_ok=True)
    # What mutmut made of a file stays only as long as the file is the same.
    for made in ("mutants/src", "mutants/tests"):
        for path in sorted((folder / made).rglob("*.py")) if (folder / made).exists() else []:
            if path.name not in {Path(module).name for module in target.modules}:
                path.unlink()
    for source in (ROOT / "resilience", *(ROOT / "plugins").iterdir()):
        if source.is_dir():
            shutil.copytree(source, folder / "src" / source.name, dirs_exist_ok=True)
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    kept = ("pythonpath", "consider_namespace_packages", "filterwarnings", "timeout", "markers")
    lines = [
        "[tool.pytest]",
        'addopts = ["--import-mode=importlib"]',
        *(f"{name} = {json.dumps(project['tool']['pytest'][name])}" for name in kept),
        "[tool.mutmut]",
        'source_paths = ["src"]',
        'also_copy = ["docs"]',
        f"only_mutate = {json.dumps([f'src/{module}' for module in target.modules])}",
        f"pytest_add_cli_args_test_selection = {json.dumps(target.tests)}",
        f"pytest_add_cli_args = {json.dumps(PYTEST)}",
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n", "utf-8")


def mutmut(folder: Path, *names: str, children: int) -> None:
    """Let mutmut play: all mutants, or those with these names."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(children), *names]
    subprocess.run(command, cwd=folder, check=False, stdin=subprocess.DEVNULL)


def results(target: Target, folder: Path) -> dict[str, int | None]:
    """What became of each mutant, by its name."""
    found: dict[str, int | None] = {}
    for module in target.modules:
        meta = folder / "mutants" / "src" / f"{module}.meta"
        if meta.exists():
            found |= json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
    return found


def change(folder: Path, name: str) -> str:
    """Say what a mutant changes: its function, and the line as it became or, where one is left out, as it was."""
    show: Any = import_module("mutmut.mutation.diff_apply")  # no part of the project's own environments
    module, _, mutant = name.rpartition(".")
    function = mutant.rpartition("__mutmut_")[0].replace("xǁ", "").replace("ǁ", ".").removeprefix("x_")
    with chdir(folder):
        diff: list[str] = show.get_diff_for_mutant(name, path=f"src/{module.replace('.', '/')}.py").splitlines()
    new = [line[1:].strip() for line in diff if line.startswith("+") and not line.startswith("+++")]
    old = [line[1:].strip() for line in diff if line.startswith("-") and not line.startswith("---")]
    said = new[0] if new and new[0] not in {")", ""} else f"without {old[0]}"
    return f"{module.rpartition('.')[2]}.{function}: {said}"


def explained() -> dict[str, str]:
    """Why mutants that no test finds change nothing."""
    reasons: list[dict[str, Any]] = tomllib.loads(SURVIVORS.read_text("utf-8"))["reason"]
    return {mutant: reason["why"] for reason in reasons for mutant in reason["mutants"]}


def judge(target: Target, folder: Path, chosen: set[str] | None) -> int:
    """Compare what survived with what is explained; return the exit status."""
    known = explained()
    outcomes: Counter[str] = Counter()
    survived: list[str] = []
    for name, code in results(target, folder).items():
        if chosen is not None and name not in chosen:
            continue
        outcome = "not played" if code is None else KILLED.get(code, "survived")
        if outcome == "survived":
            survived.append(change(folder, name))
            outcome = "explained" if survived[-1] in known else "survived"
        outcomes[outcome] += 1
    unknown = sorted({mutant for mutant in survived if mutant not in known})
    modules = {Path(module).stem for module in target.modules}
    # Of a sample nothing can be said of what was not in it.
    stale = [] if chosen else [mutant for mutant in known if mutant.split(".")[0] in modules and mutant not in survived]
    for mutant in unknown:
        print(f"no test finds   {mutant}")
    for mutant in stale:
        print(f"is found by now {mutant}")
    total = outcomes.total()
    killed = outcomes["killed"] + outcomes["timeout"]
    print(
        f"{total} mutants: {killed} found ({killed / max(total, 1):.1%}), {outcomes['explained']} that change nothing,"
        f" {outcomes['survived']} not found, {outcomes['not played']} not played"
    )
    return 1 if unknown or outcomes["not played"] else 0


def main() -> int:
    """Play."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", nargs="?", default="state", choices=TARGETS)
    parser.add_argument(
        "--folder", type=Path, default=Path("build/mutation"), help="kept, so that another run is quick"
    )
    parser.add_argument("--sample", type=int, help="so many of its mutants, instead of all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--children", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--again", action="store_true", help="only those that no test found and no reason explains")
    parser.add_argument("--judge", action="store_true", help="play nothing")
    options = parser.parse_args()
    target = TARGETS[options.target]
    folder = options.folder.resolve() / options.target
    if not options.judge:
        lay_out(target, folder)
    chosen: set[str] | None = None
    if options.sample is not None:
        if not results(target, folder):
            mutmut(folder, "no.such.mutant", children=options.children)  # makes them, and plays none
        chosen = set(random.Random(options.seed).sample(sorted(results(target, folder)), options.sample))
    names = sorted(chosen or ())
    if options.again:
        names = [
            name
            for name, code in results(target, folder).items()
            if KILLED.get(code or 0) is None
            and (chosen is None or name in chosen)
            and change(folder, name) not in explained()
        ]
    if not options.judge:
        mutmut(folder, *names, children=options.children)
    return judge(target, folder, chosen)


if __name__ == "__main__":
    sys.exit(main())
