"""Many threads at one record; what they did is judged by its history."""

from __future__ import annotations

from resilience import clock
from resilience.errors import StorageConflict
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.history import READ, Anomaly, Diary, check_order, check_versions
from resilience.testing.jobs import add_one, bear, checked, count, first, follow, look_at, read, remove, write
from resilience.testing.roads import AWAITED, CALLED
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from resilience.storage import Key
    from resilience.testing.history import Operation
    from resilience.testing.subject import Subject


def judge_counts(
    subject: Subject, key: Key, answers: Sequence[tuple[list[Operation], int]], times: int, who: str
) -> None:
    """See that every commit of a crowd is counted once.

    :raises Violation: some are lost, or the lock excluded nobody.
    """
    operations = [operation for done, _ in answers for operation in done]
    expected = len(answers) * times
    if len(operations) < expected:
        raise Violation(
            f"{who} made {len(operations)} of {expected} commits in 30 s",
            "commits do not go through when many want to commit",
            "look at what waits: a lock that sleeps for long between two tries, a transaction that is never ended",
        )
    number, _ = checked(subject.handle.load(key))
    try:
        check_versions(operations)
        check_order(operations)
        anomaly = ""
    except Anomaly as found:
        anomaly = str(found).partition("\n")[0]
    if number != expected or anomaly:
        raise _lost(subject, f"{who} committed {expected} times, {number} are counted{anomaly and ': '}{anomaly}")
    conflicts = sum(found for _, found in answers)
    if conflicts and subject.has_lock():
        raise Violation(
            f"{conflicts} of {expected} saves of {who} conflicted with the lock held",
            "the lock excludes nobody from outside; what saves the record is `expected` alone, and commits fail under"
            " load",
            "take the lock that all threads and processes share before load, and free it after save; or return"
            " contextlib.nullcontext() and say that you work by compare-and-set",
        )


def _lost(subject: Subject, what: str) -> Violation:
    return Violation(
        f"updates are lost: {what}",
        "failures are lost, and a breaker opens too late or never",
        subject.how_to_keep_apart(),
    )


@check("commits of many threads are counted exactly", after=("acknowledged", "conflicts"), limit=60)
def check_counts_threads(subject: Subject) -> None:
    """Let threads commit at once."""
    key, threads, times = subject.key(), 8, subject.pick(15, 40)
    answers = subject.in_threads([(count, key, f"thread {n}", times) for n in range(threads)], 45)
    judge_counts(subject, key, answers, times, f"{threads} {subject.peers}")


@check("commits of threads to different keys at once do not meet", kit=SECOND, after=("counts_threads",), limit=60)
def check_keys_threads(subject: Subject) -> None:
    """Let each thread commit to a key of its own, and then to several."""
    times = subject.pick(15, 40)
    keys = [subject.key(f"of thread {n}") for n in range(4)]
    jobs = [(count, key, f"thread {n}", times) for n, key in enumerate(keys)]
    judge_apart(subject, keys, subject.in_threads(jobs, 45), times, "thread")
    judge_room(subject, subject.in_threads)


def judge_apart(
    subject: Subject, keys: Sequence[Key], answers: Sequence[tuple[list[Operation], int]], times: int, who: str
) -> None:
    """See that each of a crowd finds in its own key what it committed itself, and nothing else.

    :raises Violation: something of another key is there.
    """
    for number, (key, (_, conflicts)) in enumerate(zip(keys, answers, strict=True)):
        seen, by = checked(subject.handle.load(key))
        if (seen, by, conflicts) != (times, f"{who} {number}", 0):
            raise Violation(
                f"{who} {number} alone committed {times} times to a key, and load gives commit {seen} of"
                f" {by or 'nobody'}; {conflicts} of its saves conflicted",
                "a busy breaker changes or forgets the state of another one",
                "let commits of different keys share nothing that is not locked for both: no temporary file, no buffer,"
                " no cursor of one name",
            )


def judge_room(subject: Subject, at_once: Callable[[list[tuple[Any, ...]]], list[Any]]) -> None:
    """Let each of a crowd bear several records that grow, shrink and go, and see that every one is left alone.

    Awaited, the same would be seen as when it is called, and more seldom.

    :raises Violation: one is not.
    """
    if subject.road == AWAITED:
        return
    who, each = range(4), range(subject.pick(16, 24))
    keys = [[subject.key(f"{one}.{another}") for another in each] for one in who]
    everybody = [key for some in keys for key in some]
    for left in at_once([(bear, keys, one) for one in who]):
        for key, kept in left.items():
            look_at(subject.handle, key, kept, everybody)


@check(
    "of a save and a delete of one version at once, one wins",
    kit=SECOND,
    after=("delete", "counts_threads"),
    roads=(CALLED,),
)
def check_delete_compares(subject: Subject) -> None:
    """Let a thread delete a version while another one saves what follows it."""
    handle = subject.handle
    if not handle.can_delete:
        raise Skipped("the storage has no resilience_delete")
    for _ in range(subject.pick(20, 60)):
        key, at = subject.key(), clock.monotonic() + 0.003
        version = handle.put(key, b'{"n": 1}').version
        saved, deleted = subject.in_threads([(follow, key, at, version), (remove, key, at, version)])
        if saved and deleted:
            raise Violation(
                "a save of what follows a version and a delete of that version, at once, were both done",
                "a record that somebody has just saved is deleted by who looked before",
                "compare `expected` in the step that deletes (DELETE … WHERE version = …), or compare and delete under"
                " the lock",
            )


@check("of many threads that save a new key at once, one wins", after=("acknowledged", "conflicts"))
def check_births_threads(subject: Subject) -> None:
    """Let threads be born at once."""
    for _ in range(subject.pick(10, 30)):
        key, at = subject.key(), clock.monotonic() + 0.01
        answers = subject.in_threads([(first, key, f"thread {n}", at) for n in range(4)])
        judge_birth(subject, key, answers, subject.peers)


def judge_birth(subject: Subject, key: Key, answers: Sequence[list[Any]], who: str) -> None:
    """See that one of many was the first.

    :raises Violation: none or several were.
    """
    winners = [(name, version) for name, version in answers if version is not None]
    found = subject.handle.load(key)
    if len(winners) == 1 and found.version == winners[0][1]:
        return
    raise Violation(
        f"{len(winners)} of {len(answers)} {who} were the first to save a new key",
        "each goes on with a version of its own; the failures of all but one are lost",
        "let `save` with `expected` None succeed only if nothing is stored, in one step: INSERT with a unique key, SET"
        " NX, a file that is made exclusively, or all of it under the lock",
    )


@check(
    "threads that load see whole, committed records, and never an older one",
    after=("acknowledged", "conflicts"),
    limit=45,
)
def check_readers_threads(subject: Subject) -> None:
    """Let threads load while others commit."""
    key, seconds = subject.key(), subject.pick(0.3, 1.0)
    first_one(subject, key)
    jobs: list[tuple[Any, ...]] = [(write, key, f"writer {n}", seconds, n) for n in range(2)]
    jobs += [(read, key, f"reader {n}", seconds) for n in range(2)]
    judge_readers(subject, subject.in_threads(jobs, seconds + 25))


def first_one(subject: Subject, key: Key) -> None:
    """Let a record be there."""
    try:
        add_one(subject.handle, key, "first", Diary("first"), deadline=0.0)
    except StorageConflict as error:
        raise _lost(subject, f"a save right after a load conflicted: {error}") from error


def judge_readers(subject: Subject, answers: Sequence[list[Operation]]) -> None:
    """See that nobody read what was gone, or had not been there.

    :raises Violation: somebody did.
    """
    operations = [operation for done in answers for operation in done]
    try:
        check_order(operations)
    except Anomaly as anomaly:
        late = anomaly.operations[-1]
        if late.kind == READ:
            raise Violation(
                f"a load gave an old record: {str(anomaly).partition(chr(10))[0]}",
                "a breaker that was opened is still closed for who reads from a cache or a replica",
                "let load read where save writes: no cache that others do not invalidate, no replica, no snapshot of a"
                " transaction that began before",
            ) from anomaly
        raise _lost(subject, str(anomaly).partition("\n")[0]) from anomaly
