"""The checks of processes, with threads in the place of processes: what each of them finds, at a hundredth of the cost.

That they find it with processes as well is shown by `test_kit`, where the mistakes are those of whole storages.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conformance.broken import LeaseWithoutCompare, LockFile, PollsItsLock
from conformance.references import CasStorage, FolderStorage

from resilience import Capability, Key, Snapshot, StorageConflict, StorageUnavailable, Version, clock, hookimpl
from resilience.testing import Diary, Failed, Handle, Operation, Result, Subject, Violation, all_checks, run_check
from resilience.testing.checks import faults, locking, processes
from resilience.testing.jobs import hold, read, write_until_killed
from resilience.testing.subject import Background, Signs
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CHECKS = {check.name: check for check in all_checks()}


@pytest.fixture(autouse=True)
def _nobody_stays_at_work() -> Iterator[None]:
    """A thread that commits for ever takes the interpreter, and signals, from all tests that follow."""
    before = set(threading.enumerate())
    yield
    for thread in threading.enumerate():
        if thread not in before:
            thread.join(20)
            assert not thread.is_alive(), thread.name


class Killed(BaseException):
    """What a thread ends by that stands for a killed process."""


class Mortal:
    """The handle of such a thread: what it does next ends it, once it is killed."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.is_killed = False

    def __getattr__(self, name: str) -> Any:
        if self.is_killed:
            raise Killed
        return getattr(self._handle, name)


class Hired:
    """A thread that stands for a process."""

    def __init__(self, subject: Subject, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.pipe = self
        self.handle = Mortal(Handle.open(subject.factory))
        self._holds_until = arguments[2] if function is hold else None
        self._work = Background(function, self.handle, *arguments)

    def poll(self, _: float) -> bool:
        return self._work.is_done(0)

    def answer(self, patience: float = 20.0) -> Any:
        return self._work.result(patience)

    def stop(self) -> None:
        """Whoever holds the lock does nothing else until it is told to."""

    resume = stop

    def kill(self) -> None:
        self.handle.is_killed = True
        if self._holds_until is not None:
            Path(self._holds_until).touch()
        self._work.is_done(20)


class Lasting(Signs):
    """A folder that is there until all are killed who look for something in it."""

    def __exit__(self, *exception: object) -> None:
        pass

    def close(self) -> None:
        super().__exit__()


class Crowd:
    """All of them."""

    members: Sequence[Any] = [None]

    def grow(self, size: int) -> None:
        pass

    def replace(self, worker: Any) -> None:
        if worker is not None:
            worker.kill()


class Alone(Subject):
    """Lets threads do what processes would do, each with an object of its own; or what comes was said before.

    :param told: what processes answer, one after the other; called with the subject, where it is a function.
    """

    def __init__(self, factory: Any, told: Sequence[Any] = (), **more: Any) -> None:
        super().__init__(factory, quick=True, **more)
        self._told = list(told)
        self._hired: list[Hired] = []
        self._signs: list[Lasting] = []

    def in_processes(self, jobs: Sequence[tuple[Any, ...]], limit: float = 30.0) -> list[Any]:
        if self._told:
            told: Any = self._told.pop(0)
            if callable(told):
                told = told(self)
            return list(told)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - of anything
        handles = [Handle.open(self.factory) for _ in jobs]
        threads = [Background(function, handle, *rest) for handle, (function, *rest) in zip(handles, jobs, strict=True)]
        return [thread.result(limit) for thread in threads]

    def begin(self, member: int, function: Callable[..., Any], *arguments: Any, limit: float = 30.0) -> Any:
        if self._told:
            return self._told.pop(0)
        self._hired.append(Hired(self, function, arguments))
        return self._hired[-1]

    @property
    def workers(self) -> Any:
        return Crowd()

    def signs(self) -> Signs:
        self._signs.append(Lasting())
        return self._signs[-1]

    def close(self) -> None:
        """Kill who is still at work, as the kit kills its processes after a check that failed: some never end."""
        for hired in self._hired:
            hired.kill()
        for signs in self._signs:
            signs.close()
        super().close()


def look(name: str, subject: Subject) -> Result:
    with subject:
        return run_check(CHECKS[name], subject)


def of_folder(folder: Path, storage: Any = FolderStorage) -> Any:
    return partial(storage, f"folder:{folder / 'store'}")


class TestRightStorages:
    @pytest.mark.parametrize("name", ["births_processes", "readers_processes", "killed_holder", "killed_writers"])
    def test_nothing_is_found(self, tmp_path: Path, name: str) -> None:
        result = look(name, Alone(of_folder(tmp_path)))
        assert result.outcome == "passed", result

    def test_nor_by_that_of_freshness(self, tmp_path: Path) -> None:
        subject = Alone(partial(FileStorage, f"file://{tmp_path}/state"))
        result = look("is_current_elsewhere", subject)
        assert (result.outcome, result.notes) == ("passed", ())

    def test_one_that_could_declare_push_is_told(self, tmp_path: Path) -> None:
        class Modest(FileStorage):
            def __init__(self, url: str, settings: Any = None) -> None:
                super().__init__(url, settings)
                self.capabilities = frozenset({Capability.PROCESSES})

        subject = Alone(partial(Modest, f"file://{tmp_path}/state"))
        result = look("is_current_elsewhere", subject)
        assert result.outcome == "passed"
        assert "the storage may declare PUSH" in result.notes[0]

    def test_a_lock_is_shared_fairly(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "HAND_OVER", 1.0)
        subject = Alone(of_folder(tmp_path), [[(100, 0, 0.01)] * 4])
        assert look("fair_share", subject).outcome == "passed"


VERSION = Version("life", 1)
NOTHING: list[Operation] = []


def ignored(*_: object) -> None:
    pass


def written(*numbers: int) -> list[Operation]:
    return [Operation("p", n, "write", float(n), n + 0.5, Version("life", n), None, None) for n in numbers]


class TestWhatProcessesSay:
    """Answers of processes that no storage that is right would make them give."""

    def test_this_process_does_not_see_what_another_saved(self, tmp_path: Path) -> None:
        def right(subject: Subject) -> Any:
            found = subject.handle.load(subject.keys[-1])
            return [(found.version, found.payload)]

        result = look("visible", Alone(of_folder(tmp_path), [right, [VERSION]]))
        assert "this process loads version" in result.what
        assert f"after another one saved {VERSION}" in result.what

    def test_a_third_process_does_not_see_it(self, tmp_path: Path) -> None:
        def right(subject: Subject) -> Any:
            found = subject.handle.load(subject.keys[-1])
            return [(found.version, found.payload)]

        def put(subject: Subject) -> Any:
            return [subject.handle.put(subject.keys[-1], b'{"n": 2}').version]

        result = look("visible", Alone(of_folder(tmp_path), [right, put, [(None, None)] * 2]))
        assert "process 0 loads version None" in result.what

    @pytest.mark.parametrize(
        ("answers", "says"),
        [
            ([(NOTHING, 0), (NOTHING, 0)], "2 processes made 0 of 80 commits in 30 s"),
            ([(written(*range(1, 41)), 0), (written(*range(1, 41)), 0)], "updates are lost: 2 processes committed 80"),
        ],
    )
    def test_commits_that_do_not_go_through(self, tmp_path: Path, answers: Any, says: str) -> None:
        of_each_task = [[answer] for answer in answers]
        assert says in look("counts_processes", Alone(of_folder(tmp_path), [of_each_task])).what

    @pytest.mark.parametrize(("storage", "says"), [(FolderStorage, "under it"), (CasStorage, "")])
    def test_readers_and_writers_that_contradict_each_other(self, tmp_path: Path, storage: Any, says: str) -> None:
        late = [
            Operation("a", 1, "write", 1.0, 2.0, Version("life", 2)),
            Operation("b", 1, "write", 3.0, 4.0, VERSION),
        ]
        result = look("readers_processes", Alone(of_folder(tmp_path, storage), [[late]]))
        assert result.outcome == "failed"
        assert says in result.fix

    @pytest.mark.parametrize("busy", [False, True])
    def test_shares_that_are_uneven(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, busy: bool) -> None:
        monkeypatch.setattr(processes, "HAND_OVER", 1.0)
        monkeypatch.setattr(os, "getloadavg", lambda: (1000.0 if busy else 0.0,) * 3)
        subject = Alone(of_folder(tmp_path), [[(100, 0, 0.01)] * 3 + [(1, 9, 0.25)]] * 3)
        result = look("fair_share", subject)
        if busy:
            assert result.outcome == "passed"
            assert "run this again when it is quiet" in result.notes[0]
        else:
            assert "one made 1 and one 100 commits; 9 waits of 0.25 s were in vain" in result.what

    def test_all_that_can_be_said_of_a_fleet(self, tmp_path: Path) -> None:
        class Everywhere(FolderStorage):
            capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES})

        assert (
            "MACHINES cannot be shown on one machine" in look("claims", Alone(of_folder(tmp_path, Everywhere))).notes[0]
        )

    def test_a_record_that_ends_with_its_process(self, tmp_path: Path) -> None:
        class Durable(FolderStorage):
            capabilities = frozenset({Capability.PROCESSES, Capability.DURABLE})

        subject = Alone(of_folder(tmp_path, Durable), [[VERSION], [(None, None)]])
        assert "a record is gone after the process that saved it was killed" in look("claims", subject).what


class TestLocks:
    def test_one_that_is_looked_at_too_seldom(self, tmp_path: Path) -> None:
        assert "ms after it was free" in look("fair_share", Alone(of_folder(tmp_path, PollsItsLock))).what

    def test_one_that_outlives_its_holder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "FREED_WITHIN", 0.1)
        monkeypatch.setattr(Crowd, "replace", ignored)  # the file stays, as with a process that was killed
        assert "is not free after 0.1 s" in look("killed_holder", Alone(of_folder(tmp_path, LockFile))).what

    def test_one_that_is_never_free_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locking, "Background", NotHad)
        monkeypatch.setattr(locking, "subject_waits", ignored)
        result = look("lock_excludes_processes", Alone(of_folder(tmp_path), [[False], Forked("held")]))
        assert "the lock is not free after another process gave it back" in result.what

    def test_one_that_takes_its_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "clock", Hasty())
        monkeypatch.setattr(processes, "Background", Told)
        monkeypatch.setattr(processes, "subject_waits", ignored)
        result = look("killed_holder", Alone(of_folder(tmp_path), [Forked("")]))
        assert result.outcome == "passed"
        assert "the lock of a killed holder took 1.5 s to be free" in result.notes[0]

    def test_a_holder_that_was_stopped(self, tmp_path: Path) -> None:
        assert look("stopped_holder", Alone(of_folder(tmp_path))).outcome == "passed"
        assert "saved over his commit" in look("stopped_holder", Alone(of_folder(tmp_path, LeaseWithoutCompare))).what

    def test_who_does_not_answer_beside_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "Background", NeverDone)
        result = look("stopped_holder", Alone(of_folder(tmp_path)))
        assert "did not answer in time while the holder of the lock was stopped" in result.what

    def test_a_late_save_that_is_not_there(self, tmp_path: Path) -> None:
        class Losing(FolderStorage):
            """Acknowledges what comes late, and keeps the old record."""

            @hookimpl
            def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
                if b"late" in payload:
                    return Snapshot(payload, self.following(expected))
                return super().resilience_save(key, payload, expected, expires_at, timeout)

        result = look("stopped_holder", Alone(of_folder(tmp_path, Losing)))
        assert "after a holder was stopped and went on (saved), load gives" in result.what


class Hasty:
    """A clock of which each look takes a while."""

    def __init__(self) -> None:
        self._now = count(0.0, 1.5)

    def monotonic(self) -> float:
        return next(self._now)

    def sleep(self, _: float) -> None: ...


class Told:
    """In the place of a thread: it got the lock."""

    def __init__(self, *_: Any) -> None: ...

    def result(self, _: float) -> bool:
        return True


class NotHad(Told):
    def result(self, _: float) -> bool:
        return False


class NeverDone(Told):
    def is_done(self, _: float) -> bool:
        return False


class Forked:
    """A process that forked, and what it says."""

    def __init__(self, end: Any) -> None:
        self.end = end
        self.pipe = self

    def poll(self, _: float) -> bool:
        return True

    def answer(self, _: float = 0) -> Any:
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def kill(self) -> None:
        pass


class Stopped(Forked):
    """A process that is stopped and goes on, and what it says."""

    def stop(self) -> None:
        pass

    resume = stop


class RefusesInHaste(FolderStorage):
    """Says of a load that has little time that it cannot be done."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        if timeout < 1:
            raise StorageUnavailable("others are at it")
        return super().resilience_load(key, timeout)


class TestStoppedWriters:
    @pytest.mark.parametrize("storage", [FolderStorage, RefusesInHaste])
    def test_loads_end_in_time(self, tmp_path: Path, storage: Any) -> None:
        result = look("stopped_writer", Alone(of_folder(tmp_path, storage)))
        assert (result.outcome, result.notes) == ("passed", ())

    @pytest.mark.parametrize(("late", "outcome"), [(2, "passed"), (3, "failed")])
    def test_seldom_is_a_note(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int, outcome: str) -> None:
        left = [True] * 2 * late  # a stop counts if two loads are late

        def is_late(*_: object) -> bool:
            return bool(left) and left.pop()

        monkeypatch.setattr(faults, "_is_late", is_late)
        result = look("stopped_writer", Alone(of_folder(tmp_path)))
        assert result.outcome == outcome
        said = result.what or result.notes[0]
        assert f"stopped in the middle of its commits, {late} times, loads with a time-out of 0.1 s" in said

    def test_one_that_waits_for_who_is_stopped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faults, "Background", NeverDone)
        assert "took longer than 1.1 s" in look("stopped_writer", Alone(of_folder(tmp_path))).what

    def test_one_that_cannot_go_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(faults, "subject_waits", ignored)
        result = look("stopped_writer", Alone(of_folder(tmp_path), [Stopped(Failed("it died"))]))
        assert "a process that was stopped now and then could not go on: it died" in result.what


class TestForks:
    @pytest.mark.parametrize(
        ("end", "says"),
        [
            ("child ended with 12", "child ended with 12"),
            (Failed("it died"), "it died"),
            ("well", "a third process got the lock"),
        ],
    )
    def test_what_went_wrong_beside_a_fork(self, tmp_path: Path, end: Any, says: str) -> None:
        assert f"beside a fork: {says}" in look("fork", Alone(of_folder(tmp_path), [Forked(end)])).what

    def test_a_child_that_keeps_the_lock_of_a_killed_parent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Told(Alone):
            """Hires nobody, and leaves the last of the signs that it is asked for."""

            def begin(self, member: int, function: Callable[..., Any], *arguments: Any, limit: float = 30.0) -> Any:
                Path(arguments[-1]).touch()
                return Forked("well")

        def taken(*_: object) -> bool:
            return False

        monkeypatch.setattr(processes, "try_lock", taken)
        assert "a child that another had forked meanwhile keeps it" in look("fork", Told(of_folder(tmp_path))).what

    @pytest.mark.parametrize(
        ("said", "finds"),
        [
            (["", "", ""], ""),
            (["", "it ended with 13", ""], "a child finds: it ended with 13"),
            (Failed("it did not end"), "the parent finds: it did not end"),
        ],
    )
    def test_who_finds_what_after_a_fork(self, tmp_path: Path, said: Any, finds: str) -> None:
        result = look("forked_at_work", Alone(of_folder(tmp_path), [Forked(said)]))
        assert result.outcome == ("failed" if finds else "passed")
        assert finds in result.what

    @pytest.mark.parametrize(
        ("end", "finds"),
        [
            ((0.01, 9, 9), ""),
            ((5.0, 9, 9), "commit did not return in 5 s; when they had ended, it did"),
            ((0.01, 9, 8), "updates are lost: parent and children committed 9 times beside forks, 8 are counted"),
            (Failed("it did not end"), "commit did not come to an end: it did not end"),
        ],
    )
    def test_a_fork_beside_threads(self, tmp_path: Path, end: Any, finds: str) -> None:
        result = look("forked_beside_threads", Alone(of_folder(tmp_path), [Forked(end)]))
        assert result.outcome == ("failed" if finds else "passed")
        assert finds in result.what


class TestKilledWriters:
    def test_what_the_last_one_left_is_not_what_was_acknowledged(self, tmp_path: Path) -> None:
        class Forgetful(FolderStorage):
            """Loads nothing where nobody writes."""

        subject = Alone(of_folder(tmp_path, Forgetful))
        end = subject.close

        def forget() -> None:
            end()

        subject.close = forget  # type: ignore[method-assign]
        plain = subject.handle.load
        subject.handle.load = lambda key, timeout=5.0: Snapshot(None, None)  # type: ignore[method-assign]
        assert plain is not None
        result = look("killed_writers", subject)
        assert "commits were acknowledged and" in result.what
        assert result.what.endswith("0 are counted")

    def test_versions_that_were_written_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def read(process: str, path: str) -> list[Operation]:
            return written(1)

        monkeypatch.setattr(Diary, "read", read)
        result = look("killed_writers", Alone(of_folder(tmp_path)))
        assert "was committed twice" in result.what

    def test_writers_that_cannot_go_on(self, tmp_path: Path) -> None:
        result = look("killed_writers", Alone(of_folder(tmp_path), [Forked(Failed("it fell over"))] * 5))
        assert result.what == "after writers were killed: it fell over"

    def test_writers_that_do_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Idle(Forked):
            def poll(self, _: float) -> bool:
                return False

        monkeypatch.setattr(processes, "clock", Hasty())
        result = look("killed_writers", Alone(of_folder(tmp_path), [Idle("")] * 5))
        assert result.what == "after writers were killed: the writers that were left did not go on"


def test_a_record_that_is_gone_beside_writers() -> None:
    with Subject(partial(MemoryStorage, "memory:")) as subject, pytest.raises(Violation, match="found nothing"):
        read(subject.handle, subject.key(), "reader", 10.0)


def test_a_first_commit_that_conflicts() -> None:
    class Conflicting(MemoryStorage):
        @hookimpl
        def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
            raise StorageConflict("as ever")

    result = look("readers_threads", Subject(partial(Conflicting, "memory:"), quick=True))
    assert "a save right after a load conflicted" in result.what


def test_what_a_killed_writer_does_is_ended(tmp_path: Path) -> None:
    with Alone(of_folder(tmp_path)) as subject, subject.signs() as signs:
        writer = Hired(subject, write_until_killed, (subject.key(), "writer", signs / "diary", 1))
        end = clock.monotonic() + 20
        while not Path(signs / "diary").exists() and clock.monotonic() < end:
            clock.sleep(0.001)
        writer.kill()
        with pytest.raises(Killed):
            writer.answer()


class TestAwaitable:
    @pytest.mark.parametrize(
        ("hook", "calls", "says"),
        [
            ("asave", 1, "the first asave of a key gave version 7@life"),
            ("aload", 2, "aload does not see what save committed"),
        ],
    )
    def test_what_drifts(self, tmp_path: Path, hook: str, calls: int, says: str) -> None:
        class Drifting(CasStorage):
            seen = 0

            def crooked(self, name: str, snapshot: Snapshot) -> Snapshot:
                Drifting.seen += name == hook
                if name == hook and Drifting.seen == calls:
                    return Snapshot(snapshot.payload or b"{}", Version("life", 7))
                return snapshot

            @hookimpl
            async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
                return self.crooked("aload", self.resilience_load(key, timeout))

            @hookimpl
            async def resilience_asave(
                self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
            ) -> Snapshot:
                return self.crooked("asave", self.resilience_save(key, payload, expected, expires_at, timeout))

        assert says in look("awaitable", Subject(of_folder(tmp_path, Drifting))).what

    def test_a_refused_asave_that_changes_the_record(self, tmp_path: Path) -> None:
        class Changing(CasStorage):
            @hookimpl
            async def resilience_asave(
                self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
            ) -> Snapshot:
                try:
                    return self.resilience_save(key, payload, expected, expires_at, timeout)
                except Exception:
                    now = self.resilience_load(key, timeout).version
                    self.resilience_save(key, payload, now, expires_at, timeout)
                    raise

        result = look("awaitable", Subject(of_folder(tmp_path, Changing)))
        assert "an asave that raised StorageConflict changed the record" in result.what

    def test_tasks_take_turns_where_there_is_a_lock(self) -> None:
        class Locking(MemoryStorage):
            @hookimpl
            async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
                return self.resilience_load(key, timeout)

            @hookimpl
            async def resilience_asave(
                self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float
            ) -> Snapshot:
                return self.resilience_save(key, payload, expected, expires_at, timeout)

        result = look("counts_tasks", Subject(partial(Locking, "memory:"), quick=True))
        assert result.outcome == "passed", result
