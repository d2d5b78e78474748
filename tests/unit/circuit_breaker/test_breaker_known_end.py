"""A record that ends as one that was read before is read as any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.errors import StorageIncompatible
from resilience.policy import Report
from resilience_circuit_breaker._codec import decode, dumps, encode
from resilience_circuit_breaker._state import Rest, State
from resilience_circuit_breaker.policy import CircuitBreakerConfig, CircuitBreakerPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

GIVEN: dict[str, object] = {"failure_threshold": 3, "failure_on": ["m:A", "m:B"]}
END = ',"late_count":2,"settings":{"failure_threshold":3,"failure_on":["m:A","m:B"]},"odd":[{"a":null}]}'
KNOWN = Rest(late_count=2, settings=GIVEN, extra={"odd": [{"a": None}]})
HEAD = '{"schema":2,"state":"closed","epoch":4,"failures":1,"last_failure":5.0'


def _read(payload: bytes, known: Rest | None) -> object:
    try:
        return decode(payload, known)
    except (ValueError, StorageIncompatible) as error:
        return error


def test_what_stands_at_the_end_is_the_same_object() -> None:
    state = decode(f"{HEAD}{END}".encode(), KNOWN)
    assert state.rest is KNOWN
    assert (state.epoch, state.failures, state.late_count) == (4, 1, 2)
    assert encode(state) == f"{HEAD}{END}".encode()


@pytest.mark.parametrize(
    "record",
    [
        HEAD + END,
        HEAD.replace(',"epoch":4,"failures":1,"last_failure":5.0', "") + END,
        HEAD + ',"windows":{"count:9":[1,"1","0"]},"asks":1,"last_error":"E"' + END,
        HEAD + ',"windows":{"time:60":[[5,2,1,0],[6,1,1,1]]},"since":1.5' + END,
        HEAD + ',"windows":{"time:60":[[6,2,1,0],[5,1,1,1]]}' + END,
        HEAD + ',"windows":{"time:60":[[5,2,3,0]]}' + END,
        HEAD + ',"windows":{"time:60":[[5,2,1]]}' + END,
        HEAD + ',"windows":{"time:60":[7]}' + END,
        HEAD + ',"windows":{"time:60":[]}' + END,
        HEAD + ',"windows":{"count:09":[1,"1","0"]}' + END,
        HEAD + ',"late_count":2' + END,
        HEAD + ',"epoch":4' + END,
        HEAD + ',"failures":-1' + END,
        HEAD + ',"reason":"x"' + END,
        HEAD + ',"reason":"x' + END,
        HEAD + ',"new":{"x":1' + END,
        HEAD + ',"new":{"x":1' + END + "}",
        HEAD + "}" + END,
        HEAD + END + "\n",
        HEAD + END + END,
        HEAD + "," + END,
        HEAD + '," ":1' + END,
        HEAD + ',"last_error":"é"' + END,
        HEAD + ',"last_error":' + END,
        HEAD + ',"asks":' + "[" * 100_000 + END,
        HEAD.replace("closed", "open") + END,
        HEAD.replace("2", "3") + END,
        HEAD + "}",
        END,
        "",
    ],
)
def test_it_is_read_as_without_knowing(record: str) -> None:
    for known in (KNOWN, Rest(), Rest(until=3.0)):
        assert repr(_read(record.encode(), known)) == repr(_read(record.encode(), None))


@settings(deadline=None)
@given(st.integers(0, len(HEAD + END)), st.integers(0, 12), st.text('{}[]",:0a \\', max_size=4))
def test_it_is_read_as_without_knowing_whatever_is_damaged(at: int, gone: int, put: str) -> None:
    record = HEAD + END
    payload = (record[:at] + put + record[at + gone :]).encode()
    assert repr(_read(payload, KNOWN)) == repr(_read(payload, None))


@pytest.mark.parametrize("given_in_code", [None, {}, GIVEN])
def test_a_policy_knows_its_settings_again(given_in_code: Mapping[str, object] | None) -> None:
    def policy() -> CircuitBreakerPolicy:
        return CircuitBreakerPolicy(CircuitBreakerConfig(failure_threshold=99, given=given_in_code))

    def failed(here: CircuitBreakerPolicy, state: State) -> Any:
        return here.step(state, Report(9.0, 0, "failure", at=9.0, epoch=0, token=None, error="E")).state

    here, there = policy(), policy()
    state = here.initial()
    for late in (0, 3, 3):
        state = failed(there, here.decode(here.encode(failed(here, state.but(late_count=late)))))
        assert (state.settings, state.late_count) == (given_in_code or {}, late)
        if given_in_code is not None:
            assert state.settings is here.config.given or state.settings is there.config.given
    assert state.failures == 6


def test_what_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(TypeError, match="set has no form in JSON"):
        dumps({"a": {1}})
    with pytest.raises(ValueError, match="JSON"):
        dumps([float("nan")])


def test_any_number_of_shapes_is_read() -> None:
    for size in range(1, 101):
        state = decode(f'{HEAD},"windows":{{"count:{size}":[1,"1","0"]}}{END}'.encode())
        assert [*state.windows] == [f"count:{size}"]
