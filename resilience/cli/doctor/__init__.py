"""`resilience doctor`: whether the chosen storage does what it must, here and now.

Three sources, one table: what is installed, what the storage itself can say of its place (`examine`), and what any
storage must do, tried through its hooks on a record that nobody else has and that is deleted at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.cli.doctor.checks import Check
from resilience.cli.output import GREEN, RED, paint
from resilience.cli.statuses import OK, UNAVAILABLE

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.cli.shell import Shell

_TITLES = ("CHECK", "RESULT", "DETAIL", "FIX")
_LONGEST = 500
"""Characters of a cell: what to do is to be read whole."""


def run(shell: Shell, arguments: Namespace) -> int:
    """Examine the storage and show what was found."""
    from resilience.cli.doctor.examination import examine

    found = [_shown(check) for check in examine(shell.runtime)]
    if arguments.json:
        shell.json([check._asdict() for check in found])
    else:
        shell.table(_TITLES, [_row(check) for check in found], longest=_LONGEST)
    return OK if all(check.ok for check in found) else UNAVAILABLE


def _shown(check: Check) -> Check:
    """Without secrets: a plugin may have quoted its URL in an error."""
    from resilience.redaction import redact_within

    name, ok, detail, fix = check
    return Check(name, ok, redact_within(detail), "" if ok else fix)


def _row(check: Check) -> list[str]:
    return [check.name, paint("ok", GREEN) if check.ok else paint("FAILED", RED), check.detail, check.fix]
