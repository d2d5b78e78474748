"""From words to arguments.

Plain words are read here (`_plainly`), in the way of `argparse` and to the same result; whatever is more than plain, or
wrong, or asks for help, goes to `argparse` itself (`resilience.cli.grammar`), which takes longer to import than a bare
interpreter to start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection, Sequence
    from typing import Any

    from resilience.cli.verbs import Argument, Verb

_LONGEST_SHOWN = 80

_END = "--"


class UsageError(Exception):
    """The command line makes no sense; `str()` says why, `verb` is the verb whose help tells more."""

    def __init__(self, message: str, verb: str = "") -> None:
        super().__init__(message)
        self.verb = verb


def parse(verb: Verb, words: Sequence[str]) -> Namespace:
    """Read what follows a verb.

    :raises UsageError: it makes no sense.
    :raises SystemExit: help was asked for and printed.
    """
    command: list[str] = []
    if verb.takes_command:
        valued = {flag for argument in verb.arguments if argument.takes_value for flag in argument.flags}
        words, command = split_command(words, valued)
    arguments: Any = _plainly(verb, words)
    if arguments is None:
        from resilience.cli.grammar import parser

        reader = parser(verb)
        # Options between positional arguments are read by the one, a `--` by the other.
        arguments = reader.parse_args(words) if _END in words else reader.parse_intermixed_args(words)
    if verb.takes_command:
        if not command:
            raise UsageError(f"a command is missing: resilience {verb.name} NAME -- CMD…", verb.name)
        arguments.command = command
    return arguments  # type: ignore[no-any-return]


class _Arguments:
    """What `argparse.Namespace` is to a verb: attributes."""


_PLAIN_OPTIONS = frozenset({"action", "default", "dest", "metavar", "nargs"})


class _MoreThanPlain(Exception):
    """`argparse` has to look at it."""


def _plainly(verb: Verb, words: Sequence[str]) -> _Arguments | None:
    """Read whole words: positional arguments, flags, options whose value is the next word or follows ``=``.

    `None`: that is not all there is to it.
    """
    try:
        options = {
            flag: argument for argument in verb.arguments if not argument.is_positional for flag in argument.flags
        }
        places = [argument for argument in verb.arguments if argument.is_positional]
        values = {_attribute(option): _default(option) for option in options.values()}
        found = _options(options, words, values)
        for place in places:
            _place(place, found, values)
        if found:
            return None
    except (_MoreThanPlain, ValueError):
        return None  # what is wrong with it is said elsewhere
    arguments = _Arguments()
    arguments.__dict__.update(values)
    return arguments


def _default(argument: Argument) -> object:
    """Return what an argument is if it is left out."""
    given = argument.options
    if not _PLAIN_OPTIONS.issuperset(given) or given.get("action", "store_true") != "store_true":
        raise _MoreThanPlain
    if ("action" in given or "dest" in given) if argument.is_positional else "nargs" in given:
        raise _MoreThanPlain
    default: object = given.get("default")
    if isinstance(default, str) and argument.convert is not None:
        raise _MoreThanPlain  # it would be converted
    return False if "action" in given and default is None else default


def _options(options: dict[str, Argument], words: Sequence[str], values: dict[str, object]) -> list[str]:
    """Read the options, and return all other words."""
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            others.append(word)
            continue
        flag, has_value, text = word.partition("=")
        option = options.get(flag)
        if option is None or (has_value and not option.takes_value):
            raise _MoreThanPlain
        if option.takes_value and not has_value:
            text = next(rest, "-")
            if text.startswith("-"):
                raise _MoreThanPlain
        values[_attribute(option)] = _converted(option, text) if option.takes_value else True
    return others


def _place(place: Argument, words: list[str], values: dict[str, object]) -> None:
    """Take the words of a positional argument."""
    name, default, most = place.flags[0].lower(), _default(place), place.options.get("nargs")
    if most == "*":
        values[name] = [_converted(place, word) for word in words] or default or []
        words.clear()
    elif words and most in {None, "?"}:
        values[name] = _converted(place, words.pop(0))
    elif most == "?":
        values[name] = default
    else:
        raise _MoreThanPlain


def _converted(argument: Argument, text: str) -> object:
    return text if argument.convert is None else argument.convert(text)


def _attribute(option: Argument) -> str:
    """Return the name under which an option's value is found."""
    named: str | None = option.options.get("dest")
    if named is not None:
        return named
    long = next((flag for flag in option.flags if flag.startswith("--")), option.flags[0])
    return long.lstrip("-").replace("-", "_")


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
    from resilience.cli.output import escaped

    return f"'{escaped(text, _LONGEST_SHOWN)}'"
