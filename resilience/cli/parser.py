"""From words to arguments: a thin shell around `argparse` that raises instead of leaving, and repeats nothing raw."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Any, NoReturn

from resilience.cli.output import escaped
from resilience.cli.statuses import MEANINGS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Collection, Sequence

    from resilience.cli.verbs import Verb

_LONGEST_SHOWN = 80

_END = "--"


class UsageError(Exception):
    """The command line makes no sense; `str()` says why, `verb` is the verb whose help tells more."""

    def __init__(self, message: str, verb: str = "") -> None:
        super().__init__(message)
        self.verb = verb


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise, where the base prints and leaves."""
        raise UsageError(message, self.prog.partition(" ")[2])


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


def parse(verb: Verb, words: Sequence[str]) -> Namespace:
    """Read what follows a verb.

    :raises UsageError: it makes no sense.
    :raises SystemExit: help was asked for and printed.
    """
    command: list[str] = []
    if verb.takes_command:
        valued = {flag for argument in verb.arguments if argument.takes_value for flag in argument.flags}
        words, command = split_command(words, valued)
    reader = parser(verb)
    # Options between positional arguments are read by the one, a `--` by the other.
    arguments = reader.parse_args(words) if _END in words else reader.parse_intermixed_args(words)
    if verb.takes_command:
        if not command:
            raise UsageError(f"a command is missing: resilience {verb.name} NAME -- CMD…", verb.name)
        arguments.command = command
    return arguments


def split_command(words: Sequence[str], valued: Collection[str]) -> tuple[list[str], list[str]]:
    """Part what belongs to us from the command that is to be run.

    The command begins after ``--``, or with the second word that is no option and belongs to none.  A ``--`` before
    the first one ends our options only: ``run -- -odd-name- curl``.

    :param valued: the options whose value is the next word.
    """
    index = 0
    named = False
    while index < len(words):
        word = words[index]
        if word == _END and not named:
            rest = list(words[index + 2 :])
            return list(words[: index + 2]), rest[1:] if rest[:1] == [_END] else rest
        if word == _END:
            return list(words[:index]), list(words[index + 1 :])
        if word.startswith("-"):
            index += 2 if word in valued else 1
        elif named:
            return list(words[:index]), list(words[index:])
        else:
            named = True
            index += 1
    return list(words), []


def shown(text: str) -> str:
    """Return what somebody wrote, quoted, harmless and short."""
    return f"'{escaped(text, _LONGEST_SHOWN)}'"


def _telling(convert: Callable[[str], object]) -> Callable[[str], object]:
    """Let `argparse` repeat what the converter says."""

    def converted(text: str) -> object:
        try:
            return convert(text)
        except ValueError as error:
            raise ArgumentTypeError(f"{shown(text)} is refused: {error}") from None

    return converted
