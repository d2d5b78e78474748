"""What is public changes only where somebody means it: the change shows in the diff of a file."""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING

import pytest
from public_api import KEPT, described, foreign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="signatures are printed differently by others")
def test_the_public_api_is_the_kept_one() -> None:
    changes = "\n".join(
        difflib.unified_diff(KEPT.read_text("utf-8").splitlines(), described().splitlines(), lineterm="")
    )
    assert not changes, f"if this is meant, run python tests/public_api.py\n{changes}"


def test_the_file_has_each_part() -> None:
    text = KEPT.read_text("utf-8")
    for line in (
        "class CircuitBreaker(Guard)(name: 'str', *, runtime: 'Runtime | None' = None, **settings: 'Unpack[Settings]')",
        "first result: resilience_load(key: 'Key', timeout: 'float') -> 'Snapshot'",
        "class StorageConflict(StorageError)",
        "status [NAME…] [--json]",
        "75: rejected: try again later",
        "RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD = None",
        "resilience.policy: circuit_breaker",
    ):
        assert f"\n{line}" in text


@pytest.mark.parametrize(
    "line",
    [
        "from resilience.engine import Engine",
        "from resilience import engine",
        "from resilience.policy import KEEPS",
        "from resilience.testing.handle import Handle",
        "import resilience.ports",
        "from resilience_memory import MemoryStorage",
        "import pluggy",
        "from pluggy import PluginManager",
        "import importlib",
        "__import__('resilience.engine')",
        "guard._bound()",
    ],
)
def test_the_scan_finds_what_is_not_public(tmp_path: Path, line: str) -> None:
    (tmp_path / "one.py").write_text(line)
    assert foreign(tmp_path / "one.py")


@pytest.mark.parametrize(
    "line",
    [
        "from resilience import Key, clock, hookimpl",
        "from resilience.policy import Admit, PolicyEvent",
        "from resilience.cli.verbs import Verb",
        "from mine import engine",
        "state._replace(x=1)",
    ],
)
def test_the_scan_lets_pass_what_is(tmp_path: Path, line: str) -> None:
    (tmp_path / "one.py").write_text(line)
    assert not foreign(tmp_path / "one.py")
