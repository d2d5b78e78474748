"""What the kit's forked processes say to each other."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from resilience import StorageUnavailable
from resilience.testing import Violation
from resilience.testing.forking import Line

if TYPE_CHECKING:
    from collections.abc import Callable


def raising(error: Exception) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def asked(work: Callable[[], object]) -> object:
    """Ask once what a thread serves that stands for a child."""
    line = Line(5.0)
    child = threading.Thread(target=line.serve, args=(work,))
    child.start()
    try:
        return line.ask("a child")
    finally:
        line.hang_up()
        child.join()
        line.is_theirs()


def test_an_answer() -> None:
    assert asked(lambda: [3, "the child"]) == [3, "the child"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            Violation("a load gave a torn record", "why", "fix"),
            "after a fork, a child finds: a load gave a torn record",
        ),
        (StorageUnavailable("locked"), "after a fork, a child finds: a hook raised StorageUnavailable: locked"),
    ],
)
def test_what_a_child_finds(error: Exception, says: str) -> None:
    with pytest.raises(Violation) as caught:
        asked(raising(error))
    assert caught.value.what == says


def test_a_child_that_is_gone() -> None:
    line = Line(5.0)
    line.is_theirs()
    with pytest.raises(Violation, match="after a fork, a child died, or did not answer in 5 s"):
        line.ask("a child")
    line.hang_up()


def test_a_child_that_goes_while_it_is_asked() -> None:
    line = Line(5.0)
    child = os.fork()
    if child == 0:  # pragma: no cover - it ends by `_exit`
        line.hang_up()
        line.serve(lambda: os._exit(0))
    line.is_theirs()
    with pytest.raises(Violation, match="after a fork, a child died"):
        line.ask("a child")
    line.hang_up()
    os.waitpid(child, 0)
