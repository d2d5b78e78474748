"""The storage that fails as it was told, under an engine and by itself."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Capability, CircuitBreaker, Key, Runtime, StorageUnavailable, Version, hookimpl
from resilience.testing import AwaitedFaultyStorage, FaultyStorage, ManualClock, Recorder, run, wait_until
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = Key("test", "key")


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(MemoryStorage("memory:"))


def save(storage: FaultyStorage, payload: bytes = b"payload", expected: Version | None = None) -> Any:
    return storage.resilience_save(KEY, payload, expected, None, 1)


def test_the_nth_call_fails_and_no_other(storage: FaultyStorage) -> None:
    storage.fail("load", 2)
    storage.resilience_load(KEY, 1)
    with pytest.raises(StorageUnavailable, match="load fails as planned"):
        storage.resilience_load(KEY, 1)
    storage.resilience_load(KEY, 1)
    assert storage.calls == ["load"] * 3


def test_a_failure_after_the_fact(storage: FaultyStorage) -> None:
    storage.fail("save", after=True)
    with pytest.raises(StorageUnavailable) as caught:
        save(storage)
    assert caught.value.outcome_unknown
    assert storage.resilience_load(KEY, 1).payload == b"payload"


def test_an_error_of_ones_own(storage: FaultyStorage) -> None:
    with pytest.raises(ZeroDivisionError):
        save(storage.fail("save", error=ZeroDivisionError()))


def test_it_hangs_until_it_is_released(storage: FaultyStorage) -> None:
    storage.hang("load")
    seen: list[object] = []
    thread = threading.Thread(target=lambda: seen.append(storage.resilience_load(KEY, 0.01)))
    thread.start()
    wait_until(lambda: storage.calls == ["load"], "the call")
    assert not seen
    storage.release()
    thread.join(10)
    assert len(seen) == 1


def test_torn_lost_and_lied_about(storage: FaultyStorage) -> None:
    torn = save(storage.tear())
    assert torn.payload == b"payload"
    assert storage.resilience_load(KEY, 1).payload == b"pay"
    lost = save(storage.lose(), b"lost", torn.version)
    assert lost.version.number == 2
    assert storage.resilience_load(KEY, 1).version == torn.version
    assert save(storage.lose(), b"lost").version == Version("lost", 1)
    lied = storage.lie(by=5).resilience_load(KEY, 1)
    assert lied.version == Version(torn.version.incarnation, 6)


@pytest.mark.parametrize(("hook", "nth"), [("nonsense", 1), ("load", 0)])
def test_plans_that_make_no_sense(storage: FaultyStorage, hook: str, nth: int) -> None:
    with pytest.raises(ValueError, match="calls count from 1"):
        storage.fail(hook, nth)


def test_the_rest_goes_through(storage: FaultyStorage) -> None:
    saved = save(storage)
    assert list(storage.resilience_keys()) == [KEY]
    with storage.resilience_lock(KEY, 1):
        storage.resilience_discard(KEY, "why", 1)
    assert not storage.resilience_delete(KEY, saved.version, 1)
    storage.close()


class Bare:
    capabilities: frozenset[str] = frozenset()

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any: ...

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any: ...

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any: ...


def test_a_hook_that_the_storage_inside_has_not() -> None:
    with pytest.raises(StorageUnavailable, match="Bare has no resilience_keys"):
        FaultyStorage(Bare()).resilience_keys()


def test_a_breaker_lives_through_an_outage(storage: FaultyStorage) -> None:
    recorder = Recorder()
    with Runtime(storage=storage, clock=ManualClock(), observers=[recorder], environ={}):
        breaker = CircuitBreaker("payments", failure_threshold=3)
        breaker.record_failure()
        storage.fail("save")
        breaker.record_failure()
    assert recorder.told("payments") == ["degraded"] or recorder.told("payments") == []
    assert "save" in storage.calls


def faulty(plan: Callable[[FaultyStorage], object]) -> FaultyStorage:
    storage = FaultyStorage(MemoryStorage("memory:"))
    plan(storage)
    return storage


def test_the_kit_finds_each_fault() -> None:
    faults: list[tuple[Callable[[FaultyStorage], object], str, str]] = [
        (lambda storage: storage.tear(), "round_trip", "load gives 1 bytes"),
        (lambda storage: storage.lose(2), "round_trip", "load gives 2 bytes"),
        (lambda storage: storage.lie(3), "round_trip", "with version"),
    ]
    for plan, check, says in faults:
        assert says in run(partial(faulty, plan), only=[check])[check].what


class TestAwaited:
    @pytest.fixture
    def awaited(self) -> AwaitedFaultyStorage:
        return AwaitedFaultyStorage(MemoryStorage("memory:"))

    def test_what_is_planned_happens_to_the_next_call_of_either_road(self, awaited: AwaitedFaultyStorage) -> None:
        awaited.fail("load", 2).fail("load", 3)

        async def main() -> None:
            await awaited.resilience_aload(KEY, 1)
            with pytest.raises(StorageUnavailable, match="load fails as planned"):
                await awaited.resilience_aload(KEY, 1)
            with pytest.raises(StorageUnavailable, match="load fails as planned"):
                awaited.resilience_load(KEY, 1)
            saved = await awaited.resilience_asave(KEY, b"payload", None, None, 1)
            assert (await awaited.resilience_aload(KEY, 1)).version == saved.version

        asyncio.run(main())
        assert awaited.calls == ["aload", "aload", "load", "asave", "aload"]
        assert Capability.INLINE not in awaited.capabilities

    @pytest.mark.parametrize("at_most", [0.0, 30.0])
    def test_other_tasks_run_while_it_hangs(self, awaited: AwaitedFaultyStorage, at_most: float) -> None:
        awaited.hang("load", at_most=at_most)

        async def main() -> None:
            task = asyncio.create_task(awaited.resilience_aload(KEY, 0.01))
            while not awaited.calls:
                await asyncio.sleep(0)
            if at_most:
                await asyncio.sleep(0.005)
                assert not task.done()
                awaited.release()
            assert (await task).payload is None

        asyncio.run(main())

    def test_it_passes_the_suite(self, awaited: AwaitedFaultyStorage) -> None:
        report = run(lambda: awaited, only=["hooks", "round_trip", "awaitable", "counts_tasks"], quick=True)
        assert report.ok, report.text()
