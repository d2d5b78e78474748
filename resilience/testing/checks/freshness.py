"""`is_current`: it tells without I/O whether a snapshot is still the last committed record."""

from __future__ import annotations

from resilience import clock
from resilience.storage import Capability
from resilience.testing.checks.registry import check
from resilience.testing.jobs import put
from resilience.testing.roads import AWAITED
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.storage import Key, Snapshot
    from resilience.testing.handle import Handle
    from resilience.testing.subject import Subject

AT_ONCE = 1.0
"""Seconds within which `is_current` must have learned of a commit elsewhere."""


def told(snapshot: Snapshot) -> bool:
    """Call `is_current`.

    :raises Violation: it raised, or answered something else than whether.
    """
    assert snapshot.is_current is not None  # noqa: S101 - who calls has looked; for the type checkers
    try:
        answer: object = snapshot.is_current()
    except Exception as error:
        raise Violation(
            f"is_current() raised {type(error).__name__}: {error}",
            "the engine calls it on the road of every call",
            "let it answer False where it cannot know, and raise nothing",
        ) from error
    return bool(answer)


def need_freshness(subject: Subject) -> None:
    """Go on only with a storage that gives `is_current`.

    :raises Skipped: it does not, and does not claim to.
    """
    key = subject.key()
    if subject.road == AWAITED and Capability.PUSH in subject.capabilities:
        _begin_to_hear(subject.handle, key)
    given = [subject.handle.load(key), subject.handle.put(key, b"{}"), subject.handle.load(key)]
    with_it = [snapshot.is_current is not None for snapshot in given]
    if not any(with_it):
        if Capability.PUSH in subject.capabilities:
            raise Violation(
                "it declares PUSH, and its snapshots have no is_current",
                "PUSH says that is_current learns of others' commits at once",
                "give each Snapshot an is_current, or drop PUSH from `capabilities`",
            )
        raise Skipped("snapshots have no is_current: the engine loads at each call (RESILIENCE_MAX_STALENESS)")
    if not all(with_it):
        cases = ("a load of nothing", "a save", "a load of a record")
        missing = ", ".join(case for case, there in zip(cases, with_it, strict=True) if not there)
        raise Violation(
            f"the Snapshot of {missing} has no is_current, others have",
            "the engine would load at each call as long as it holds that one",
            "give every Snapshot an is_current, also that of a record that does not exist yet",
        )


def _begin_to_hear(handle: Handle, key: Key) -> None:
    """Wait until a storage hears of commits: one that is awaited does not keep its first caller waiting for that."""
    end = clock.monotonic() + AT_ONCE
    while clock.monotonic() < end:
        snapshot = handle.load(key)
        if snapshot.is_current is not None and told(snapshot):
            return
        clock.sleep(0.005)


def _current(snapshot: Snapshot, which: str) -> None:
    if not told(snapshot):
        raise Violation(
            f"is_current() is False for {which}, which is the last committed record",
            "the engine loads at every call: the storage is slower than one that says nothing",
            "let it be True until somebody commits; if that cannot be known, give None",
        )


def _stale(snapshot: Snapshot, what: str, patience: float = 0.0) -> float:
    begun = clock.monotonic()
    while told(snapshot):
        if clock.monotonic() - begun >= patience:
            raise Violation(
                f"is_current() is still True for an old snapshot after {what}",
                "this process goes on with a state that is long gone: a breaker that others opened stays closed here",
                "compare something that every commit changes (a number in memory, a mapped word, a pushed message); if"
                " there is nothing of that kind, give is_current=None",
            )
        clock.sleep(0.0005)
    return clock.monotonic() - begun


@check("is_current tells of every commit of this process")
def check_is_current(subject: Subject) -> None:
    """Look at snapshots of every age."""
    need_freshness(subject)
    handle, key = subject.handle, subject.key()
    unborn = handle.load(key)
    _current(unborn, "the snapshot of a record that does not exist yet")
    first = handle.put(key, b'{"n": 1}')
    _stale(unborn, "the first save of the key")
    _current(first, "what save returned")
    loaded = handle.load(key)
    _current(loaded, "what load returned")
    second = handle.put(key, b'{"n": 2}')
    for old in (unborn, first, loaded):
        _stale(old, "a save")
    _current(second, "what save returned")
    _ended(subject, handle, key, second)
    for old in (unborn, first, loaded, second):
        _stale(old, "the record was deleted and born again")


def _ended(subject: Subject, handle: Handle, key: Key, last: Snapshot) -> None:
    if handle.can_delete:
        handle.delete(key)
        _stale(last, "a delete")
    handle.put(key, b'{"n": 1}')
    if subject.is_shared:
        before = handle.load(key)
        subject.another().put(key, b'{"n": 2}')
        _stale(before, "a save by another storage object of the same process", AT_ONCE)
        if handle.can_delete:
            before = handle.load(key)
            subject.another().delete(key)
            _stale(before, "a delete by another storage object of the same process", AT_ONCE)


@check("is_current tells of commits of other processes at once", after=("is_current", "visible"))
def check_is_current_elsewhere(subject: Subject) -> None:
    """Let another process commit, and look at snapshots of this one."""
    subject.need_processes()
    need_freshness(subject)
    handle, key = subject.handle, subject.key()
    unborn = handle.load(key)
    subject.in_process(put, key, b'{"n": 0}')
    slowest = _stale(unborn, "another process made the record", AT_ONCE)
    for number in range(subject.pick(3, 10)):
        held = handle.load(key)
        subject.in_process(put, key, b'{"n": %d}' % number)
        slowest = max(slowest, _stale(held, "a commit of another process", AT_ONCE))
    subject.measured["commit elsewhere to is_current, s"] = slowest
    if Capability.PUSH not in subject.capabilities:
        subject.note("is_current learns of other processes' commits at once: the storage may declare PUSH")
