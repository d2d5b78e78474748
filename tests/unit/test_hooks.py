"""Each hook is specified in full, stands in the documentation as it is, and has a test."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resilience import hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
SPECS = [spec for spec in vars(hookspecs).values() if hasattr(spec, "resilience_spec")]
AWAITABLE = {"resilience_aload", "resilience_asave"}

each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)


def test_all_hooks_of_the_design_are_there() -> None:
    assert {spec.__name__ for spec in SPECS} == {
        f"resilience_{name}"
        for name in ("load", "save", "lock", "transition", "event", "keys", "delete", "discard", "aload", "asave")
    }


@each
def test_docstring_says_who_calls_and_every_argument(spec: Callable[..., Any]) -> None:
    text = inspect.getdoc(spec) or ""
    signature = inspect.signature(spec)
    assert text.partition("\n")[0].endswith(".")
    assert "Called" in text
    assert re.findall(r"^:param (\w+):", text, re.MULTILINE) == list(signature.parameters)
    assert (":returns:" in text) == (signature.return_annotation != "None")


@each
def test_docstring_says_that_the_first_result_wins(spec: Callable[..., Any]) -> None:
    assert ("First result wins" in (spec.__doc__ or "")) == spec.resilience_spec["firstresult"]  # type: ignore[attr-defined]


@each
def test_no_argument_has_a_default_and_all_is_annotated(spec: Callable[..., Any]) -> None:
    signature = inspect.signature(spec)
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.default is inspect.Parameter.empty
        assert parameter.annotation is not inspect.Parameter.empty


@pytest.fixture(scope="module")
def reference() -> str:
    """The generated part of docs/hooks.md."""
    extension = ROOT / "docs" / "_ext"
    sys.path.insert(0, str(extension))
    try:
        return str(runpy.run_path(str(extension / "generated.py"))["hooks"]())
    finally:
        sys.path.remove(str(extension))


@each
def test_stands_in_the_docs_with_its_exact_signature(spec: Callable[..., Any], reference: str) -> None:
    chapter = re.search(rf"^## {spec.__name__}\n(.*?)(?=^## |\Z)", reference, re.MULTILINE | re.DOTALL)
    assert chapter is not None
    found = re.search(r"^def .*?(?=\n```)", chapter[1], re.MULTILINE | re.DOTALL)
    assert found is not None
    shown = re.sub(r"\(\s+", "(", re.sub(r",\s+\)", ")", re.sub(r",\s+", ", ", found[0])))
    assert shown == f"def {spec.__name__}{_as_in_source(inspect.signature(spec))}"
    summary = (inspect.getdoc(spec) or "").partition("\n")[0].replace("``", "`")
    assert summary in chapter[1]


def _as_in_source(signature: inspect.Signature) -> str:
    """Annotations are text there, without quotes."""
    return str(signature).replace("'", "")


def test_page_includes_the_reference() -> None:
    assert "{include} _generated/hooks.md" in (ROOT / "docs" / "hooks.md").read_text("utf-8")


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """What test functions call or implement: a name that only stands somewhere, in a helper or a text, is no test."""
    found: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for test in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) and test.name.startswith("test_"):
                for node in ast.walk(test):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                        found.add(node.func.attr)
                    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.add(node.name)
    return found


@each
def test_some_test_is_about_it(spec: Callable[..., Any], tested: set[str]) -> None:
    assert spec.__name__ in tested


@each
def test_the_contract_for_authors_says_what_it_must_do(spec: Callable[..., Any]) -> None:
    page = (ROOT / "docs" / "writing-a-storage.md").read_text("utf-8")
    contract = page.partition("## The contract, hook by hook")[2].partition("\n## ")[0]
    assert re.search(rf"^\| .*`{spec.__name__}`", contract, re.MULTILINE)
