"""JSON as the standard library reads and writes it, without its package: that imports `re`, which takes 13 ms.

What does the work is `_json`, the C part of the package, which stands alone.  An interpreter that has none, or another
one, gets the package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["dumps", "no_constant", "quote", "scanner", "writer"]


def no_constant(name: str) -> float:
    """Refuse ``NaN`` and ``Infinity``, which are no JSON.

    :raises ValueError: always.
    """
    raise ValueError(f"{name} is no JSON")


class _Grammar:
    """What the scanner asks for: JSON as it is."""

    strict = True
    object_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's

    def __init__(
        self,
        parse_constant: Callable[[str], object],
        object_pairs_hook: Callable[[list[tuple[str, Any]]], object] | None,
    ) -> None:
        self.parse_constant = parse_constant
        self.object_pairs_hook = object_pairs_hook


def scanner(
    parse_constant: Callable[[str], object] = no_constant,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], object] | None = None,
) -> Callable[[str, int], tuple[Any, int]]:
    """Make a function that reads the value at a place of a text: the value, and where it ends.

    The arguments are those of `json.JSONDecoder`.  The function raises `ValueError` if what stands there is no JSON or
    a hook says so, and `RecursionError` if it is nested too deeply.
    """
    try:
        from _json import make_scanner

        scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Grammar(parse_constant, object_pairs_hook))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] - any object with these attributes
    except (ImportError, AttributeError):  # pragma: no cover - an interpreter that has none, or another one
        return _decoder(parse_constant, object_pairs_hook)

    def read(text: str, start: int) -> tuple[Any, int]:
        try:
            return scan(text, start)
        except StopIteration as stop:
            raise ValueError(f"a value is expected at character {stop.value}") from None
        except (
            SystemError
        ):  # pragma: no cover - it looks for the package's error without importing it, up to Python 3.13
            return _decoder(parse_constant, object_pairs_hook)(text, start)

    return read


def _decoder(  # pragma: no cover - for interpreters other than the one that measures
    parse_constant: Callable[[str], object], object_pairs_hook: Callable[[list[tuple[str, Any]]], object] | None
) -> Callable[[str, int], tuple[Any, int]]:
    from json import JSONDecoder

    return JSONDecoder(parse_constant=parse_constant, object_pairs_hook=object_pairs_hook).raw_decode


def quote(text: str) -> str:
    """Write a text as a JSON string, in ASCII."""
    return _load_quote()(text)


def dumps(value: object) -> str:
    """Write a value as JSON without spaces, in ASCII.

    :raises ValueError: it holds infinity, NaN or itself.
    :raises TypeError: JSON has no form for it.
    """
    return writer()(value)


def writer(*, colon: str = ":", comma: str = ",") -> Callable[[object], str]:
    """Make a function that does what `dumps` does, for who has many values to write.

    :param colon: what parts a name from its value.
    :param comma: what parts two values.
    """
    try:
        from _json import make_encoder

        encode: Any = make_encoder({}, _no_form, _load_quote(), None, colon, comma, False, False, False)
    except (ImportError, TypeError):  # pragma: no cover - as above
        from json import dumps as write

        return lambda value: write(value, separators=(comma, colon), allow_nan=False)
    return lambda value: "".join(encode(value, 0))


def _no_form(value: object) -> object:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _load_quote() -> Callable[[str], str]:
    try:
        from _json import encode_basestring_ascii
    except ImportError:  # pragma: no cover - as above
        from json.encoder import encode_basestring_ascii
    return encode_basestring_ascii
