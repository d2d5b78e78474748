"""What verbs take, in the forms that all of them share: names, durations, lists of exit statuses."""

from __future__ import annotations

from resilience.cli.verbs import Argument

_MOST_STATUS = 255


def guard_name(text: str) -> str:
    """Read the name of a guard.

    :raises ValueError: it cannot be one.
    """
    from resilience.storage import Key

    return Key("guard", text).name


def span(text: str) -> float:
    """Read a duration that is longer than nothing, in seconds.

    :raises ValueError: it is none.
    """
    from resilience.durations import FORMS, parse_duration

    seconds = parse_duration(text)
    if seconds == 0:
        raise ValueError(f"it is no time at all; {FORMS}")
    return seconds


def exit_statuses(text: str) -> frozenset[int]:
    """Read a list of exit statuses and ranges of them: ``0,3,10-12``.

    :raises ValueError: it is none.
    """
    found: set[int] = set()
    for item in text.split(","):
        first, dash, last = item.strip().partition("-")
        numbers = (first, last if dash else first)
        if not all(number.isascii() and number.isdigit() and len(number) <= len("255") for number in numbers):
            raise ValueError(f"exit statuses are numbers from 0 to {_MOST_STATUS} and ranges, such as 0,3,10-12")
        least, most = map(int, numbers)
        if not least <= most <= _MOST_STATUS:
            raise ValueError(f"exit statuses are numbers from 0 to {_MOST_STATUS} and ranges, such as 0,3,10-12")
        found.update(range(least, most + 1))
    return frozenset(found)


NAME = Argument("NAME", help="who is meant: 1 to 1000 printable characters", convert=guard_name)
NAMES = Argument("NAME", help="who is meant; without, all that have a record", convert=guard_name, nargs="*")
JSON = Argument("--json", help="print JSON", action="store_true")
REASON = Argument("--reason", help="why, for whoever looks at the status", metavar="TEXT", default="")
FOR = Argument(
    "--for",
    help="for how long (30s, 10m, 2h); without, until it is taken back",
    convert=span,
    metavar="TIME",
    dest="seconds",
)

COMMAND = (
    Argument(
        "--ok-status",
        help="statuses of the command that are successes besides 0, such as 3,10-12",
        convert=exit_statuses,
        metavar="LIST",
        default=frozenset[int](),
    ),
    Argument(
        "--timeout", help="end the command after this time (30s, 5m); that is a failure", convert=span, metavar="TIME"
    ),
    Argument(
        "--kill-after",
        help="kill it if it has not ended this long after it was asked to (default: 5s)",
        convert=span,
        metavar="TIME",
        default=5.0,
    ),
)
"""What every verb that runs a command takes; `resilience.cli.run` runs it."""
