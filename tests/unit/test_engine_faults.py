"""The engine on storages that fail: fuse, owed outcomes, the four answers to an outage, conflicts, damage, nonsense."""

from __future__ import annotations

import inspect
import json
import pickle
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from storages import giving

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Event,
    Key,
    PluginError,
    Runtime,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageError,
    StorageIncompatible,
    StorageLockTimeout,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from storages import Faulty, Recorder

    from resilience.testing import ManualClock

KEY = Key("circuit_breaker", "payments")
DOWN = StorageUnavailable("the storage is down")
DOWN_FOR_ONE = StorageUnavailable("one record is out of reach", key=KEY)
LATE = StorageLockTimeout("somebody else has the lock", key=KEY)


@pytest.fixture(params=["faulty", "casual"])
def scheme(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def storage(runtime: Runtime) -> Faulty:
    return runtime.opened.storage


def make(mode: Any = "local", **settings: Any) -> CircuitBreaker:
    chosen: dict[str, Any] = {"failure_threshold": 3, "reset_timeout": 30, **settings}
    return CircuitBreaker("payments", on_store_error=mode, **chosen)


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    def raising() -> None:
        raise KeyError("the dependency")

    for _ in range(times):
        with pytest.raises(KeyError):
            breaker.call(raising)


def ignoring(well: Any, *arguments: Any) -> None:
    """Do nothing and return nothing, as a broken plugin does."""


def everything_fails(storage: Faulty, fault: BaseException = DOWN) -> None:
    storage.always = dict.fromkeys(["load", "save", "lock", "aload", "asave"], fault)


class TestOutage:
    @pytest.mark.parametrize("fault", [DOWN, DOWN_FOR_ONE, OSError("cable"), RuntimeError("a bug of the plugin")])
    def test_one_degraded_and_one_recovered(
        self, storage: Faulty, told: Recorder, clock: ManualClock, fault: BaseException
    ) -> None:
        breaker, another = make(), make()
        breaker.call(lambda: 1)
        another.call(lambda: 1)
        everything_fails(storage, fault)
        clock.advance(1)
        for _ in range(5):
            assert breaker.call(lambda: 1) == 1
            assert another.call(lambda: 1) == 1
            clock.advance(3)
        assert told.names == ["degraded"]
        event = told.events[0]
        assert (event.data["mode"], event.data["storage"]) == ("local", storage_name(storage))
        assert str(fault) in str(event.data["error"])
        storage.always = {}
        clock.advance(1)
        breaker.call(lambda: 1)
        another.call(lambda: 1)
        assert told.names == ["degraded", "recovered"]
        assert told.events[1].data["seconds"] == 16
        assert (told.events[0].key, told.events[1].key) == ((KEY, KEY) if fault is DOWN_FOR_ONE else (None, None))

    def test_in_an_outage_of_one_key_a_control_of_it_raises_and_asks_nothing(self, storage: Faulty) -> None:
        breaker = make()
        everything_fails(storage, DOWN_FOR_ONE)
        fail(breaker)
        storage.calls.clear()
        with pytest.raises(StorageUnavailable, match="one record is out of reach"):
            breaker.reset()
        assert storage.calls == []

    def test_it_is_asked_once_a_second(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        everything_fails(storage)
        for second in range(3):
            storage.calls.clear()
            for _ in range(10):
                fail(breaker) if second == 0 and breaker.status().failure_count < 2 else breaker.check()
                breaker.status()
            assert len(storage.calls) <= 1
            clock.advance(1)

    def test_only_a_commit_shows_that_it_is_back(self, storage: Faulty, told: Recorder, clock: ManualClock) -> None:
        breaker = make()
        breaker.call(lambda: 1)
        storage.always = {"save": DOWN}
        fail(breaker)
        clock.advance(1)
        breaker.call(lambda: 1)
        clock.advance(1)
        assert breaker.status().degraded
        assert told.names == ["degraded"]
        storage.always = {}
        clock.advance(1)
        assert not breaker.status().degraded  # looking may be what finds out
        assert told.names == ["degraded", "recovered"]

    def test_looking_in_an_outage_never_says_that_all_is_well(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        everything_fails(storage)
        for _ in range(3):
            assert breaker.status().degraded
            clock.advance(1)

    def test_local_goes_on_from_what_was_last_seen(self, storage: Faulty, told: Recorder, clock: ManualClock) -> None:
        breaker = make()
        fail(breaker, 2)
        everything_fails(storage)
        fail(breaker)
        assert breaker.status().state is CircuitState.OPEN
        with pytest.raises(CircuitOpenError):
            breaker.call(pytest.fail)
        assert [(move.new, move.version) for move in told.transitions] == [("open", None)]
        storage.always = {}
        clock.advance(1)
        assert breaker.call(lambda: 1) == 1  # the shared state rules again
        assert breaker.status().state is CircuitState.CLOSED

    def test_local_stays_open(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1)
        fail(breaker)
        everything_fails(storage)
        clock.advance(29)
        with pytest.raises(CircuitOpenError):
            breaker.call(pytest.fail)
        clock.advance(1)
        with breaker:
            assert breaker.status().permits_in_use == 1
        assert breaker.status().half_open_successes == 1

    def test_nothing_is_counted_twice_on_return(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=100)
        fail(breaker)
        everything_fails(storage)
        fail(breaker, 5)
        storage.always = {}
        clock.advance(1)
        fail(breaker)
        assert breaker.status().failure_count == 2

    def test_a_call_of_the_private_copy_that_ends_after_it(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=2)
        fail(breaker)
        everything_fails(storage)
        clock.advance(1)
        same_epoch = breaker.acquire()
        fail(breaker)
        clock.advance(30)
        of_a_private_epoch = breaker.acquire()
        assert of_a_private_epoch.lease is not None
        storage.always = {}
        clock.advance(1)
        breaker.acquire().release()
        of_a_private_epoch.success()
        same_epoch.failure()  # the state that it was let in by is still the shared one: this one counts
        assert breaker.status().state is CircuitState.OPEN

    @pytest.mark.parametrize("outage", [DOWN, DOWN_FOR_ONE])
    def test_an_answer_that_comes_after_it_began_decides_no_other_call(
        self, storage: Faulty, outage: StorageUnavailable, told: Recorder
    ) -> None:
        """As of many calls that wait for a server at once, where some get through and others do not."""
        late, elsewhere = make(), make()

        def slowly(load: Any, *arguments: Any) -> Any:
            elsewhere.call(int)  # which meets the outage
            return load(*arguments)

        storage.plan("load", slowly, outage)
        late.call(int)
        assert told.names == ["degraded"]
        fail(late, 3)
        with pytest.raises(CircuitOpenError):
            late.call(int)

    def test_allow(self, storage: Faulty) -> None:
        breaker = make("allow", failure_threshold=1)
        everything_fails(storage)
        fail(breaker, 3)
        assert breaker.call(lambda: 1) == 1
        permit = breaker.acquire()
        permit.success()

    def test_deny(self, storage: Faulty) -> None:
        breaker = make("deny")
        everything_fails(storage)
        for _ in range(2):
            with pytest.raises(CircuitOpenError, match="down") as rejection:
                breaker.call(pytest.fail)
            assert rejection.value.retry_after is None
        assert not breaker.check()

    @pytest.mark.parametrize("mode", ["deny", "raise"])
    def test_an_outage_of_all_names_no_other(self, storage: Faulty, mode: Any, told: Recorder) -> None:
        def down(_well: Any, key: Key, *_: Any) -> None:
            raise StorageUnavailable(f"loading {key} on host: refused") from OSError("refused")

        storage.always.update(load=down, save=down)
        with pytest.raises((CircuitOpenError, StorageUnavailable), match="loading circuit_breaker 'payments' on host"):
            make(mode).call(pytest.fail)
        assert [event.data["error"] for event in told.events] == ["loading circuit_breaker 'payments' on host: refused"]
        other = CircuitBreaker("search", on_store_error=mode)
        with pytest.raises((CircuitOpenError, StorageUnavailable)) as raised:
            other.call(pytest.fail)
        text = str(raised.value)
        assert "payments" not in text
        assert text.endswith(
            "'search' rejects calls (the storage does not answer: loading a record on host: refused)"
            if mode == "deny"
            else "loading a record on host: refused"
        )
        with pytest.raises(StorageUnavailable, match=r"^loading a record on host: refused$"):
            other.reset()

    def test_raise(self, storage: Faulty) -> None:
        breaker = make("raise")
        everything_fails(storage)
        depths: list[int] = []
        for _ in range(5):
            with pytest.raises(StorageUnavailable, match="down") as raised:
                breaker.call(pytest.fail)
            depths.append(len(raised.traceback))
        assert len(set(depths[1:])) == 1  # one error raised again and again would grow

    @pytest.mark.parametrize("mode", ["local", "allow", "deny", "raise"])
    def test_recording_raises_nothing(self, storage: Faulty, mode: str) -> None:
        breaker = make(mode)
        permit = breaker.acquire()
        everything_fails(storage)
        breaker.record_failure()
        breaker.record_success()
        permit.failure()
        assert breaker.status().degraded

    def test_controls_raise(self, storage: Faulty) -> None:
        breaker = make()
        everything_fails(storage)
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                breaker.reset()

    def test_a_newer_record_is_left_alone(self, storage: Faulty, clock: ManualClock, told: Recorder) -> None:
        payload = json.dumps({"schema": 99, "state": "hyperspace"}).encode()
        storage.memory.resilience_save(KEY, payload, None, None, 1)
        breaker = make()
        fail(breaker, 3)
        assert breaker.status().state is CircuitState.OPEN
        assert breaker.status().degraded
        with pytest.raises(StorageIncompatible):
            breaker.reset()
        clock.advance(5)
        with pytest.raises(CircuitOpenError):
            breaker.call(pytest.fail)
        assert storage.memory.resilience_load(KEY, 1).payload == payload
        assert told.names == ["degraded"]

    def test_a_save_that_may_have_happened_is_not_repeated(self, storage: Faulty, clock: ManualClock) -> None:
        def happens_and_fails(well: Any, *arguments: Any) -> None:
            well(*arguments)
            raise StorageUnavailable("the answer was lost", outcome_unknown=True)

        breaker = make(failure_threshold=100)
        breaker.call(lambda: 1)
        storage.plan("save", happens_and_fails)
        fail(breaker)
        clock.advance(1)
        fail(breaker)
        assert breaker.status().failure_count == 2

    def test_the_wall_clock_of_a_private_copy_may_jump(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        everything_fails(storage)
        breaker.call(lambda: 1)
        clock.jump_wall(-1000)
        assert breaker.call(lambda: 1) == 1
        storage.always = {}
        clock.advance(1)
        breaker.call(lambda: 1)
        assert not breaker.status().degraded


def storage_name(storage: Faulty) -> str:
    return type(storage).__name__.lower()


class TestEndOfTheStack:
    """A hook that found no room on the caller's stack says nothing of the storage."""

    DEEP = RecursionError("maximum recursion depth exceeded")

    @pytest.mark.parametrize("hook", ["load", "lock"])
    def test_a_report_is_owed_and_nothing_is_an_outage(self, storage: Faulty, told: Recorder, hook: str) -> None:
        breaker, elsewhere = make(failure_threshold=9), make(failure_threshold=9)
        fail(elsewhere)
        storage.plan(hook, self.DEEP)
        fail(breaker)
        fail(breaker)
        status = breaker.status()
        assert (status.failure_count, status.degraded, told.names) == (3, False, [])

    def test_one_that_may_have_been_saved_is_counted_at_most_once(self, storage: Faulty, told: Recorder) -> None:
        def saves(well: Any, *arguments: Any) -> None:
            well(*arguments)
            raise self.DEEP

        breaker = make(failure_threshold=9)
        storage.plan("save", saves, self.DEEP)
        fail(breaker, 3)
        status = breaker.status()
        assert (status.failure_count, status.degraded, told.names) == (2, False, [])

    def test_wherever_it_ends(self, tmp_path: Path, told: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
        """At each depth of the stack a failure is counted, or nothing is; and no other call is the worse for it."""
        unraisable: list[Any] = []  # what has no room to end there is told to nobody but this

        def note(raised: sys.UnraisableHookArgs) -> None:
            unraisable.append(raised.exc_type)

        monkeypatch.setattr(sys, "unraisablehook", note)
        with Runtime(storage=(tmp_path / "deep").as_uri(), observers=[told]):
            breaker = make(failure_threshold=1000)
            breaker.record_failure()
            counted = [breaker.status().failure_count]

            def fail_at(depth: int) -> None:
                if depth:
                    fail_at(depth - 1)
                else:
                    breaker.record_failure()

            here = len(inspect.stack(0))
            for room in range(100):
                with suppress(RecursionError):
                    fail_at(sys.getrecursionlimit() - here - room)
                counted.append(breaker.status().failure_count)
        steps = [after - before for before, after in pairwise(counted)]
        assert set(steps) == {0, 1}
        assert steps[-20:] == [1] * 20
        assert told.names == []
        assert set(unraisable) <= {RecursionError}

    @pytest.mark.parametrize("mode", ["local", "allow"])
    def test_a_call_is_let_in_by_what_was_seen_last(
        self, storage: Faulty, told: Recorder, clock: ManualClock, mode: str
    ) -> None:
        breaker = make(mode)
        breaker.call(lambda: 1)
        clock.advance(1)
        storage.plan("load", self.DEEP)
        assert breaker.call(lambda: 1) == 1
        fail(breaker)
        status = breaker.status()
        assert (status.failure_count, status.degraded, told.names) == (1, False, [])

    def test_what_must_be_done_says_so(self, storage: Faulty, told: Recorder) -> None:
        breaker = make()
        storage.plan("lock", self.DEEP)
        with pytest.raises(StorageUnavailable, match="RecursionError"):
            breaker.force_open()
        breaker.force_open()
        assert (breaker.status().state, told.names) == (CircuitState.FORCED_OPEN, [])


class TestOwed:
    @pytest.fixture(autouse=True)
    def _with_a_lock(self, runtime: Runtime) -> None:
        if "casual" in runtime.url:
            pytest.skip("has no lock")

    def test_an_outcome_waits_for_the_lock(self, storage: Faulty, told: Recorder) -> None:
        breaker = make()
        storage.plan("lock", LATE)
        fail(breaker)
        assert storage.memory.resilience_load(KEY, 1).payload is None
        fail(breaker)
        assert (breaker.status().failure_count, told.names) == (2, [])

    def test_it_has_the_time_of_its_own(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make()
        storage.plan("lock", LATE)
        fail(breaker)
        failed_at = clock.wall()
        clock.advance(7)
        assert breaker.status().last_failure_time == failed_at

    def test_so_has_one_that_waited_for_the_lock(self, storage: Faulty, clock: ManualClock) -> None:
        def slowly(well: Any, *arguments: Any) -> Any:
            clock.advance(2)
            return well(*arguments)

        storage.always = {"lock": slowly}
        failed_at = clock.wall()
        make().record_failure()
        storage.always = {}
        assert make().status().last_failure_time == failed_at

    def test_a_look_commits_it(self, storage: Faulty) -> None:
        breaker = make(failure_threshold=1)
        storage.plan("lock", LATE)
        fail(breaker)
        assert breaker.status().state is CircuitState.OPEN

    def test_a_look_that_cannot_leaves_it_owed(self, storage: Faulty) -> None:
        breaker = make()
        storage.plan("lock", LATE, LATE)
        fail(breaker)
        assert breaker.status().failure_count == 0
        assert breaker.status().failure_count == 1

    def test_the_second_time_out_in_a_row_is_an_outage(
        self, storage: Faulty, told: Recorder, clock: ManualClock
    ) -> None:
        breaker = make(failure_threshold=10)
        breaker.call(lambda: 1)
        storage.always = {"lock": LATE}
        breaker.record_failure()
        assert told.names == []
        breaker.record_failure()
        breaker.record_failure()
        assert told.names == ["degraded"]
        assert told.events[0].key == KEY
        storage.always = {}
        clock.advance(1)
        breaker.record_failure()
        assert told.names == ["degraded", "recovered"]
        assert breaker.status().failure_count == 4

    def test_time_outs_that_are_not_in_a_row(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(failure_threshold=10)
        for _ in range(3):
            storage.plan("lock", LATE)
            fail(breaker, 2)
        assert (told.names, breaker.status().failure_count) == ([], 6)

    def test_no_more_than_64_are_kept(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1000)
        breaker.call(lambda: 1)
        storage.always = {"lock": LATE}
        for _ in range(100):
            breaker.record_failure()
        storage.always = {}
        clock.advance(1)
        assert breaker.status().failure_count == 64

    def test_they_stay_owed_if_the_commit_fails_too(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=10)
        storage.plan("lock", LATE)
        fail(breaker)
        storage.plan("save", DOWN)
        assert breaker.status().degraded
        clock.advance(1)
        assert breaker.status().failure_count == 1

    def test_they_stay_owed_if_the_lock_breaks(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=10)
        storage.plan("lock", LATE, OSError("no lock daemon"))
        fail(breaker)
        assert breaker.status().degraded
        clock.advance(1)
        assert breaker.status().failure_count == 1

    def test_an_admission_that_needs_the_lock_is_rejected(
        self, storage: Faulty, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make(failure_threshold=1)
        fail(breaker)
        clock.advance(30)
        storage.plan("lock", LATE)
        with pytest.raises(CircuitOpenError, match=r"\bthe lock of its record could not be had\b") as raised:
            breaker.call(pytest.fail)
        assert (raised.value.name, raised.value.retry_after, raised.value.__cause__) == ("payments", 0, LATE)
        assert breaker.call(lambda: 1) == 1
        assert told.names == []

    def test_a_control_raises(self, storage: Faulty) -> None:
        storage.plan("lock", LATE)
        with pytest.raises(StorageLockTimeout):
            make().reset()

    def test_they_are_committed_when_the_runtime_closes(self, runtime: Runtime, storage: Faulty) -> None:
        breaker = make()
        storage.plan("lock", LATE)
        fail(breaker)
        runtime.close()
        assert breaker.status().failure_count == 1

    def test_and_lost_if_that_cannot_be(self, runtime: Runtime, storage: Faulty) -> None:
        breaker = make()
        storage.plan("lock", LATE, LATE)
        fail(breaker)
        runtime.close()
        assert breaker.status().failure_count == 0


class TestConflicts:
    def test_without_end_it_is_given_up_when_the_time_is_up(self, storage: Faulty, clock: ManualClock) -> None:
        def never_first(_: Any, key: Key, *__: Any) -> Snapshot:
            clock.advance(0.125)
            raise StorageConflict("somebody else committed", key=key)

        storage.always = {"save": never_first}
        with pytest.raises(
            StorageLockTimeout, match=f"^{KEY}: others committed first until the time was up$"
        ) as raised:
            make().force_open()
        assert raised.value.key == KEY
        assert storage.calls.count("save") == 2

    def test_somebody_else_commits_first(self, storage: Faulty, runtime: Runtime, clock: ManualClock) -> None:
        def after_another(well: Any, *arguments: Any) -> Snapshot:
            storage.memory.resilience_save(KEY, *arguments[1:])
            return well(*arguments)

        breaker = make(failure_threshold=10)
        breaker.call(lambda: 1)
        storage.plan("save", after_another)
        fail(breaker)
        assert breaker.status().failure_count == 2

    @pytest.mark.parametrize("brings", [True, False])
    def test_a_conflict_may_bring_the_record(self, storage: Faulty, *, brings: bool) -> None:
        def conflicts(well: Any, *arguments: Any) -> Snapshot:
            current = storage.memory.resilience_save(KEY, *arguments[1:])
            raise StorageConflict("others were first", current=current if brings else None)

        breaker = make(failure_threshold=10)
        fail(breaker)
        storage.plan("save", conflicts, conflicts)
        fail(breaker)
        assert breaker.status().failure_count == 4

    def test_what_it_brings_may_be_older_than_what_was_seen(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(failure_threshold=10)
        fail(breaker)
        first = storage.memory.resilience_load(KEY, 1)
        fail(breaker, 2)
        storage.plan("save", StorageConflict("it was restored", current=first))
        fail(breaker)
        assert [(event.name, event.data) for event in told.events] == [("version_regression", {"seen": 3, "found": 1})]

    @pytest.mark.parametrize("scheme", ["casual"])
    def test_so_may_what_is_loaded_under_the_lock(self, storage: Faulty, told: Recorder) -> None:
        breaker = make(failure_threshold=10)
        fail(breaker)
        first = storage.memory.resilience_load(KEY, 1)
        fail(breaker, 2)
        storage.plan("load", giving(first))
        breaker.record_failure()
        assert [(event.name, event.data) for event in told.events] == [("version_regression", {"seen": 3, "found": 1})]

    @pytest.mark.parametrize("scheme", ["casual"])
    def test_and_what_is_loaded_for_a_look(self, storage: Faulty, told: Recorder, clock: ManualClock) -> None:
        breaker = make(failure_threshold=10)
        fail(breaker)
        first = storage.memory.resilience_load(KEY, 1)
        fail(breaker, 2)
        clock.advance(5)
        storage.plan("load", giving(first))
        assert breaker.status().failure_count == 1
        assert told.events == [Event("version_regression", KEY, clock.wall(), {"seen": 3, "found": 1})]

    def test_what_it_brings_may_be_damaged(self, storage: Faulty, told: Recorder) -> None:
        def conflicts(well: Any, *arguments: Any) -> Snapshot:
            current = storage.memory.resilience_save(KEY, b"{", *arguments[2:])
            raise StorageConflict("others were first", current=current)

        breaker = make(failure_threshold=10)
        fail(breaker)
        storage.plan("save", conflicts)
        fail(breaker)
        assert (breaker.status().failure_count, told.names) == (1, ["state_reset"])

    def test_it_gives_up_at_the_deadline(self, storage: Faulty, clock: ManualClock, told: Recorder) -> None:
        def conflicts(well: Any, *arguments: Any) -> Snapshot:
            clock.advance(0.1)
            raise StorageConflict("others were first")

        breaker = make()
        breaker.call(lambda: 1)
        storage.always = {"save": conflicts}
        storage.calls.clear()
        fail(breaker)
        assert storage.calls.count("save") == 3
        assert told.names == []  # like a lock that could not be had: the failure is owed
        storage.always = {}
        fail(breaker)
        assert breaker.status().failure_count == 2


class TestDamage:
    @pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b'{"schema":1}', b"[" * 100_000])
    def test_a_damaged_record_is_set_aside(self, storage: Faulty, told: Recorder, payload: bytes) -> None:
        storage.memory.resilience_save(KEY, payload, None, None, 1)
        breaker = make()
        assert breaker.status().degraded  # looking changes nothing
        with pytest.raises(StorageCorrupt, match=f"^{KEY}: ") as raised:
            breaker.read(strict=True)
        assert raised.value.key == KEY
        assert "discard" not in storage.calls
        assert breaker.call(lambda: 1) == 1
        assert told.names == ["state_reset"]
        assert storage.calls.count("discard") == 1
        fail(breaker)
        assert (breaker.status().failure_count, breaker.status().degraded) == (1, False)

    def test_a_report_finds_it_too(self, storage: Faulty, told: Recorder) -> None:
        storage.memory.resilience_save(KEY, b"{", None, None, 1)
        breaker = make()
        breaker.record_success()
        assert told.names == ["state_reset"]
        storage.plan("load", StorageCorrupt("bits fell over"))
        breaker = make()
        breaker.record_failure()
        assert told.names == ["state_reset"] * 2
        assert breaker.status().failure_count == 1

    def test_looked_at_again_under_the_lock_it_may_be_whole(self, storage: Faulty, told: Recorder) -> None:
        storage.plan("load", StorageCorrupt("read while it was mended"))
        assert make().call(lambda: 1) == 1
        assert told.names == []
        storage.plan("load", StorageCorrupt("read while it was mended"))
        assert make().status().degraded

    @pytest.mark.parametrize("mode", ["local", "deny"])
    def test_one_that_cannot_be_set_aside_is_an_outage(self, storage: Faulty, told: Recorder, mode: str) -> None:
        storage.memory.resilience_save(KEY, b"{", None, None, 1)
        storage.always = {"discard": DOWN}
        breaker = make(mode)
        assert breaker.check() is (mode == "local")
        assert told.names == ["degraded"]

    def test_one_that_is_damaged_all_the_same_is_an_outage(self, storage: Faulty, told: Recorder) -> None:
        storage.memory.resilience_save(KEY, b"{", None, None, 1)
        storage.always = {"discard": ignoring}
        assert make().call(lambda: 1) == 1
        event = told.events[0]
        assert (event.name, event.key) == ("degraded", KEY)
        assert str(event.data["error"]).startswith(f"{KEY} was set aside and is damaged all the same: ")

    def test_what_is_wrong_is_handed_to_who_sets_it_aside_and_told(self, storage: Faulty, told: Recorder) -> None:
        reasons: list[str] = []

        def noting(well: Any, key: Key, reason: str, timeout: float) -> None:
            reasons.append(reason)
            well(key, reason, timeout)

        damage = StorageCorrupt("bits fell over")
        storage.always = {"discard": noting}
        storage.plan("load", damage, damage)
        assert make().call(lambda: 1) == 1
        assert reasons == ["bits fell over"]
        assert [(event.name, event.key, event.data) for event in told.events] == [
            ("state_reset", KEY, {"error": "bits fell over"})
        ]


class TestNonsense:
    @pytest.mark.parametrize("hook", ["load", "save", "lock"])
    def test_garbage_names_the_storage(self, storage: Faulty, hook: str) -> None:
        storage.always = {hook: ignoring}
        with pytest.raises((PluginError, StorageError), match=f"storage {storage_name(storage)}.*{hook}"):
            make("raise").reset()

    def test_a_record_is_kept_from_callers(self, storage: Faulty) -> None:
        storage.always = {"save": ignoring}
        fail(make())

    @pytest.mark.parametrize("error", [OSError("no lock daemon"), ValueError("no lock daemon")])
    @pytest.mark.parametrize("moment", ["enter", "exit"])
    def test_a_lock_that_raises(
        self, storage: Faulty, moment: str, error: Exception, told: Recorder, clock: ManualClock
    ) -> None:
        @contextmanager
        def broken(well: Any, *arguments: Any) -> Generator[None]:
            if moment == "enter":
                raise error
            yield
            raise error

        breaker = make(failure_threshold=10)
        breaker.call(lambda: 1)
        storage.plan("lock", broken)
        fail(breaker)
        assert "no lock daemon" in str(told.events[0].data["error"])
        clock.advance(1)
        fail(breaker)
        assert breaker.status().failure_count == (1 if moment == "enter" else 2)

    def test_ctrl_c_inside_the_storage_frees_the_lock(self, storage: Faulty) -> None:
        breaker = make(failure_threshold=10)
        breaker.call(lambda: 1)
        storage.plan("save", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as interrupt:
            breaker.record_failure()
        thread = threading.Thread(target=breaker.record_failure)
        thread.start()
        thread.join(10)
        assert breaker.status().failure_count == 1
        assert interrupt.value.__traceback__ is not None  # which keeps the frames alive

    def test_a_private_copy_is_damaged_by_nobody(self, storage: Faulty) -> None:
        storage.memory.resilience_save(KEY, b"{", None, None, 1)
        everything_fails(storage)
        breaker = make(failure_threshold=2)
        fail(breaker, 2)
        assert breaker.status().state is CircuitState.OPEN

    def test_threads_share_a_private_copy(self, storage: Faulty, clock: ManualClock) -> None:
        breaker = make(failure_threshold=1000)
        everything_fails(storage)
        breaker.check()
        together = threading.Barrier(8)

        def work() -> None:
            together.wait(10)
            for _ in range(50):
                breaker.record_failure()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert breaker.status().failure_count == 400

    def test_errors_pickle(self) -> None:
        for error in (DOWN, DOWN_FOR_ONE, LATE, StorageConflict("x", key=KEY, current=Snapshot(b"", None))):
            again = pickle.loads(pickle.dumps(error))
            assert (type(again), str(again), again.key) == (type(error), str(error), error.key)
