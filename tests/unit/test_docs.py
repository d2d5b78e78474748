"""What the documentation says of the code and of the tests is so: pictures, links, commands, claims."""

from __future__ import annotations

import ast
import re
import runpy
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import public_api
import pytest

from resilience import CircuitBreaker
from resilience.settings import CoreSettings
from resilience_aesgcm import AesGcmSettings
from resilience_circuit_breaker import _state
from resilience_circuit_breaker.policy import CircuitBreakerPolicy
from resilience_filelock import FileStorage
from resilience_journal import JournalSettings
from resilience_postgres import PostgresSettings
from resilience_redis import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    if not any(part.startswith("_") for part in page.relative_to(ROOT).parts)
)


@pytest.fixture(scope="module")
def generated() -> Iterator[dict[str, Any]]:
    extension = str(DOCS / "_ext")
    sys.path.insert(0, extension)
    yield runpy.run_path(f"{extension}/generated.py")
    sys.path.remove(extension)


def test_each_public_name_stands_in_the_reference(generated: dict[str, Any]) -> None:
    page = (DOCS / "reference.md").read_text("utf-8")
    for module in generated["MODULES"]:
        assert f"## `{module}`\n" in page
        assert f"{{include}} _generated/reference-{module}.md\n" in page
        text = generated["reference"](module)
        for name in public_api.names_of(module):
            said = re.search(rf"^### `{name}`\n\n```text\n.*?\n```\n\n(.*)", text, re.MULTILINE | re.DOTALL)
            assert said, name
            assert not said[1].startswith("#"), f"{name} has no docstring"


PICTURES = ["state-machine.svg", "window-consecutive.svg", "window-count.svg", "window-time.svg"]


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_code_s(generated: dict[str, Any], name: str) -> None:
    drawn = generated["PICTURES"][name]()
    assert (generated["STATIC"] / name).read_text("utf-8") == drawn, "run python docs/_ext/generated.py"


def test_every_picture_that_can_be_drawn_is_shown(generated: dict[str, Any]) -> None:
    pages = "".join(page.read_text("utf-8") for page in DOCS.glob("*.md"))
    assert sorted(generated["PICTURES"]) == PICTURES
    assert all(f"](_static/{name})" in pages for name in PICTURES)


def test_picture_shows_every_state_and_change(generated: dict[str, Any]) -> None:
    picture = generated["drawing"]()
    for state, _, condition, to, _ in _state.TABLE:
        if to not in {state, _state.AS_GIVEN}:
            assert f">{state.upper()}</text>" in picture
            assert f">{to.upper()}</text>" in picture
            if condition.__name__ != "always":
                assert condition.__name__.replace("_", " ") in picture


def test_table_of_the_state_machine_has_every_row(generated: dict[str, Any]) -> None:
    rows = generated["transitions"](_state.TABLE).splitlines()[2:]
    assert len(rows) == len(_state.TABLE)
    assert "| CLOSED | failure | reaches threshold | **OPEN** | trip |" in rows


def models() -> dict[str, type[BaseModel]]:
    return {
        "core": CoreSettings,
        "file": cast("type[BaseModel]", FileStorage.Settings),
        "journal": JournalSettings,
        "aesgcm": AesGcmSettings,
        "postgres": PostgresSettings,
        "redis": RedisSettings,
        "circuit-breaker": CircuitBreakerPolicy.settings_model(),
    }


@pytest.mark.parametrize("part", models())
def test_every_setting_stands_in_the_reference(generated: dict[str, Any], part: str, tmp_path: Path) -> None:
    section = "RESILIENCE_" if part == "core" else f"RESILIENCE_{part.upper().replace('-', '_')}__"
    generated["write_all"](tmp_path / "parts")
    table = (tmp_path / "parts" / f"settings-{part}.md").read_text("utf-8")
    assert f"_generated/settings-{part}.md" in (DOCS / "configuration.md").read_text("utf-8")
    for name, field in models()[part].model_fields.items():
        assert f"`{section}{name.upper()}`" in table or f"`{name}`, in code" in table
        assert field.description, f"{name} has no description"


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        text = re.sub(r"^ *(```+|~~~+).*?^ *\1", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:", target):
                yield page, target


def test_links_between_pages_lead_somewhere() -> None:
    found = list(links())
    assert found
    lost = [f"{page.name}: {link}" for page, link in found if not (page.parent / link.partition("#")[0]).exists()]
    assert not lost


CLAIM = re.compile(r"`(tests/[\w/]+\.py)::(\w+)(?:::(\w+))?`")


def functions_of(path: Path) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add((node.name,))
        elif isinstance(node, ast.ClassDef):
            found |= {(node.name, item.name) for item in node.body if isinstance(item, ast.FunctionDef)} | {
                (node.name,)
            }
    return found


@pytest.mark.parametrize("page", ["trust.md", "specification.md"])
def test_each_claim_names_a_test_that_there_is(page: str) -> None:
    text = (DOCS / page).read_text("utf-8")
    claims = [(file, tuple(name for name in names if name)) for file, *names in CLAIM.findall(text)]
    assert len(claims) == text.count("::test_") + text.count("::Test") - len(re.findall(r"::Test\w+::test_", text))
    lost = [
        "::".join((file, *names))
        for file, names in claims
        if not (ROOT / file).exists() or names not in functions_of(ROOT / file)
    ]
    assert claims
    assert not lost


def test_no_claim_stands_without_a_test() -> None:
    rows = [line for line in (DOCS / "trust.md").read_text("utf-8").splitlines() if line.startswith("| ")][1:]
    assert rows
    bare = [row for row in rows if not CLAIM.search(row) and not row.startswith("|---") and "claim |" not in row]
    assert not bare


def test_what_the_migration_tables_name_is_there() -> None:
    settings = set(CircuitBreakerPolicy.settings_model().model_fields)
    methods = {*dir(CircuitBreaker), *dir(CircuitBreaker("x").acquire()), "CircuitBreaker"}
    rows = [
        line.split(" | ") for line in (DOCS / "migrating.md").read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    here = "\n".join(row[1] for row in rows)
    named, called = set(re.findall(r"\b(\w+)=", here)), set(re.findall(r"\b(\w+)\(", here))
    assert len(named) > 10
    assert len(called) > 10
    assert (named - settings, called - methods) == (set(), set())


def block_after(mark: str) -> str:
    found: list[str] = re.findall(
        rf"^<!-- {mark} -->\n```sh\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(found) == 1
    return found[0].strip()


def test_readme_has_two_commands_of_one_line() -> None:
    for mark, end in (("demo-command", "resilience demo"), ("test-command", "tox")):
        command = block_after(mark)
        assert "\n" not in command
        assert end in command


def test_continuous_integration_runs_the_readme_s_command() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "test-command" in script
    assert "README.md" in script
    assert "tox run" not in script, "it must not have a command of its own"


def test_extra_of_the_demo_command_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = set(re.findall(r"\.\[(\w+)\]", block_after("demo-command")))
    assert named
    assert named <= set(project["optional-dependencies"])
