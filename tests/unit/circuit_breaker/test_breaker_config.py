"""The settings of a breaker: bounds, forms, contradictions, and what is stored of them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from resilience import CircuitBreaker, Runtime
from resilience_circuit_breaker._config import BOUNDS, OF_WINDOWS, CircuitBreakerConfig, portable, resolve
from resilience_circuit_breaker._settings import CircuitBreakerSettings

DEFAULTS: dict[str, Any] = {
    "window": "consecutive",
    "window_size": 100,
    "window_duration": 60,
    "minimum_calls": 10,
    "failure_rate_threshold": 0.5,
    "slow_call_rate_threshold": None,
    "slow_call_duration": 60,
    "gather": 0.1,
    "failure_threshold": 3,
    "failure_max_age": 3600,
    "reset_timeout": 60,
    "reset_timeout_backoff": 1.0,
    "reset_timeout_max": 600,
    "reset_timeout_jitter": 0,
    "half_open_max_calls": 5,
    "half_open_success_threshold": 2,
    "half_open_failure_threshold": 1,
    "permit_timeout": 60,
    "failure_on": (Exception,),
    "ignore": (),
    "failure_if": None,
    "on_store_error": "local",
}


RATES = {"reset_timeout_backoff", "reset_timeout_jitter", "failure_rate_threshold", "slow_call_rate_threshold"}


def _config(**settings: Any) -> CircuitBreakerConfig:
    return CircuitBreakerConfig(**settings)


def _settings(**settings: Any) -> CircuitBreakerSettings:
    return CircuitBreakerSettings(**settings)


def _fields(config: CircuitBreakerConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in DEFAULTS}


def test_the_defaults_are_those_of_the_specification_both_ways() -> None:
    assert _fields(_config()) == DEFAULTS
    assert _fields(_settings().config()) == DEFAULTS
    assert set(CircuitBreakerSettings.model_fields) == set(DEFAULTS)


def test_defaults_that_depend_on_reset_timeout() -> None:
    config = _settings(reset_timeout="20m").config()
    assert (config.reset_timeout, config.reset_timeout_max, config.permit_timeout) == (1200, 1200, 1200)
    config = _settings(reset_timeout=5, permit_timeout="500ms", reset_timeout_max="1m").config()
    assert (config.reset_timeout_max, config.permit_timeout) == (60, 0.5)


def test_defaults_that_depend_on_the_window() -> None:
    def resolved(**settings: Any) -> CircuitBreakerConfig:
        return _settings(**settings).config()

    for form in (_config, resolved):
        assert (form().failure_threshold, form(window="count").failure_threshold) == (3, None)
        assert form(window="time", failure_threshold=5).failure_threshold == 5
        assert form(window="count", window_size=4).minimum_calls == 4
        assert form(window="time").minimum_calls == 10
        assert form(window="count", gather=0, slow_call_duration=1).shape == "count:100"
        assert form(window="time", window_duration=0.5).shape == "time:0.5"


def test_what_belongs_to_another_window_is_passed_over() -> None:
    """So that a variable changes the one window into the other, whatever code gave."""
    for made in (_config(window="time", window_size=4), _settings(window="time", window_size=4).config()):
        assert (made.shape, made.minimum_calls) == ("time:60", 10)
    for made in (_config(window="count", window_duration=9), _settings(window="count", window_duration=9).config()):
        assert made.shape == "count:100"
    environ = {"RESILIENCE_POLICIES__X__CIRCUIT_BREAKER__WINDOW": "time"}
    with Runtime(storage="memory:", environ=environ) as runtime:
        breaker = CircuitBreaker("x", runtime=runtime, window="count", window_size=4, failure_threshold=4)
        for _ in range(6):
            breaker.record_success()
        for _ in range(3):
            breaker.record_failure()
        assert (breaker.status().success_count, breaker.status().failure_count) == (6, 3)


def test_each_setting_has_a_description_and_each_number_both_bounds() -> None:
    for name, field in CircuitBreakerSettings.model_fields.items():
        assert field.description, name
        if name in BOUNDS:
            kinds = {type(mark).__name__ for mark in field.metadata}
            assert {"Ge", "Le"} <= kinds, name
    assert set(BOUNDS) == set(DEFAULTS) - {"window", "failure_on", "ignore", "failure_if", "on_store_error"}
    extra = CircuitBreakerSettings.model_fields["failure_if"].json_schema_extra
    assert extra == {"code_only": True}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_are_allowed_and_nothing_beyond(name: str) -> None:
    least, most = BOUNDS[name]
    other: dict[str, Any] = {"reset_timeout": 0} if name == "reset_timeout_max" else {}
    if name in OF_WINDOWS:
        other = {"window": "count" if name == "window_size" else "time"}
    whole = isinstance(least, int)
    step = 1 if whole else 1e-7
    for value in (least, most):
        assert getattr(_config(**{name: value, **other}), name) == value
        assert getattr(_settings(**{name: value, **other}).config(), name) == value
    beyond: list[Any] = [least - step, most + step * 1e7, float("nan"), float("inf"), -float("inf"), "x"]
    for value in [*beyond, 1.5 if whole else True]:
        with pytest.raises(ValueError, match=f"{name} is a (whole )?number from "):
            _config(**{name: value, **other})
        if value is True and name in RATES:
            continue  # pydantic reads it as a number
        with pytest.raises(ValidationError, match=name):
            _settings(**{name: value, **other})


@pytest.mark.parametrize("form", [_config, _settings])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"reset_timeout": 60, "reset_timeout_max": 59.5},
            r"reset_timeout_max \(59.5 s\) is shorter than reset_timeout \(60 s\): raise the one or lower the other",
        ),
        ({"window": "sliding"}, "consecutive, count, time|'consecutive', 'count' or 'time'"),
        *(
            (
                {setting: 1},
                f"{setting} means nothing with window=consecutive, .*: set window to count or time, or leave",
            )
            for setting in OF_WINDOWS
        ),
        (
            {"window": "count", "window_size": 9, "minimum_calls": 10},
            r"minimum_calls \(10\) is above window_size \(9\), so it is never reached: lower the one or raise",
        ),
        (
            {"window": "count", "failure_threshold": 101},
            r"failure_threshold \(101\) is above window_size \(100\), so it is never reached",
        ),
        ({"window": "time", "failure_rate_threshold": 0}, "failure_rate_threshold"),
        (
            {"ignore": (Exception,)},
            "failure_on names builtins:Exception, which can never count, as ignore names builtins:Exception and wins",
        ),
        ({"failure_on": ConnectionError, "ignore": OSError}, "builtins:ConnectionError, which can never count"),
        ({"failure_on": "a:B,c:D", "ignore": "c:D"}, "failure_on names c:D, which can never count"),
        ({"on_store_error": "explode"}, "local, allow, deny|'local', 'allow', 'deny'"),
        ({"failure_if": 5}, "failure_if"),
        ({"failure_on": int}, "an exception is named by its class, or by module:Class"),
        ({"failure_on": 5}, "an exception is named by its class"),
        ({"failure_on": [OSError, None]}, "an exception is named by its class"),
        ({"ignore": "requests.Timeout"}, "'requests.Timeout' has no colon"),
        ({"ignore": "a:b:C"}, "an exception is named by its class"),
        ({"ignore": ":C"}, "an exception is named by its class"),
        ({"ignore": "a.:C"}, "an exception is named by its class"),
        ({"ignore": "a:C."}, "an exception is named by its class"),
        ({"ignore": "a:C()"}, "an exception is named by its class"),
        ({"ignore": ["a:C", " "]}, "an exception is named by its class"),
    ],
)
def test_what_cannot_be_is_refused(form: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        form(**settings)


def test_a_name_and_a_class_contradict_each_other_once_the_name_is_known() -> None:
    settings = _settings(failure_on="builtins:ConnectionError", ignore=OSError)
    with pytest.raises(ValueError, match="which can never count"):
        settings.config({})
    assert _settings(failure_on=OSError, ignore=(ConnectionError,)).config({}).ignore == (ConnectionError,)


@pytest.mark.parametrize(
    ("value", "classes"),
    [
        (OSError, (OSError,)),
        ((OSError, "KeyError"), (OSError, KeyError)),
        ([OSError], (OSError,)),
        ("builtins:OSError", (OSError,)),
        (" OSError , json:JSONDecodeError ,", (OSError, json.JSONDecodeError)),
        ("asyncio.exceptions:TimeoutError", (TimeoutError,)),
        (["json.decoder:JSONDecodeError"], (json.JSONDecodeError,)),
        ((), ()),
        ("", ()),
    ],
)
def test_exceptions_are_classes_or_names(value: Any, classes: tuple[type, ...]) -> None:
    assert _settings(failure_on=value).config({}).failure_on == classes
    assert resolve("failure_on", _config(failure_on=value).failure_on) == classes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Error", "ignore: there is no 'no_such_module:Error': ModuleNotFoundError"),
        ("json:NoSuchError", "ignore: there is no 'json:NoSuchError': AttributeError"),
        ("builtins:NoSuchError", "ignore: there is no 'builtins:NoSuchError': AttributeError"),
        ("json:dumps", "ignore: 'json:dumps' is no exception class"),
        ("builtins:int", "ignore: 'builtins:int' is no exception class"),
    ],
)
def test_a_name_that_means_nothing_is_refused_where_there_is_code(name: str, message: str) -> None:
    settings = _settings(ignore=name)
    with pytest.raises(ValueError, match=message):
        settings.config({})
    assert settings.config().ignore == (name,)


@pytest.mark.parametrize(("name", "meant"), [("ConectionError", "; did you mean 'ConnectionError'?"), ("int", "")])
def test_a_name_without_a_module_is_that_of_a_built_in_exception(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"there is no built-in exception '{name}'{re.escape(meant)} \["):
        _settings(failure_on=f"OSError,{name}")


def test_what_is_stored_of_the_settings_given_in_code() -> None:
    given = {
        "failure_threshold": 5,
        "reset_timeout": "2m",
        "reset_timeout_jitter": 0.5,
        "half_open_max_calls": None,
        "failure_on": (OSError, "KeyError"),
        "ignore": json.JSONDecodeError,
        "failure_if": bool,
        "on_store_error": "deny",
    }
    stored = {
        "failure_threshold": 5,
        "reset_timeout": "2m",
        "reset_timeout_jitter": 0.5,
        "half_open_max_calls": None,
        "failure_on": ["builtins:OSError", "KeyError"],
        "ignore": ["json.decoder:JSONDecodeError"],
        "on_store_error": "deny",
    }
    config = _settings(**given).config(given)
    assert config.given == stored
    assert _settings().config().given is None
    assert _settings().config({}).given == {}
    again = _settings(**json.loads(json.dumps(stored)))
    assert again.config().failure_threshold == config.failure_threshold
    assert (again.reset_timeout, again.half_open_max_calls) == (120, None)
    assert portable({"reset_timeout": float("inf")}) == {}


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="windows"):
        _settings(windows="count")
