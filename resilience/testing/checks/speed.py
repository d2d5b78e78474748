"""What calls cost: their time beside the memory storage's, asserted only where it is declared; what they leave open."""

from __future__ import annotations

import gc
import os
import threading

from resilience import clock
from resilience.errors import StorageUnavailable
from resilience.storage import Capability
from resilience.testing.checks.locking import subject_waits
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.handle import Handle
from resilience.testing.jobs import fail_to_lock, hold, touch
from resilience.testing.roads import CALLED
from resilience.testing.subject import Background
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.storage import Key
    from resilience.testing.subject import Subject

INLINE_LIMIT = 0.01
"""Seconds that a commit of a storage that is called on an event loop takes at most, as the median of many."""


@check("it is as fast as it declares; how fast, beside the memory storage, is told", roads=(CALLED,))
def check_speed(subject: Subject) -> None:
    """Measure loads and commits."""
    from resilience.plugins import storage_class
    from resilience.selection import Selection

    times = subject.pick(50, 300)
    memory = Handle(storage_class("memory", Selection())("memory:", None))
    mine, theirs = _measure(subject.handle, subject, times), _measure(memory, subject, times)
    for what, seconds in mine.items():
        subject.measured[f"{what}, µs"] = seconds * 1e6
        subject.measured[f"{what}, times memory"] = seconds / theirs[what]
    if Capability.INLINE in subject.capabilities and mine["commit"] > INLINE_LIMIT:
        raise Violation(
            f"it declares INLINE, and a commit takes {mine['commit'] * 1e3:.1f} ms",
            "INLINE storages are called on the event loop, which stands still meanwhile",
            "drop INLINE from `capabilities`; the engine then calls it in a thread, or by resilience_aload",
        )


def _measure(handle: Handle, subject: Subject, times: int) -> dict[str, float]:
    key = subject.key()
    handle.put(key, b'{"n": 0}')
    return {
        "load": _median(lambda: handle.load(key), times),
        "commit": _median(lambda: handle.put(key, b'{"n": 1}'), times),
    }


def _median(function: Callable[[], object], times: int) -> float:
    taken: list[float] = []
    give_up = clock.monotonic() + 1.0
    while len(taken) < times and (not taken or clock.monotonic() < give_up):
        begun = clock.monotonic()
        function()
        taken.append(clock.monotonic() - begun)
    return sorted(taken)[len(taken) // 2]


@check("calls, and threads that end, leave nothing open", kit=SECOND, after=("round_trip", "lock_timeout"), limit=90)
def check_nothing_left_open(subject: Subject) -> None:
    """Call a storage again and again, in threads that end, for locks in vain, and where no store answers.

    What is open is counted before and after.
    """
    subject.need_posix()
    handle, key = subject.handle, subject.key()
    handle.put(key, b"{}")
    handle.load(key)
    before = _open_now()
    for _ in range(CALLS):
        handle.put(key, b"{}")
        handle.load(key)
        Background(handle.load, key).result(10.0)
    _see_little_open(before, "loads and saves, some of them in threads that have ended")
    if subject.has_lock():
        _lock_in_vain(subject)
    if subject.unreachable is None:
        return
    away = Handle.open(subject.unreachable, subject.road)
    _in_vain(away, key)
    before = _open_now()
    for _ in range(CALLS):
        _in_vain(away, key)
    _see_little_open(before, "loads from a store that does not answer")
    away.close()


PATIENCE = 25.0
"""Seconds that no crowd of calls takes that each wait for a millisecond, however much else a machine has to do."""

CALLS = 40
"""Of each kind."""

TOO_MANY = 30
"""That are open after them.  A pool that grows by less, or threads for calls of an event loop, are none of one for each
call; and something that was counted before may have ended meanwhile."""


def _lock_in_vain(subject: Subject) -> None:
    """Wait in vain for a lock that another thread of this process has, and for one that another process has."""
    handle, key = subject.handle, subject.key()
    with handle.lock(key):
        _count_in_vain(handle, key)
    if not subject.is_shared:
        return
    with subject.signs() as signs:
        worker = subject.begin(0, hold, key, signs / "held", signs / "free", 50.0, None, limit=60)
        subject_waits(signs / "held")
        _count_in_vain(handle, key)
        touch(signs / "free")
        worker.answer()


def _count_in_vain(handle: Handle, key: Key) -> None:
    Background(fail_to_lock, handle, key, 2).result(PATIENCE)
    before = _open_now()
    Background(fail_to_lock, handle, key, CALLS).result(PATIENCE)
    _see_little_open(before, "waits in vain for a lock that somebody else held")


def _in_vain(away: Handle, key: Key) -> None:
    try:
        away.load(key, 0.02)
    except StorageUnavailable:
        pass


def _open_now() -> int:
    """Count descriptors and threads."""
    gc.collect()
    return len(os.listdir("/dev/fd")) + threading.active_count()  # noqa: PTH208 - only how many


def _see_little_open(before: int, after: str) -> None:
    more = _open_now() - before
    if more >= TOO_MANY:
        raise Violation(
            f"{more} descriptors and threads more are open after {CALLS} {after}",
            "a program that runs for days cannot open a file or start a thread any more",
            "close what a call opens on every way out, after a time-out too (try/finally), or keep it for the next"
            " call; let what belongs to a thread end with it",
        )
