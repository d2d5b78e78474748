"""What tests of the engine share: a clock moved by hand, an observer that remembers, storages that fail as planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from storages import Recorder, install

from resilience import Runtime
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def storages_of_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storages of `storages.py` be found by their schemes."""
    install(tmp_path, monkeypatch)


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
