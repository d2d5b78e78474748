"""The kept plan: what the variables and the installed plugins came to, kept between runs of the command line.

To find the plugins, to read the variables and to check the settings takes some twenty times as long as to start an
interpreter, and comes to the same as long as nothing changes.  So what it came to is kept, and taken again if nothing
did change: this library, the interpreter, our variables, the folders where modules are looked for, the modules that
the plan names (`fingerprint`).  In doubt there is no plan, and everything is composed anew, errors included.

It is JSON and not `marshal`, which would be read sooner by nothing that can be measured: a damaged or a foreign file
can be no more than wrong.  The scanner is the standard library's own in C, without its package, whose import costs as
much as all else here.

No secret is in it: of the storage's URL only the scheme (the URL is read from its variable again), and nothing is kept
while a variable is set whose value nobody may see, or that nobody has checked.
"""

from __future__ import annotations

import os
import sys

from resilience import __version__
from resilience.jsontext import scanner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    from resilience.cli.verbs import Verb
    from resilience.policy import Policy
    from resilience.runtime import Runtime

__all__ = [
    "Plan",
    "Sealed",
    "find",
    "keep",
    "named",
    "names_of",
    "observers_of",
    "policy_of",
    "settings_of",
    "url_of",
    "verb_of",
]

STORAGE = "RESILIENCE_STORAGE"
DEFAULT = "file:"
"""The URL of the storage, if it is not set."""
SWITCH = "RESILIENCE_PLAN"
CONFIG = "RESILIENCE_CONFIG"
PLAIN = "plain_settings"
"""Attribute of a storage class that takes any object with the attributes of its `Settings`."""
READER = "reader"
"""Attribute of a storage class: ``module:Class`` of what only reads, sooner than the storage itself is loaded."""
_PREFIX = "RESILIENCE_"
_HOMES = ("HOME", "XDG_STATE_HOME")
"""They say what ``file:`` means."""
_FORMAT = 3
_MOST_BYTES = 1_000_000
_SECOND = 10**9
_STEP = 0.05
_COARSE_STEP = 2.05
"""Seconds within which two changes may have the same time: some 4 ms on most file systems, 2 s on the coarsest, which
notes whole seconds."""
_LEFT_BEHIND = 3600.0
"""Seconds after which a half-made plan was left behind by a process that was killed."""


class Sealed:
    """Settings that were checked before, with nothing but their values as attributes.

    What a storage gets from a kept plan instead of an instance of its model, if it says `plain_settings = True`.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self.__dict__.update(values)


class Plan:
    """What a run can take over from the one that composed.

    :param fields: what `resilience.planning` made, as JSON can hold it.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]


def url_of(plan: Plan, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the storage with the path that it means; `None` if that has to be found out."""
    url = environ.get(STORAGE, plan["filed_url"] or DEFAULT).strip()
    if url in {"file:", "file://"}:
        return plan["url"]  # type: ignore[no-any-return]
    return url if url.isprintable() else None


def settings_of(plan: Plan, kind: Any) -> Any:
    """Make the settings of the storage, without checking them again."""
    if plan["settings"] is None:
        return None
    return _sealed(kind, *plan["settings"])


def _sealed(kind: Any, values: Mapping[str, object], fields: Iterable[str]) -> Any:
    if getattr(kind, PLAIN, False):
        return Sealed(values)
    return kind.Settings.model_construct(set(fields), **values)


def policy_of(plan: Plan, kind: type[Policy], name: str, stored: Mapping[str, object] | None = None) -> Policy | None:
    """Make the policy of a guard that has no code; `None` if its settings have to be checked."""
    known = plan["policies"].get(kind.kind)
    if known is None:
        return None
    value, for_all, filed, for_names = known
    if named(value) is not kind:
        return None
    form = name
    if filed or for_names:
        from resilience.variables import normal_form

        form = normal_form(name) or name
    values = {**filed.get(form, for_all), **(stored or {}), **for_names.get(form, {})}
    try:
        policy: Policy = named(value).from_values(values)
    except ValueError:
        return None
    return policy


def names_of(plan: Plan, kind: type[Policy]) -> Collection[str] | None:
    """Return the names for which something is set, in their normal form; `None` if that has to be found out."""
    known = plan["policies"].get(kind.kind)
    return None if known is None or named(known[0]) is not kind else {*known[2], *known[3]}


def observers_of(
    plan: Plan, given: Iterable[object], runtime: Runtime
) -> list[tuple[str, Iterable[str], Callable[[], Any]]]:
    """Return name, hooks and maker of each observer; `given` are those that are not installed.

    An observer is made when there is something to tell it: many verbs tell nothing.
    """
    rest = iter(given)
    return [
        (label, told, _made(value, settings, runtime) if value is not None else _itself(next(rest)))
        for label, value, told, settings in plan["observers"]
    ]


def _itself(observer: object) -> Callable[[], object]:
    return lambda: observer


def _made(value: str, settings: list[Any] | None, runtime: Runtime) -> Callable[[], Any]:
    found: list[Any] = []

    def make() -> Any:
        if not found:
            plugin = named(value)
            if settings is not None:
                found.append(plugin(runtime, _sealed(plugin, *settings)))
            else:
                found.append(plugin() if isinstance(plugin, type) else plugin)
        return found[0]

    return make


def verb_of(plan: Plan, name: str) -> Verb | None:
    """Load one verb, and the policy that brings it instead of all; `None` if that is not to be had."""
    where = plan["verbs"].get(name)
    if where is None:
        return None
    try:
        verbs: Iterable[Verb] = named(where[0]).verbs()
        for verb in verbs:
            if verb.name == where[1]:
                return verb if verb.name == name else verb.named(name)
    except Exception:  # noqa: BLE001, S110 - the long way says what is wrong
        pass
    return None


def named(value: str) -> Any:
    """Import what an entry point names: ``module:Class``."""
    module, _, path = value.partition(":")
    __import__(module)
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    return found


# --- what must not have changed ---------------------------------------------------------------------------------------


def fingerprint(environ: Mapping[str, str]) -> list[Any]:
    """Return what a plan belongs to, as JSON holds it.

    A configuration file has its place here: its path, its device and inode, its size and the time of its last change.
    """
    variables = [
        [name, list(value.partition(":")[:2]) if name == STORAGE else value]
        for name, value in environ.items()
        if name in _HOMES or name[: len(_PREFIX)].upper() == _PREFIX
    ]
    return [
        _FORMAT,
        __version__,
        sys.version,
        sys.prefix,
        os.name,
        sorted(variables),
        [[entry, _changed(entry)] for entry in sys.path],
        configured(environ),
    ]


def configured(environ: Mapping[str, str]) -> list[Any] | None:
    """Return path and identity of the configuration file; `None` if there is none."""
    if not environ.get(CONFIG):
        return None
    from resilience.configfile import identify, path_of

    path = path_of(environ)
    return [path, None if path is None else identify(path)]


def _changed(path: str) -> list[int] | None:
    """When a folder or a file was changed last, and what else betrays another one; `None` if there is none."""
    try:
        status = os.stat(path or os.curdir)
    except (OSError, ValueError):
        return None
    return [status.st_mtime_ns, status.st_ino, 0 if path == "" else status.st_size]


def _is_settled(content: Sequence[Any], begun: float) -> bool:
    """Whether all that the content names was changed long enough before the composing began for a change to show.

    A file system notes times in steps: what is changed twice within one looks as it did after the first time.
    """
    (*_, folders, file), sources, _ = content
    times = [changed[0] for _, changed in (*folders, *sources) if changed is not None]
    if file is not None and file[1] is not None:
        times.append(file[1][-1])
    return all(begun - time / _SECOND > (_STEP if time % _SECOND else _COARSE_STEP) for time in times)


def _sources(values: Iterable[str]) -> list[list[Any]]:
    """Say of ``module:Class`` names which files they were read from: where they were found, and where they are made."""
    files: set[str] = set()
    for value in values:
        for place in (value.partition(":")[0], getattr(named(value), "__module__", "")):
            module = place
            while module:
                found = getattr(sys.modules.get(module), "__file__", None)
                if isinstance(found, str):
                    files.add(found)
                module = module.rpartition(".")[0]
    return [[file, _changed(file)] for file in sorted(files)]


# --- where it lies ----------------------------------------------------------------------------------------------------


def place(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return folder and name of the file: in this user's cache, one for each installation; `None`: there is none."""
    home = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(environ.get("HOME", ""), ".cache")
        if not os.path.isabs(home):
            return None
    installation = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in sys.prefix)
    return os.path.join(home, "resilience"), f"plan{installation[-150:]}.json"


_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _is_ours(status: os.stat_result, mode: int) -> bool:
    """Whether a file or a folder is this user's own, and nobody else may do anything with it."""
    kind = status.st_mode & 0o170000
    if sys.platform == "win32":  # pragma: no cover - there are no such owners and modes there; the profile is private
        return kind == mode & 0o170000
    return status.st_uid == os.geteuid() and kind == mode & 0o170000 and not status.st_mode & 0o077


_FOLDER, _FILE = 0o040700, 0o100600


def find(environ: Mapping[str, str]) -> Plan | None:
    """Return the kept plan, if there is one that may be trusted and everything is as it was when it was made."""
    at = place(environ)
    if at is None or environ.get(SWITCH) == "0":
        return None
    folder, name = at
    try:
        if not _is_ours(os.lstat(folder), _FOLDER):
            return None
        fd = os.open(os.path.join(folder, name), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _FLAGS)
        try:
            status = os.fstat(fd)
            if not _is_ours(status, _FILE) or status.st_size > _MOST_BYTES:
                return None
            text = os.read(fd, _MOST_BYTES).decode("ascii")
        finally:
            os.close(fd)
        content, end = scanner()(text, 0)
        seal, sources, fields = content
        if end != len(text) or type(fields) is not dict:
            return None
        if seal != fingerprint(environ) or any(_changed(file) != known for file, known in sources):
            return None
        return Plan(fields)  # pyright: ignore[reportUnknownArgumentType] - whatever JSON has
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def keep(environ: Mapping[str, str], fields: Mapping[str, Any], names: Iterable[str], begun: float) -> bool:
    """Keep a plan for the runs to come, and tell whether that was done.

    Others may do the same at the same time: each writes a file of its own and puts it into its place whole.

    :param names: ``module:Class`` of all that the plan relies on.
    :param begun: wall-clock seconds at which the composing began: what changed since then may have been missed.
    """
    import json

    at = place(environ)
    if at is None:
        return False
    folder, name = at
    try:
        content = [fingerprint(environ), _sources(names), fields]
        text = json.dumps(content, allow_nan=False)
        if json.loads(text) != content or len(text) > _MOST_BYTES:
            return False  # something that is not what it was when it is read again
        if not _is_settled(content, begun) or not _is_made(folder, environ.get("HOME", "")):
            return False
        _put(folder, name, text)
        _sweep(folder, name, begun)
    except (OSError, ValueError, TypeError, RecursionError):
        return False
    return True


def _is_made(folder: str, home: str) -> bool:
    """Make the folder, and those around it, if they are missing; tell whether it is there and ours alone.

    So the specification of these folders has it, with mode 0700.  Not a home that is missing: somebody wants none.  Nor
    where somebody else is at home, whose variables we have (`sudo`): he could never use what we make.
    """
    missing = [folder]
    while not os.path.lexists(around := os.path.dirname(missing[-1])):
        missing.append(around)
    if os.path.normpath(home) in missing:
        return False
    for path in reversed(missing):
        try:
            if os.stat(os.path.dirname(path)).st_uid == os.geteuid():
                os.mkdir(path, 0o700)
                if os.stat(path).st_mode & 0o700 != 0o700:
                    os.chmod(path, 0o700)  # a mask meant for files, such as 0177, took from us the right to enter
        except FileExistsError:
            pass
    return _is_ours(os.lstat(folder), _FOLDER)


def _put(folder: str, name: str, text: str) -> None:
    from secrets import token_hex

    path = os.path.join(folder, name)
    new = f"{path}.{token_hex(8)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    try:
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise


def _sweep(folder: str, name: str, now: float) -> None:
    """Drop what processes that were killed left half made."""
    for other in os.listdir(folder):
        path = os.path.join(folder, other)
        try:
            if other.startswith(f"{name}.") and now - os.lstat(path).st_mtime > _LEFT_BEHIND:
                os.unlink(path)
        except OSError:
            pass  # somebody else did
