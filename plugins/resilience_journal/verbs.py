"""The verb that reads the journal: `resilience events [NAME] [--follow] [--json]`."""

from __future__ import annotations

from resilience.cli.arguments import JSON, NAME
from resilience.cli.output import escaped
from resilience.cli.statuses import OK
from resilience.cli.verbs import Argument, Verb
from resilience.clock import sleep
from resilience_journal import folder_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from resilience.cli.shell import Shell

LOOK_EVERY = 0.25
"""Seconds between two looks whether there is more."""
_LONGEST = 300
"""Characters of a name and of a value on a terminal; elsewhere nothing is cut off."""


def _events(shell: Shell, arguments: Namespace) -> int:
    from resilience_journal._reader import Journal

    folder = folder_of(shell.runtime)
    if folder is None:
        shell.say("the storage keeps its state in one process, so there is no journal of it")
        return OK
    found = False
    with Journal(folder) as journal:
        for line in journal.follow(lambda: sleep(LOOK_EVERY)):  # pragma: no branch - it has no end of its own
            if line is None:
                if not arguments.follow:
                    break
                shell.flush()
            elif not arguments.name or line.get("name") == arguments.name:
                found = True
                _show(shell, line, as_json=arguments.json)
    if not found and not arguments.json:
        shell.write("there are no events yet\n")
    return OK


def _show(shell: Shell, line: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        from json import dumps

        shell.write(f"{dumps(line)}\n")
    else:
        longest = _LONGEST if shell.is_terminal else None
        name = escaped(str(line.get("name") or "-"), longest)
        shell.write(f"{_when(line.get('time'))}  {name}  {_what(line, longest)}\n")


def _when(time: object) -> str:
    """Say when it was, in the time of the place."""
    from time import localtime, strftime

    try:
        return strftime("%Y-%m-%d %H:%M:%S", localtime(time))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - whatever stands there
    except (TypeError, ValueError, OverflowError, OSError):
        return "at some time       "


def _what(line: dict[str, Any], longest: int | None) -> str:
    def text(value: object) -> str:
        return escaped(str(value), longest)

    event = line.get("event")
    fields: dict[str, object] = line.get("data") or {}
    if not hasattr(fields, "items"):  # somebody else wrote that
        fields = {}
    if event == "transition":
        reason = fields.get("reason")
        change = f"{text(fields.get('old'))} -> {text(fields.get('new'))}"
        return f"{change}: {text(reason)}" if reason else change
    return " ".join([text(event), *(f"{text(name)}={text(value)}" for name, value in fields.items())])


VERBS = (
    Verb(
        "events",
        "Show what happened: changes of state, outages, late reports, oldest first.",
        _events,
        Argument("NAME", help="only what happened to the guard of this name", convert=NAME.convert, nargs="?"),
        Argument("--follow", help="wait for more, until Ctrl-C", action="store_true"),
        JSON,
    ),
)
