"""Hooks and their arguments come and go without breaking a plugin by surprise."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import resilience
from resilience import CircuitBreaker, Key, PluginError, Runtime, Snapshot, Transition, Version, deprecations, hookspecs
from resilience.deprecations import Deprecation, PluginDeprecationWarning
from resilience.markers import hookspec
from resilience.ports import connect
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

KEY = Key("test", "x")
MADE_UP = Deprecation(
    "the argument timeout of resilience_load", since="1.4", removed="1.6", instead="take it from the settings"
)
SAYS = "the argument timeout of resilience_load is deprecated since 1.4 and gone with 1.6: take it from the settings"


def options(spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = spec.resilience_spec
    return found


def test_an_argument_that_goes_is_said_at_the_line_of_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(options(hookspecs.resilience_load), "warn_on_impl_args", {"timeout": MADE_UP.warning()})
    with pytest.warns(PluginDeprecationWarning) as warned, Runtime(storage="memory:", environ={}):
        CircuitBreaker("x").record_failure()
    (warning,) = warned
    assert str(warning.message) == SAYS
    code = MemoryStorage.resilience_load.__code__
    assert (warning.filename, warning.lineno) == (code.co_filename, code.co_firstlineno)


def test_a_plugin_that_does_not_take_it_is_not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    class Least(MemoryStorage):
        @resilience.hookimpl
        def resilience_load(self, key: Key) -> Snapshot:  # type: ignore[override]
            return super().resilience_load(key, 0)

    monkeypatch.setitem(options(hookspecs.resilience_load), "warn_on_impl_args", {"timeout": MADE_UP.warning()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(Least("memory:"), "least", [])


def test_a_hook_that_goes_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Observer:
        @resilience.hookimpl
        def resilience_transition(self, transition: Transition) -> None: ...

    gone = Deprecation("resilience_transition", since="1.4", removed="1.6", instead="implement resilience_event")
    monkeypatch.setitem(options(hookspecs.resilience_transition), "warn_on_impl", gone.warning())
    with pytest.warns(PluginDeprecationWarning, match=r"resilience_transition is deprecated since 1\.4"):
        connect(MemoryStorage("memory:"), "memory", [("observer", Observer())])


def test_an_argument_that_is_gone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookspec(firstresult=True)
    def resilience_load(key: Key) -> Snapshot:
        raise NotImplementedError(key)

    monkeypatch.setattr(hookspecs, "resilience_load", resilience_load)
    with pytest.raises(PluginError, match="resilience_load takes 'timeout', an argument that resilience_load does not"):
        connect(MemoryStorage("memory:"), "memory", [])


def test_an_argument_that_is_new_breaks_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookspec(firstresult=True)
    def resilience_save(
        key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float, urgent: str
    ) -> Snapshot:
        raise NotImplementedError

    monkeypatch.setattr(hookspecs, "resilience_save", resilience_save)
    ports: Any = connect(MemoryStorage("memory:"), "memory", [])[0]
    assert ports.save(KEY, b"{}", None, None, 1.0, "yes").payload == b"{}"


def test_a_hook_that_is_new_breaks_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    @hookspec
    def resilience_moon(phase: int) -> None: ...

    class Newer:
        @resilience.hookimpl(optionalhook=True)
        def resilience_moon(self, phase: int) -> None: ...

    connect(MemoryStorage("memory:"), "memory", [("newer", Newer())])
    monkeypatch.setattr(hookspecs, "resilience_moon", resilience_moon, raising=False)
    connect(MemoryStorage("memory:"), "memory", [("newer", Newer())])


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def overdue(module: ModuleType, version: str) -> Iterator[str]:
    found: dict[str, object] = module.__dict__
    for name, value in found.items():
        if isinstance(value, Deprecation):
            if numbers(value.removed) <= numbers(version):
                yield f"{name} should be gone with {value.removed}"
            if numbers(value.removed)[0] == numbers(value.since)[0]:
                assert numbers(value.removed)[1] >= numbers(value.since)[1] + 2, f"{name}: two minor versions at least"


def test_nothing_stays_longer_than_was_said() -> None:
    assert list(overdue(deprecations, resilience.__version__)) == []


def test_what_stays_longer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deprecations, "MADE_UP", MADE_UP, raising=False)
    assert list(overdue(deprecations, "1.5.9")) == []
    assert list(overdue(deprecations, "1.6.0")) == ["MADE_UP should be gone with 1.6"]
