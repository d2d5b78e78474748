"""Configuration that changes while the program runs: from the next call on, and the state stays."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from storages import Recorder

from resilience import CircuitBreaker, CircuitOpenError, ConfigurationError, Runtime
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path


class Program:
    """A runtime with a configuration file, and what its observers were told."""

    def __init__(self, path: Path, environ: dict[str, str], runtime: Runtime, clock: ManualClock, told: Any) -> None:
        self.path = path
        self.environ = environ
        self.runtime = runtime
        self.clock = clock
        self.told = told

    def say(self, text: str) -> None:
        """Replace the file, as a careful editor does; it gets another inode each time."""
        new = self.path.with_suffix(".new")
        new.write_text(text, "utf-8")
        new.replace(self.path)

    def events(self, beginning: str = "configuration") -> list[tuple[str, dict[str, object]]]:
        return [(event.name, dict(event.data)) for event in self.told.events if event.name.startswith(beginning)]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    path = tmp_path / "resilience.toml"
    path.write_text("[circuit_breaker]\nfailure_threshold = 5\n")
    environ = {"RESILIENCE_CONFIG": str(path), "RESILIENCE_STORAGE": f"file://{tmp_path}/one"}
    environ["XDG_STATE_HOME"] = str(tmp_path)
    clock, told = ManualClock(), Recorder()
    with Runtime(environ=environ, clock=clock, observers=[told]) as runtime:
        yield Program(path, environ, runtime, clock, told)


def one() -> int:
    return 1


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.record_failure(TimeoutError())


def test_reload_applies_from_the_next_call_on_and_keeps_the_streak(program: Program) -> None:
    breaker = CircuitBreaker("a")
    fail(breaker, 2)
    program.say("[circuit_breaker]\nfailure_threshold = 3\n")
    program.runtime.reload()
    assert breaker.status().failure_count == 2
    fail(breaker)
    assert breaker.status().state == "open"
    assert program.events() == [("configuration_reloaded", {"file": str(program.path), "reopened": False})]


def test_variables_are_read_again(program: Program) -> None:
    breaker = CircuitBreaker("a")
    fail(breaker, 2)
    program.environ["RESILIENCE_POLICIES__A__CIRCUIT_BREAKER__FAILURE_THRESHOLD"] = "3"
    program.runtime.reload()
    fail(breaker)
    assert breaker.status().state == "open"


def test_a_window_keeps_what_stands_in_it(program: Program) -> None:
    breaker = CircuitBreaker("a", window="count", window_size=20, minimum_calls=4)
    call = breaker(one)
    for _ in range(3):
        call()
    program.say("[policies.a.circuit_breaker]\nfailure_rate_threshold = 0.25\n")
    program.runtime.reload()
    status = breaker.status()
    assert (status.success_count, status.failure_count) == (3, 0)
    fail(breaker)
    assert breaker.status().state == "open"


def test_a_touched_file_is_noticed_within_a_second(program: Program) -> None:
    breaker = CircuitBreaker("a")
    call = breaker(one)
    call()
    program.say("[circuit_breaker]\nfailure_threshold = 1\n")
    program.clock.advance(1.1)
    assert program.events() == []
    call()
    assert program.events() == [("configuration_reloaded", {"file": str(program.path), "reopened": False})]
    fail(breaker)
    with pytest.raises(CircuitOpenError):
        call()


def test_who_only_reports_notices_it_too(program: Program) -> None:
    breaker = CircuitBreaker("a")
    fail(breaker)
    program.say("[circuit_breaker]\nfailure_threshold = 3\n")
    program.clock.advance(1.1)
    fail(breaker)
    assert program.events() == [("configuration_reloaded", {"file": str(program.path), "reopened": False})]
    fail(breaker)
    assert breaker.status().state == "open"


def test_who_only_reports_from_a_coroutine_notices_it_too(program: Program) -> None:
    breaker = CircuitBreaker("a")
    permits = [breaker.acquire(), breaker.acquire()]
    asyncio.run(permits[0].areport("failure", "OSError", None))
    program.say("[circuit_breaker]\nfailure_threshold = 3\n")
    program.clock.advance(1.1)
    asyncio.run(permits[1].areport("failure", "OSError", None))
    assert [name for name, _ in program.events()] == ["configuration_reloaded"]


def test_the_file_is_looked_at_once_a_second(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    stat = os.stat

    def counted(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if path == str(program.path):
            looks.append(path)
        return stat(path, *arguments, **more)

    breaker = CircuitBreaker("a")
    call = breaker(one)
    call()
    monkeypatch.setattr(os, "stat", counted)
    for _ in range(30):
        call()
        breaker.check()
        program.clock.advance(0.1)
    assert 2 <= len(looks) <= 4


def test_a_file_that_may_be_written_still_is_left_for_later(program: Program) -> None:
    call = CircuitBreaker("a")(one)
    call()
    program.clock.advance(1.1)
    program.say("")
    os.utime(program.path, (program.clock.wall(), program.clock.wall() - 0.1))
    call()
    assert program.events() == []
    program.clock.advance(0.1)
    call()
    assert program.events() == []
    program.clock.advance(1)
    call()
    assert [name for name, _ in program.events()] == ["configuration_reloaded"]


def test_without_a_file_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    with Runtime(storage="memory:", environ={}, clock=clock) as runtime:
        call = CircuitBreaker("a")(one)
        call()

        def look(*_: object) -> None:
            raise AssertionError("looked")

        monkeypatch.setattr(Runtime, "_look", look)
        clock.advance(5)
        assert call() == 1
        assert runtime.configuration.file is None


async def aone() -> int:
    return 1


def test_coroutines_notice_it_too(program: Program) -> None:
    breaker = CircuitBreaker("a")
    asyncio.run(breaker.acall(aone))
    program.say("[circuit_breaker]\nfailure_threshold = 1\n")
    program.clock.advance(1.1)
    asyncio.run(breaker.acall(aone))
    assert [name for name, _ in program.events()] == ["configuration_reloaded"]


BROKEN = {
    "no TOML": "[circuit_breaker\n",
    "a key that nothing knows": "[circuit_breaker]\nfailure_treshold = 1\n",
    "a value that cannot be": "[circuit_breaker]\nfailure_threshold = 0\n",
    "a contradiction to the code": "[circuit_breaker]\nminimum_calls = 50\n",
    "no such storage": 'storage = "nowhere:"\n',
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_changes_nothing_and_is_told_once(program: Program, text: str) -> None:
    breaker = CircuitBreaker("a", window="count", window_size=10, failure_threshold=2)
    call = breaker(one)
    call()
    if "storage" in text:
        del program.environ["RESILIENCE_STORAGE"]
    before = program.runtime.configuration
    program.say(text)
    for _ in range(5):
        program.clock.advance(1.1)
        assert call() == 1
    ((name, data),) = program.events()
    assert (name, data["file"]) == ("configuration_rejected", str(program.path))
    assert data["error"]
    assert program.runtime.configuration is before
    with pytest.raises(ConfigurationError) as caught:
        program.runtime.reload()
    assert str(caught.value) == data["error"]
    assert len(program.events()) == 1
    fail(breaker, 2)
    assert breaker.status().state == "open"
    program.say("[circuit_breaker]\n")
    program.clock.advance(1.1)
    breaker.check()
    assert [name for name, _ in program.events()] == ["configuration_rejected", "configuration_reloaded"]


def test_a_file_that_is_gone_for_a_while(program: Program) -> None:
    call = CircuitBreaker("a")(one)
    call()
    text = program.path.read_text()
    program.path.unlink()
    program.clock.advance(1.1)
    call()
    assert "cannot be read: No such file" in str(program.events()[0][1]["error"])
    program.say(text)
    program.clock.advance(1.1)
    call()
    assert [name for name, _ in program.events()] == ["configuration_rejected", "configuration_reloaded"]


def test_a_warning_that_is_an_error_refuses_the_file_and_no_call(program: Program) -> None:
    call = CircuitBreaker("a")(one)
    call()
    program.say('unknown = "warn"\nzzz = 1\n')
    program.clock.advance(1.1)
    assert call() == 1
    ((name, data),) = program.events()
    assert name == "configuration_rejected"
    assert str(data["error"]).startswith("ConfigurationWarning: ")


def test_calls_that_are_under_way_report_as_ever(program: Program) -> None:
    breaker = CircuitBreaker("a", reset_timeout=1, half_open_max_calls=1, half_open_success_threshold=1)
    fail(breaker, 5)
    program.clock.advance(2)
    probe = breaker.acquire()
    program.say("[circuit_breaker]\nfailure_threshold = 4\n")
    program.runtime.reload()
    with pytest.raises(CircuitOpenError):
        breaker.acquire()
    probe.success()
    assert breaker.status().state == "closed"


def test_what_was_gathered_is_committed(program: Program) -> None:
    breaker = CircuitBreaker("a", window="count", gather=60)
    call = breaker(one)
    for _ in range(5):
        call()
    program.runtime.reload()
    with Runtime(environ=program.environ, clock=program.clock):
        assert CircuitBreaker("a", window="count").status().success_count == 5


def test_measuring_begins_when_slow_calls_are_judged(program: Program) -> None:
    breaker = CircuitBreaker("a", window="count", minimum_calls=2)

    @breaker
    def slow() -> None:
        program.clock.advance(3)

    slow()
    program.say("[circuit_breaker]\nslow_call_rate_threshold = 0.5\nslow_call_duration = 2\n")
    program.runtime.reload()
    slow()
    assert breaker.status().slow_count == 1


def in_a_call(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    breaker.call(work)


def in_a_coroutine(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async def call() -> None:
        work()

    asyncio.run(breaker.acall(call))


def in_a_block(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    with breaker:
        work()


def in_a_generator(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    def each() -> Iterator[object]:
        yield None
        work()

    list(breaker(each)())


def in_an_async_generator(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    async def each() -> AsyncIterator[object]:
        yield None
        work()

    async def main() -> None:
        async for _ in breaker(each)():
            pass

    asyncio.run(main())


def with_a_permit(breaker: CircuitBreaker, work: Callable[[], object]) -> None:
    permit = breaker.acquire()
    work()
    permit.success()


NOTHING = "[circuit_breaker]\nfailure_threshold = 5\n"
TWO, TEN = (f"[circuit_breaker]\nslow_call_rate_threshold = 1\nslow_call_duration = {limit}\n" for limit in (2, 10))


@pytest.mark.parametrize(
    ("before", "after", "slow"), [(NOTHING, TWO, 0), (TWO, NOTHING, 0), (TEN, TWO, 1), (TWO, TEN, 0)]
)
@pytest.mark.parametrize(
    "use", [in_a_call, in_a_coroutine, in_a_block, in_a_generator, in_an_async_generator, with_a_permit]
)
@pytest.mark.parametrize("calls", [0, 2])  # the first one of a breaker takes another road than those that follow
def test_a_call_that_is_under_way_is_slow_by_the_new_rule_if_it_was_measured_from_its_beginning(
    program: Program, use: Callable[..., None], before: str, after: str, slow: int, calls: int
) -> None:
    program.say(before)
    program.runtime.reload()
    breaker = CircuitBreaker("a", window="count", minimum_calls=2)

    def work() -> None:
        program.say(after)
        program.runtime.reload()
        program.clock.advance(3)

    for _ in range(calls):
        use(breaker, int)
    use(breaker, work)
    status = breaker.status()
    assert (status.success_count, status.failure_count, status.slow_count) == (calls + 1, 0, slow)


def lookup(name: str) -> int:
    return {"a": 1}[name]


def test_judging_and_kin_follow(program: Program) -> None:
    lenient = CircuitBreaker("a").judging(ignore=KeyError)
    lenient.check()
    program.say("[circuit_breaker]\nfailure_threshold = 1\n")
    program.runtime.reload()
    with pytest.raises(KeyError):
        lenient.call(lookup, "x")
    assert lenient.status().failure_count == 0
    with pytest.raises(ZeroDivisionError):
        lenient.call(lambda: 1 // 0)
    assert lenient.status().state == "open"


def test_a_cell_without_a_maker_keeps_its_policy(program: Program) -> None:
    breaker = CircuitBreaker("a")
    breaker.check()
    ((cell, _),) = list(program.runtime._cells)
    bound = program.runtime.bind(cell.key, cell.policy)
    assert program.runtime.remaking(bound)(None) is cell.policy
    program.runtime.reload()
    assert bound.policy is not cell.policy


def test_another_storage_is_opened_anew(program: Program, tmp_path: Path) -> None:
    breaker = CircuitBreaker("a", failure_threshold=1)
    fail(breaker)
    under_way = CircuitBreaker("b").acquire()
    program.environ["RESILIENCE_STORAGE"] = f"file://{tmp_path}/two"
    program.runtime.reload()
    assert breaker.status().state == "closed"
    assert program.runtime.url.endswith("/two")
    assert program.events() == [("configuration_reloaded", {"file": str(program.path), "reopened": True})]
    under_way.failure()  # dropped: nobody shares the state it belongs to
    assert CircuitBreaker("b").status().failure_count == 0
    program.environ["RESILIENCE_STORAGE"] = f"file://{tmp_path}/one"
    program.runtime.reload()
    assert breaker.status().state == "open"


def test_a_touched_file_may_change_the_storage_too(program: Program, tmp_path: Path) -> None:
    del program.environ["RESILIENCE_STORAGE"]
    program.say(f'storage = "file://{tmp_path}/one"\n')
    program.runtime.reload()
    breaker = CircuitBreaker("a", failure_threshold=1)
    call = breaker(one)
    call()
    program.say(f'storage = "file://{tmp_path}/two"\n[file]\nfreshness = "read"\n')
    program.clock.advance(1.1)
    assert call() == 1
    assert call() == 1
    fail(breaker)
    with Runtime(storage=f"file://{tmp_path}/two", environ={}, clock=program.clock) as other:
        assert [key.name for key in other.keys()] == ["a"]  # noqa: SIM118 - no mapping


def test_a_setting_of_the_storage_reopens_it_and_the_state_stays(program: Program) -> None:
    breaker = CircuitBreaker("a", failure_threshold=2)
    fail(breaker)
    program.say('[file]\ndurability = "fsync"\n')
    program.runtime.reload()
    assert program.events()[0][1]["reopened"] is True
    fail(breaker)
    assert breaker.status().state == "open"


def test_times_of_the_core_are_taken_over(program: Program) -> None:
    CircuitBreaker("a").check()
    program.say('storage_timeout = "2s"\n')
    engine = program.runtime.opened.engine
    program.runtime.reload()
    assert program.runtime.opened.engine is engine
    assert program.runtime.timeout == 2
    assert engine._timeout == 2


def test_a_storage_made_by_hand_is_kept(tmp_path: Path) -> None:
    from resilience_memory import MemoryStorage

    storage = MemoryStorage("memory:", None)
    environ = {"RESILIENCE_JOURNAL__ENABLED": "no"}
    with Runtime(storage=storage, environ=environ) as runtime:
        breaker = CircuitBreaker("a", failure_threshold=1)
        fail(breaker)
        environ["RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT"] = "1h"
        runtime.reload()
        assert runtime.opened.storage is storage
        assert breaker.status().state == "open"


def test_reload_before_the_first_use_reads_anew(tmp_path: Path) -> None:
    environ = {"RESILIENCE_STORAGE": "memory:"}
    with Runtime(environ=environ) as runtime:
        assert runtime.configuration.core.storage_timeout == 0.25
        environ["RESILIENCE_STORAGE_TIMEOUT"] = "3"
        runtime.reload()
        assert runtime.timeout == 3
        assert runtime._opened is None


def test_a_file_that_is_named_later_is_looked_at_from_then_on(tmp_path: Path) -> None:
    clock, told, environ = ManualClock(), Recorder(), {"RESILIENCE_STORAGE": "memory:"}
    path = tmp_path / "later.toml"
    with Runtime(environ=environ, clock=clock, observers=[told]) as runtime:
        call = CircuitBreaker("a")(one)
        call()
        path.write_text("")
        environ["RESILIENCE_CONFIG"] = str(path)
        runtime.reload()
        path.write_text("[circuit_breaker]\nfailure_threshold = 1\n")
        clock.advance(1.1)
        call()
        assert [event.data["file"] for event in told.events] == [str(path)] * 2
        del environ["RESILIENCE_CONFIG"]
        runtime.reload()
        assert told.events[-1].data["file"] is None


def test_an_outage_follows_too(program: Program, tmp_path: Path) -> None:
    breaker = CircuitBreaker("a")
    breaker.check()
    folder = tmp_path / "one"
    program.runtime.opened.engine._outages._fuse.blow(program.clock.monotonic(), _down(), 0.0, is_slow=False)
    fail(breaker)
    program.say("[circuit_breaker]\nfailure_threshold = 2\n")
    program.runtime.reload()
    fail(breaker)
    assert breaker.status().state == "open"
    assert breaker.status().degraded
    assert folder.exists()


def _down() -> Any:
    from resilience import StorageUnavailable

    return StorageUnavailable("down")
