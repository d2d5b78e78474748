"""`resilience plugins`: what is installed, from where, whether it may be loaded and does, and what is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience import fitting
from resilience.cli.output import DIM, GREEN, RED, YELLOW, paint
from resilience.cli.statuses import OK
from resilience.errors import ConfigurationError, PluginError
from resilience.markers import PROJECT
from resilience.plugins import OBSERVER, POLICY, STORAGE, installed, load, schemes

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Collection

    from resilience.cli.shell import Shell

_PREFIX = f"{PROJECT}_"
_TITLES = ("GROUP", "NAME", "STATUS", "DISTRIBUTION", "VERSION", "VALUE", "HOOKS", "NOTE")
_LONGEST = 300
"""Characters of a cell: why something does not load, and what to do, is to be read whole."""


def run(shell: Shell, arguments: Namespace) -> int:
    """Show all plugins; settings that are wrong are told afterwards, and nothing is loaded that they might block."""
    wrong: ConfigurationError | None = None
    chosen: Collection[str] = ()
    bar: Any = None
    try:
        bar = shell.runtime.selection.bar
        chosen = schemes(shell.runtime.url)
    except ConfigurationError as error:
        wrong = error
    found = [
        _examined(group, name, bar, is_chosen=group != STORAGE or name in chosen)
        for group in (STORAGE, POLICY, OBSERVER)
        for name in sorted(installed(group))
    ]
    if arguments.json:
        shell.json(found)
    else:
        shell.table(_TITLES, [_row(plugin) for plugin in found], longest=_LONGEST)
    if wrong is not None:
        raise wrong
    return OK


def _examined(group: str, name: str, bar: Any, *, is_chosen: bool) -> dict[str, object]:
    entry_point = installed(group)[name]
    error = None
    hooks: list[str] = []
    blocked_by = "the configuration, which is wrong" if bar is None else bar(group, name)
    if blocked_by is None:
        try:
            plugin = load(entry_point)
            hooks = fitting.implemented(plugin)
            error = fitting.misfit(plugin)
        except PluginError as failure:
            cause = failure.__cause__
            error = f"{type(cause).__name__}: {cause}"
    distribution = entry_point.dist
    return {
        "group": group,
        "name": name,
        "value": entry_point.value,
        "distribution": None if distribution is None else distribution.name,
        "version": None if distribution is None else distribution.version,
        "hooks": hooks,
        "loads": error is None and blocked_by is None,
        "error": error,
        "blocked_by": blocked_by,
        "chosen": is_chosen and blocked_by is None,
    }


def _row(plugin: dict[str, object]) -> list[str]:
    note = ""
    if plugin["blocked_by"] is not None:
        status, note = paint("not loaded", YELLOW), f"kept out by {plugin['blocked_by']}"
    elif plugin["error"] is not None:
        status, note = paint("broken", RED), str(plugin["error"])
    elif plugin["chosen"]:
        status = paint("in use", GREEN)
    else:
        status = paint("installed", DIM)
    texts = [str(plugin[field] or "") for field in ("group", "name", "distribution", "version", "value")]
    return [*texts[:2], status, *texts[2:], ", ".join(_short(plugin["hooks"])), note]


def _short(hooks: Any) -> list[str]:
    return [hook.removeprefix(_PREFIX) for hook in hooks]
