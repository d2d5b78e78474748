"""Breakers by key, and breakers that judge by other rules: one state, several guards."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

from resilience import CircuitBreaker, CircuitOpenError, ConfigurationError, Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def runtime() -> Iterator[Runtime]:
    with Runtime(storage="memory:", environ={}) as runtime:
        yield runtime


def _raising(error: BaseException) -> Any:
    def call() -> None:
        raise error

    return call


def _fail(breaker: CircuitBreaker, error: BaseException) -> None:
    with pytest.raises(type(error)):
        breaker.call(_raising(error))


# --- families ---------------------------------------------------------------------------------------------------------


def test_a_family_has_a_breaker_for_each_key() -> None:
    per_host = CircuitBreaker.family("http", failure_threshold=2)
    for _ in range(2):
        _fail(per_host["api.example.com"], OSError())
    assert per_host["api.example.com"].name == "http:api.example.com"
    with pytest.raises(CircuitOpenError, match=r"'http:api\.example\.com' is open"):
        per_host["api.example.com"].call(print)
    assert per_host["other.example.com"].call(int) == 0
    assert per_host["api.example.com"] is per_host["api.example.com"]
    assert (len(per_host), per_host.name, repr(per_host)) == (2, "http", "CircuitBreaker.family('http')")


def test_a_family_is_bounded_and_a_breaker_that_was_dropped_comes_back_as_it_was() -> None:
    family = CircuitBreaker.family("http", max_guards=2, failure_threshold=1)
    assert family
    first = family["a"]
    _fail(first, OSError())
    family["b"].call(int)
    assert family["a"] is first, "used again"
    for key in "cd":
        family[key].call(int)
    assert len(family) == 2
    assert family["a"] is not first
    with pytest.raises(CircuitOpenError):
        family["a"].call(int)


def test_a_family_is_safe_in_threads() -> None:
    family = CircuitBreaker.family("http", max_guards=8)
    names: list[str] = []

    def ask() -> None:
        names.extend(family[str(number % 11)].name for number in range(300))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(names) == 1200
    assert set(names) == {f"http:{number}" for number in range(11)}
    assert len(family) == 8


def test_a_family_pickles_with_its_settings() -> None:
    family = pickle.loads(pickle.dumps(CircuitBreaker.family("http", max_guards=3, failure_threshold=1)))
    _fail(family["a"], OSError())
    with pytest.raises(CircuitOpenError):
        CircuitBreaker("http:a").call(int)


def test_a_family_bound_to_a_runtime_does_not_pickle(runtime: Runtime) -> None:
    family = CircuitBreaker.family("http", runtime=runtime)
    with pytest.raises(TypeError, match="bound to a runtime"):
        pickle.dumps(family)


@pytest.mark.parametrize("key", ["", " ", "a ", "line\nline", "\x1b[31m", "\x00", "k" * 2000, "\u202e"])
def test_a_key_that_makes_no_name_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="the name of a key"):
        CircuitBreaker.family("http")[key]


def test_a_key_is_text() -> None:
    family: Any = CircuitBreaker.family("http")
    with pytest.raises(TypeError, match=r"CircuitBreaker.family\('http'\): a key is a str, not int"):
        family[5]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a:b", {}, "the name of a family has no colon"),
        ("", {}, "the name of a key is empty"),
        ("http", {"max_guards": 0}, "max_guards is a whole number from 1"),
        ("http", {"failure_threshold": 0}, "failure_threshold"),
        ("http", {"failure_treshold": 3}, "did you mean failure_threshold"),
    ],
)
def test_a_family_that_cannot_be_is_refused_when_it_is_made(name: str, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CircuitBreaker.family(name, **arguments)


def test_variables_retune_one_breaker_of_a_family() -> None:
    environ = {"RESILIENCE_POLICIES__HTTP_API_EXAMPLE_COM__CIRCUIT_BREAKER__FAILURE_THRESHOLD": "1"}
    with Runtime(storage="memory:", environ=environ):
        family = CircuitBreaker.family("http", failure_threshold=5)
        for key in ("api.example.com", "other.example.com"):
            _fail(family[key], OSError())
        assert [family[key].status().state for key in ("api.example.com", "other.example.com")] == ["open", "closed"]


# --- judging ----------------------------------------------------------------------------------------------------------


def test_judging_shares_name_and_state_and_judges_by_other_rules() -> None:
    payments = CircuitBreaker("payments", failure_threshold=2)
    lenient = payments.judging(ignore=KeyError)
    for _ in range(3):
        _fail(lenient, KeyError())
    assert payments.status().failure_count == 0
    _fail(lenient, OSError())
    _fail(payments, KeyError())
    assert [breaker.status().state for breaker in (payments, lenient)] == ["open", "open"]
    with pytest.raises(CircuitOpenError):
        lenient.call(int)


def test_judging_decorates_a_function() -> None:
    payments = CircuitBreaker("payments", failure_threshold=1)

    @payments.judging(failure_if=bool)
    def answer(status: int) -> int:
        return status

    assert answer(0) == 0
    assert payments.status().state == "closed"
    assert answer(1) == 1
    assert payments.status().state == "open"


def test_judging_keeps_what_it_is_not_given() -> None:
    payments = CircuitBreaker("payments", failure_threshold=9, failure_on=OSError, failure_if=bool)
    _fail(payments.judging(ignore=ConnectionError), ConnectionError())
    _fail(payments.judging(ignore=ConnectionError), KeyError())
    assert payments.status().failure_count == 0
    _fail(payments.judging(ignore=ConnectionError), FileNotFoundError())
    payments.judging(failure_if=None).call(int, 0)
    assert payments.status().failure_count == 0, "a success clears the streak"
    _fail(payments.judging(ignore=ConnectionError).judging(failure_on="LookupError"), KeyError())
    _fail(payments.judging(ignore=ConnectionError).judging(failure_on="LookupError"), ConnectionError())
    assert payments.status().failure_count == 1


def test_judging_is_kept_and_bounded() -> None:
    payments = CircuitBreaker("payments")
    assert payments.judging(ignore=KeyError) is payments.judging(ignore=KeyError)
    assert payments.judging(ignore=[KeyError, OSError]) is payments.judging(ignore=(KeyError, OSError))
    made = [payments.judging(failure_if=lambda _: False) for _ in range(200)]
    assert len({id(breaker) for breaker in made}) == 200
    assert made[0].call(int) == 0, "what is no longer kept works on"


def test_judging_stores_the_settings_of_the_breaker_it_is_of() -> None:
    payments = CircuitBreaker("payments", failure_threshold=5)
    _fail(payments.judging(ignore=KeyError), OSError())
    shell = CircuitBreaker.stored("payments")
    for _ in range(3):
        shell.record_failure()
    assert shell.status().state == "closed"
    shell.record_failure()
    assert shell.status().state == "open"
    assert CircuitBreaker.stored("payments").judging(ignore=KeyError).status().state == "open"


def test_judging_pickles() -> None:
    payments = CircuitBreaker("payments", failure_threshold=1).judging(ignore=KeyError)
    again = pickle.loads(pickle.dumps(payments))
    assert repr(again) == repr(payments) == "CircuitBreaker('payments').judging(ignore=<class 'KeyError'>)"
    _fail(again, KeyError())
    assert again.status().state == "closed"
    _fail(again, OSError())
    assert payments.status().state == "open"


@pytest.mark.parametrize(
    ("judgement", "message"),
    [
        ({"ignore": Exception}, "which can never count"),
        ({"ignore": 5}, "an exception is named by its class"),
        ({"failure_if": 5}, "failure_if"),
        ({"failure_threshold": 5}, "judging changes no failure_threshold, only the judgement"),
    ],
)
def test_judging_that_cannot_be_is_refused(judgement: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CircuitBreaker("payments").judging(**judgement)


def test_judging_by_a_name_that_means_nothing_is_refused_at_first_use() -> None:
    lost = CircuitBreaker("payments").judging(ignore="no_such_module:Error")
    with pytest.raises(ConfigurationError, match="ignore: there is no 'no_such_module:Error'"):
        lost.call(int)


def test_a_name_that_means_nothing_is_told_with_its_breaker_and_its_variable() -> None:
    variable = "RESILIENCE_CIRCUIT_BREAKER__FAILURE_ON"
    with Runtime(storage="memory:", environ={variable: "builtins:ConectionError"}):
        told = rf"CircuitBreaker\('payments'\): failure_on: there is no 'builtins:Conect.*failure_on by {variable}"
        with pytest.raises(ConfigurationError, match=told) as refused:
            CircuitBreaker("payments").status()
    assert isinstance(refused.value.__cause__, ValueError)


# --- the dry run ------------------------------------------------------------------------------------------------------


def test_metrics_only_lets_all_through_from_code() -> None:
    breaker = CircuitBreaker("payments", failure_threshold=1)
    breaker.metrics_only(reason="trial")
    for _ in range(3):
        _fail(breaker, OSError())
    status = breaker.status()
    assert (status.state, status.failure_count, status.reason) == ("metrics_only", 3, "trial")
    with pytest.raises(ConfigurationError, match="metrics_only: 0 is no time"):
        breaker.metrics_only(0)
    breaker.close()
    assert breaker.status().failure_count == 0


def test_durations_are_reported_without_a_permit() -> None:
    breaker = CircuitBreaker(
        "payments", window="count", slow_call_rate_threshold=1.0, slow_call_duration="2s", minimum_calls=2
    )
    breaker.record_success(duration=3)
    breaker.record_failure(OSError(), 3.0)
    status = breaker.status()
    assert (status.state, status.slow_count, status.slow_call_rate, status.failure_rate) == ("open", 2, 1.0, 0.5)
