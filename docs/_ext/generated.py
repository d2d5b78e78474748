"""The parts of the documentation that are made from the code: settings, hooks, names, state machine; and the figures.

A Sphinx extension: when a build begins, it writes them to ``docs/_generated``, from where the pages include them.  The
pictures of the state machine and of the windows are kept beside the pages, which show them without a build too::

    python docs/_ext/generated.py       # draws them anew; the tests say when that is needed
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import picture
import window_pictures
from docstrings import as_markdown, folded
from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from reference import MODULES, reference

from resilience import hookspecs
from resilience.settings import CoreSettings
from resilience_aesgcm import AesGcmSettings
from resilience_circuit_breaker import _state
from resilience_circuit_breaker.policy import CircuitBreakerPolicy
from resilience_filelock import FileStorage
from resilience_journal import JournalSettings
from resilience_postgres import PostgresSettings
from resilience_postgres._schema import Schema
from resilience_redis import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
STATIC = DOCS / "_static"
FIGURES = DOCS / "_data" / "benchmark.json"


def write_all(folder: Path) -> None:
    """Write every generated part into a folder."""
    folder.mkdir(exist_ok=True)
    for name, text in {
        "settings-core.md": settings(CoreSettings),
        "settings-file.md": settings(FileStorage.Settings, "FILE"),
        "settings-postgres.md": settings(PostgresSettings, "POSTGRES"),
        "postgres-ddl.md": f"```postgres\n{Schema(PostgresSettings().table).ddl}```\n",
        "settings-redis.md": settings(RedisSettings, "REDIS"),
        "settings-aesgcm.md": settings(AesGcmSettings, "AESGCM"),
        "settings-journal.md": settings(JournalSettings, "JOURNAL"),
        "settings-circuit-breaker.md": settings(CircuitBreakerPolicy.settings_model(), "CIRCUIT_BREAKER"),
        "hooks.md": hooks(),
        "transitions.md": transitions(_state.TABLE),
        **{f"reference-{name}.md": reference(name) for name in MODULES},
        **costs(),
    }.items():
        target = folder / name
        if not target.exists() or target.read_text("utf-8") != text:
            target.write_text(text, "utf-8")


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(model: type[BaseModel], *section: str) -> str:
    """Make the table of a settings model: variable, default, bounds and meaning of each field."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        extra: Any = field.json_schema_extra or {}
        in_code = extra.get("code_only") or "In code only" in (field.description or "")
        variable = f"`{name}`, in code" if in_code else f"`RESILIENCE_{'__'.join([*section, name.upper()])}`"
        text = " ".join((field.description or "").split())
        bounds = _bounds(field)
        rows.append(f"| {variable} | {_default(field)} | {_escaped(text)}{f' ({bounds})' if bounds else ''} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "required"
    if value is None or value == ():
        return "none"
    if isinstance(value, SecretStr):
        return "`…`"
    if isinstance(field.default, tuple):
        items: list[Any] = list(value)
        return ", ".join(f"`{getattr(item, '__name__', item)}`" for item in items)
    return (
        f"`{value:g}`" if isinstance(value, float) else f"`{str(value).lower() if value in {True, False} else value}`"
    )


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f"{word} {getattr(limit, name):.15g}"
        for limit in field.metadata
        for name, word in words.items()
        if getattr(limit, name, None) is not None
    ]
    return ", ".join(found)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# -- hooks -------------------------------------------------------------------------------------------------------------


def specifications() -> list[Callable[..., Any]]:
    """List the hook specifications, in the order of the module."""
    found = [spec for spec in vars(hookspecs).values() if hasattr(spec, "resilience_spec")]
    return sorted(found, key=lambda spec: spec.__code__.co_firstlineno)


def signature(spec: Callable[..., Any]) -> str:
    """Return the signature of a specification as it stands in the source, on one line."""
    function = ast.parse(inspect.getsource(spec)).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert function.returns is not None
    return f"def {function.name}({ast.unparse(function.args)}) -> {ast.unparse(function.returns)}"


def hooks() -> str:
    """Make the reference of all hooks: exact signature and docstring of each."""
    parts: list[str] = []
    for spec in specifications():
        options = spec.resilience_spec  # type: ignore[attr-defined]  # pluggy's mark
        mark = "@hookspec(firstresult=True)" if options["firstresult"] else "@hookspec"
        parts += [
            f"## {spec.__name__}",
            f"<!-- not-run: a signature -->\n```python\n{mark}\n{folded(signature(spec))}\n```",
            as_markdown(inspect.getdoc(spec) or ""),
        ]
    return "\n\n".join(parts) + "\n"


# -- state machine -----------------------------------------------------------------------------------------------------


def transitions(table: Iterable[tuple[str, str, Any, str, Any]]) -> str:
    """Make the table of all rows of the state machine, in the order in which they are tried."""
    rows = ["| in | event | if | to | what happens |", "|---|---|---|---|---|"]
    for state, event, condition, target, action in table:
        words = [name.__name__.replace("_", " ") for name in (condition, action)]
        then = f"**{picture.title(target)}**" if target != state else picture.title(target)
        rows.append(f"| {picture.title(state)} | {event.replace('_', ' ')} | {words[0]} | {then} | {words[1]} |")
    return "\n".join(rows) + "\n"


def drawing() -> str:
    """Draw the state machine of the circuit breaker from its table."""
    return picture.draw([(state, event, condition.__name__, to) for state, event, condition, to, _ in _state.TABLE])


PICTURES: dict[str, Callable[[], str]] = {"state-machine.svg": drawing, **window_pictures.DRAWINGS}
"""What draws each of the pictures in `STATIC`."""


# -- figures -----------------------------------------------------------------------------------------------------------


def costs() -> dict[str, str]:
    """Make the tables of the page on costs, from the committed result of the benchmarks."""
    from benchmarks import report  # it stands in `tests`; see conf.py

    return report.parts(json.loads(FIGURES.read_text("utf-8")))


# -- Sphinx ------------------------------------------------------------------------------------------------------------


def _write_all(app: Sphinx) -> None:
    write_all(Path(app.srcdir) / "_generated")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", _write_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (STATIC / name).write_text(draw(), "utf-8")
