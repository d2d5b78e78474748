"""Hearing of an import: once, whoever imports, and without changing what is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

from resilience.cli.hearing import Hearing

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_hears_of_an_import_once_and_not_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("heard_of", "not_heard_of"):
        (tmp_path / f"{name}.py").write_text("VALUE = 3\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    heard: list[int] = []
    with Hearing("heard_of", lambda: heard.append(sys.modules["heard_of"].VALUE)):
        importlib.import_module("not_heard_of")
        assert heard == []
        module = importlib.import_module("heard_of")
        importlib.import_module("heard_of")
        assert heard == [3]
        assert module.__spec__ is not None
        assert module.__spec__.origin == str(tmp_path / "heard_of.py")
        assert module.__spec__.loader is not None
        assert module.__spec__.loader.get_source("heard_of") == "VALUE = 3\n"  # type: ignore[attr-defined]
    with Hearing("heard_of", lambda: heard.append(4)):
        assert heard == [3, 4]


def test_it_hears_nothing_any_more_when_it_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "unheard_of.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = list(sys.meta_path)
    heard: list[int] = []
    with Hearing("unheard_of", lambda: heard.append(1)):
        assert sys.meta_path != before
    assert sys.meta_path == before
    importlib.import_module("unheard_of")
    assert heard == []


def test_a_warning_of_what_is_loaded_for_a_look_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "warning_storage.py").write_text(
        "import warnings\n"
        "from resilience_memory import MemoryStorage as Mine\n"
        "warnings.warn('it is old', stacklevel=1)\n"
    )
    information = tmp_path / "warning_storage-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: warning-storage\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[resilience.storage]\nold = warning_storage:Mine\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from resilience.cli import main; sys.exit(main())"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", program, "check", "a"],
            env={"RESILIENCE_STORAGE": "old:", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "resilience: warning: it is old\n")
