"""The verbs on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.cli.arguments import JSON, NAME, NAMES
from resilience.cli.statuses import OK
from resilience.cli.verbs import Argument, Verb
from resilience_error_budget.guard import ErrorBudget

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.cli.shell import Shell


def _ask(shell: Shell, arguments: Namespace) -> int:
    ErrorBudget.stored(arguments.name, shell.runtime).admit()
    return OK


def _spend(shell: Shell, arguments: Namespace) -> int:
    ErrorBudget.stored(arguments.name, shell.runtime).spend(arguments.error, strict=True)
    return OK


def _refill(shell: Shell, arguments: Namespace) -> int:
    ErrorBudget.stored(arguments.name, shell.runtime).refill()
    return OK


def _status(shell: Shell, arguments: Namespace) -> int:
    stored = shell.runtime.keys()
    names: list[str] = arguments.name or [key.name for key in stored if key.kind == "error_budget"]
    found = [ErrorBudget.stored(name, shell.runtime).status(strict=True) for name in names]
    if arguments.json:
        shell.json([status._asdict() for status in found])
    else:
        rows = [(status.name, status.state, str(status.failures), str(status.left)) for status in found]
        shell.table(("NAME", "STATE", "FAILURES", "LEFT"), rows)
    return OK


VERBS = (
    Verb("ask", "Ask whether a call may be made.", _ask, NAME),
    Verb("spend", "Report that a call failed.", _spend, NAME, Argument("--error", help="what failed", metavar="ERROR")),
    Verb("refill", "Make the budget whole.", _refill, NAME),
    Verb("status", "Show what is left of the budgets.", _status, NAMES, JSON),
)
