"""How things are written for people and programs: escaped, aligned, as JSON."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from resilience.cli.shell import Unwritable

LONGEST_CELL = 60
"""Characters of a cell of a table on a terminal, unless it says otherwise."""
LONGEST_LINE = 2000
"""Characters of a message."""

_PIECE = 200
"""Lines of JSON that are put together before they are written."""

BOLD = "1"
DIM = "2"
RED = "31"
GREEN = "32"
YELLOW = "33"
"""Codes of ANSI terminals."""

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


class Painted(str):
    """Text that has a colour where there are colours."""

    __slots__ = ("colour",)

    colour: str


def paint(text: str, colour: str) -> Painted:
    """Give a text a colour."""
    painted = Painted(text)
    painted.colour = colour
    return painted


def escaped(text: str, longest: int | None = LONGEST_LINE) -> str:
    """Return a text on one line, without anything that a terminal obeys, and shortened to so many characters.

    :param longest: that many; `None`: it is not shortened.
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def closed() -> Unwritable:
    """Make the error that whoever prints gets where the standard output was closed before the start."""
    from resilience.cli.shell import Unwritable

    error = Unwritable()
    error.__cause__ = OSError("the standard output is closed")
    return error


def width(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(character) else 2 if east_asian_width(character) in "WF" else 1 for character in text)


def table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, colour: bool, longest: int | None = LONGEST_CELL
) -> str:
    """Return aligned columns under their titles; a column that is empty in all rows is left out.

    :param longest: characters that a cell may have; `None`: as many as it has.
    """
    body = [[_cell(text, longest) for text in row] for row in rows]
    if not body:
        return ""
    used = [index for index in range(len(titles)) if any(row[index] for row in body)]
    head: list[str] = [paint(titles[index], BOLD) for index in used]
    lines = [head, *([row[index] for index in used] for row in body)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(used))]
    return "".join(f"{_aligned(line, widths, colour=colour)}\n" for line in lines)


def _cell(text: str, longest: int | None) -> str:
    plain = escaped(text, longest)
    return paint(plain, text.colour) if isinstance(text, Painted) else plain


def _aligned(line: Sequence[str], widths: Sequence[int], *, colour: bool) -> str:
    parts: list[str] = []
    for text, wanted in zip(line, widths, strict=True):
        blank = " " * (wanted - width(text))
        parts.append((f"\x1b[{text.colour}m{text}\x1b[0m" if colour and isinstance(text, Painted) else text) + blank)
    return "  ".join(parts).rstrip()


def json_text(value: object) -> str:
    """Return JSON that a person can read too, in ASCII; what JSON has no form for is described."""
    import json

    return json.dumps(value, indent=2, default=described) + "\n"


def json_lines(values: Iterable[object]) -> Iterator[str]:
    """Return a list as JSON in pieces: a line for each value, without indentation, as there may be very many."""
    from resilience.jsontext import writer

    write = writer(colon=": ", comma=", ")
    lines: list[str] = []
    before = "[\n"
    for value in values:
        lines.append(write(value))
        if len(lines) == _PIECE:
            yield before + ",\n".join(lines)
            lines.clear()
            before = ",\n"
    if lines:
        yield before + ",\n".join(lines)
        before = ""
    yield "[]\n" if before == "[\n" else "\n]\n"


def described(value: object) -> str:
    """Return a value as text: a class as ``module:Class``, a list with commas between; nothing as ``none``."""
    if value is None or value in ([], ()):
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, type):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, list | tuple):
        return ",".join(map(described, value))  # pyright: ignore[reportUnknownArgumentType] - of anything
    return str(value)


def seconds(span: float) -> str:
    """Return a span of time as a person says it, in two or three digits."""
    span = max(0.0, span)
    for unit, size, until in (("s", 1.0, 2 * _MINUTE), ("min", _MINUTE, 2 * _HOUR), ("h", _HOUR, 2 * _DAY)):
        if span < until:
            return f"{span:.1f} {unit}" if span < 10 and unit == "s" else f"{span / size:.0f} {unit}"
    return f"{span / _DAY:.0f} d"
