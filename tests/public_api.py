"""What is public: names and signatures, hooks, verbs, exit statuses, variables, entry points; kept in a file.

A change of it shows in the diff of `public_api.txt`, which this writes anew::

    python tests/public_api.py
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = Path(__file__).with_suffix(".txt")

AUTHORS = (
    "resilience",
    "resilience.cli.arguments",
    "resilience.cli.shell",
    "resilience.cli.statuses",
    "resilience.cli.verbs",
    "resilience.clock",
    "resilience.policy",
    "resilience.testing",
)
"""The modules that a third party may import from."""
PLUGINS = (
    "resilience_aesgcm",
    "resilience_circuit_breaker",
    "resilience_circuit_breaker.session",
    "resilience_filelock",
    "resilience_journal",
    "resilience_logging",
    "resilience_memory",
    "resilience_postgres",
    "resilience_redis",
)
"""Ours; those who use them may import from these."""
_NO_PLACE = re.compile(r" at 0x[0-9a-f]+")


def names_of(module: str) -> list[str]:
    """List the public names of a module: those of `__all__`, else those that it defines."""
    found: Any = import_module(module)
    listed: list[str] | None = getattr(found, "__all__", None)
    if listed is None:
        listed = [name for name in _defined(ast.parse(inspect.getsource(found))) if not name.startswith("_")]
    return sorted(set(listed) - {"TYPE_CHECKING"})


def _defined(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


# --- what a third party imports ---------------------------------------------------------------------------------------


def foreign(path: Path, own: str = "") -> list[str]:
    """List what a file imports of ours that is not public, or by a way that this cannot follow.

    :param own: the package that it belongs to.
    """
    found: list[str] = []
    tree = ast.parse(path.read_text("utf-8"))
    theirs = _defined_in(tree) | _OF_TUPLES
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [
                alias.name
                for alias in node.names
                if alias.name.partition(".")[0] in {"importlib", "pluggy", "resilience"}
            ]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += _not_public(node.module, [alias.name for alias in node.names], own)
        elif isinstance(node, ast.Name) and node.id == "__import__":
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and re.match("_(?!_)", node.attr) and node.attr not in theirs:
            found.append(node.attr)
    return found


_OF_TUPLES = {"_asdict", "_fields", "_replace"}


def _defined_in(tree: ast.Module) -> set[str]:
    """List the functions and attributes that a file defines itself."""
    nodes = list(ast.walk(tree))
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return functions | {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def _not_public(module: str, names: list[str], own: str) -> Iterator[str]:
    package = module.partition(".")[0]
    if package == "pluggy" or (package in PLUGINS and package != own):
        yield module
    elif package == "resilience":
        public = {*names_of(module), *_KINDS.get(module, ())} if module in AUTHORS else set[str]()
        if module == "resilience":
            public.add("clock")
        yield from (f"{module}:{name}" for name in names if name not in public)


_KINDS = {"resilience.policy": ("OnStoreError", "Outcome", "Policy", "PolicyEvent", "State")}
"""Names that only type checkers see."""


# --- the file ---------------------------------------------------------------------------------------------------------


def described() -> str:
    """Describe all of it, as text."""
    parts = [
        _hooks(),
        *(_module(name) for name in (*AUTHORS, *PLUGINS)),
        _verbs(),
        _statuses(),
        _variables(),
        _groups(),
    ]
    return "\n".join(parts)


def _module(name: str) -> str:
    module: Any = import_module(name)
    lines = [f"# {name}"]
    for public in names_of(name):
        lines += _described(public, getattr(module, public), name)
    lines += [f"type {kind}" for kind in _KINDS.get(name, ())]
    return "\n".join(lines) + "\n"


def _described(name: str, value: Any, module: str) -> Iterator[str]:
    home = getattr(value, "__module__", module)
    if home.startswith("resilience_") and not module.startswith("resilience_"):
        yield f"{name} = {home.partition('.')[0]}:{name}"  # described there
    elif inspect.isclass(value):
        yield from _class(name, value)
    elif callable(value):
        yield f"def {name}{_signature(value)}"
    else:
        yield f"{name} = {_value(value)}"


def _class(name: str, kind: type) -> Iterator[str]:
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    yield f"class {name}({bases}){_signature(kind)}"
    for member in sorted(dir(kind)):
        if member.startswith("_"):
            continue
        owner = next(base for base in kind.__mro__ if member in vars(base) or base is object)
        if not owner.__module__.startswith("resilience"):
            continue
        value: Any = inspect.getattr_static(kind, member)
        if type(value) in {staticmethod, classmethod}:
            yield f"    {type(value).__name__} {member}{_signature(value.__func__)}"
        elif inspect.isfunction(value):
            yield f"    def {member}{_signature(value)}"
        elif isinstance(value, property) or inspect.isdatadescriptor(value):
            yield f"    {member}"
        else:
            yield f"    {member} = {_value(value)}"


def _signature(function: Any) -> str:
    try:
        return _NO_PLACE.sub("", str(inspect.signature(function)))
    except (TypeError, ValueError):
        return "(…)"


def _value(value: Any) -> str:
    if type(value) is frozenset:
        members: list[object] = [*value]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return f"{{{', '.join(sorted(map(repr, members)))}}}"
    plain = value is None or type(value) in {str, int, float, bool, tuple} or isinstance(value, str)
    return _NO_PLACE.sub("", repr(value)) if plain else f"a {type(value).__name__}"


def _hooks() -> str:
    hookspecs = import_module("resilience.hookspecs")
    lines = ["# hooks"]
    for name, spec in vars(hookspecs).items():
        if name.startswith("resilience_"):
            first = "first result: " if spec.resilience_spec["firstresult"] else ""
            lines.append(f"{first}{name}{_signature(spec)}")
    return "\n".join(lines) + "\n"


def _verbs() -> str:
    catalogue = import_module("resilience.cli.catalogue")
    selection = import_module("resilience.selection")
    lines = ["# verbs of the command line"]
    for verb in (*catalogue.of_plugins(selection.Selection())[0], *catalogue.CORE):
        arguments = " ".join(_argument(argument) for argument in verb.arguments)
        lines.append(f"{verb.name} {arguments}{' -- CMD…' if verb.takes_command else ''}".strip())
    return "\n".join(lines) + "\n"


def _argument(argument: Any) -> str:
    if not argument.is_positional:
        value = f" {argument.options.get('metavar', 'VALUE')}" if argument.takes_value else ""
        return f"[{'|'.join(argument.flags)}{value}]"
    many = {"?": "[{}]", "*": "[{}…]"}.get(argument.options.get("nargs", ""), "{}")
    return many.format(argument.flags[0])


def _statuses() -> str:
    statuses = import_module("resilience.cli.statuses")
    return "\n".join(["# exit statuses", *(f"{number}: {meaning}" for number, meaning in statuses.MEANINGS)]) + "\n"


def _variables() -> str:
    settings = import_module("resilience.settings")
    lines = ["# variables", *_fields("RESILIENCE_", settings.CoreSettings)]
    for group in ("resilience.storage", "resilience.policy", "resilience"):
        for point in sorted(_ours(group), key=lambda found: found.name):
            plugin = point.load()
            model = plugin.settings_model() if group == "resilience.policy" else getattr(plugin, "Settings", None)
            section = getattr(model, "section", None) or point.name
            if model is not None and section == point.name:
                lines += _fields(f"RESILIENCE_{section.upper().replace('+', '_')}__", model)
    return "\n".join(lines) + "\n"


def _fields(prefix: str, model: Any) -> Iterator[str]:
    for name, field in model.model_fields.items():
        extra: Any = field.json_schema_extra or {}
        if not extra.get("code_only"):
            yield f"{prefix}{name.upper()} = {_value(field.default)}"


def _groups() -> str:
    groups = ("resilience.storage", "resilience.policy", "resilience")
    lines = [f"{group}: {', '.join(sorted(point.name for point in _ours(group)))}" for group in groups]
    return "\n".join(["# entry points", *lines]) + "\n"


def _ours(group: str) -> list[Any]:
    """List the entry points that come with the framework, whatever else is installed here."""
    return [point for point in entry_points(group=group) if point.value.partition(":")[0].partition(".")[0] in PLUGINS]


if __name__ == "__main__":
    KEPT.write_text(described(), "utf-8")
    print(f"written: {KEPT}", file=sys.stderr)
