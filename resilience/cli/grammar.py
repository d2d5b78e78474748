"""What `argparse` makes of a verb: help, errors, and all that is more than plain words; see `resilience.cli.parser`.

It raises instead of leaving, and repeats nothing raw.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any, NoReturn

from resilience.cli.output import closed
from resilience.cli.parser import UsageError, shown
from resilience.cli.statuses import MEANINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import SupportsWrite

    from resilience.cli.verbs import Verb


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise, where the base prints and leaves."""
        raise UsageError(message, self.prog.partition(" ")[2])

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Raise where there is no output; the base would print help on the standard error."""
        if file is None and sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - it is where it was closed
            raise closed()
        super().print_help(file)


def statuses_help() -> str:
    """Return the table of exit statuses."""
    return "exit status:\n" + "\n".join(f"  {status:4} {meaning}" for status, meaning in MEANINGS)


def parser(verb: Verb) -> ArgumentParser:
    """Make the parser of one verb."""
    made = _Parser(
        prog=f"resilience {verb.name}",
        description=verb.help,
        epilog=statuses_help(),
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for argument in verb.arguments:
        options: dict[str, Any] = dict(argument.options)
        if argument.convert is not None:
            options["type"] = _telling(argument.convert)
        if argument.is_positional:
            options.setdefault("metavar", argument.flags[0])
            made.add_argument(argument.flags[0].lower(), help=argument.help, **options)
        else:
            made.add_argument(*argument.flags, help=argument.help, **options)
    if verb.takes_command:
        made.add_argument("command", nargs="*", metavar="CMD", help="the command and its words, after -- or without")
    return made


def _telling(convert: Callable[[str], object]) -> Callable[[str], object]:
    """Let `argparse` repeat what the converter says."""

    def converted(text: str) -> object:
        try:
            return convert(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{shown(text)} is refused: {error}") from None

    return converted
