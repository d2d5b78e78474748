"""How things are written: escaped, aligned, as JSON."""

from __future__ import annotations

import json

import pytest

from resilience.cli.output import RED, described, escaped, json_text, paint, seconds, table, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("naïve 日本", "naïve 日本"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202e\u2028", r"\u202e\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_written(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_long_text_is_shortened() -> None:
    assert escaped("abcdef", 6) == "abcdef"
    assert escaped("abcdefg", 6) == "abcde…"


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("é", 1), ("\uff41", 2)])
def test_the_width_of_a_text(text: str, columns: int) -> None:
    assert width(text) == columns


def test_a_table_is_aligned_by_what_is_seen() -> None:
    rows = [["日本", "1"], ["e\u0301", "22"], ["abcde", "3"]]
    assert table(["A", "B"], rows, colour=False) == "A      B\n日本   1\ne\u0301      22\nabcde  3\n"


def test_an_empty_column_is_left_out() -> None:
    assert table(["A", "B", "C"], [["1", "", "2"], ["3", "", ""]], colour=False) == "A  C\n1  2\n3\n"


def test_a_table_of_nothing_is_nothing() -> None:
    assert table(["A"], [], colour=False) == ""


def test_colour_does_not_move_columns() -> None:
    rows = [[paint("a\x1b", RED), "1"], ["b", "2"]]
    plain = "A     B\na\\x1b  1\nb      2\n".replace("A     B", "A      B")
    coloured = table(["A", "B"], rows, colour=True)
    assert table(["A", "B"], rows, colour=False) == plain
    assert coloured == "\x1b[1mA\x1b[0m      \x1b[1mB\x1b[0m\n\x1b[31ma\\x1b\x1b[0m  1\nb      2\n"


def test_a_cell_is_shortened() -> None:
    assert table(["A"], [["x" * 100]], colour=False, longest=10) == "A\nxxxxxxxxx…\n"
    assert table(["A"], [["x" * 5000]], colour=False, longest=None) == f"A\n{'x' * 5000}\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        ([], "none"),
        ((), "none"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (3, "3"),
        (0.25, "0.25"),
        (3600.0, "3600"),
        (Exception, "builtins:Exception"),
        ([KeyError, "requests:Timeout"], "builtins:KeyError,requests:Timeout"),
        ("text", "text"),
    ],
)
def test_a_value_as_text(value: object, text: str) -> None:
    assert described(value) == text


def test_json_holds_what_json_has_no_form_for_as_text() -> None:
    text = json_text({"class": KeyError, "name": "日\x1b"})
    assert text.isascii()
    assert json.loads(text) == {"class": "builtins:KeyError", "name": "日\x1b"}


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (-5, "0.0 s"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "120 min"),
        (7200, "2 h"),
        (172_799, "48 h"),
        (172_800, "2 d"),
        (864_000, "10 d"),
    ],
)
def test_a_span_as_people_say_it(span: float, text: str) -> None:
    assert seconds(span) == text
