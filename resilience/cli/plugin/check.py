"""`resilience plugin check`: put a storage to the proof, without pytest."""

from __future__ import annotations

import json
from textwrap import indent
from typing import TYPE_CHECKING

from resilience import clock
from resilience.cli.output import escaped
from resilience.cli.statuses import OK, VIOLATED
from resilience.errors import ConfigurationError, PluginError, StorageUnavailable
from resilience.redaction import redact
from resilience.runtime import Runtime
from resilience.storage import Key
from resilience.testing import all_checks
from resilience.testing import run as prove

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from resilience.cli.shell import Shell
    from resilience.testing import Result

_PATIENCE = 5.0
"""Seconds that the storage has for its first answer."""


def names_of(text: str) -> tuple[str, ...]:
    """Read names of checks, with commas between.

    :raises ValueError: there is no such check.
    """
    known = {check.name for check in all_checks()}
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in known]
    if unknown:
        from difflib import get_close_matches

        near = get_close_matches(unknown[0][:100], known, 1)
        said = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(check.name for check in all_checks())}"
        raise ValueError(f"the kit has no such check: {said}")
    return names


def function_of(text: str) -> Callable[[Any, Key], object]:
    """Find a function by its name, ``module:function``; modules of this folder are found as well.

    :raises ValueError: there is none.
    """
    import sys
    from importlib import import_module
    from pathlib import Path

    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError("write it as module:function")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: object = getattr(import_module(module), name)
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise ValueError(f"{name!r} of {module!r} is no function")  # noqa: TRY004 - of the text that was given
    return found


def run(shell: Shell, arguments: Namespace) -> int:
    """Run the kit, tell each result as it comes, and the end.

    :raises ConfigurationError: the URL or a variable is wrong.
    :raises PluginError: the plugin does not load, or its hooks do not fit.
    :raises StorageUnavailable: the store does not answer.
    """
    url: str = arguments.url
    _ask(shell, url)
    told = _Telling(shell, url)
    report = prove(
        url,
        quick=arguments.quick,
        only=arguments.only,
        damage=arguments.damage,
        unreachable=arguments.unreachable,
        progress=None if arguments.json else told.result,
    )
    if arguments.json:
        shell.json(json.loads(_without_secrets(report.json(), url)))
    else:
        told.lines(f"\n{report.summary()}")
    return OK if report.ok else VIOLATED


def _ask(shell: Shell, url: str) -> None:
    """See whether the store is there at all: the kit would call each check that fails a mistake of the plugin."""
    with_variables = Runtime(storage=url, environ=shell.runtime.environ)
    try:
        key = Key("conformance", f"probe {clock.SystemClock.draw():016x}")
        with_variables.opened.ports.load(key, _PATIENCE)
    except (ConfigurationError, PluginError, StorageUnavailable):
        raise
    except Exception:  # noqa: BLE001, S110 - whatever it is, the kit says what it means
        pass
    finally:
        with_variables.close()


class _Telling:
    """Tells the results one by one, each group below its title."""

    def __init__(self, shell: Shell, url: str) -> None:
        self._shell = shell
        self._url = url
        self._group = ""

    def result(self, result: Result) -> None:
        """Tell a result."""
        if result.group != self._group:
            self._group = result.group
            self.lines(result.group)
        self.lines(indent(str(result), "  "))
        self._shell.flush()

    def lines(self, text: str) -> None:
        """Write lines, some of which quote what the storage said."""
        for line in _without_secrets(text, self._url).splitlines():
            self._shell.write(f"{escaped(line)}\n")


def _without_secrets(text: str, url: str) -> str:
    return text.replace(url, redact(url))
