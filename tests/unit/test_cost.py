"""The figures of the documentation are those of the committed result of `tox run -e bench`, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks import plot, report, targets
from benchmarks.__main__ import GROUPS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS: dict[str, Any] = json.loads((DOCS / "_data" / "benchmark.json").read_text("utf-8"))


def test_every_group_was_measured_in_one_run() -> None:
    assert set(RESULTS) == {"machine", *GROUPS}


def test_plots_are_those_of_the_results() -> None:
    drawn = plot.pictures(RESULTS)
    assert {path.name for path in (DOCS / "_static").glob("cost-*.svg")} == set(drawn)
    for name, picture in drawn.items():
        assert (DOCS / "_static" / name).read_text("utf-8") == picture, f"{name} is of another run"


def test_the_page_shows_every_table_and_every_plot() -> None:
    page = (DOCS / "cost.md").read_text("utf-8")
    assert set(re.findall(r"\{include\} _generated/(\S+)", page)) == set(report.parts(RESULTS))
    assert set(re.findall(r"\(_static/(\S+?)\)", page)) == set(plot.pictures(RESULTS))


@pytest.mark.parametrize("page", ["README.md", "docs/cost.md"])
def test_no_page_has_a_measured_figure_of_its_own(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    assert not re.findall(r"[\d.,]+ ?(?:ns|µs|ms|/s|(?:\w+ )?a second)\b", text)
    assert not re.findall(r"\d\.\d+ of pybreaker", text)


def test_a_call_costs_less_than_with_breakers_that_share_nothing() -> None:
    # As README and page say in words.
    for jobs in RESULTS["calls"].values():
        closed = dict(jobs["closed"])
        others = [closed[name] for name in closed if name not in {"bare", "resilience", "resilience_memory"}]
        assert len(others) == 6
        assert closed["resilience"] < min(others)


def test_there_is_a_row_for_each_target() -> None:
    rows = targets.rows(RESULTS)
    # `import resilience` has a row, the check without a plan has none.
    starts = [name for each in RESULTS["startup"].values() for name in each if name.startswith("check, ")]
    assert len(rows) == 9 * len(RESULTS["calls"]) + len(starts) + 11 + 34
    assert all(row.what and row.ours and row.figure and row.target for row in rows)


def test_a_row_is_met_or_not_by_its_figure() -> None:
    slower = json.loads(json.dumps(RESULTS))
    for jobs in slower["calls"].values():
        jobs["closed"]["resilience"] = jobs["closed"]["pybreaker"]
    rows = [row for row in targets.rows(slower) if row.what == "closed call"]
    assert [(row.figure, row.is_met) for row in rows if "pybreaker" in row.beside] == [("1.00", False)] * len(
        RESULTS["calls"]
    )
    assert report.targets(slower).count("**not met**") >= len(rows)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(2.5, "2.5 s"), (0.0123456, "12.3 ms"), (4.2e-5, "42 µs"), (1.23e-7, "123 ns"), (0.0, "0 ns"), (9.996e-7, "1 µs")],
)
def test_durations_are_said_with_three_digits(seconds: float, said: str) -> None:
    assert targets.duration(seconds) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0.1234, "0.123"), (12.34, "12.3"), (999.9, "1,000"), (123_456.0, "123,000"), (7, "7")]
)
def test_numbers_are_said_with_three_digits(number: float, said: str) -> None:
    assert targets.rounded(number) == said
