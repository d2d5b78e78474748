"""The only place that knows pluggy: hooks become plain callables here, once, when a storage is opened.

A pluggy call costs 1.05 µs, the function behind it 0.02.  So where a hook has one implementation, no wrapper, and the
signature of its specification, the function itself is kept; otherwise the hook's caller.

pluggy is imported by who composes.  Where a kept plan says that a composition came to nothing but plain functions
(`plain`), it is done again without (`connect_plain`): pluggy takes longer to import than a bare interpreter to start.
"""

from __future__ import annotations

from resilience.errors import PluginError
from resilience.markers import PROJECT
from resilience.storage import InnerStorage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any

    import pluggy

    from resilience.events import Event, Transition
    from resilience.storage import Key

    Caller = pluggy.HookCaller
    Trace = Callable[[Callable[..., Any], str, str], Callable[..., Any]]

_REQUIRED = ("load", "save", "lock")
_PAIR = ("aload", "asave")
_HOOKS = (*_REQUIRED, "keys", "delete", "discard", *_PAIR)
_TOLD = ("transition", "event")
"""The hooks of observers; each has one argument, of the same name."""


class Ports(InnerStorage):
    """The hooks of one open storage, as functions that are called by position."""

    __slots__ = ()

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


def connect(
    storage: object,
    name: str,
    observers: Iterable[tuple[str, object]],
    *,
    origin: Callable[[str], str] | None = None,
    trace: Trace | None = None,
) -> tuple[Ports, Observers]:
    """Register a storage and the observers with a plugin manager of their own and resolve their hooks.

    :param storage: the one storage.
    :param name: its name, for messages.
    :param observers: names and plugins.
    :param origin: returns what messages call a plugin, by its name; that of the storage ends with a colon here.
    :param trace: is given each function, the hook and the names of the plugins, and makes the function that is called.
    :raises PluginError: an implementation does not fit its specification, or the storage lacks a hook.
    """
    import pluggy

    from resilience import hookspecs

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    origin = origin or _origin
    _register(manager, storage, f"{name}:", origin)  # no observer is called like this
    watched = [_register(manager, plugin, label, origin) for label, plugin in observers]
    callers: dict[str, Caller] = {hook: getattr(manager.hook, f"{PROJECT}_{hook}") for hook in (*_HOOKS, *_TOLD)}
    capabilities: Any = getattr(storage, "capabilities", ())
    if not hasattr(capabilities, "__iter__") or isinstance(capabilities, str):
        what = f"{capabilities!r:.80}"
        raise PluginError(f"storage {name}: its capabilities are a set of Capability, not {what}")
    ports = Ports(name, frozenset(capabilities), storage)
    for hook in _HOOKS:
        function, by = _resolve(manager, callers[hook], name)
        if function is not None and trace is not None:
            function = trace(function, callers[hook].name, by)
        setattr(ports, hook, function)
    missing = [hook for hook in _REQUIRED if getattr(ports, hook) is None]
    if missing:
        raise PluginError(f"storage {name} does not implement {', '.join(f'{PROJECT}_{hook}' for hook in missing)}")
    if (ports.aload is None) != (ports.asave is None):
        raise PluginError(f"storage {name} implements one of resilience_aload and resilience_asave; both or neither")
    if getattr(ports, "discard") is None:  # noqa: B009 - optional for the plugin, never missing for the engine
        ports.discard = _cannot_discard
    return ports, Observers(*(_each(manager, callers[hook], watched, trace) for hook in _TOLD))


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
    ports = Ports(name, frozenset(getattr(storage, "capabilities", ())), storage)
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


def _origin(name: str) -> str:
    return f"storage {name.removesuffix(':')}" if name.endswith(":") else f"plugin {name}"


def _register(manager: pluggy.PluginManager, plugin: object, name: str, origin: Callable[[str], str]) -> str:
    import pluggy

    from resilience import fitting

    if isinstance(plugin, type) and fitting.needs_object(plugin):
        raise PluginError(f"{origin(name)}: {plugin.__name__} is a class: hand in an object made of it")
    if (wrong := fitting.misfit(plugin)) is not None:
        raise PluginError(f"{origin(name)}: {wrong}")
    try:
        manager.register(plugin, name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(f"{origin(name)}: {error}") from error
    return name


def _resolve(manager: pluggy.PluginManager, caller: Caller, name: str) -> tuple[Callable[..., object] | None, str]:
    """Find the cheapest function that does what the hook's caller does, called by position; and who has part in it."""
    implementations = caller.get_hookimpls()
    if not implementations:
        return None, name
    plain = [found for found in implementations if not (found.wrapper or found.hookwrapper)]
    if len(plain) > 1:
        others = ", ".join(found.plugin_name.removesuffix(":") for found in plain)
        raise PluginError(f"{caller.name} is implemented by {others}: one storage at a time")
    if not plain:
        if caller.name.removeprefix(f"{PROJECT}_") not in _REQUIRED:
            return None, name  # there is nothing to watch
        raise PluginError(f"storage {name} has only wrappers around {caller.name}")
    assert caller.spec is not None  # noqa: S101 - only hooks with one are resolved; for the type checkers
    arguments = tuple(caller.spec.argnames)
    own = _by_position(plain[0].function, plain[0].argnames, arguments)
    watchers = ", ".join(found.plugin_name for found in implementations if found not in plain)
    if not watchers:
        return own, name
    from resilience.watching import WatchedHook

    hook = WatchedHook(own, arguments, watchers, "the storage")
    manager.register(_Innermost(caller.name, hook.innermost()), f"innermost {caller.name}")
    hook.wrapped = caller
    return hook, f"{name}, watched by {watchers}"


class _Innermost:
    """A plugin with one hook."""

    def __init__(self, hook: str, function: object) -> None:
        setattr(self, hook, function)


def _by_position(
    function: Callable[..., object], takes: Iterable[str], arguments: tuple[str, ...]
) -> Callable[..., object]:
    """Let a function be called with all arguments of its hook, and get those that it takes."""
    takes = tuple(takes)
    if takes == arguments:
        return function
    places = [arguments.index(argument) for argument in takes]
    return lambda *given: function(*(given[place] for place in places))


def _each(
    manager: pluggy.PluginManager, caller: Caller, names: list[str], trace: Trace | None
) -> list[tuple[str, Callable[..., object]]]:
    """One function per plugin that implements a hook, with all the wrappers around it."""
    implementations = caller.get_hookimpls()
    plain = {found.plugin_name: found for found in implementations if not (found.wrapper or found.hookwrapper)}
    watchers = ", ".join(found.plugin_name for found in implementations if found.plugin_name not in plain)
    arguments = (caller.name.removeprefix(f"{PROJECT}_"),)
    told = [name for name in names if name in plain]
    each = {name: _by_position(plain[name].function, plain[name].argnames, arguments) for name in told}
    if watchers:
        from resilience.watching import WatchedHook

        # A wrapper that fails keeps nothing from any of them: each is called by itself, with all wrappers around it.
        hooks = {name: WatchedHook(each[name], arguments, watchers, f"observer {name}") for name in told}
        parts = {name: [plain[name].plugin, _Innermost(caller.name, hooks[name].innermost())] for name in told}
        for name, (_, innermost) in parts.items():
            manager.register(innermost, f"innermost {caller.name} of {name}")
        for name, hook in hooks.items():
            others = [part for other in told if other != name for part in parts[other]]
            hook.wrapped = manager.subset_hook_caller(caller.name, others)
        each.update(hooks)
    return [(name, tell if trace is None else trace(tell, caller.name, name)) for name, tell in each.items()]
