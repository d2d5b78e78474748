"""The configuration file: what ``RESILIENCE_CONFIG`` names.  Read whole, once; who it belongs to, `settings` says.

`tomllib` is imported here and nowhere else, when there is a file.
"""

from __future__ import annotations

import os
import stat

from resilience.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from typing import Any, cast
else:

    def cast(_: str, value: object) -> object:
        """Do what `typing.cast` does: nothing."""
        return value


VARIABLE = "RESILIENCE_CONFIG"
MOST_BYTES = 1_000_000

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_LONGEST_KEY = 80
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


class ConfigFile:
    """A configuration file that was read: its `path`, what it says (`tables`), and which file that was (`identity`)."""

    __slots__ = ("identity", "path", "tables")

    def __init__(self, path: str, tables: Mapping[str, Any], identity: list[int]) -> None:
        self.path = path
        self.tables = tables
        self.identity = identity

    def name_of(self, *keys: str) -> str:
        """Name a setting of it, for messages and as the source of a value: the path and the dotted key."""
        return f"{shown_path(self.path)}: {dotted(keys)}"


def path_of(environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of the file that the variable names; `None` if it names none."""
    path = environ.get(VARIABLE, "").strip()
    return os.path.abspath(path) if path and "\0" not in path else None


def identify(path: str) -> list[int] | None:
    """Tell one state of a file from another, by one system call; `None` if there is none that can be seen."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return _identity(status)


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def load(path: str) -> ConfigFile:
    """Read a configuration file.

    :raises ConfigurationError: it cannot be read, or is no TOML; the message names it and says where.
    """
    label = f"{VARIABLE}: {shown_path(path)}"
    try:
        fd = os.open(path, _FLAGS)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(f"{label} is not a file: name a file in TOML, or unset the variable")
            data = _read(fd)
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{label} cannot be read: {why}: mend it or unset the variable") from None
    if len(data) > MOST_BYTES:
        raise ConfigurationError(f"{label} has more than {MOST_BYTES} bytes: that is no configuration")
    try:
        text = data.decode("utf-8-sig")  # some editors begin a file with a mark
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{label} is not written in UTF-8 (line {line}): save it as UTF-8") from None
    return ConfigFile(path, _parsed(label, text), _identity(status))


def _read(fd: int) -> bytes:
    parts: list[bytes] = []
    left = MOST_BYTES + 1
    while left > 0 and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _parsed(label: str, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        why = "".join(letter if letter.isprintable() else "?" for letter in str(error)[:200])
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError:
        why = "a number in it has too many digits"
    raise ConfigurationError(f"{label} is no TOML: {why}")


def shown_path(path: str) -> str:
    """Return a path for a message: as it is, if it can do no harm."""
    return path if path.isprintable() else repr(path)


def dotted(keys: Iterable[str]) -> str:
    """Return keys as TOML writes them: ``policies."payments-api".circuit_breaker.failure_threshold``."""
    return ".".join(
        key if key and len(key) <= _LONGEST_KEY and _PLAIN.issuperset(key) else _quoted(key) for key in keys
    )


def _quoted(key: str) -> str:
    short = key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}…"
    text = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in short.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{text}"'


# --- where its parts belong -------------------------------------------------------------------------------------------


class Entry:
    """A value of the file with the keys that lead to it."""

    __slots__ = ("keys", "value")

    def __init__(self, keys: tuple[str, ...], value: object) -> None:
        self.keys = keys
        self.value = value


class Placed:
    """The values of a file by the place that they have, spelt as variables are, the last key as it stands there.

    `unknown` are the keys that have no place, `problems` complete messages.
    """

    __slots__ = ("core", "named", "problems", "sections", "unknown")

    def __init__(self) -> None:
        self.core: dict[str, Entry] = {}
        self.sections: dict[str, dict[str, Entry]] = {}
        self.named: dict[str, dict[str, dict[str, Entry]]] = {}
        self.unknown: list[tuple[str, ...]] = []
        self.problems: list[str] = []


NAMED = "policies"
"""The table of the guards that have settings of their own."""


def place(
    file: ConfigFile,
    form: Callable[[str], str],
    *,
    fields: Collection[str],
    sections: Collection[str],
    kinds: Collection[str],
) -> Placed:
    """Find out where the parts of a file belong.

    :param form: how a name is spelt in variables.
    :param fields: those of the core; `sections` and `kinds` have a section each, kinds also below a name.
    """
    placed = Placed()
    for key, value in file.tables.items():
        if key == NAMED:
            _place_named(file, form, kinds, value, placed)
        elif key in fields:
            placed.core[key] = Entry((key,), value)
        elif (section := form(key)) in sections:
            _place_section(file, section, (key,), value, placed.sections, placed)
        else:
            placed.unknown.append((key,))
    return placed


def _place_named(
    file: ConfigFile, form: Callable[[str], str], kinds: Collection[str], value: object, placed: Placed
) -> None:
    for name, inner in _items(file, (NAMED,), value, placed):
        into = placed.named.setdefault(form(name) or name, {})
        for kind, fields in _items(file, (NAMED, name), inner, placed):
            if form(kind) in kinds:
                _place_section(file, form(kind), (NAMED, name, kind), fields, into, placed)
            else:
                placed.unknown.append((NAMED, name, kind))


def _place_section(
    file: ConfigFile,
    section: str,
    keys: tuple[str, ...],
    value: object,
    into: dict[str, dict[str, Entry]],
    placed: Placed,
) -> None:
    if section in into:
        placed.problems.append(f"{file.name_of(*keys)}: this section stands there twice, spelt in two ways: join them")
        return
    into[section] = {key: Entry((*keys, key), item) for key, item in _items(file, keys, value, placed)}


def _items(file: ConfigFile, keys: tuple[str, ...], value: object, placed: Placed) -> Iterable[tuple[str, object]]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).items()
    placed.problems.append(f"{file.name_of(*keys)}: this is a section, not a setting: write [{dotted(keys)}]")
    return ()
