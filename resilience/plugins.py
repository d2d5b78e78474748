"""Finding and loading plugins: by name, and only when they are needed.

| group | name | value |
|---|---|---|
| ``resilience.storage`` | the URL scheme | storage class |
| ``resilience.policy`` | the kind | policy class |
| ``resilience`` | any | observers |
"""

from __future__ import annotations

import sys

from resilience.errors import ConfigurationError, PluginError
from resilience.selection import OBSERVER, POLICY, STORAGE, Installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import EntryPoint
    from typing import Any

    from resilience.runtime import Runtime
    from resilience.selection import Selection

__all__ = [
    "OBSERVER",
    "POLICY",
    "STORAGE",
    "PluginWarning",
    "everything",
    "installed",
    "load",
    "observers",
    "origin",
    "policy_class",
    "schemes",
    "selected",
    "settings_of",
    "storage_class",
]


class PluginWarning(UserWarning):
    """An observer was left out because it does not load."""


_read: dict[tuple[str, ...], Any] = {}
_MOST_READ = 4


def _entry_points(path: tuple[str, ...]) -> Any:
    """Read the entry points of all that is installed, which takes some 20 ms, once for a `sys.path`."""
    found = _read.get(path)
    if found is None:
        from importlib.metadata import entry_points  # which takes longer to import than a bare interpreter to start

        if len(_read) >= _MOST_READ:
            _read.clear()
        found = _read[path] = entry_points()
    return found


def installed(group: str) -> dict[str, EntryPoint]:
    """List the plugins of a group by name, without loading one; the first of a name on `sys.path` wins."""
    found: dict[str, EntryPoint] = {}
    for entry_point in _entry_points(tuple(sys.path)).select(group=group):
        found.setdefault(entry_point.name, entry_point)
    return found


def everything() -> Iterator[Installed]:
    """List all plugins with their distributions."""
    for group in (STORAGE, POLICY, OBSERVER):
        for name, entry_point in installed(group).items():
            yield Installed(group, name, None if entry_point.dist is None else entry_point.dist.name)


def selected(group: str, selection: Selection) -> dict[str, EntryPoint]:
    """List the plugins of a group that may be loaded."""
    return {name: entry_point for name, entry_point in installed(group).items() if selection.bar(group, name) is None}


def origin(entry_point: EntryPoint) -> str:
    """Name a plugin with its distribution and version, for a person."""
    distribution = entry_point.dist
    where = "" if distribution is None else f" of {distribution.name} {distribution.version}"
    return f"plugin {entry_point.name!r} ({entry_point.value}{where})"


def load(entry_point: EntryPoint) -> Any:
    """Import a plugin.

    :raises PluginError: it does not load; the message names it, its distribution, its version and the fix.
    """
    try:
        return entry_point.load()
    except Exception as error:
        raise PluginError(
            f"{origin(entry_point)} does not load: {type(error).__name__}: {error}; repair or uninstall it, "
            "or choose another one"
        ) from error


def schemes(url: str) -> list[str]:
    """Return the schemes of the storages that a URL names, the outermost first: ``aesgcm+file:`` names two."""
    scheme = url.partition(":")[0]
    outer, plus, inner = scheme.partition("+")
    if not plus or scheme in installed(STORAGE):
        return [scheme]
    return [outer, *schemes(inner)]


def storage_class(scheme: str, selection: Selection) -> Any:
    """Load the storage class of a scheme.

    :raises ConfigurationError: no installed plugin has it, or it is blocked.
    :raises PluginError: the plugin that has it does not load.
    """
    known = installed(STORAGE)
    if scheme not in known:
        from difflib import get_close_matches

        near = get_close_matches(scheme, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"installed are: {', '.join(sorted(known)) or 'none'}"
        raise ConfigurationError(f"RESILIENCE_STORAGE: no installed plugin stores to {scheme + ':'!r}; {hint}")
    if (bar := selection.bar(STORAGE, scheme)) is not None:
        raise ConfigurationError(
            f"RESILIENCE_STORAGE: {bar} blocks {origin(known[scheme])}; choose another one, or take it off that list"
        )
    return load(known[scheme])


def policy_class(kind: str) -> Any:
    """Load the policy class of a kind.

    :raises PluginError: no installed plugin has it, or the one that has does not load.
    """
    known = installed(POLICY)
    if kind not in known:
        raise PluginError(f"no installed plugin has the policy {kind!r}; reinstall the distribution that brings it")
    return load(known[kind])


def settings_of(observer: Any) -> Any:
    """Return the settings model of an observer class; `None` if it has none."""
    return getattr(observer, "Settings", None) if isinstance(observer, type) else None


def observers(runtime: Runtime) -> list[tuple[str, object]]:
    """Load and make all installed observers that may be loaded; one that fails is left out with a `PluginWarning`.

    A class with a `Settings` model is called with the runtime and an instance of it, any other class without arguments.

    :raises ConfigurationError: the settings of one are unknown or impossible.
    """
    from resilience import fitting

    made: list[tuple[str, object]] = []
    for name, entry_point in selected(OBSERVER, runtime.configuration.selection).items():
        try:
            plugin = load(entry_point)
            if (wrong := fitting.misfit(plugin)) is not None:
                raise PluginError(f"{origin(entry_point)}: {wrong}")
            model = settings_of(plugin)
            settings = runtime.configuration.observer_settings(name, model)
            if model is not None:
                made.append((name, plugin(runtime, settings)))
            else:
                made.append((name, plugin() if isinstance(plugin, type) else plugin))
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin that nobody chose stops nothing
            import warnings

            warnings.warn(f"observer left out: {error}", PluginWarning, stacklevel=2)
    return made
