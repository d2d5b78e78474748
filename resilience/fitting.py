"""Whether the hooks of a plugin fit their specifications, said when it is loaded, with what may have been meant.

pluggy passes over a function that is marked and is no hook until it is asked, and over one that is not marked for
ever; and what it says names neither the distribution nor the fix.
"""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from types import FunctionType
from typing import TYPE_CHECKING, Any

from resilience import hookspecs
from resilience.markers import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PREFIX = f"{PROJECT}_"
_AWAITED = {f"{_PREFIX}aload", f"{_PREFIX}asave"}
_NEVER_FILLED: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def specifications() -> dict[str, Any]:
    """Return the hooks by their names, in the order of a record's life."""
    return {name: spec for name, spec in vars(hookspecs).items() if name.startswith(_PREFIX)}


def misfit(plugin: object) -> str | None:
    """Say which hook of a plugin, a class or an object, fits no specification, why, and what to do; `None`: all fit."""
    specs = specifications()
    for attribute, function in _functions(plugin):
        options = options_of(function)
        if options is None:
            wrong = _unmarked(attribute, specs) if attribute.startswith(_PREFIX) else None
        else:
            hook = options.get("specname") or attribute
            if hook in specs:
                wrong = _misfit_of_arguments(function, hook, specs[hook], bound=not _needs_self(plugin, attribute))
            elif options.get("optionalhook"):
                wrong = None
            else:
                wrong = (
                    f"is no hook{_meant(hook, specs)} Rename it, or mark it with @hookimpl(optionalhook=True) if it "
                    "is one of a newer version"
                )
        if wrong is not None:
            return f"{attribute} {wrong}"
    return None


def implemented(plugin: object) -> list[str]:
    """List the hooks that a plugin implements or watches, in the order of their specifications."""
    marked = {
        options.get("specname") or attribute
        for attribute, function in _functions(plugin)
        if (options := options_of(function)) is not None
    }
    return [name for name in specifications() if name in marked]


def has_hooks(plugin: object) -> bool:
    """Whether anything of a plugin is marked as a hook, be it one of a newer version."""
    return any(options_of(function) for _, function in _functions(plugin))


def needs_object(plugin: type) -> bool:
    """Whether hooks of a class are methods of the objects that are made of it."""
    return any(options_of(function) and _needs_self(plugin, attribute) for attribute, function in _functions(plugin))


def options_of(function: object) -> Mapping[str, Any] | None:
    """Return what `hookimpl` has marked a function with; `None` if it has not."""
    options = getattr(function, f"{PROJECT}_impl", None)
    return options if isinstance(options, dict) else None  # pyright: ignore[reportUnknownVariableType] - pluggy's


def _functions(plugin: object) -> Iterator[tuple[str, Any]]:
    for attribute in dir(plugin):
        function = getattr(plugin, attribute, None)
        if inspect.isroutine(function):
            yield attribute, function


def _unmarked(attribute: str, specs: Iterable[str]) -> str:
    if attribute in specs:
        return "is not marked with @hookimpl, so nobody would call it: mark it"
    return f"begins with {_PREFIX}, which only hooks do, and is none{_meant(attribute, specs)} Rename it"


def _needs_self(plugin: object, attribute: str) -> bool:
    """Whether the first argument is the object that there is not yet."""
    return isinstance(plugin, type) and isinstance(inspect.getattr_static(plugin, attribute), FunctionType)


def _misfit_of_arguments(function: Any, hook: str, spec: Any, *, bound: bool) -> str | None:
    known = list(inspect.signature(spec).parameters)
    has = f"It has {', '.join(known) or 'none'}"
    if inspect.iscoroutinefunction(function) and hook not in _AWAITED:
        return "is a coroutine function, and nothing awaits what it returns: write `def`"
    for parameter in list(inspect.signature(function).parameters.values())[0 if bound else 1 :]:
        name = parameter.name
        stars = _NEVER_FILLED.get(parameter.kind)
        if stars is not None:
            return f"takes {stars}{name}, which nothing ever fills: name the arguments that it needs. {has}"
        if name not in known:
            return f"takes {name!r}, an argument that {hook} does not have{_meant(name, known)} {has}"
        if parameter.default is not parameter.empty:
            return (
                f"gives a default to {name}; hooks get every argument they name and pluggy fills no default: remove it"
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            return f"takes {name} by keyword only; hooks are called by position: remove the star before it"
    return None


def _meant(name: str, known: Iterable[str]) -> str:
    rest = {word.removeprefix(_PREFIX): word for word in known}
    near = get_close_matches(name.removeprefix(_PREFIX)[:100], rest, 1)
    return f": did you mean {rest[near[0]]}?" if near else "."
