"""Fresh environments: of another interpreter, and of this one without what slows its start."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def interpreter(version: str) -> str | None:
    """Find an interpreter by its version; `None` if there is none, and none is downloaded."""
    found = _run("uv", "python", "find", "--no-project", "--no-python-downloads", "--system", version, check=False)
    return found.stdout.strip() or None


@cache
def wheel() -> str:
    """Build the framework of this checkout, once; return the path of its wheel."""
    folder = tempfile.mkdtemp(prefix="resilience-wheel-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _run("uv", "build", "--wheel", "--out-dir", folder, str(ROOT))
    (built,) = Path(folder).glob("*.whl")
    return str(built)


def make(python: str, folder: Path, *requirements: str, group: str | None = None) -> str:
    """Make an environment with the framework and what is named; return its interpreter."""
    _run("uv", "venv", "--python", python, "--seed", str(folder))
    made = str(folder / "bin" / "python")
    groups = ["--group", f"{ROOT / 'pyproject.toml'}:{group}"] if group else []
    _run("uv", "pip", "install", "--compile-bytecode", "--python", made, wheel(), *requirements, *groups)
    return made


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]} is needed to make environments; `tox run -e bench` brings it")
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return subprocess.run([program, *command[1:]], env=environment, check=check, capture_output=True, text=True)
