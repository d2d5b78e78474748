"""Damaged records, a store that does not answer, and a process that stands still in the middle of a commit."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageConflict, StorageCorrupt, StorageError, StorageLockTimeout, StorageUnavailable
from resilience.storage import Capability, Snapshot, Version
from resilience.testing.checks.locking import slack, subject_waits
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import Handle
from resilience.testing.jobs import LONG, checked, hurry, made, payload_of, touch, was_saved, write_until
from resilience.testing.roads import CALLED
from resilience.testing.subject import Background
from resilience.testing.violations import Skipped, Violation
from resilience.testing.workers import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.storage import Key
    from resilience.testing.subject import Subject
    from resilience.testing.workers import Worker


@check("a damaged record raises StorageCorrupt; set aside, it makes room; others are untouched")
def check_damaged(subject: Subject) -> None:
    """Damage a record, load it, set it aside, save anew."""
    if subject.damage is None:
        raise Skipped("no way to damage a record was given: define damage(storage, key), or give --damage")
    handle, key, neighbour = subject.handle, subject.key(), subject.key("neighbour")
    kept = handle.put(neighbour, b'{"n": 0}')
    saved = handle.put(key, b'{"n": 1}')
    subject.damage(handle.storage, key)
    for who in (handle, *([subject.another()] if subject.is_shared else [])):
        if _is_corrupt(who, key, saved.payload):
            continue
        subject.note("a damaged record is healed: load gives the one that was committed")
        return
    if handle.load(neighbour).version != kept.version:
        raise Violation(
            "the record of another key is gone after one was damaged",
            "one damaged record takes others with it",
            "keep each record by itself, and check each by itself",
        )
    if not handle.can_discard:
        subject.note("without resilience_discard a damaged record stays until it is removed by hand")
        return
    with handle.lock(key):
        handle.discard(key, "conformance: damaged on purpose")
        found = handle.load(key)
        if found.version is not None:
            raise Violation(
                f"after a damaged record was set aside, load gives version {found.version}",
                "the engine begins anew only when nothing is stored",
                "let discard leave nothing behind where load looks",
            )
        version = handle.save(key, b'{"n": 2}', None).version
    if version is None or version == saved.version:
        raise Violation(
            "the record after a damaged one has the version of the damaged one",
            "who held the old version overwrites the new record",
            "draw a new random incarnation",
        )


@check(
    "a save over a damaged record is refused, but for one with its version", kit=SECOND, after=("conflicts", "damaged")
)
def check_damaged_saves(subject: Subject) -> None:
    """Damage a record, and save with versions that it never had or has no more."""
    if subject.damage is None:
        raise Skipped("no way to damage a record was given: define damage(storage, key), or give --damage")
    handle, key = subject.handle, subject.key()
    old = handle.put(key, b'{"n": 1}').version
    kept = handle.put(key, b'{"n": 2}')
    subject.damage(handle.storage, key)
    for who in (handle, *([subject.another()] if subject.is_shared else [])):
        for wrong, case in (
            (None, "`expected` None"),
            (old, "the version before the stored one"),
            (Version("never stored", 2), "a version that was never stored"),
        ):
            _refuses(who, key, wrong, case, kept)


def _refuses(handle: Handle, key: Key, wrong: Version | None, case: str, kept: Snapshot) -> None:
    current: object = None
    try:
        with handle.lock(key):
            handle.save(key, b'{"n": "over damage"}', wrong)
        done = "was committed"
    except StorageCorrupt:
        done = ""
    except StorageConflict as conflict:
        done, current = "", conflict.current
    if not done:
        try:
            found = handle.load(key)
            done = "" if found.version == kept.version else f"was refused, and load gives version {found.version}"
        except StorageCorrupt:
            pass
    if not done and current is not None and (not isinstance(current, Snapshot) or current.version != kept.version):
        done = f"raised StorageConflict with {current!r} as what is stored"
    if done:
        raise Violation(
            f"a save with {case} over a damaged record {done}",
            "whoever comes late begins anew without a word: an open breaker is closed, no `state_reset` is told, and"
            " nothing is left to inspect",
            "a damaged record is not 'nothing stored': raise StorageCorrupt from save as from load, or StorageConflict"
            " without `current`; the engine loads, and sets the record aside by resilience_discard",
        )


def _is_corrupt(handle: Handle, key: Key, payload: bytes | None) -> bool:
    try:
        found = handle.load(key)
    except StorageCorrupt:
        return True
    except StorageError as error:
        seen = f"load of it raised {type(error).__name__}"
    else:
        if found.payload == payload:
            return False
        seen = "load of it found nothing" if found.payload is None else f"load of it gave {len(found.payload)} bytes"
    raise Violation(
        f"a record was damaged, and {seen}",
        "an open breaker is closed and nobody is told: with StorageCorrupt the engine sets the record aside and tells"
        " `state_reset`",
        "keep a checksum with payload and version, check it at each load, and raise StorageCorrupt; 'nothing stored' is"
        " only for what is not there",
    )


@check("making a storage changes and reaches nothing, or it is said what it does", kit=SECOND, roads=(CALLED,))
def check_made(subject: Subject) -> None:
    """Let a process that has made a storage before make another one, and tell what that does."""
    subject.need_processes()
    for done in subject.in_process(made, subject.factory):
        subject.note(f"making a storage {done}: if its constructor does, let it do no I/O, but connect at first use")


@check("a store that does not answer is StorageUnavailable, in time", after=("hooks",))
def check_unreachable(subject: Subject) -> None:
    """Call every hook of a storage whose store does not answer."""
    if subject.unreachable is None:
        raise Skipped("no storage without a store was given: define unreachable(), or give --unreachable")
    try:
        handle = Handle.open(subject.unreachable)
    except StorageError as error:
        raise Violation(
            f"making a storage whose store does not answer raised {type(error).__name__}",
            "a program does not start while its store is down",
            "do no I/O in the constructor: connect at first use",
        ) from error
    key, longest = subject.key(), 0.0
    for name, call in (
        ("resilience_load", lambda: handle.load(key, 0.2)),
        ("resilience_lock", lambda: _locked(handle, key)),
        ("resilience_save", lambda: handle.save(key, b"{}", None, timeout=0.2)),
    ):
        begun = clock.monotonic()
        calling = Background(call)
        if not calling.is_done(0.2 + slack(subject)):
            raise Violation(
                f"{name} with a time-out of 0.2 s did not return in {clock.monotonic() - begun:.1f} s",
                "each call of each process hangs while the store is down",
                "set the time-outs of the driver (connect and read) to `timeout`, and its retries to none",
            )
        longest = max(longest, clock.monotonic() - begun)
        try:
            calling.result(1)
        except (StorageUnavailable, StorageLockTimeout):
            continue
        if name == "resilience_lock":
            continue  # nothing to reach: compare-and-set alone
        raise Violation(
            f"{name} answered although its store does not",
            "nobody is told that state is lost",
            "raise StorageUnavailable for anything wrong with the store",
        )
    if subject.road == CALLED and Capability.MACHINES in subject.capabilities and longest < REFUSED_WITHIN:
        subject.note(
            "the store refused at once, so no time-out was tried: let `unreachable` name a server that takes"
            " connections and answers nothing, a socket that listens"
        )


REFUSED_WITHIN = 0.15
"""Seconds, of the 0.2 that each call has: who is back by then has not waited for an answer."""


@check(
    "a save that runs out of time is done or not; what was said of it is true",
    kit=SECOND,
    after=("counts_threads",),
)
def check_hurried_saves(subject: Subject) -> None:
    """Save many keys at once in less time than that takes, and look at once and later what became of them."""
    takes = 0.0
    for _ in range(2):  # the first one opens what is needed
        begun = clock.monotonic()
        subject.handle.put(subject.key(), payload_of(1, "in time", LONG))
        takes = clock.monotonic() - begun
    hurried: list[tuple[Key, float, object]] = []
    for _ in range(subject.pick(3, 10)):
        crowd = [(subject.key(), subject.chance.uniform(0, 2 * takes)) for _ in range(16)]
        answers = subject.in_threads([(hurry, key, timeout) for key, timeout in crowd])
        hurried += [(key, timeout, answer) for (key, timeout), answer in zip(crowd, answers, strict=True)]
        _look_at_hurried(subject, hurried[-len(crowd) :])
    clock.sleep(max(0.02, 4 * takes))
    _look_at_hurried(subject, hurried)  # one that was said not to be saved must not be saved later either


def _look_at_hurried(subject: Subject, hurried: list[tuple[Key, float, object]]) -> None:
    for key, timeout, answer in hurried:
        number, _ = checked(subject.handle.load(key))
        said = was_saved(answer)
        if said is None or said == (number == 2):
            continue
        when = f"a save with a time-out of {timeout * 1e3:.2g} ms"
        if said:
            raise Violation(
                f"{when} returned a Snapshot, and what it saved is not there",
                "a failure that was counted is lost; a breaker opens too late or never",
                "return from save only what is committed",
            )
        raise Violation(
            f"{when} raised {type(answer).__name__}, as if nothing were saved; it was",
            "the engine commits that outcome again, and it counts twice",
            "raise StorageUnavailable with outcome_unknown=True from the moment at which the request may have been"
            " sent, for a time-out and for a connection that is lost; and send it no second time",
        )


@check(
    "while another process is stopped in the middle of a commit, loads end in time",
    kit=SECOND,
    after=("counts_processes", "load_takes_no_lock"),
    limit=60,
)
def check_stopped_writer(subject: Subject) -> None:
    """Stop a process that commits at any moment, many times, and load meanwhile: by this storage and by a new one."""
    subject.need_processes()
    subject.need_posix()
    handle, key, stops, late = subject.handle, subject.key(), subject.pick(20, 30), 0
    begun = clock.monotonic()
    handle.put(key, payload_of(1, "this process"))
    takes = clock.monotonic() - begun
    with subject.signs() as signs:
        seed = subject.chance.getrandbits(32)
        worker = subject.begin(0, write_until, key, "a writer", signs / "begun", signs / "end", seed, limit=60)
        subject_waits(signs / "begun")
        for _ in range(stops):
            clock.sleep(subject.chance.uniform(0, 0.001 + takes))
            late += _is_late_beside(subject, worker, key)
            if late == TOO_OFTEN:
                break
        touch(signs / "end")
        said = (
            f"while another process was stopped in the middle of its commits, {late} times, loads with a time-out of"
            f" {BRIEFLY:g} s took longer than {BRIEFLY + slack(subject):g} s, two in a row"
        )
        if late == TOO_OFTEN:
            raise _stopped(said)
        if late:
            subject.note(f"{said}; that is too seldom, of {stops} times, to tell whose fault it is")
        try:
            worker.answer(20.0)
        except Failed as failed:
            subject.workers.replace(worker)
            raise _stopped(f"a process that was stopped now and then could not go on: {failed.briefly}") from failed


def _is_late_beside(subject: Subject, worker: Worker, key: Key) -> bool:
    """Stop a process, and load by a storage in use and by one that was just made; whether one of them waits for it."""
    fresh = Handle.open(subject.factory, subject.road)
    try:
        worker.stop()
        try:
            # A machine that has much else to do is late by itself, now and then; beside who is stopped, all are.
            return any(
                all(_is_late(handle, key, slack(subject)) for _ in range(2)) for handle in (subject.handle, fresh)
            )
        finally:
            worker.resume()
    finally:
        fresh.close()


def _stopped(what: str) -> Violation:
    return Violation(
        what,
        "one process that is stopped, swapped out or debugged keeps every call of all others waiting",
        "let nothing that load calls wait longer than `timeout`: libraries have waits of their own, such as the 5 s of"
        " sqlite3.connect, a pool's time-out, a lock; set them to what is left, or to 0 and look again until the time"
        " is up, then raise StorageUnavailable",
    )


TOO_OFTEN = 3
"""Times that loads may not be late.  A good library may have its moment: who is stopped within a few instructions of a
commit of SQLite, in WAL mode, keeps its readers for seconds, whatever their time-outs are."""

BRIEFLY = 0.1
"""Seconds that a load has beside a process that is stopped."""


def _is_late(handle: Handle, key: Key, patience: float) -> bool:
    loading = Background(handle.load, key, BRIEFLY)
    if not loading.is_done(BRIEFLY + patience):
        return True
    try:
        loading.result(1)
    except StorageError:
        pass  # that others keep it from an answer may be said, in time
    return False


def _locked(handle: Handle, key: Key) -> None:
    with handle.lock(key, 0.2):
        pass
