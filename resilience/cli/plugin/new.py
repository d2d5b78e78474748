"""`resilience plugin new`: write a plugin project that is complete and whose tests pass as they are."""

from __future__ import annotations

import re
import sys
import tempfile
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from shutil import which
from typing import TYPE_CHECKING

from resilience import __version__
from resilience.cli.parser import UsageError, shown
from resilience.cli.shell import Unwritable
from resilience.cli.statuses import OK
from resilience.settings import CoreSettings
from resilience.testing import KIT_VERSION
from resilience.variables import DELIMITER, NAMED, normal_form, variable

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from resilience.cli.shell import Shell

INTERPRETERS = "11,12,13,14,15"
"""The minor versions of Python 3 that a new project is tested on: ours."""

_VERB = "plugin new"
_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_LONGEST = 40
_TEMPLATE = ".template"
_TOKEN = re.compile(r"\{\{(\w+)\}\}")


class Occupied(Exception):
    """Something stands where the project would be."""


def name_of(text: str) -> str:
    """Read the name of a new storage, which becomes the scheme of its URL.

    :raises ValueError: it cannot be one.
    """
    if not _NAME.fullmatch(text) or len(text) > _LONGEST:
        raise ValueError(
            f"a name is a word of small letters and digits, or several with dashes between, as in my-store; it has at"
            f" most {_LONGEST} characters"
        )
    return text


def run(shell: Shell, arguments: Namespace) -> int:
    """Write the project."""
    name: str = arguments.name
    _refuse_taken(name)
    values = _values(name)
    target = Path(arguments.folder or values["distribution"])
    try:
        written = write(target, values)
    except Occupied:
        raise UsageError(
            f"{shown(str(target))} is there already; nothing was written; choose --folder", _VERB
        ) from None
    except OSError as error:
        raise Unwritable from error
    for path in written:
        shell.write(f"{target / path}\n")
    shell.write(f"\nnow: cd {quote(str(target))}; {quote(_python())} -m pytest\n")
    return OK


def _python() -> str:
    """Name the interpreter that this runs on as a shell finds it: by its path, if it is not the one of that name."""
    name = Path(sys.executable).name
    return name if which(name) == sys.executable else sys.executable


def _refuse_taken(name: str) -> None:
    from resilience import plugins

    form = normal_form(name)
    for group in (plugins.STORAGE, plugins.POLICY, plugins.OBSERVER):
        for other, entry_point in plugins.installed(group).items():
            if normal_form(other) == form:
                raise UsageError(f"{shown(name)} is taken, by {plugins.origin(entry_point)}", _VERB)
    if form == NAMED or form.lower() in CoreSettings.model_fields:
        raise UsageError(f"{shown(name)} is taken, by the setting {variable(form)}", _VERB)
    if find_spec(_package(name)) is not None:
        raise UsageError(f"{shown(name)} is taken, by the installed package {_package(name)}", _VERB)


def _package(name: str) -> str:
    return f"resilience_{name.replace('-', '_')}"


def _values(name: str) -> dict[str, str]:
    words = "".join(word.capitalize() for word in name.split("-"))
    return {
        "name": name,
        "distribution": f"resilience-{name}",
        "package": _package(name),
        "class": f"{words}Storage",
        "settings": f"{words}Settings",
        "reader": f"{words}Reader",
        "section": variable(normal_form(name)) + DELIMITER,
        "framework": __version__,
        "kit": KIT_VERSION,
        "versions": INTERPRETERS,
    }


def write(target: Path, values: dict[str, str]) -> list[Path]:
    """Write a project: all of it, or nothing.

    :returns: what was written, relative to `target`.
    :raises Occupied: `target` is there, and is no empty folder.
    :raises OSError: it cannot be written.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise Occupied
    target.parent.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as aside:
        project = Path(aside) / "project"
        found = _templates(files("resilience.cli.plugin") / "template", ())
        for template, parts in sorted(found, key=lambda one: one[1]):
            path = Path(*(part.replace("PACKAGE", values["package"]) for part in parts))
            written.append(path)
            file = project / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_TOKEN.sub(lambda token: values[token[1]], template.read_text("utf-8")), "utf-8")
        try:
            project.rename(target)  # an empty folder is replaced, one that somebody has filled meanwhile is not
        except OSError as error:
            if target.exists():
                raise Occupied from error
            raise
    return written


def _templates(folder: Traversable, parts: tuple[str, ...]) -> Iterator[tuple[Traversable, tuple[str, ...]]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, (*parts, entry.name))
        else:
            yield entry, (*parts, entry.name.removesuffix(_TEMPLATE))
