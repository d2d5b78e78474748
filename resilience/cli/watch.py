"""`resilience watch [NAME…]`: the table of `resilience status`, drawn again and again.

Whatever policy brings the verb `status`, this shows it.  Plain ANSI: a table that is replaced as a whole needs no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience.cli import catalogue
from resilience.cli.output import DIM, escaped, paint, seconds
from resilience.cli.parser import UsageError
from resilience.clock import sleep, wall
from resilience.errors import StorageError

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.cli.shell import Shell

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_CLEAR_ALL = "\x1b[2J"


class _Words:
    """The arguments of `status`."""

    def __init__(self, names: list[str]) -> None:
        self.name = names
        self.json = False


def run(shell: Shell, arguments: Namespace) -> int:
    """Draw until Ctrl-C."""
    status = shell.planned_verb("status") or catalogue.find("status", shell)
    if status is None:
        raise UsageError("no installed policy has a status to watch", "watch")
    words: Any = _Words(arguments.name)
    is_first = True
    while True:
        with shell.collecting() as frame:
            try:
                status.run(shell, words)
            except StorageError as error:  # it may answer again
                shell.write(f"{escaped(str(error))}\n")
            notes, shell.notes[:] = list(shell.notes), []
            for note in notes:
                shell.write(f"{escaped(' '.join(note.splitlines()))}\n")
        _draw(shell, frame.getvalue(), arguments.interval, is_first=is_first)
        shell.flush()
        is_first = False
        sleep(arguments.interval)


def _draw(shell: Shell, text: str, interval: float, *, is_first: bool) -> None:
    if not shell.is_terminal:
        shell.write(text if is_first else f"\n{text}")
        return
    from shutil import get_terminal_size
    from time import localtime, strftime

    title = f"{strftime('%H:%M:%S', localtime(wall()))}, every {seconds(interval)}; Ctrl-C ends"
    if shell.has_colour:
        title = f"\x1b[{DIM}m{paint(title, DIM)}\x1b[0m"
    lines = [title, *text.splitlines()][: max(2, get_terminal_size().lines - 1)]
    drawn = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines)
    shell.write(f"{_CLEAR_ALL if is_first else ''}{_HOME}{drawn}{_CLEAR_BELOW}")
