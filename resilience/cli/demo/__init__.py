"""``resilience demo``: some processes, one breaker, a server that fails and recovers; over within 15 seconds.

`model` is what is shown, `plain` and `screen` show it, `stage` and `worker` are the processes.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from resilience.cli import statuses
from resilience.cli.demo.plain import Lines
from resilience.cli.demo.stage import DemoFailed, perform
from resilience.cli.output import closed
from resilience.cli.parser import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator
    from types import FrameType

    from resilience.cli.demo.screen import Screen

SHORTEST, LONGEST = 3.0, 15.0
"""Seconds that the demo may last."""


class _Ended(BaseException):
    """The user, or the system, wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run(arguments: argparse.Namespace) -> int:
    """Play the demo, ``seconds`` long, as text if ``plain``; return the exit status.

    :raises UsageError: it cannot be so short, or so long.
    :raises Unwritable: the output could not be written.
    """
    seconds: float = arguments.seconds
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(f"--seconds is from {SHORTEST:g} to {LONGEST:g}", "demo")
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - it is where it was closed
        raise closed()
    try:
        with _ended_by_signals():
            show = choose(plain=arguments.plain)
            show.end(perform(show, seconds))
    except _Ended as ended:
        return statuses.SIGNALLED + ended.number
    except DemoFailed as error:
        print(f"resilience: the demo failed: {error}", file=sys.stderr)
        return statuses.SOFTWARE
    return statuses.OK


def choose(*, plain: bool) -> Lines | Screen:
    """Choose how to show it: drawn with rich where that is installed and there is a terminal, else in lines."""
    if plain or not sys.stdout.isatty():
        return Lines()
    try:
        from rich.console import Console
    except ImportError:
        return Lines()
    console = Console()  # sees to NO_COLOR
    if console.is_dumb_terminal:
        return Lines()
    from resilience.cli.demo.screen import Screen

    return Screen(console)


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Let the signals that end a program raise `_Ended`, once: what follows is tidying up."""
    # Other threads may handle none; and not every system has all of them.
    names = ("SIGINT", "SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    kept = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - how handlers are called
        for other in kept:
            signal.signal(other, signal.SIG_IGN)
        raise _Ended(number)

    try:
        for number, handler in kept.items():
            if handler is not signal.SIG_IGN:  # nohup
                signal.signal(number, end)
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
