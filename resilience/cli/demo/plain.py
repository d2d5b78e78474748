"""The demo in lines of text, for pipes, logs, dumb terminals, and where rich is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.cli.demo.model import WORKERS, readable, summary
from resilience.cli.shell import Unwritable

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from resilience.cli.demo.model import Play, Row

EVERY = 1.0
"""Seconds between two lines that tell what the workers see."""


class Lines:
    """Prints what is new, and once a second what each worker sees."""

    def __init__(self) -> None:
        self._phase = ""
        self._moves = 0
        self._next = EVERY

    def __enter__(self) -> Self:
        _print(f"{WORKERS} worker processes call one server and share one circuit breaker, in a file.")
        _print(f"{WORKERS} more make the same calls without a breaker, to compare.")
        _print("Once a second: each worker's view of the breaker, its calls/failures/rejections.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, play: Play) -> None:
        """Print what happened since the last time."""
        if play.phase != self._phase:
            self._phase = play.phase
            _print(f"{play.elapsed:5.1f} s  the server is {self._phase}")
        for move in play.moves[self._moves :]:
            _print(
                f"{move.elapsed:5.1f} s  {move.label} moved the breaker: "
                f"{readable(move.old)} -> {readable(move.new)} ({move.reason})"
            )
        self._moves = len(play.moves)
        if play.elapsed >= self._next:
            self._next += EVERY
            seen = (f"{readable(row.state):9} {_counts(row):8}" for row in play.rows if row.protected)
            _print(f"{play.elapsed:5.1f} s  {' '.join(seen)}".rstrip())

    def end(self, play: Play) -> None:
        """Print the summary."""
        _print()
        _print("\n".join(summary(play)))


def _print(text: str = "") -> None:
    """Print a line; through a pipe too each comes when it is true.

    :raises Unwritable: that could not be done.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        raise Unwritable from error


def _counts(row: Row) -> str:
    return f"{row.calls}/{row.counts['failed']}/{row.counts['rejected']}"
