"""Fixtures of the tests of the command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from unit.cli.command_line import Done

from resilience import cli

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Install, Run


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> Done:
        capfd.readouterr()
        status = cli.main(words)
        out, err = capfd.readouterr()
        return Done(status, out, err)

    return run


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Install:
    def install(group: str, name: str, what: str) -> None:
        value = what if ":" in what else f"unit.cli.command_line:{what}"
        folder = tmp_path / f"installed-{name}"
        information = folder / f"plugin_{name}-1.5.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugin_{name}\nVersion: 1.5\n")
        (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    return install
