"""What each hook does when nobody else is there."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageConflict
from resilience.storage import Capability, Key, Snapshot, Version
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import conflict_of
from resilience.testing.roads import CALLED
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resilience.testing.handle import Handle
    from resilience.testing.subject import Subject

KNOWN = frozenset({Capability.PROCESSES, Capability.MACHINES, Capability.DURABLE, Capability.PUSH, Capability.INLINE})


TIME_PRECISION = 0.01
"""Seconds that the time of a store may be rounded by."""
_LAST_SECOND = 1e11

MANY_WITHIN = 5.0
"""Seconds that may go into saving many records."""


@check("the hooks fit their specifications, and the capabilities are known ones", after=(), roads=(CALLED,))
def check_hooks(subject: Subject) -> None:
    """Open the storage and look at what it declares."""
    given: Any = getattr(subject.handle.storage, "capabilities", None)
    if not isinstance(given, frozenset):
        raise Violation(
            f"`capabilities` is {'missing' if given is None else f'a {type(given).__name__}'}",
            "the engine reads from it how it may call the storage",
            "declare `capabilities = frozenset({Capability.PROCESSES, …})`, an empty frozenset if none fits",
        )
    declared = subject.capabilities
    unknown = sorted(map(str, set(declared) - KNOWN))
    if unknown:
        raise Violation(
            f"`capabilities` has {', '.join(map(repr, unknown))}, which means nothing",
            "a capability that is misspelt is one that the engine does not use",
            f"use the attributes of resilience.Capability: {', '.join(sorted(name.upper() for name in KNOWN))}",
        )
    if Capability.MACHINES in declared and Capability.PROCESSES not in declared:
        raise Violation(
            "it declares MACHINES without PROCESSES",
            "what all machines share, all processes of one machine share",
            "declare both",
        )


@check("a key without a record loads as nothing, and loading makes none", after=("hooks",))
def check_nothing_stored(subject: Subject) -> None:
    """Load what was never saved."""
    handle, key = subject.handle, subject.key()
    for _ in range(2):
        _holds(handle.load(key), None, None, "a key that was never saved")
    if handle.ports.keys is not None and key in set(handle.keys()):
        raise Violation(
            "resilience_keys lists a key that was only loaded",
            "`resilience status` shows breakers that nobody has",
            "list only keys that have a record",
        )


@check("what was saved is loaded: the same bytes, the version that save returned", after=("nothing_stored",))
def check_round_trip(subject: Subject) -> None:
    """Save and load payloads of many kinds."""
    handle = subject.handle
    payloads = [b"{}", '{"naïve": "☂"}'.encode(), bytes(range(256)), b"x" * 100_000, b"\n", b""]
    key = subject.key()
    version: Version | None = None
    for payload in payloads:
        with handle.lock(key):
            try:
                saved = handle.save(key, payload, version)
            except StorageConflict as error:
                raise Violation(
                    f"a save with the version that was just loaded ({version}) raised StorageConflict: {error}",
                    "no commit ever goes through",
                    "compare `expected` with the stored version: None with nothing stored, else incarnation and number",
                ) from error
        if saved.payload != payload:
            raise Violation(
                f"save of {len(payload)} bytes returned a Snapshot with {_size(saved)}",
                "the engine goes on with what save returned",
                "return the Snapshot of what was committed: the payload as it was given, with its new version",
            )
        version = saved.version
        _holds(handle.load(key), payload, version, f"a save of {len(payload)} bytes ({payload[:12]!r}…)")


@check("every save that was acknowledged is there")
def check_acknowledged(subject: Subject) -> None:
    """Save many times, and look after each."""
    handle, key = subject.handle, subject.key()
    version: Version | None = None
    for turn in range(subject.pick(30, 100)):
        payload = b'{"turn": %d}' % turn
        with handle.lock(key):
            version = handle.save(key, payload, version).version
        found = handle.load(key)
        if found.payload != payload or found.version != version:
            raise Violation(
                f"save number {turn + 1} was acknowledged with version {version}, and is not there:"
                f" load gives {found.version}",
                "a failure that was counted is lost; a breaker opens too late or never",
                "return from save only when the record is where every load finds it; raise StorageUnavailable, with"
                " outcome_unknown=True, if you cannot know",
            )


@check("versions count 1, 2, 3 … within one incarnation")
def check_versions(subject: Subject) -> None:
    """Save a few times and look at the versions."""
    handle, key = subject.handle, subject.key()
    before: Version | None = None
    for number in range(1, 6):
        with handle.lock(key):
            version = handle.save(key, b"{}", before).version
        if version is None or version.number != number:
            raise Violation(
                f"the version of commit {number} has the number {version and version.number}",
                "the engine and every tool count commits by it; a gap looks like a commit that nobody saw",
                "give the first save of a key number 1, each further one expected.number + 1; nothing else counts it",
            )
        if not version.incarnation:
            raise Violation(
                "the incarnation of a version is empty",
                "a record that was deleted and born again could match a version of its earlier life",
                "draw it at random at the first save of a key, uuid.uuid4().hex for example",
            )
        if before is not None and version.incarnation != before.incarnation:
            raise Violation(
                "the incarnation changed with a save",
                "the engine takes it for another record and decides anew on conflicts that are none",
                "keep the incarnation of `expected`; draw a new one only if nothing was stored",
            )
        before = version


@check("a save with another version than the stored one is a conflict, and changes nothing", after=("versions",))
def check_conflicts(subject: Subject) -> None:
    """Save with every wrong version there is."""
    handle, key = subject.handle, subject.key()
    stale = Version("never stored", 1)
    _refused(handle, key, stale, "nothing is stored", None)
    with handle.lock(key):
        first = handle.save(key, b'{"n": 1}', None)
    _refused(handle, key, None, "`expected` is None and a record is stored", first)
    with handle.lock(key):
        second = handle.save(key, b'{"n": 2}', first.version)
    assert second.version is not None  # noqa: S101 - the handle looked; for the type checkers
    for wrong, case in (
        (first.version, "`expected` is the version before the stored one"),
        (None, "`expected` is None and a record is stored"),
        (Version(second.version.incarnation, second.version.number + 1), "`expected` is a version to come"),
        (Version("another life", second.version.number), "`expected` has the number of another incarnation"),
        (_alike(second.version), "`expected` has the number of an incarnation that ends otherwise"),
    ):
        _refused(handle, key, wrong, case, second)


def _alike(version: Version) -> Version:
    incarnation = version.incarnation
    return Version(incarnation[:-1] + ("1" if incarnation.endswith("0") else "0"), version.number)


def _refused(handle: Handle, key: Key, wrong: Version | None, case: str, stored: Snapshot | None) -> None:
    with handle.lock(key):
        conflict = conflict_of(handle.save, key, b'{"n": "wrong"}', wrong)
    if conflict is None:
        raise Violation(
            f"resilience_save committed although {case}",
            "two processes that commit at once overwrite each other: failures are lost, a breaker opens twice or never",
            "compare the stored version (incarnation and number) with `expected` in the step that writes, and raise"
            " StorageConflict if they differ",
        )
    payload, version = (None, None) if stored is None else (stored.payload, stored.version)
    found = handle.load(key)
    if (found.payload, found.version) != (payload, version):
        raise Violation(
            f"a save that raised StorageConflict changed the record ({case})",
            "a commit that was refused is visible to others",
            "check first, then write; or write in a transaction and roll it back",
        )
    current: object = conflict.current
    if current is not None and not (
        isinstance(current, Snapshot) and (current.payload, current.version) == (payload, version)
    ):
        raise Violation(
            f"StorageConflict.current is {current!r}, stored is {version} ({case})",
            "the engine tries again with it instead of loading; a wrong one conflicts for ever",
            "set `current` to the Snapshot that is committed now, or leave it None",
        )


@check("a record that was deleted and born again never matches an old version", after=("conflicts",))
def check_born_again(subject: Subject) -> None:
    """Delete or discard a record, save it anew, and try the versions of its earlier life."""
    handle = subject.handle
    ways = [*(["delete"] if handle.can_delete else []), *(["discard"] if handle.can_discard else [])]
    if not ways:
        raise Skipped("the storage has neither resilience_delete nor resilience_discard")
    for way in ways:
        key = subject.key()
        with handle.lock(key):
            old = handle.save(key, b'{"life": 1}', None).version
        _end(handle, key, way)
        gone = f"a record that was gone by {way}"
        _holds(handle.load(key), None, None, gone, _TAKE_AWAY if way == "discard" else _LOAD_NOTHING)
        with handle.lock(key):
            late = conflict_of(handle.save, key, b'{"life": "late"}', old)
        if late is None:
            raise Violation(
                f"a save with the version of a record that is gone by {way} was committed",
                "the state of an earlier life comes back: a breaker that was removed is open again",
                "with nothing stored only `expected` None matches; anything else is StorageConflict",
            )
        with handle.lock(key):
            new = handle.save(key, b'{"life": 2}', None).version
        assert new is not None  # noqa: S101 - the handle looked; for the type checkers
        assert old is not None  # noqa: S101 - likewise
        if new.number != 1:
            raise Violation(
                f"the first save after a {way} got number {new.number}",
                "each life of a record counts from 1",
                "count from 1 again, in a new incarnation",
            )
        if new.incarnation == old.incarnation:
            raise Violation(
                f"after a {way} the versions begin again in the same incarnation: {old}, then {new}",
                "a process that slept through it holds a version that matches the new record, and overwrites it",
                "draw a new random incarnation whenever a key is saved with `expected` None",
            )
        _refused(handle, key, old, f"`expected` is of the life before a {way}", handle.load(key))


def _end(handle: Handle, key: Key, way: str) -> None:
    if way == "delete":
        handle.delete(key)
    else:
        with handle.lock(key):
            handle.load(key)
            handle.discard(key)


@check(
    "delete removes the record it was asked about, and says whether there was one",
    after=("conflicts",),
    roads=(CALLED,),
)
def check_delete(subject: Subject) -> None:
    """Delete nothing, a wrong version, the right one, and whatever is there."""
    handle = subject.handle
    if not handle.can_delete:
        raise Skipped("the storage has no resilience_delete")
    key = subject.key()
    if handle.delete(key):
        raise _miscounted("True although nothing was stored")
    with handle.lock(key):
        stored = handle.save(key, b"{}", None)
    conflict = conflict_of(handle.delete, key, Version("never stored", 1))
    if conflict is None or handle.load(key).version != stored.version:
        raise Violation(
            "resilience_delete removed a record of another version than `expected`",
            "a record that somebody has just saved is deleted by who looked before",
            "compare the stored version with `expected`, and raise StorageConflict if they differ",
        )
    if not handle.delete(key, stored.version):
        raise _miscounted("False although it removed a record")
    _holds(handle.load(key), None, None, "a deleted record")
    with handle.lock(key):
        handle.save(key, b"{}", None)
    if not handle.delete(key, None):
        raise _miscounted("False although it removed a record")
    _holds(handle.load(key), None, None, "a deleted record")


def _miscounted(what: str) -> Violation:
    return Violation(
        f"resilience_delete returned {what}",
        "people are told that a breaker was removed, or was not there",
        "return True if there was a record and it is gone, False if there was none",
    )


@check("keys lists every record once, and nothing else", roads=(CALLED,))
def check_keys(subject: Subject) -> None:
    """Save some, remove one, list."""
    handle = subject.handle
    if handle.ports.keys is None:
        raise Skipped("the storage has no resilience_keys: `resilience status` needs names")
    before = set(handle.keys())
    keys = [subject.key(name) for name in ("one", "two", "ünï cødé", "a/b")]
    ours = set(subject.keys)
    for key in keys:
        handle.put(key, b"{}")
    if handle.can_delete:
        handle.delete(keys[0])
        keys = keys[1:]
    for who, listed in (("resilience_keys", handle.keys()), ("that of a second object", subject.another().keys())):
        _lists(who, [key for key in listed if key in ours and key not in before], keys)  # others may use the same store


def _lists(who: str, mine: list[Key], keys: list[Key]) -> None:
    if sorted(mine) != sorted(keys):
        missing, extra = sorted(set(keys) - set(mine)), sorted(set(mine) - set(keys))
        said = f"misses {missing}" if missing else f"lists {extra}, which have no record" if extra else "repeats itself"
        raise Violation(
            f"{who} {said}",
            "`resilience status` shows another set of breakers than there is",
            "store kind and name in full, and list the key of each record that is there, once",
        )


SAME = "x" * 970
PLAIN = r"""
plain Plain PLAIN a/b a\b a:b a_b a-b a.b a%2Fb a%b a*b a'b a"b a;b a,b a?b a#b a+b a|b a&b a=b .. . ... - --help ~
$HOME %s {} con NUL aux.txt a. ends.lock ends.tmp .hidden 0 00 1 None null i I ss fi K
"""
TRICKY = ["a b", "a  b", "é", "e\u0301", "ß", "\ufb01", "\u0131", "\u212a", "☂", "🙂", "名前"]
LONG = [SAME, f"{SAME}a", f"{SAME}b", "l" * 255, "l" * 256]
ODD = [*PLAIN.split(), *TRICKY, *LONG]


@check("no name, however odd, reaches another name's record")
def check_names(subject: Subject) -> None:
    """Save a record under each of many odd names, and look at all of them."""
    handle = subject.handle
    prefix = subject.key("n").name
    keys = [subject.key(f"{prefix}{name}", plain=True) for name in ODD]
    keys += [
        subject.key(f"{prefix}:z", kind="conformance", plain=True),
        subject.key("z", kind=f"conformance:{prefix}", plain=True),
        subject.key(f"{prefix}plain", kind="Conformance", plain=True),
        subject.key(f"{prefix}plain", kind="conformance2", plain=True),
        subject.key(f"2{prefix}plain", kind="conformance", plain=True),
    ]
    for number, key in enumerate(keys):
        try:
            with handle.lock(key):
                handle.save(key, b'{"n": %d}' % number, None)
        except StorageConflict as error:
            raise _collision(handle, keys, number) from error
    _apart(handle, keys, 0)
    if handle.can_delete:
        handle.delete(keys[0])
        _apart(handle, keys, 1)
    if handle.ports.keys is not None:
        listed = set(handle.keys())
        for key in keys[1:]:
            if key not in listed:
                raise Violation(
                    f"resilience_keys does not list {_shown(key)} as it was saved",
                    "`resilience status` misses a breaker, or shows it under a name that nobody gave it",
                    "store kind and name in full beside the record; a safe file name alone cannot be turned back",
                )


def _apart(handle: Handle, keys: list[Key], begin: int) -> None:
    for number, key in enumerate(keys[begin:], begin):
        if handle.load(key).payload != b'{"n": %d}' % number:
            raise _collision(handle, keys, number)


def _collision(handle: Handle, keys: list[Key], number: int) -> Violation:
    key = keys[number]
    found = handle.load(key).payload
    other = next((one for n, one in enumerate(keys) if found == b'{"n": %d}' % n and one != key), None)
    seen = f"the record of {_shown(other)}" if other else "another record than was saved"
    return Violation(
        f"{_shown(key)} leads to {seen}",
        "two breakers share one state: one that fails opens the other",
        "make the place of a record from kind and name so that no two meet: encode every unsafe character, keep case"
        " apart, hash what is too long; never fold, strip, normalise or cut",
    )


def _shown(key: Key) -> str:
    name = key.name if len(key.name) <= 60 else f"{key.name[:20]}…{key.name[-20:]}"
    return f"{key.kind} {name!a} ({len(key.name)} characters)"


@check("a record is kept until it expires; `expires_at` is wall-clock seconds")
def check_expiry(subject: Subject) -> None:
    """Save with expiries of all kinds."""
    handle, key, lasting = subject.handle, subject.key(), subject.key()
    now = clock.wall()
    with handle.lock(key):
        version = handle.save(key, b'{"n": 1}', None, expires_at=now + 3600).version
    _kept(handle, key, version, "an hour from now")
    soon = clock.wall() + 0.75
    with handle.lock(lasting):
        lasts = handle.save(lasting, b'{"n": 1}', None, expires_at=soon).version
        _kept(handle, lasting, lasts, "less than a second from now")
        lasts = handle.save(lasting, b'{"n": 2}', lasts, expires_at=None).version
    with handle.lock(key):
        version = handle.save(key, b'{"n": 2}', version, expires_at=now + 10 * 365 * 86400).version
    _kept(handle, key, version, "ten years from now")
    past = subject.key()
    with handle.lock(past):
        saved = handle.save(past, b"{}", None, expires_at=now - 1)
        found = handle.load(past)
        if found.version is not None and found.version != saved.version:
            raise Violation(
                "a record that expired loads with another version than save returned",
                "it may be dropped or still be there; anything else is neither",
                "drop an expired record whole, or not at all",
            )
        handle.save(past, b'{"n": 2}', found.version)
    clock.sleep(max(0.0, soon + 0.05 - clock.wall()))
    _kept(handle, lasting, lasts, "taken back by a save with None")


def _kept(handle: Handle, key: Key, version: Version | None, when: str) -> None:
    if handle.load(key).version != version:
        raise Violation(
            f"a record whose expiry is {when} is gone",
            "an open breaker that forgets is closed; everything rushes to a dependency that is down",
            "take `expires_at` as seconds since the epoch (not milliseconds, not from now), and take an expiry back"
            " when a save has None",
        )


@check("the time of a snapshot, where it has one, is the store's while it gave this very answer")
def check_time(subject: Subject) -> None:
    """Ask a few times, with pauses, and see that all answers allow one difference between the two clocks."""
    handle, key = subject.handle, subject.key()
    low, high = float("-inf"), float("inf")
    for turn in range(6):
        sent = clock.monotonic()
        answer = handle.put(key, b"{}") if turn % 2 else handle.load(key)
        received = clock.monotonic()
        time: object = answer.time
        if time is None:
            continue
        if not isinstance(time, float | int) or not 0 <= time < _LAST_SECOND:
            raise Violation(
                f"a snapshot has the time {time!r}, which is no wall-clock second",
                "the engine takes it for a storage that does not answer",
                "give seconds since the epoch, as a number; None where the store has no clock",
            )
        low, high = max(low, time - received), min(high, time - sent)
        if low > high + TIME_PRECISION:
            raise Violation(
                f"the time of a snapshot is {low - high:.3f} s from where the ones before it say it should be",
                "all who share the storage go by it: an old time sets the clock of a whole process back",
                "ask the store for its time in the same request (TIME, clock_timestamp()), and give None with what"
                " comes out of a cache",
            )
        clock.sleep(0.02)
    if low == float("-inf"):
        raise Skipped("snapshots have no time: each machine goes by its own clock")
    subject.measured["time of the store, known to within, s"] = max(0.0, high - low)


@check("discard sets a record aside: then nothing is stored")
def check_discard(subject: Subject) -> None:
    """Discard a record under the lock."""
    handle = subject.handle
    if not handle.can_discard:
        raise Skipped("the storage has no resilience_discard: a damaged record stays until somebody removes it by hand")
    key, neighbour = subject.key(), subject.key("neighbour")
    handle.put(neighbour, b'{"n": 0}')
    handle.put(key, b"{}")
    with handle.lock(key):
        handle.load(key)  # as the engine does: what is set aside was read before, under the same lock
        handle.discard(key, "conformance: because")
        _holds(handle.load(key), None, None, "a record that was set aside, the lock still held", _TAKE_AWAY)
        handle.save(key, b'{"n": 2}', None)
    if handle.load(key).payload != b'{"n": 2}' or handle.load(neighbour).payload != b'{"n": 0}':
        raise Violation(
            "after a discard the record that was saved next is not there, or another key's is gone",
            "one damaged record takes others with it",
            "set aside the one record of the key, and leave its lock alone",
        )


@check(
    "without a lock, discard leaves alone what was saved since the record was read",
    kit=SECOND,
    after=("discard",),
    roads=(CALLED,),
)
def check_discard_spares(subject: Subject) -> None:
    """Load a record, let another object commit, and set aside what was loaded."""
    handle, key = subject.handle, subject.key()
    if not handle.can_discard:
        raise Skipped("the storage has no resilience_discard: a damaged record stays until somebody removes it by hand")
    if subject.has_lock():
        raise Skipped("the engine holds the lock from the load to the discard: nobody saves in between")
    handle.put(key, b'{"n": 1}')
    handle.load(key)
    saved = subject.another().put(key, b'{"n": 2}')
    with handle.lock(key):
        handle.discard(key, "conformance: of the record that was loaded")
    if handle.load(key).version != saved.version:
        raise Violation(
            "resilience_discard set aside a record that was saved after the one that was loaded",
            "two processes find a damaged record; the second one throws away what the first has begun anew",
            "remember, for each thread, what it loaded last of the key, and set aside only that: DELETE … WHERE it is"
            " what was seen",
        )


@check("hundreds of records are kept at once", kit=SECOND, after=("acknowledged",), roads=(CALLED,))
def check_many_records(subject: Subject) -> None:
    """Save under many keys, and look at all of them again."""
    handle, end = subject.handle, clock.monotonic() + MANY_WITHIN
    kept: list[tuple[Key, Version | None]] = []
    for _ in range(subject.pick(150, 1100)):
        if clock.monotonic() > end:
            subject.note(f"{len(kept)} records were kept at once; there was no time to save more")
            break
        key = subject.key()
        with handle.lock(key):
            kept.append((key, handle.save(key, b"{}", None).version))
    for number, (key, version) in enumerate(kept):
        if handle.load(key).version != version:
            raise Violation(
                f"of {len(kept)} records, all without an expiry, number {number + 1} is not there any more",
                "a breaker that is open is forgotten because others are busy",
                "keep each record until it is deleted or expires: no cache of so many entries, no store that evicts",
            )


@check("a second object for the same records sees them, and so does one made after all were closed")
def check_reopened(subject: Subject) -> None:
    """Save by one object, load by others."""
    subject.need_processes()
    key = subject.key()
    saved = subject.handle.put(key, b'{"n": 1}')
    _seen(subject.another().load(key), saved, "a second object in the same process")
    subject.handle.close()
    _seen(subject.another().load(key), saved, "an object that was made after the first was closed")
    _seen(subject.handle.load(key), saved, "the object itself, which was closed and is used again")


def _seen(found: Snapshot, saved: Snapshot, who: str) -> None:
    if (found.payload, found.version) != (saved.payload, saved.version):
        raise Violation(
            f"{who} loads {found.version}, not the {saved.version} that was saved",
            "each part of a program has its own breaker, and forgets it when it ends",
            "keep the records outside the object; after close() open again what a hook needs",
        )


_LOAD_NOTHING = "return Snapshot(None, None) where nothing is stored"
_TAKE_AWAY = (
    "let discard take the record that was loaded last away from where load looks; what it remembers of that belongs to"
    " the thread that has loaded it under the same lock"
)


def _holds(
    found: Snapshot, payload: bytes | None, version: Version | None, after: str, fix: str = _LOAD_NOTHING
) -> None:
    if (found.payload, found.version) == (payload, version):
        return
    if payload is None:
        raise Violation(
            f"load gives {_size(found)}, version {found.version}, after {after}",
            "the engine takes it for a state",
            fix,
        )
    if found.payload is None:
        raise Violation(
            f"load finds nothing after {after}",
            "a save that was acknowledged is lost",
            "return from save only when the record is where every load finds it",
        )
    raise Violation(
        f"load gives {_size(found)} with version {found.version}, not those with {version}, after {after}",
        "policies read a state that nobody wrote, or the engine conflicts with itself",
        "keep payloads byte for byte (no text encoding, no stripping, no limit that cuts), their version beside them",
    )


def _size(snapshot: Snapshot) -> str:
    return "no payload" if snapshot.payload is None else f"{len(snapshot.payload)} bytes"
