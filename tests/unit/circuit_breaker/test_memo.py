"""The fast road's memo answers as the pure step does.

Two worlds with the same calls at the same times: in one the storage tells that a snapshot is still current, so that the
memo answers nearly every call; in the other it cannot tell, so that each call is answered by a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from unit.circuit_breaker.player import quiet
from unit.circuit_breaker.test_model import ERRORS, START, Clock, Ignored, arguments, rules

from resilience import CircuitBreaker, CircuitOpenError, Key, Runtime, Snapshot, Version, hookimpl
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from unit.circuit_breaker.model import Rules


RAISED: tuple[type[BaseException], ...] = tuple(ERRORS.values())


class Counting(MemoryStorage):
    """Counts how often it is asked."""

    tells = True

    def __init__(self) -> None:
        super().__init__("memory:")
        self.loads = 0

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.loads += 1
        return self._told(super().resilience_load(key, timeout))

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        return self._told(super().resilience_save(key, payload, expected, expires_at, timeout))

    def _told(self, snapshot: Snapshot) -> Snapshot:
        return snapshot if self.tells else Snapshot(snapshot.payload, snapshot.version)


class Forgetful(Counting):
    """Cannot tell whether a snapshot is still current."""

    tells = False


class World:
    """A storage, a clock, and two processes: the one that calls, and one that steers."""

    def __init__(self, storage: Counting, given: Rules, gather: float) -> None:
        self.storage = storage
        self.clock = Clock(START)
        self.runtimes = [Runtime(storage=storage, clock=self.clock, environ={}) for _ in range(2)]
        self.breaker, self.other = (
            CircuitBreaker("it", runtime=runtime, gather=gather, ignore=Ignored, **arguments(given))
            for runtime in self.runtimes
        )
        self.protected = self.breaker(self._work)

    def close(self) -> None:
        for runtime in self.runtimes:
            runtime.close()

    def _work(self, ended: str, took: float) -> str:
        self.clock.advance(took)
        if ended in ERRORS:
            raise ERRORS[ended]
        return "worked"

    def do(self, step: tuple[Any, ...]) -> object:
        """Take a step; return all that can be seen of it."""
        match step:
            case ("call", ended, took):
                try:
                    return self.protected(ended, took)
                except CircuitOpenError as error:
                    return (str(error.state), error.retry_after, error.last_error, error.reason)
                except RAISED as error:
                    return type(error).__name__
            case ("wait", seconds):
                self.clock.advance(seconds)
            case ("jump", seconds):
                self.clock.jump_wall(seconds)
            case ("steer", verb, seconds):
                getattr(self.other, verb)(*([] if seconds is None else [seconds]))
            case ("fail elsewhere",):
                self.other.record_failure("OSError")
            case ("succeed elsewhere",):
                self.other.record_success()
            case ("look",):
                status = self.breaker.status().to_dict()
                # Rejections are gathered, and which of them a reset still finds depends on when that was.
                return {name: value for name, value in status.items() if name not in {"version", "rejected_count"}}
            case _:
                raise AssertionError(step)
        return None


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("call"),
            st.sampled_from(["success", "success", "failure", "failure", "ignored", "cancelled"]),
            st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0]),
        ),
        st.tuples(st.just("wait"), st.sampled_from([0.125, 1.0, 4.0, 10.0])),
        st.tuples(st.just("jump"), st.sampled_from([-65.0, -3.0, 3.0, 4000.0])),
        st.tuples(st.just("steer"), st.sampled_from(["force_open", "disable", "metrics_only"]), st.just(4.0)),
        st.tuples(st.just("steer"), st.sampled_from(["force_open", "disable", "close", "reset"]), st.none()),
        st.sampled_from([("fail elsewhere",), ("succeed elsewhere",), ("look",)]),
    ),
    min_size=4,
    max_size=30,
)


def same(given_rules: Rules, gather: float, taken: list[tuple[Any, ...]]) -> None:
    """Take the steps in both worlds; what can be seen must be the same."""
    worlds = [World(Counting(), given_rules, gather), World(Forgetful(), given_rules, gather)]
    try:
        with quiet():
            for number, step in enumerate([*taken, ("look",)]):
                seen = [world.do(step) for world in worlds]
                assert seen[0] == seen[1], f"step {number}, {step}: (memo, step) = {seen}"
    finally:
        for world in worlds:
            world.close()


anything = given(given_rules=rules(), gather=st.sampled_from([0.0, 0.5]), taken=steps)


@settings(max_examples=30, phases=[Phase.generate, Phase.shrink])
@anything
def test_the_memo_answers_as_the_pure_step_does(
    given_rules: Rules, gather: float, taken: list[tuple[Any, ...]]
) -> None:
    same(given_rules, gather, taken)


@pytest.mark.heavy
@settings(max_examples=300, phases=[Phase.generate, Phase.shrink])
@anything
def test_the_memo_answers_as_the_pure_step_does_for_long(
    given_rules: Rules, gather: float, taken: list[tuple[Any, ...]]
) -> None:
    same(given_rules, gather, taken)


def test_that_one_of_the_two_worlds_has_a_memo_and_the_other_has_none() -> None:
    with_memo, without = Counting(), Forgetful()
    for storage in (with_memo, without):
        runtime = Runtime(storage=storage, clock=Clock(START), environ={})
        protected = CircuitBreaker("it", runtime=runtime)(len)
        for _ in range(20):
            protected("")
        runtime.close()
    assert with_memo.loads <= 2
    assert without.loads >= 20
