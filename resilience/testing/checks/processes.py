"""What is declared as shared by processes is proven with processes: spawned, killed, stopped, forked."""

from __future__ import annotations

import os
import statistics

from resilience import clock
from resilience.storage import Capability
from resilience.testing.checks.concurrency import (
    first_one,
    judge_apart,
    judge_birth,
    judge_counts,
    judge_readers,
    judge_room,
)
from resilience.testing.checks.locking import need_lock, slack, subject_waits
from resilience.testing.checks.registry import SECOND, check
from resilience.testing.history import WRITE, Anomaly, Diary, check_versions
from resilience.testing.jobs import (
    checked,
    count,
    first,
    fork_at_work,
    fork_beside,
    fork_while_held,
    hold,
    in_tasks,
    loaded,
    put,
    read,
    share,
    touch,
    try_lock,
    write,
    write_until_killed,
)
from resilience.testing.roads import AWAITED
from resilience.testing.subject import Background
from resilience.testing.violations import Skipped, Violation
from resilience.testing.workers import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from resilience.storage import Key
    from resilience.testing.handle import Handle
    from resilience.testing.history import Operation
    from resilience.testing.subject import Subject

FREED_WITHIN = 10.0
"""Seconds after which the lock of a dead holder must be free; a lease may take its time."""


@check("what one process commits, every other loads", after=("round_trip",), limit=60)  # the first starts the crowd
def check_visible(subject: Subject) -> None:
    """Save here and load there, and the other way round."""
    subject.need_processes()
    key = subject.key()
    saved = subject.handle.put(key, b'{"n": 1}')
    there = subject.in_process(loaded, key)
    if there != (saved.version, saved.payload):
        raise _unseen(f"another process loads version {there[0]} after {saved.version} was saved here")
    version = subject.in_process(put, key, b'{"n": 2}')
    found = subject.handle.load(key)
    if (found.version, found.payload) != (version, b'{"n": 2}'):
        raise _unseen(f"this process loads version {found.version} after another one saved {version}")
    for number, again in enumerate(subject.in_processes([(loaded, key)] * 2)):
        if again != (version, b'{"n": 2}'):
            raise _unseen(f"process {number} loads version {again[0]} after {version} was saved")


def _unseen(what: str) -> Violation:
    return Violation(
        what,
        "it declares PROCESSES, and each process has a breaker of its own",
        "keep the records outside the process, and read them at each load; or drop PROCESSES from `capabilities`",
    )


@check(
    "commits of 2 to 20 processes are counted exactly",
    after=("visible", "conflicts", "lock_excludes_processes"),
    limit=90,
)
def check_counts_processes(subject: Subject) -> None:
    """Let processes commit at once."""
    subject.need_processes()
    for processes, times in subject.pick([(2, 40), (4, 15)], [(2, 150), (5, 60), (20, 15)]):
        key = subject.key()
        jobs = [(in_tasks, subject.tasks, count, key, f"process {n}", times // subject.tasks) for n in range(processes)]
        answers = [answer for answers in subject.in_processes(jobs, 45) for answer in answers]
        judge_counts(subject, key, answers, times // subject.tasks, f"{processes} processes")


@check(
    "commits of processes to different keys at once do not meet",
    kit=SECOND,
    after=("counts_processes",),
    limit=60,
)
def check_keys_processes(subject: Subject) -> None:
    """Let each process commit to a key of its own, and then to several."""
    subject.need_processes()
    times = subject.pick(40, 100)
    keys = [subject.key(f"of process {n}") for n in range(4)]
    jobs = [(count, key, f"process {n}", times) for n, key in enumerate(keys)]
    judge_apart(subject, keys, subject.in_processes(jobs, 45), times, "process")
    judge_room(subject, subject.in_processes)


@check(
    "of many processes that save a new key at once, one wins",
    after=("visible", "conflicts", "lock_excludes_processes"),
)
def check_births_processes(subject: Subject) -> None:
    """Let processes be born at once."""
    subject.need_processes()
    subject.workers.grow(4)
    for _ in range(subject.pick(8, 25)):
        key, at = subject.key(), clock.monotonic() + 0.04
        answers = subject.in_processes([(first, key, f"process {n}", at) for n in range(4)])
        judge_birth(subject, key, answers, "processes")


@check(
    "processes that load see whole, committed records, and never an older one",
    after=("visible", "conflicts", "lock_excludes_processes"),
    limit=60,
)
def check_readers_processes(subject: Subject) -> None:
    """Let processes load while others commit."""
    subject.need_processes()
    key, seconds = subject.key(), subject.pick(0.4, 1.5)
    first_one(subject, key)
    jobs: list[tuple[Any, ...]] = [(write, key, f"writer {n}", seconds, n) for n in range(2)]
    jobs += [(read, key, f"reader {n}", seconds) for n in range(2)]
    judge_readers(subject, subject.in_processes(jobs, seconds + 25))


@check("no process is kept from the lock by the others", after=("counts_processes",), limit=60)
def check_fair_share(subject: Subject) -> None:
    """Let processes commit for a while, each waiting as long as the engine does."""
    subject.need_processes()
    need_lock(subject)
    slow = uneven = ""
    for _ in range(3):  # a machine that has much else to do is unfair itself, now and then
        slow = _slow_hand_over(subject)
        uneven = "" if slow else _unfair(subject)
        if not (slow or uneven):
            return
    busy = _much_else_to_do()
    if not slow and busy:
        subject.note(f"{uneven}; but {busy}: such a machine shares unevenly itself, so run this again when it is quiet")
        return
    raise Violation(
        slow or uneven,
        "the engine waits for 0.25 s in all: a process that comes too late counts none of its failures",
        "look again after some 20 µs, growing to a millisecond or two, not after 50 ms; or use a lock that queues",
    )


BUSY = 2.0
"""Processes that want to run, for each processor: with more of them, uneven shares may be the machine's.  The four of
this check run too shortly to be seen in an average over a minute."""


def _much_else_to_do() -> str:
    """Say how busy the machine is, if it is too busy to be fair."""
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    return f"{load:.0f} processes wanted to run on {processors} processors" if load > BUSY * processors else ""


HAND_OVER = 0.01
"""Seconds from the end of one holder to the beginning of the next, as the median of many, at most; beside what this
machine, however busy, takes to let one look who looks every millisecond."""


def _slow_hand_over(subject: Subject) -> str:
    """Free a lock that another object waits for, at any moment of its waiting, and measure how long it goes on."""
    key, other = subject.key(), subject.another()
    delays: list[float] = []
    looks: list[float] = []
    for _ in range(15):
        looks.append(_look(subject))
        with subject.handle.lock(key):
            waiting = Background(_got_at, other, key)
            clock.sleep(subject.chance.uniform(0.001, 0.05))
            freed = clock.monotonic()
        delays.append(waiting.result(10.0) - freed)
    median = statistics.median(delays)
    subject.measured["a free lock to its next holder, s"] = median
    if median <= HAND_OVER + statistics.median(looks):
        return ""
    return f"a waiter got a lock {median * 1000:.0f} ms after it was free"


def _look(subject: Subject) -> float:
    """Measure how long this machine keeps a thread from seeing something that it looks for every millisecond."""
    signs: list[bool] = []
    looking = Background(_seen_at, signs)
    clock.sleep(subject.chance.uniform(0.001, 0.01))
    given = clock.monotonic()
    signs.append(True)
    seen: float = looking.result(10.0)
    return seen - given


def _seen_at(signs: list[bool]) -> float:
    while not signs:
        clock.sleep(0.001)
    return clock.monotonic()


def _got_at(handle: Handle, key: Key) -> float:
    with handle.lock(key):
        return clock.monotonic()


def _unfair(subject: Subject) -> str:
    """Let processes commit for a while."""
    key, processes, seconds = subject.key(), 4, subject.pick(0.5, 1.0)
    answers = subject.in_processes([(share, key, f"process {n}", seconds, 0.25) for n in range(processes)])
    commits = [done for done, _, _ in answers]
    late, longest = sum(late for _, late, _ in answers), max(longest for _, _, longest in answers)
    subject.measured["longest wait of 4 processes for one lock, s"] = longest
    if min(commits) >= sum(commits) / processes / 10 and late <= sum(commits) / 100:
        return ""
    return (
        f"of {processes} processes that commit for {seconds:g} s, one made {min(commits)} and one {max(commits)}"
        f" commits; {late} waits of 0.25 s were in vain"
    )


@check("the lock of a process that was killed is free", after=("lock_excludes_processes",), limit=45)
def check_killed_holder(subject: Subject) -> None:
    """Kill a process that holds the lock."""
    subject.need_processes()
    need_lock(subject)
    key = subject.key()
    with subject.signs() as signs:
        worker = subject.begin(0, hold, key, signs / "held", signs / "never", 30.0, None)
        subject_waits(signs / "held")
        subject.workers.replace(worker)
        begun = clock.monotonic()
        trying = Background(try_lock, subject.handle, key, FREED_WITHIN)
        free = trying.result(FREED_WITHIN + slack(subject) + 5)
    seconds = clock.monotonic() - begun
    if not free:
        raise Violation(
            f"the lock of a process that was killed is not free after {FREED_WITHIN:g} s",
            "one process that dies at the wrong moment stops all others for good",
            "use a lock that the system frees (flock, a connection's advisory lock), or a lease that runs out; a file"
            " that stands for a lock outlives its maker",
        )
    subject.measured["lock of a killed holder free after, s"] = seconds
    if seconds > 1:
        subject.note(f"the lock of a killed holder took {seconds:.1f} s to be free; until then commits time out")


@check(
    "while the holder of the lock is stopped, the others answer in time; its late save harms nothing",
    after=("killed_holder", "load_takes_no_lock"),
)
def check_stopped_holder(subject: Subject) -> None:
    """Stop a process that holds the lock, and let it go on later."""
    subject.need_processes()
    subject.need_posix()
    need_lock(subject)
    handle, key = subject.handle, subject.key()
    before = handle.put(key, b'{"n": 1}')
    with subject.signs() as signs:
        worker = subject.begin(0, hold, key, signs / "held", signs / "free", 20.0, b'{"n": "late"}')
        subject_waits(signs / "held")
        worker.stop()
        try:
            waiting = Background(try_lock, handle, key, 0.2)
            loading = Background(handle.load, key, 0.2)
            in_time = waiting.is_done(0.2 + slack(subject)) and loading.is_done(slack(subject))
            taken = in_time and waiting.result(0.1)
            seen = loading.result(0.1).version if in_time else None
            if taken:  # a lease that ran out
                before = handle.put(key, b'{"n": 2}')
        finally:
            worker.resume()
        touch(signs / "free")
        end: str = worker.answer()
    if not in_time:
        raise Violation(
            "lock or load did not answer in time while the holder of the lock was stopped",
            "one process that is stopped, swapped out or debugged stops all others",
            "honour `timeout` in resilience_lock, and read without the lock",
        )
    found = handle.load(key)
    if taken and end == "saved":
        raise Violation(
            "a holder whose lock had been given to somebody else saved over his commit",
            "a commit that was acknowledged is lost",
            "a lock that runs out needs `expected`: let save compare the stored version in the step that writes",
        )
    if (not taken and seen != before.version) or (end == "saved") != (found.payload == b'{"n": "late"}'):
        raise Violation(
            f"after a holder was stopped and went on ({end}), load gives {found.version}",
            "the record is not what was committed last",
            "let load give the last committed record, whoever holds the lock",
        )


@check("a forked child neither has its parent's lock nor frees nor keeps it", after=("lock_excludes_processes",))
def check_fork(subject: Subject) -> None:
    """Fork a process that holds the lock; a child opens the storage anew, uses it and ends, others live on."""
    subject.need_processes()
    subject.need_posix()
    need_lock(subject)
    key = subject.key()
    subject.handle.put(key, b"{}")
    with subject.signs() as signs:
        worker = subject.begin(0, fork_beside, subject.factory, key, signs / "held", signs / "free")
        try:
            _wait_for_sign(worker, signs / "held")
            got = Background(try_lock, subject.handle, key, 0.0).result(slack(subject) + 5)
            touch(signs / "free")
            end: str = worker.answer(20)
        except Failed as failed:
            subject.workers.replace(worker)
            raise _forked(failed.briefly) from failed
    if end != "well":
        raise _forked(end)
    if got:
        raise _forked("a third process got the lock that the parent still held, after the child had ended")
    _see_it_freed(subject)


@check(
    "a forked child and its parent, both at work, get their own answers",
    kit=SECOND,
    after=("counts_processes",),
)
def check_forked_at_work(subject: Subject) -> None:
    """Fork a process that has used the storage, and let all of them commit with the object that they share now."""
    subject.need_processes()
    subject.need_posix()
    keys = [subject.key(f"of {who}") for who in AT_WORK]
    with subject.signs() as signs:
        children = [signs / who for who in AT_WORK[1:]]
        worker = subject.begin(0, fork_at_work, keys, subject.pick(10, 20), children)
        try:
            said: list[str] = worker.answer(25)
        except Failed as failed:
            subject.workers.replace(worker)
            said = [failed.briefly]
    for who, wrong in zip(AT_WORK, said, strict=False):
        if wrong:
            raise Violation(
                f"after a fork, while parent and children commit, {who} finds: {wrong}",
                "servers fork their workers: an answer to one process is read by another, and breakers have the state"
                " of others",
                "let a child use no connection that its parent opened: compare os.getpid() wherever one is taken, and"
                " open another; of the inherited one only close the descriptor, as a goodbye ends the parent's, too",
            )


AT_WORK = ("the parent", "a child", "another child")
"""Who uses the storage after a fork."""


def _see_it_freed(subject: Subject) -> None:
    """Kill a process of which one thread holds the lock, while a child lives that another thread has forked."""
    key = subject.key()
    with subject.signs() as signs:
        worker = subject.begin(0, fork_while_held, key, signs / "held", signs / "never", signs / "forked")
        subject_waits(signs / "forked")
        subject.workers.replace(worker)
        trying = Background(try_lock, subject.handle, key, FREED_WITHIN)
        free = trying.result(FREED_WITHIN + slack(subject) + 5)
    if not free:
        raise Violation(
            f"a process was killed while one of its threads held the lock, and a child that another had forked"
            f" meanwhile keeps it: it is not free after {FREED_WITHIN:g} s",
            "one process that dies at the wrong moment stops all others, as long as any of its children lives",
            "let a child close what it inherited, without unlocking it: os.register_at_fork(after_in_child=…); and let"
            " nobody fork between opening a descriptor and noting it, by a lock that `before` takes and the two"
            " others free",
        )


def _wait_for_sign(worker: Any, path: str) -> None:
    end = clock.monotonic() + 20
    while not os.path.exists(path) and not worker.pipe.poll(0) and clock.monotonic() < end:  # noqa: PTH110
        clock.sleep(0.001)


def _forked(what: str) -> Violation:
    return Violation(
        f"beside a fork: {what}",
        "servers fork their workers; a child that frees what it inherited lets two commit at once, one that cannot open"
        " the storage stops",
        "open everything anew in a child (os.register_at_fork), and use nothing that was made before the fork, no"
        " connection and no cache;"
        " free a lock only in the process that took it, and there by unlocking it: to close a descriptor frees nothing"
        " while a child has it too",
    )


@check("what it declares is shown, or it is said what cannot be shown here", after=("hooks",))
def check_claims(subject: Subject) -> None:
    """Say what was shown of each capability."""
    declared = subject.capabilities
    if subject.road == AWAITED:
        if Capability.DURABLE not in declared:
            raise Skipped("it does not declare DURABLE; the other capabilities are shown by other checks")
        _survives(subject)
        return
    if Capability.PROCESSES not in declared:
        subject.note("PROCESSES is not declared: everything was tested with threads of one process only")
    if Capability.MACHINES in declared:
        subject.note("MACHINES cannot be shown on one machine: what was shown is that processes share it")
    if Capability.DURABLE in declared:
        _survives(subject)
        subject.note("DURABLE: what was committed survives the death of every process; the loss of power was not tried")


def _survives(subject: Subject) -> None:
    if not subject.is_shared:
        raise Violation(
            "it declares DURABLE without PROCESSES",
            "what survives the loss of power survives the end of a process, and is there for the next one",
            "declare both, or neither",
        )
    key = subject.key()
    version = subject.in_process(put, key, b"{}")
    subject.workers.replace(subject.workers.members[0])
    if subject.in_process(loaded, key)[0] != version:
        raise Violation(
            "it declares DURABLE, and a record is gone after the process that saved it was killed",
            "a restart closes every breaker",
            "acknowledge a save only when it is written (fsync, a synchronous commit); or drop DURABLE",
        )


@check(
    "writers that are killed at any moment lose nothing that was acknowledged, and damage nothing",
    after=("killed_holder", "counts_processes"),
    limit=90,
)
def check_killed_writers(subject: Subject) -> None:
    """Kill one writer after the other."""
    subject.need_processes()
    key, kills = subject.key(), subject.pick(3, 16)
    operations: list[Operation] = []
    with subject.signs() as signs:

        def hire(number: int) -> tuple[Any, str]:
            path, seed = signs / f"diary {number}", subject.chance.getrandbits(32)
            worker = subject.begin(len(at_work), write_until_killed, key, f"writer {number}", path, seed, limit=60)
            return worker, path

        at_work: list[tuple[Any, str]] = []
        subject.workers.grow(kills + 2)
        paths: list[str] = []
        for number in range(kills + 2):
            at_work.append(hire(number))
            paths.append(at_work[-1][1])
            if number >= 2:
                worker, path = at_work.pop(0)
                _wait_for_work(worker, path)
                clock.sleep(subject.chance.random() * 0.003)  # any moment of its work
                subject.workers.replace(worker)
        for worker, _ in at_work:
            subject.workers.replace(worker)
        for number, path in enumerate(paths):
            if os.path.exists(path):  # noqa: PTH110 - a path as text
                operations += Diary.read(f"writer {number}", path)
    found = subject.handle.load(key)
    number, _ = checked(found)
    done = [operation for operation in operations if operation.kind == WRITE and operation.version]
    open_ones = [operation for operation in operations if operation.version is None]
    try:
        check_versions(operations)
    except Anomaly as anomaly:
        raise _harmed(str(anomaly).partition("\n")[0]) from anomaly
    if not len(done) <= number <= len(done) + len(open_ones):
        raise _harmed(f"{len(done)} commits were acknowledged and {len(open_ones)} cut short, {number} are counted")
    subject.measured["commits beside kills"] = len(done)


def _wait_for_work(worker: Any, path: str) -> None:
    end = clock.monotonic() + 20
    while not (os.path.exists(path) and os.path.getsize(path) > 1000):  # noqa: PTH110, PTH202 - a path as text
        if worker.pipe.poll(0):
            try:
                worker.answer()
            except Failed as failed:
                raise _harmed(failed.briefly) from failed
        if clock.monotonic() > end:
            raise _harmed("the writers that were left did not go on")
        clock.sleep(0.0005)


def _harmed(what: str) -> Violation:
    return Violation(
        f"after writers were killed: {what}",
        "a process that dies takes what others counted with it, or leaves a record that nobody can read",
        "make a commit one step: until it the old record stands whole, after it the new one; and acknowledge only after"
        " it",
    )
