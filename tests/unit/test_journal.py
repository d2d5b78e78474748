"""The journal: what happened, as lines of JSON beside the state, bounded, written by many processes at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from storages import giving

import resilience_journal
from resilience import Capability, CircuitBreaker, Event, Key, Runtime, StorageUnavailable, Transition, Version
from resilience.testing import ManualClock
from resilience_journal import FILE, OLD, JournalObserver, append, folder_of
from resilience_journal._reader import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = Key("circuit_breaker", "payments")
DEGRADED = Event("degraded", KEY, 1.0, {"error": "x"})


def lines(folder: Path, name: str = FILE) -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def settings(*, enabled: bool = True, max_size: int = 1_000_000) -> Any:
    return SimpleNamespace(enabled=enabled, max_size=max_size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def runtime(folder: Path) -> Iterator[Runtime]:
    with Runtime(storage=folder.as_uri(), environ={}, clock=ManualClock()) as runtime:
        CircuitBreaker("payments").force_open()
        (folder / FILE).unlink(missing_ok=True)
        yield runtime


@pytest.fixture
def journal(runtime: Runtime) -> JournalObserver:
    return JournalObserver(runtime, settings())


def test_transitions_and_events_are_lines_of_json(journal: JournalObserver, folder: Path) -> None:
    journal.resilience_transition(Transition(KEY, "closed", "open", "3 failures", 12.5, Version("a" * 32, 3), 1))
    journal.resilience_transition(Transition(KEY, "open", "closed", "", 13.5, None, 2))
    journal.resilience_event(
        Event("degraded", None, 14.5, {"error": "no space", "seconds": 0.5, "odd": [1], "no": float("nan")})
    )
    pid = os.getpid()
    data: dict[str, object] = {"old": "closed", "new": "open", "reason": "3 failures", "version": 3, "epoch": 1}
    its = {"kind": "circuit_breaker", "name": "payments", "pid": pid}
    assert lines(folder) == [
        {"time": 12.5, "event": "transition", **its, "data": data},
        {
            "time": 13.5,
            "event": "transition",
            **its,
            "data": {"old": "open", "new": "closed", "reason": "", "version": None, "epoch": 2},
        },
        {
            "time": 14.5,
            "event": "degraded",
            "kind": None,
            "name": None,
            "pid": pid,
            "data": {"error": "no space", "seconds": 0.5, "odd": "[1]", "no": "nan"},
        },
    ]


def test_it_is_for_its_user_alone_and_no_record(journal: JournalObserver, runtime: Runtime, folder: Path) -> None:
    journal.resilience_event(DEGRADED)
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert runtime.keys() == [KEY]
    for number in range(40):  # new files make the storage sweep its folders
        CircuitBreaker(f"b{number}").record_failure()
    assert lines(folder)[0]["event"] == "degraded"


def test_hostile_text_is_escaped_and_bounded(journal: JournalObserver, folder: Path) -> None:
    text = "\x1b[31m\n\u202e🙂" + "x" * 10_000
    journal.resilience_event(Event(text, KEY, 1.0, {text: text, "url": "redis://:hunter2@host/"}))
    raw = (folder / FILE).read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.strip().isascii()
    assert b"\x1b" not in raw
    assert b"hunter2" not in raw
    assert len(raw) < 20_000
    journal.resilience_event(Event("x", KEY, 1.0, {str(number): "y" for number in range(10_000)}))
    assert len(lines(folder)[1]["data"]) == 50


def test_it_can_be_turned_off(runtime: Runtime, folder: Path) -> None:
    journal = JournalObserver(runtime, settings(enabled=False))
    journal.resilience_event(DEGRADED)
    journal.resilience_transition(Transition(KEY, "a", "b", "", 0, None, 1))
    assert lines(folder) == []


def test_it_is_bounded_by_a_renaming(runtime: Runtime, folder: Path) -> None:
    journal = JournalObserver(runtime, settings(max_size=4096))
    for number in range(200):
        journal.resilience_event(Event("late", KEY, number, {}))
        assert (folder / FILE).stat().st_size <= 4096
    old, new = lines(folder, OLD), lines(folder)
    numbers = [line["time"] for line in (*old, *new)]
    assert numbers == list(range(200))[-len(numbers) :]
    assert len(numbers) > 40
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [FILE, OLD]


def test_one_line_that_is_longer_than_allowed_is_written_all_the_same(tmp_path: Path) -> None:
    append(str(tmp_path / FILE), b"x" * 100 + b"\n", 10)
    append(str(tmp_path / FILE), b"y\n", 10)
    assert (tmp_path / FILE).read_bytes() == b"y\n"
    assert (tmp_path / OLD).read_bytes() == b"x" * 100 + b"\n"


def test_whoever_finds_the_lock_taken_appends_to_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    path = tmp_path / FILE
    append(str(path), b"x\n", 2)

    def taken(*_: object, **__: object) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "lock_descriptor", taken)
        append(str(path), b"y\n", 2)
    assert path.read_bytes() == b"x\ny\n"

    def renamed_meanwhile(*_: object, **__: object) -> bool:
        if path.exists():
            path.rename(tmp_path / OLD)
        return True

    monkeypatch.setattr(filelock, "lock_descriptor", renamed_meanwhile)
    append(str(path), b"z\n", 2)
    assert (path.read_bytes(), (tmp_path / OLD).read_bytes()) == (b"z\n", b"x\ny\n")


def test_who_cannot_find_the_end_of_the_renaming_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def always(fd: int, path: str) -> bool:
        return True

    monkeypatch.setattr(resilience_journal, "_turn", always)
    append(str(tmp_path / FILE), b"x\n", 2)
    append(str(tmp_path / FILE), b"y\n", 2)
    assert (tmp_path / FILE).read_bytes() == b"x\n"


@pytest.mark.parametrize("what", ["folder", "pipe", "link", "hard link"])
def test_what_is_not_the_journal_is_left_alone(
    tmp_path: Path, journal: JournalObserver, folder: Path, what: str
) -> None:
    target = tmp_path / "target"
    target.write_text("precious\n")
    if what == "folder":
        (folder / FILE).mkdir()
    elif what == "pipe":
        os.mkfifo(folder / FILE)
    elif what == "link":
        (folder / FILE).symlink_to(target)
    else:
        (folder / FILE).hardlink_to(target)
    journal.resilience_event(DEGRADED)
    assert target.read_text() == "precious\n"


def test_the_journal_of_another_user_is_left_alone(
    journal: JournalObserver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.resilience_event(DEGRADED)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 12345)
        journal.resilience_event(DEGRADED)
    assert len(lines(folder)) == 1


def test_a_disk_that_is_full_disturbs_nobody(
    journal: JournalObserver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        journal.resilience_event(DEGRADED)
    assert lines(folder) == []


def test_what_cannot_be_imported_disturbs_nobody(
    journal: JournalObserver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where descriptors have run out."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "resilience.jsontext", None)
        journal.resilience_event(DEGRADED)
    assert lines(folder) == []
    journal.resilience_event(DEGRADED)
    assert len(lines(folder)) == 1


def test_a_storage_without_a_folder_has_its_journal_in_the_state_home(tmp_path: Path) -> None:
    storage = SimpleNamespace(capabilities=frozenset({Capability.MACHINES}))
    runtime: Any = SimpleNamespace(opened=SimpleNamespace(storage=storage), state_home=tmp_path / "home")
    JournalObserver(runtime, settings()).resilience_event(DEGRADED)
    assert len(lines(tmp_path / "home" / "resilience")) == 1
    assert (tmp_path / "home" / "resilience").stat().st_mode & 0o777 == 0o700
    (tmp_path / "occupied").write_text("")
    runtime.state_home = tmp_path / "occupied"
    JournalObserver(runtime, settings()).resilience_event(DEGRADED)


def test_a_storage_in_memory_has_none(tmp_path: Path) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    with Runtime(storage="memory:", environ=environ) as runtime:
        assert folder_of(runtime) is None
        journal = JournalObserver(runtime, settings())
        journal.resilience_event(DEGRADED)
        journal.resilience_event(DEGRADED)
    assert list(tmp_path.iterdir()) == []


def test_its_settings_have_bounds() -> None:
    model: Any = JournalObserver.Settings
    assert model is resilience_journal.JournalSettings
    assert (model().enabled, model().max_size) == (True, 1_048_576)
    with pytest.raises(AttributeError):
        _ = getattr(resilience_journal, "nothing")  # noqa: B009 - no type checker finds it either


WRITER = """
import sys
from resilience_journal import append
path, who = sys.argv[1:]
for number in range(300):
    append(path, b"%s-%d\\n" % (who.encode(), number), 4000)
"""


def test_processes_write_whole_lines_and_lose_none_but_the_oldest(tmp_path: Path) -> None:
    path = tmp_path / FILE
    script = f"import sys; sys.path[:] = {sys.path!r}\n{WRITER}"
    started = [subprocess.Popen([sys.executable, "-c", script, str(path), f"w{number}"]) for number in range(3)]
    for process in started:
        assert process.wait(60) == 0
    kept = ((tmp_path / OLD).read_text() if (tmp_path / OLD).exists() else "") + path.read_text()
    found = kept.splitlines()
    assert len(found) == len(set(found)) == 900
    expected = {f"w{who}-{number}" for who in range(3) for number in range(300)}
    assert set(found) == expected


def test_threads_that_rename_at_the_same_time_lose_no_file(tmp_path: Path) -> None:
    path = str(tmp_path / FILE)

    def write(who: int) -> None:
        for number in range(200):
            append(path, b"%d-%03d\n" % (who, number), 3000)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (tmp_path / FILE).stat().st_size + (tmp_path / OLD).stat().st_size == 4 * 200 * 6
    assert len((tmp_path / OLD).read_text().splitlines()) + len((tmp_path / FILE).read_text().splitlines()) == 800


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # threads of other tests
def test_a_forked_child_writes_too(runtime: Runtime, journal: JournalObserver, folder: Path) -> None:
    journal.resilience_event(DEGRADED)
    child = os.fork()
    if child == 0:
        try:
            journal.resilience_event(DEGRADED)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [line["pid"] for line in lines(folder)] == [os.getpid(), child]


# --- reading ----------------------------------------------------------------------------------------------------------


def write(folder: Path, *numbers: int, size: int = 1_000_000) -> None:
    for number in numbers:
        append(str(folder / FILE), b'{"number": %d}\n' % number, size)


def numbers(reading: Journal) -> list[int]:
    return [line["number"] for line in reading.read()]


def test_reading_begins_with_the_oldest_line(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    (tmp_path / FILE).rename(tmp_path / OLD)
    write(tmp_path, 3)
    with Journal(str(tmp_path)) as reading:
        assert numbers(reading) == [1, 2, 3]
        assert numbers(reading) == []
        write(tmp_path, 4)
        assert numbers(reading) == [4]


def test_reading_goes_on_across_renamings(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as reading:
        assert numbers(reading) == []
        write(tmp_path, 1)
        assert numbers(reading) == [1]
        write(tmp_path, 2)
        (tmp_path / FILE).rename(tmp_path / OLD)
        assert numbers(reading) == [2]
        assert numbers(reading) == []
        write(tmp_path, 3)
        assert numbers(reading) == [3]
        write(tmp_path, 4)
        (tmp_path / FILE).rename(tmp_path / OLD)  # and again, before anybody looked
        write(tmp_path, 5)
        (tmp_path / FILE).rename(tmp_path / OLD)
        write(tmp_path, 6)
        assert numbers(reading) == [4, 5, 6]
        assert numbers(reading) == []


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    with Journal(str(tmp_path)) as reading:
        (tmp_path / FILE).write_bytes(b'{"numb')
        assert numbers(reading) == []
        with (tmp_path / FILE).open("ab") as file:
            file.write(b'er": 1}\n')
        assert numbers(reading) == [1]


def test_what_is_no_line_is_passed_over(tmp_path: Path) -> None:
    rubbish = b'\n{"numb\n[]\n\xff\n' + b"[" * 100_000 + b"\n" + b"x" * 600_000
    (tmp_path / FILE).write_bytes(b'{"number": 1}\n' + rubbish + b'\n{"number": 2}\n')
    with Journal(str(tmp_path)) as reading:
        assert numbers(reading) == [1, 2]


@pytest.mark.parametrize("beside", [(), (1, 2)])
@pytest.mark.parametrize("name", [FILE, OLD])
def test_what_is_no_file_is_not_read(tmp_path: Path, name: str, beside: tuple[int, ...]) -> None:
    if name == OLD:
        write(tmp_path, *beside)
    os.mkfifo(tmp_path / name)
    with Journal(str(tmp_path)) as reading, pytest.raises(StorageUnavailable, match="it is no regular file"):
        numbers(reading)


def test_a_folder_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    waits: list[int] = []

    def wait() -> None:
        waits.append(1)
        folder.mkdir(exist_ok=True)
        write(folder, len(waits))

    with Journal(str(folder)) as reading:
        following = reading.follow(wait)
        assert next(following) is None
        assert next(following) == {"number": 1}
        assert next(following) is None
        assert next(following) == {"number": 2}


def test_a_journal_that_is_renamed_at_each_look_is_read_to_an_end(
    journal: JournalObserver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilience_journal._reader._is", giving(False))
    journal.resilience_event(DEGRADED)
    with Journal(str(folder)) as reading:
        assert {line["event"] for line in reading.read()} == {"degraded"}  # one for each look, which are few


def test_a_full_journal_that_somebody_renames_meanwhile_is_opened_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    path = folder / FILE
    path.touch()
    descriptor = os.open(path, os.O_WRONLY)
    path.unlink()
    path.touch()  # another one stands there already
    assert resilience_journal._turn(descriptor, str(path))
    os.close(descriptor)
    assert [found.name for found in folder.iterdir()] == [FILE]
