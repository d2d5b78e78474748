"""Which installed plugins may be loaded: what ``RESILIENCE_PLUGINS_BLOCKED`` and its kin come to.

A plugin that is kept out is not even imported.  It is named by its entry point or by its distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilience.variables import closest, normal_form

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Installed(NamedTuple):
    """A plugin that is installed: the group and the name of its entry point, and its distribution."""

    group: str
    name: str
    distribution: str | None

    @property
    def names(self) -> Iterable[str]:
        """What it may be called in a list, in the spelling of variables."""
        return map(normal_form, (self.name, self.distribution or self.name))


class Listing(NamedTuple):
    """One of the settings: the names in it, and the variable or the key that set it."""

    names: Sequence[str]
    source: str


STORAGE = "resilience.storage"
POLICY = "resilience.policy"
OBSERVER = "resilience"


class Selection:
    """What is kept out, and by which setting.

    :param plugins: all that is installed.
    :param blocked: is never loaded.
    :param allowed: of what is loaded without being chosen, which is the observers, only this is.
    """

    def __init__(
        self, plugins: Iterable[Installed] = (), *, blocked: Listing | None = None, allowed: Listing | None = None
    ) -> None:
        self._barred: dict[tuple[str, str], str] = {}
        self.unknown: list[str] = []
        """What is wrong with names in the lists that nothing installed has."""
        installed = list(plugins)
        for listing in (blocked, allowed):
            if listing is not None:
                self._look_for(listing, installed)
        for plugin in installed:
            if blocked is not None and _lists(blocked, plugin):
                self._barred[plugin.group, plugin.name] = blocked.source
            elif allowed is not None and plugin.group == OBSERVER and not _lists(allowed, plugin):
                self._barred[plugin.group, plugin.name] = allowed.source

    def bar(self, group: str, name: str) -> str | None:
        """Return what keeps a plugin out: the name of a variable, or a key of the configuration file."""
        return self._barred.get((group, name))

    def _look_for(self, listing: Listing, installed: Iterable[Installed]) -> None:
        called = {name for plugin in installed for name in (plugin.name, plugin.distribution) if name is not None}
        known = set(map(normal_form, called))
        for name in listing.names:
            if normal_form(name) not in known:
                near = closest(name, called)
                hint = f"did you mean {near}?" if near else f"there are {', '.join(sorted(called))}"
                self.unknown.append(f"{listing.source}: nothing that is installed is called {name[:100]!r}: {hint}")


def _lists(listing: Listing, plugin: Installed) -> bool:
    listed = set(map(normal_form, listing.names))
    return not listed.isdisjoint(plugin.names)
