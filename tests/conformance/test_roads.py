"""The roads of the kit: from coroutines a storage is reached as the engine does it, and loops end."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from conformance.references import CasStorage, FolderStorage

from resilience import (
    Capability,
    Key,
    Snapshot,
    StorageConflict,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    clock,
    hookimpl,
)
from resilience.testing import Handle, Subject, Violation, all_checks, run, run_check
from resilience.testing.jobs import in_tasks
from resilience.testing.roads import AWAITED, CALLED, Awaited, way_from_coroutines
from resilience.testing.subject import Background
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = Key("conformance", "road")
CHECKS = {check.name: check for check in all_checks()}


class Seen:
    """What a storage sees: which hook is called in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def see(self, hook: str) -> None:
        self.calls.append((hook, threading.current_thread().name.partition("_")[0]))

    @property
    def by_hook(self) -> dict[str, set[str]]:
        return {hook: {thread for name, thread in self.calls if name == hook} for hook, _ in self.calls}


class Memory(MemoryStorage):
    """Declares INLINE."""

    def __init__(self) -> None:
        super().__init__("memory:")
        self.seen = Seen()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.seen.see("load")
        return super().resilience_load(key, timeout)

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        self.seen.see("save")
        return super().resilience_save(key, payload, expected, expires_at, timeout)

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        self.seen.see("lock" if timeout else "lock, one try")
        return super().resilience_lock(key, timeout)

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        self.seen.see("discard")
        super().resilience_discard(key, reason, timeout)


class Threaded(Memory):
    """No place for an event loop."""

    capabilities: frozenset[Capability] = frozenset()


class Both(Threaded):
    """Awaited."""

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        await asyncio.sleep(0)
        self.seen.see("aload")
        return MemoryStorage.resilience_load(self, key, timeout)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
    ) -> Snapshot:
        await asyncio.sleep(0)
        self.seen.see("asave")
        return MemoryStorage.resilience_save(self, key, payload, expected, expires_at, timeout)


LOOP, WORKER, OWN = "conformance loop", "conformance worker", "MainThread"


def walked(storage: Memory) -> dict[str, set[str]]:
    handle = Handle(storage, AWAITED)
    handle.put(KEY, b"{}")
    with handle.lock(KEY):
        handle.discard(KEY)
    handle.close()
    return storage.seen.by_hook


class TestThreads:
    def test_awaited(self) -> None:
        assert walked(Both()) == {"lock, one try": {LOOP}, "aload": {LOOP}, "asave": {LOOP}, "discard": {LOOP}}

    def test_inline(self) -> None:
        assert walked(Memory()) == {"lock, one try": {LOOP}, "load": {LOOP}, "save": {LOOP}, "discard": {LOOP}}

    def test_neither(self) -> None:
        assert walked(Threaded()) == {"lock": {WORKER}, "load": {WORKER}, "save": {WORKER}, "discard": {WORKER}}

    def test_called(self) -> None:
        storage = Memory()
        Handle(storage, CALLED).put(KEY, b"{}")
        assert storage.seen.by_hook == {"lock": {OWN}, "load": {OWN}, "save": {OWN}}

    def test_a_load_without_a_lock(self) -> None:
        storage = Threaded()
        handle = Handle(storage, AWAITED)
        handle.load(KEY)
        handle.close()
        assert storage.seen.by_hook == {"load": {WORKER}}


@pytest.fixture(params=[Memory, Both, Threaded])
def handle(request: pytest.FixtureRequest) -> Iterator[Handle]:
    handle = Handle(request.param(), AWAITED)
    yield handle
    handle.close()


class TestLock:
    def test_another_task_waits_for_it_elsewhere(self, handle: Handle) -> None:
        with handle.lock(KEY):
            waiting = Background(handle.put, KEY, b"2")
            assert not waiting.is_done(0.02)
            handle.save(KEY, b"1", None)
        assert waiting.result(10).version.number == 2
        assert isinstance(handle.storage, Memory)
        assert WORKER in handle.storage.seen.by_hook["save"]

    def test_or_is_told_that_it_is_held(self, handle: Handle) -> None:
        def try_it(seconds: float) -> None:
            with handle.lock(KEY, seconds):
                pass

        with handle.lock(KEY):
            for seconds in (0.0, 0.01):
                with pytest.raises(StorageLockTimeout):
                    Background(try_it, seconds).result(10)
        try_it(0.0)

    def test_what_is_raised_inside_comes_out(self, handle: Handle) -> None:
        with pytest.raises(StorageConflict), handle.lock(KEY):
            handle.save(KEY, b"1", Version("never stored", 1))
        handle.put(KEY, b"1")

    def test_one_task_ends_what_it_began_whatever_others_do(self, handle: Handle) -> None:
        other = Key("conformance", "other")
        with handle.lock(KEY):
            assert Background(handle.put, other, b"1").result(10).version.number == 1
            handle.save(KEY, b"1", None)


class TestLoops:
    def test_a_road_that_was_closed_begins_anew(self, handle: Handle) -> None:
        first = handle.put(KEY, b"1")
        before = set(threading.enumerate())
        handle.close()
        handle.close()
        assert not [thread for thread in threading.enumerate() if thread not in before]
        assert handle.load(KEY).version == first.version

    def test_beside_it_there_may_be_another_loop(self, handle: Handle) -> None:
        beside = handle.beside()
        first = handle.put(KEY, b"1")
        assert beside.load(KEY).version == first.version
        assert isinstance(handle.road, Awaited)
        assert isinstance(beside.road, Awaited)
        assert handle.road.loop is not beside.road.loop
        beside.road.close()

    def test_what_a_hook_waits_for_ends_with_the_loop(self) -> None:
        handle = Handle(Hangs(), AWAITED)
        loading = Background(handle.load, KEY)
        assert not loading.is_done(0.02)
        handle.close()
        with pytest.raises(Violation, match="raised CancelledError"):
            loading.result(10)

    def test_a_driver_that_cancels_itself_is_a_violation(self) -> None:
        handle = Handle(Hangs(), AWAITED)
        with pytest.raises(Violation, match="raised CancelledError"):
            handle.save(KEY, b"1", None)
        with pytest.raises(Violation, match="raised CancelledError"):
            handle.save(KEY, b"1", None)
        handle.close()


class HearsLate(Both):
    """Hears of commits from the third load on, or never."""

    capabilities = frozenset({Capability.PUSH})
    loads = 0

    def __init__(self, after: int = 3) -> None:
        super().__init__()
        self.after = after

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        self.loads += 1
        found = MemoryStorage.resilience_load(self, key, timeout)
        return found if self.loads >= self.after else Snapshot(found.payload, found.version)


def test_a_storage_that_is_awaited_may_begin_to_hear_of_commits_later(monkeypatch: pytest.MonkeyPatch) -> None:
    (check,) = (check for check in all_checks() if check.name == "awaited_is_current")
    with Subject(HearsLate) as subject:
        assert run_check(check, subject).outcome == "passed"
    monkeypatch.setattr("resilience.testing.checks.freshness.AT_ONCE", 0.02)
    with Subject(partial(HearsLate, 10_000)) as subject:
        assert run_check(check, subject).outcome == "failed"


class Hangs(Both):
    """Never answers a load; a save is cancelled by the storage itself."""

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        await asyncio.Event().wait()
        return Snapshot(None, None)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
    ) -> Snapshot:
        raise asyncio.CancelledError


def test_each_way_has_a_name() -> None:
    ways = [way_from_coroutines(Handle(storage()).ports) for storage in (Both, Memory, Threaded)]
    assert [way.partition(" ")[0] for way in ways] == ["awaited,", "called", "called"]
    assert len(set(ways)) == 3


class TestChecks:
    def test_after_a_check_that_hung_the_next_one_gets_another_loop(self, tmp_path: Path) -> None:
        from dataclasses import replace

        def hang(subject: Subject) -> None:
            handle = subject.handle
            assert isinstance(handle.road, Awaited)
            handle.road.loop.running.call_soon_threadsafe(free.wait)
            handle.load(KEY)

        free = threading.Event()
        with Subject(partial(CasStorage, f"x:{tmp_path}/a"), quick=True) as subject:
            check = CHECKS["awaited_round_trip"]
            assert "it did not end in" in run_check(replace(check, function=hang, limit=0.05), subject).what
            assert run_check(check, subject).outcome == "passed"
            free.set()

    def test_what_is_measured_says_so(self) -> None:
        report = run(partial(MemoryStorage, "memory:"), only=["loop_stays_free"], quick=True)
        assert set(report.measured) == {f"event loop kept by a {what}, s, awaited" for what in ("load", "commit")}

    def test_a_store_that_does_not_answer_must_not_keep_the_loop_either(self, tmp_path: Path) -> None:
        here = partial(MemoryStorage, "memory:")
        report = run(here, only=["loop_stays_free"], quick=True, unreachable=partial(Away, f"x:{tmp_path}/b"))
        assert "while a load from a store that does not answer was under way" in report["loop_stays_free"].what
        report = run(here, only=["loop_stays_free"], quick=True, unreachable=partial(AwayAtOnce, f"x:{tmp_path}/b"))
        assert report.ok

    def test_a_cancelled_save_that_takes_the_one_before_with_it(self, tmp_path: Path) -> None:
        report = run(partial(Undoes, f"x:{tmp_path}/a"), only=["cancelled_saves"], quick=True)
        assert "a load gives commit 0, where 1 was before" in report["cancelled_saves"].what

    @pytest.mark.parametrize("outcome_unknown", [True, False])
    def test_a_cancelled_save_of_which_nothing_is_claimed(self, tmp_path: Path, outcome_unknown: bool) -> None:  # noqa: FBT001
        storage = partial(Translates, f"x:{tmp_path}/a", outcome_unknown=outcome_unknown)
        assert run(storage, only=["cancelled_saves"], quick=True).ok


class Away(CasStorage):
    """Waits for its time-out on the loop."""

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        clock.sleep(timeout)
        raise StorageUnavailable("away", key=key)


class AwayAtOnce(CasStorage):
    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        raise StorageUnavailable("away", key=key)


class Undoes(CasStorage):
    """Leaves nothing behind where a save is cancelled."""

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
    ) -> Snapshot:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.resilience_delete(key, None, timeout)
            raise
        return self.resilience_save(key, payload, expected, expires_at, timeout)


class Translates(CasStorage):
    """Says of a save that was cancelled before it was sent that the store does not answer."""

    def __init__(self, url: str, settings: None = None, *, outcome_unknown: bool) -> None:
        super().__init__(url)
        self.outcome_unknown = outcome_unknown

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
    ) -> Snapshot:
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            raise StorageUnavailable("no answer", key=key, outcome_unknown=self.outcome_unknown) from None
        return self.resilience_save(key, payload, expected, expires_at, timeout)


def test_tasks_of_one_loop_each_do_the_job(handle: Handle) -> None:
    def job(handle: Handle, key: Key, who: str, number: int) -> tuple[str, int]:
        handle.load(key)
        return who, number

    assert in_tasks(handle, 1, job, KEY, "alone", 7) == [("alone", 7)]
    assert in_tasks(handle, 2, job, KEY, "both", 7) == [("both, task 0", 7), ("both, task 1", 7)]


def test_in_processes_as_well(tmp_path: Path) -> None:
    checks = ["awaited_visible", "awaited_counts_processes", "awaited_lock_excludes_processes"]
    report = run(partial(FolderStorage, f"x:{tmp_path}"), only=checks, quick=True)
    assert report.ok, report.text()
