"""`resilience doctor`: what it finds of storages that are well and of storages that are not, and how it ends."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Capability, Key, Runtime, Snapshot, StorageConflict, StorageUnavailable, clock, hookimpl
from resilience.cli.doctor import checks, examination, neighbour
from resilience.cli.doctor.checks import Check, Patient
from resilience.cli.doctor.examination import examine
from resilience.testing import FaultyStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path
    from typing import Self

    from unit.cli.command_line import Install, Run

RUNS = "see that the storage runs, can be reached, and permits this"


# --- as it is called --------------------------------------------------------------------------------------------------


def found(run: Run, *, status: int = 0) -> dict[str, dict[str, Any]]:
    done = run("doctor", "--json")
    assert (done.status, done.err) == (status, "")
    return {check["name"]: check for check in json.loads(done.out)}


def rows(out: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in out.splitlines()]


def test_the_file_storage_is_well_and_nothing_is_left_behind(run: Run, tmp_path: Path) -> None:
    rows = found(run)
    assert all(row["ok"] for row in rows.values())
    assert rows["configuration"]["detail"].endswith((tmp_path / "state-home" / "resilience").as_uri())
    assert "file: of resilience-framework" in rows["versions"]["detail"]
    said = rows["exclusion"]["detail"]
    assert said.startswith("another process is kept out while the lock is held; ")
    assert said.endswith(" commits of two processes at once, none lost")
    assert rows["push"]["detail"].endswith(", without a load")
    with Runtime() as runtime:
        assert runtime.keys() == []
    assert not list((tmp_path / "state-home").rglob("probe-*"))


def test_so_is_one_that_compares_and_sets(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install("resilience.storage", "cas", "conformance.references:CasStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", f"cas:{tmp_path / 'table'}")
    monkeypatch.setenv("RESILIENCE_STORAGE_TIMEOUT", "5s")  # it takes the disk's time
    rows = found(run)
    assert all(row["ok"] for row in rows.values())
    assert "cas: of plugin_cas 1.5" in rows["versions"]["detail"]
    assert rows["exclusion"]["detail"].startswith("it does not lock: it refuses stale commits instead; ")
    assert rows["push"]["detail"].startswith("a snapshot cannot tell that it is old")


def test_a_table_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("no folder")
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "occupied").as_uri())
    done = run("doctor")
    assert (done.status, done.err) == (69, "")
    titles, *_, last = rows(done.out)
    assert titles == ["CHECK", "RESULT", "DETAIL", "FIX"]
    assert last[:2] == ["folder", "FAILED"]  # and no word more of what is not there
    assert last[3].startswith("choose another folder")


def test_a_table_of_a_storage_that_is_well_has_no_column_for_that(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    done = run("doctor")
    assert (done.status, done.err) == (0, "")
    assert rows(done.out)[:2] == [
        ["CHECK", "RESULT", "DETAIL"],
        ["configuration", "ok", "RESILIENCE_STORAGE means memory:"],
    ]
    assert ["exclusion", "ok", "the storage is for the threads of one process"] in rows(done.out)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_no_secret_is_shown(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    install("resilience.storage", "loud", "LoudStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "loud://me:hunter2@host")
    done = run("doctor", *words)
    assert done.status == 69
    assert "loud://***@host is down" in done.out
    assert "hunter2" not in done.out + done.err
    assert "\x1b" not in done.out


# --- storages that are not well, beside a process that is none --------------------------------------------------------


class Beside:
    """Does in a thread what the other process does."""

    patience = 5.0

    def __init__(self, runtime: Runtime, patient: Patient) -> None:
        self._patient = Patient(patient.ports, patient.timeout, patient.key)
        self._answers: list[dict[str, Any]] = []
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def has_answered(self) -> bool:
        return bool(self._answers)

    def ask(self, what: str) -> dict[str, Any]:
        self.begin(what)
        return self.answer()

    def begin(self, what: str) -> None:
        work = lambda: self._answers.append(neighbour.do(self._patient, what))  # noqa: E731
        self._thread = threading.Thread(target=work, name="beside")
        self._thread.start()

    def answer(self) -> dict[str, Any]:
        self._thread.join()
        return self._answers.pop()


class Shared(MemoryStorage):
    """As if processes shared it."""

    capabilities = frozenset({Capability.PROCESSES, Capability.PUSH})

    def __init__(self) -> None:
        super().__init__("memory:")


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], dict[str, Check]]:
    def examined(storage: object) -> dict[str, Check]:
        with Runtime(storage=storage) as runtime:
            found = examine(runtime)
        for row in found:
            assert row.ok or row.fix
        return {row.name: row for row in found}

    monkeypatch.setattr(examination, "Neighbour", Beside)
    return examined


IN_ORDER = [
    *("configuration", "versions", "reachable", "commit", "stale commit", "list", "exclusion", "push", "latency"),
    *("clock", "delete"),
]


def test_in_order(examined: Any) -> None:
    storage = Shared()
    rows = examined(storage)
    assert list(rows) == IN_ORDER
    assert all(row.ok for row in rows.values())
    assert rows["exclusion"].detail.endswith("; 40 commits of two processes at once, none lost")
    assert storage.resilience_keys() == []


class Ignoring(Shared):
    """Saves whatever is expected."""

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        now = self.resilience_load(key, 0).version
        return super().resilience_save(key, payload, now, expires_at, timeout)


class Unlocked(Shared):
    """A lock that keeps nobody out."""

    @hookimpl
    @contextmanager
    def resilience_lock(self, key: Key, timeout: float) -> Generator[None]:
        yield


class Inventing(Shared):
    """Finds what nobody wrote."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return Snapshot(b'{"probe":5}', None)


class Keeping(Shared):
    """Deletes nothing."""

    @hookimpl
    def resilience_delete(self, key: Key, expected: Any, timeout: float) -> bool:
        return True


class Unlisting(Shared):
    """Lists nothing."""

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        return []


class Broken(Shared):
    """Raises what it likes."""

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        raise ZeroDivisionError("in the plugin")


class Refusing(Shared):
    """Lets us read, and nothing else."""

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        raise StorageUnavailable("no permission to write")


def faulty(**saves: Any) -> FaultyStorage:
    """A storage that compares and sets; `commit` saves once, `stale commit` once, and then the race begins."""
    storage = FaultyStorage(Comparing())
    for fault, argument in saves.items():
        getattr(storage, fault)(**argument)
    return storage


class Comparing(Shared):
    """Works by compare-and-set alone."""

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> Any:
        return nullcontext()

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        with MemoryStorage.resilience_lock(self, key, 5):
            return super().resilience_save(key, payload, expected, expires_at, timeout)

    @hookimpl
    def resilience_delete(self, key: Key, expected: Any, timeout: float) -> bool:
        self._record(key).forget()
        return True


@pytest.mark.parametrize(
    ("storage", "name", "detail", "fix"),
    [
        (Inventing, "reachable", "a record that nobody wrote was found", "repair the plugin"),
        (Broken, "commit", "ZeroDivisionError: in the plugin", "repair the plugin"),
        (Refusing, "commit", "no permission to write", RUNS),
        (Ignoring, "stale commit", "a stale commit was not refused", "repair the plugin"),
        (Unlisting, "list", "a record that is there is not listed", "repair the plugin"),
        (
            Unlocked,
            "exclusion",
            "another process got the lock while it was held",
            "choose a place or a storage where its lock works",
        ),
    ],
)
def test_what_is_wrong_is_said(examined: Any, storage: type, name: str, detail: str, fix: str) -> None:
    assert examined(storage())[name] == Check(name, ok=False, detail=detail, fix=fix)


def test_a_commit_that_is_not_read(examined: Any) -> None:
    rows = examined(FaultyStorage(Shared()).lose(1))
    assert rows["commit"].detail == "what was committed is not what is read"
    assert "stale commit" not in rows  # nothing more can be said


def test_a_record_that_cannot_be_deleted(examined: Any) -> None:
    row = examined(Keeping())["delete"]
    assert not row.ok
    assert re.fullmatch(r"the record of doctor 'probe-[0-9a-f]{16}' cannot be deleted", row.detail)


def test_a_storage_that_neither_lists_nor_deletes(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("resilience.storage", "unlisted", "UnlistedStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "unlisted:")
    rows = found(run)
    assert rows["list"]["detail"] == "it cannot list its records: the command line needs names"
    assert rows["delete"]["detail"] == "it cannot delete: what was written here ends after 60 s"


class ReadOnly(Refusing):
    """Says itself what it lacks."""

    def examine(self) -> list[tuple[str, bool, str, str]]:
        return [("server", True, "it is there", ""), ("rights", False, "no INSERT", "GRANT INSERT;")]


def test_what_was_not_written_is_not_deleted(examined: Any) -> None:
    """And what to do is said where the storage knows it, once."""
    rows = examined(ReadOnly())
    assert [row.name for row in rows.values() if not row.ok] == ["rights", "commit"]
    assert rows["commit"].fix == "mend first what failed above: rights"
    assert "delete" not in rows


def test_what_may_have_been_written_and_was_not(examined: Any) -> None:
    error = StorageUnavailable("the cable", outcome_unknown=True)
    rows = examined(faulty(fail={"hook": "save", "nth": 1, "error": error}))
    assert [row.name for row in rows.values() if not row.ok] == ["commit"]
    assert rows["delete"].detail == "there is nothing to delete"


def test_what_cannot_be_reached_is_told_once(examined: Any) -> None:
    class Down(Shared):
        def examine(self) -> list[tuple[str, bool, str, str]]:
            return [("server", False, "it is down", "start it")]

    assert list(examined(Down())) == ["configuration", "versions", "server"]


def test_one_that_may_not_change_what_it_has_written_is_asked_for_no_more(examined: Any) -> None:
    """A commit of another process would be waited for in vain."""
    error = StorageUnavailable("no permission to UPDATE")
    rows = examined(faulty(fail={"hook": "save", "nth": 2, "error": error}))
    assert [row.name for row in rows.values() if not row.ok] == ["stale commit"]
    assert list(rows)[-1] == "delete"
    assert rows["delete"].ok
    assert not {"exclusion", "push", "latency"} & set(rows)


class TestTwoProcesses:
    def test_a_conflict_under_a_lock(self, examined: Any) -> None:
        storage = FaultyStorage(Shared())
        storage.fail("save", 4, StorageConflict("somebody else was here"))
        row = examined(storage)["exclusion"]
        assert (row.ok, row.detail) == (False, "two processes were inside the lock at the same time")

    def test_a_conflict_without_one_is_tried_again(self, examined: Any) -> None:
        row = examined(faulty(fail={"hook": "save", "nth": 4, "error": StorageConflict("first")}))["exclusion"]
        assert row.ok
        assert row.detail.endswith("40 commits of two processes at once, none lost")

    def test_commits_that_are_lost(self, examined: Any) -> None:
        class Losing(Comparing):
            saves = 0

            @hookimpl
            def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
                self.saves += 1
                if self.saves == 10:
                    return Snapshot(payload, expected)
                return super().resilience_save(key, payload, expected, expires_at, timeout)

        row = examined(Losing())["exclusion"]
        assert (row.ok, row.detail) == (False, "of 40 commits of two processes 1 are lost or were done twice")

    @pytest.mark.parametrize("after", [False, True])
    def test_a_commit_whose_outcome_is_unknown_is_counted_neither_way(self, examined: Any, *, after: bool) -> None:
        error = StorageUnavailable("the cable", outcome_unknown=True)
        row = examined(faulty(fail={"hook": "save", "nth": 5, "error": error, "after": after}))["exclusion"]
        assert row.ok, row.detail

    def test_it_does_not_answer_in_the_race(self, examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def nothing(*_: object) -> dict[str, Any]:
            return {"got": False, "done": 0, "conflicts": 0, "unknown": 0, "at": 0}

        monkeypatch.setattr(Beside, "begin", nothing)
        monkeypatch.setattr(Beside, "answer", nothing)
        monkeypatch.setattr(Beside, "patience", 0.01)
        rows = examined(faulty(fail={"hook": "save", "nth": 4}))
        assert (rows["exclusion"].ok, rows["exclusion"].detail) == (False, "save fails as planned")

    def test_a_lock_that_is_never_to_be_had_ends_the_race(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "ENOUGH", 0.05)
        with Runtime(storage=Shared(), storage_timeout=0.01) as runtime:
            patient = Patient(runtime.opened.ports, runtime.timeout)
            with patient.ports.lock(patient.key, 1):
                assert checks.race(patient) == {"done": 0, "unknown": 0, "conflicts": 0}


class Deaf(Shared):
    """Never knows whether what it loaded is the last."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, lambda: False)


class Hard(Shared):
    """Hears of commits when it has heard of those before, and tells of them before they return."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        self.loads += 1
        is_new = self.loads % 2 == 0
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, lambda: is_new and bool(found.is_current and found.is_current()))

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        saved = super().resilience_save(key, payload, expected, expires_at, timeout)
        if threading.current_thread().name == "beside":
            clock.sleep(0.05)
        return saved


class TestPush:
    def test_a_snapshot_that_is_old_from_the_start_measures_nothing(
        self, examined: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "AT_ONCE", 0.01)
        row = examined(Deaf())["push"]
        assert (row.ok, row.detail) == (False, "no snapshot says that it is current, for 10 ms: each call loads")

    def test_one_that_is_seen_before_who_made_it_knows(self, examined: Any) -> None:
        row = examined(Hard())["push"]
        assert row.ok
        assert re.fullmatch(
            r"a commit of another process, which took it [\d.]+ ms, was seen here before it had returned there, "
            "without a load",
            row.detail,
        )

    def test_one_that_is_not_seen(self, examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Unpushed(Shared):
            @hookimpl
            def resilience_load(self, key: Key, timeout: float) -> Snapshot:
                found = super().resilience_load(key, timeout)
                return Snapshot(found.payload, found.version, lambda: True)

        monkeypatch.setattr(Beside, "patience", 0.05)
        monkeypatch.setattr(checks, "AT_ONCE", 0.01)
        row = examined(Unpushed())["push"]
        assert not row.ok
        assert row.detail.startswith("a commit of another process was not seen for ")


class TestClock:
    @pytest.mark.parametrize(
        ("off_by", "said"),
        [
            (3 * 3600, "this machine's clock is 3 h ahead of the storage's"),
            (-5, "this machine's clock is 5.0 s behind"),
        ],
    )
    def test_a_machine_whose_clock_is_off(self, examined: Any, off_by: float, said: str) -> None:
        row = examined(timed(off_by))["clock"]
        assert not row.ok
        assert row.detail.startswith(said)

    def test_one_that_is_right(self, examined: Any) -> None:
        row = examined(timed(0.1))["clock"]
        assert row.ok
        assert row.detail.startswith("the storage's time is this machine's, to 0.1 s, give or take ")

    def test_what_is_written_is_kept_by_the_time_of_the_storage(self, examined: Any) -> None:
        storage = timed(3 * 3600)
        examined(storage)
        now = clock.wall() - 3 * 3600
        assert storage.expiries
        assert all(now < expires_at < now + 61 for expires_at in storage.expiries)


class Timed(Shared):
    off_by = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.expiries: list[float] = []

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        found = super().resilience_load(key, timeout)
        return Snapshot(found.payload, found.version, found.is_current, clock.wall() - self.off_by)

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Snapshot:
        self.expiries.append(expires_at)
        return super().resilience_save(key, payload, expected, expires_at, timeout)


def timed(off_by: float) -> Timed:
    storage = Timed()
    storage.off_by = off_by
    return storage


def test_a_storage_that_is_slower_than_its_time(examined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10_000))
    monkeypatch.setattr(checks, "monotonic", lambda: next(times))
    monkeypatch.setattr(checks, "ENOUGH", 100)
    row = examined(MemoryStorage("memory:"))["latency"]
    assert (row.ok, row.detail) == (False, "a read takes 1.0 s, a commit 1.0 s, as the median of 20")
    assert row.fix == "a commit may take 250 ms: raise RESILIENCE_STORAGE_TIMEOUT"


@pytest.mark.parametrize("hook", ["load", "save"])
def test_a_storage_that_hangs_whatever_its_time_out(examined: Any, monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    monkeypatch.setattr(examination, "PATIENCE", 0.0)
    monkeypatch.setattr(examination, "_HOOKS", 0.2)
    storage = FaultyStorage(Shared()).hang(hook)
    rows = examined(storage)
    name = {"load": "reachable", "save": "commit"}[hook]
    assert [row.name for row in rows.values() if not row.ok] == [name]
    assert ("delete" in rows) == (hook == "save")  # it may be written yet
    assert rows[name].detail == "it did not end within 0.05 s, though its time-out is shorter"
    assert "latency" not in rows
    storage.release()


class TestExamine:
    @pytest.mark.parametrize("row", [("disk", False, "it is full", "make room"), ("disk", True, "some room", "")])
    def test_the_storage_itself_is_asked(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, row: tuple[str, bool, str, str]
    ) -> None:
        monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")

        def rows_of(_: MemoryStorage) -> list[tuple[str, bool, str, str]]:
            return [row]

        monkeypatch.setattr(MemoryStorage, "examine", rows_of, raising=False)
        rows = found(run, status=0 if row[1] else 69)
        assert rows["disk"] == {"name": row[0], "ok": row[1], "detail": row[2], "fix": row[3]}

    @pytest.mark.parametrize(
        ("error", "detail", "fix"),
        [
            (
                StorageUnavailable("not today"),
                "not today",
                "see that the storage runs, can be reached, and permits this",
            ),
            (KeyError("k"), "KeyError: 'k'", "repair the plugin"),
        ],
    )
    def test_it_cannot_examine_itself(self, examined: Any, error: Exception, detail: str, fix: str) -> None:
        class Unwell(Shared):
            def examine(self) -> Iterable[tuple[str, bool, str, str]]:
                raise error

        rows = examined(Unwell())
        assert rows["examine"] == Check("examine", ok=False, detail=detail, fix=fix)
        assert rows["latency"].ok


# --- the other process ------------------------------------------------------------------------------------------------


def beside(tmp_path: Path, program: str = "", patience: float = 30.0) -> neighbour.Neighbour:
    runtime = Runtime(storage=(tmp_path / "state").as_uri())
    other = neighbour.Neighbour(runtime, Patient(runtime.opened.ports, 1, Key("doctor", "probe")), patience)
    if program:
        other._program[-1] = program
    return other


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('no such module'); sys.exit(3)", "another process failed: no such module"),
        ("import os; os._exit(3)", "another process failed: it died"),
        ('print(\'{"failed": "no room"}\')', "in another process: no room"),
    ],
)
def test_it_says_why_it_failed(tmp_path: Path, program: str, said: str) -> None:
    with pytest.raises(neighbour.Unanswered, match=said), beside(tmp_path, program):
        pytest.fail("it does not begin")


def test_one_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    other = beside(tmp_path, "import sys; print('{}', flush=True); sys.stdin.read()", 0.2)
    other.patience = 30
    with other:
        other.patience = 0.05
        with pytest.raises(neighbour.Unanswered, match=r"did not answer in 0\.05 s"):
            other.ask("lock")
    assert other._process is not None
    assert other._process.returncode is not None


def test_one_that_died_is_told_nothing(tmp_path: Path) -> None:
    with beside(tmp_path, "print('{}', flush=True)") as other:
        assert other._process is not None
        other._process.wait()
        with pytest.raises(neighbour.Unanswered, match="died before it was told"):
            other.ask("lock")


def test_a_process_that_cannot_open_the_storage_is_told_of() -> None:
    with Runtime(storage=Shared()) as runtime:  # which no other process can find
        rows = {row.name: row for row in examine(runtime)}
    assert not rows["exclusion"].ok
    assert "no installed plugin stores to 'Shared:'" in rows["exclusion"].detail
    assert rows["exclusion"].fix == "see that other processes can open the same storage"
    assert rows["latency"].ok


def test_what_the_other_process_does(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("commit\nlock\nrace\n"))
    with Runtime(storage=Shared()) as runtime:
        neighbour.serve("doctor", "probe")
        assert runtime.opened.ports.load(Key("doctor", "probe"), 1).payload == b'{"probe":21}'
    begun, committed, lock, raced = map(json.loads, capsys.readouterr().out.splitlines())
    assert (begun, list(committed), lock) == ({}, ["begun", "done"], {"got": True})
    assert raced == {"done": 20, "unknown": 0, "conflicts": 0}


def test_it_tells_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("commit\n"))
    with Runtime(storage=Refusing()):
        neighbour.serve("doctor", "probe")
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "failed": "StorageUnavailable: no permission to write"
    }
