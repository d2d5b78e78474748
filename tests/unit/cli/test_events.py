"""`events` and `watch`: what happened, and what is, as it happens."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.command_line import Terminal

from resilience import CircuitBreaker, Runtime, StorageUnavailable, cli
from resilience.cli import catalogue, watch
from resilience.cli.parser import UsageError
from resilience.cli.shell import Shell
from resilience.selection import Selection
from resilience_journal import FILE, append, verbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unit.cli.command_line import Install, Run


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "state-home" / "resilience" / FILE


def happen() -> None:
    with Runtime():
        payments = CircuitBreaker("payments", failure_threshold=1)
        payments.record_failure(TimeoutError())
        payments.record_failure(TimeoutError())
        payments.reset("well again")
        CircuitBreaker("search").force_open(reason="work")


def stop_after(monkeypatch: pytest.MonkeyPatch, module: Any, *steps: Callable[[], object]) -> None:
    """Do something at each wait, and Ctrl-C at the last."""
    rest = list(steps)

    def wait(_: float) -> None:
        if not rest:
            raise KeyboardInterrupt
        rest.pop(0)()

    monkeypatch.setattr(module, "sleep", wait)


# --- events -----------------------------------------------------------------------------------------------------------

DAY = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def test_events_are_shown_oldest_first(run: Run) -> None:
    happen()
    done = run("events")
    assert (done.status, done.err) == (0, "")
    expected = [
        r"payments  closed -> open: .+",
        r"payments  late outcome=failure .*error=TimeoutError",
        r"payments  open -> closed: .*",
        r"payments  reset state=open reason=well again",
        r"search  closed -> forced_open: work",
    ]
    lines = done.out.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(f"{DAY}  {pattern}", line), line


def test_events_of_one_name(run: Run) -> None:
    happen()
    assert len(run("events", "search").out.splitlines()) == 1
    assert run("events", "nobody").out == "there are no events yet\n"


def test_events_as_json_are_one_object_a_line(run: Run) -> None:
    happen()
    found = [json.loads(line) for line in run("events", "--json").out.splitlines()]
    assert [each["event"] for each in found] == ["transition", "late", "transition", "reset", "transition"]
    assert run("events", "nobody", "--json").out == ""


@pytest.mark.parametrize("what", ["a folder", "a loop", "no folder around it"])
def test_a_journal_that_cannot_be_read_is_said(run: Run, journal: Path, what: str) -> None:
    journal.parent.parent.mkdir(parents=True, exist_ok=True)
    if what == "no folder around it":
        journal.parent.write_text("a file")
    else:
        journal.parent.mkdir(mode=0o700)
        if what == "a folder":
            journal.mkdir()
        else:
            journal.symlink_to(journal)
    done = run("events")
    assert (done.status, done.out) == (69, "")
    assert done.err.startswith(f"resilience: the journal '{journal}' cannot be read: ")


def test_nothing_has_happened_yet(run: Run) -> None:
    assert run("events") == (0, "there are no events yet\n", "")


def test_a_storage_in_memory_has_no_events(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    done = run("events")
    assert (done.status, done.out) == (0, "")
    assert "the storage keeps its state in one process" in done.err


def test_what_somebody_wrote_there_reaches_no_terminal(run: Run, journal: Path) -> None:
    journal.parent.mkdir(parents=True)
    lines: list[object] = [
        {"time": "\x1b[2J", "event": "\x1b[31m", "name": "\x1b", "data": {"\x07": "\x9b" * 1000}},
        {"time": 1e300, "event": "transition", "data": [1]},
        {"time": None, "name": ["x"]},
        {},
        [],
        1,
    ]
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for words in (["events"], ["events", "--json"]):
        done = run(*words)
        assert done.status == 0
        assert done.out.replace("\n", "").isprintable()
        assert len(done.out.splitlines()) == 4


def test_follow_waits_for_more_across_a_renaming(run: Run, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happen()

    def rename() -> None:
        journal.rename(journal.with_suffix(".jsonl.1"))

    def more() -> None:
        append(str(journal), b'{"time":1,"event":"one more","name":"payments"}\n', 1000)

    stop_after(monkeypatch, verbs, lambda: None, rename, more, more)
    done = run("events", "payments", "--follow")
    assert (done.status, done.err) == (130, "")
    assert len(done.out.splitlines()) == 6
    assert done.out.count("payments  one more\n") == 2


def test_a_policy_may_have_the_verb_first(run: Run, install: Install) -> None:
    install("resilience", "other", "unit.cli.command_line:OtherPolicy")
    install("resilience", "broken", "no_such_module:Observer")
    names = [verb.name for verb in catalogue.of_plugins(Selection())[0]]
    assert "events" in names
    assert "other.status" in names
    assert catalogue.of_plugins(Selection())[1] == []


# --- watch ------------------------------------------------------------------------------------------------------------


def test_watch_without_a_terminal_prints_the_table_each_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    happen()

    def close() -> None:
        with Runtime():
            CircuitBreaker("search").close()

    stop_after(monkeypatch, watch, close)
    done = run("watch", "search")
    assert (done.status, done.err) == (130, "")
    first, second = done.out.split("\n\n")
    assert first.splitlines()[1].split()[:3] == ["search", "forced", "open"]
    assert second.splitlines()[1].split()[:2] == ["search", "closed"]


def test_watch_shows_all_and_waits_as_long_as_it_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    happen()
    waited: list[float] = []

    def wait(span: float) -> None:
        waited.append(span)
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "sleep", wait)
    assert len(run("watch").out.splitlines()) == 3
    run("watch", "--interval", "250ms")
    assert waited == [1.0, 0.25]
    assert run("watch", "--interval", "0").status == 2


@pytest.mark.parametrize("colour", [True, False])
def test_watch_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch, *, colour: bool) -> None:
    happen()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "5")
    monkeypatch.setenv("COLUMNS", "80")
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")

    def many() -> None:
        with Runtime():
            for number in range(30):
                CircuitBreaker(f"b{number}").record_failure()

    stop_after(monkeypatch, watch, many)
    assert cli.main(["watch"]) == 130
    first, second = terminal.getvalue().split("\x1b[H")[1:]
    assert terminal.getvalue().startswith("\x1b[2J\x1b[H")
    assert "every 1.0 s; Ctrl-C ends" in first
    assert ("\x1b[31m" in first) == colour
    assert first.endswith("\x1b[J")
    assert second.count("\n") == 4


def test_watch_goes_on_when_the_storage_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    happen()
    answers = [StorageUnavailable("no \x1b answer"), None]

    def records(_: Runtime, kind: str) -> list[Any]:
        assert kind == "circuit_breaker"
        error = answers.pop(0)
        if error is not None:
            raise error
        return []

    monkeypatch.setattr(Runtime, "records", records)
    stop_after(monkeypatch, watch, lambda: None)
    done = run("watch")
    assert done.status == 130
    assert done.out == "no \\x1b answer\n\nthere are no circuit breakers yet\n"


def test_watch_shows_notes_in_their_place(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("RESILIENCE_STORAGE", f"file://{tmp_path}/occupied")
    stop_after(monkeypatch, watch)
    done = run("watch", "a")
    assert done.status == 130
    assert "occupied" in done.out


def test_watch_needs_a_status(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(*_: object) -> None:
        return None

    monkeypatch.setattr(catalogue, "find", find)
    with pytest.raises(UsageError, match="no installed policy has a status"):
        watch.run(Shell(None, None), Namespace(name=[]))


def test_what_is_wrong_with_the_configuration_ends_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAG", "x")
    assert run("watch").status == 78
