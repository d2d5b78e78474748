from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from resilience.durations import LONGEST
from resilience.settings import Duration, parse_duration

SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400}

duration: TypeAdapter[float] = TypeAdapter(Duration)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        (" 3 ", 3.0),
        ("0", 0.0),
        ("30s", 30.0),
        (" 30s ", 30.0),
        ("30 s", 30.0),
        ("500ms", 0.5),
        ("0.5ms", 0.0005),
        ("2m", 120.0),
        ("1.5h", 5400.0),
        ("1d", 86400.0),
        ("3650d", LONGEST),
    ],
)
def test_reads_what_people_write(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert duration.validate_python(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "s",
        "ms",
        ".",
        "-1",
        "+1",
        "-0",
        "inf",
        "nan",
        "1e309",
        "1e3",
        "1_0",
        "1..5",
        "1h30m",
        "5M",
        "30S",
        "5 minutes",
        "٣",  # a digit of another script
        "²",
        "3651d",
        "9" * 30,
        "9" * 5000,
        "0" * 50 + "1",
        "1\n2",
    ],
)
def test_refuses_everything_else_and_says_what_is_allowed(text: str) -> None:
    with pytest.raises(
        ValueError, match="a duration is a number of seconds from 0 to 315360000, such as 30, "
    ) as caught:
        parse_duration(text)
    assert len(str(caught.value)) < 200
    with pytest.raises(ValidationError):
        duration.validate_python(text)


def test_says_of_nothing_that_it_is_empty() -> None:
    with pytest.raises(ValueError, match="it is empty"):
        parse_duration(" ")


@pytest.mark.parametrize("value", [30, 0.5, 0, LONGEST, int(LONGEST)])
def test_takes_numbers_from_code_and_gives_floats(value: float) -> None:
    seconds = duration.validate_python(value)
    assert seconds == value
    assert type(seconds) is float


@pytest.mark.parametrize(
    "value",
    [-1, -0.001, float("inf"), float("-inf"), float("nan"), 10**400, LONGEST + 1, True, None, b"3"],
    ids=lambda value: repr(value)[:20],
)
def test_refuses_other_values_from_code(value: object) -> None:
    with pytest.raises(ValidationError, match="a duration is a number of seconds"):
        duration.validate_python(value)


@pytest.mark.parametrize(("value", "fits"), [("1s", True), (60, True), ("999ms", False), ("2m", False)])
def test_takes_bounds_of_its_own(value: object, fits: bool) -> None:  # noqa: FBT001 - a column of the table
    bounded: TypeAdapter[float] = TypeAdapter(Annotated[Duration, Field(ge=1, le=60)])
    if fits:
        assert 1 <= bounded.validate_python(value) <= 60
    else:
        with pytest.raises(ValidationError, match=r"Input should be (greater|less) than or equal to"):
            bounded.validate_python(value)


@given(st.integers(0, 3650), st.sampled_from(list(SECONDS)), st.sampled_from(["", " "]))
def test_a_whole_number_of_a_unit_is_exact(number: int, unit: str, space: str) -> None:
    expected = number / 1000 if unit == "ms" else number * SECONDS[unit]
    assert parse_duration(f"{space}{number}{space}{unit}{space}") == expected


@given(st.floats(0, LONGEST, allow_subnormal=False).filter(lambda x: "e" not in repr(x)))
def test_the_text_of_a_number_means_that_number(seconds: float) -> None:
    assert parse_duration(repr(seconds)) == duration.validate_python(seconds) == seconds


@given(st.text())
def test_any_text_is_a_duration_within_bounds_or_a_value_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError:
        return
    assert 0 <= seconds <= LONGEST


@given(st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(), st.binary()))
def test_any_value_is_a_duration_within_bounds_or_refused(value: object) -> None:
    try:
        seconds = duration.validate_python(value)
    except ValidationError:
        return
    assert 0 <= seconds <= LONGEST
    assert not isinstance(value, bool)


def test_reading_one_imports_no_pydantic() -> None:
    script = "import sys, resilience.durations; print('pydantic' in sys.modules, 're' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
