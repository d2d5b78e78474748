"""What the command line reads beside the hooks: `records`, all of a kind in one go, and the `reader` for one look."""

from __future__ import annotations

from resilience.errors import StorageCorrupt
from resilience.plan import READER, named
from resilience.storage import Key, Snapshot
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import arguments_of, looked_at
from resilience.testing.roads import CALLED
from resilience.testing.subject import KIND
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilience.testing.handle import Handle
    from resilience.testing.subject import Subject

LISTED = f"{KIND}-read"
"""The kind of these records: that of other checks has hundreds."""

NAMES = (
    "plain",
    "Plain",
    "a b",
    "a/b",
    "..",
    ".x",
    "a%2Fb",
    "x.lock",
    "é",
    "e\u0301",
    "☂",
    "名前",
    "x" * 255,
    "l" * 970,
)
"""Of records that are read; what storages do to odd ones is another check's to find."""


class Stored:
    """Records as the command line may meet them: of odd names, of many commits, of 100 kB, gone, damaged, of others.

    :param subject: where they are stored.
    """

    def __init__(self, subject: Subject) -> None:
        handle = subject.handle
        prefix = subject.key("r").name
        self.keys = [subject.key(f"{prefix}{name}", LISTED, plain=True) for name in NAMES]
        self.others = [
            subject.key(key.name, kind, plain=True) for key in self.keys[:1] for kind in (KIND, f"{LISTED}2")
        ]
        for number, key in enumerate([*self.keys, *self.others]):
            handle.put(key, b'{"n": %d}' % number)
        for number in range(2):
            handle.put(self.keys[0], b'{"again": %d}' % number)
        handle.put(self.keys[1], b"x" * 100_000)
        self.gone = [subject.key(f"{prefix}never saved", LISTED, plain=True)]
        handle.load(self.gone[0])
        if handle.can_delete:
            self.gone.append(self.keys.pop(2))
            handle.delete(self.gone[1])
        self.damaged: list[Key] = []
        if subject.damage is not None:
            self.damaged.append(self.keys.pop(2))
            subject.damage(handle.storage, self.damaged[0])


def _loaded(handle: Handle, key: Key) -> Snapshot | None:
    """Load a record; `None` if it is damaged."""
    try:
        return handle.load(key)
    except StorageCorrupt:
        return None


def _differs(found: Snapshot, loaded: Snapshot | None) -> str:
    """Say how something that was read differs from what load gives, if it does."""
    if loaded is None:
        return f"gives version {found.version} for a damaged record, for which load raises StorageCorrupt"
    if found.version != loaded.version:
        return f"gives version {found.version}, load {loaded.version}"
    if found.payload != loaded.payload:
        return f"gives another payload than load, both with version {found.version}"
    return ""


@check(
    "records gives every record of a kind once, as load does, and nothing else",
    kit=SECOND,
    after=("names",),
    roads=(CALLED,),
)
def check_records(subject: Subject) -> None:
    """Read all records of a kind at once, and load each of them."""
    handle = subject.handle
    records = getattr(handle.storage, "records", None)
    if records is None:
        raise Skipped("the storage has no records(kind): `resilience status` lists the keys and loads each record")
    stored = Stored(subject)
    try:
        given: list[Any] = list(records(LISTED))
    except Exception as error:  # noqa: BLE001 - it may raise anything
        subject.note(f"records raised {type(error).__name__}: {error}; `resilience status` loads each record instead")
        return
    found = [_pair(item) for item in given]
    _lists(stored, [key for key, _ in found])
    for key, snapshot in found:
        if snapshot is not None and key in subject.keys:  # else it is to be loaded, or somebody else's
            wrong = _differs(snapshot, _loaded(handle, key))
            if wrong:
                raise _misread(f"of {_short(key)} records {wrong}")


def _lists(stored: Stored, listed: list[Key]) -> None:
    other = next((key for key in listed if key.kind != LISTED), None)
    if other is not None:
        raise _misread(f"records({LISTED!r}) lists {_short(other)}, a record of the kind {other.kind!r}")
    for key in stored.keys:
        if listed.count(key) != 1:
            raise _misread(f"records lists {_short(key)} {listed.count(key)} times; it is stored once")
    for key in stored.gone:
        if key in listed:
            raise _misread(f"records lists {_short(key)}, for which nothing is stored")


def _pair(item: Any) -> tuple[Key, Snapshot | None]:
    match item:
        case [Key() as key, None]:
            return key, None
        case [Key() as key, snapshot]:
            return key, looked_at("records", snapshot)
        case _:
            raise _misread(f"records gives {item!r}, not a pair of a Key and a Snapshot, or None in its place")


def _misread(what: str) -> Violation:
    return Violation(
        what,
        "`resilience status` shows it: a breaker that is not there, or another state than the breaker has",
        "let records read and check each record by the code that load uses: of the kind that was asked for, with kind"
        " and name as they were saved; give None for one that needs more than a look, a damaged one above all, or leave"
        " records out",
    )


def _short(key: Key) -> str:
    return f"{key.name!a}" if len(key.name) <= 60 else f"{key.name[:20]!a}…"


@check(
    "the `reader` that a storage names answers what load does, if it answers",
    kit=SECOND,
    after=("names",),
    roads=(CALLED,),
)
def check_reader(subject: Subject) -> None:
    """Let a new reader look at each record, before, between and after changes, and load it."""
    handle = subject.handle
    make = _maker(subject)
    stored = Stored(subject)
    key = subject.key("looked at", LISTED)
    looks = [*stored.keys, *stored.gone, *stored.damaged, *stored.others]
    answers = sum(_looked(handle, make, each) for each in looks)
    answers += _looked(handle, make, key)
    for number in range(2):
        handle.put(key, b'{"n": %d}' % number)
        answers += _looked(handle, make, key)
    with handle.lock(key):
        answers += _looked(handle, make, key)
    if not answers:
        subject.note("the reader raised at each look: `resilience check` takes the longer way by the storage each time")


def _maker(subject: Subject) -> Callable[[], Any]:
    """Return what makes a reader as `resilience check` does."""
    storage: Any = subject.handle.storage
    name: str | None = getattr(storage, READER, None)
    if name is None:
        raise Skipped("the storage names no `reader`: `resilience check` asks the storage itself")
    arguments = arguments_of(subject.factory, storage)
    if arguments is None:
        raise Skipped("the factory is neither a URL nor functools.partial of the class: a reader is made as that")
    try:
        kind = named(name)
    except Exception as error:
        raise Violation(
            f"`reader` is {name!r}, and to import it raised {type(error).__name__}: {error}",
            "`resilience check` asks the storage itself, which takes longer, and nobody is told",
            "name a class by module and name, 'mine.reading:MyReader', whose import needs no more than a look does",
        ) from error
    return lambda: kind(*arguments)


def _looked(handle: Handle, make: Callable[[], Any], key: Key) -> bool:
    """Look at a record by a reader of its own, and see that it is what load gives; whether the reader answered."""
    reader: Any = None
    try:
        reader = make()
        answer: object = reader.resilience_load(key, 0.2)
    except Exception:  # noqa: BLE001 - whatever it is, the storage is asked
        return False
    finally:
        getattr(reader, "close", _nothing)()
    wrong = _differs(looked_at("the reader's resilience_load", answer), _loaded(handle, key))
    if wrong:
        raise Violation(
            f"of {_short(key)} the reader {wrong}",
            "`resilience check` lets a call in, or turns it away, by a state that the breaker does not have",
            "let reader and storage find, read and check a record by the same functions; let the reader raise what it"
            " likes where a look is not enough: then the storage is asked",
        )
    return True


def _nothing() -> None:
    pass
