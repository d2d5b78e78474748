"""The breaker against a naive second model of it, step by step, through the public API.

`model` is written from the words of the specification alone.  Three breakers of one name, in two runtimes on one
storage, as two processes would be: two with the same settings, one with others.  Hypothesis drives them through calls,
permits, tokens, reports without a token, controls and clock jumps; after each step all three must say what the model
says.  At the end of each run the dependency is healthy and callers arrive: it must close.
"""

from __future__ import annotations

from asyncio import CancelledError
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from storages import Recorder
from unit.circuit_breaker.model import Held, Look, Model, Refused, Rules
from unit.circuit_breaker.player import quiet

from resilience import CircuitBreaker, CircuitOpenError, Runtime
from resilience.testing import ManualClock
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.permits import Permit

SHOWN = [each.name for each in fields(Look)]
START = 1_000_000_000.0


class Clock(ManualClock):
    """Draws no jitter, so that the time of an OPEN is known."""

    def draw(self) -> int:
        return 0


class Ignored(Exception):
    """What the breakers ignore."""


@dataclass
class Taken:
    """A permit, and its counterpart in the model."""

    real: Permit
    model: Held
    who: int
    at: float
    is_reported: bool = False


whos = st.integers(0, 2)
waits = st.sampled_from([0.5, 1.0, 2.0, 4.0, 7.5, 10.0, 30.0, 64.0])
leaps = st.sampled_from([0.5, 3.0, 10.0, 65.0, 4000.0, 1e6])
spans = st.sampled_from([None, 2.0, 20.0])
ERRORS = {"failure": TimeoutError, "ignored": Ignored, "cancelled": CancelledError, "interrupted": KeyboardInterrupt}
outcomes = st.sampled_from(["success", "failure", "failure", "ignored", "cancelled", "interrupted"])


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Settings, small enough that everything happens soon."""
    window = draw(st.sampled_from(["consecutive", "count", "time"]))
    reset = draw(st.sampled_from([0.0, 4.0, 10.0]))
    size = draw(st.integers(1, 6))
    given: dict[str, Any] = {
        "window": window,
        "reset_timeout": reset,
        "reset_timeout_backoff": draw(st.sampled_from([1.0, 2.0, 1.5])),
        "reset_timeout_max": draw(st.sampled_from([None, 10.0, 25.0])),
        "half_open_max_calls": draw(st.sampled_from([1, 2, 3, None])),
        "half_open_success_threshold": draw(st.integers(1, 3)),
        "half_open_failure_threshold": draw(st.integers(1, 2)),
        "permit_timeout": draw(st.sampled_from([None, 2.0, 10.0])),
    }
    if window == "consecutive":
        given["failure_threshold"] = draw(st.sampled_from([None, 1, 2, 3]))
        given["failure_max_age"] = draw(st.sampled_from([4.0, 30.0, 3600.0]))
    else:
        given["failure_rate_threshold"] = draw(st.sampled_from([0.25, 0.5, 0.6, 1.0]))
        given["slow_call_rate_threshold"] = draw(st.sampled_from([None, 0.5, 1.0]))
        given["slow_call_duration"] = draw(st.sampled_from([1.0, 4.0]))
        given["minimum_calls"] = draw(st.integers(1, size if window == "count" else 5))
    if window == "count":
        given["window_size"] = size
        given["failure_threshold"] = draw(st.sampled_from([None, None, *range(1, size + 1)]))
    if window == "time":
        given["window_duration"] = draw(st.sampled_from([10.0, 40.0]))
        given["failure_threshold"] = draw(st.sampled_from([None, None, 2, 4]))
    return Rules(**given)


def arguments(given: Rules) -> dict[str, Any]:
    """The settings as code gives them: those that are not the default."""
    plain = asdict(Rules())
    return {name: value for name, value in asdict(given).items() if value != plain[name]}


class Machine(RuleBasedStateMachine):
    """Drives breakers and model alike."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(START)
        self.model = Model()

    @initialize(ours=rules(), theirs=rules(), same=st.booleans())
    def begin(self, ours: Rules, theirs: Rules, same: bool) -> None:  # noqa: FBT001 - Hypothesis passes it by name
        storage = MemoryStorage("memory:")
        self.recorder = Recorder()
        self.runtimes = [
            Runtime(storage=storage, clock=self.clock, environ={}, observers=[self.recorder]) for _ in range(2)
        ]
        self.given = [ours, ours, ours if same else theirs]
        homes = [self.runtimes[0], self.runtimes[1], self.runtimes[1]]
        self.breakers = [
            CircuitBreaker("it", runtime=home, gather=0, ignore=Ignored, **arguments(given))
            for home, given in zip(homes, self.given, strict=True)
        ]
        self.functions = [breaker(self._protected) for breaker in self.breakers]

    def teardown(self) -> None:
        if hasattr(self, "runtimes"):
            try:
                self._recover()
            finally:
                for runtime in self.runtimes:
                    runtime.close()

    # -- time --------------------------------------------------------------------------------------------------------

    @rule(seconds=waits)
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(who=whos, short=st.sampled_from([0.0, 0.0, 0.5]))
    def wait_as_told(self, who: int, short: float) -> None:
        after = self.breakers[who].status().retry_after
        if after:
            self.clock.advance(max(0.0, after - short))

    @rule(seconds=leaps, forward=st.booleans())
    def jump(self, seconds: float, forward: bool) -> None:  # noqa: FBT001 - Hypothesis passes it by name
        self.clock.jump_wall(seconds if forward else -seconds)

    # -- calls -------------------------------------------------------------------------------------------------------

    @rule(who=whos, ended=outcomes, took=st.sampled_from([0.0, 0.0, 1.0, 1.5, 5.0]))
    def call(self, who: int, ended: str, took: float) -> None:
        expected = self.model.admit(self.given[who], self.clock.wall())
        if self.model.state in {"disabled", "metrics_only"} and self.model.until is not None:
            took = (
                0.0  # whether a success is late that began before the end of the state and ended after it, is not said
            )

        def work() -> None:
            self.clock.advance(took)
            if ended in ERRORS:
                raise ERRORS[ended]

        def perform() -> None:
            try:
                self.functions[who](work)
            except tuple(ERRORS.values()):
                pass

        self._agree(expected, perform)
        if isinstance(expected, Held):
            self._told(who, expected, ended, took)

    @rule(
        who=whos, ended=st.sampled_from([["failure"], ["failure", "failure"], ["success", "failure"], ["success"] * 3])
    )
    def probe(self, who: int, ended: list[str]) -> None:
        """Come when told to, so that phases of probes follow each other."""
        self.wait_as_told(who, 0.0)
        for each in ended:
            self.call(who, each, 0.0)
            self.all_agree()

    @staticmethod
    def _protected(work: Callable[[], None]) -> None:
        work()

    def _told(self, who: int, held: Held | None, ended: str, took: float | None) -> None:
        rules, now = self.given[who], self.clock.wall()
        if ended == "success":
            self.model.report(rules, now, held, "success", duration=took)
        elif ended == "failure":
            self.model.report(rules, now, held, "failure", duration=took, error="TimeoutError")
        elif ended == "cancelled":
            self.model.report(rules, now, held, "cancelled", duration=took)
        else:
            self.model.report(rules, now, held, "neutral")

    # -- permits and tokens ------------------------------------------------------------------------------------------

    @rule(target=permits, who=whos)
    def acquire(self, who: int) -> Any:
        expected = self.model.admit(self.given[who], self.clock.wall())
        got: list[Permit] = []
        self._agree(expected, lambda: got.append(self.breakers[who].acquire()))
        if isinstance(expected, Held):
            return Taken(got[0], expected, who, self.clock.monotonic())
        none: list[Taken] = []
        return multiple(*none)

    @rule(taken=permits, ended=st.sampled_from(["success", "failure", "ignored"]))
    def report_permit(self, taken: Taken, ended: str) -> None:
        if ended == "success":
            taken.real.success()
        elif ended == "failure":
            taken.real.failure("TimeoutError")
        else:
            taken.real.release()
        if not taken.is_reported:  # a permit reports once
            taken.is_reported = True
            self._told(taken.who, taken.model, ended, self.clock.monotonic() - taken.at)

    @rule(
        taken=permits, who=whos, ended=st.sampled_from(["success", "failure"]), took=st.sampled_from([None, 1.0, 5.0])
    )
    def report_token(self, taken: Taken, who: int, ended: str, took: float | None) -> None:
        if ended == "success":
            self.breakers[who].record_success(token=taken.real.token, duration=took)
        else:
            self.breakers[who].record_failure("TimeoutError", token=taken.real.token, duration=took)
        self._told(who, taken.model, ended, took)

    # -- without a token ---------------------------------------------------------------------------------------------

    @rule(who=whos)
    def check(self, who: int) -> None:
        expected = self.model.admit(self.given[who], self.clock.wall(), anonymous=True)
        self._agree(expected, self.breakers[who].admit)

    @rule(who=whos, ended=st.sampled_from(["success", "failure"]), took=st.sampled_from([None, 1.0, 5.0]))
    def record(self, who: int, ended: str, took: float | None) -> None:
        if ended == "success":
            self.breakers[who].record_success(duration=took)
        else:
            self.breakers[who].record_failure("TimeoutError", duration=took)
        self._told(who, None, ended, took)

    @rule(who=whos, ended=st.lists(st.sampled_from(["success", "success", "failure"]), min_size=2, max_size=5))
    def record_some(self, who: int, ended: list[str]) -> None:
        """So that windows fill."""
        for each in ended:
            self.record(who, each, None)
            self.all_agree()

    # -- by hand -----------------------------------------------------------------------------------------------------

    @rule(who=whos, verb=st.sampled_from(["force_open", "disable", "metrics_only"]), seconds=spans)
    def steer(self, who: int, verb: str, seconds: float | None) -> None:
        getattr(self.breakers[who], verb)(seconds, reason=verb)
        self.model.control(verb, self.clock.wall(), seconds=seconds, reason=verb)

    @rule(who=whos, verb=st.sampled_from(["close", "reset"]))
    def steer_back(self, who: int, verb: str) -> None:
        getattr(self.breakers[who], verb)(reason=verb)
        self.model.control(verb, self.clock.wall(), reason=verb)

    # -- what must hold ----------------------------------------------------------------------------------------------

    def _agree(self, expected: Held | Refused, perform: Callable[[], object]) -> None:
        refusal = None
        try:
            perform()
        except CircuitOpenError as error:
            refusal = error
        if isinstance(expected, Held):
            assert refusal is None, f"refused ({refusal}), expected to be let in"
        else:
            assert refusal is not None, f"let in, expected {expected}"
            assert (str(refusal.state), refusal.retry_after) == (expected.state, expected.retry_after)

    @invariant()
    @precondition(lambda self: hasattr(self, "breakers"))
    def all_agree(self) -> None:
        longest = max(given.longest_open for given in self.given)
        for breaker, given in zip(self.breakers, self.given, strict=True):
            status = breaker.status()
            got: dict[str, Any] = {name: getattr(status, name) for name in SHOWN} | {"state": str(status.state)}
            expected = asdict(self.model.look(given, self.clock.wall()))
            differs = {name: (got[name], expected[name]) for name in SHOWN if got[name] != expected[name]}
            assert not differs, f"{breaker!r} with {given}: (got, expected) differ in {differs}; {status}"
            for name in SHOWN:
                assert not name.endswith(("_count", "_rate", "successes", "failures")) or (got[name] or 0) >= 0
            if got["state"] == "open":
                assert 0 <= got["retry_after"] <= longest
            elif got["state"] != "half_open" and got["state"] != "forced_open":
                assert got["retry_after"] == 0

    @invariant()
    @precondition(lambda self: hasattr(self, "breakers"))
    def each_move_and_each_dry_run_is_told_once(self) -> None:
        assert self.recorder.moves == self.model.moves, (self.recorder.moves, self.model.moves)
        told = self.recorder.names.count("would_have_opened")
        assert told == self.model.would_have_opened, f"told {told} times, expected {self.model.would_have_opened}"

    def _recover(self) -> None:
        """The dependency is healthy and callers arrive: it closes, soon."""
        for who, breaker in enumerate(self.breakers):
            status = breaker.status()
            note(f"recovering as {who} from {status!r}")
            if str(status.state) == "forced_open" and status.retry_after is None:
                return  # by hand, until it is taken back by hand
        most = max([given.half_open_success_threshold for given in self.given]) + max(
            given.half_open_max_calls or 1 for given in self.given
        )
        waited = 0.0
        for _ in range(4 * most + 4):
            status = self.breakers[0].status()
            if str(status.state) in {"closed", "disabled", "metrics_only"}:
                break
            wait: float | None = 0.0
            try:
                self.breakers[0].call(int)
            except CircuitOpenError as error:
                wait = error.retry_after or None
            assert wait is not None, "refused, and not told when to come"
            waited += wait
            self.clock.advance(wait)
        else:
            raise AssertionError(f"never closes: {self.breakers[0].status()}")
        longest = max([*(given.longest_open for given in self.given), 20.0])
        assert waited <= longest + 2 * most * max(given.lease for given in self.given)


def drive(examples: int, steps: int, **more: Any) -> None:
    """Run the machine."""
    with quiet():
        # Not explained: that traces every line, and a failure would end in the time-out of the test.
        phases = more.pop("phases", [Phase.generate, Phase.shrink])
        chosen = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=phases,
            database=None,
            report_multiple_bugs=False,
            **more,
        )
        run_state_machine_as_test(Machine, settings=chosen)


def test_the_breaker_does_what_the_naive_model_does() -> None:
    drive(30, 20)


@pytest.mark.heavy
def test_the_breaker_does_what_the_naive_model_does_for_long() -> None:
    drive(300, 40)
