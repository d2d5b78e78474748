"""From words to arguments."""

from __future__ import annotations

import pytest

from resilience.cli.arguments import exit_statuses, span
from resilience.cli.parser import split_command

VALUED = {"--timeout", "--ok-status"}


@pytest.mark.parametrize(
    ("words", "ours", "command"),
    [
        ("x -- curl -f url", "x", "curl -f url"),
        ("x curl -f url", "x", "curl -f url"),
        ("x curl -- url", "x", "curl -- url"),
        ("x curl --timeout 3", "x", "curl --timeout 3"),
        ("--timeout 3 x curl", "--timeout 3 x", "curl"),
        ("x --timeout 3 curl", "x --timeout 3", "curl"),
        ("x --timeout=3 curl", "x --timeout=3", "curl"),
        ("x --timeout 3 --ok-status 0,1 -- curl", "x --timeout 3 --ok-status 0,1", "curl"),
        ("x --timeout -- curl", "x --timeout --", "curl"),
        ("-- -x curl -f", "-- -x", "curl -f"),
        ("-- -x -- curl -f", "-- -x", "curl -f"),
        ("--", "--", ""),
        ("x", "x", ""),
        ("x --", "x", ""),
        ("", "", ""),
        ("--help", "--help", ""),
        ("x --timeout", "x --timeout", ""),
    ],
)
def test_where_the_command_begins(words: str, ours: str, command: str) -> None:
    assert split_command(words.split(), VALUED) == (ours.split(), command.split())


@pytest.mark.parametrize(
    ("text", "statuses"),
    [("0", {0}), ("0,3,10-12", {0, 3, 10, 11, 12}), (" 3 , 4", {3, 4}), ("255", {255}), ("7-7", {7})],
)
def test_lists_of_exit_statuses(text: str, statuses: set[int]) -> None:
    assert exit_statuses(text) == statuses


@pytest.mark.parametrize(
    "text", ["", ",", "a", "-", "1-", "-1", "3-1", "256", "1-256", "1-2-3", "1.5", "²", "9" * 5000]
)
def test_what_is_no_list_of_exit_statuses(text: str) -> None:
    with pytest.raises(ValueError, match="exit statuses are numbers from 0 to 255 and ranges, such as 0,3,10-12"):
        exit_statuses(text)


def test_a_span_is_longer_than_nothing() -> None:
    assert span("10m") == 600
    with pytest.raises(ValueError, match="no time at all"):
        span("0ms")
