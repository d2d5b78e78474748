"""`resilience plugins`: what is installed, from where, whether it loads, and what is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resilience.cli.output import DIM, GREEN, RED, paint
from resilience.cli.statuses import OK
from resilience.errors import ConfigurationError, PluginError
from resilience.markers import PROJECT
from resilience.plugins import OBSERVER, POLICY, STORAGE, installed, load

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.cli.shell import Shell

_PREFIX = f"{PROJECT}_"
_TITLES = ("GROUP", "NAME", "STATUS", "DISTRIBUTION", "VERSION", "VALUE", "HOOKS", "ERROR")


def run(shell: Shell, arguments: Namespace) -> int:
    """Show all plugins; settings that are wrong are told afterwards."""
    wrong: ConfigurationError | None = None
    scheme = None
    try:
        scheme = shell.runtime.url.partition(":")[0]
    except ConfigurationError as error:
        wrong = error
    found = [
        _examined(group, name, chosen=group != STORAGE or name == scheme)
        for group in (STORAGE, POLICY, OBSERVER)
        for name in sorted(installed(group))
    ]
    if arguments.json:
        shell.json(found)
    else:
        shell.table(_TITLES, [_row(plugin) for plugin in found])
    if wrong is not None:
        raise wrong
    return OK


def _examined(group: str, name: str, *, chosen: bool) -> dict[str, object]:
    entry_point = installed(group)[name]
    error = None
    hooks: list[str] = []
    try:
        hooks = implemented(load(entry_point))
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
        "loads": error is None,
        "error": error,
        "chosen": chosen,
    }


def _row(plugin: dict[str, object]) -> list[str]:
    if not plugin["loads"]:
        status = paint("broken", RED)
    elif plugin["chosen"]:
        status = paint("in use", GREEN)
    else:
        status = paint("installed", DIM)
    texts = [str(plugin[field] or "") for field in ("group", "name", "distribution", "version", "value")]
    return [*texts[:2], status, *texts[2:], ", ".join(_short(plugin["hooks"])), str(plugin["error"] or "")]


def _short(hooks: Any) -> list[str]:
    return [hook.removeprefix(_PREFIX) for hook in hooks]


def implemented(plugin: object) -> list[str]:
    """List the hooks that a plugin implements, in the order of their specifications; of a class or of an object."""
    from resilience import hookspecs

    names = [name for name in vars(hookspecs) if name.startswith(_PREFIX)]
    marked = {
        options.get("specname") or attribute
        for attribute in dir(plugin)
        if (options := getattr(getattr(plugin, attribute, None), f"{PROJECT}_impl", None)) is not None
    }
    return [name for name in names if name in marked]
