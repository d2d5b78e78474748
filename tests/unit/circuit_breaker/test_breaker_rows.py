"""Every row of the specification has a test: `docs/specification.md` says which, and nothing is missing from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from resilience.cli import statuses
from resilience_circuit_breaker._settings import CircuitBreakerSettings
from resilience_circuit_breaker._state import AS_GIVEN, STATES, TABLE, VERBS
from resilience_circuit_breaker._status import CircuitStatus

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "specification.md").read_text("utf-8")

ON_STORE_ERROR: Any = CircuitBreakerSettings.model_fields["on_store_error"].annotation


def rows(head: str) -> list[list[str]]:
    """The rows of the table with this head, without the column that names the tests."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \| test \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    assert all("::test_" in row[-1] for row in found), "a row without a test"
    return [row[:-1] for row in found]


def column(head: str) -> list[str]:
    """The first column of a table, without the marks of code."""
    return [row[0].strip("`") for row in rows(head)]


def test_every_setting_has_a_row() -> None:
    assert column("setting") == list(CircuitBreakerSettings.model_fields)


def test_every_state_has_a_row() -> None:
    assert [state.lower() for state in column("state")] == list(STATES)


def test_every_change_of_state_has_a_row() -> None:
    named = rows("from | event | to")
    by_itself = {(before.lower(), after.lower()) for before, _, after in named if before != "any"}
    assert by_itself == {
        (before, after) for before, event, _, after, _ in TABLE if event not in VERBS and after != before
    }
    by_hand = {
        verb: after for before, verbs, after in named if before == "any" for verb in re.findall(r"`(\w+)`", verbs)
    }
    assert by_hand == {
        event: "as given" if after is AS_GIVEN else after.upper() for _, event, _, after, _ in TABLE if event in VERBS
    }


def test_every_choice_has_a_row_and_an_example() -> None:
    shown = re.findall(r"^### (.+)\n\n(?:.+\n)+\n```python\n", (DOCS / "choices.md").read_text("utf-8"), re.MULTILINE)
    assert len(shown) == 17
    assert [row[0] for row in rows("question")] == shown


def test_every_answer_to_an_outage_has_a_row() -> None:
    assert column("`on_store_error`") == list(get_args(ON_STORE_ERROR))


def test_every_field_of_a_status_has_a_row() -> None:
    assert column("field") == list(CircuitStatus.__slots__)


def test_every_exit_status_has_a_row() -> None:
    known = [value for name, value in vars(statuses).items() if name.isupper() and isinstance(value, int)]
    assert [int(status) for status in column("status")] == known
