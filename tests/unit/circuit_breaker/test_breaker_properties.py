"""What holds for every trace of events: no dead state, no permit too many, nothing counted twice, no clock trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.circuit_breaker.breaker_driver import Driver

from resilience.policy import FAILURE, FOREVER, NEUTRAL, NOW, SUCCESS, Admit, Lease
from resilience_circuit_breaker._errors import Rejection

if TYPE_CHECKING:
    from resilience.policy import Outcome

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

SPANS = st.sampled_from([0.5, 10.0, 60.0, 3600.0])
CONFIGS = st.fixed_dictionaries(
    {
        "failure_threshold": st.integers(1, 4),
        "failure_max_age": SPANS,
        "reset_timeout": SPANS,
        "reset_timeout_backoff": st.sampled_from([1.0, 2.0, 100.0]),
        "reset_timeout_jitter": st.sampled_from([0.0, 1.0]),
        "half_open_max_calls": st.sampled_from([1, 2, 5]),
        "half_open_success_threshold": st.integers(1, 3),
        "half_open_failure_threshold": st.integers(1, 3),
        "permit_timeout": SPANS,
    }
)
UNLIMITED = CONFIGS.map(lambda config: {**config, "half_open_max_calls": None})
OUTCOMES = st.sampled_from([SUCCESS, FAILURE, NEUTRAL])

ACTS = st.one_of(
    st.tuples(st.just("admit"), st.booleans()),
    st.tuples(st.just("admit"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 30.0, 60.0, 600.0])),
    st.tuples(st.just("wait"), st.sampled_from([-(10**8), -3600.0, -1.0, 3600.0, 10**6])),
    st.tuples(st.just("report"), OUTCOMES, st.integers(0, 20)),
    st.tuples(st.just("report"), OUTCOMES, st.integers(0, 20)),
    st.tuples(st.just("again"), OUTCOMES, st.integers(0, 20)),
    st.tuples(st.just("record"), OUTCOMES),
    st.tuples(st.just("fail"), st.integers(1, 4)),
    st.tuples(st.just("control"), st.sampled_from(["force_open", "disable", "close", "reset"]), st.integers(1, 100)),
)
TRACES = st.lists(st.tuples(st.integers(0, 1), ACTS), max_size=60)


class World:
    """Two processes with their configurations, one record, and the calls that are under way."""

    def __init__(self, *configs: dict[str, Any]) -> None:
        self.processes = [Driver(**config) for config in configs]
        self.record = self.processes[0]
        self.held: list[tuple[int, str | None]] = []
        self.reported: list[tuple[int, str | None]] = []
        self.draw = 0

    def run(self, trace: list[tuple[int, Any]]) -> None:
        for index, act in trace:
            process: Driver = self.processes[index % len(self.processes)]
            self.act(process, act)

    def act(self, process: Driver, act: tuple[Any, ...]) -> None:
        process.state, process.now = self.record.state, self.record.now
        self.record = process
        self.draw = (self.draw * 6364136223846793005 + 1442695040888963407) % 2**64
        process.draw = self.draw
        getattr(self, f"do_{act[0]}")(process, *act[1:])

    def do_admit(self, process: Driver, anonymous: bool) -> None:  # noqa: FBT001
        step = process.admit(anonymous=anonymous)
        if isinstance(step.decision, Rejection):
            assert step.until > process.now
            error = step.decision.error("payments", process.now)
            assert error.retry_after is None or error.retry_after >= 0
        elif isinstance(step.decision, Lease):
            assert step.decision.expires_at > process.now
            if step.decision.token is not None:
                self.held.append((process.state.epoch, step.decision.token))
        else:
            self.held.append((process.state.epoch, None))

    def do_wait(self, process: Driver, seconds: float) -> None:
        process.now += seconds

    def do_report(self, process: Driver, outcome: Outcome, which: int) -> None:
        if self.held:
            epoch, token = self.held.pop(which % len(self.held))
            self.reported.append((epoch, token))
            process.report(outcome, epoch=epoch, token=token)

    def do_again(self, process: Driver, outcome: Outcome, which: int) -> None:
        if self.reported:
            epoch, token = self.reported[which % len(self.reported)]
            if token is not None:  # without one, a guard reports once
                before = process.state
                process.report(outcome, epoch=epoch, token=token)
                assert process.state == before.but(late_count=process.state.late_count)

    def do_record(self, process: Driver, outcome: Outcome) -> None:
        process.report(outcome)

    def do_fail(self, process: Driver, times: int) -> None:
        process.fail(times)

    def do_control(self, process: Driver, verb: str, seconds: float) -> None:
        process.control(verb, seconds=seconds)


@QUICK
@given(CONFIGS, CONFIGS | UNLIMITED, TRACES, st.booleans())
def test_no_dead_state(one: dict[str, Any], two: dict[str, Any], trace: list[Any], by_check: bool) -> None:  # noqa: FBT001
    """From wherever it came to, with callers arriving and a healthy dependency, it closes in bounded time."""
    world = World(one, two)
    world.run(trace)
    process = world.processes[-1]
    process.state, process.now = world.record.state, world.record.now
    if process.state.state in {"forced_open", "disabled"} and process.state.until is None:
        return  # until it is taken back
    waited: list[float] = []
    for _ in range(200):
        if process.state.state == "closed":
            break
        step = process.admit(anonymous=by_check)
        if isinstance(step.decision, Rejection):
            assert step.until < FOREVER
            waited.append(step.until - process.now)
            process.now = step.until
        elif process.state.state == "disabled":
            waited.append(step.until - process.now)
            process.now = step.until
        elif by_check:
            process.report(SUCCESS)
        else:
            token = step.decision.token if isinstance(step.decision, Lease) else None
            process.report(SUCCESS, epoch=process.state.epoch, token=token)
    assert process.state.state == "closed"
    assert len(waited) <= 12, waited


@QUICK
@given(CONFIGS, TRACES)
def test_permits_in_flight_never_exceed_the_limit(config: dict[str, Any], trace: list[Any]) -> None:
    world = World(config, config)
    for act in trace:
        world.run([act])
        state = world.record.state
        assert len(state.probes.permits) <= config["half_open_max_calls"]
        assert world.record.status.permits_in_use <= config["half_open_max_calls"]
        assert len(state.probes.lapsed) <= 64
        assert not set(state.probes.lapsed) & set(state.probes.permits)


@QUICK
@given(CONFIGS, TRACES)
def test_no_more_is_counted_than_was_let_in(config: dict[str, Any], trace: list[Any]) -> None:
    world = World(config, config)
    for act in trace:
        world.run([act])
        probes = world.record.state.probes
        if world.record.state.state == "half_open":
            out = len(probes.permits) + len(probes.lapsed)
            assert probes.successes + probes.failures + out <= probes.next_permit - 1


@QUICK
@given(CONFIGS, TRACES, st.sampled_from([-(10**9), -3601.0, -59.0, -1.0, 0.0, 1.0, 59.0, 3601.0, 10**9]))
def test_no_clock_jump_holds_it_for_more_than_one_more_span(
    config: dict[str, Any], trace: list[Any], jump: float
) -> None:
    world = World(config, config)
    world.run(trace)
    breaker = world.record
    since, until = breaker.state.since, breaker.state.until
    permits = [expires_at - taken_at for taken_at, expires_at, _ in breaker.state.probes.permits.values()]
    span = max([*permits, 0.0] if since is None or until is None else [*permits, until - since])
    breaker.now += jump
    retry_after = breaker.status.retry_after
    assert retry_after is None or 0 <= retry_after <= span * 1.000001
    step = breaker.admit()
    if not isinstance(step.decision, Rejection) or step.until == FOREVER:
        return
    assert 0 < step.until - breaker.now <= span * 1.000001
    breaker.now = step.until
    assert not isinstance(breaker.admit().decision, Rejection)


@QUICK
@given(CONFIGS, TRACES)
def test_an_answer_is_the_same_as_long_as_it_says(config: dict[str, Any], trace: list[Any]) -> None:
    world = World(config, config)
    world.run(trace)
    breaker = world.record
    step = breaker.policy.step(breaker.state, Admit(breaker.now, 1))
    if step.keep is NOW:
        return
    end = min(step.until, breaker.now + 10**6)
    for now in (breaker.now, (breaker.now + end) / 2, end - 0.01):
        if breaker.now <= now < step.until:
            again = breaker.policy.step(breaker.state, Admit(now, 2))
            assert (again.keep, again.until, type(again.decision)) == (step.keep, step.until, type(step.decision))
