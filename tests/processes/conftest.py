"""Twenty processes of each kind, started once and used by all tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from processes.support import METHODS, Crowd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", params=METHODS)
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    with Crowd(request.param, 20) as crowd:
        yield crowd


@pytest.fixture(scope="session")
def crew() -> Iterator[Crowd]:
    """A few processes for what needs no twenty of each kind."""
    with Crowd(METHODS[0], 4) as crew:
        yield crew


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder of its own for each test."""
    return (tmp_path / "state").as_uri()
