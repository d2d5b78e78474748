"""The record: readable, whole, kept by older and newer versions, and safe to read whatever stands there."""

from __future__ import annotations

import json
from math import nextafter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.circuit_breaker.breaker_driver import START, Driver, token

from resilience import StorageIncompatible
from resilience.policy import FAILURE, FOREVER, SUCCESS
from resilience_circuit_breaker._codec import decode, encode
from resilience_circuit_breaker._config import CircuitBreakerConfig
from resilience_circuit_breaker._state import NO_PROBES, STATES, Probes, State
from resilience_circuit_breaker._window import summed
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

STREAK: dict[str, Any] = {
    "schema": 1,
    "state": "closed",
    "epoch": 4,
    "failures": 2,
    "last_failure": START,
    "last_error": "TimeoutError",
}
PROBING: dict[str, Any] = {
    "schema": 1,
    "state": "half_open",
    "epoch": 4,
    "failures": 3,
    "last_failure": START,
    "opened_at": START,
    "reopenings": 2,
    "late_count": 1,
    "half_open_successes": 1,
    "half_open_failures": 1,
    "nonce": "00000000000000aa",
    "next_permit": 7,
    "permits": {"5": [START, START + 60.0, False], "6": [START, START + 60.0, True]},
    "lapsed": {"1": True, "4": False},
}


def _bytes(record: object) -> bytes:
    return json.dumps(record).encode()


def _read(record: object) -> State:
    return decode(_bytes(record))


# --- readable ---------------------------------------------------------------------------------------------------------


def test_a_streak_reads_as_a_person_would_write_it() -> None:
    breaker = Driver(failure_threshold=3)
    breaker.report(FAILURE, error="TimeoutError")
    assert encode(breaker.state) == (
        b'{"schema":2,"state":"closed","epoch":0,"failures":1,"last_failure":1763826000.0000000,"last_error":"TimeoutError"}'
    )


def test_the_schema_stands_first_and_nothing_is_said_of_defaults() -> None:
    assert encode(State()) == b'{"schema":2,"state":"closed","epoch":0}'
    for state in STATES:
        assert encode(State(state)).startswith(b'{"schema":2,"state":"')


def test_a_half_open_record_holds_what_it_says() -> None:
    assert json.loads(encode(_read(PROBING))) == {**PROBING, "schema": 2}


@pytest.mark.parametrize(
    "fields",
    [
        {"failures": 2},
        {"failures": 2, "last_failure": 5.0, "since": 4.0},
        {"failures": 2, "last_failure": 5.0, "since": 4.0, "until": 6.0},
        {"failures": 2, "last_failure": 5.0, "opened_at": 4.0},
        {"failures": 2, "last_failure": 5.0, "reason": "r"},
        {"failures": 2, "last_failure": 5.0, "reopenings": 1},
        {"failures": 2, "last_failure": 5.0, "late_count": 1},
        {"failures": 2, "last_failure": 5.0, "half_open_successes": 1},
        {"failures": 2, "last_failure": 5.0, "unknown": 1},
        {"last_failure": 5.0},
    ],
)
def test_a_closed_record_keeps_what_is_unusual(fields: dict[str, object]) -> None:
    record = {"schema": 1, "state": "closed", "epoch": 0, **fields}
    assert json.loads(encode(_read(record))) == {**record, "schema": 2}


def test_every_field_has_its_name() -> None:
    state = State(
        "open",
        1,
        2.0,
        3.0,
        "r",
        4,
        5.0,
        "E",
        6.0,
        7,
        Probes("aa", 8, 9, {}, {}, 10),
        11,
        {"a": 1},
        {"b": 2},
        {"count:9": (3, 1, 2, (4, 3)), "time:60": summed([(5, 1, 0, 0), (6, 2, 1, 1)]), "consecutive": 9.5},
        12,
        13,
        True,
    )
    assert json.loads(encode(state)) == {
        "schema": 2,
        "state": "open",
        "epoch": 1,
        "since": 2.0,
        "until": 3.0,
        "reason": "r",
        "failures": 4,
        "last_failure": 5.0,
        "last_error": "E",
        "opened_at": 6.0,
        "reopenings": 7,
        "nonce": "aa",
        "half_open_successes": 8,
        "half_open_failures": 9,
        "next_permit": 10,
        "late_count": 11,
        "settings": {"a": 1},
        "windows": {"count:9": [3, "4", "3"], "time:60": [[5, 1, 0, 0], [6, 2, 1, 1]], "consecutive": 9.5},
        "rejected_count": 12,
        "asks": 13,
        "crossed": True,
        "b": 2,
    }


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x00", "é", "😀", "\ud800", "</script>", "\u2028"])
def test_any_text_comes_back(text: str) -> None:
    for state in (
        State(failures=1, last_failure=1.0, last_error=text),
        State("forced_open", reason=text, last_error=text),
    ):
        written = encode(state)
        assert written.isascii()
        assert decode(written) == state


@pytest.mark.parametrize("edge", [2.0**30, 2.0**31, 2.0**32, 2.0**33])
def test_the_time_of_a_failure_comes_back_to_the_bit_where_the_digits_change(edge: float) -> None:
    steps = [nextafter(edge, 0.0), edge, nextafter(edge, FOREVER), edge + 1 - 2.0**-19, edge + 0.5, edge - 2.0**-19]
    for second in steps:
        assert _told(second) == second


@given(st.floats(min_value=0.0, max_value=2.0**34))
@settings(max_examples=300)
def test_the_time_of_a_failure_comes_back_to_the_bit(second: float) -> None:
    assert _told(second) == second


def _told(second: float) -> float | None:
    """Write a failure of that second, alone and beside something else, and read it again."""
    alone = State(failures=1, last_failure=second, last_error="OSError")
    read = decode(encode(alone))
    assert read == alone
    assert decode(encode(alone.but(asks=7))) == alone.but(asks=7)
    return read.last_failure


def test_the_settings_given_in_code_are_written() -> None:
    given_in_code = {"failure_threshold": 5, "failure_on": ["builtins:OSError"]}
    policy = CircuitBreakerPolicy(CircuitBreakerConfig(failure_threshold=5, given=given_in_code))
    breaker = Driver(failure_threshold=5, given=given_in_code)
    breaker.fail()
    written = policy.encode(breaker.state)
    assert json.loads(written)["settings"] == given_in_code
    again = policy.decode(written)
    assert policy.encode(again) == written, "the same whether they come from the code or from the record"


# --- whole ------------------------------------------------------------------------------------------------------------

_counts = st.integers(0, 10**12)
_times = st.floats(-(10.0**12), 10.0**12)
_maybe_time = st.none() | _times
_text = st.text(max_size=1000)
_json: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
_unknown = st.dictionaries(st.text().map(lambda name: f"x-{name}"), _json, max_size=3)


_bucket_counts = st.tuples(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(0, 10**6)).map(
    lambda counts: (counts[0], min(counts[0], counts[1]), min(counts[0], counts[2]))
)


@st.composite
def _calls(draw: Any, size: int) -> Any:
    calls = draw(st.integers(0, size))
    failures, slow = (draw(st.integers(0, 2**calls - 1)) for _ in range(2))
    return calls, failures.bit_count(), slow.bit_count(), (failures, slow)


_buckets = st.dictionaries(st.integers(-(10**12), 10**12), _bucket_counts, max_size=20).map(
    lambda buckets: summed([(number, *counts) for number, counts in sorted(buckets.items())])
)
_windows = st.fixed_dictionaries(
    {},
    optional={
        "consecutive": _maybe_time,
        "count:1": _calls(1),
        "count:10000": _calls(10000),
        "time:60": _buckets,
        "time:0.5": _buckets,
    },
).filter(lambda windows: len(windows) <= 4)


@st.composite
def _states(draw: Any) -> State:
    state = draw(st.sampled_from(STATES))
    since, until = draw(_maybe_time), None
    if state == "open" or draw(st.booleans()):
        since = draw(_times)
        until = draw(st.floats(since, 10.0**12))
    next_permit = draw(st.integers(1, 10**12))
    number = st.integers(1, max(1, next_permit - 1))
    span = st.tuples(_times, _times).map(sorted)
    permits: dict[int, tuple[float, float, bool]] = {}
    lapsed: dict[int, bool] = {}
    if next_permit > 1:
        held = draw(st.dictionaries(number, st.tuples(span, st.booleans()), max_size=4))
        permits = {number: (times[0], times[1], anonymous) for number, (times, anonymous) in held.items()}
        lapsed = draw(st.dictionaries(number, st.booleans(), max_size=4))
    nonce = draw(st.text(min_size=1 if state == "half_open" else 0, max_size=20))
    probes = Probes(nonce, draw(_counts), draw(_counts), permits, lapsed, next_permit)
    return State(
        state,
        draw(_counts),
        since,
        until,
        draw(_text),
        draw(_counts),
        draw(_maybe_time),
        draw(st.none() | _text),
        draw(_maybe_time),
        draw(_counts),
        draw(st.sampled_from([Probes("aa") if state == "half_open" else NO_PROBES, probes])),
        draw(_counts),
        draw(_unknown),
        draw(_unknown),
        draw(_windows),
        draw(_counts),
        draw(_counts),
        draw(st.booleans()),
    )


@settings(deadline=None)
@given(_states())
def test_what_is_written_is_read(state: State) -> None:
    written = encode(state)
    assert decode(written) == state
    assert encode(decode(written)) == written
    canonical = json.loads(written)
    assert decode(_bytes(canonical)) == state
    assert decode(b" \n" + json.dumps(canonical, indent=2, sort_keys=True).encode() + b"\n") == state, "written by hand"


@settings(deadline=None)
@given(_unknown, _unknown, st.sampled_from([STREAK, PROBING]))
def test_what_a_newer_version_wrote_is_kept(
    unknown: dict[str, object], stored: dict[str, object], record: dict[str, object]
) -> None:
    breaker = Driver(failure_threshold=9, half_open_failure_threshold=9, half_open_max_calls=None)
    breaker.state = _read({**record, **unknown, "settings": stored})
    breaker.fail()
    breaker.control("force_open")
    breaker.control("reset")
    written = json.loads(encode(breaker.state))
    assert {name: written[name] for name in unknown} == unknown
    assert written.get("settings", {}) == stored


# --- hostile ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "no JSON"),
        (b"\x00\x01\x02", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"{", "no JSON"),
        (b'{"schema":1', "no JSON"),
        (b"[]", "JSON is no object"),
        (b"null", "JSON is no object"),
        (b"1", "JSON is no object"),
        (b'"closed"', "JSON is no object"),
        (b'{"schema":1,"state":"closed"}{}', "something follows it"),
        (b'{"schema":1,"state":"closed"} x', "something follows it"),
        (b'{"schema":1,"state":"closed","state":"open"}', "stands there twice"),
        (b'{"schema":1,"state":"closed","settings":{"a":1,"a":1}}', "stands there twice"),
        (b'{"schema":1,"state":"closed","last_failure":NaN}', "NaN is no number"),
        (b'{"schema":1,"state":"closed","last_failure":Infinity}', "Infinity is no number"),
        (b'{"schema":1,"state":"closed","unknown":-Infinity}', "-Infinity is no number"),
        (b'{"schema":1,"state":"closed","last_failure":1e400}', "last_failure is no number of seconds"),
        (b'{"schema":1,"state":"closed","unknown":[{"a":1e400}]}', "not finite"),
        (b'{"schema":1,"state":"closed","settings":{"a":-1e400}}', "not finite"),
        (b'{"schema":1,"state":"closed","epoch":' + b"9" * 5000 + b"}", "JSON|epoch is no whole number"),
        (b'{"schema":1,"state":"closed","unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
        (b'{"schema":1,"state":"closed","unknown":' + b"[" * 33 + b"]" * 33 + b"}", "too deeply"),
        (b'{"schema":1,"state":"closed","settings":' + b'{"a":' * 33 + b"1" + b"}" * 34, "too deeply"),
    ],
)
def test_what_is_no_record_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(payload)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schema": None}, "schema is no whole number from 1: None"),
        ({"schema": 0}, "schema is no whole number from 1: 0"),
        ({"schema": -1}, "schema is no whole number"),
        ({"schema": True}, "schema is no whole number"),
        ({"schema": 1.0}, "schema is no whole number"),
        ({"schema": "2"}, "schema is no whole number"),
        ({"state": None}, "state is none of closed, open"),
        ({"state": 1}, "state is none of"),
        ({"state": []}, "state is none of"),
        ({"state": "ajar"}, "state is none of"),
        ({"state": "CLOSED"}, "state is none of"),
        ({"state": "x" * 10**6}, "…$"),
        ({"state": "open"}, "open and has no until"),
        ({"state": "open", "until": 5.0}, "until does not follow its since"),
        ({"since": 6.0, "until": 5.0}, "until does not follow its since"),
        ({"state": "half_open"}, "half-open and has no nonce"),
        ({"epoch": -1}, "epoch is no whole number"),
        ({"epoch": 1.5}, "epoch is no whole number"),
        ({"epoch": None}, "epoch is no whole number"),
        ({"epoch": True}, "epoch is no whole number"),
        ({"epoch": 10**12 + 1}, "epoch is no whole number"),
        ({"failures": -3}, "failures is no whole number"),
        ({"failures": "3"}, "failures is no whole number"),
        ({"reopenings": -1}, "reopenings is no whole number"),
        ({"late_count": []}, "late_count is no whole number"),
        ({"half_open_successes": -1}, "half_open_successes is no whole number"),
        ({"half_open_failures": -1}, "half_open_failures is no whole number"),
        ({"last_failure": "now"}, "last_failure is no number of seconds"),
        ({"last_failure": True}, "last_failure is no number of seconds"),
        ({"last_failure": 10**13}, "last_failure is no number of seconds"),
        ({"opened_at": []}, "opened_at is no number of seconds"),
        ({"since": {}}, "since is no number of seconds"),
        ({"until": "5"}, "until is no number of seconds"),
        ({"last_error": 5}, "last_error is no text"),
        ({"last_error": "E" * 1001}, "last_error is no text of at most 1000"),
        ({"reason": ["r"]}, "reason is no text"),
        ({"nonce": 5}, "nonce is no text"),
        ({"settings": []}, "settings is no object"),
        ({"settings": None}, "settings is no object"),
        ({"next_permit": -1}, "next_permit is no whole number"),
        ({"next_permit": 5, "permits": []}, "permits is no object"),
        ({"next_permit": 5, "permits": {"1": 5}}, "permits have one that is none"),
        ({"next_permit": 5, "permits": {"1": [1, 2]}}, "permits have one that is none"),
        ({"next_permit": 5, "permits": {"1": [1, 2, False, 4]}}, "permits have one that is none"),
        ({"next_permit": 5, "permits": {"1": [2, 1, False]}}, "ends before it begins"),
        ({"next_permit": 5, "permits": {"1": [None, 1, False]}}, "ends before it begins"),
        ({"next_permit": 5, "permits": {"1": [1, None, False]}}, "ends before it begins"),
        ({"next_permit": 5, "permits": {"1": ["a", 1, False]}}, "permits is no number of seconds"),
        ({"next_permit": 5, "permits": {"1": [1, 2, 0]}}, "permits have one that is neither true nor false"),
        ({"next_permit": 5, "permits": {"5": [1, 2, False]}}, "a number that was never given"),
        ({"next_permit": 5, "permits": {"0": [1, 2, False]}}, "a number that was never given"),
        ({"next_permit": 5, "permits": {"-1": [1, 2, False]}}, "a number that was never given"),
        ({"next_permit": 5, "permits": {"²": [1, 2, False]}}, "a number that was never given"),
        ({"next_permit": 5, "permits": {"1" * 5000: [1, 2, False]}}, "a number that was never given"),
        ({"permits": {"1": [1, 2, False]}}, "a number that was never given"),
        ({"lapsed": 5}, "lapsed is no object"),
        ({"rejected_count": -1}, "rejected_count is no whole number"),
        ({"asks": 1.5}, "asks is no whole number"),
        ({"crossed": 1}, "crossed have one that is neither true nor false"),
        ({"windows": []}, "windows is no object"),
        ({"windows": {"ewma:5": []}}, "windows have one that is none: 'ewma:5'"),
        ({"windows": {"count": [0, "0", "0"]}}, "windows have one that is none"),
        ({"windows": {"count:0": [0, "0", "0"]}}, "windows have one that is none"),
        ({"windows": {"count:10001": [0, "0", "0"]}}, "windows have one that is none"),
        ({"windows": {"count:01": [0, "0", "0"]}}, "windows have one that is none"),
        ({"windows": {"count:1.5": [0, "0", "0"]}}, "windows have one that is none"),
        ({"windows": {"time:60.0": []}}, "windows have one that is none"),
        ({"windows": {"time:1e3": []}}, "windows have one that is none"),
        ({"windows": {"time:²": []}}, "windows have one that is none"),
        ({"windows": {"time:0.01": []}}, "windows have one that is none"),
        ({"windows": {"time:" + "9" * 5000: []}}, "windows have one that is none"),
        ({"windows": {"consecutive": "now"}}, "windows is no number of seconds"),
        ({"windows": {f"count:{size}": [0, "0", "0"] for size in range(1, 6)}}, "windows are more than 4"),
        ({"windows": {"count:9": 5}}, "windows have one that is none: 5"),
        ({"windows": {"count:9": [1, "0"]}}, "windows have one that is none"),
        ({"windows": {"count:9": [10, "0", "0"]}}, "holds more than its size: 10"),
        ({"windows": {"count:9": [-1, "0", "0"]}}, "windows is no whole number"),
        ({"windows": {"count:9": [2, "4", "0"]}}, "windows have a call that is none: '4'"),
        ({"windows": {"count:9": [9, "", "0"]}}, "windows have a call that is none"),
        ({"windows": {"count:9": [9, "F", "0"]}}, "windows have a call that is none"),
        ({"windows": {"count:9": [9, 5, "0"]}}, "windows have a call that is none"),
        ({"windows": {"count:9": [9, "0" * 10**6, "0"]}}, "windows have a call that is none"),
        ({"windows": {"time:60": [5]}}, "windows have one that is none: 5"),
        ({"windows": {"time:60": [[1, 1, 0]]}}, "windows have one that is none"),
        ({"windows": {"time:60": [[1.5, 1, 0, 0]]}}, "a bucket without its place"),
        ({"windows": {"time:60": [[10**15, 1, 0, 0]]}}, "a bucket without its place"),
        ({"windows": {"time:60": [[2, 1, 0, 0], [2, 1, 0, 0]]}}, "a bucket without its place"),
        ({"windows": {"time:60": [[2, 1, 2, 0]]}}, "a bucket that holds more than all"),
        ({"windows": {"time:60": [[2, 1, 0, 2]]}}, "a bucket that holds more than all"),
        ({"windows": {"time:60": [[2, 0, 0, 0]]}}, "a bucket that holds more than all"),
        ({"windows": {"time:60": [[2, -1, 0, 0]]}}, "windows is no whole number"),
        ({"windows": {"time:60": [[number, 1, 0, 0] for number in range(21)]}}, "more than 20 buckets"),
        ({"next_permit": 5, "lapsed": {"1": 5}}, "lapsed have one that is neither true nor false"),
        ({"next_permit": 5, "lapsed": {"x": True}}, "a number that was never given"),
    ],
)
def test_a_field_that_cannot_be_is_refused_by_its_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _read({"schema": 1, "state": "closed", **fields})


def test_a_message_never_repeats_a_long_text() -> None:
    with pytest.raises(ValueError, match="last_error") as caught:
        _read({**STREAK, "last_error": "E" * 10**6})
    assert len(str(caught.value)) < 300


def test_a_newer_schema_is_left_alone() -> None:
    with pytest.raises(StorageIncompatible, match="schema 3, this version of the library knows 2"):
        _read({"schema": 3, "state": {"anything": "else"}})


@pytest.mark.parametrize("record", [STREAK, PROBING])
def test_a_record_of_schema_1_is_read_as_it_is(record: dict[str, object]) -> None:
    state = _read({**record, "schema": 1})
    assert state == _read({**record, "schema": 2})
    assert (state.windows, state.rejected_count, state.asks, state.crossed) == ({}, 0, 0, False)


def test_times_in_the_future_and_before_1970_are_read() -> None:
    assert _read({**STREAK, "last_failure": 9e11}).last_failure == 9e11
    assert _read({**STREAK, "last_failure": -5}).last_failure == -5.0


def test_unknown_fields_may_be_as_deep_as_can_be_written_again() -> None:
    payload = b'{"schema":1,"state":"closed","unknown":' + b"[" * 31 + b"]" * 31 + b"}"
    assert (
        encode(decode(payload)) == b'{"schema":2,"state":"closed","epoch":0,"unknown":' + b"[" * 31 + b"]" * 31 + b"}"
    )


def test_a_record_from_elsewhere_works_on() -> None:
    breaker = Driver(half_open_success_threshold=2)
    breaker.state = _read(PROBING)
    breaker.now = START + 1
    breaker.report(SUCCESS, token="00000000000000aa-4")
    assert breaker.state.state == "closed"
    probing = Driver(half_open_max_calls=3)
    probing.state, probing.now = _read(PROBING), START + 1
    assert token(probing.let_in()) == "00000000000000aa-7"
    probing.refused()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.sampled_from([_bytes(STREAK), _bytes(PROBING)]), st.integers(0, 10**6), st.data())
def test_damage_is_an_error_or_a_record_that_works(payload: bytes, place: int, data: Any) -> None:
    damaged = bytearray(payload)
    if damaged:
        damaged[place % len(damaged)] = data.draw(st.integers(0, 255))
    try:
        state = decode(bytes(damaged))
    except (ValueError, StorageIncompatible):
        return
    breaker = Driver()
    breaker.state = state
    breaker.admit()
    breaker.report(FAILURE)
    assert decode(encode(breaker.state)) == breaker.state
