"""Damaged records, and a store that does not answer."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageCorrupt, StorageError, StorageLockTimeout, StorageUnavailable
from resilience.storage import Capability
from resilience.testing.checks.locking import slack
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import Handle
from resilience.testing.jobs import LONG, checked, hurry, payload_of, was_saved
from resilience.testing.roads import CALLED
from resilience.testing.subject import Background
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.storage import Key
    from resilience.testing.subject import Subject


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


def _locked(handle: Handle, key: Key) -> None:
    with handle.lock(key, 0.2):
        pass
