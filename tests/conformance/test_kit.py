"""The kit finds every mistake and names it, and finds none in storages that are right.

`RESILIENCE_TEST_REPEAT=100` puts those that are right to the proof so many times.
"""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conformance.broken import MISTAKES, DoesNotAnswer, KeepsText, Mistake, NoLock
from conformance.references import CasStorage, FolderStorage, damage_folder
from storages import giving

from resilience import Capability, ConfigurationError, Key, PluginError, Snapshot, StorageUnavailable, clock, hookimpl
from resilience.testing import KIT_VERSION, FaultyStorage, Result, Subject, Violation, all_checks, run, run_check
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.testing import Report

ROOT = Path(__file__).parents[2]
PAGE = " ".join((ROOT / "docs" / "storage-mistakes.md").read_text("utf-8").split())
REPEAT = range(int(os.environ.get("RESILIENCE_TEST_REPEAT", "1")))
HEAVY = {
    *(
        "counts_processes",
        "keys_processes",
        "births_processes",
        "readers_processes",
        "is_current_elsewhere",
        "fair_share",
    ),
    *(
        "killed_holder",
        "killed_writers",
        "stopped_holder",
        "stopped_writer",
        "fork",
        "forked_at_work",
        "forked_births",
        "forked_alone",
        "forked_beside_threads",
        "lock_is_handed_on",
        "deadlines",
        "speed",
    ),
}


def damage_file(storage: FileStorage, key: Key) -> None:
    """Make both slots of the record of a key unreadable."""
    for path in Path(storage.folder).glob("*/*.state"):
        content = bytearray(path.read_bytes())
        if key.name.encode() in content:
            content[128:] = bytes(byte ^ 0xFF for byte in content[128:])
            with path.open("r+b") as file:
                file.write(content)


def failures(report: Report) -> str:
    return "\n".join(map(str, report.failed))


# --- storages that are right ------------------------------------------------------------------------------------------


RIGHT: list[Any] = [
    pytest.param(MemoryStorage, None, id="memory", marks=pytest.mark.heavy),
    pytest.param(FileStorage, damage_file, id="file", marks=pytest.mark.heavy),
    pytest.param(FolderStorage, damage_folder, id="lock", marks=pytest.mark.heavy),
    pytest.param(CasStorage, None, id="compare-and-set", marks=pytest.mark.heavy),
]


@pytest.mark.timeout(600)  # some fifty checks, each of which has a limit of its own
@pytest.mark.parametrize("turn", REPEAT)
@pytest.mark.parametrize(("storage", "damage"), RIGHT)
def test_right_storages_pass(tmp_path: Path, storage: Any, damage: Any, turn: int) -> None:
    called = [check.name for check in all_checks() if check.road == "called"]  # the others stand in the next test
    quick = len(REPEAT) == 1 and storage is not FileStorage  # once, ours shows that the whole kit can be passed
    factory = partial(storage, f"file://{tmp_path}/state", None)
    report = run(factory, only=called, damage=damage, quick=quick, seed=turn)
    assert report.ok, failures(report)
    assert report["counts_threads"].outcome == report["keys_threads"].outcome == "passed"
    assert report["damaged"].outcome == ("skipped" if damage is None else "passed")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("turn", REPEAT)
@pytest.mark.parametrize(("storage", "damage"), RIGHT)
def test_right_storages_pass_from_coroutines(tmp_path: Path, storage: Any, damage: Any, turn: int) -> None:
    awaited = [check.name for check in all_checks() if check.road == "awaited"]
    report = run(partial(storage, f"file://{tmp_path}/state", None), only=awaited, damage=damage, quick=True, seed=turn)
    assert report.ok, failures(report)
    assert report["awaited_counts_threads"].outcome == report["loop_stays_free"].outcome == "passed"
    assert report["awaited_counts_processes"].outcome == ("skipped" if storage is MemoryStorage else "passed")


FORKS = ["forked_at_work", "forked_births", "forked_alone", "forked_beside_threads"]


def test_some_with_processes(tmp_path: Path) -> None:
    """On every interpreter."""
    checks = ["lock_excludes_processes", "visible", "counts_processes", "killed_holder", "stopped_holder", "fork"]
    report = run(partial(FileStorage, f"file://{tmp_path}/state"), quick=True, only=[*checks, *FORKS])
    assert [result.outcome for result in report.results] == ["passed"] * 10, failures(report)


def test_records_of_many_keys(tmp_path: Path) -> None:
    checks = ["delete_compares", "keys_threads", "keys_processes", "many_records", "keys", "expiry"]
    report = run(partial(FileStorage, f"file://{tmp_path}/state"), quick=True, only=checks)
    assert [result.outcome for result in report.results] == ["passed"] * 6, failures(report)


def test_what_a_storage_has_not_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_compare = run(partial(CasStorage, f"cas:{tmp_path}/state"), quick=True, only=["discard_spares"])
    assert "the storage has no resilience_discard" in by_compare["discard_spares"].reason
    by_lock = run(partial(MemoryStorage, "memory:"), quick=True, only=["discard_spares"])
    assert "the engine holds the lock" in by_lock["discard_spares"].reason
    monkeypatch.setattr(FileStorage, "resilience_delete", None)
    kept = run(partial(FileStorage, f"file://{tmp_path}/kept"), quick=True, only=["is_current"])
    assert kept["is_current"].outcome == "passed", failures(kept)
    monkeypatch.setattr(CasStorage, "resilience_delete", None)
    without = run(partial(CasStorage, f"cas:{tmp_path}/state"), quick=True, only=["delete_compares"])
    assert "the storage has no resilience_delete" in without["delete_compares"].reason
    unborn = run(partial(CasStorage, f"cas:{tmp_path}/state"), quick=True, only=["forked_births"])
    assert "the storage has no resilience_delete" in unborn["forked_births"].reason


def test_a_slow_storage_keeps_as_many_records_as_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.testing.checks.contract.MANY_WITHIN", -1.0)
    result = run(partial(MemoryStorage, "memory:"), quick=True, only=["many_records"])["many_records"]
    assert result.notes == ("0 records were kept at once; there was no time to save more",)


@pytest.mark.heavy
def test_quick_with_processes(tmp_path: Path) -> None:
    report = run(partial(FileStorage, f"file://{tmp_path}/state"), kit="1", quick=True, damage=damage_file)
    assert report.ok, failures(report)
    passed = {result.name for result in report.results if result.outcome == "passed"}
    assert {check.name for check in all_checks("1")} - passed == {"awaitable", "counts_tasks", "time", "unreachable"}
    assert report.seconds < 60


def test_quick_by_compare_and_set(tmp_path: Path) -> None:
    checks = ["conflicts", "lock_excludes_threads", "awaitable", "counts_tasks", "births_threads", "claims"]
    checks += ["awaited_claims", "cancelled_saves", "cancelled_calls"]
    report = run(partial(CasStorage, f"cas:{tmp_path}/state"), quick=True, only=checks)
    assert report.ok, failures(report)
    assert "compare-and-set alone" in report["lock_excludes_threads"].reason
    assert "the loss of power was not tried" in " ".join(report["claims"].notes)


# --- storages that are not --------------------------------------------------------------------------------------------


def found(mistake: Mistake, folder: Path) -> Result:
    factory = partial(mistake.storage, f"broken:{folder}/state")
    return run(factory, only=[mistake.check], quick=True, **mistake.more)[mistake.check]


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(
            mistake,
            id=f"{mistake.storage.__name__}-{mistake.check}",
            marks=[pytest.mark.heavy] if mistake.check in HEAVY else [],
        )
        for mistake in MISTAKES
    ],
)
def test_each_mistake_is_found_and_named(tmp_path: Path, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.testing.checks.processes.FREED_WITHIN", 1.0)  # what is never freed is waited for
    monkeypatch.setattr("resilience.testing.checks.forks.LIMIT", 3.0)  # likewise
    result = found(mistake, tmp_path)
    assert result.outcome == "failed", result
    ways = (mistake.says,) if isinstance(mistake.says, str) else mistake.says
    assert any(says in result.what for says in ways)
    assert f"**{mistake.storage.__name__}.** {' '.join((mistake.storage.__doc__ or '').split())}" in PAGE
    assert " ".join(result.why.split()) in PAGE
    assert " ".join(result.fix.split()) in PAGE


def test_the_docs_count_them() -> None:
    page = (ROOT / "docs" / "trust.md").read_text("utf-8")
    assert f"| {len({mistake.storage for mistake in MISTAKES})} storages that are broken on purpose are found" in page


def test_the_docs_list_every_check() -> None:
    page = (ROOT / "docs" / "testing-a-storage.md").read_text("utf-8")
    forms = {check.name.removeprefix("awaited_") for check in all_checks() if check.road == "awaited"}
    for check in all_checks():
        if check.road == "called":
            form = f"`awaited_{check.name}` |" if check.name in forms else "|"
            assert f"| `{check.name}` | {check.title} | {form}" in page
        elif not check.name.startswith("awaited_"):
            assert f"| | {check.title} | `{check.name}` |" in page


def test_a_store_that_does_not_answer_in_time(tmp_path: Path) -> None:
    away = partial(DoesNotAnswer, f"x:{tmp_path}")
    report = run(partial(FolderStorage, f"x:{tmp_path}"), unreachable=away, only=["unreachable"], quick=True)
    assert "did not return" in report["unreachable"].what


class Away(FolderStorage):
    """As a storage is whose store is away."""

    def read(self, key: Key) -> Any:
        raise StorageUnavailable("the store does not answer")


class AwayAndSilent(FolderStorage):
    def __init__(self, url: str, settings: None = None) -> None:
        raise StorageUnavailable("cannot connect")


@pytest.mark.parametrize(
    ("unreachable", "says"),
    [(Away, ""), (AwayAndSilent, "making a storage whose store"), (FolderStorage, "resilience_load answered")],
)
def test_a_store_that_does_not_answer(tmp_path: Path, unreachable: Any, says: str) -> None:
    away = partial(unreachable, f"x:{tmp_path}/away")
    result = run(partial(FolderStorage, f"x:{tmp_path}"), unreachable=away, only=["unreachable"])["unreachable"]
    assert result.outcome == ("failed" if says else "passed")
    assert says in result.what


class AwayOverANetwork(Away):
    capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES})


class Waits(AwayOverANetwork):
    def read(self, key: Key) -> Any:
        clock.sleep(0.15)
        super().read(key)


@pytest.mark.parametrize(("away", "notes"), [(AwayOverANetwork, 1), (Waits, 0)])
def test_a_store_that_refuses_at_once_tries_no_time_out(tmp_path: Path, away: Any, notes: int) -> None:
    factory = partial(away, f"x:{tmp_path}/away")
    result = run(factory, unreachable=factory, only=["unreachable"])["unreachable"]
    assert result.outcome == "passed"
    assert len([note for note in result.notes if "so no time-out was tried" in note]) == notes


def test_what_stands_on_a_broken_check_is_not_run(tmp_path: Path) -> None:
    report = run(partial(KeepsText, "x:"), only=["round_trip", "versions", "conflicts"])
    assert [result.outcome for result in report.results] == ["failed", "skipped", "skipped"]
    assert report["conflicts"].reason == "says nothing before this is mended: versions"


# --- what hooks must not do, one line each ----------------------------------------------------------------------------


class Crooked(MemoryStorage):
    """Answers one hook with whatever it is given."""

    def __init__(self, hook: str, answer: Callable[[Any], Any]) -> None:
        super().__init__("memory:")
        self.hook, self.answer = hook, answer

    def _crooked(self, hook: str, value: Any) -> Any:
        return self.answer(value) if hook == self.hook else value

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Any:
        return self._crooked("load", super().resilience_load(key, timeout))

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
        return self._crooked("save", super().resilience_save(key, payload, expected, expires_at, timeout))

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        return self._crooked("lock", super().resilience_lock(key, timeout))

    @hookimpl
    def resilience_delete(self, key: Key, expected: Any, timeout: float) -> Any:
        return self._crooked("delete", super().resilience_delete(key, expected, timeout))

    @hookimpl
    def resilience_keys(self) -> Any:
        return self._crooked("keys", super().resilience_keys())

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        self._crooked("discard", super().resilience_discard(key, reason, timeout))


class Swallows:
    """A context manager around another, that raises nothing on."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __enter__(self) -> None:
        self.inner.__enter__()

    def __exit__(self, *exception: object) -> bool:
        self.inner.__exit__(None, None, None)
        return True


class FailsToLeave(Swallows):
    def __exit__(self, *exception: object) -> bool:
        super().__exit__(*exception)
        raise OSError("gone")


def change(**fields: Any) -> Callable[[Any], Any]:
    from resilience import Snapshot

    def changed(snapshot: Any) -> Any:
        if snapshot.version is None and "version" in fields and fields["version"] is not None:
            return snapshot
        values = {"payload": snapshot.payload, "version": snapshot.version, "is_current": snapshot.is_current}
        return Snapshot(**{**values, **fields})

    return changed


def adding(more: object) -> Callable[[Any], Any]:
    return lambda value: [*value, more]


def doubled(value: Any) -> Any:
    return [*value, *value]


def raising(error: Exception) -> Callable[[Any], Any]:
    def answer(value: Any) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("hook", "answer", "check", "says"),
    [
        ("save", giving(None), "round_trip", "resilience_save returned NoneType"),
        ("save", change(payload=None, version=None), "round_trip", "a Snapshot of nothing"),
        ("save", change(payload=b"other"), "round_trip", "returned a Snapshot with 5 bytes"),
        ("save", change(version=None), "round_trip", "and version None"),
        ("save", change(version=("a", 1)), "round_trip", "returned the version ('a', 1)"),
        ("load", change(payload="text"), "nothing_stored", "a Snapshot with payload 'text' and version None"),
        ("load", change(is_current=True), "nothing_stored", "whose is_current is True"),
        ("load", change(is_current=None), "is_current", "has no is_current, others have"),
        ("load", change(is_current=lambda: False), "is_current", "is_current() is False for"),
        ("load", change(is_current=lambda: 1 / 0), "is_current", "is_current() raised ZeroDivisionError"),
        ("lock", giving(None), "round_trip", "resilience_lock returned NoneType"),
        ("lock", Swallows, "lock_is_freed", "leaving the lock swallowed the _Expected"),
        ("lock", FailsToLeave, "round_trip", "leaving the lock raised OSError"),
        ("delete", giving(None), "delete", "resilience_delete returned None"),
        ("delete", giving(True), "delete", "returned True although nothing was stored"),
        ("delete", giving(False), "delete", "returned False although it removed a record"),
        ("delete", raising(NotImplementedError()), "delete", "resilience_delete raised NotImplementedError"),
        ("keys", adding("x"), "keys", "resilience_keys gives 'x', a str"),
        ("keys", doubled, "keys", "resilience_keys repeats itself"),
        ("discard", raising(StorageUnavailable("no")), "discard", "raised StorageUnavailable where nothing was wrong"),
    ],
)
def test_each_crooked_answer_is_named(hook: str, answer: Any, check: str, says: str) -> None:
    result = run(partial(Crooked, hook, answer), only=[check], quick=True)[check]
    assert result.outcome == "failed"
    assert says in result.what


class LacksSave:
    capabilities: frozenset[Capability] = frozenset()


def test_a_storage_that_does_not_open() -> None:
    report = run(LacksSave, only=["hooks", "round_trip"])
    assert report.storage == "a storage that does not open"
    assert "does not implement resilience_load" in report["hooks"].what
    assert report["round_trip"].outcome == "failed"


def explode() -> object:
    raise RuntimeError("boom")


def test_a_factory_that_raises() -> None:
    assert "making the storage raised RuntimeError: boom" in run(explode, only=["hooks"])["hooks"].what


def test_a_factory_that_cannot_be_sent(tmp_path: Path) -> None:
    result = run(lambda: FolderStorage(f"x:{tmp_path}"), only=["visible"])["visible"]
    assert "cannot be sent to another process" in result.what
    assert "functools.partial" in result.fix


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_url_is_enough(tmp_path: Path) -> None:
    seen: list[str] = []
    url = f"file://{tmp_path}/state"
    report = run(url, only=["hooks", "round_trip"], progress=lambda result: seen.append(result.name))
    assert report.ok, failures(report)
    assert seen == ["hooks", "round_trip"]
    assert report.storage == f"file://{tmp_path}/state (FileStorage)"


def test_a_url_that_nobody_has() -> None:
    with pytest.raises((ConfigurationError, PluginError), match="no installed plugin stores to 'fiel:'"):
        run("fiel:///x", only=["hooks"])


SOME = ["hooks", "lock_excludes_threads", "damaged", "claims", "speed"]


def test_report_for_people_and_for_programs(tmp_path: Path) -> None:
    report = run(
        partial(NoLock, f"x:{tmp_path}"), only=["hooks", "lock_excludes_threads", "damaged", "claims", "speed"]
    )
    text = report.text()
    assert text.startswith(
        f"NoLock, kit {KIT_VERSION}\ndeclares: processes\nfrom coroutines: called in a worker thread\n"
    )
    assert "✗ lock_excludes_threads" in text
    assert "what to do: let resilience_lock hold a real lock per key" in text
    assert "no way to damage a record was given" in text
    assert "load, times memory" in text
    assert "3 passed, 1 failed, 1 skipped" in text
    values = json.loads(report.json())
    assert values["ok"] is False
    assert [result["outcome"] for result in values["results"]].count("failed") == 1
    with pytest.raises(KeyError):
        report["names"]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    run(partial(FolderStorage, f"x:{tmp_path}"), only=["names", "round_trip", "expiry"])
    assert not list(tmp_path.glob("*.record"))


def test_kits_and_checks_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="there is no version '99' of the kit"):
        run(partial(MemoryStorage, "memory:"), kit="99")
    with pytest.raises(ValueError, match=f"kit {KIT_VERSION} has no check nonsense"):
        run(partial(MemoryStorage, "memory:"), only=["nonsense"])


VERSION_1 = """
hooks nothing_stored round_trip acknowledged versions conflicts born_again delete keys names expiry time discard
reopened lock_is_freed lock_excludes_threads lock_timeout lock_is_handed_on load_takes_no_lock deadlines
lock_of_each_key lock_excludes_processes is_current is_current_elsewhere awaitable counts_tasks counts_threads
births_threads readers_threads visible counts_processes births_processes readers_processes fair_share killed_holder
stopped_holder fork claims killed_writers damaged unreachable speed
"""


def test_version_1_of_the_kit_never_changes() -> None:
    """A check that is added gets the next version: a plugin's build breaks when its author wants it to."""
    assert [check.name for check in all_checks("1")] == VERSION_1.split()


VERSION_2 = """
nothing_stored round_trip acknowledged versions conflicts born_again names expiry time discard reopened lock_is_freed
lock_excludes_threads lock_timeout lock_is_handed_on load_takes_no_lock lock_of_each_key lock_excludes_processes
is_current is_current_elsewhere counts_threads births_threads readers_threads visible counts_processes births_processes
readers_processes fair_share killed_holder stopped_holder fork claims killed_writers damaged unreachable
"""


def test_version_2_of_the_kit_never_changes() -> None:
    brought = [f"awaited_{name}" for name in VERSION_2.split()] + [
        *("keys_threads", "awaited_keys_threads", "keys_processes", "awaited_keys_processes", "delete_compares"),
        *("discard_spares", "many_records"),
        *("forked_births", "awaited_forked_births", "forked_alone", "awaited_forked_alone"),
        *("forked_beside_threads", "awaited_forked_beside_threads"),
        *("forked_at_work", "awaited_forked_at_work", "hurried_saves", "awaited_hurried_saves"),
        *("nothing_left_open", "awaited_nothing_left_open"),
        *("damaged_saves", "awaited_damaged_saves", "stopped_writer", "awaited_stopped_writer"),
        *("records", "reader", "made"),
        *("loop_stays_free", "cancelled_saves", "cancelled_calls"),
    ]
    assert sorted(check.name for check in all_checks("2")) == sorted(VERSION_1.split() + brought)


def test_each_check_stands_on_others_that_there_are() -> None:
    names = {check.name for check in all_checks()}
    for check in all_checks():
        assert {name.removeprefix("awaited_") for name in check.after} <= names


def test_a_check_that_hangs_or_breaks_is_given_up() -> None:
    from dataclasses import replace
    from threading import Event

    def hang(subject: Subject) -> None:
        free.wait()

    def break_down(subject: Subject) -> None:
        raise AttributeError("nonsense")

    check = all_checks()[0]
    free = Event()
    with Subject(partial(MemoryStorage, "memory:")) as subject:
        hung = run_check(replace(check, function=hang, limit=0.05), subject)
        broken = run_check(replace(check, function=break_down), subject)
    free.set()
    assert hung.what == "it did not end in 0.05 s"
    assert "the check itself raised AttributeError" in broken.what


def test_a_storage_that_does_not_close_is_told() -> None:
    class Sticky(MemoryStorage):
        def close(self) -> None:
            raise OSError("stuck")

    subject = Subject(lambda: Sticky("memory:"))
    subject.handle.load(subject.key())
    subject.close()
    (note,) = subject.notes
    assert note.startswith("close() raised OSError: stuck (line ")


def test_a_note_is_no_fault() -> None:
    class OneLock(MemoryStorage):
        @hookimpl
        def resilience_lock(self, key: Key, timeout: float) -> Any:
            return super().resilience_lock(Key("a", "lock"), timeout)

    result = run(lambda: OneLock("memory:"), only=["lock_of_each_key"])["lock_of_each_key"]
    assert result.outcome == "passed"
    assert "one lock serves all keys" in result.notes[0]
    assert "note: one lock serves all keys" in str(result)


def test_violation_reads_as_three_lines() -> None:
    assert str(Violation("seen", "because", "mend")) == "seen\n  why it matters: because\n  what to do:     mend"


def test_a_storage_that_fails_while_it_is_measured() -> None:
    storage = FaultyStorage(MemoryStorage("memory:")).fail("save", 2, RuntimeError("driver"))
    result = run(lambda: storage, only=["versions"])["versions"]
    assert "resilience_save raised RuntimeError: driver" in result.what


class Unfinished(MemoryStorage):
    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return self._decoded()

    def _decoded(self) -> Any:
        return b"{}".decode_json()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue] - as is meant


class Misread(Unfinished):
    def _decoded(self) -> Any:
        return json.loads("{")


@pytest.mark.parametrize("road", ["", "awaited_"])
@pytest.mark.parametrize(
    ("storage", "said", "fix"),
    [
        (Unfinished, "AttributeError: 'bytes' object has no attribute 'decode_json'", "mend that line"),
        (Misread, "JSONDecodeError: ", "translate at the edge"),
    ],
)
def test_an_exception_of_another_kind_says_where_it_is_from(road: str, storage: Any, said: str, fix: str) -> None:
    name = f"{road}round_trip"
    result = run(partial(storage, "memory:"), only=[name])[name]
    assert f"resilience_load raised {said}" in result.what
    assert re.search(r"\(line \d+ of conformance\.test_kit, in _decoded\)$", result.what)
    assert result.fix.startswith(fix)


@pytest.mark.parametrize(
    ("load", "slow", "outcome"), [(1.0, "", "failed"), (500.0, "", "passed"), (500.0, "late", "failed")]
)
def test_a_machine_that_is_unfair_itself_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: float, slow: str, outcome: str
) -> None:
    monkeypatch.setattr("resilience.testing.checks.processes._unfair", giving("one made 9 and one 60 commits"))
    monkeypatch.setattr("resilience.testing.checks.processes._slow_hand_over", giving(slow))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 1.0, 1.0))
    (check,) = [check for check in all_checks() if check.name == "fair_share"]
    with Subject(partial(FolderStorage, f"x:{tmp_path}"), quick=True) as subject:
        result = run_check(check, subject)
        assert result.outcome == outcome
        notes = " ".join(result.notes)
    assert ("500 processes wanted to run" in notes) == (outcome == "passed")
