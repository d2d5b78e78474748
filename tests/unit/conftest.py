"""What tests of the engine share: a clock moved by hand, an observer that remembers, storages that fail as planned."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from storages import Recorder
from storages import install as install_storages
from unit.cli.command_line import Done

from resilience import Runtime, cli, plan
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from unit.cli.command_line import Install, Run


@pytest.fixture
def storages_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storages of `storages.py` be found by their schemes."""
    install_storages(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a storage that fails be asked again after a second exactly: clocks are moved to it."""
    monkeypatch.setattr("resilience.fuse.SPREAD", 0.0)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture
def scheme() -> str:
    """The storage of `runtime`; those that run on several override it."""
    return "faulty"


@pytest.fixture
def runtime(
    scheme: str, storages_of_tests: None, tmp_path: Path, clock: ManualClock, told: Recorder
) -> Iterator[Runtime]:
    with Runtime(storage=f"{scheme}:{tmp_path}", clock=clock, observers=[told]) as runtime:
        yield runtime


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


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    # What a test writes, it writes just before; a plan waits until a change would show, see `test_plan`.
    monkeypatch.setattr(plan, "_STEP", float("-inf"))
    monkeypatch.setattr(plan, "_COARSE_STEP", float("-inf"))

    def run(*words: str) -> Done:
        capfd.readouterr()
        status = cli.main(words)
        out, err = capfd.readouterr()
        return Done(status, out, err)

    return run
