"""Fresh environments: of another interpreter, and of this one without what slows its start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def interpreter(version: str) -> str | None:
    """Find an interpreter by its version; `None` if there is none, and none is downloaded."""
    found = _run("uv", "python", "find", "--no-project", "--no-python-downloads", "--system", version, check=False)
    return found.stdout.strip() or None


def make(python: str, folder: Path, *requirements: str, group: str | None = None) -> str:
    """Make an environment with what is named, and the framework of this checkout; return its interpreter."""
    _run("uv", "venv", "--python", python, "--seed", str(folder))
    made = str(folder / "bin" / "python")
    groups = ["--group", f"{ROOT / 'pyproject.toml'}:{group}"] if group else []
    _run("uv", "pip", "install", "--compile-bytecode", "--python", made, str(ROOT), *requirements, *groups)
    return made


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"{command[0]} is needed to make environments; `tox run -e bench` brings it")
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    return subprocess.run([program, *command[1:]], env=environment, check=check, capture_output=True, text=True)
