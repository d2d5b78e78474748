"""Hook discipline: what fits no specification is an error when it is loaded, and says what may have been meant."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Event, PluginError, Runtime, Transition, hookimpl
from resilience.fitting import implemented, misfit
from resilience.plugins import PluginWarning
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from unit.cli.command_line import Install


class Misspelt:
    @hookimpl
    def resilience_transitoin(self, transition: Transition) -> None: ...


class Unmarked:
    def resilience_event(self, event: Event) -> None: ...


class Reserved:
    def resilience_helper(self) -> None: ...


class Alike:
    def resilience_lod(self) -> None: ...


class Argument:
    @hookimpl
    def resilience_transition(self, transitoin: Transition) -> None: ...


class NoArgument:
    @hookimpl
    def resilience_keys(self, zzz: int) -> None: ...


class Default:
    @hookimpl
    def resilience_transition(self, transition: Transition | None = None) -> None: ...


class Stars:
    @hookimpl
    def resilience_event(self, *events: Event) -> None: ...


class DoubleStars:
    @hookimpl
    def resilience_event(self, **events: Event) -> None: ...


class KeywordOnly:
    @hookimpl
    def resilience_event(self, *, event: Event) -> None: ...


class Specname:
    @hookimpl(specname="resilience_evnt")
    def told(self, event: Event) -> None: ...


WRONG: dict[type, str] = {
    Misspelt: "resilience_transitoin is no hook: did you mean resilience_transition? Rename it, or",
    Unmarked: "resilience_event is not marked with @hookimpl, so nobody would call it: mark it",
    Reserved: "resilience_helper begins with resilience_, which only hooks do, and is none. Rename it",
    Alike: "resilience_lod begins with resilience_, which only hooks do, and is none: did you mean resilience_load?",
    Argument: "resilience_transition takes 'transitoin', an argument that resilience_transition does not have: did you "
    "mean transition? It has transition",
    NoArgument: "resilience_keys takes 'zzz', an argument that resilience_keys does not have. It has none",
    Default: "resilience_transition gives a default to transition; hooks get every argument they name and pluggy fills "
    "no default: remove it",
    Stars: "resilience_event takes *events, which nothing ever fills: name the arguments that it needs. It has event",
    DoubleStars: "resilience_event takes **events, which nothing ever fills: name",
    KeywordOnly: "resilience_event takes event by keyword only; hooks are called by position: remove the star",
    Specname: "told is no hook: did you mean resilience_event?",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda kind: kind.__name__)
def test_what_does_not_fit_is_said(wrong: type) -> None:
    for plugin in (wrong, wrong()):
        assert (misfit(plugin) or "").startswith(WRONG[wrong])


@pytest.mark.parametrize("wrong", WRONG, ids=lambda kind: kind.__name__)
def test_an_observer_that_was_handed_in_is_refused(wrong: type) -> None:
    with pytest.raises(PluginError) as refused, Runtime(storage="memory:", observers=[wrong()], environ={}) as runtime:
        runtime.keys()
    assert str(refused.value).startswith(f"plugin {wrong.__name__} #1: {WRONG[wrong]}")


def test_an_installed_observer_is_left_out_and_named_with_its_distribution(install: Install) -> None:
    install("resilience", "watcher", "unit.test_fitting:Argument")
    with (
        pytest.warns(PluginWarning, match=r"plugin 'watcher' \(unit.test_fitting:Argument of plugin_watcher 1.5\): re"),
        Runtime(storage="memory:", environ={}) as runtime,
    ):
        runtime.keys()


class UnfitStorage(MemoryStorage):
    @hookimpl
    def resilience_save(self, key: object, payload: bytes, expires: float) -> Any: ...  # type: ignore[override]


def test_a_storage_is_named_with_its_distribution(install: Install) -> None:
    install("resilience.storage", "unfit", "unit.test_fitting:UnfitStorage")
    with (
        pytest.raises(PluginError) as refused,
        Runtime(storage="unfit:", environ={}) as runtime,
    ):
        runtime.keys()
    message = "plugin 'unfit' (unit.test_fitting:UnfitStorage of plugin_unfit 1.5): resilience_save takes 'expires', "
    assert str(refused.value).startswith(message)
    assert "did you mean expires_at?" in str(refused.value)


def test_a_hook_of_a_newer_version_may_be_marked_so() -> None:
    class Newer:
        @hookimpl(optionalhook=True)
        def resilience_moon(self, phase: int) -> None: ...

    with Runtime(storage="memory:", observers=[Newer()], environ={}) as runtime:
        runtime.keys()


def test_modules_may_be_plugins_and_their_submodules_are_no_hooks() -> None:
    module = ModuleType("plugin")
    vars(module)["resilience_memory"] = ModuleType("resilience_memory")
    vars(module)["resilience_event"] = MemoryObserver().resilience_event
    assert misfit(module) is None
    assert implemented(module) == ["resilience_event"]


def test_static_methods_have_no_self() -> None:
    class Plugin:
        @staticmethod
        @hookimpl
        def resilience_event(event: Event) -> None: ...

    assert misfit(Plugin) is None
    assert misfit(Plugin()) is None


def test_what_is_taken_away_is_no_hook() -> None:
    class WithoutKeys(MemoryStorage):
        resilience_keys = None  # type: ignore[assignment]

    assert misfit(WithoutKeys) is None
    assert "resilience_keys" not in implemented(WithoutKeys)


def test_hooks_are_listed_in_the_order_of_their_specifications() -> None:
    assert implemented(MemoryStorage) == [
        f"resilience_{name}" for name in ("load", "save", "lock", "keys", "delete", "discard")
    ]


def test_a_plugin_that_is_handed_in_twice_is_refused() -> None:
    observer = MemoryObserver()
    with (
        pytest.raises(PluginError, match=r"plugin MemoryObserver #2: .*already"),
        Runtime(storage="memory:", observers=[observer, observer], environ={}) as runtime,
    ):
        runtime.keys()


class MemoryObserver:
    def __init__(self) -> None:
        self.told: list[Event] = []

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        self.told.append(event)


def test_an_observer_may_be_called_like_the_storage(install: Install) -> None:
    install("resilience", "memory", "unit.test_fitting:MemoryObserver")
    with warnings.catch_warnings(), Runtime(storage="memory:", environ={}) as runtime:
        warnings.simplefilter("error")
        runtime.opened.engine.tell("late", {})
        (observer,) = [plugin for _, plugin in runtime.opened.observers or () if isinstance(plugin, MemoryObserver)]
        assert [event.name for event in observer.told] == ["late"]
