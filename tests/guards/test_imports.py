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
    # the interpreter's own, all in C but `warnings`, which it brings in itself
    *("_blake2", "_contextvars", "_json", "_operator", "_py_warnings", "_struct", "binascii", "errno", "warnings"),
    # the command line
    *("resilience.cli", "resilience.cli.arguments", "resilience.cli.hearing", "resilience.cli.parser"),
    *("resilience.cli.shell", "resilience.cli.statuses", "resilience.cli.verbs"),
    # one look at the record; the plan instead of settings and plugins; no engine
    *("resilience.clock", "resilience.errors", "resilience.glance", "resilience.jsontext", "resilience.plan"),
    *("resilience.policy", "resilience.storage"),
    # the policy
    *("resilience_circuit_breaker", "resilience_circuit_breaker._codec", "resilience_circuit_breaker._config"),
    *("resilience_circuit_breaker._errors", "resilience_circuit_breaker._state", "resilience_circuit_breaker._window"),
    *("resilience_circuit_breaker.policy", "resilience_circuit_breaker.verbs"),
    # the part of the storage that reads
    *("resilience_filelock", "resilience_filelock._paths", "resilience_filelock._record"),
    *("resilience_filelock._system", "resilience_filelock.reading"),
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
