"""Twenty processes of each kind, started once and used by all tests; and which tests run where.

Tests of processes are heavy, and run on one interpreter; those marked `everywhere` run on all.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes.support import METHODS, Crowd

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not for all interpreters as heavy, before the marks are used to choose."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("everywhere") is None:
            item.add_marker("heavy")


@pytest.fixture(scope="session", params=METHODS)
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    with Crowd(request.param, 20) as crowd:
        yield crowd


@pytest.fixture(scope="session", params=METHODS)
def crew(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """A few processes of each kind, for what needs no twenty."""
    with Crowd(request.param, 4) as crew:
        yield crew


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder of its own for each test."""
    return (tmp_path / "state").as_uri()
