"""The record of a circuit breaker: a JSON object that a person can read.

``{"schema":2,"state":"closed","epoch":2,"failures":1,"last_failure":1763826000.2500000,"last_error":"TimeoutError"}``

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

from _operator import le, lt  # see `resilience.storage`

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
    UNFIT,
    Probes,
    Rest,
    State,
    made_of,
)
from resilience_circuit_breaker._window import (
    BUCKETS,
    CONSECUTIVE,
    COUNT,
    MOST_BUCKETS,
    MOST_SHAPES,
    NO_WINDOWS,
    TIME,
    shape_of,
    summed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from resilience_circuit_breaker._state import Held
    from resilience_circuit_breaker._window import Window, Windows

SCHEMA = 2

DEEPEST = 32
"""How many objects and arrays may stand in each other: what is read must be safe to write again."""
LONGEST = 1000
"""Characters of a text in a known field."""

_COUNTED = frozenset({"schema", "state", "epoch", "since", "failures", "last_failure", "last_error", "windows", "asks"})
"""What a counted call changes, and the two before them."""
_OF_TIME = f"{TIME}:"
_FROM, _TO = 2.0**30, 2.0**33
"""Wall-clock seconds, from 2004 to 2242, that are written with seven digits after the point."""
_CLOSED = '{"schema":2,"state":"closed",'
_OF_PROBES = frozenset({"half_open_successes", "half_open_failures", "nonce", "next_permit", "permits", "lapsed"})
_KNOWN = (
    _COUNTED
    | _OF_PROBES
    | {"until", "reason", "opened_at", "reopenings", "late_count", "settings", "rejected_count", "crossed"}
)


# --- writing ----------------------------------------------------------------------------------------------------------

# The parts of the standard library's `json` that are written in C, without its package: to import that takes longer
# than anything else that a shell does with a record.

try:
    from _json import encode_basestring_ascii as quote
except ImportError:  # pragma: no cover - an interpreter that has it elsewhere
    from json.encoder import encode_basestring_ascii as quote


def dumps(value: object) -> str:
    """JSON text without spaces."""
    return "".join(_encoder()(value, False))


def _unwritable(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _encoder() -> Callable[[object, bool], Iterable[str]]:
    try:
        from _json import make_encoder
    except ImportError:  # pragma: no cover - likewise
        from json import JSONEncoder

        return JSONEncoder(separators=(",", ":"), allow_nan=False).iterencode
    # Markers against circles, what to do with others, how to quote, indent, separators, sort, skip, allow NaN.
    return make_encoder({}, _unwritable, quote, None, ":", ",", False, False, False)


def encode(state: State, /) -> bytes:
    """Write a state as JSON text in UTF-8, of which it needs ASCII only."""
    rest = state.rest
    end = rest.text
    if end is None:
        end = rest.text = encode_rest(rest)
    windows, failures, last_failure, last_error = state.windows, state.failures, state.last_failure, state.last_error
    if (
        not windows
        and last_error is not None
        and last_failure is not None
        and _FROM <= last_failure < _TO
        and failures
        and state.since is None
        and not state.asks
    ):
        # The record of every failure in a row: the text below, put together once, for 0.2 µs less.  Doubles of such
        # seconds are 2.4e-7 apart or more, so seven digits tell each from the next; to look for the fewest that do, as
        # `repr` does, takes 0.1 µs more.  The eighth in front keeps zeros that the others begin with.
        whole = int(last_failure)
        digits = str(int((last_failure - whole) * 1e7 + 10_000_000.5))[1:]
        return (
            f'{{"schema":2,"state":"{state.state}","epoch":{state.epoch},"failures":{failures}'
            f',"last_failure":{whole}.{digits},"last_error":{quote(last_error)}{end}'
        ).encode()
    text = f'{{"schema":2,"state":"{state.state}","epoch":{state.epoch}'
    if failures:
        text += f',"failures":{failures}'
    if state.since is not None:
        text += f',"since":{state.since!r}'
    if last_failure is not None:
        text += f',"last_failure":{last_failure!r}'
    if state.asks:
        text += f',"asks":{state.asks}'
    if windows:
        before = ',"windows":{'
        for shape, window in windows.items():
            text += f'{before}"{shape}":{_encode_window(shape, window)}'
            before = ","
        text += "}"
    if last_error is not None:
        text += f',"last_error":{quote(last_error)}'
    return f"{text}{end}".encode()


def _encode_window(shape: str, window: Window | float | None) -> str:
    if not isinstance(window, tuple):
        return "null" if window is None else repr(window)
    content = window[3]
    if shape.startswith(_OF_TIME):
        return f"[{content[1]}[%d,%d,%d,%d]]" % content[2] if content else "[]"
    failures, slow = content or (0, 0)
    return f'[{window[0]},"{failures:x}","{slow:x}"]'


def encode_rest(rest: Rest) -> str:  # noqa: C901 - one question a field
    """Write the end of a record: what seldom changes, each with a comma before it, and what closes the object."""
    text = ""
    if rest.until is not None:
        text += f',"until":{rest.until!r}'
    if rest.opened_at is not None:
        text += f',"opened_at":{rest.opened_at!r}'
    if rest.reopenings:
        text += f',"reopenings":{rest.reopenings}'
    if rest.late_count:
        text += f',"late_count":{rest.late_count}'
    if rest.rejected_count:
        text += f',"rejected_count":{rest.rejected_count}'
    if rest.crossed:
        text += ',"crossed":true'
    if rest.reason:
        text += f',"reason":{quote(rest.reason)}'
    if rest.probes is not NO_PROBES:
        text += _encode_probes(rest.probes)
    if rest.settings:
        text += f',"settings":{dumps(rest.settings)}'
    if rest.extra:
        text += f",{dumps(rest.extra)[1:-1]}"
    return f"{text}}}"


def _encode_probes(probes: Probes) -> str:
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


class _Grammar:
    """What the scanner asks for."""

    strict = True
    object_hook = None
    array_hook = None
    object_pairs_hook = staticmethod(_no_doubles)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_no_constant)
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner

        grammar: Any = _Grammar  # any object with these attributes
        return make_scanner(grammar)
    except (ImportError, AttributeError):  # pragma: no cover - an interpreter that has none, or one that asks for more
        from json import JSONDecoder

        return JSONDecoder(parse_constant=_no_constant, object_pairs_hook=_no_doubles).raw_decode


_scan = _scanner()


def decode(payload: bytes, known: Rest | None = None) -> State:
    """Read a state; if the record ends as `known` is written, `known` is what stands there.

    :raises ValueError: it is damaged; the message says what is wrong.
    :raises StorageIncompatible: a newer version of the library wrote it.
    """
    if known is not None:
        state = _decode_counted(payload, known)
        if state is not None:
            return state
    try:
        text = payload.decode("utf-8").strip()
        fields, end = _scan(text, 0)
    except RecursionError:
        raise ValueError("the record is nested too deeply") from None
    except StopIteration:
        raise ValueError("the record is no JSON: there is nothing where a value should be") from None
    except ValueError as error:
        raise ValueError(f"the record is no JSON: {error}") from error
    if end != len(text):
        raise ValueError("the record is no JSON: something follows it")
    return _read(_object(fields, "JSON"))


def _decode_counted(payload: bytes, known: Rest) -> State | None:
    """Read a closed state as we write it, which differs from one that was read before in what was counted; else `None`.

    Who shares a breaker reads one such record for each of his own commits.  Two thirds of it are in its end, settings
    for the most part, which stays the same to the letter; not to read that again makes reading twice as fast.  What
    stands before it must be whole without it, so the end is what follows the last of the fields.
    """
    if known.fit is UNFIT or not payload.isascii():
        return None
    end = known.text
    if end is None:
        end = known.text = encode_rest(known)
    text = payload.decode("ascii")
    if not text.startswith(_CLOSED) or not text.endswith(end):
        return None
    text = f"{text[: -len(end)]}}}"
    try:
        fields, length = _scan(text, 0)
        if length != len(text) or not _COUNTED.issuperset(fields):
            return None
        take = fields.get
        return made_of(
            CLOSED,
            _count(take("epoch", 0), "epoch"),
            _seconds(take("since"), "since"),
            _count(take("failures", 0), "failures"),
            _seconds(take("last_failure"), "last_failure"),
            _text(take("last_error"), "last_error"),
            _read_windows(fields["windows"]) if "windows" in fields else NO_WINDOWS,
            _count(take("asks", 0), "asks"),
            known,
        )
    except (ValueError, StopIteration, RecursionError):
        return None  # who reads all of it says what is wrong


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


_shapes: dict[str, tuple[str, int]] = {}
_MOST_KNOWN_SHAPES = 64


def _read_windows(value: object) -> Windows:
    windows: dict[str, Window | float | None] = {}
    for shape, content in _object(value, "windows").items():
        if shape == CONSECUTIVE:
            windows[shape] = _seconds(content, "windows")
            continue
        kind, size = _shapes.get(shape) or _parsed(shape)
        windows[shape] = _read_calls(content, size) if kind == COUNT else summed(_read_buckets(content))
    if len(windows) > MOST_SHAPES:
        raise ValueError(f"the record's windows are more than {MOST_SHAPES}")
    return windows


def _parsed(shape: str) -> tuple[str, int]:
    """Read the name of a shape, and remember it: there are few."""
    kind, _, size = shape.partition(":")
    parsed: tuple[str, int] | None = None
    if kind == COUNT:
        if size.isdigit() and _is_number(size, "window_size") and shape == shape_of(COUNT, int(size), 0):
            parsed = (COUNT, int(size))
    elif kind == TIME and _is_number(size, "window_duration") and shape == shape_of(TIME, 0, float(size)):
        parsed = (TIME, 0)
    if parsed is None:
        raise ValueError(f"the record's windows have one that is none: {_shown(shape)}")
    if len(_shapes) < _MOST_KNOWN_SHAPES:
        _shapes[shape] = parsed
    return parsed


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
    items = _items(content, None)
    buckets: list[tuple[int, int, int, int]] = []
    if _are_buckets(items):
        buckets += map(tuple, items)
        return buckets
    for bucket in items:
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


def _are_buckets(items: list[Any]) -> bool:
    """Whether all is well with up to ten buckets at once; if it is not, what is wrong is looked for one by one."""
    if not 0 < len(items) <= BUCKETS or {*map(type, items)} != {list} or {*map(len, items)} != {4}:
        return False
    numbers, calls, failures, slow = zip(*items, strict=True)
    return (
        {*map(type, numbers), *map(type, calls), *map(type, failures), *map(type, slow)} == {int}
        and all(map(lt, numbers, numbers[1:]))
        and numbers[0] >= -LARGEST * 100
        and numbers[-1] <= LARGEST * 100
        and min(calls) >= 1
        and max(calls) <= LARGEST
        and min(failures) >= 0
        and min(slow) >= 0
        and all(map(le, failures, calls))
        and all(map(le, slow, calls))
    )


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
