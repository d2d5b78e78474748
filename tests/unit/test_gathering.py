"""Outcomes that are gathered in a process: when they are committed, and that none is lost or counted twice."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from storages import Faulty

from resilience import (
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Key,
    Runtime,
    StorageLockTimeout,
    StorageUnavailable,
    gather,
)
from resilience.gather import Owed, Row
from resilience.policy import Report
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import FrameType

    from storages import Recorder

pytestmark = pytest.mark.usefixtures("storages_of_tests")

MIDDLE = 1_000_000_002.0
"""The middle of a bucket of six seconds."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(MIDDLE)


@pytest.fixture(params=["faulty", "threaded", "awaited"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.param}:{tmp_path}"


@pytest.fixture
def process(url: str, clock: ManualClock, told: Recorder) -> Iterator[Callable[[], Runtime]]:
    """Make what another process would have: a runtime of its own on the same storage."""
    made: list[Runtime] = []

    def another() -> Runtime:
        made.append(Runtime(storage=url, clock=clock, observers=[told], environ={}))
        return made[-1]

    yield another
    for runtime in made:
        runtime.close()


@pytest.fixture
def here(process: Callable[[], Runtime]) -> Runtime:
    return process()


@pytest.fixture
def there(process: Callable[[], Runtime]) -> CircuitBreaker:
    return make(process())


def make(runtime: Runtime, window: Any = "time", **settings: Any) -> CircuitBreaker:
    return CircuitBreaker("payments", runtime=runtime, window=window, **settings)


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        assert breaker.call(lambda: 1) == 1


def fail(breaker: CircuitBreaker) -> None:
    def failing() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        breaker.call(failing)


def commits(breaker: CircuitBreaker) -> int:
    version = breaker.status().version
    return 0 if version is None else int(version.partition("@")[0])


def owed_by_nobody() -> Owed:
    return Owed(cell=None, now=0.0)  # type: ignore[arg-type]  # whose it is matters where it is committed


def forks() -> None:
    """Fork a child that ends."""
    with warnings.catch_warnings():
        # From 3.12 on a warning says that other tests have threads; the child of this one does nothing.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
class TestForks:
    def test_before_a_fork(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here, gather=30)
        succeed(breaker, 4)
        assert commits(there) == 0
        forks()
        assert (there.status().success_count, commits(there)) == (4, 1)
        succeed(breaker)
        assert (breaker.status().success_count, commits(there)) == (5, 2)

    def test_a_permit_that_a_process_reports_is_gathered_too(self, here: Runtime, there: CircuitBreaker) -> None:
        make(here, gather=30).record_success()
        forks()
        assert there.status().success_count == 1

    def test_all_keys_together_wait_for_one_time_out(self, here: Runtime, clock: ManualClock) -> None:
        def held(_: object, key: Key, timeout: float) -> AbstractContextManager[None]:
            clock.advance(timeout)
            raise StorageLockTimeout("held", key=key)

        breakers = [CircuitBreaker(name, runtime=here, window="time", gather=30) for name in ("one", "two", "three")]
        for breaker in breakers:
            succeed(breaker, 2)
        storage: Faulty = here.opened.storage
        storage.always = {"lock": held}
        storage.calls.clear()
        forks()
        assert storage.calls.count("lock") == 1
        storage.always = {}
        assert [breaker.status().success_count for breaker in breakers] == [2, 2, 2]

    def test_a_storage_that_cannot_make_ready_is_no_fault_of_the_call(
        self, here: Runtime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made_ready: list[bool] = []

        def fails() -> None:
            made_ready.append(True)
            raise ZeroDivisionError

        monkeypatch.setattr(here.opened.storage, "prepare_for_fork", fails, raising=False)
        breaker = make(here, gather=30)
        succeed(breaker, 3)
        assert breaker.status().success_count == 3
        assert made_ready == [True]

    def test_a_call_in_which_the_runtime_is_closed(self, here: Runtime) -> None:
        assert make(here).call(here.close) is None


class TestWhen:
    def test_they_wait_for_the_next_call_after_gather_seconds(
        self, here: Runtime, there: CircuitBreaker, clock: ManualClock
    ) -> None:
        breaker = make(here, gather=0.5)
        succeed(breaker, 5)
        clock.advance(0.4)
        succeed(breaker)
        assert commits(there) == 0
        clock.advance(0.1)
        assert commits(there) == 0
        succeed(breaker)
        status = there.status()
        assert (status.success_count, commits(there)) == (6, 1)

    def test_a_failure_takes_them_with_it(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        succeed(breaker, 9)
        fail(breaker)
        status = there.status()
        assert (status.success_count, status.failure_count, status.failure_rate) == (9, 1, 0.1)
        assert commits(there) == 1

    def test_the_sixty_fourth_commits_all(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        succeed(breaker, 63)
        assert commits(there) == 0
        succeed(breaker)
        assert (there.status().success_count, commits(there)) == (64, 1)

    @pytest.mark.parametrize("way", ["called", "recorded"])
    def test_more_commit_all_where_the_window_holds_so_many_that_they_do_not_count(
        self, here: Runtime, there: CircuitBreaker, way: str
    ) -> None:
        breaker = make(here)
        succeed(breaker, 128 * 128)
        assert breaker.status().success_count == 128 * 128
        before = commits(there)
        breaker = make(here)  # the limit is asked for once, for all calls that an answer lets in
        for _ in range(127):
            succeed(breaker) if way == "called" else breaker.record_success()
        assert commits(there) == before
        succeed(breaker) if way == "called" else breaker.record_success()
        assert (there.status().success_count, commits(there)) == (128 * 129, before + 1)

    @pytest.mark.parametrize(("size", "limit"), [(100, 10), (10, 1), (15, 1), (2000, 64)])
    def test_a_tenth_of_a_window_of_calls_commits_all(
        self, here: Runtime, process: Callable[[], Runtime], size: int, limit: int
    ) -> None:
        settings = {"window_size": size, "minimum_calls": 5}
        breaker, there = make(here, "count", **settings), make(process(), "count", **settings)
        succeed(breaker, limit - 1)
        assert commits(there) == 0
        succeed(breaker)
        assert (there.status().success_count, commits(there)) == (limit, 1)

    def test_past_the_edge_of_their_bucket(self, here: Runtime, there: CircuitBreaker, clock: ManualClock) -> None:
        breaker = make(here, gather=30)
        succeed(breaker, 3)
        clock.advance(6)
        succeed(breaker)
        assert there.status().success_count == 3

    def test_a_call_that_ends_in_another_bucket_than_it_began_in(
        self, here: Runtime, there: CircuitBreaker, clock: ManualClock
    ) -> None:
        breaker = make(here, gather=30)
        succeed(breaker)  # what a success means here is known from now on
        assert breaker.call(lambda: clock.advance(6)) is None
        breaker.status()
        assert there.status().success_count == 2
        clock.advance(54)  # the bucket of the first has left the window, that of the second has not
        assert there.status().success_count == 1

    def test_before_the_next_decision_when_another_process_asks(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here, gather=30)
        succeed(breaker, 4)
        fail(there)
        succeed(breaker)
        assert there.status().success_count == 4

    def test_a_commit_of_successes_alone_asks_for_no_answer(
        self, here: Runtime, there: CircuitBreaker, process: Callable[[], Runtime]
    ) -> None:
        breaker, third = make(here, gather=30), make(process(), gather=30)
        succeed(breaker, 4)
        succeed(third, 3)
        third.status()
        succeed(breaker)
        assert there.status().success_count == 3

    def test_at_status(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        succeed(breaker, 3)
        assert breaker.status().success_count == 3
        assert there.status().success_count == 3

    def test_at_the_end_also_of_a_guard_that_is_gone(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        succeed(breaker, 3)
        del breaker
        gc.collect()
        here.close()
        assert there.status().success_count == 3

    def test_with_gather_0_each_is_committed(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here, gather=0)
        for count in range(1, 6):
            succeed(breaker)
            assert (there.status().success_count, commits(there)) == (count, count)

    def test_when_the_clock_goes_back(self, here: Runtime, there: CircuitBreaker, clock: ManualClock) -> None:
        breaker = make(here, gather=0.5)
        succeed(breaker, 2)
        clock.jump_wall(-1)
        succeed(breaker)
        assert there.status().success_count == 2


class TestWhich:
    def test_a_call_that_takes_too_long_is_not_gathered(
        self, here: Runtime, process: Callable[[], Runtime], clock: ManualClock
    ) -> None:
        settings = {"slow_call_rate_threshold": 0.5, "slow_call_duration": 2, "gather": 60}
        breaker, there = make(here, **settings), make(process(), **settings)
        for seconds in (1, 2):
            breaker.call(clock.advance, seconds)
        assert commits(there) == 0
        breaker.call(clock.advance, 2.5)
        status = there.status()
        assert (status.success_count, status.slow_count) == (3, 1)

    def test_a_result_that_is_a_failure_is_not_gathered(self, here: Runtime, there: CircuitBreaker) -> None:
        def is_error(result: int) -> bool:
            return result == 500

        breaker = make(here, failure_if=is_error)
        for result in (200, 404, 500):
            assert breaker.call(abs, result) == result
        status = there.status()
        assert (status.success_count, status.failure_count) == (2, 1)

    def test_reports_by_hand_are_gathered(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        breaker.record_success()
        breaker.acquire().success()
        with breaker:
            pass
        assert commits(there) == 0
        assert breaker.status().success_count == 3

    def test_coroutines_and_generators_too(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)

        @breaker
        async def one() -> int:
            return 1

        @breaker
        async def several() -> AsyncGenerator[int]:
            yield 1
            yield 2

        @breaker
        def few() -> Iterator[int]:
            yield 1

        async def work() -> None:
            assert await one() == 1
            assert [item async for item in several()] == [1, 2]
            async with breaker:
                pass

        asyncio.run(work())
        assert list(few()) == [1]
        assert commits(there) == 0
        assert breaker.status().success_count == 4

    def test_those_of_an_earlier_epoch_are_late(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        succeed(breaker, 3)
        there.reset()
        succeed(breaker)
        status = breaker.status()
        assert (status.success_count, status.late_count) == (1, 3)


class TestLock:
    def test_they_are_owed_again_if_it_cannot_be_had(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        storage: Faulty = here.opened.storage
        succeed(breaker, 3)
        storage.plan("lock", StorageLockTimeout("somebody has it"))
        assert breaker.status().success_count == 0
        succeed(breaker)
        assert breaker.status().success_count == 4
        assert there.status().success_count == 4

    def test_no_call_is_kept_out_for_it(
        self, here: Runtime, there: CircuitBreaker, clock: ManualClock, told: Recorder
    ) -> None:
        breaker = make(here)
        storage: Faulty = here.opened.storage
        succeed(breaker, 3)
        storage.always = {"lock": StorageLockTimeout("somebody has it")}
        for _ in range(3):
            clock.advance(0.2)
            succeed(breaker)
        assert told.names == ["degraded"]
        storage.always = {}
        clock.advance(1.1)
        succeed(breaker)
        assert told.names == ["degraded", "recovered"]
        assert (there.status().success_count or 0) >= 3

    def test_a_save_whose_outcome_is_not_known_is_not_repeated(
        self, here: Runtime, there: CircuitBreaker, clock: ManualClock
    ) -> None:
        def saved_and_cut(well: Callable[..., object], *arguments: object) -> None:
            well(*arguments)
            raise OSError("cut")

        breaker = make(here)
        storage: Faulty = here.opened.storage
        succeed(breaker, 3)
        storage.plan("save", saved_and_cut)
        storage.plan("asave", saved_and_cut)
        breaker.status()
        clock.advance(1.1)
        succeed(breaker)
        here.close()
        assert there.status().success_count in {3, 4}  # the one that was let in on the private copy may be there too


CALLS = 2_000
"""Of each thread."""


class TestThreads:
    @pytest.mark.parametrize("gather", [0.0, 0.05, 60.0])
    def test_many_lose_nothing(self, process: Callable[[], Runtime], tmp_path: Path, gather: float) -> None:
        with Runtime(storage=(tmp_path / "state").as_uri(), environ={}, storage_timeout=30) as runtime:
            breaker = make(runtime, window_duration=3600, gather=gather)

            def work() -> None:
                succeed(breaker, 300)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert make(runtime, window_duration=3600).status().success_count == 2400

    def test_each_is_counted_once_while_rows_are_committed_and_closed(self) -> None:
        """Eight threads race for tickets; who takes the last one, or finds none, takes all out."""
        owed = owed_by_nobody()
        kinds = [Report(0.0, 0, "success", 0.0, epoch, None, None) for epoch in range(3)]
        taken: list[list[Any]] = []

        def work(kind: Report) -> None:
            row = Row(kind, 60.0, 64)
            tickets: Iterator[bool] = iter(())
            left = CALLS
            while left:
                for more in tickets:
                    left -= 1
                    if more:
                        break
                else:
                    taken.append(owed.take(0.0))
                    row = owed.enter(row)
                    tickets = row.tickets  # kept, as by a memo, while others take all out
                    continue
                if left % 32 == 31:  # now and then a failure, and one that is like no others
                    taken.append(owed.take(0.0))
                elif left % 64 == 1:
                    left -= owed.gather(kinds[2], 60.0, 64)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=work, args=(kinds[number // 7],)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        taken.append(owed.take(0.0))
        sizes = [sum(report.count for report in each) for each in taken]
        assert sum(sizes) == len(threads) * CALLS
        assert max(sizes) <= 64 + len(threads)
        assert not owed

    def test_no_commit_has_more_than_sixty_four_and_those_under_way(self, tmp_path: Path) -> None:
        storage = Faulty(f"faulty:{tmp_path}")
        sizes = [0]

        def saving(well: Callable[..., Any], key: Key, payload: bytes, *others: Any) -> object:
            (window,) = json.loads(payload)["windows"].values()
            sizes.append(sum(calls for _, calls, *_ in window))
            return well(key, payload, *others)

        storage.always = {"save": saving}
        with Runtime(storage=storage, environ={}, storage_timeout=30) as runtime:
            breaker = make(runtime, window_duration="1h", gather=60)
            threads = [threading.Thread(target=succeed, args=(breaker, 500)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert breaker.status().success_count == 4_000
        assert max(after - before for before, after in itertools.pairwise(sizes)) <= 64 + len(threads)


class TestRows:
    """Successes that end alike are gathered as one."""

    @pytest.mark.parametrize(
        ("at", "epoch", "edge", "limit", "is_shared"),
        [
            (1.0, 1, 6.0, 64, True),
            (2.0, 1, 6.0, 64, True),
            (0.0, 1, 6.0, 64, False),
            (1.0, 2, 6.0, 64, False),
            (1.0, 1, 9.0, 64, False),
            (1.0, 1, 6.0, 10, False),
        ],
    )
    def test_those_of_the_same_bucket_and_epoch_are_alike(
        self, at: float, epoch: int, edge: float, limit: int, *, is_shared: bool
    ) -> None:
        owed = owed_by_nobody()
        first = owed.enter(Row(Report(1.0, 0, "success", 1.0, 1, None, None), 6.0, 64))
        assert next(first.tickets)
        second = owed.enter(Row(Report(at, 0, "success", at, epoch, None, None), edge, limit))
        assert (second is first) == is_shared
        assert next(second.tickets)
        counts = [report.count for report in owed.take(5.0) if isinstance(report, Report)]
        assert counts == [2] if is_shared else [1, 1]

    def test_one_that_nobody_was_gathered_in_leaves_nothing(self) -> None:
        owed = owed_by_nobody()
        owed.enter(Row(Report(1.0, 0, "success", 1.0, 1, None, None), 6.0, 64))
        other = Report(2.0, 0, "success", 2.0, 2, None, None)
        assert owed.gather(other, 6.0, 64)
        assert owed.take(5.0) == [other]

    def test_one_is_due_when_its_time_is_up_if_somebody_was_gathered_in_it(self) -> None:
        owed = owed_by_nobody()
        row = owed.enter(Row(Report(1.0, 0, "success", 1.0, 1, None, None), 6.0, 64))
        assert (bool(owed), row.count(), owed.is_due(5.0, 1.0, 0)) == (False, 0, False)
        assert next(row.tickets)
        assert (bool(owed), row.count(), owed.is_due(5.0, 1.0, 0)) == (True, 1, True)

    def test_what_is_owed_is_committed_before_what_was_gathered(self) -> None:
        owed = owed_by_nobody()
        failure = Report(1.0, 0, "failure", 1.0, 1, None, None)
        success = Report(2.0, 0, "success", 2.0, 1, None, None)
        owed.owe(failure)
        assert owed.gather(success, 6.0, 64)
        assert owed.take(5.0) == [failure, success]

    def test_a_memo_serves_the_next_one(self, clock: ManualClock) -> None:
        with Runtime(storage="memory:", clock=clock, environ={}) as here:
            breaker: Any = make(here, gather=60)
            succeed(breaker)
            memo = breaker._bound().memo
            clock.advance(0.5)
            succeed(breaker, 63)
            assert breaker._bound().memo is memo
            assert memo.since == MIDDLE + 0.5
            assert memo.holds(MIDDLE + 0.5)
            assert len(list(memo.tickets)) == 64

    def test_it_does_not_where_others_began_a_new_epoch(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here, gather=60)
        succeed(breaker, 3)
        there.reset()
        for _ in range(61):
            breaker.record_success()
        succeed(breaker, 2)
        status = breaker.status()
        assert (status.success_count, status.late_count) == (63, 3)

    def test_guards_of_one_name_share_one(self, here: Runtime, there: CircuitBreaker) -> None:
        breakers = [make(here) for _ in range(3)]
        for _ in range(21):
            for breaker in breakers:
                succeed(breaker)
        assert commits(there) == 0
        succeed(breakers[0])
        assert (there.status().success_count, commits(there)) == (64, 1)

    def test_guards_whose_windows_differ_take_turns(self, here: Runtime, there: CircuitBreaker) -> None:
        breakers = [make(here, window_duration=seconds) for seconds in (60, 600)]
        for _ in range(31):
            for breaker in breakers:
                succeed(breaker)
        assert commits(there) == 0
        succeed(breakers[0])
        assert commits(there) == 0
        succeed(breakers[1])
        assert commits(there) == 1
        assert sum(breaker.status().success_count or 0 for breaker in breakers) == 64

    def test_reports_by_hand_between_them_count(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)
        for _ in range(31):
            succeed(breaker)
            breaker.record_success()
        succeed(breaker)
        assert commits(there) == 0
        breaker.record_success()
        assert (there.status().success_count, commits(there)) == (64, 1)

    @pytest.mark.parametrize("way", ["called", "awaited"])
    def test_a_call_that_finds_a_full_one_commits_it(self, clock: ManualClock, way: str) -> None:
        """As whoever took the last place has not come to do it yet."""
        with Runtime(storage="memory:", clock=clock, environ={}) as here:
            breaker: Any = make(here)
            succeed(breaker)
            taken = list(breaker._bound().memo.tickets)
            assert len(taken) == 63
            if way == "called":
                succeed(breaker)
            else:
                asyncio.run(breaker.acall(answer))
            assert breaker._bound().owed.take(0.0) == []
            assert make(here).status().success_count == 65

    def test_results_that_are_judged_fill_one_after_the_other(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here, failure_if=bool)
        for _ in range(2 * 64 + 1):
            assert breaker.call(int) == 0
        assert (there.status().success_count, commits(there)) == (128, 2)

    def test_a_full_one_of_coroutines(self, here: Runtime, there: CircuitBreaker) -> None:
        breaker = make(here)

        async def one() -> None: ...

        async def work() -> None:
            for _ in range(63):
                await breaker.acall(one)
            assert commits(there) == 0
            async with breaker:
                pass
            assert commits(there) == 1
            for _ in range(64):
                await breaker.acall(one)
            for _ in range(63):
                async with breaker:
                    pass

        asyncio.run(work())
        assert (there.status().success_count, commits(there)) == (128, 2)

    def test_nobody_commits_the_one_of_a_runtime_that_was_closed_meanwhile(
        self, here: Runtime, there: CircuitBreaker
    ) -> None:
        breaker = make(here, "count", window_size=10)  # a row of one

        async def close() -> None:
            here.close()

        async def close_in_a_block() -> None:
            async with breaker:
                here.close()

        for _ in range(2):
            succeed(breaker)
            breaker.call(here.close)
            succeed(breaker)
            asyncio.run(breaker.acall(close))
            asyncio.run(close_in_a_block())
        assert make(here, "count", window_size=10).status().success_count == 4


async def answer() -> int:
    return 1


class TestRejections:
    def opened(self, here: Runtime, **settings: Any) -> CircuitBreaker:
        breaker = make(here, failure_threshold=1, **settings)
        fail(breaker)
        return breaker

    def reject(self, breaker: CircuitBreaker, times: int) -> None:
        for _ in range(times):
            with pytest.raises(CircuitOpenError):
                breaker.call(lambda: 1)

    def test_they_are_told_at_most_once_a_second(
        self, here: Runtime, there: CircuitBreaker, clock: ManualClock
    ) -> None:
        breaker = self.opened(here)
        before = commits(there)
        for _ in range(10):
            self.reject(breaker, 7)
            clock.advance(0.3)
        told = commits(there) - before
        assert 2 <= told <= 3
        assert 50 <= (there.status().rejected_count or 0) < 70
        assert breaker.status().rejected_count == 70
        assert there.status().rejected_count == 70

    @pytest.mark.parametrize("window", ["consecutive", "count"])
    def test_whatever_the_window(self, here: Runtime, window: str) -> None:
        breaker = self.opened(here, window=window)
        self.reject(breaker, 5)
        assert breaker.status().rejected_count == 5

    def test_probes_that_got_no_permit_count(self, here: Runtime, there: CircuitBreaker, clock: ManualClock) -> None:
        breaker = self.opened(here, half_open_max_calls=1, reset_timeout=10)
        clock.advance(10)
        permit = breaker.acquire()
        self.reject(breaker, 4)
        permit.success()
        assert there.status().rejected_count == 4

    def test_the_probe_takes_them_with_it(self, here: Runtime, there: CircuitBreaker, clock: ManualClock) -> None:
        breaker = self.opened(here, reset_timeout=10)
        self.reject(breaker, 4)
        before = commits(there)
        clock.advance(10)
        breaker.acquire()
        assert (there.status().rejected_count, commits(there) - before) == (4, 1)
        assert there.status().state == CircuitState.HALF_OPEN

    def test_they_stay_owed_if_the_lock_cannot_be_had(self, here: Runtime) -> None:
        breaker = self.opened(here)
        storage: Faulty = here.opened.storage
        self.reject(breaker, 3)
        storage.plan("lock", StorageLockTimeout("somebody has it"))
        assert breaker.status().rejected_count == 0
        assert breaker.status().rejected_count == 3


class TestDurations:
    """What is measured of a call, where slow calls are judged."""

    @pytest.fixture
    def breaker(self, here: Runtime) -> CircuitBreaker:
        return make(here, slow_call_rate_threshold=1.0, slow_call_duration=10, minimum_calls=100)

    def slow(self, breaker: CircuitBreaker) -> tuple[int | None, int]:
        status = breaker.status()
        return status.slow_count, status.failure_count

    def test_of_a_function(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        breaker.call(clock.advance, 10)
        assert self.slow(breaker) == (0, 0)
        breaker.call(clock.advance, 11)
        assert self.slow(breaker) == (1, 0)

    def test_of_one_that_fails(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        def failing() -> None:
            clock.advance(11)
            raise ConnectionError

        with pytest.raises(ConnectionError):
            breaker.call(failing)
        assert self.slow(breaker) == (1, 1)

    def test_of_a_block(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        with breaker:
            clock.advance(11)
        assert self.slow(breaker) == (1, 0)

    def test_of_a_permit(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        permit = breaker.acquire()
        clock.advance(11)
        permit.success()
        assert self.slow(breaker) == (1, 0)
        permit = breaker.acquire()
        clock.advance(11)
        permit.failure(duration=2)
        assert self.slow(breaker) == (1, 1)

    def test_of_a_coroutine(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        async def late() -> None:
            clock.advance(11)

        async def work() -> None:
            await late()
            async with breaker:
                clock.advance(11)

        asyncio.run(work())
        assert self.slow(breaker) == (2, 0)

    def test_of_a_task_that_was_cancelled(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        async def hanging() -> None:
            clock.advance(11)
            raise asyncio.CancelledError

        async def work() -> None:
            with pytest.raises(asyncio.CancelledError):
                await breaker.acall(hanging)

        asyncio.run(work())
        assert self.slow(breaker) == (1, 0)

    def test_of_a_generator_the_time_inside_it(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        def items(seconds: float) -> Iterator[int]:
            for item in range(2):
                clock.advance(seconds)
                yield item

        for seconds, slow in ((5, 0), (6, 1)):
            for _ in items(seconds):
                clock.advance(100)
            assert self.slow(breaker) == (slow, 0)

    def test_of_a_generator_that_is_sent_to(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        def talk() -> Generator[int, int, int]:
            try:
                answer = yield 1
            except KeyError:
                clock.advance(6)
                answer = yield 2
            clock.advance(6)
            return answer

        speaker = talk()
        assert next(speaker) == 1
        assert speaker.throw(KeyError("x")) == 2
        with pytest.raises(StopIteration) as end:
            speaker.send(3)
        assert end.value.value == 3
        assert self.slow(breaker) == (1, 0)
        speaker = talk()
        next(speaker)
        speaker.close()  # neutral
        assert self.slow(breaker) == (1, 0)

    def test_of_an_async_generator_the_time_inside_it(self, breaker: CircuitBreaker, clock: ManualClock) -> None:
        @breaker
        async def items(seconds: float) -> AsyncGenerator[int]:
            for item in range(2):
                clock.advance(seconds)
                try:
                    yield item
                except KeyError:
                    clock.advance(20)

        async def work(seconds: float) -> None:
            async for _ in items(seconds):
                clock.advance(100)

        asyncio.run(work(5))
        assert self.slow(breaker) == (0, 0)
        asyncio.run(work(6))
        assert self.slow(breaker) == (1, 0)

        async def throw() -> None:
            generator = items(1)
            await anext(generator)
            await generator.athrow(KeyError("x"))
            await generator.aclose()

        asyncio.run(throw())
        assert self.slow(breaker) == (1, 0)


@pytest.mark.parametrize(("seconds", "slow"), [(0.6, 1), (7.0, 0)])
def test_a_coroutine_that_was_slow_or_outlived_its_bucket_is_counted_as_what_it_was(
    seconds: float, slow: int, clock: ManualClock
) -> None:
    settings: dict[str, Any] = {"slow_call_rate_threshold": 1.0, "slow_call_duration": 0.5} if slow else {}
    with Runtime(storage="memory:", clock=clock):
        breaker = CircuitBreaker("payments", window="time", gather=5, minimum_calls=100, **settings)

        @breaker
        async def call(lasting: float) -> None:
            clock.advance(lasting)

        async def work() -> None:
            for lasting in (0.0, 0.0, seconds):
                await call(lasting)

        asyncio.run(work())
        status = breaker.status()
        assert (status.success_count, status.slow_count, status.failure_count) == (3, slow, 0)


class TestManyKeys:
    """Breakers of hosts or tenants come and go; what the process keeps of them does not grow with them."""

    KEYS = 40

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"awaited:{tmp_path}"

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("resilience.engine.MOST_KEYS", 5)

    @staticmethod
    def kept() -> int:
        gc.collect()
        return sum(isinstance(thing, Owed) for thing in gc.get_objects())

    @pytest.mark.parametrize("way", ["called", "awaited"])
    def test_those_that_nobody_uses_are_let_go_of_and_what_they_owe_is_committed(
        self, here: Runtime, process: Callable[[], Runtime], clock: ManualClock, way: str
    ) -> None:
        tenants = CircuitBreaker.family("tenants", max_guards=3, runtime=here, window="time", window_duration="1h")

        async def answer() -> int:
            return 1

        async def calls() -> None:
            for tenant in range(self.KEYS):
                clock.advance(5)
                if way == "called":
                    tenants[str(tenant)].call(lambda: 1)
                else:
                    await tenants[str(tenant)].acall(answer)

        before = self.kept()
        asyncio.run(calls())
        assert self.kept() - before < 25
        elsewhere = CircuitBreaker.family("tenants", runtime=process(), window="time", window_duration="1h")
        counts = [elsewhere[str(tenant)].status().success_count for tenant in range(self.KEYS)]
        assert counts[:15] == [1] * 15

    def test_those_that_are_in_use_are_kept(self, here: Runtime, clock: ManualClock) -> None:
        tenants = CircuitBreaker.family("tenants", runtime=here, window="count")
        before = self.kept()
        for call in range(30):
            clock.advance(5)
            tenants[str(call % 10)].call(lambda: 1)
        assert self.kept() - before == 10

    def test_three_are_looked_at_each_time_and_let_go_of_after_a_minute(
        self, here: Runtime, clock: ManualClock
    ) -> None:
        tenants = CircuitBreaker.family("tenants", runtime=here, window="count")
        before = self.kept()

        def kept_after(seconds: float, tenant: int) -> int:
            clock.advance(seconds)
            succeed(tenants[str(tenant)])
            here.opened.engine.settle_all()
            return self.kept() - before

        for tenant in range(10):
            succeed(tenants[str(tenant)])
        assert kept_after(30, 0) == 10  # 0, 1 and 2 were looked at, and used not long ago
        assert kept_after(30, 1) == 7  # 3, 4 and 5

    @pytest.mark.parametrize("way", ["called", "awaited"])
    def test_while_there_are_few_all_are_kept(self, here: Runtime, clock: ManualClock, way: str) -> None:
        tenants = CircuitBreaker.family("tenants", runtime=here, window="count")
        before = self.kept()

        async def answer() -> int:
            return 1

        async def calls() -> None:
            for tenant in "01234000":
                if way == "called":
                    succeed(tenants[tenant])
                else:
                    await tenants[tenant].acall(answer)
                if tenant == "0":
                    here.opened.engine.settle_all()
                    clock.advance(61)

        asyncio.run(calls())
        assert self.kept() - before == 5

    def test_one_whose_lock_could_not_be_had_is_kept(self, here: Runtime, clock: ManualClock) -> None:
        probed = CircuitBreaker("probed", runtime=here, failure_threshold=1, reset_timeout=1)
        probed.record_failure()
        clock.advance(1)
        late = StorageLockTimeout("somebody else has the lock", key=Key("circuit_breaker", "probed"))
        storage = here.opened.storage
        assert isinstance(storage, Faulty)
        storage.plan("lock", late)
        assert not probed.check()
        tenants = CircuitBreaker.family("tenants", runtime=here, window="count")
        for tenant in range(20):
            clock.advance(61)
            succeed(tenants[str(tenant)])
        storage.plan("lock", late)
        assert probed.check(), "the second time-out in a row is an outage, in which a private copy decides"

    def test_in_an_outage_nothing_is_asked_for_their_sake(self, here: Runtime, clock: ManualClock) -> None:
        asked: list[str] = []

        def down(_: object, key: Key, __: float) -> AbstractContextManager[None]:
            asked.append(key.name)
            raise StorageUnavailable("the storage is down")

        tenants = CircuitBreaker.family("tenants", runtime=here, window="time", window_duration="1h", gather=60)
        for tenant in range(7):
            succeed(tenants[str(tenant)])
        clock.advance(61)
        here.opened.storage.always = {"lock": down}
        for _ in range(3):
            tenants["6"].record_failure()
            clock.advance(1)
            succeed(tenants["6"])
        assert set(asked) == {"tenants:6"}

    def test_what_cannot_be_committed_is_owed_for_as_long_as_it_takes(self, here: Runtime, clock: ManualClock) -> None:
        storage = here.opened.storage
        late = StorageLockTimeout("somebody else has it", key=Key("circuit_breaker", "tenants:0"))
        tenants = CircuitBreaker.family("tenants", max_guards=3, runtime=here, failure_threshold=5)
        storage.plan("lock", late)
        fail(tenants["0"])
        for tenant in range(1, self.KEYS):
            clock.advance(5)
            with pytest.raises(ConnectionError):
                tenants[str(tenant)].call(_raise)
        assert tenants["0"].status().failure_count == 1


def _raise() -> None:
    raise ConnectionError


class TestInterrupted:
    """A signal handler that uses a breaker in the middle of the same thread's work at it; here at each line of it."""

    def test_a_handler_neither_waits_for_ever_nor_counts_twice(self, clock: ManualClock) -> None:
        places: set[tuple[str, int]] = set()

        def trace(frame: FrameType, event: str, argument: object) -> Any:
            place = frame.f_code.co_qualname, frame.f_lineno
            if frame.f_code.co_filename != gather.__file__ or event not in {"call", "line"}:
                return None
            if event == "line" and place not in places:
                places.add(place)
                sys.settrace(None)
                handle()
                sys.settrace(trace)
            return trace

        with Runtime(storage="memory:", clock=clock, environ={}) as runtime:
            breaker = CircuitBreaker("interrupted", runtime=runtime, window="time", failure_threshold=1000)
            calls = 0

            def handle() -> None:
                nonlocal calls
                breaker.call(int)
                breaker.status()
                calls += 1

            before = sys.gettrace()
            try:
                for number in range(200):
                    sys.settrace(trace)
                    breaker.call(int)
                    if number % 50 == 0:
                        breaker.status()
                        breaker.record_failure()
                        breaker.record_success()
                        calls += 1
                    sys.settrace(before)
                    calls += 1
            finally:
                sys.settrace(before)
            status = breaker.status()
            assert all(
                any(name in place for place, _ in places) for name in ("take", "enter", "gather", "renew", "close")
            )
            assert (status.success_count, status.failure_count) == (calls, 4)

    def test_who_comes_in_the_middle_finds_nothing_to_take_and_nowhere_to_gather(self) -> None:
        other = Report(2.0, 0, "success", 2.0, 2, None, None)
        found: list[object] = []

        class Interrupted(Report):
            def copy(self, count: int | None = None) -> Report:
                found.extend((owed.take(5.0), owed.gather(other, 6.0, 64), [*owed.enter(Row(other, 6.0, 64)).tickets]))
                return super().copy(count)

        owed = owed_by_nobody()
        row = owed.enter(Row(Interrupted(1.0, 0, "success", 1.0, 1, None, None), 6.0, 64))
        assert next(row.tickets)
        assert [event.count for event in owed.take(5.0)] == [1]
        assert found == [[], False, []]
        assert owed.take(5.0) == []
