"""Opening a storage: what is refused, and which hooks are called how."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pluggy
import pytest

from resilience import (
    CircuitBreaker,
    Key,
    PluginError,
    Runtime,
    Snapshot,
    StorageUnavailable,
    Version,
    hookimpl,
)
from resilience.markers import hookspec
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextlib import AbstractContextManager


class Least:
    """The three hooks that each storage must have, and arguments left out where they are not needed."""

    capabilities = frozenset[str]()

    def __init__(self) -> None:
        self.payload: bytes | None = None
        self.number = 0

    @hookimpl
    def resilience_load(self) -> Snapshot:
        return Snapshot(self.payload, Version("a", self.number) if self.number else None)

    @hookimpl
    def resilience_save(self, payload: bytes) -> Snapshot:
        self.payload, self.number = payload, self.number + 1
        return self.resilience_load()

    @hookimpl
    def resilience_lock(self) -> AbstractContextManager[None]:
        return nullcontext()


def opens(storage: object) -> None:
    with Runtime(storage=storage, environ={}) as runtime:
        assert runtime.opened.storage is storage


def test_arguments_may_be_left_out() -> None:
    with Runtime(storage=Least(), environ={}):
        breaker = CircuitBreaker("x")
        breaker.record_failure()
        assert breaker.status().failure_count == 1


def test_a_storage_without_keys_says_so() -> None:
    with Runtime(storage=Least(), environ={}) as runtime, pytest.raises(StorageUnavailable, match="cannot list"):
        runtime.keys()


def test_keys_that_raise_name_the_storage() -> None:
    class Broken(Least):
        @hookimpl
        def resilience_keys(self) -> list[Key]:
            raise KeyError("lost")

    with Runtime(storage=Broken(), environ={}) as runtime, pytest.raises(StorageUnavailable, match=r"Broken.*KeyError"):
        runtime.keys()


def test_damage_that_cannot_be_set_aside_is_an_outage() -> None:
    storage = Least()
    storage.payload, storage.number = b"{", 1
    with Runtime(storage=storage, environ={}):
        breaker = CircuitBreaker("x", on_store_error="raise")
        with pytest.raises(StorageUnavailable, match="cannot set it aside"):
            breaker.call(lambda: 1)


def test_a_hook_that_is_missing_is_named() -> None:
    with pytest.raises(PluginError, match="does not implement resilience_load, resilience_save, resilience_lock"):
        opens(object())


def test_defaults_are_refused() -> None:
    class Storage(Least):
        @hookimpl
        def resilience_load(self, timeout: float = 1) -> Snapshot:
            raise AssertionError(timeout)

    with pytest.raises(PluginError, match="gives a default to timeout"):
        opens(Storage())


def test_arguments_that_do_not_exist_are_refused() -> None:
    class Storage:
        @hookimpl
        def resilience_load(self, kex: Key) -> Snapshot:
            raise AssertionError(kex)

    with pytest.raises(PluginError, match="kex"):
        opens(Storage())


def test_hooks_that_do_not_exist_are_refused() -> None:
    class Storage(Least):
        @hookimpl
        def resilience_lod(self) -> None: ...

    with pytest.raises(PluginError, match="resilience_lod"):
        opens(Storage())


def test_one_of_the_awaitable_pair_is_refused() -> None:
    class Storage(Least):
        @hookimpl
        async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
            raise AssertionError(key, timeout)

    with pytest.raises(PluginError, match="both or neither"):
        opens(Storage())


def test_two_storages_are_one_too_many() -> None:
    with (
        pytest.raises(PluginError, match="one storage at a time"),
        Runtime(storage=Least(), observers=[MemoryStorage("memory:")], environ={}) as runtime,
    ):
        assert runtime.opened.url


def test_only_wrappers_are_no_storage() -> None:
    class Watching:
        @hookimpl(wrapper=True)
        def resilience_load(self) -> Generator[None, Any, Any]:
            return (yield)

    with pytest.raises(PluginError, match="only wrappers around resilience_load"):
        opens(Watching())


def test_a_wrapper_watches() -> None:
    class Watching:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @hookimpl(wrapper=True)
        def resilience_save(self, key: Key) -> Generator[None, Any, Any]:
            self.seen.append(key.name)
            return (yield)

    watching = Watching()
    with Runtime(storage="memory:", observers=[watching], environ={}):
        CircuitBreaker("watched").record_failure()
    assert watching.seen == ["watched"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wrapper": True},
        {"hookwrapper": True},
        {"tryfirst": True, "optionalhook": True},
        {"trylast": True, "specname": "resilience_load"},
    ],
)
def test_the_mark_is_pluggys(options: dict[str, Any]) -> None:
    def implementation(key: Key) -> None: ...

    mark: Any = pluggy.HookimplMarker("resilience")(**options)
    mark(implementation)
    theirs = dict(implementation.__dict__)
    del implementation.resilience_impl  # type: ignore[attr-defined]
    marked = hookimpl(**options)(implementation) if options else hookimpl(implementation)
    assert marked is implementation
    assert vars(marked) == theirs
    manager = pluggy.PluginManager("resilience")
    plugin = SimpleNamespace(resilience_x=marked)
    assert manager.parse_hookimpl_opts(plugin, "resilience_x") == vars(marked)["resilience_impl"]


@pytest.mark.parametrize("options", [{}, {"firstresult": True}, {"historic": True}])
def test_the_mark_of_specifications_is_pluggys(options: dict[str, Any]) -> None:
    def specification(key: Key) -> None: ...

    mark: Any = pluggy.HookspecMarker("resilience")(**options)
    mark(specification)
    theirs = dict(specification.__dict__)
    del specification.resilience_spec  # type: ignore[attr-defined]
    assert vars(hookspec(**options)(specification) if options else hookspec(specification)) == theirs


def test_a_specification_of_one_result_has_no_history() -> None:
    with pytest.raises(ValueError, match="historic"):
        hookspec(firstresult=True, historic=True)
