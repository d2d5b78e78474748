"""What workers and threads do to a storage, for the checks of many at once.

Every payload names the number that its commit must get, and carries a checksum: so a reader sees whether what it read
is torn, mixed of two, or was never committed.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import threading
from contextlib import contextmanager
from zlib import crc32

from resilience import clock
from resilience.errors import (
    ResilienceError,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
)
from resilience.testing.handle import Handle
from resilience.testing.history import READ, WRITE, Diary
from resilience.testing.violations import Violation
from resilience.testing.watching import done_by
from resilience.testing.workers import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence
    from types import FrameType
    from typing import Any

    from resilience.storage import Key, Snapshot, Version
    from resilience.testing.handle import Factory
    from resilience.testing.history import Operation

    Kept = tuple[Version | None, bytes | None]
    """What must be stored under a key."""

POISON = "refused"
"""Who wrote payloads that must never be read."""

LOCK_WAIT = 10.0
"""Seconds that a worker waits for a lock among many."""


def payload_of(number: int, who: str, size: int = 0) -> bytes:
    """Make a payload that can be checked."""
    body = json.dumps({"number": number, "who": who, "fill": chr(97 + number % 26) * size})
    return json.dumps({"sum": crc32(body.encode()), "body": body}).encode()


def checked(snapshot: Snapshot) -> tuple[int, str]:
    """Look at what was loaded: the number and who wrote it.

    :raises Violation: it is torn, of another version, or was never committed.
    """
    payload, version = snapshot.payload, snapshot.version
    if payload is None or version is None:
        return 0, ""
    try:
        outer = json.loads(payload)
        body: str = outer["body"]
        whole = outer["sum"] == crc32(body.encode())
        inner: dict[str, Any] = json.loads(body)
    except (ValueError, KeyError, TypeError):
        whole, inner = False, {}
    if not whole:
        raise Violation(
            f"a load gave a torn record: {len(payload)} bytes that nobody saved as a whole, with version {version}",
            "a breaker reads nonsense, sets the record aside as damaged and forgets that it was open",
            "make a commit one step for readers: write beside the old record and then switch (a rename, one word, one"
            " transaction); never write over what others may be reading, and never ask on a connection where another"
            " call waits for its answer",
        )
    if inner["who"] == POISON:
        raise Violation(
            "a load gave data of a save that was refused",
            "readers act on a state that was never committed: a breaker is open here and closed there",
            "check `expected` before anything is written where readers look, or write in a transaction that is rolled"
            " back",
        )
    if inner["number"] != version.number:
        raise Violation(
            f"a load gave the payload of commit {inner['number']} with version number {version.number}",
            "the engine compares versions: with the wrong one it overwrites a commit that it never saw, or serves a"
            " state that is long gone",
            "read and write payload and version together, in one step; count the version up by one with each commit",
        )
    found: tuple[int, str] = (inner["number"], inner["who"])
    return found


def add_one(handle: Handle, key: Key, who: str, diary: Diary, size: int = 0, deadline: float | None = None) -> Version:
    """Commit once, as the engine does: lock, load, save what follows, again on a conflict."""
    while True:
        try:
            with handle.lock(key, LOCK_WAIT):
                snapshot = handle.load(key)
                number, _ = checked(snapshot)
                operation = diary.begin(WRITE, who)
                try:
                    saved = handle.save(key, payload_of(number + 1, who, size), snapshot.version)
                except StorageConflict:
                    raise
                except BaseException:
                    diary.abandon(operation)
                    raise
                diary.end(operation, saved.version)
            assert saved.version is not None  # noqa: S101 - the handle looked; for the type checkers
        except StorageConflict:
            if deadline is not None and clock.monotonic() > deadline:
                raise
        else:
            return saved.version


def opened(factory: Factory, road: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: open the storage, call a function with it, close it."""
    handle = Handle.open(factory, road)
    try:
        return function(handle, *arguments)
    finally:
        handle.close()


def in_tasks(
    handle: Handle, tasks: int, function: Callable[..., Any], key: Key, who: str, *arguments: Any
) -> list[Any]:
    """Do a job so many times at once, in a thread each, which from coroutines is a task."""
    from concurrent.futures import ThreadPoolExecutor

    if tasks == 1:
        return [function(handle, key, who, *arguments)]
    with ThreadPoolExecutor(tasks) as threads:
        begun = [threads.submit(function, handle, key, f"{who}, task {n}", *arguments) for n in range(tasks)]
        return [job.result() for job in begun]


def count(handle: Handle, key: Key, who: str, times: int, seconds: float = 30.0) -> tuple[list[Operation], int]:
    """Commit so many times; what was done, and how many conflicts there were under the lock."""
    diary = Diary(who)
    conflicts = 0
    end = clock.monotonic() + seconds
    while len(diary.operations) < times and clock.monotonic() < end:
        try:
            add_one(handle, key, who, diary, deadline=0.0)
        except StorageConflict:
            conflicts += 1
    return diary.operations, conflicts


def bear(handle: Handle, keys: Sequence[Sequence[Key]], own: int) -> dict[Key, Kept]:
    """Let the records of several keys grow, shrink and go, beside those of others; what must be there in the end.

    In each turn one more key begins, so that something new needs its place in all of them.
    """
    everybody = [key for some in keys for key in some]
    left: dict[Key, Kept] = dict.fromkeys(keys[own], (None, None))
    for turn in range(len(keys[own]) + len(SIZES) - 1):
        with _letting_others_in(turn):
            for number in range(max(0, turn - len(SIZES) + 1), min(turn + 1, len(keys[own]))):
                key, size = keys[own][number], SIZES[turn - number]
                stamp = f"{turn} of {key.name}; ".encode()
                payload = (stamp * (1 + size // len(stamp)))[:size]
                try:
                    with handle.lock(key, LOCK_WAIT):
                        look_at(handle, key, left[key], everybody)
                        left[key] = (handle.save(key, payload, left[key][0]).version, payload)
                    if handle.can_delete and (turn + number) % 4 == 0:
                        handle.delete(key, left[key][0], LOCK_WAIT)
                        left[key] = (None, None)
                except StorageConflict as conflict:
                    raise _met(key, f"changed, though nobody else saves it: {conflict}") from conflict
    return left


SIZES = (10, 300, 2000, 7000, 20000, 300)
"""Of the payloads that a key gets, one after the other, in bytes."""

PLACES, PAUSE = 8, 0.0001


@contextmanager
def _letting_others_in(turn: int) -> Generator[None]:
    """Pause for a moment after calls that may have to do with the system: in each turn at an eighth of all places.

    What goes wrong when two do the same is a matter of microseconds, and seldom seen.  So all of them pause at the same
    places, and in eight turns there was a pause between any two calls.
    """

    def pause(frame: FrameType, event: str, called: Any) -> None:  # pragma: no cover - nothing traces a profiler
        if event in {"c_return", "c_exception"}:
            place = frame.f_code.co_firstlineno + frame.f_lasti // 2
            if (
                place % PLACES == turn % PLACES
                and (called.__module__ or type(called.__self__).__module__) != "builtins"
            ):
                clock.sleep(PAUSE)

    before = sys.getprofile()
    sys.setprofile(pause)
    try:
        yield
    finally:
        sys.setprofile(before)


def look_at(handle: Handle, key: Key, kept: Kept, everybody: Iterable[Key]) -> None:
    """See that a key has what was saved for it last.

    :raises Violation: it has not.
    """
    wrong = wrong_with(handle, key, kept, everybody)
    if wrong:
        raise _met(key, wrong)


def wrong_with(handle: Handle, key: Key, kept: Kept, everybody: Iterable[Key]) -> str:
    """Say how what is loaded differs from what was saved last."""
    try:
        found = handle.load(key)
    except StorageCorrupt as error:
        return f"cannot be read: StorageCorrupt: {error}"
    if (found.version, found.payload) == kept:
        return ""
    shown = found.payload or b""
    other = next((other for other in everybody if other != key and other.name.encode() in shown), None)
    if other is not None:
        return f"shows bytes of {other.name!r}"
    return "is gone" if found.version is None else f"is not what was saved: version {found.version}"


def _met(key: Key, what: str) -> Violation:
    return Violation(
        f"beside commits to other keys, of 10 B to 20 kB, the record of {key.name!r} {what}",
        "a busy breaker changes or forgets the state of another one",
        "change what one key needs of another's (free space, an index, a list of keys) under one lock, too: that of the"
        " key excludes nobody who commits to another one",
    )


def share(handle: Handle, key: Key, who: str, seconds: float, wait: float) -> tuple[int, int, float]:
    """Commit for so long, waiting for the lock as long as the engine does: commits, time-outs, longest wait."""
    done = late = 0
    longest = 0.0
    diary = Diary(who)
    end = clock.monotonic() + seconds
    while (now := clock.monotonic()) < end:
        try:
            with handle.lock(key, wait):
                longest = max(longest, clock.monotonic() - now)
                snapshot = handle.load(key)
                handle.save(key, payload_of(checked(snapshot)[0] + 1, who), snapshot.version)
            done += 1
        except StorageConflict:
            continue
        except StorageLockTimeout:
            late += 1
        del diary.operations[:]
    return done, late, longest


def read(handle: Handle, key: Key, who: str, seconds: float) -> list[Operation]:
    """Load again and again, and look at what comes."""
    diary = Diary(who)
    end = clock.monotonic() + seconds
    last: tuple[Version, str] | None = None
    while clock.monotonic() < end:
        operation = diary.begin(READ)
        try:
            snapshot = handle.load(key)
        except StorageCorrupt as error:
            raise Violation(
                f"a load beside writers raised StorageCorrupt: {error}",
                "nobody damaged the record, it was only being written: the engine sets it aside and begins anew",
                "make a commit one step for readers: write beside the old record and then switch",
            ) from error
        if snapshot.version is None:
            raise Violation(
                "a load beside writers found nothing, although a record was there all the time",
                "the engine takes it for a breaker that is new: open becomes closed for a moment",
                "replace a record in one step (os.replace, one transaction); never remove it before writing it anew",
            )
        seen = (snapshot.version, checked(snapshot)[1])
        if last is not None and last[0] == seen[0] and last[1] != seen[1]:
            raise Violation(
                f"version {seen[0]} was read with two contents",
                "a version names one content; the engine keeps what it decoded of it",
                "let `save` commit under a new version only, in one step with the content",
            )
        last = seen
        diary.end(operation, snapshot.version)
        del diary.operations[2000:]
    return diary.operations


def write(handle: Handle, key: Key, who: str, seconds: float, seed: int) -> list[Operation]:
    """Commit again and again, in many sizes, and try every now and then what must be refused."""
    diary = Diary(who)
    chance = random.Random(seed)  # noqa: S311 - sizes of payloads
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        size = chance.choice([0, 10, 300, 3000, 30000])
        version = add_one(handle, key, who, diary, size, deadline=end + 5)
        if chance.random() < 0.5:
            refused(handle, key, version)
    return diary.operations


def refused(handle: Handle, key: Key, version: Version) -> None:
    """Save with a version that was never stored: it must be refused, and nobody may read it."""
    never = type(version)("never stored", version.number)
    try:
        with handle.lock(key, LOCK_WAIT):
            handle.save(key, payload_of(version.number + 1, POISON), never)
    except StorageConflict:
        return
    raise Violation(
        "resilience_save took a record although `expected` was a version that was never stored",
        "commits of other processes are overwritten: failures are lost and a breaker never opens",
        "compare the stored version (incarnation and number) with `expected` in the same step that writes, and raise"
        " StorageConflict if they differ",
    )


def first(handle: Handle, key: Key, who: str, at: float) -> list[Any]:
    """Try, at a monotonic second, to be the first to save a key; the version, or `None`."""
    handle.load(key)
    clock.sleep(max(0.0, at - clock.monotonic()))
    try:
        with handle.lock(key, LOCK_WAIT):
            version = handle.save(key, payload_of(1, who), None).version
    except StorageConflict:
        return [who, None]
    return [who, version]


def remove(handle: Handle, key: Key, at: float, version: Version) -> bool:
    """Try, at a monotonic second, to delete a record that has this version; whether it was done."""
    clock.sleep(max(0.0, at - clock.monotonic()))
    try:
        return handle.delete(key, version)
    except (StorageConflict, StorageLockTimeout):
        return False


def follow(handle: Handle, key: Key, at: float, version: Version) -> bool:
    """Try, at a monotonic second, to save what follows a version; whether it was done."""
    clock.sleep(max(0.0, at - clock.monotonic()))
    try:
        with handle.lock(key, LOCK_WAIT):
            handle.save(key, b'{"n": 2}', version)
    except StorageConflict:
        return False
    return True


LONG = 60_000
"""Bytes of a payload that takes its time, and that every storage must take."""


def hurry(handle: Handle, key: Key, timeout: float) -> object:
    """Save twice, the second time with little time; what that returned or raised."""
    with handle.lock(key, LOCK_WAIT):
        version = handle.save(key, payload_of(1, "in time"), None).version
    try:
        with handle.lock(key, LOCK_WAIT):
            return handle.save(key, payload_of(2, "in a hurry", LONG), version, timeout=timeout)
    except ResilienceError as error:
        return error


def was_saved(answer: object) -> bool | None:
    """Say what the engine takes a save for that returned or raised this; `None`: nobody can know."""
    if not isinstance(answer, BaseException):
        return True
    if isinstance(answer, StorageUnavailable):
        return None if answer.outcome_unknown else False
    return False if isinstance(answer, Exception) else None  # else it is a cancellation


def loaded(handle: Handle, key: Key) -> tuple[Version | None, bytes | None]:
    """Load once."""
    snapshot = handle.load(key)
    return snapshot.version, snapshot.payload


def put(handle: Handle, key: Key, payload: bytes) -> Version | None:
    """Commit once over whatever is there."""
    return handle.put(key, payload).version


def try_lock(handle: Handle, key: Key, timeout: float) -> bool:
    """Whether the lock could be had."""
    try:
        with handle.lock(key, timeout):
            return True
    except StorageLockTimeout:
        return False


def hold(handle: Handle, key: Key, held: str, free: str, seconds: float, payload: bytes | None) -> str:
    """Hold the lock until the file `free` is there; say so by the file `held`; then save, if there is a payload."""
    with handle.lock(key, LOCK_WAIT):
        version = handle.load(key).version
        touch(held)
        end = clock.monotonic() + seconds
        while not os.path.exists(free) and clock.monotonic() < end:  # noqa: PTH110 - a path as text
            clock.sleep(0.001)
        if payload is None:
            return "held"
        try:
            handle.save(key, payload, version)
        except StorageConflict:
            return "conflict"
        return "saved"


def write_until_killed(handle: Handle, key: Key, who: str, path: str, seed: int) -> None:
    """Commit for ever, and write each commit down before and after it."""
    diary = Diary(who, path)
    chance = random.Random(seed)  # noqa: S311 - sizes of payloads
    while True:
        add_one(handle, key, who, diary, chance.choice([0, 10, 300, 3000]))
        diary.operations.clear()


def write_until(handle: Handle, key: Key, who: str, begun: str, end: str, seed: int) -> None:
    """Commit until the file `end` is there; make the file `begun` after the first commit."""
    diary = Diary(who)
    chance = random.Random(seed)  # noqa: S311 - sizes of payloads
    while not os.path.exists(end):  # noqa: PTH110 - a path as text
        add_one(handle, key, who, diary, chance.choice([0, 10, 300, 3000]))
        if begun:
            touch(begun)
            begun = ""
        diary.operations.clear()


def fail_to_lock(handle: Handle, key: Key, times: int) -> int:
    """Try so many times for a lock that somebody holds, every other time with a moment's patience; times in vain."""
    return sum(not try_lock(handle, key, 0.001 * (turn % 2)) for turn in range(times))


def made(_: Handle, factory: Factory) -> list[str]:
    """Make one more storage object; what that did besides, in words."""
    return done_by(factory)


def fork_beside(handle: Handle, factory: Factory, key: Key, held: str, free: str) -> str:
    """Hold the lock, fork a child that opens the storage anew, uses it and ends; hold on until `free` is there.

    A second child lives on for so long that it sees the lock freed, which must be free then for everybody.
    """
    with handle.lock(key, LOCK_WAIT):
        version = handle.load(key).version
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _in_the_child(factory, key, handle, reading)
        handle.save(key, AFTER_FORK, version)
        os.write(writing, b"1")
        os.close(reading)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        found = os.waitstatus_to_exitcode(status)
        if found == GOT_IT:
            return "child got the lock"
        if found == STALE:
            return "the child loads what was committed before the fork, not what was committed after it"
        if found != NOT_GOT:
            return f"child ended with {found}"
        touch(held)
        end = clock.monotonic() + LOCK_WAIT
        while not os.path.exists(free) and clock.monotonic() < end:  # noqa: PTH110 - a path as text
            clock.sleep(0.001)
        version = handle.load(key).version
        handle.save(key, b"{}", version)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _live_on(reading, writing)
    is_free = try_lock(handle, key, 0.0)
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)
    return "well" if is_free else "the parent freed the lock, and a child that it had forked meanwhile kept it"


def fork_while_held(handle: Handle, key: Key, held: str, free: str, forked: str) -> None:
    """Hold the lock in one thread until `free` is there, and fork in another, while it is held."""
    holder = threading.Thread(target=hold, args=(handle, key, held, free, LOCK_WAIT, None))
    holder.start()
    wait_until(lambda: os.path.exists(held), "the lock of a thread", 2 * LOCK_WAIT)  # noqa: PTH110 - a path as text
    if os.fork() == 0:
        _outlive(forked)
    holder.join()


def fork_at_work(handle: Handle, keys: Sequence[Key], rounds: int, signs: Sequence[str]) -> list[str]:
    """Fork again and again, and let all commit to a key each with the object that they share; what was wrong, in words.

    What a child inherited is soon replaced where two have met, so the first commits after a fork are those to look at.
    """
    said = [""] * len(keys)
    for _ in range(rounds):
        kept = [(handle.put(key, key.name.encode()).version, key.name.encode()) for key in keys]
        at = clock.monotonic() + 0.005 * len(keys)
        children: list[int] = []
        for number, sign in enumerate(signs, 1):
            child = os.fork()
            if child == 0:
                _work_in_the_child(handle, keys, number, kept[number], at, sign)
            children.append(child)
        said = [at_work(handle, keys, 0, kept[0], at), *map(_said_by, children, signs)]
        if any(said):
            break
    return said


AT_ONCE = 5
"""Commits of each after a fork."""


def at_work(handle: Handle, keys: Sequence[Key], own: int, kept: Kept, at: float) -> str:
    """Commit, from a monotonic second on, to a key to which nobody else does; what was wrong, in words."""
    key = keys[own]
    clock.sleep(max(0.0, at - clock.monotonic()))
    try:
        for number in range(AT_ONCE):
            with handle.lock(key, LOCK_WAIT):
                wrong = wrong_with(handle, key, kept, keys)
                if wrong:
                    return f"the record of {key.name!r} {wrong}"
                payload = f"{number} of {key.name}".encode()
                kept = (handle.save(key, payload, kept[0]).version, payload)
    except Violation as violation:
        return violation.what
    except ResilienceError as error:
        return f"a hook raised {type(error).__name__}: {error}"
    return ""


def _said_by(child: int, sign: str) -> str:
    _, status = os.waitpid(child, 0)
    try:
        with open(sign, encoding="utf-8") as file:  # noqa: PTH123 - a path as text
            said = file.read()
        os.unlink(sign)  # noqa: PTH108 - likewise
    except FileNotFoundError:
        return f"it ended with {os.waitstatus_to_exitcode(status)}"
    return said


def _work_in_the_child(  # pragma: no cover - it ends by `_exit`
    handle: Handle, keys: Sequence[Key], own: int, kept: Kept, at: float, sign: str
) -> None:
    try:
        signal.setitimer(signal.ITIMER_REAL, LOCK_WAIT)
        said = at_work(handle.beside(), keys, own, kept, at)
        with open(sign, "w", encoding="utf-8") as file:  # noqa: PTH123 - a path as text
            file.write(said)
    finally:
        os._exit(0)


GOT_IT, NOT_GOT, STALE, BROKEN = 10, 11, 12, 13
AFTER_FORK = b'{"saved": "after the fork"}'


def _in_the_child(  # pragma: no cover - it ends by `_exit`
    factory: Factory, key: Key, inherited: Handle, reading: int
) -> None:
    status = BROKEN
    try:
        signal.setitimer(signal.ITIMER_REAL, LOCK_WAIT)
        os.read(reading, 1)
        handle = Handle.open(factory)
        # What it inherited is called, not awaited: whatever loop ran there is its parent's.
        if any(one.load(key).payload != AFTER_FORK for one in (handle, Handle(inherited.storage))):
            status = STALE
        else:
            status = GOT_IT if try_lock(handle, key, 0.0) else NOT_GOT
        handle.close()
        del handle, inherited
        gc.collect()
    finally:
        os._exit(status)


def _live_on(reading: int, writing: int) -> None:  # pragma: no cover - it ends by `_exit`
    """As a child, do nothing until the parent says so, or dies."""
    try:
        os.close(writing)
        os.read(reading, 1)
    finally:
        os._exit(0)


def _outlive(sign: str) -> None:  # pragma: no cover - it ends by `_exit`
    """As a child, make a file, and do nothing as long as it is there, whether the parent lives or not."""
    try:
        signal.setitimer(signal.ITIMER_REAL, 3 * LOCK_WAIT)
        touch(sign)
        while os.path.exists(sign):  # noqa: PTH110 - a path as text
            clock.sleep(0.005)
    finally:
        os._exit(0)


def touch(path: str) -> None:
    """Make a file, as a sign."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
