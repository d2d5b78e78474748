"""Edges of single checks, of the kit's jobs and of its processes, one crooked answer each."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from functools import partial
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conformance.broken import LeavesItOpen
from conformance.references import CasStorage, FolderStorage

from resilience import (
    Key,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageLockTimeout,
    StorageUnavailable,
    Version,
    clock,
    hookimpl,
)
from resilience.testing import (
    Anomaly,
    AwaitedFaultyStorage,
    Diary,
    Failed,
    FaultyStorage,
    Handle,
    Operation,
    Result,
    Skipped,
    StorageConformance,
    Subject,
    Violation,
    all_checks,
    check_replay,
    jobs,
    run,
    run_check,
    workers,
)
from resilience.testing.checks import freshness, locking, speed
from resilience.testing.subject import Background
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKS = {check.name: check for check in all_checks()}
KEY = Key("conformance", "edges")


def look(name: str, storage: object, **more: Any) -> Result:
    with Subject(lambda: storage, quick=True, **more) as subject:
        return run_check(CHECKS[name], subject)


def answering(answer: Any) -> Callable[..., Any]:
    """Make a function that answers this, whatever it is asked."""

    def answered(*_: object) -> Any:
        return answer

    return answered


def raising(error: Exception) -> Callable[..., Any]:
    """Make a function that raises this, whatever it is asked."""

    def raised(*_: object) -> Any:
        raise error

    return raised


class Memory(MemoryStorage):
    def __init__(self) -> None:
        super().__init__("memory:")


class Unadministered(Memory):
    resilience_keys = resilience_delete = resilience_discard = None  # type: ignore[assignment]


class Discarding(Memory):
    resilience_keys = resilience_delete = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("born_again", "skipped"),
        ("delete", "skipped"),
        ("keys", "skipped"),
        ("discard", "skipped"),
        ("names", "passed"),
    ],
)
def test_a_storage_without_administration(name: str, outcome: str) -> None:
    assert look(name, Unadministered()).outcome == outcome


@pytest.mark.parametrize("name", ["born_again", "names", "is_current", "deadlines"])
def test_a_storage_that_can_only_discard(name: str) -> None:
    assert look(name, Discarding()).outcome == "passed"


def test_a_storage_that_lists_and_cannot_delete() -> None:
    class Keeping(Memory):
        resilience_delete = None  # type: ignore[assignment]

    assert look("keys", Keeping()).outcome == "passed"


class Scripted(Memory):
    """Answers the n-th call of one hook as it is told."""

    def __init__(self, hook: str, nth: int, answer: Callable[[Any], Any]) -> None:
        super().__init__()
        self.left = {hook: nth}
        self.answer = answer

    def _crooked(self, hook: str, value: Any) -> Any:
        self.left[hook] = self.left.get(hook, 0) - 1
        return self.answer(value) if self.left[hook] == 0 else value

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any:
        return self._crooked("load", super().resilience_load(key, timeout))

    @hookimpl
    def resilience_delete(self, key: Key, expected: Any, timeout: float) -> Any:
        return self._crooked("delete", super().resilience_delete(key, expected, timeout))


class DropsEarly(Memory):
    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any:
        return super().resilience_load(key, timeout) if clock.wall() + 60 < self.ends else Snapshot(None, None)

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
        self.ends: float = expires_at or float("inf")
        return super().resilience_save(key, payload, expected, expires_at, timeout)


def test_a_record_that_expires_too_early() -> None:
    assert look("expiry", DropsEarly()).what == "a record whose expiry is less than a second from now is gone"


class OpensInVain(LeavesItOpen):
    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any:
        super().resilience_load(key, timeout)
        raise StorageUnavailable("no answer in time")


def test_what_is_left_open_where_no_store_answers() -> None:
    away = OpensInVain("memory:")
    result = look("nothing_left_open", Memory(), unreachable=lambda: away)
    away.close()
    assert "descriptors and threads more are open after 40 loads from a store that does not answer" in result.what
    assert look("nothing_left_open", Memory(), unreachable=Memory).outcome == "passed"


def test_a_delete_of_anything_that_says_that_nothing_was_there() -> None:
    storage = Scripted("delete", 3, lambda _: False)
    assert "returned False although it removed a record" in look("delete", storage).what


def test_a_late_save_of_an_earlier_life() -> None:
    class Reviving(Memory):
        @hookimpl
        def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
            if b"late" in payload:
                return Snapshot(payload, Version(expected.incarnation, expected.number + 1))
            return super().resilience_save(key, payload, expected, expires_at, timeout)

    assert "of a record that is gone by delete was committed" in look("born_again", Reviving()).what


def test_a_second_life_that_does_not_count_from_one() -> None:
    class Counting(Memory):
        @hookimpl
        def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
            saved = super().resilience_save(key, payload, expected, expires_at, timeout)
            if b'"life": 2' in payload:
                return Snapshot(payload, Version("second", 2))
            return saved

    assert "the first save after a delete got number 2" in look("born_again", Counting()).what


def test_names_that_share_a_record_without_a_conflict() -> None:
    class Folding(Memory):
        @hookimpl
        def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
            key = Key(key.kind, key.name.lower())
            expected = self.resilience_load(key, timeout).version
            return super().resilience_save(key, payload, expected, expires_at, timeout)

        @hookimpl
        def resilience_load(self, key: Key, timeout: float) -> Snapshot:
            return super().resilience_load(Key(key.kind, key.name.lower()), timeout)

    assert "leads to" in look("names", Folding()).what


def test_an_expired_record_with_another_version() -> None:
    class Renumbering(Memory):
        expired = False

        @hookimpl
        def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
            self.expired = expires_at is not None and expires_at < 2e9 and payload == b"{}" and self.past(expires_at)
            return super().resilience_save(key, payload, expected, expires_at, timeout)

        @staticmethod
        def past(expires_at: float) -> bool:
            from resilience import clock

            return expires_at < clock.wall()

        @hookimpl
        def resilience_load(self, key: Key, timeout: float) -> Snapshot:
            found = super().resilience_load(key, timeout)
            return Snapshot(found.payload, Version("other", 9), found.is_current) if self.expired else found

    assert "a record that expired loads with another version" in look("expiry", Renumbering()).what


def test_an_object_that_is_closed_and_used_again(tmp_path: Path) -> None:
    assert look_at_factory("reopened", partial(FolderStorage, f"folder:{tmp_path}")).outcome == "passed"


def look_at_factory(name: str, factory: Any, **more: Any) -> Result:
    with Subject(factory, quick=True, **more) as subject:
        return run_check(CHECKS[name], subject)


class TestDamage:
    """What a load gives of a record that was damaged."""

    @pytest.mark.parametrize(
        ("load", "says"),
        [
            (StorageUnavailable("no"), "load of it raised StorageUnavailable"),
            (Snapshot(b"nonsense", Version("a", 1)), "load of it gave 8 bytes"),
        ],
    )
    def test_neither_healed_nor_said(self, load: Any, says: str) -> None:
        storage = FaultyStorage(Memory())

        def damage(_: object, __: Key) -> None:
            if isinstance(load, Exception):
                storage.fail("load", 1, load)
            else:
                storage.plan("load", 1, answering(load))

        assert says in look("damaged", storage, damage=damage).what

    def test_healed(self) -> None:
        result = look("damaged", Memory(), damage=answering(None))
        assert (result.outcome, result.notes) == (
            "passed",
            ("a damaged record is healed: load gives the one that was committed",),
        )

    def corrupt(self, storage: FaultyStorage, then: Callable[[], object] = lambda: None) -> Callable[[Any, Key], None]:
        def damage(_: object, __: Key) -> None:
            storage.fail("load", 1, StorageCorrupt("damaged"))
            then()

        return damage

    def test_another_record_is_gone(self) -> None:
        storage = FaultyStorage(Memory())
        damage = self.corrupt(storage, lambda: storage.plan("load", 2, answering(Snapshot(None, None))))
        assert "the record of another key is gone" in look("damaged", storage, damage=damage).what

    def test_it_cannot_be_set_aside(self) -> None:
        storage = FaultyStorage(Memory())
        storage.resilience_discard = None  # type: ignore[assignment,method-assign]
        result = look("damaged", storage, damage=self.corrupt(storage))
        assert (result.outcome, len(result.notes)) == ("passed", 1)

    def test_it_is_still_there_when_it_was_set_aside(self) -> None:
        storage = FaultyStorage(Memory())
        storage.plan("discard", 1, answering(None))
        assert "after a damaged record was set aside" in look("damaged", storage, damage=self.corrupt(storage)).what

    def test_the_next_record_has_its_version(self) -> None:
        storage = FaultyStorage(Memory())
        first: list[Any] = []

        def save(function: Any, arguments: tuple[Any, ...]) -> Any:
            first.append(function(*arguments))
            return first[-1]

        def again(function: Any, arguments: tuple[Any, ...]) -> Any:
            function(*arguments)
            return Snapshot(arguments[1], first[0].version)

        storage.plan("save", 2, save).plan("save", 3, again)
        assert "has the version of the damaged one" in look("damaged", storage, damage=self.corrupt(storage)).what


class Damaged(Memory):
    """Its record is damaged once it says so; its saves then do as they are told."""

    says: Any = None

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        if self.says is not None:
            raise StorageCorrupt("damaged", key=key)
        return super().resilience_load(key, timeout)

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        if self.says is not None:
            raise self.says
        return super().resilience_save(key, payload, expected, expires_at, timeout)


class Overwriting(Memory):
    """Refuses a save over damage, and has written it all the same."""

    damaged = False

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        if self.damaged:
            self._record(key).put(payload, Version("over", 1))
        return super().resilience_save(key, payload, expected, expires_at, timeout)


def becoming(storage: object, **values: object) -> Callable[[Any, Key], None]:
    """Make a `damage` that sets attributes of a storage."""

    def damage(_: object, __: Key) -> None:
        vars(storage).update(values)

    return damage


class TestSavesOverDamage:
    @pytest.mark.parametrize(
        "says",
        [StorageCorrupt("damaged"), StorageConflict("another")],
    )
    def test_either_error_will_do(self, says: Exception) -> None:
        storage = Damaged()
        assert look("damaged_saves", storage, damage=becoming(storage, says=says)).outcome == "passed"

    @pytest.mark.parametrize("current", [Snapshot(None, None), Snapshot(b"half", Version("a", 1)), "nonsense"])
    def test_a_conflict_that_knows_better(self, current: Any) -> None:
        storage, says = Damaged(), StorageConflict("another", current=current)
        result = look("damaged_saves", storage, damage=becoming(storage, says=says))
        assert f"`expected` None over a damaged record raised StorageConflict with {current!r}" in result.what

    def test_one_that_healed_itself(self) -> None:
        assert look("damaged_saves", Memory(), damage=answering(None)).outcome == "passed"

    def test_one_that_is_refused_and_done(self) -> None:
        storage = Overwriting()
        result = look("damaged_saves", storage, damage=becoming(storage, damaged=True))
        assert "over a damaged record was refused, and load gives version 1@over" in result.what


class Reading(Memory):
    """Gives what it is told instead of its records."""

    def __init__(self, answer: Callable[[list[Any]], Any]) -> None:
        super().__init__()
        self.answer = answer

    def records(self, kind: str) -> Any:
        return self.answer([(key, self.resilience_load(key, 0)) for key in self.resilience_keys() if key.kind == kind])


Records = list[tuple[Key, Snapshot]]


def only_keys(records: Records) -> Any:
    return [key for key, _ in records]


def plain_tuples(records: Records) -> Any:
    return [(tuple(key), found) for key, found in records]


def payloads(records: Records) -> Any:
    return [(key, found.payload) for key, found in records]


def all_but_one(records: Records) -> Any:
    return records[1:]


def twice(records: Records) -> Any:
    return records * 2


def in_lower_case(records: Records) -> Any:
    return [(Key(key.kind, key.name.lower()), found) for key, found in records]


def cut(records: Records) -> Any:
    return [(key, Snapshot(b"cut", found.version)) for key, found in records]


def more(records: Records) -> Any:
    first = records[0][0]
    return [*records, (Key(first.kind, first.name.replace("plain", "never saved")), None)]


def to_be_loaded(records: Records) -> Any:
    of_others = (Key("conformance-read", "of somebody else"), Snapshot(b"{}", Version("a", 1)))
    return [*((key, None) for key, _ in records), of_others]


class TestRecords:
    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (only_keys, "not a pair of a Key and a Snapshot"),
            (plain_tuples, "not a pair of a Key and a Snapshot"),
            (payloads, "records returned bytes, not a Snapshot"),
            (all_but_one, "plain' 0 times; it is stored once"),
            (twice, "plain' 2 times; it is stored once"),
            (in_lower_case, "it is stored once"),
            (cut, "gives another payload than load, both with version 3@"),
            (more, "never saved', for which nothing is stored"),
        ],
    )
    def test_wrong_answers(self, answer: Any, says: str) -> None:
        result = look("records", Reading(answer))
        assert result.outcome == "failed"
        assert says in result.what

    def test_some_that_are_to_be_loaded_and_some_of_others(self) -> None:
        storage = Reading(to_be_loaded)
        assert look("records", storage).outcome == "passed"

    def test_one_that_raises_is_a_note(self) -> None:
        result = look("records", Reading(raising(OSError("no"))))
        assert (result.outcome, len(result.notes)) == ("passed", 1)
        assert "records raised OSError: no; `resilience status` loads each record instead" in result.notes[0]

    def test_a_storage_that_cannot_delete(self, monkeypatch: pytest.MonkeyPatch) -> None:
        storage = Reading(list)
        monkeypatch.setattr(storage, "resilience_delete", None)
        assert look("records", storage).outcome == "passed"


class Named(FolderStorage):
    reader = "conformance.test_checks_edges:Blind"


class Blind:
    """A reader that never answers."""

    def __init__(self, url: str, settings: None) -> None:
        self.url = url

    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        raise OSError(self.url)


class Missing(FolderStorage):
    reader = "conformance.test_checks_edges:Nobody"


class TestReader:
    def test_one_that_never_answers_is_a_note(self, tmp_path: Path) -> None:
        result = look_at_factory("reader", partial(Named, f"folder:{tmp_path}", settings=None))
        assert (result.outcome, len(result.notes)) == ("passed", 1)
        assert "the reader raised at each look" in result.notes[0]

    def test_one_that_is_not_there(self, tmp_path: Path) -> None:
        result = look_at_factory("reader", partial(Missing, f"folder:{tmp_path}"))
        assert "checks_edges:Nobody', and to import it raised AttributeError" in result.what

    def test_one_that_nobody_knows_how_to_make(self, tmp_path: Path) -> None:
        result = look_at_factory("reader", lambda: Named(f"folder:{tmp_path}"))
        assert "the factory is neither a URL nor functools.partial of the class" in result.reason

    def test_one_of_a_url(self, tmp_path: Path) -> None:
        assert look_at_factory("reader", f"file://{tmp_path}/state").outcome == "passed"


class DoesIO(FolderStorage):
    """Makes its folder, a file and a connection when it is made."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "made").write_text("")
        (self.folder / "made").read_text()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect_ex(str(self.folder / "nobody"))


def test_what_a_constructor_does_is_a_note(tmp_path: Path) -> None:
    result = look_at_factory("made", partial(DoesIO, f"folder:{tmp_path}"))
    assert result.outcome == "passed"
    did = [note.partition(":")[0].removeprefix("making a storage ") for note in result.notes]
    assert did == [
        f"makes the directory '{tmp_path}'",
        f"opens '{tmp_path}/made' for writing",
        f"connects a socket to '{tmp_path}/nobody'",
    ]
    assert look_at_factory("made", f"file://{tmp_path}/state").notes == ()


class TestLocks:
    def test_an_error_of_its_own_takes_the_place_of_the_block_s(self) -> None:
        class Translating(Memory):
            @hookimpl
            def resilience_lock(self, key: Key, timeout: float) -> Any:
                return Raises(super().resilience_lock(key, timeout), StorageConflict("of the lock"))

        assert look("lock_is_freed", Translating()).outcome == "failed"

    def test_one_that_excludes_nobody_is_another_check_s_to_say(self) -> None:
        class Open(Memory):
            @hookimpl
            def resilience_lock(self, key: Key, timeout: float) -> Any:
                return Passing()

        assert look("lock_timeout", Open()).outcome == "passed"

    def test_a_storage_error_of_leaving_passes(self) -> None:
        class Failing(Memory):
            @hookimpl
            def resilience_lock(self, key: Key, timeout: float) -> Any:
                return Raises(super().resilience_lock(key, timeout), StorageUnavailable("gone"))

        with pytest.raises(StorageUnavailable, match="gone"), Handle(Failing()).lock(KEY):
            pass

    def test_the_block_s_own_error_passes(self) -> None:
        class Rethrowing(Memory):
            @hookimpl
            def resilience_lock(self, key: Key, timeout: float) -> Any:
                return Raises(super().resilience_lock(key, timeout), None)

        with pytest.raises(ZeroDivisionError), Handle(Rethrowing()).lock(KEY):
            raise ZeroDivisionError

    def test_one_that_is_handed_on_too_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locking, "Background", Waited)
        assert (
            "a waiter did not get the lock within 4.0 s after it was free" in look("lock_is_handed_on", Memory()).what
        )

    def test_a_delete_that_waits_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locking, "Background", Waited)
        assert "resilience_delete did not end in time" in look("deadlines", Memory()).what


class Waited:
    """In the place of a thread: it waited in vain."""

    def __init__(self, *_: object) -> None: ...

    def is_done(self, _: float) -> bool:
        return False

    def result(self, _: float) -> tuple[bool, float]:
        return True, 4.0


class Passing:
    """A lock that is none, and no `nullcontext` either."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class Raises(Passing):
    """A context manager that frees the lock and raises: what it is given, or the block's own error again."""

    def __init__(self, inner: Any, error: Exception | None) -> None:
        self.inner = inner
        self.error = error

    def __enter__(self) -> None:
        self.inner.__enter__()

    def __exit__(self, *error: object) -> None:
        self.inner.__exit__(None, None, None)
        raised: Any = self.error or error[1]
        if raised is not None:
            raise raised


def test_a_storage_that_has_no_word_for_freshness(tmp_path: Path) -> None:
    result = look_at_factory("is_current", partial(FolderStorage, f"folder:{tmp_path}"))
    assert "the engine loads at each call" in result.reason


def test_freshness_that_comes_a_little_late() -> None:
    stale = iter([True, True, False])
    old = Snapshot(b"{}", Version("a", 1), lambda: next(stale))
    assert freshness._stale(old, "a commit", 20.0) >= 0


class Timed(Memory):
    """Tells the time that it is given, else that of this machine."""

    def __init__(self, told: Any = None) -> None:
        super().__init__()
        self.told = told

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, found.is_current, self.told or clock.wall())


def test_the_time_of_the_store() -> None:
    with Subject(Timed, quick=True) as subject:
        assert run_check(CHECKS["time"], subject).outcome == "passed"
        assert 0 <= subject.measured["time of the store, known to within, s"] < 5


@pytest.mark.parametrize("told", [float("nan"), -1.0, 1e300, "noon"])
def test_a_time_that_is_none(told: Any) -> None:
    assert "which is no wall-clock second" in look("time", Timed(told)).what


def test_a_commit_slower_than_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "INLINE_LIMIT", 0.0)
    assert "it declares INLINE, and a commit takes" in look("speed", Memory()).what


def test_a_payload_that_is_no_bytes() -> None:
    storage = FaultyStorage(Memory())
    storage.plan("load", 1, answering(Snapshot("text", Version("a", 1))))  # type: ignore[arg-type]
    with pytest.raises(Violation, match="a payload of type str"):
        Handle(storage).load(KEY)


def test_an_awaitable_that_raises_what_it_likes(tmp_path: Path) -> None:
    class Exploding(CasStorage):
        @hookimpl
        async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
            raise RuntimeError("boom")

    result = look_at_factory("awaitable", partial(Exploding, f"cas:{tmp_path}/state"))
    assert "resilience_aload raised RuntimeError: boom" in result.what


def test_a_record_without_delete_is_discarded_at_the_end() -> None:
    storage = Discarding()
    handle = Handle(storage)
    handle.put(KEY, b"{}")
    handle.remove(KEY)
    assert handle.load(KEY).payload is None


class TestSubject:
    def test_a_storage_of_one_process_has_one_object(self) -> None:
        with Subject(Memory) as subject:
            assert subject.another() is subject.another()

    def test_a_job_that_cannot_be_sent(self, tmp_path: Path) -> None:
        with (
            Subject(lambda: FolderStorage(f"folder:{tmp_path}")) as subject,
            pytest.raises(Violation, match="cannot be sent to another process"),
        ):
            subject.begin(0, jobs.loaded, KEY)

    def test_a_thread_that_does_not_answer(self) -> None:
        gate = threading.Event()
        waiting = Background(gate.wait, 20)
        with pytest.raises(Violation, match="a thread did not answer in 0 s, although nothing holds a lock for long"):
            waiting.result(0.0)
        gate.set()
        assert waiting.result(20)


class InCrowd(Subject):
    """A subject whose processes say what is wanted."""

    failed = Failed("in another process:\nTraceback", ("StorageUnavailable", "the disk is full"))

    @property
    def workers(self) -> Any:
        return self

    def each(self, jobs: object, *, limit: float) -> Any:
        raise self.failed


class TestAnErrorOutOfPlace:
    """What a hook raises beside others, and not alone, says that something is missing that keeps them apart."""

    def test_of_threads(self, tmp_path: Path) -> None:
        storage = FaultyStorage(FolderStorage(f"x:{tmp_path}")).fail("save", 2, StorageUnavailable("the disk is full"))
        result = look("counts_threads", storage)
        assert result.what == "a hook raised StorageUnavailable while others were at work: the disk is full"
        assert "let the lock exclude every thread and every process" in result.fix

    def test_of_threads_without_a_lock(self, tmp_path: Path) -> None:
        storage = FaultyStorage(CasStorage(f"x:{tmp_path}/state")).fail(
            "save", 2, StorageUnavailable("the disk is full")
        )
        assert "the lock is contextlib.nullcontext(), so `save` must" in look("counts_threads", storage).fix

    def test_a_lock_that_comes_too_late_is_something_else(self) -> None:
        storage = FaultyStorage(Memory()).fail("lock", 3, StorageLockTimeout("too late"))
        result = look("births_threads", storage)
        assert result.what == "a hook raised StorageLockTimeout where nothing was wrong: too late"

    @pytest.mark.parametrize(("jobs", "when"), [(1, "where nothing was wrong"), (2, "while others were at work")])
    def test_of_processes(self, jobs: int, when: str) -> None:
        with InCrowd(Memory) as subject, pytest.raises(Violation, match=f"raised StorageUnavailable {when}: the disk"):
            subject.in_processes([(found,)] * jobs)

    def test_in_a_few_words(self) -> None:
        assert InCrowd.failed.briefly == "in another process StorageUnavailable was raised: the disk is full"
        assert Failed("it died").briefly == "it died"


def test_damaging_is_the_author_s_to_write() -> None:
    with pytest.raises(NotImplementedError):
        StorageConformance().damage(None, KEY)


class TestJobs:
    """What workers do, done here."""

    def test_a_torn_record(self) -> None:
        with pytest.raises(Violation, match="a load gave a torn record: 7 bytes"):
            jobs.checked(Snapshot(b"no JSON", Version("a", 1)))

    def test_a_commit_that_fails_is_abandoned(self) -> None:
        storage = FaultyStorage(Memory()).fail("save")
        diary = Diary("one")
        with pytest.raises(StorageUnavailable):
            jobs.add_one(Handle(storage), KEY, "one", diary)
        (operation,) = diary.operations
        assert operation.version is None

    def test_a_share_counts_time_outs_and_no_conflicts(self) -> None:
        storage = FaultyStorage(Memory())
        storage.fail("save", 1, StorageConflict("another was first")).fail("lock", 3, StorageLockTimeout("late"))
        done, late, longest = jobs.share(Handle(storage), KEY, "one", 0.05, 0.25)
        assert done > 0
        assert late == 1
        assert 0 <= longest < 0.25

    def test_a_reader_that_finds_damage(self) -> None:
        storage = FaultyStorage(Memory()).fail("load", 1, StorageCorrupt("half a record"))
        with pytest.raises(Violation, match="a load beside writers raised StorageCorrupt: half a record"):
            jobs.read(Handle(storage), KEY, "reader", 1.0)

    def test_a_reader_that_finds_two_contents_of_one_version(self) -> None:
        storage = FaultyStorage(Memory())
        for nth, who in enumerate("ab", 1):
            storage.plan("load", nth, answering(Snapshot(jobs.payload_of(1, who), Version("life", 1))))
        with pytest.raises(Violation, match="was read with two contents"):
            jobs.read(Handle(storage), KEY, "reader", 1.0)

    def test_a_holder_that_comes_too_late(self, tmp_path: Path) -> None:
        storage = FaultyStorage(Memory()).fail("save", 1, StorageConflict("another was first"))
        (tmp_path / "free").touch()
        held, free = str(tmp_path / "held"), str(tmp_path / "free")
        assert jobs.hold(Handle(storage), KEY, held, free, 1.0, b"late") == "conflict"

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (raising(StorageCorrupt("wrong checksum")), "cannot be read: StorageCorrupt: wrong checksum"),
            (answering(Snapshot(b"3 of another; ", Version("life", 1))), "shows bytes of 'another'"),
            (answering(Snapshot(b"no name", Version("life", 1))), "is not what was saved: version 1@life"),
            (answering(Snapshot(None, None)), "is gone"),
        ],
    )
    def test_a_record_that_is_not_what_was_saved(self, answer: Any, says: str) -> None:
        handle, kept = Handle(Scripted("load", 1, answer)), (Version("life", 1), b"1 of edges")
        with pytest.raises(Violation, match=f"^beside commits to other keys.* the record of 'edges' {re.escape(says)}"):
            jobs.look_at(handle, KEY, kept, [KEY, Key("conformance", "another")])

    def test_a_record_that_another_key_changed(self) -> None:
        storage = FaultyStorage(Memory()).fail("save", 2, StorageConflict("version 9"))
        with pytest.raises(Violation, match="changed, though nobody else saves it: version 9"):
            jobs.bear(Handle(storage), [[KEY]], 0)

    def test_records_that_cannot_be_deleted(self) -> None:
        handle = Handle(Unadministered())
        ((version, payload),) = jobs.bear(handle, [[KEY]], 0).values()
        assert (version, payload) == jobs.loaded(handle, KEY)
        assert version is not None
        assert (version.number, len(payload or b"")) == (len(jobs.SIZES), jobs.SIZES[-1])

    def test_a_thread_that_holds_while_another_forks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fork", answering(1))
        held, free, handle = str(tmp_path / "held"), str(tmp_path / "free"), Handle(Memory())
        Path(free).touch()
        jobs.fork_while_held(handle, KEY, held, free, "never")
        assert Path(held).exists()
        assert jobs.try_lock(handle, KEY, 0.0)

    def test_what_is_wrong_after_a_fork(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fork", answering(1))
        monkeypatch.setattr(os, "waitpid", answering((1, 13 << 8)))
        keys, signs = [KEY, Key("conformance", "other")], [str(tmp_path / "a child")]
        assert jobs.fork_at_work(Handle(Memory()), keys, 2, signs) == ["", "it ended with 13"]
        for said in ("", "the record of 'other' is gone"):
            Path(signs[0]).write_text(said, "utf-8")
            assert jobs.fork_at_work(Handle(Memory()), keys, 1, signs) == ["", said]
            assert not Path(signs[0]).exists()

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (raising(StorageUnavailable("no connection")), "a hook raised StorageUnavailable: no connection"),
            (raising(ValueError("half an answer")), "resilience_load raised ValueError: half an answer"),
            (answering(Snapshot(None, None)), "the record of 'edges' is gone"),
        ],
    )
    def test_what_one_finds_at_work(self, answer: Any, says: str) -> None:
        handle = Handle(Scripted("load", 2, answer))
        kept = handle.put(KEY, b"1")
        assert jobs.at_work(handle, [KEY], 0, (kept.version, b"1"), 0.0).startswith(says)

    @pytest.mark.parametrize(
        ("status", "end"),
        [
            (10, "child got the lock"),
            (12, "the child loads what was committed before the fork, not what was committed after it"),
            (13, "child ended with 13"),
            (11, "well"),
        ],
    )
    def test_what_a_forked_child_says(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, end: str
    ) -> None:
        monkeypatch.setattr(os, "fork", answering(1))
        monkeypatch.setattr(os, "waitpid", answering((1, status << 8)))
        held, free = str(tmp_path / "held"), str(tmp_path / "free")
        later = threading.Timer(0.02, Path(free).touch)
        later.start()
        assert jobs.fork_beside(Handle(Memory()), Memory, KEY, held, free) == end
        later.join()
        assert Path(held).exists() == (end == "well")


def found() -> str:
    return "found"


def slow() -> None:
    """End when whoever asked has hung up."""
    threads = [thread for thread in threading.enumerate() if thread.name == "asking"]
    for thread in threads:
        thread.join(20)


def violated() -> None:
    raise Violation("what", "why", "fix")


def skipped() -> None:
    raise Skipped("nothing to look at")


def failed() -> None:
    raise Failed("it fell over")


def refused() -> None:
    raise StorageUnavailable("the disk is full")


class TestWorker:
    """What stands in the other process, served here."""

    @staticmethod
    def served(*sent: object, answers: int) -> list[Any]:
        """Send some things, take so many answers, and hang up."""
        ours, theirs = Pipe()
        number = os.dup(theirs.fileno())
        theirs.close()
        taken: list[Any] = []

        def take() -> None:
            for message in sent:
                if isinstance(message, bytes):
                    ours.send_bytes(message)
                else:
                    ours.send(message)
            taken.extend(ours.recv() for _ in range(answers))
            ours.close()

        before = signal.getsignal(signal.SIGINT)
        thread = threading.Thread(target=take, name="asking")
        thread.start()
        try:
            workers.serve(number)
        finally:
            signal.signal(signal.SIGINT, before)
        thread.join(20)
        return taken

    @pytest.mark.parametrize(
        ("function", "kind", "says"),
        [
            (found, "answer", "found"),
            (violated, "violation", "what"),
            (skipped, "skipped", "nothing to look at"),
            (failed, "raised", "Failed: it fell over"),
            (refused, "raised", "('StorageUnavailable', 'the disk is full')"),
        ],
    )
    def test_what_a_function_comes_to(self, function: Any, kind: str, says: str) -> None:
        ready, answer = self.served((sys.path, 5, function, ()), 0.0, answers=2)
        assert ready == ("answer", None)
        assert answer[0] == kind
        assert says in str(answer[1])

    def test_what_cannot_be_read(self) -> None:
        ((kind, (says, _)),) = self.served(b"no pickle", answers=1)
        assert kind == "raised"
        assert says.startswith("what was sent cannot be imported here")

    def test_who_hangs_up_before_it_ends(self) -> None:
        assert self.served((sys.path, 5, slow, ()), 0.0, answers=1) == [("answer", None)]

    def test_who_hangs_up_before_it_begins(self) -> None:
        assert self.served((sys.path, 5, found, ()), answers=1) == [("answer", None)]


def test_tasks_that_conflict_try_again(tmp_path: Path) -> None:
    result = look_at_factory("counts_tasks", lambda: AwaitedFaultyStorage(CasStorage(f"cas:{tmp_path}/state")))
    assert result.outcome == "passed", result


def test_a_test_of_the_author_s_own_gets_no_checks() -> None:
    class Metafunc:
        fixturenames: tuple[str, ...] = ("storage_factory",)

        def parametrize(self, *_: object) -> None:
            pytest.fail("it is no test of the kit")

    own: Any = Metafunc()
    StorageConformance().pytest_generate_tests(own)
    assert own.fixturenames == ("storage_factory",)


def test_a_group_is_named_once() -> None:
    text = run(Memory, only=["hooks", "nothing_stored"]).text()
    assert text.splitlines().count("contract") == 1


def test_two_gaps_are_filled_by_two_operations_that_never_returned() -> None:
    def written(number: int, version: Version | None) -> Operation:
        returned = None if version is None else number + 0.5
        return Operation("p", number, "write", float(number), returned, version, number, number if version else None)

    known = [written(1, Version("life", 1)), written(4, Version("life", 4))]
    unknown = [written(2, None), written(3, None)]
    check_replay([*known, *unknown], 0, lambda state, event: (state + 1, event))
    with pytest.raises(Anomaly):
        check_replay([*known, *unknown], 0, lambda state, event: (state + 1, 0))
