"""What a short command waits for: a bare interpreter, an import, `resilience check` as each installer starts it."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import environments
from benchmarks.harness import clean_environment

if TYPE_CHECKING:
    from benchmarks.bench import Bench

EXAMPLE = environments.ROOT / "tests" / "plugin_example"
"""The storage of a third party, on SQLite; it imports only what a verb needs."""

WRITTEN = "my-store"
"""The name of the storage that `resilience plugin new` writes."""

OWN_SCRIPT = """\
#!{python}
from resilience.cli import main

raise SystemExit(main())
"""
"""The shortest script that starts the command line."""


def measure(bench: Bench) -> dict[str, Any]:
    """Return interpreter, then command: seconds of its whole life."""
    return {
        version: _race(_commands(python, bench.folder / f"startup-{version}"), bench.of(41, 7))
        for version, python in bench.pythons.items()
    }


def _commands(python: str, folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """What is started, and the environment it is started in."""
    written = _written(folder / "written")
    python = environments.make(python, folder / "environment", str(EXAMPLE), str(written))
    scripts = _scripts(python, folder)
    ours = {"RESILIENCE_STORAGE": (folder / "state").as_uri()}
    checks = {f"check, {name} script": (script, ours) for name, script in scripts.items()} | {
        "check, uv script, third-party storage on SQLite": (
            scripts["uv"],
            {"RESILIENCE_STORAGE": f"sqlite://{folder}/state.db"},
        ),
        "check, uv script, third-party storage as plugin new writes it": (
            scripts["uv"],
            {"RESILIENCE_STORAGE": f"{WRITTEN}://{folder}/records"},
        ),
        "check, uv script, no plan": (scripts["uv"], ours | {"RESILIENCE_PLAN": "0"}),
    }
    for name in checks:
        (folder / "caches" / name).mkdir(parents=True)  # where there is no cache folder at all, nothing is kept
    return {
        "python -c pass": ([python, "-c", "pass"], {}),
        "import resilience": ([python, "-c", "import resilience"], {}),
        # What stands in the way of the two storages of third parties.
        "import sqlite3": ([python, "-c", "import sqlite3"], {}),
        "import pydantic": ([python, "-c", "import pydantic"], {}),
        # Each as if it were alone: an installation keeps one plan, for one configuration.
        **{
            name: ([script, "check", "x"], more | {"XDG_CACHE_HOME": str(folder / "caches" / name)})
            for name, (script, more) in checks.items()
        },
    }


def _written(folder: Path) -> Path:
    """Write a storage as an author begins with it."""
    write = [sys.executable, "-m", "resilience", "plugin", "new", WRITTEN, "--folder", str(folder)]
    subprocess.run(write, check=True, env=clean_environment(), capture_output=True)
    return folder


def _scripts(python: str, folder: Path) -> dict[str, str]:
    """Write the script of each installer beside the others."""
    installed = Path(python).with_name("resilience")
    scripts = {"uv": installed.rename(installed.with_name("resilience-of-uv"))}
    # What `pip install` writes: that of the pip which is seeded, the newest.
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall"]
    subprocess.run([*install, environments.wheel()], check=True, env=clean_environment(), capture_output=True)
    scripts["pip"] = installed.rename(installed.with_name("resilience-of-pip"))
    scripts["own"] = installed  # beside the interpreter, as the others: its folder is looked through for modules
    scripts["own"].write_text(OWN_SCRIPT.format(python=python))
    scripts["own"].chmod(0o755)
    return {name: str(path) for name, path in scripts.items()}


def _race(commands: dict[str, tuple[list[str], dict[str, str]]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    environment = clean_environment()
    for turn in range(rounds + 2):  # the first two write what is kept between runs, and warm the caches
        for name, (command, more) in commands.items():
            started = time.perf_counter()
            subprocess.run(command, env=environment | more, check=True, stdout=subprocess.DEVNULL)
            if turn > 1:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
