"""The machine and the libraries that figures were measured with."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.bench import Bench

LIBRARIES = (
    "resilience-framework",
    "filelock",
    "pluggy",
    "redis",
    "psycopg",
    "pybreaker",
    "circuitbreaker",
    "purgatory",
    "aiobreaker",
    "interlock-cb",
    "pyresilience",
)


def describe(bench: Bench) -> dict[str, Any]:
    """Return what a reader must know to judge the figures."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "file_system": _file_system(bench.folder.resolve()),
        "load_at_start": round(os.getloadavg()[0], 2),
        "quick": bench.quick,
        "pythons": {name: _full_version(python) for name, python in bench.pythons.items()},
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on."""
    mounts = Path("/proc/self/mounts")
    lines = [line.split() for line in mounts.read_text().splitlines()] if mounts.exists() else []
    holding = [(len(point), kind) for _, point, kind, *_ in lines if folder.is_relative_to(point)]
    return max(holding)[1] if holding else "unknown"


def _full_version(python: str) -> str:
    import subprocess

    asked = "import platform; print(platform.python_implementation(), platform.python_version())"
    return subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
