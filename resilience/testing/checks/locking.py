"""The lock: it excludes, in time, and is free again."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageConflict, StorageLockTimeout
from resilience.testing.checks.registry import check
from resilience.testing.jobs import hold, touch, try_lock
from resilience.testing.roads import CALLED
from resilience.testing.subject import Background
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.storage import Key
    from resilience.testing.handle import Handle
    from resilience.testing.subject import Subject


def slack(subject: Subject) -> float:
    """Seconds by which a time-out may be overrun on a machine that has much else to do."""
    seconds: float = subject.pick(1.0, 2.0)
    return seconds


def need_lock(subject: Subject) -> None:
    """Go on only with a storage that has a lock.

    :raises Skipped: it works by compare-and-set alone.
    """
    if not subject.has_lock():
        raise Skipped("no lock (nullcontext): compare-and-set alone, which racing saves put to the proof")


@check("the lock is free again after its block, also when the block raises")
def check_lock_is_freed(subject: Subject) -> None:
    """Take the lock again and again."""
    handle, key = subject.handle, subject.key()
    for case in ("its block ended", "its block raised", "a conflict was raised inside"):
        error = {"its block raised": _Expected(), "a conflict was raised inside": StorageConflict("expected")}.get(case)
        try:
            with handle.lock(key):
                if error is not None:
                    raise error
        except (_Expected, StorageConflict) as raised:
            if raised is not error:
                raise
        again = Background(try_lock, handle, key, 0.5)
        if not again.result(0.5 + slack(subject) + 5):
            raise Violation(
                f"the lock is still held after {case}",
                "the first commit is the last one: every later one waits until its time is up",
                "give the lock back on every way out: a context manager with try/finally",
            )


class _Expected(Exception):
    """Raised inside a lock."""


_KEEP_OUT_THREADS = (
    "let resilience_lock hold a real lock per key until its block ends, for threads and for processes; or, if `save`"
    " compares and writes in one step, return contextlib.nullcontext()"
)
_KEEP_OUT_TASKS = (
    "use no lock that its thread may take twice (RLock): all tasks of a loop are one thread, and the lock is held while"
    " asave is awaited; or, if `asave` compares and writes in one step, return contextlib.nullcontext()"
)


@check("the lock excludes all other threads", after=("lock_is_freed", "lock_timeout"))
def check_lock_excludes_threads(subject: Subject) -> None:
    """Hold the lock in one thread, try it in another; and again with two objects in one process."""
    need_lock(subject)
    for other in (subject.handle, *([subject.another()] if subject.is_shared else [])):
        key = subject.key()
        with subject.handle.lock(key):
            got = Background(try_lock, other, key, 0.0).result(slack(subject) + 5)
        if got:
            peer = f"another {subject.peers.removesuffix('s')}"
            who = peer if other is subject.handle else "another storage object of the same process"
            raise Violation(
                f"{who} got the lock while it was held",
                "two commits run at once and overwrite each other: failures are lost, a breaker opens twice or never",
                _KEEP_OUT_THREADS if subject.road == CALLED else _KEEP_OUT_TASKS,
            )


@check("a time-out for the lock is honoured; 0 tries once", after=("lock_is_freed",))
def check_lock_timeout(subject: Subject) -> None:
    """Wait for a lock that is held."""
    need_lock(subject)
    handle = subject.handle
    for timeout in (0.0, 0.2):
        key = subject.key()
        with handle.lock(key):
            waiting = Background(_wait, handle, key, timeout)
            ended = waiting.is_done(timeout + slack(subject))
        if not ended:
            raise Violation(
                f"resilience_lock still waits {slack(subject):g} s after its time-out of {timeout:g} s",
                "a call that protects something hangs as long as anybody holds the lock; on an event loop everything"
                " hangs",
                "try once with timeout 0; else wait in steps, or with the lock's own time-out, until a deadline, and"
                " raise StorageLockTimeout",
            )
        got, seconds = waiting.result(1)
        if got:
            return  # it excludes nobody, which is another check's to say
        if seconds < timeout * 0.5:
            raise Violation(
                f"resilience_lock gave up after {seconds:.3f} s, though it had {timeout:g} s",
                "a commit that had to wait for a moment is lost",
                "try again until the time-out is up",
            )


def _wait(handle: Handle, key: Key, timeout: float) -> tuple[bool, float]:
    before = clock.monotonic()
    try:
        with handle.lock(key, timeout):
            return True, clock.monotonic() - before
    except StorageLockTimeout:
        return False, clock.monotonic() - before


@check("who waits for the lock gets it when it is free", after=("lock_timeout",))
def check_lock_is_handed_on(subject: Subject) -> None:
    """Free a lock that somebody waits for."""
    need_lock(subject)
    handle, key = subject.handle, subject.key()
    with handle.lock(key):
        waiting = Background(_wait, handle, key, 5.0)
        clock.sleep(0.05)
    got, seconds = waiting.result(5 + slack(subject))
    if not got or seconds > 3:
        raise Violation(
            f"a waiter did not get the lock within {seconds:.1f} s after it was free",
            "commits wait for nothing, and give up",
            "wake waiters, or look again every millisecond or so",
        )


@check("a load takes no lock", after=("lock_timeout",))
def check_load_takes_no_lock(subject: Subject) -> None:
    """Load while somebody holds the lock."""
    need_lock(subject)
    handle = subject.handle
    for label, stored in (("a record", True), ("nothing", False)):
        key = subject.key()
        version = handle.put(key, b"{}").version if stored else None
        with handle.lock(key):
            loading = Background(handle.load, key, 0.2)
            ended = loading.is_done(0.2 + slack(subject))
            try:
                found = loading.result(0.1).version if ended else None
                why = None if ended and found == version else "did not give what is committed"
            except StorageLockTimeout:
                why = "raised StorageLockTimeout"
        if why is not None or not ended:
            raise Violation(
                f"a load of {label} {why or 'waited'} while somebody held the lock",
                "every call of every process waits for whoever commits, or for who died while committing",
                "read without the lock: let commits be one step for readers",
            )


@check("save and delete beside a held lock end in time", after=("lock_timeout",), roads=(CALLED,))
def check_deadlines(subject: Subject) -> None:
    """Delete while somebody holds the lock; and call everything on a store that does not answer."""
    handle = subject.handle
    if handle.can_delete and subject.has_lock():
        key = subject.key()
        handle.put(key, b"{}")
        with handle.lock(key):
            deleting = Background(_ends, handle, key)
            ended = deleting.is_done(0.2 + slack(subject))
        if not ended:
            raise Violation(
                "resilience_delete did not end in time while somebody held the lock",
                "administration hangs",
                "pass `timeout` on to the lock, and let StorageLockTimeout out",
            )
        deleting.result(1)


def _ends(handle: Handle, key: Key) -> None:
    try:
        handle.delete(key, None, 0.2)
    except (StorageLockTimeout, StorageConflict):
        pass


@check("locks of two keys are two locks, or it is said that they are one", after=("lock_timeout",))
def check_lock_of_each_key(subject: Subject) -> None:
    """Take two locks at once; a storage with one lock for all may, but it is worth telling."""
    need_lock(subject)
    handle, one, two = subject.handle, subject.key("one"), subject.key("two")
    with handle.lock(one):
        free = Background(try_lock, handle, two, 0.0).result(slack(subject) + 5)
    if not free:
        subject.note("one lock serves all keys: commits of different breakers wait for each other")


@check("the lock excludes all other processes", after=("lock_excludes_threads",))
def check_lock_excludes_processes(subject: Subject) -> None:
    """Hold the lock here and try it in another process, and the other way round."""
    subject.need_processes()
    need_lock(subject)
    key = subject.key()
    with subject.handle.lock(key):
        theirs: bool = subject.in_process(try_lock, key, 0.0)
    with subject.signs() as signs:
        worker = subject.begin(0, hold, key, signs / "held", signs / "free", 10.0, None)
        subject_waits(signs / "held")
        ours: bool = Background(try_lock, subject.handle, key, 0.0).result(slack(subject) + 5)
        touch(signs / "free")
        worker.answer()
    if theirs or ours:
        raise Violation(
            "another process got the lock while it was held",
            "it excludes threads only: two processes commit at once and overwrite each other",
            "use a lock that all processes share (flock, a row lock, a key with a lease), besides one for the threads"
            " of this process; or drop PROCESSES from `capabilities`",
        )
    if not Background(try_lock, subject.handle, key, 5.0).result(5 + slack(subject)):
        raise Violation(
            "the lock is not free after another process gave it back",
            "no commit goes through any more",
            "give back in __exit__ what was taken, in the process that took it",
        )


def subject_waits(sign: str) -> None:
    """Wait for a sign of another process."""
    import os

    from resilience.testing.workers import wait_until

    wait_until(lambda: os.path.exists(sign), "the other process's lock", 20.0)  # noqa: PTH110 - a path as text
