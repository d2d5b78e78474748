"""What the policy makes of outcomes, what it shows, and what it rejects with."""

from __future__ import annotations

import asyncio
import copy
import json
import operator
import pickle
from typing import Any

import pytest
from unit.circuit_breaker.breaker_driver import START, Driver

from resilience import CircuitOpenError, CircuitState, CircuitStatus, ConfigurationError, PolicyRejected, Version
from resilience.policy import FAILURE, NEUTRAL, SUCCESS, Move
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker.policy import CircuitBreakerPolicy, State


def _policy(**config: Any) -> CircuitBreakerPolicy:
    return CircuitBreakerPolicy(CircuitBreakerConfig(**config))


# --- outcomes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "error", "outcome"),
    [
        ({}, ValueError(), FAILURE),
        ({}, KeyboardInterrupt(), NEUTRAL),
        ({}, SystemExit(), NEUTRAL),
        ({}, GeneratorExit(), NEUTRAL),
        ({}, asyncio.CancelledError(), NEUTRAL),
        ({"failure_on": (OSError,)}, ConnectionError(), FAILURE),
        ({"failure_on": (OSError,)}, ValueError(), SUCCESS),
        ({"failure_on": OSError}, ConnectionError(), FAILURE),
        ({"failure_on": ()}, ValueError(), SUCCESS),
        ({"failure_on": (asyncio.CancelledError,)}, asyncio.CancelledError(), FAILURE),
        ({"failure_on": (BaseException,)}, KeyboardInterrupt(), FAILURE),
        ({"ignore": (LookupError,)}, KeyError(), NEUTRAL),
        ({"ignore": (LookupError,)}, ValueError(), FAILURE),
        ({"failure_on": (OSError,), "ignore": (ConnectionError,)}, ConnectionResetError(), NEUTRAL),
        ({"failure_on": (OSError,), "ignore": (ConnectionError,)}, FileNotFoundError(), FAILURE),
        ({"failure_on": ("OSError",), "ignore": ("builtins:ConnectionError",)}, ConnectionResetError(), NEUTRAL),
        ({"failure_on": ("builtins:OSError",)}, FileNotFoundError(), FAILURE),
        ({"failure_on": ("no_such_module:Error", "OSError")}, FileNotFoundError(), FAILURE),
        ({"failure_on": ("json:dumps", "asyncio.exceptions:TimeoutError")}, TimeoutError(), FAILURE),
        ({"failure_on": ("no_such_module:Error",)}, FileNotFoundError(), SUCCESS),
        ({}, BaseExceptionGroup("", [KeyboardInterrupt()]), NEUTRAL),
        ({}, BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()]), FAILURE),
        ({"failure_on": (OSError,)}, ExceptionGroup("", [ValueError(), KeyError()]), SUCCESS),
        ({"failure_on": (OSError,)}, ExceptionGroup("", [ValueError(), ExceptionGroup("", [OSError()])]), FAILURE),
        ({"ignore": (KeyError,)}, ExceptionGroup("", [KeyError()]), NEUTRAL),
        ({"failure_on": (OSError,), "ignore": (KeyError,)}, ExceptionGroup("", [KeyError(), ValueError()]), SUCCESS),
        ({"ignore": (KeyError,)}, ExceptionGroup("", [KeyError(), OSError()]), FAILURE),
    ],
)
def test_what_an_exception_means(config: dict[str, Any], error: BaseException, outcome: str) -> None:
    policy = _policy(**config)
    assert policy.judge_error(error) == outcome
    assert policy.judge_error(error) == outcome


@pytest.mark.parametrize(
    ("config", "duration", "outcome"),
    [
        ({}, 3.0, SUCCESS),
        ({}, 2.0, NEUTRAL),
        ({}, None, NEUTRAL),
        ({"slow_call_rate_threshold": None}, 3.0, NEUTRAL),
        ({"ignore": asyncio.CancelledError}, 3.0, NEUTRAL),
        ({"failure_on": asyncio.CancelledError}, 3.0, FAILURE),
    ],
)
def test_cancelled_after_more_than_slow_call_duration_is_a_slow_call(
    config: dict[str, Any], duration: float | None, outcome: str
) -> None:
    class Cancelled(asyncio.CancelledError):
        pass

    policy = _policy(**{"window": "time", "slow_call_rate_threshold": 0.5, "slow_call_duration": 2, **config})
    for error in (asyncio.CancelledError(), Cancelled(), BaseExceptionGroup("", [asyncio.CancelledError()])):
        for _ in range(2):
            assert policy.judge_error(error, duration) == outcome
    assert policy.judge_error(KeyboardInterrupt(), duration) == NEUTRAL


def test_an_ignored_exception_that_took_long_stays_neutral() -> None:
    policy = _policy(window="time", slow_call_rate_threshold=0.5, slow_call_duration=2, ignore=KeyError)
    assert policy.judge_error(KeyError(), 3.0) == NEUTRAL
    assert policy.judge_error(ValueError(), 3.0) == FAILURE


class _Liar(Exception):
    @property  # type: ignore[misc]  # that is the lie
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - likewise
        return KeyboardInterrupt


class _Thrower(Exception):
    @property  # type: ignore[misc]  # that is the lie
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - likewise
        raise RuntimeError


class _Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise RuntimeError

    def __eq__(cls, other: object) -> bool:
        raise RuntimeError

    def __hash__(cls) -> int:
        raise RuntimeError

    def __getattribute__(cls, name: str) -> Any:
        raise RuntimeError


def _with_metaclass() -> BaseException:
    kind: Any = _Meta("Hooked", (ValueError,), {})
    error: BaseException = type.__call__(kind)
    return error


class _Group(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("make", [_Liar, _Thrower, _with_metaclass, lambda: _Group("", [ValueError()])])
def test_hostile_exceptions_are_judged_by_what_they_are(make: Any) -> None:
    assert _policy().judge_error(make()) == FAILURE
    assert _policy(failure_on=(OSError,)).judge_error(make()) == SUCCESS
    assert _policy(ignore=(ValueError, _Liar, _Thrower)).judge_error(make()) == NEUTRAL


def _nested(error: Exception) -> Exception:
    return ExceptionGroup("", [error, error])


def test_a_group_that_holds_itself_many_times_is_judged_in_no_time() -> None:
    group: Exception = ValueError()
    for _ in range(5000):
        group = _nested(group)
    assert _policy(failure_on=(OSError,)).judge_error(group) == SUCCESS
    rest: Any = group
    del group
    while isinstance(rest, ExceptionGroup):  # freeing it at once would end in a recursion of the interpreter
        rest = rest.exceptions[0]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - of any type


def test_any_number_of_classes_is_judged() -> None:
    policy = _policy(failure_on=(OSError,))
    kinds: list[type] = [type(f"Error{number}", (OSError if number % 2 else ValueError,), {}) for number in range(600)]
    for _ in range(2):
        for number, kind in enumerate(kinds):
            error: Any = kind()
            assert policy.judge_error(error) == (FAILURE if number % 2 else SUCCESS)


def _is_5xx(result: int) -> bool:
    return result >= 500


def test_what_a_result_means() -> None:
    plain = _policy()
    assert (plain.judges_results, plain.judge_result(None)) == (False, SUCCESS)
    policy = _policy(failure_if=_is_5xx)
    assert policy.judges_results
    assert policy.judge_result(200) == SUCCESS
    assert policy.judge_result(503) == FAILURE


def test_a_predicate_that_raises_means_failure() -> None:
    class Odd:
        @classmethod
        def of(cls, _: object) -> Odd:
            return cls()

        def __bool__(self) -> bool:
            raise RuntimeError

    assert _policy(failure_if=operator.attrgetter("status")).judge_result(None) == FAILURE
    assert _policy(failure_if=Odd.of).judge_result(None) == FAILURE

    def interrupted(_: object) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _policy(failure_if=interrupted).judge_result(None)


# --- rejections -------------------------------------------------------------------------------------------------------


def test_a_rejection_says_when_to_come_again() -> None:
    breaker = Driver(reset_timeout=30).opened()
    breaker.now += 10
    error = breaker.refused().error("payments", breaker.now)
    assert isinstance(error, CircuitOpenError)
    assert isinstance(error, PolicyRejected)
    assert (error.name, error.state, error.retry_after, error.last_error) == ("payments", "open", 20, "TimeoutError")
    assert error.state is CircuitState.OPEN
    assert str(error) == "circuit breaker 'payments' is open; try again in 20 s; the last error was TimeoutError"
    assert breaker.refused().error("payments", START + 10**6).retry_after == 0


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0"), (0.01234, "0.0123"), (99.96, "100"), (999.9, "1000"), (864_000.5, "864000")]
)
def test_a_long_time_is_said_in_digits_too(seconds: float, shown: str) -> None:
    assert str(CircuitOpenError("payments", "open", seconds)) == (
        f"circuit breaker 'payments' is open; try again in {shown} s"
    )


def test_a_rejection_by_hand_says_why_and_not_when() -> None:
    breaker = Driver()
    breaker.control("force_open", reason="migration")
    error = breaker.refused().error("payments", breaker.now)
    assert (error.retry_after, error.last_error, error.reason) == (None, None, "migration")
    assert str(error) == "circuit breaker 'payments' is forced open (migration)"


def test_a_rejection_pickles_and_copies_with_its_attributes() -> None:
    error = CircuitOpenError("payments", "half_open", 1.5, "OSError", "why")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is CircuitOpenError
        assert (other.name, other.state, other.retry_after) == ("payments", "half_open", 1.5)
        assert (other.last_error, other.reason, str(other)) == ("OSError", "why", str(error))


def test_a_rejection_for_a_reason_outside_the_state() -> None:
    breaker = Driver(reset_timeout=30)
    refusal = breaker.policy.refuse(None, "the storage does not answer").error("payments", START)
    assert (refusal.state, refusal.retry_after, refusal.reason) == ("closed", None, "the storage does not answer")
    breaker.opened()
    refusal = breaker.policy.refuse(breaker.state, "the storage does not answer").error("payments", START)
    assert (refusal.state, refusal.retry_after, refusal.last_error) == ("open", 30, "TimeoutError")
    breaker.control("disable", seconds=5)
    assert breaker.policy.refuse(breaker.state, "").error("payments", START).retry_after is None


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_a_status_shows_all_of_it() -> None:
    breaker = Driver(half_open_max_calls=1, permit_timeout=30)
    breaker.probing()
    breaker.report(FAILURE, epoch=0)
    breaker.now += 10
    version = Version("abcdef0123456789", 7)
    status = breaker.policy.status(breaker.state, name="payments", now=breaker.now, version=version, degraded=True)
    assert status.to_dict() == {
        "name": "payments",
        "state": "half_open",
        "failure_count": 3,
        "last_failure_time": START,
        "last_error": "TimeoutError",
        "opened_at": START,
        "retry_after": 20.0,
        "half_open_successes": 0,
        "half_open_failures": 0,
        "permits_in_use": 1,
        "late_count": 1,
        "reason": "",
        "version": "7@abcdef01",
        "degraded": True,
        "success_count": None,
        "slow_count": 0,
        "failure_rate": None,
        "slow_call_rate": None,
        "rejected_count": 0,
    }
    assert json.loads(json.dumps(status.to_dict())) == status.to_dict()
    assert type(status.to_dict()["state"]) is str


def test_retry_after_is_0_where_a_call_would_be_let_in() -> None:
    breaker = Driver()
    assert breaker.status.retry_after == 0
    assert breaker.status.version is None
    breaker.opened()
    assert breaker.status.retry_after == 60
    breaker.now += 60
    assert breaker.status.retry_after == 0
    breaker.let_in()
    assert breaker.status.retry_after == 0
    breaker.control("force_open", seconds=5)
    assert breaker.status.retry_after == 5
    breaker.control("disable", seconds=5)
    assert breaker.status.retry_after == 0


def test_a_status_can_be_made_by_hand() -> None:
    status = CircuitStatus(state=CircuitState.OPEN, failure_count=3, last_failure_time=5.0, half_open_successes=1)
    assert (status.name, status.degraded, status.version, status.permits_in_use) == ("", False, None, 0)
    assert status == CircuitStatus("open", 3, 5.0, 1)  # type: ignore[arg-type, unused-ignore]
    assert status != CircuitStatus(state=CircuitState.OPEN)
    assert status != "open"
    assert len({status, CircuitStatus(CircuitState.OPEN, 3, 5.0, 1)}) == 1
    assert CircuitStatus.default() == CircuitStatus(
        state=CircuitState.CLOSED, failure_count=0, last_failure_time=None, half_open_successes=0
    )
    with pytest.raises(ValueError, match="ajar"):
        CircuitStatus(state="ajar")


def test_a_status_is_frozen_and_pickles() -> None:
    status = CircuitStatus(state=CircuitState.OPEN, name="payments")
    with pytest.raises(AttributeError, match="frozen"):
        status.state = CircuitState.CLOSED
    with pytest.raises(AttributeError, match="frozen"):
        del status.name
    assert pickle.loads(pickle.dumps(status)) == status
    assert copy.deepcopy(status) == status
    assert repr(status).startswith("CircuitStatus(state=<CircuitState.OPEN: 'open'>, failure_count=0,")


# --- how long a record means something --------------------------------------------------------------------------------


def test_a_streak_ends_when_it_is_too_old() -> None:
    breaker = Driver(failure_max_age=7200)
    assert breaker.policy.expires_at(breaker.state) is None, "there is nothing that could end"
    breaker.fail()
    assert breaker.policy.expires_at(breaker.state) == START + 7200
    breaker.now += 10
    breaker.report(SUCCESS)
    assert breaker.policy.expires_at(breaker.state) == START + 10 + 7200


def test_a_record_outlives_the_calls_under_way() -> None:
    breaker = Driver(failure_max_age=1)
    breaker.fail()
    assert breaker.policy.expires_at(breaker.state) == START + 3600


def test_a_record_that_was_restored_is_kept_as_one_that_was_just_written() -> None:
    breaker = Driver()
    breaker.control("restore", state="closed", failure_count=2, last_failure_time=5.0)
    assert breaker.policy.expires_at(breaker.state) == START + 3600


@pytest.mark.parametrize("begin", ["open", "half_open", "forced_open", "disabled", "noted"])
def test_other_states_and_what_a_person_said_never_end(begin: str) -> None:
    breaker = Driver()
    match begin:
        case "open":
            breaker.opened()
        case "half_open":
            breaker.probing()
        case "forced_open":
            breaker.control("force_open", seconds=5)
        case "disabled":
            breaker.control("disable", seconds=5)
        case _:
            breaker.fail()
            breaker.control("close", reason="by hand")
    assert breaker.policy.expires_at(breaker.state) is None
    breaker.control("close")
    assert breaker.policy.expires_at(breaker.state) == breaker.now + 3600


# --- the class --------------------------------------------------------------------------------------------------------


def test_the_policy_says_what_the_engine_asks() -> None:
    policy = _policy(on_store_error="deny")
    assert (policy.kind, policy.on_store_error, CircuitBreakerPolicy.kind) == (
        "circuit_breaker",
        "deny",
        "circuit_breaker",
    )
    assert policy.initial() == State()
    assert policy.guard_type().policy_type is CircuitBreakerPolicy
    assert {"check", "success", "failure"} <= {verb.name for verb in policy.verbs()}
    move = Driver(failure_threshold=1).fail().moved
    assert isinstance(move, Move)


def test_a_policy_is_made_from_settings() -> None:
    model: Any = CircuitBreakerPolicy.settings_model()
    given = {"failure_threshold": 1, "failure_on": OSError}
    policy = CircuitBreakerPolicy.from_settings(model(**given), given)
    assert policy.config.failure_threshold == 1
    breaker = Driver(failure_threshold=1, given=policy.config.given).opened()
    assert policy.stored_settings(breaker.state) == {"failure_threshold": 1, "failure_on": ["builtins:OSError"]}
    shell = CircuitBreakerPolicy.from_settings(model(failure_on="no_such_module:Error"), None)
    assert shell.judge_error(ValueError()) == SUCCESS
    with pytest.raises(ConfigurationError, match="failure_on: there is no 'no_such_module:Error': ModuleNotFoundError"):
        CircuitBreakerPolicy.from_settings(model(failure_on="no_such_module:Error"), {})


def test_only_known_settings_come_back_from_a_record() -> None:
    policy = _policy()
    state = policy.decode(b'{"schema":1,"state":"closed","settings":{"failure_threshold":2,"window":"count","x":1}}')
    assert policy.stored_settings(state) == {"failure_threshold": 2, "window": "count"}
