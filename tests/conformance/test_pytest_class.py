"""The suite as an author runs it: five lines, and pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from conformance.test_kit import damage_file

import resilience.testing
from resilience.testing import StorageConformance
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from resilience import Key


class TestMemory(StorageConformance):
    kit = "2"
    quick = True

    @pytest.fixture
    def storage_factory(self) -> Any:
        return partial(MemoryStorage, "memory:", None)


@pytest.mark.heavy
class TestFile(StorageConformance):
    kit = "1"
    quick = True  # test_kit.py runs the whole of it

    @pytest.fixture
    def storage_factory(self, tmp_path: Path) -> Any:
        return f"file://{tmp_path}/state"

    def damage(self, storage: Any, key: Key) -> None:
        assert isinstance(storage, FileStorage)
        damage_file(storage, key)


AUTHORS_FILE = """
from functools import partial
import pytest
from conformance.broken import BeginsAgain, IgnoresExpected
from resilience.testing import StorageConformance
from dataclasses import replace
from resilience.testing.checks import all_checks, registry

registry._CHECKS.append(replace(all_checks()[0], name="blue", kit="3"))

class TestMine(StorageConformance):
    quick = True
    @pytest.fixture
    def storage_factory(self):
        return partial(BeginsAgain, "memory:", None)

class TestOverwrites(StorageConformance):
    quick = True
    @pytest.fixture
    def storage_factory(self):
        return partial(IgnoresExpected, "memory:", None)

class TestForgotten(StorageConformance):
    quick = True
"""


def test_as_an_author_sees_it(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(AUTHORS_FILE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "resilience.testing.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-rsP",
    ]
    chosen = (
        "TestMine and (born_again or versions or visible or claims or blue) or TestForgotten and born_again"
        " or TestOverwrites and (conflicts or delete)"
    )
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [*command, "-k", chosen, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env=environ,
    )  # fmt: skip
    assert "2 failed, 2 passed, 10 skipped" in run.stdout
    assert "note: PROCESSES is not declared" in run.stdout
    assert "says nothing before this is mended: conflicts" in run.stdout
    assert "1 error" in run.stdout, run.stdout + run.stderr
    assert "after a delete the versions begin again in the same incarnation" in run.stdout
    assert "what to do: draw a new random incarnation whenever a key is saved" in run.stdout
    assert 'new in version 3 of the kit: set kit = "3" to run it' in run.stdout
    assert "TestForgotten has no fixture storage_factory" in run.stdout
    assert "Traceback" not in run.stdout


def test_every_public_name_is_there() -> None:
    for name in resilience.testing.__all__:
        assert getattr(resilience.testing, name) is not None
    assert set(resilience.testing.__all__) <= set(dir(resilience.testing))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        resilience.testing.nonsense  # noqa: B018 - looking is what is tested


def test_pytest_loads_none_of_ours_before_a_fixture_is_used() -> None:
    code = (
        "import sys, resilience.testing.pytest_plugin\nprint(*(m for m in sys.modules if m.startswith('resilience')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set(run.stdout.split()) == {"resilience", "resilience.testing", "resilience.testing.pytest_plugin"}
