"""Machines whose clocks are wrong, on a storage that tells its server's time: they agree, and nobody holds anybody."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from storages import Recorder

from resilience import (
    Capability,
    CircuitBreaker,
    CircuitOpenError,
    CircuitState,
    Key,
    Runtime,
    Snapshot,
    StorageUnavailable,
    Version,
    hookimpl,
)
from resilience.sharedclock import MOST_DRIFT, TELL_EVERY, SharedClock
from resilience.testing import ManualClock
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

HOURS = 3600.0
SERVER = 2_000_000_000.0
"""Wall-clock seconds of the server when a test begins."""


class Server:
    """A server with a clock of its own, that holds records in memory."""

    def __init__(self) -> None:
        self.clock = ManualClock(SERVER)
        self.memory = MemoryStorage("memory:")
        self.machines: list[Machine] = []
        self.tells_time = True
        self.is_down = False

    def machine(self, off_by: float = 0.0, rate: float = 1.0, **settings: Any) -> Machine:
        machine = Machine(self, off_by, rate, settings)
        self.machines.append(machine)
        return machine

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for machine in self.machines:
            machine.clock.advance(seconds * machine.rate)


class Client:
    """What one machine has of the storage."""

    Settings = None
    capabilities = frozenset({Capability.INLINE, Capability.PUSH})

    def __init__(self, server: Server) -> None:
        self.server = server
        self.delays = (0.0, 0.0)
        """Seconds until a request arrives, and until its answer is back."""
        self.connecting = 0.0
        """Seconds that the first request takes longer to arrive."""
        self.nonsense: Any = None

    def _answer(self, snapshot: Snapshot) -> Snapshot:
        going, coming = self.delays
        self.server.advance(going + self.connecting)
        self.connecting = 0.0
        time = self.server.clock.wall() if self.server.tells_time else None
        self.server.advance(coming)
        if self.server.is_down:
            raise StorageUnavailable("the server is down")
        return Snapshot(snapshot.payload, snapshot.version, snapshot.is_current, self.nonsense or time)

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return self._answer(self.server.memory.resilience_load(key, timeout))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self._answer(self.server.memory.resilience_save(key, payload, expected, expires_at, timeout))

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        return self.server.memory.resilience_lock(key, timeout)


class AwaitedClient(Client):
    """The same, awaited."""

    capabilities: frozenset[Capability] = frozenset()

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        await asyncio.sleep(0)
        return self.resilience_load(key, timeout)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        await asyncio.sleep(0)
        return self.resilience_save(key, payload, expected, expires_at, timeout)


class Machine:
    """A machine with one process and one breaker; its clock is off, and goes at a rate of its own."""

    client_type = Client

    def __init__(self, server: Server, off_by: float, rate: float, settings: dict[str, Any]) -> None:
        self.clock = ManualClock(SERVER + off_by)
        self.rate = rate
        self.told = Recorder()
        self.client = self.client_type(server)
        self.runtime = Runtime(storage=self.client, clock=self.clock, observers=[self.told])
        chosen: dict[str, Any] = {"failure_threshold": 1, "reset_timeout": 60, "half_open_success_threshold": 1}
        self.breaker = CircuitBreaker("payments", runtime=self.runtime, **(chosen | settings))

    def call(self) -> str:
        try:
            return self.breaker.call(lambda: "let in")
        except CircuitOpenError:
            return "rejected"

    def fail(self) -> None:
        def failing() -> None:
            raise KeyError("the dependency")

        with pytest.raises(KeyError):
            self.breaker.call(failing)

    @property
    def skews(self) -> list[float]:
        return [event.data["seconds"] for event in self.told.events if event.name == "clock_skew"]  # type: ignore[misc]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    for machine in server.machines:
        machine.runtime.close()


OFF = [-10 * 365 * 24 * HOURS, -3 * HOURS, -2.0, 0.0, 2.0, 3 * HOURS]


class TestMachinesThatAreOff:
    @pytest.mark.parametrize("off_by", OFF)
    def test_one_opens_and_all_go_by_the_time_of_the_server(self, server: Server, off_by: float) -> None:
        wrong, right = server.machine(off_by), server.machine()
        wrong.fail()
        status = right.breaker.status()
        assert (status.state, status.last_failure_time, status.retry_after) == (CircuitState.OPEN, SERVER, 60)
        server.advance(59.9)
        assert (right.call(), wrong.call()) == ("rejected", "rejected")
        server.advance(0.1)
        assert right.call() == "let in"
        assert (right.breaker.status().state, wrong.breaker.status().state) == (CircuitState.CLOSED,) * 2

    @pytest.mark.parametrize("off_by", OFF)
    def test_it_lets_its_probe_in_when_the_time_is_up_on_the_server(self, server: Server, off_by: float) -> None:
        wrong, right = server.machine(off_by), server.machine()
        right.fail()
        assert wrong.call() == "rejected"
        server.advance(59.9)
        assert wrong.call() == "rejected"
        server.advance(0.1)
        assert wrong.call() == "let in"
        assert right.breaker.status().state is CircuitState.CLOSED

    def test_without_the_time_of_the_server_a_machine_that_is_ahead_lets_its_calls_in_at_once(
        self, server: Server
    ) -> None:
        server.tells_time = False
        wrong, right = server.machine(3 * HOURS), server.machine()
        right.fail()
        assert wrong.call() == "let in"

    @pytest.mark.parametrize("jump", [-24 * HOURS, 24 * HOURS])
    def test_a_clock_that_is_set_while_open_changes_nothing(self, server: Server, jump: float) -> None:
        machine, other = server.machine(), server.machine()
        machine.fail()
        server.advance(30)
        machine.clock.jump_wall(jump)
        assert machine.call() == "rejected"
        assert machine.breaker.status().retry_after == 30
        server.advance(29.9)
        assert (machine.call(), other.call()) == ("rejected", "rejected")
        server.advance(0.1)
        assert machine.call() == "let in"

    @pytest.mark.parametrize("rate", [1 - MOST_DRIFT / 2, 1 + MOST_DRIFT / 2])
    def test_a_clock_that_drifts_for_a_day_is_set_right_by_each_answer(self, server: Server, rate: float) -> None:
        machine = server.machine(rate=rate)
        for _ in range(24):
            machine.call()
            server.advance(HOURS)
        machine.fail()
        assert machine.breaker.status().last_failure_time == pytest.approx(server.clock.wall(), abs=0.001)
        assert abs(machine.clock.wall() - server.clock.wall()) > 10

    def test_the_first_word_of_a_machine_is_dated_by_the_server(self, server: Server) -> None:
        behind = server.machine(-3 * HOURS, window="time", failure_threshold=2)
        behind.breaker.record_failure()
        behind.breaker.record_failure()
        assert behind.breaker.status().state is CircuitState.OPEN

    @pytest.mark.parametrize("way", ["called", "recorded", "awaited"])
    def test_however_long_it_took_to_connect(self, server: Server, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
        if way == "awaited":
            monkeypatch.setattr(Machine, "client_type", AwaitedClient)
        machine = server.machine(-3 * HOURS)
        machine.client.connecting = 0.8
        if way == "called":
            machine.fail()
        elif way == "recorded":
            machine.breaker.record_failure()
        else:

            async def failing() -> None:
                raise KeyError("the dependency")

            with pytest.raises(KeyError):
                asyncio.run(machine.breaker.acall(failing))
        opened_at = server.machine().breaker.status().opened_at
        assert opened_at is not None
        assert 0 <= opened_at - server.clock.wall() <= 0.02

    def test_so_is_a_success(self, server: Server) -> None:
        behind = server.machine(-3 * HOURS, window="time", failure_threshold=2)
        behind.breaker.record_success()
        assert behind.breaker.status().success_count == 1

    def test_a_failure_that_waits_for_an_answer_keeps_its_own_time(self, server: Server) -> None:
        machine = server.machine(failure_threshold=9)
        machine.call()
        server.advance(0.5)
        machine.client.delays = (2.0, 0.0)
        # A guard that has seen nothing yet loads under the lock.
        CircuitBreaker("payments", runtime=machine.runtime, failure_threshold=9).record_failure()
        assert machine.breaker.status().last_failure_time == SERVER + 0.5

    def test_so_does_a_success(self, server: Server) -> None:
        machine = server.machine(window="time", failure_threshold=9)
        machine.call()
        server.advance(54)
        machine.client.delays = (6.0, 0.0)
        machine.breaker.record_success()
        machine.client.delays = (0.0, 0.0)
        server.advance(53)  # a minute after the bucket that it ended in
        assert machine.breaker.status().success_count == 0

    def test_what_is_done_by_hand_lasts_by_the_time_of_the_server(self, server: Server) -> None:
        ahead, right = server.machine(3 * HOURS), server.machine()
        ahead.breaker.force_open(60)
        server.advance(59.9)
        assert (ahead.call(), right.call()) == ("rejected", "rejected")
        server.advance(0.1)
        assert right.call() == "let in"

    def test_the_server_is_replaced_by_one_whose_clock_is_behind(self, server: Server) -> None:
        machine, other = server.machine(), server.machine()
        machine.fail()
        server.clock.jump_wall(-HOURS)
        server.advance(1)
        assert (machine.call(), other.call()) == ("rejected", "rejected")
        server.advance(60)  # not one span more than that
        assert other.call() == "let in"


class TestAwaited:
    def test_machines_that_are_off_agree(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Machine, "client_type", AwaitedClient)
        wrong, right = server.machine(3 * HOURS), server.machine()

        async def call(machine: Machine, *, fails: bool = False) -> str:
            async def dependency() -> str:
                if fails:
                    raise KeyError("the dependency")
                return "let in"

            try:
                return await machine.breaker.acall(dependency)
            except CircuitOpenError:
                return "rejected"
            except KeyError:
                return "failed"

        async def main() -> list[str]:
            answers = [await call(right, fails=True), await call(wrong)]
            server.advance(59.9)
            answers.append(await call(wrong))
            server.advance(0.1)
            return [*answers, await call(wrong)]

        assert asyncio.run(main()) == ["failed", "rejected", "rejected", "let in"]
        assert right.breaker.status().state is CircuitState.CLOSED


class TestOutage:
    @pytest.mark.parametrize("off_by", [-3 * HOURS, 3 * HOURS])
    def test_the_private_copy_goes_on_by_the_time_that_was_known_last(self, server: Server, off_by: float) -> None:
        machine = server.machine(off_by)
        machine.fail()
        server.is_down = True
        server.advance(30)
        machine.clock.jump_wall(-off_by / 2)
        assert machine.call() == "rejected"
        assert machine.breaker.status().degraded
        server.advance(29.9)
        assert machine.call() == "rejected"
        server.advance(0.1)
        assert machine.call() == "let in"

    @pytest.mark.parametrize("off_by", [-3 * HOURS, 3 * HOURS])
    def test_whoever_is_rejected_meanwhile_is_told_when_to_come_back(self, server: Server, off_by: float) -> None:
        machine = server.machine(off_by)
        machine.call()
        server.is_down = True
        machine.fail()
        for left in (60.0, 59.5, 59.0):
            for admit in (machine.breaker(lambda: None), machine.breaker.acquire, machine.breaker.__enter__):
                with pytest.raises(CircuitOpenError) as rejected:
                    admit()
                assert rejected.value.retry_after == pytest.approx(left)
            server.advance(0.5)

    @pytest.mark.parametrize("off_by", [-3 * HOURS, 3 * HOURS])
    @pytest.mark.parametrize(("later", "failures"), [(0, 3), (9.1, 2), (10.5, 4)])
    def test_what_is_gathered_meanwhile_has_its_time(
        self, server: Server, off_by: float, later: float, failures: int
    ) -> None:
        # So many failures are half of what stands in the window then: with all three successes, with those two of them
        # that are of the second bucket, and with none, where the fourth is the first to be judged.
        settings: dict[str, Any] = {
            "failure_threshold": None,
            "window": "time",
            "window_duration": 10,
            "minimum_calls": 4,
        }
        machine = server.machine(off_by, gather=60, **settings)
        machine.call()
        server.is_down = True
        server.advance(10.5)  # so it is asked again, and what was gathered before has left the window
        assert machine.call() == "let in"
        server.advance(0.6)
        assert [machine.call(), machine.call()] == ["let in"] * 2
        server.advance(later)
        for _ in range(failures):
            machine.fail()
        assert machine.call() == "rejected"
        assert machine.told.moves == [("closed", "open")]

    @pytest.mark.parametrize("off_by", [-3 * HOURS, 3 * HOURS])
    def test_the_server_is_asked_again_as_soon_as_it_may_be(self, server: Server, off_by: float) -> None:
        machine = server.machine(off_by)
        machine.call()
        server.is_down = True
        server.advance(1.1)
        assert machine.call() == "let in"
        server.advance(0.5)
        machine.fail()
        assert machine.call() == "rejected"
        server.is_down = False
        server.advance(0.8)
        assert machine.call() == "let in"

    def test_a_machine_that_never_met_the_server_goes_by_its_own_clock(self, server: Server) -> None:
        server.is_down = True
        machine = server.machine(3 * HOURS)
        machine.fail()
        assert machine.breaker.status().last_failure_time == SERVER + 3 * HOURS
        assert machine.call() == "rejected"
        server.is_down = False
        server.advance(1)
        assert machine.call() == "let in"  # by the shared record, which nobody has failed in
        machine.fail()
        assert machine.breaker.status().last_failure_time == SERVER + 1


class TestTold:
    @pytest.mark.parametrize("off_by", [-3 * HOURS, 2.0])
    def test_a_clock_that_is_off_is_told_once_an_hour(self, server: Server, off_by: float) -> None:
        machine = server.machine(off_by)
        for _ in range(3):
            machine.call()
            server.advance(1)
        assert machine.skews == [off_by]
        (event,) = machine.told.events
        assert (event.key, event.data["storage"]) == (None, "Client")
        server.advance(TELL_EVERY)
        machine.call()
        assert machine.skews == [off_by] * 2

    def test_one_that_was_set_right_is_told_again_when_it_is_off_again(self, server: Server) -> None:
        machine = server.machine()
        for jump in (5, -5, -5):
            machine.clock.jump_wall(jump)
            server.advance(1)
            machine.call()
        assert machine.skews == [5, -5]

    def test_a_clock_that_is_well_set_is_not_told(self, server: Server) -> None:
        machine = server.machine(0.9)
        machine.call()
        assert machine.told.events == []

    def test_a_slow_answer_says_little_of_the_clock(self, server: Server) -> None:
        machine = server.machine(1.5)
        machine.client.delays = (1.0, 0.0)
        machine.call()
        assert machine.skews == []


class TestNonsense:
    @pytest.mark.parametrize("time", [float("nan"), float("inf"), -1, 1e300, "noon", b"1"])
    def test_a_time_that_is_none_is_a_fault_of_the_storage(self, server: Server, time: object) -> None:
        machine = server.machine()
        machine.client.nonsense = time
        assert machine.call() == "let in"
        (event,) = machine.told.events
        assert event.name == "degraded"
        assert "storage Client: a snapshot has the time" in str(event.data["error"])


@pytest.mark.parametrize("seed", range(20))
def test_two_machines_agree_to_within_their_best_answers(seed: int) -> None:
    """What the docs promise, for answers that take anything from 1 to 250 ms, and clocks that drift."""
    chance = random.Random(seed)
    server = Server()
    machines = [server.machine(chance.uniform(-HOURS, HOURS), 1 + chance.uniform(-1, 1) * MOST_DRIFT) for _ in "ab"]
    clocks = [SharedClock(machine.clock, "test") for machine in machines]
    bounds = [float("inf")] * 2
    for _ in range(200):
        index = chance.randrange(2)
        passed = chance.uniform(0, 2)
        server.advance(passed)
        sent = machines[index].clock.monotonic()
        going, coming = (chance.choice([0.001, 0.01, 0.25]) * chance.random() for _ in "ab")
        server.advance(going)
        time = server.clock.wall()
        server.advance(coming)
        clocks[index].learn(time, sent)
        bounds = [bound + (passed + going + coming) * 2 * MOST_DRIFT for bound in bounds]
        bounds[index] = min(bounds[index], (going + coming) * (1 + MOST_DRIFT))
        for clock, bound in zip(clocks, bounds, strict=True):
            if clock.is_agreed:
                assert abs(clock.wall() - server.clock.wall()) <= bound
