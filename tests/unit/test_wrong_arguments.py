"""Arguments that make no sense: refused where they are given, by name, and nothing is counted or thought an outage."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from resilience import (
    CircuitBreaker,
    ConfigurationError,
    Event,
    Key,
    PluginError,
    Runtime,
    Snapshot,
    StorageUnavailable,
    Version,
    hookimpl,
)
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storages import Recorder

    from resilience.testing import ManualClock

HUGE = "x" * 1_000_000


@pytest.fixture
def breaker(clock: ManualClock, told: Recorder) -> Any:
    runtime = Runtime(storage="memory:", clock=clock, observers=[told], environ={})
    return CircuitBreaker("payments", runtime=runtime)


def fail_permit(breaker: CircuitBreaker, *, duration: Any) -> None:
    breaker.acquire().failure(duration=duration)


@pytest.mark.parametrize("duration", ["1.5", b"1", [1], 1j, dt.timedelta(seconds=1)])
@pytest.mark.parametrize("report", [CircuitBreaker.record_failure, CircuitBreaker.record_success, fail_permit])
def test_a_duration_that_is_no_number(
    breaker: CircuitBreaker, told: Recorder, report: Callable[..., None], duration: Any
) -> None:
    with pytest.raises(TypeError, match=f"a duration is a number of seconds, not {type(duration).__name__}"):
        report(breaker, duration=duration)
    status = breaker.status()
    assert (status.failure_count, status.degraded, told.names) == (0, False, [])


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf"), 10**400, Decimal("0.5"), True])
def test_a_duration_that_any_clock_may_have_measured(breaker: CircuitBreaker, told: Recorder, duration: Any) -> None:
    breaker.record_failure(duration=duration)
    breaker.acquire().failure(duration=duration)
    status = breaker.status()
    assert (status.failure_count, status.degraded, told.names) == (2, False, [])


def test_a_permit_whose_report_was_refused_can_be_reported(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    wrong: Any = "1.5"
    with pytest.raises(TypeError):
        permit.failure(duration=wrong)
    permit.failure(duration=1.5)
    assert breaker.status().failure_count == 1


@pytest.mark.parametrize("token", [0, b"1", ["1"]])
def test_a_token_that_is_no_text(breaker: CircuitBreaker, token: Any) -> None:
    with pytest.raises(ValueError, match=f"a token is the text .* not {type(token).__name__}"):
        breaker.record_failure(token=token)


@pytest.mark.parametrize("seconds", ["10m", HUGE, True, [1], float("nan"), 0, -1, float("inf"), 10**400])
@pytest.mark.parametrize("verb", ["force_open", "disable", "metrics_only"])
def test_a_time_by_hand_that_is_none(breaker: CircuitBreaker, verb: str, seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{verb}: .* is no time; give seconds above 0") as refused:
        getattr(breaker, verb)(seconds)
    assert len(str(refused.value)) < 200
    assert breaker.status().state.value == "closed"


@pytest.mark.parametrize("status", [None, "open", {"state": "open"}])
def test_what_is_restored_is_a_status(breaker: CircuitBreaker, status: Any) -> None:
    with pytest.raises(
        TypeError, match=f"'payments'.: what is restored is a CircuitStatus, not {type(status).__name__}"
    ):
        breaker.restore(status)


@pytest.mark.parametrize("runtime", [0, "", False, "memory:", Runtime])
def test_a_runtime_that_is_none(runtime: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'payments'.: runtime is a Runtime, not "):
        CircuitBreaker("payments", runtime=runtime)


@pytest.mark.parametrize("seconds", ["250ms", b"1", [], -1, 0, float("nan"), float("inf"), 3601])
def test_a_time_out_that_is_none(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Runtime\(storage_timeout=…\): .* is refused: it is a number of sec"):
        Runtime(storage="memory:", storage_timeout=seconds)


@pytest.mark.parametrize(
    "environ", [{"RESILIENCE_STORAGE": 5}, {"X": None}, {1: "x"}, {b"RESILIENCE_STORAGE": "file:"}]
)
def test_a_variable_that_is_no_text(environ: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"Runtime\(environ=…\): .*variables and their values are text, not "):
        Runtime(environ=environ)


def test_a_url_that_is_empty() -> None:
    with pytest.raises(ConfigurationError, match=r"Runtime\(storage=…\): it is empty"):
        Runtime(storage="")


@pytest.mark.parametrize("url", ["nonsense", "fiel:", "memory+file:", "file:relative"])
def test_a_url_that_makes_no_storage_is_named_by_where_it_is_from(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the given storage: "):
        Runtime(storage=url, environ={}).keys()
    if ":" not in url:
        return  # in a file and in a variable it is refused before: it is no URL
    file = tmp_path / "resilience.toml"
    file.write_text(f'storage = "{url}"\n')
    with pytest.raises(ConfigurationError, match=r"resilience\.toml: storage: ") as refused:
        Runtime(environ={"RESILIENCE_CONFIG": str(file)}).keys()
    assert "RESILIENCE_STORAGE: " not in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"^RESILIENCE_STORAGE: "):
        Runtime(environ={"RESILIENCE_STORAGE": url}).keys()


class Told:
    @hookimpl
    def resilience_event(self, event: Event) -> None:
        raise NotImplementedError


class ToldLater:
    @hookimpl
    async def resilience_event(self, event: Event) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("observer", "message"),
    [
        (None, "plugin NoneType #1: it has no hook, so it would be told nothing: mark its methods with @hookimpl"),
        ("x", "plugin str #1: it has no hook, so it would be told nothing: mark its methods with @hookimpl"),
        (Told, "plugin type #1: Told is a class: hand in an object made of it"),
        (
            ToldLater(),
            "plugin ToldLater #1: resilience_event is a coroutine function, and nothing awaits what it ret",
        ),
    ],
    ids=["nothing", "text", "class", "coroutine"],
)
def test_an_observer_that_would_be_told_nothing(observer: object, message: str) -> None:
    with Runtime(storage="memory:", environ={}, observers=[observer]), pytest.raises(PluginError) as refused:
        CircuitBreaker("payments").status()
    assert str(refused.value).startswith(message)


class Storage(MemoryStorage):
    """Storage in memory; what it holds can be something else than bytes."""

    loads: Any = None

    def __init__(self) -> None:
        super().__init__("memory:")

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        loaded = super().resilience_load(key, timeout)
        return loaded if self.loads is None else Snapshot(self.loads, Version("1", 1))


@pytest.mark.parametrize("capabilities", [None, "INLINE", 1])
def test_capabilities_that_are_no_set(capabilities: Any) -> None:
    storage = Storage()
    storage.capabilities = capabilities
    with Runtime(storage=storage, environ={}), pytest.raises(PluginError, match="its capabilities are a set of Capab"):
        CircuitBreaker("payments").status()


def test_a_storage_that_is_a_class() -> None:
    with (
        Runtime(storage=Storage, environ={}),
        pytest.raises(PluginError, match="storage type: Storage is a class: hand in an object made of it"),
    ):
        CircuitBreaker("payments").status()


@pytest.mark.parametrize("payload", ["text", bytearray(b"{}"), 5])
def test_a_payload_that_is_no_bytes_is_the_storages_fault(payload: object) -> None:
    storage = Storage()
    storage.loads = payload
    what = type(payload).__name__
    with (
        Runtime(storage=storage, environ={}),
        pytest.raises(StorageUnavailable, match=f"load of .*'payments' returned a payload that is {what}, not bytes"),
    ):
        CircuitBreaker("payments").status(strict=True)


@pytest.mark.parametrize("name", [None, 1, b"x"])
def test_the_name_of_a_family_that_is_no_text(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="the name of a key is a str, not"):
        CircuitBreaker.family(name)


@pytest.mark.parametrize("most", [None, "8", 1.5, [8]])
def test_a_number_of_guards_that_is_none(most: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"'http'.: max_guards is a whole number from 1 to "):
        CircuitBreaker.family("http", max_guards=most)


@pytest.mark.parametrize("name", [HUGE, f"builtins:{HUGE}", f"{HUGE}:Timeout"])
def test_the_name_of_an_exception_is_shown_as_far_as_it_can_be_read(name: str) -> None:
    with (
        Runtime(storage="memory:", environ={}),
        pytest.raises(
            ConfigurationError, match=r"failure_on.* there is no (built-in exception )?'(builtins:)?x+'"
        ) as refused,
    ):
        CircuitBreaker("stock", failure_on=name).check()
    assert len(str(refused.value)) < 1000


def test_no_variable_may_be_meant_to_be_itself() -> None:
    name = "RESILIENCE_POLICIES____CIRCUIT_BREAKER__RESET_TIMEOUT"
    with pytest.raises(ConfigurationError, match=f"{name}: nothing knows this variable: unset it"):
        CircuitBreaker("payments", runtime=Runtime(storage="memory:", environ={name: "1"})).status()
