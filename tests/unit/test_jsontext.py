"""JSON without the package reads and writes what the package does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.jsontext import dumps, quote, scanner

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_it_writes_and_reads_what_the_package_does(value: object) -> None:
    text = dumps(value)
    assert text == json.dumps(value, separators=(",", ":"), allow_nan=False)
    assert scanner()(text, 0) == (value, len(text))


@given(st.text())
def test_text_is_quoted_in_ascii(text: str) -> None:
    assert quote(text) == json.dumps(text)


@given(st.text(alphabet='{}[]",:0123456789.eE+-tfn \\u\n', max_size=12))
def test_it_refuses_what_the_package_refuses(text: str) -> None:
    decoder = json.JSONDecoder()
    try:
        expected = decoder.raw_decode(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            scanner()(text, 0)
    else:
        assert scanner()(text, 0) == expected


@pytest.mark.parametrize("text", ["", "NaN", "[Infinity]", "-Infinity", "]", '{"a":1,}'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        scanner()(text, 0)


def test_hooks_are_called() -> None:
    def refuse(pairs: list[tuple[str, object]]) -> object:
        raise ValueError("twice" if len(pairs) > 1 else "once")

    with pytest.raises(ValueError, match="twice"):
        scanner(object_pairs_hook=refuse)('{"a":1,"a":2}', 0)
    assert scanner(lambda name: name)("[NaN]", 0) == (["NaN"], 5)
    with pytest.raises(RecursionError):
        scanner()("[" * 100_000, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, {(1,): 1}])
def test_what_has_no_form_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        dumps(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="Circular"):
        dumps(value)


BAD = """
try:
    jsontext.scanner()('{', 0)
except ValueError as error:
    print(type(error).__name__)
"""


def test_it_imports_no_package_but_for_an_error() -> None:
    script = (
        "import sys; from resilience import jsontext; "
        f"jsontext.scanner()(jsontext.dumps({{'a': [1.5, None, 'é']}}), 0); print('json' in sys.modules){BAD}"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["False", "JSONDecodeError"]
