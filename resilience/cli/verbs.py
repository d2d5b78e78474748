"""What a verb of the command line is: plain data, so that a table of them costs nothing to load.

A policy brings its own, as a table; `resilience.cli.catalogue` puts them together with those of the core.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from resilience.cli.shell import Shell


class Argument:
    """An argument of a verb.

    :param flags: how it is written (``--for``), or the name it has in messages (``NAME``).
    :param help: what it means, in one line.
    :param convert: makes the value of the text; its `ValueError` says what is allowed.
    :param options: whatever else `argparse.ArgumentParser.add_argument` takes.
    """

    __slots__ = ("convert", "flags", "help", "options")

    def __init__(
        self,
        *flags: str,
        help: str,  # noqa: A002 - the word of argparse
        convert: Callable[[str], object] | None = None,
        **options: Any,
    ) -> None:
        self.flags = flags
        self.help = help
        self.convert = convert
        self.options = options

    @property
    def is_positional(self) -> bool:
        """Whether its place says what it is."""
        return not self.flags[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        """Whether it is an option and the next word belongs to it."""
        return not self.is_positional and "action" not in self.options


class Verb:
    """A verb of the command line.

    :param name: how it is called.
    :param help: what it does, in one line that begins with a verb.
    :param run: does it, and returns the exit status.
    :param arguments: what it takes.
    :param takes_command: whether a command to run follows the first positional argument, after ``--`` or without;
        it arrives as `command`, a list of words.
    """

    __slots__ = ("arguments", "help", "name", "run", "takes_command")

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002 - the word of argparse
        run: Callable[[Shell, Namespace], int],
        *arguments: Argument,
        takes_command: bool = False,
    ) -> None:
        self.name = name
        self.help = help
        self.run = run
        self.arguments = arguments
        self.takes_command = takes_command

    def named(self, name: str) -> Verb:
        """Return the same verb under another name."""
        return Verb(name, self.help, self.run, *self.arguments, takes_command=self.takes_command)
