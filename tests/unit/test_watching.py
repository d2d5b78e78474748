"""Hook wrappers watch a storage: whatever they do, the caller gets what the storage gave."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from storages import Awaited, Faulty

from resilience import (
    CircuitBreaker,
    Key,
    Runtime,
    Snapshot,
    StorageUnavailable,
    Transition,
    Version,
    clock,
    hookimpl,
)
from resilience.watching import COMPLAIN_EVERY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Generator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from unit.cli.command_line import Install

    Watch = Generator[None, Any, Any]


class Timing:
    """A plugin that measures: the count, the seconds and the errors of each hook, as one would export them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.seconds = 0.0
        self.errors: list[str] = []

    def _watch(self, hook: str) -> Watch:
        start = clock.monotonic()
        self.calls.append(hook)
        try:
            return (yield)
        except Exception as error:
            self.errors.append(f"{hook} {type(error).__name__}")
            raise
        finally:
            self.seconds += clock.monotonic() - start

    @hookimpl(wrapper=True)
    def resilience_load(self, key: Key) -> Watch:
        return (yield from self._watch(f"load {key.name}"))

    @hookimpl(wrapper=True)
    def resilience_save(self, payload: bytes) -> Watch:
        return (yield from self._watch(f"save {len(payload) > 2}"))

    @hookimpl(wrapper=True)
    def resilience_lock(self) -> Watch:
        return (yield from self._watch("lock"))

    @hookimpl(wrapper=True)
    def resilience_aload(self) -> Watch:
        return (yield from self._watch("aload"))

    @hookimpl(wrapper=True)
    def resilience_asave(self) -> Watch:
        return (yield from self._watch("asave"))


def test_an_installed_plugin_watches_each_hook(install: Install, tmp_path: Path) -> None:
    install("resilience", "timing", "unit.test_watching:Timing")
    with Runtime(storage=tmp_path.as_uri(), environ={"RESILIENCE_PLUGINS_ALLOWED": "timing"}) as runtime:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        breaker.record_failure()
        assert breaker.status().state == "open"
        timing = dict(runtime.opened.observers or ())["timing"]
    assert isinstance(timing, Timing)
    assert timing.calls[:3] == ["lock", "load payments", "save True"]
    assert timing.seconds > 0
    assert timing.errors == []


def test_what_the_storage_raises_is_seen_and_raised() -> None:
    timing, storage = Timing(), Faulty("watched:")
    storage.plan("save", StorageUnavailable("gone"))
    with Runtime(storage=storage, observers=[timing], environ={}) as runtime:
        ports = runtime.opened.ports
        with pytest.raises(StorageUnavailable, match="gone"):
            ports.save(Key("test", "x"), b"{}", None, None, 1)
    assert timing.errors == ["save False StorageUnavailable"]


def test_the_awaitable_hooks_are_watched_until_they_give_their_awaitable() -> None:
    timing = Timing()

    async def main() -> None:
        with Runtime(storage=Awaited("watched-async:"), observers=[timing], environ={}):
            breaker = CircuitBreaker("payments", failure_threshold=1)
            with pytest.raises(ZeroDivisionError):
                await breaker.acall(fails)
            assert breaker.status().state == "open"

    async def fails() -> None:
        raise ZeroDivisionError

    asyncio.run(main())
    assert {"aload", "asave", "lock"} <= set(timing.calls)


KEY = Key("test", "x")


class Early:
    @hookimpl(wrapper=True)
    def resilience_load(self) -> Watch:
        print(1 / self.nothing)
        return (yield)

    nothing = 0


class Late:
    @hookimpl(wrapper=True)
    def resilience_load(self) -> Watch:
        yield
        raise ZeroDivisionError("after")


class Other:
    @hookimpl(wrapper=True)
    def resilience_load(self) -> Watch:
        yield
        return Snapshot(b"other", Version("other", 7))


class Swallowing:
    @hookimpl(wrapper=True)
    def resilience_load(self) -> Watch:
        try:
            return (yield)
        except StorageUnavailable:
            return Snapshot(None, None)


class Exchanging:
    @hookimpl(wrapper=True)
    def resilience_load(self) -> Watch:
        try:
            return (yield)
        except StorageUnavailable as error:
            raise KeyError("mine") from error


@pytest.mark.parametrize(
    ("watcher", "says"),
    [
        (Early(), "hook wrapper raised before the storage was asked; wrappers only watch"),
        (Late(), "hook wrapper raised; wrappers only watch"),
        (Other(), "hook wrapper changed what the storage gave; wrappers only watch"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_a_wrapper_changes_nothing_and_is_reported_once(
    watcher: object, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Faulty("unchanged:")
    with Runtime(storage=storage, observers=[watcher], environ={}) as runtime:
        ports = runtime.opened.ports
        saved = ports.save(KEY, b"mine", ports.load(KEY, 1).version, None, 1)
        for _ in range(2):
            loaded = ports.load(KEY, 1)
            assert (loaded.payload, loaded.version) == (b"mine", saved.version)
    assert storage.calls.count("load") == 3, "the storage is asked once for each call"
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("resilience", logging.ERROR, says)
    assert vars(record)["observer"] == f"{type(watcher).__name__} #1"


@pytest.mark.parametrize("watcher", [Swallowing(), Exchanging()], ids=lambda one: type(one).__name__)
def test_nor_does_it_change_an_error(watcher: object, caplog: pytest.LogCaptureFixture) -> None:
    storage = Faulty("errors:")
    storage.plan("load", StorageUnavailable("gone"))
    with (
        Runtime(storage=storage, observers=[watcher], environ={}) as runtime,
        pytest.raises(StorageUnavailable, match="gone"),
    ):
        runtime.opened.ports.load(KEY, 1)
    (record,) = caplog.records
    assert record.getMessage() == "hook wrapper changed the error of the storage; wrappers only watch"


ALONE = {"RESILIENCE_PLUGINS_AUTOLOAD": "0"}


class Told:
    """An observer, and what it was told."""

    def __init__(self) -> None:
        self.states: list[str] = []

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        self.states.append(transition.new)


class Deaf:
    @hookimpl
    def resilience_transition(self) -> None:
        raise LookupError("of its own")


class Mute:
    """Wraps the hooks of other observers, and fails before it lets anything through."""

    @hookimpl(wrapper=True)
    def resilience_transition(self) -> Watch:
        print(1 / self.nothing)
        return (yield)

    nothing = 0


class Listening:
    """Wraps them, and sees what comes out of each."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    @hookimpl(wrapper=True)
    def resilience_transition(self, transition: Transition) -> Watch:
        try:
            given = yield
        except LookupError as error:
            self.heard.append(str(error))
            raise
        self.heard.append(transition.new)
        return given


def test_nor_does_it_keep_an_observer_from_what_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    observers = [Told(), Mute(), Listening(), Told()]
    with Runtime(storage=Faulty("told:"), observers=observers, environ=ALONE):
        CircuitBreaker("payments", failure_threshold=1).record_failure()
    assert [observer.states for observer in observers if isinstance(observer, Told)] == [["open"]] * 2
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert said == [f"hook wrapper raised before observer Told #{n} was asked; wrappers only watch" for n in (1, 4)]


def test_what_an_observer_raises_is_seen_by_the_wrapper_and_is_the_observer_s(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listening, told = Listening(), Told()
    with Runtime(storage=Faulty("heard:"), observers=[Deaf(), listening, told], environ=ALONE):
        CircuitBreaker("payments", failure_threshold=1).record_failure()
    assert listening.heard == ["of its own", "open"]
    assert told.states == ["open"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (record.getMessage(), vars(record)["observer"]) == ("observer failed", "Deaf #1")


def test_it_is_reported_again_after_a_while(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("resilience.watching.monotonic", lambda: now)
    with Runtime(storage=Faulty("again:"), observers=[Late()], environ={}) as runtime:
        runtime.opened.ports.load(KEY, 1)
        now += COMPLAIN_EVERY
        runtime.opened.ports.load(KEY, 1)
    assert len(caplog.records) == 2


def test_an_interruption_is_none_of_the_wrapper_s() -> None:
    storage = Faulty("interrupted:")
    storage.plan("load", KeyboardInterrupt())
    with Runtime(storage=storage, observers=[Timing()], environ={}) as runtime, pytest.raises(KeyboardInterrupt):
        runtime.opened.ports.load(KEY, 1)


def test_a_wrapper_may_use_a_guard_itself() -> None:
    class Guarding:
        depth = 0

        @hookimpl(wrapper=True)
        def resilience_load(self, key: Key) -> Watch:
            result = yield
            if key.name == "outer" and not self.depth:
                self.depth += 1
                inner.append(runtime.opened.ports.load(Key("test", "inner"), 1))
            return result

    inner: list[Snapshot] = []
    with Runtime(storage=Faulty("nested:"), observers=[Guarding()], environ={}) as runtime:
        runtime.opened.ports.save(Key("test", "outer"), b"o", None, None, 1)
        runtime.opened.ports.save(Key("test", "inner"), b"i", None, None, 1)
        assert runtime.opened.ports.load(Key("test", "outer"), 1).payload == b"o"
    assert [snapshot.payload for snapshot in inner] == [b"i"]


def test_arguments_that_the_storage_leaves_out_stay_left_out() -> None:
    class Least:
        @hookimpl
        def resilience_load(self) -> Snapshot:
            return Snapshot(b"least", Version("a", 1))

        @hookimpl
        def resilience_save(self, expires_at: float | None, key: Key) -> Snapshot:
            return Snapshot(f"{key.name} {expires_at}".encode(), Version("a", 2))

        @hookimpl
        def resilience_lock(self) -> AbstractContextManager[None]:
            raise NotImplementedError

    for observers in ([], [Timing()]):
        with Runtime(storage=Least(), observers=observers, environ={}) as runtime:
            ports = runtime.opened.ports
            assert ports.load(KEY, 1).payload == b"least"
            assert ports.save(KEY, b"", None, 5.0, 1).payload == b"x 5.0"


def test_wrappers_around_what_the_storage_has_not_watch_nothing() -> None:
    class Least(Faulty):
        resilience_discard = None  # type: ignore[assignment]

    class Watching:
        @hookimpl(wrapper=True)
        def resilience_discard(self) -> Watch:
            return (yield)

        @hookimpl(wrapper=True)
        def resilience_aload(self) -> Generator[None, Awaitable[Snapshot], Awaitable[Snapshot]]:
            return (yield)

    with Runtime(storage=Least("least:"), observers=[Watching()], environ={}) as runtime:
        ports = runtime.opened.ports
        assert ports.aload is None
        with pytest.raises(StorageUnavailable, match="cannot set it aside"):
            ports.discard(KEY, "damaged", 1)
