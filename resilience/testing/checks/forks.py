"""What a fork copies, and what it cuts off: generators, connections, locks of other threads."""

from __future__ import annotations

from resilience.testing.checks.registry import SECOND, check
from resilience.testing.forking import THREADS, born_beside_a_fork, fork_beside_threads, outlive_parent
from resilience.testing.roads import AWAITED
from resilience.testing.violations import Skipped, Violation
from resilience.testing.workers import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.testing.subject import Subject

LIMIT = 5.0
"""Seconds in which a fork returns and a child has done what it was asked for, however busy a machine is: it takes
milliseconds."""

WHOSE = ("a child", "another child", "their parent")
"""The incarnations, in the order in which they are drawn."""


@check(
    "after a fork, parent and children draw incarnations of their own",
    kit=SECOND,
    after=("born_again", "visible"),
)
def check_forked_births(subject: Subject) -> None:
    """Let children and their parent save a key anew, one after the other, with what they had before the fork."""
    _need_forks(subject)
    if not subject.handle.can_delete:
        raise Skipped("the storage has no resilience_delete, by which a record ends before the next one is born")
    drawn: list[str] = subject.in_process(born_beside_a_fork, subject.key(), LIMIT)
    for number, incarnation in enumerate(drawn):
        before = drawn.index(incarnation)
        if before < number:
            raise Violation(
                f"a record was saved anew by {WHOSE[before]}, deleted, and saved anew by {WHOSE[number]} after a fork:"
                f" both drew the incarnation {incarnation!r}",
                "the version that one process remembers of an earlier life matches the record of another life: it goes"
                " on with a state that is gone, or saves it over the new one",
                "draw from the system: uuid.uuid4().hex, secrets.token_hex(16); a generator (random.Random, numpy's)"
                " has a state, and a fork copies it",
            )


@check(
    "what a forked child commits after the end of its parent is there for all others",
    kit=SECOND,
    after=("fork", "forked_at_work"),
    limit=60,
)
def check_forked_alone(subject: Subject) -> None:
    """Let a process that has used the storage fork and end; its child commits, and others load."""
    _need_forks(subject)
    key = subject.key()
    subject.let_go()  # as long as this process has it open, it is nobody's end that closes it last
    seen = subject.in_process(outlive_parent, subject.factory, subject.road, key, LIMIT)
    for committed, loaded in seen:
        if committed != loaded:
            raise Violation(
                f"a forked child, whose parent has ended, made commit {committed[0]} of a record, and another process"
                f" loads commit {loaded[0]} of {loaded[1] or 'nobody'}",
                "daemons and servers fork and end, their children serve: what these commit nobody else sees, and it is"
                " lost",
                "have nothing open where a process forks: close it by os.register_at_fork(before=…), and let whoever"
                " wants it meanwhile wait; a library that keeps books on what its process holds (SQLite on its locks)"
                " has the books of its parent in a child, also for what the child opens by itself",
            )


@check(
    "a fork beside threads at work returns, and its child loads and saves",
    kit=SECOND,
    after=("counts_threads", "forked_at_work"),
    limit=90,
)
def check_forked_beside_threads(subject: Subject) -> None:
    """Fork a process whose threads load and commit to a record all the time, and let each child commit to it, too."""
    _need_forks(subject)
    forks = 1 if subject.road == AWAITED else subject.pick(3, 5)  # what there is to find is mostly found already
    worker = subject.begin(0, fork_beside_threads, subject.key(), forks, LIMIT, limit=60)
    try:
        longest, commits, counted = worker.answer(60)
    except Failed as failed:
        subject.workers.replace(worker)
        raise _held_up(f"did not come to an end: {failed.briefly}") from failed
    if longest >= LIMIT:
        raise _held_up(f"did not return in {LIMIT:g} s; when they had ended, it did")
    if counted != commits:
        raise Violation(
            f"updates are lost: parent and children committed {commits} times beside forks, {counted} are counted",
            "failures are lost, and a breaker opens too late or never",
            "a child must lock and write by itself: a lock, a buffer or a connection that another thread of the parent"
            " had in use at the fork excludes nobody there, or holds what is old",
        )


def _held_up(what: str) -> Violation:
    return Violation(
        f"a fork beside {THREADS} threads that load and commit {what}",
        "a server that is busy cannot start a worker: it stands still, and says nothing",
        "let what waits before a fork until nobody is inside keep out whoever comes then (a flag that is set before it"
        " waits): a Condition alone lets them in while it waits, and somebody is always inside; and wait for a moment"
        " only",
    )


def _need_forks(subject: Subject) -> None:
    subject.need_processes()
    subject.need_posix()
