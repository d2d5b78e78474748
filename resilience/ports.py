"""The only place that knows pluggy: hooks become plain callables here, once, when a storage is opened.

A pluggy call costs 1.05 µs, the function behind it 0.02.  So where a hook has one implementation, no wrapper, and the
signature of its specification, the function itself is kept; otherwise the hook's caller.

pluggy is imported by who composes.  Where a kept plan says that a composition came to nothing but plain functions
(`plain`), it is done again without (`connect_plain`): pluggy takes longer to import than a bare interpreter to start.
"""

from __future__ import annotations

from resilience.errors import PluginError
from resilience.markers import PROJECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import Any

    import pluggy

    from resilience.events import Event, Transition
    from resilience.storage import Key, Snapshot, Version

    Caller = pluggy.HookCaller

_REQUIRED = ("load", "save", "lock")
_PAIR = ("aload", "asave")
_HOOKS = (*_REQUIRED, "keys", "delete", "discard", *_PAIR)
_TOLD = ("transition", "event")
"""The hooks of observers; each has one argument, of the same name."""


class Ports:
    """The hooks of one open storage, as functions that are called by position.

    `keys`, `delete`, `discard`, `aload` and `asave` are `None` where the storage does not implement them.
    """

    __slots__ = ("aload", "asave", "capabilities", "delete", "discard", "keys", "load", "lock", "name", "save")

    load: Callable[[Key, float], Snapshot]
    save: Callable[[Key, bytes, Version | None, float | None, float], Snapshot]
    lock: Callable[[Key, float], AbstractContextManager[None]]
    keys: Callable[[], Iterable[Key]] | None
    delete: Callable[[Key, Version | None, float], bool] | None
    discard: Callable[[Key, str, float], None]
    aload: Callable[[Key, float], Awaitable[Snapshot]] | None
    asave: Callable[[Key, bytes, Version | None, float | None, float], Awaitable[Snapshot]] | None

    def __init__(self, name: str, capabilities: frozenset[str]) -> None:
        self.name = name
        self.capabilities = capabilities

    def awaitable(self, hook: Callable[..., object]) -> Callable[..., Awaitable[object]] | None:
        """Return what does the same as a hook and is awaited; `None` if the hook itself is called."""
        if hook is self.load:
            return self.aload
        return self.asave if hook is self.save else None

    def name_of(self, hook: Callable[..., object]) -> str:
        """Return the name of one of the hooks."""
        return next((name for name in _HOOKS if getattr(self, name) is hook), "hook")


class Observers:
    """The hooks of all observers, one caller per plugin, so that one that raises stops none of the others."""

    __slots__ = ("events", "transitions")

    def __init__(
        self,
        transitions: list[tuple[str, Callable[[Transition], object]]],
        events: list[tuple[str, Callable[[Event], object]]],
    ) -> None:
        self.transitions = transitions
        self.events = events


def connect(storage: object, name: str, observers: Iterable[tuple[str, object]]) -> tuple[Ports, Observers]:
    """Register a storage and the observers with a plugin manager of their own and resolve their hooks.

    :param storage: the one storage.
    :param name: its name, for messages.
    :param observers: names and plugins.
    :raises PluginError: an implementation does not fit its specification, or the storage lacks a hook.
    """
    import pluggy

    from resilience import hookspecs

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    _register(manager, storage, name)
    watched = [_register(manager, plugin, label) for label, plugin in observers]
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {manager.get_name(error.plugin)}: {error}") from error
    ports = Ports(name, frozenset(getattr(storage, "capabilities", ())))
    for hook in _HOOKS:
        setattr(ports, hook, _resolve(getattr(manager.hook, f"{PROJECT}_{hook}"), name))
    missing = [hook for hook in _REQUIRED if getattr(ports, hook) is None]
    if missing:
        raise PluginError(f"storage {name} does not implement {', '.join(f'{PROJECT}_{hook}' for hook in missing)}")
    if (ports.aload is None) != (ports.asave is None):
        raise PluginError(f"storage {name} implements one of resilience_aload and resilience_asave; both or neither")
    if getattr(ports, "discard") is None:  # noqa: B009 - optional for the plugin, never missing for the engine
        ports.discard = _cannot_discard
    return ports, Observers(
        _each(manager, "resilience_transition", watched), _each(manager, "resilience_event", watched)
    )


def plain(storage: object, ports: Ports, observers: Iterable[object]) -> tuple[list[str], list[list[str]]] | None:
    """Say what `connect_plain` needs to come to what `connect` came to; `None` where pluggy has a part in it.

    Returned are the hooks of the storage, and those of each observer.
    """
    hooks: list[str] = []
    for hook in _HOOKS:
        found = getattr(ports, hook)
        if found is None or found is _cannot_discard:
            continue
        if found != getattr(storage, f"{PROJECT}_{hook}", None):
            return None
        hooks.append(hook)
    watched = [_plainly_told(observer) for observer in observers]
    return None if None in watched else (hooks, [told for told in watched if told is not None])


def _plainly_told(observer: object) -> list[str] | None:
    """List what an observer is told, if each is a function that is called by position and none of them a wrapper."""
    import inspect

    told: list[str] = []
    for attribute in dir(observer):
        function = getattr(observer, attribute, None)
        options: dict[str, object] | None = getattr(function, f"{PROJECT}_impl", None)
        if options is None:
            continue
        name = attribute.removeprefix(f"{PROJECT}_")
        if (
            name not in _TOLD
            or not callable(function)
            or any(options.get(option) for option in ("wrapper", "hookwrapper", "specname"))
            or list(inspect.signature(function).parameters) != [name]
        ):
            return None
        told.append(name)
    return told


def connect_plain(
    storage: object, name: str, hooks: Iterable[str], observers: Iterable[tuple[str, Iterable[str], Callable[[], Any]]]
) -> tuple[Ports, Observers]:
    """Do without pluggy what `connect` did before: see `plain`.

    :param observers: name, what it is told, and a function that makes it when there is something to tell.
    :raises AttributeError: the storage lacks a hook that it had.
    """
    ports = Ports(name, frozenset(getattr(storage, "capabilities", ())))
    for hook in _HOOKS:
        setattr(ports, hook, _cannot_discard if hook == "discard" else None)
    for hook in hooks:
        setattr(ports, hook, getattr(storage, f"{PROJECT}_{hook}"))
    watching = Observers([], [])
    for label, told, make in observers:
        for what in told:
            (watching.transitions if what == "transition" else watching.events).append((label, _teller(make, what)))
    return ports, watching


def _teller(make: Callable[[], Any], what: str) -> Callable[[object], object]:
    def tell(told: object) -> object:
        return getattr(make(), f"{PROJECT}_{what}")(told)

    return tell


def _cannot_discard(key: Key, reason: str, timeout: float) -> None:  # noqa: ARG001 - the hook's signature
    from resilience.errors import StorageUnavailable

    raise StorageUnavailable(f"the record of {key} is damaged ({reason}) and its storage cannot set it aside", key=key)


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> str:
    import inspect

    import pluggy

    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        parameters = inspect.signature(getattr(plugin, attribute)).parameters.values()
        defaults = [parameter.name for parameter in parameters if parameter.default is not parameter.empty]
        if defaults:
            raise PluginError(
                f"plugin {name}: {attribute} gives a default to {', '.join(defaults)}; hooks get every argument they "
                "name and pluggy fills no default: remove it"
            )
    try:
        registered = manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"plugin {name}: {error}") from error
    return registered or name


def _resolve(caller: Caller, name: str) -> Callable[..., object] | None:
    """Find the cheapest function that does what the hook's caller does, called by position."""
    implementations = caller.get_hookimpls()
    if not implementations:
        return None
    plain = [found for found in implementations if not (found.wrapper or found.hookwrapper)]
    if len(plain) > 1:
        others = ", ".join(found.plugin_name for found in plain)
        raise PluginError(f"{caller.name} is implemented by {others}: one storage at a time")
    if not plain:
        raise PluginError(f"storage {name} has only wrappers around {caller.name}")
    assert caller.spec is not None  # noqa: S101 - check_pending saw to it; for the type checkers
    expected = tuple(caller.spec.argnames)
    if len(implementations) == 1 and tuple(plain[0].argnames) == expected:
        return plain[0].function

    def call(*arguments: object) -> object:
        return caller(**dict(zip(expected, arguments, strict=True)))

    return call


def _each(manager: pluggy.PluginManager, hook: str, names: list[str]) -> list[tuple[str, Callable[..., object]]]:
    """One caller per plugin that implements a hook, with all the wrappers around it."""
    caller: Caller = getattr(manager.hook, hook)
    parameter = hook.removeprefix(f"{PROJECT}_")
    plain = {found.plugin_name: found for found in caller.get_hookimpls() if not (found.wrapper or found.hookwrapper)}
    each: list[tuple[str, Callable[..., object]]] = []
    for name in names:
        if name in plain:
            others = [found.plugin for label, found in plain.items() if label != name]
            each.append((name, _by_position(manager.subset_hook_caller(hook, others), parameter)))
    return each


def _by_position(caller: Caller, parameter: str) -> Callable[[object], object]:
    return lambda told: caller(**{parameter: told})
