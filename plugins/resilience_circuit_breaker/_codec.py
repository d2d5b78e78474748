"""The record of a circuit breaker: a JSON object that a person can read.

``{"schema":2,"state":"closed","epoch":2,"failures":1,"last_failure":1763826000.25,"last_error":"TimeoutError"}``

Fields are left out where they have the value of a breaker that nothing has happened to.  Permits are written as
``{"number":[taken_at,expires_at,anonymous]}``, those that ran out unreported as ``{"number":anonymous}``.

Windows are written by their shape, the one used last at the end: of calls as ``"count:100":[calls,"failures","slow"]``,
with bits in hexadecimal digits, the youngest call being the lowest; of time as ``"time:60":[[bucket,calls,failures,
slow],…]``; a streak of failures beside them as ``"consecutive":last_failure``.

Schema 1 had neither windows nor METRICS_ONLY; its records are read as they are.

A field that is not known here was written by a newer version and is kept as it is.  A change that an older version
must not overlook (a new state, another meaning of a field) raises `SCHEMA`: older versions then leave the record alone.
"""

from __future__ import annotations

from resilience.errors import StorageIncompatible
from resilience.policy import FOREVER
from resilience_circuit_breaker._config import BOUNDS
from resilience_circuit_breaker._state import (
    CLOSED,
    HALF_OPEN,
    LARGEST,
    NO_FIELDS,
    NO_PROBES,
    OPEN,
    STATES,
    Probes,
    State,
)
from resilience_circuit_breaker._window import (
    CONSECUTIVE,
    COUNT,
    MOST_BUCKETS,
    MOST_SHAPES,
    NO_WINDOWS,
    TIME,
    is_of_time,
    shape_of,
    summed,
    written,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from resilience_circuit_breaker._state import Held
    from resilience_circuit_breaker._window import Window, Windows

SCHEMA = 2

DEEPEST = 32
"""How many objects and arrays may stand in each other: what is read must be safe to write again."""
LONGEST = 1000
"""Characters of a text in a known field."""

_OF_PROBES = frozenset({"half_open_successes", "half_open_failures", "nonce", "next_permit", "permits", "lapsed"})
_KNOWN = _OF_PROBES | frozenset(
    {
        "schema",
        "state",
        "epoch",
        "since",
        "until",
        "reason",
        "failures",
        "last_failure",
        "last_error",
        "opened_at",
        "reopenings",
        "late_count",
        "settings",
        "windows",
        "rejected_count",
        "asks",
        "crossed",
    }
)


# --- writing ----------------------------------------------------------------------------------------------------------

_quote: Callable[[str], str] | None = None


def _load_quote() -> Callable[[str], str]:
    global _quote  # noqa: PLW0603 - imported once, when the first record is written
    from json.encoder import encode_basestring_ascii

    _quote = encode_basestring_ascii
    return _quote


def dumps(value: object) -> str:
    """JSON text without spaces."""
    import json

    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def encode(state: State, settings: str | None = None) -> bytes:
    """Write a state as JSON text in ASCII; `settings` is the text of the state's settings, if it is known."""
    quote = _quote or _load_quote()
    if settings is None:
        settings = dumps(state.settings) if state.settings else "{}"
    error = state.last_error
    tail = "" if error is None else f',"last_error":{quote(error)}'
    if settings != "{}":
        tail += f',"settings":{settings}'
    if (
        state.failures
        and state.last_failure is not None
        and state.state == CLOSED
        and state.since is None
        and state.until is None
        and state.opened_at is None
        and state.probes is NO_PROBES
        and not (
            state.reason
            or state.reopenings
            or state.late_count
            or state.extra
            or state.windows
            or state.rejected_count
            or state.asks
        )
    ):
        # The road of every counted failure.
        return (
            f'{{"schema":2,"state":"closed","epoch":{state.epoch},"failures":{state.failures},'
            f'"last_failure":{state.last_failure!r}{tail}}}'
        ).encode("ascii")
    text = f'{{"schema":{SCHEMA},"state":"{state.state}","epoch":{state.epoch}{_encode_numbers(state)}'
    if state.reason:
        text += f',"reason":{quote(state.reason)}'
    if state.windows:
        text += f',"windows":{{{",".join(map(_encode_window, state.windows.items()))}}}'
    if state.probes is not NO_PROBES:
        text += _encode_probes(state.probes, quote)
    if state.extra:
        tail += f",{dumps(state.extra)[1:-1]}"
    return f"{text}{tail}}}".encode("ascii")


def _encode_numbers(state: State) -> str:  # noqa: C901 - one question a field, as asking in a loop takes far longer
    text = ""
    if state.failures:
        text += f',"failures":{state.failures}'
    if state.since is not None:
        text += f',"since":{state.since!r}'
    if state.until is not None:
        text += f',"until":{state.until!r}'
    if state.last_failure is not None:
        text += f',"last_failure":{state.last_failure!r}'
    if state.opened_at is not None:
        text += f',"opened_at":{state.opened_at!r}'
    if state.reopenings:
        text += f',"reopenings":{state.reopenings}'
    if state.late_count:
        text += f',"late_count":{state.late_count}'
    if state.rejected_count:
        text += f',"rejected_count":{state.rejected_count}'
    if state.asks:
        text += f',"asks":{state.asks}'
    if state.crossed:
        text += ',"crossed":true'
    return text


def _encode_window(named: tuple[str, Window | float | None]) -> str:
    shape, window = named
    if not isinstance(window, tuple):
        return f'"{shape}":{"null" if window is None else repr(window)}'
    if is_of_time(shape):
        return f'"{shape}":{written(window)}'
    failures, slow = window[3] or (0, 0)
    return f'"{shape}":[{window[0]},"{failures:x}","{slow:x}"]'


def _encode_probes(probes: Probes, quote: Callable[[str], str]) -> str:
    text = ""
    if probes.successes:
        text += f',"half_open_successes":{probes.successes}'
    if probes.failures:
        text += f',"half_open_failures":{probes.failures}'
    if probes.nonce:
        text += f',"nonce":{quote(probes.nonce)}'
    if probes.next_permit != 1:
        text += f',"next_permit":{probes.next_permit}'
    if probes.permits:
        permits = ",".join(
            f'"{number}":[{taken_at!r},{expires_at!r},{"true" if anonymous else "false"}]'
            for number, (taken_at, expires_at, anonymous) in probes.permits.items()
        )
        text += f',"permits":{{{permits}}}'
    if probes.lapsed:
        lapsed = ",".join(
            f'"{number}":{"true" if anonymous else "false"}' for number, anonymous in probes.lapsed.items()
        )
        text += f',"lapsed":{{{lapsed}}}'
    return text


# --- reading ----------------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands there twice")
    return fields


_scan: Callable[[str, int], tuple[object, int]] | None = None


def _load_scan() -> Callable[[str, int], tuple[object, int]]:
    global _scan  # noqa: PLW0603 - imported once, when the first record is read
    from json import JSONDecoder

    _scan = JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_doubles).raw_decode
    return _scan


def decode(payload: bytes) -> State:
    """Read a state.

    :raises ValueError: it is damaged; the message says what is wrong.
    :raises StorageIncompatible: a newer version of the library wrote it.
    """
    scan = _scan or _load_scan()
    try:
        text = payload.decode("utf-8").strip()
        fields, end = scan(text, 0)
    except RecursionError:
        raise ValueError("the record is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the record is no JSON: {error}") from error
    if end != len(text):
        raise ValueError("the record is no JSON: something follows it")
    return _read(_object(fields, "JSON"))


def _read(fields: dict[str, Any]) -> State:
    take = fields.get
    schema = take("schema")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        if type(schema) is int and schema > SCHEMA:
            raise StorageIncompatible(
                f"the record has schema {schema}, this version of the library knows {SCHEMA}: upgrade the library"
            )
        raise ValueError(f"the record's schema is no whole number from 1: {_shown(schema)}")
    state = take("state")
    if state not in STATES or not isinstance(state, str):
        raise ValueError(f"the record's state is none of {', '.join(STATES)}: {_shown(state)}")
    since = _seconds(take("since"), "since")
    until = _seconds(take("until"), "until")
    if state == OPEN and until is None:
        raise ValueError("the record is open and has no until")
    if until is not None and (since is None or until < since):
        raise ValueError("the record's until does not follow its since")
    settings = _object(take("settings", NO_FIELDS), "settings")
    if settings:
        _check(settings)
    extra: Mapping[str, object] = NO_FIELDS
    if not _KNOWN.issuperset(fields):
        extra = {name: value for name, value in fields.items() if name not in _KNOWN}
        _check(extra)
    probes = NO_PROBES if _OF_PROBES.isdisjoint(fields) else _read_probes(fields)
    if state == HALF_OPEN and not probes.nonce:
        raise ValueError("the record is half-open and has no nonce")
    return State(
        STATES[STATES.index(state)],
        _count(take("epoch", 0), "epoch"),
        since,
        until,
        _text(take("reason", ""), "reason") or "",
        _count(take("failures", 0), "failures"),
        _seconds(take("last_failure"), "last_failure"),
        _text(take("last_error"), "last_error"),
        _seconds(take("opened_at"), "opened_at"),
        _count(take("reopenings", 0), "reopenings"),
        probes,
        _count(take("late_count", 0), "late_count"),
        settings,
        extra,
        _read_windows(fields["windows"]) if "windows" in fields else NO_WINDOWS,
        _count(take("rejected_count", 0), "rejected_count"),
        _count(take("asks", 0), "asks"),
        _flag(take("crossed", False), "crossed"),
    )


def _read_windows(value: object) -> Windows:
    windows: dict[str, Window | float | None] = {}
    for shape, content in _object(value, "windows").items():
        kind, _, size = shape.partition(":")
        if shape == CONSECUTIVE:
            windows[shape] = _seconds(content, "windows")
        elif (
            kind == COUNT
            and size.isdigit()
            and _is_number(size, "window_size")
            and shape == shape_of(COUNT, int(size), 0)
        ):
            windows[shape] = _read_calls(content, int(size))
        elif kind == TIME and _is_number(size, "window_duration") and shape == shape_of(TIME, 0, float(size)):
            windows[shape] = summed(_read_buckets(content))
        else:
            raise ValueError(f"the record's windows have one that is none: {_shown(shape)}")
    if len(windows) > MOST_SHAPES:
        raise ValueError(f"the record's windows are more than {MOST_SHAPES}")
    return windows


def _is_number(text: str, setting: str) -> bool:
    digits = text.replace(".", "", 1)
    least, most = BOUNDS[setting]
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and least <= float(text) <= most


def _read_calls(content: object, size: int) -> Window:
    calls, *masks = _items(content, 3)
    calls = _count(calls, "windows")
    failures, slow = (_mask(mask, calls) for mask in masks)
    if calls > size:
        raise ValueError(f"the record's windows have one that holds more than its size: {calls}")
    return calls, failures.bit_count(), slow.bit_count(), (failures, slow)


def _mask(digits: object, calls: int) -> int:
    if isinstance(digits, str) and digits and len(digits) <= calls // 4 + 1 and not digits.strip("0123456789abcdef"):
        mask = int(digits, 16)
        if mask.bit_length() <= calls:
            return mask
    raise ValueError(f"the record's windows have a call that is none: {_shown(digits)}")


def _read_buckets(content: object) -> list[tuple[int, int, int, int]]:
    buckets: list[tuple[int, int, int, int]] = []
    for bucket in _items(content, None):
        number, *counts = _items(bucket, 4)
        if type(number) is not int or abs(number) > LARGEST * 100 or (buckets and number <= buckets[-1][0]):
            raise ValueError(f"the record's windows have a bucket without its place: {_shown(bucket)}")
        calls, failures, slow = (_count(count, "windows") for count in counts)
        if not max(failures, slow, 1) <= calls:
            raise ValueError(f"the record's windows have a bucket that holds more than all: {_shown(bucket)}")
        buckets.append((number, calls, failures, slow))
    if len(buckets) > MOST_BUCKETS:
        raise ValueError(f"the record's windows have one with more than {MOST_BUCKETS} buckets")
    return buckets


def _items(value: object, length: int | None) -> list[Any]:
    if isinstance(value, list):
        items: list[Any] = value  # pyright: ignore[reportUnknownVariableType] - an array of JSON
        if length is None or len(items) == length:
            return items
    raise ValueError(f"the record's windows have one that is none: {_shown(value)}")  # pyright: ignore[reportUnknownArgumentType] - likewise


def _read_probes(fields: dict[str, Any]) -> Probes:
    take = fields.get
    next_permit = _count(take("next_permit", 1), "next_permit")
    permits: dict[int, Held] = {}
    for number, held in _numbered(take("permits", NO_FIELDS), "permits", next_permit):
        taken_at, expires_at, anonymous = _triple(held)
        span = _seconds(taken_at, "permits"), _seconds(expires_at, "permits")
        if span[0] is None or span[1] is None or span[1] < span[0]:
            raise ValueError(f"the record's permits have one that ends before it begins: {_shown(held)}")
        permits[number] = (span[0], span[1], _flag(anonymous, "permits"))
    lapsed = {
        number: _flag(anonymous, "lapsed")
        for number, anonymous in _numbered(take("lapsed", NO_FIELDS), "lapsed", next_permit)
    }
    return Probes(
        _text(take("nonce", ""), "nonce") or "",
        _count(take("half_open_successes", 0), "half_open_successes"),
        _count(take("half_open_failures", 0), "half_open_failures"),
        permits,
        lapsed,
        next_permit,
    )


def _numbered(value: object, name: str, next_permit: int) -> list[tuple[int, object]]:
    numbered: list[tuple[int, object]] = []
    for digits, item in _object(value, name).items():
        if not (digits.isascii() and digits.isdigit() and len(digits) < 14 and 0 < int(digits) < next_permit):
            raise ValueError(f"the record's {name} have a number that was never given: {_shown(digits)}")
        numbered.append((int(digits), item))
    return numbered


def _object(value: object, name: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value  # pyright: ignore[reportUnknownVariableType] - the fields of a JSON object are text
    raise ValueError(f"the record's {name} is no object: {_shown(value)}")


def _triple(value: object) -> list[Any]:
    if isinstance(value, list) and len(value) == 3:  # pyright: ignore[reportUnknownArgumentType] - an array of JSON
        return value  # pyright: ignore[reportUnknownVariableType] - likewise
    raise ValueError(f"the record's permits have one that is none: {_shown(value)}")  # pyright: ignore[reportUnknownArgumentType] - likewise


def _flag(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"the record's {name} have one that is neither true nor false: {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _count(value: object, name: str) -> int:
    if type(value) is int and 0 <= value <= LARGEST:
        return value
    raise ValueError(f"the record's {name} is no whole number from 0 to {LARGEST}: {_shown(value)}")


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    # Comparisons with what JSON reads 1e400 as, infinity, are false as well.
    if (type(value) is float or type(value) is int) and -LARGEST <= value <= LARGEST:
        return float(value)
    raise ValueError(f"the record's {name} is no number of seconds: {_shown(value)}")


def _text(value: object, name: str) -> str | None:
    if value is None or (type(value) is str and len(value) <= LONGEST):
        return value
    raise ValueError(f"the record's {name} is no text of at most {LONGEST} characters: {_shown(value)}")


def _check(fields: Mapping[str, object]) -> None:
    """Make sure that what is kept unread can be written again."""
    level: list[object] = [fields]
    for _ in range(DEEPEST):
        inside: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inside += value.values()  # pyright: ignore[reportUnknownArgumentType] - of any type
            elif isinstance(value, list):
                inside += value
            elif isinstance(value, float) and not -FOREVER < value < FOREVER:
                raise ValueError("the record has a number that is not finite")
        if not inside:
            return
        level = inside
    raise ValueError("the record is nested too deeply")
