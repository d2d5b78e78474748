"""The reference of what programs import, made from the signatures and docstrings of the code."""

from __future__ import annotations

import ast
import inspect
import re
from enum import Enum
from importlib import import_module
from itertools import pairwise
from typing import Any

from docstrings import as_markdown, folded
from public_api import names_of

MODULES = (
    "resilience",
    "resilience.testing",
    "resilience.policy",
    "resilience.clock",
    "resilience_circuit_breaker.session",
)
"""Modules whose public names are listed."""


def reference(name: str) -> str:
    """List the public names of a module, each with its signature and what its docstring says."""
    module = import_module(name)
    parts: list[str] = []
    for public in sorted(names_of(name), key=str.lower):
        parts += [f"### `{public}`", *_described(public, getattr(module, public), name)]
    return "\n\n".join(parts) + "\n"


def _described(name: str, value: Any, module: str) -> list[str]:
    if inspect.isclass(value):
        return _class(name, value)
    noted = _noted(module).get(name, "")
    if callable(value):
        return [_code(f"{name}{_signature(value)}"), as_markdown(noted or inspect.getdoc(value) or "")]
    return [_code(f"{name} = {value!r}"), as_markdown(noted)]


def _noted(module: str) -> dict[str, str]:
    """Return the texts that stand below what is assigned in a module."""
    body = ast.parse(inspect.getsource(import_module(module))).body
    return {
        target.id: inspect.cleandoc(below.value.value)
        for node, below in pairwise(body)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        for target in (node.targets if isinstance(node, ast.Assign) else ())
        if isinstance(target, ast.Name)
    }


def _class(name: str, kind: Any) -> list[str]:
    text = _with_terms(as_markdown(_own_doc(kind)))
    if issubclass(kind, BaseException | Enum):
        values = [", ".join(f"`{member}`" for member in kind.__members__)] if issubclass(kind, Enum) else []
        return [_code(f"class {name}({kind.__bases__[0].__name__})"), text, *values, *_members(kind)]
    made = as_markdown(_own_doc(kind.__init__))
    return [_code(f"{name}{_signature(kind)}"), text, *([made] if made not in text else []), *_members(kind)]


def _members(kind: type) -> list[str]:
    """Describe what is called on an object of a class, as far as a docstring says what it does."""
    parts: list[str] = []
    for name in sorted(dir(kind)):
        owner = next(base for base in kind.__mro__ if name in vars(base) or base is object)
        value: Any = inspect.getattr_static(kind, name)
        function = getattr(value, "__func__", value)
        text = inspect.getdoc(value) or ""
        if name.startswith("_") or not owner.__module__.startswith("resilience") or not text:
            continue
        if inspect.isfunction(function):
            shown = re.sub(r"\((self|cls)(, )?", "(", f"{name}{_signature(function)}", count=1)
        elif isinstance(value, property) or inspect.isdatadescriptor(value):
            shown = name
        else:
            continue
        lines = as_markdown(text).splitlines()
        parts.append("\n".join([f"`.{shown}`", f": {lines[0]}", *(f"  {line}".rstrip() for line in lines[1:])]))
    return parts


def _with_terms(text: str) -> str:
    """Make a list of definitions of names that stand on a line of their own, explained by indented lines below."""
    lines: list[str] = []
    in_term = False
    for line in text.splitlines():
        if in_term and line.startswith("    "):
            lines.append(f"{': ' if _TERM.fullmatch(lines[-1]) else '  '}{line.strip()}")
        else:
            in_term = _TERM.fullmatch(line) is not None
            lines += ["", line] if in_term else [line]
    return "\n".join(lines)


_TERM = re.compile(r"(`\w+`(, )?)+")


def _own_doc(value: Any) -> str:
    """Return a docstring that is no inherited one."""
    return inspect.cleandoc(value.__doc__) if value.__doc__ and value is not object.__init__ else ""


def _signature(value: Any) -> str:
    try:
        shown = str(inspect.signature(value))
    except (TypeError, ValueError):
        return ""
    return re.sub(r"<(\w+\.\w+): [^>]*>", r"\1", re.sub(r"'([^']+)'", r"\1", shown))


def _code(text: str) -> str:
    return f"```text\n{folded(text)}\n```"
