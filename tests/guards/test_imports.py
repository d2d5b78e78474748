"""Guards against decay: what is imported at the start, by name.  Each import is time that every short command waits."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FACADE = {"__future__", "resilience"}
"""What `import resilience` brings."""

CHECK = FACADE | {
    # the interpreter's own: nearly all are in C, or are what `functools` and `weakref` stand on
    *("_blake2", "_collections", "_contextvars", "_functools", "_json", "_operator", "_queue", "_struct"),
    *("_py_warnings", "_types", "_weakrefset", "atexit", "binascii", "collections", "collections.abc", "contextvars"),
    *("errno", "functools", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "itertools"),
    *("keyword", "mmap", "operator", "reprlib", "struct", "types", "warnings", "weakref"),
    # the command line
    *("resilience.cli", "resilience.cli.arguments", "resilience.cli.catalogue", "resilience.cli.notes"),
    *("resilience.cli.output", "resilience.cli.parser", "resilience.cli.run", "resilience.cli.shell"),
    *("resilience.cli.statuses", "resilience.cli.verbs"),
    # the road of a call, and the plan instead of settings, plugins and pluggy
    *("resilience.announce", "resilience.cell", "resilience.clock", "resilience.commit", "resilience.durations"),
    *("resilience.engine", "resilience.errors", "resilience.events", "resilience.fallback", "resilience.fuse"),
    *("resilience.gather", "resilience.guard", "resilience.jsontext", "resilience.markers", "resilience.permits"),
    *("resilience.plan", "resilience.policy", "resilience.ports", "resilience.runtime", "resilience.storage"),
    # the policy
    *("resilience_circuit_breaker", "resilience_circuit_breaker._codec", "resilience_circuit_breaker._config"),
    *("resilience_circuit_breaker._errors", "resilience_circuit_breaker._state", "resilience_circuit_breaker._window"),
    *("resilience_circuit_breaker.breaker", "resilience_circuit_breaker.policy", "resilience_circuit_breaker.verbs"),
    # the storage, without the package whose lock it uses
    *("resilience_filelock", "resilience_filelock._errors", "resilience_filelock._file", "resilience_filelock._folder"),
    *("resilience_filelock._fork", "resilience_filelock._lock", "resilience_filelock._paths"),
    *("resilience_filelock._record", "resilience_filelock._system", "resilience_filelock.storage"),
}
"""What `resilience check` imports at most, once a plan is kept."""

COMMAND_LINE = """
from resilience.cli import main
assert main(sys.argv[1:]) == 0
"""


@pytest.fixture
def imported(tmp_path: Path) -> Imported:
    return Imported(tmp_path)


class Imported:
    """What code imports in a fresh interpreter, beyond what the interpreter had when it began."""

    def __init__(self, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTHON"))}
        self._environment = kept | {"XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"}

    def by(self, code: str, arguments: Sequence[str] = ()) -> set[str]:
        whole = f"import sys\nbefore = set(sys.modules)\n{code}\nprint('\\n', *(set(sys.modules) - before))"
        done = subprocess.run(
            [sys.executable, "-P", "-c", whole, *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return set(done.stdout.splitlines()[-1].split())


def test_importing_the_framework_imports_nothing_else(imported: Imported) -> None:
    assert imported.by("import resilience") == FACADE


def test_check_imports_what_it_needs(imported: Imported) -> None:
    first = imported.by(COMMAND_LINE, ["check", "x"])
    assert "pydantic" in first, "the first run makes the plan, and needs the settings for it"
    more = imported.by(COMMAND_LINE, ["check", "x"]) - CHECK
    assert not more, f"resilience check imports what it did not before: {', '.join(sorted(more))}"
