"""The verbs of a circuit breaker."""

from __future__ import annotations

import json
import re
import struct
import sys
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.command_line import Terminal

from resilience import CircuitBreaker, Key, Runtime, cli
from resilience.cli import catalogue
from resilience.selection import Selection
from resilience_filelock import FileStorage

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Install, Run


def shown(run: Run, name: str = "x") -> dict[str, Any]:
    done = run("status", name, "--json")
    assert (done.status, done.err) == (0, "")
    (status,) = json.loads(done.out)
    return dict(status)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPEN is over as soon as it begins."""
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT", "0")


def trip(run: Run) -> None:
    for _ in range(3):
        assert run("failure", "x") == (0, "", "")


def test_the_verbs_that_the_docs_name_are_there() -> None:
    verbs = [verb.name for verb in catalogue.of_plugins(Selection())[0]]
    assert verbs == [
        "check",
        "success",
        "failure",
        "run",
        "status",
        "open",
        "close",
        "disable",
        "metrics-only",
        "reset",
        "events",
    ]


# --- a call -----------------------------------------------------------------------------------------------------------


def test_check_says_yes_in_silence(run: Run) -> None:
    assert run("check", "x") == (0, "", "")


def test_check_says_no_and_when_to_come_again(run: Run) -> None:
    trip(run)
    done = run("check", "x")
    assert (done.status, done.out) == (75, "")
    assert re.fullmatch(r"resilience: circuit breaker 'x' is open; try again in (60|59\.\d) s\n", done.err)


def test_check_as_json(run: Run) -> None:
    done = run("check", "x", "--json")
    assert (done.status, json.loads(done.out), done.err) == (0, {"name": "x", "allowed": True, "token": None}, "")
    run("failure", "x", "--error", "Timeout")
    trip(run)
    run("open", "x", "--reason", "work")
    done = run("check", "x", "--json")
    assert (done.status, done.err) == (75, "")
    assert json.loads(done.out) == {
        "name": "x",
        "allowed": False,
        "token": None,
        "state": "forced_open",
        "retry_after": None,
        "last_error": None,
        "reason": "work",
    }


def test_failures_open_and_tell_what_failed(run: Run) -> None:
    run("failure", "x")
    run("failure", "x")
    assert (shown(run)["state"], shown(run)["failure_count"]) == ("closed", 2)
    run("failure", "x", "--error", "TimeoutError")
    status = shown(run)
    assert (status["state"], status["failure_count"], status["last_error"]) == ("open", 3, "TimeoutError")


def test_a_success_ends_a_streak(run: Run) -> None:
    run("failure", "x")
    assert run("success", "x") == (0, "", "")
    assert shown(run)["failure_count"] == 0


@pytest.mark.usefixtures("at_once")
def test_check_takes_an_anonymous_permit_for_which_success_reports(run: Run) -> None:
    trip(run)
    for permits in range(1, 6):
        assert run("check", "x") == (0, "", "")
        assert shown(run)["permits_in_use"] == permits
    assert run("check", "x").status == 75
    run("success", "x")
    assert (shown(run)["permits_in_use"], shown(run)["half_open_successes"]) == (4, 1)
    run("success", "x")
    assert shown(run)["state"] == "closed"


@pytest.mark.usefixtures("at_once")
def test_a_token_names_the_permit(run: Run) -> None:
    trip(run)
    first = run("check", "x", "--token")
    assert re.fullmatch(r"[0-9]+\.[0-9a-f]+-[0-9]+\n", first.out)
    second = json.loads(run("check", "x", "--token", "--json").out)
    assert second["allowed"] is True
    run("success", "x", "--token", first.out.strip())
    assert shown(run)["half_open_successes"] == 1
    run("success", "x", "--token", first.out.strip())  # used up
    assert (shown(run)["state"], shown(run)["late_count"]) == ("half_open", 1)
    run("failure", "x", "--token", second["token"], "--error", "ValueError")
    assert (shown(run)["state"], shown(run)["last_error"]) == ("open", "ValueError")


def test_a_token_of_a_state_that_is_over_counts_nothing(run: Run) -> None:
    token = run("check", "x", "--token").out.strip()
    run("reset", "x")
    run("failure", "x", "--token", token)
    assert (shown(run)["failure_count"], shown(run)["late_count"]) == (0, 1)


def test_what_the_code_set_binds_the_shell(run: Run) -> None:
    with Runtime():
        CircuitBreaker("x", failure_threshold=2, reset_timeout=7).record_failure()
    run("failure", "x")
    status = shown(run)
    assert (status["state"], status["failure_count"]) == ("open", 2)
    assert 6 < status["retry_after"] <= 7


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_open_for_some_time_with_a_reason(run: Run) -> None:
    assert run("open", "x", "--for", "10m", "--reason", "work on the gateway") == (0, "", "")
    status = shown(run)
    assert (status["state"], status["reason"]) == ("forced_open", "work on the gateway")
    assert 599 < status["retry_after"] <= 600


def test_open_until_it_is_taken_back(run: Run) -> None:
    run("open", "x")
    assert (shown(run)["state"], shown(run)["retry_after"]) == ("forced_open", None)
    assert run("close", "x", "--reason", "done") == (0, "", "")
    assert (shown(run)["state"], shown(run)["reason"]) == ("closed", "done")


def test_disable(run: Run) -> None:
    assert run("disable", "x", "--for", "2h") == (0, "", "")
    trip(run)
    assert (shown(run)["state"], shown(run)["failure_count"]) == ("disabled", 0)
    assert run("check", "x").status == 0


def test_metrics_only(run: Run) -> None:
    assert run("metrics-only", "x", "--for", "2h", "--reason", "trial") == (0, "", "")
    trip(run)
    status = shown(run)
    assert (status["state"], status["failure_count"], status["reason"]) == ("metrics_only", 3, "trial")
    assert table(run)[1][:3] == ["x", "metrics only", "3"]
    assert run("check", "x").status == 0


def test_status_shows_what_stands_in_a_window(run: Run) -> None:
    with Runtime():
        breaker = CircuitBreaker(
            "x", window="count", minimum_calls=3, failure_rate_threshold=1.0, slow_call_rate_threshold=1.0, gather=0
        )
        breaker.record_success()
        breaker.record_success(duration=61)
        breaker.record_failure()
    status = shown(run)
    assert (status["failure_count"], status["success_count"], status["slow_count"]) == (1, 2, 1)
    assert (status["rejected_count"], round(status["failure_rate"], 2)) == (0, 0.33)
    titles, row = table(run)
    assert titles[:5] == ["NAME", "STATE", "FAILURES", "SUCCESSES", "SLOW"]
    assert row[:5] == ["x", "closed", "1 (33%)", "2", "1 (33%)"]


def test_reset_forgets_the_count_and_close_does_not(run: Run) -> None:
    run("failure", "x")
    run("close", "x")
    assert shown(run)["failure_count"] == 1
    assert run("reset", "x", "--reason", "new gateway") == (0, "", "")
    assert (shown(run)["failure_count"], shown(run)["reason"]) == (0, "new gateway")


# --- looking ----------------------------------------------------------------------------------------------------------


def table(run: Run, *names: str) -> list[list[str]]:
    done = run("status", *names)
    assert done.err == ""
    return [re.split(r" {2,}", line) for line in done.out.splitlines()]


def test_status_when_there_is_nothing(run: Run) -> None:
    assert run("status") == (0, "there are no circuit breakers yet\n", "")
    assert run("status", "--json") == (0, "[]\n", "")


def test_status_of_all(run: Run) -> None:
    run("failure", "b", "--error", "Timeout")
    run("open", "c", "--for", "90s", "--reason", "work")
    with Runtime() as runtime:  # a record of another kind is none of ours
        ports = runtime.opened.ports
        with ports.lock(Key("other", "o"), 1):
            ports.save(Key("other", "o"), b"{}", None, None, 1)
    titles, b, c = table(run)
    assert titles == ["NAME", "STATE", "FAILURES", "RETRY AFTER", "LAST FAILURE", "LAST ERROR", "NOTE"]
    assert b[:3] == ["b", "closed", "1"]
    assert re.fullmatch(r"[0-9.]+ s ago", b[3])
    assert b[4] == "Timeout"
    assert c[:3] == ["c", "forced open", "0"]
    assert c[3] in {"90 s", "89 s"}
    assert c[4] == "work"


@pytest.mark.parametrize("left", [b"", bytes(4096), b"nonsense"])
def test_status_of_all_hides_none_that_is_damaged(run: Run, tmp_path: Path, left: bytes) -> None:
    for name in ("a", "b", "api.example.com"):
        run("failure", name)
    folder = tmp_path / "state-home" / "resilience" / "circuit_breaker"
    for name in ("b", "api"):
        (record,) = folder.glob(f"{name}-*")
        record.write_bytes(left)
    done = run("status")
    assert done.status == 69
    assert "cannot be read" in next(line for line in done.out.splitlines() if line.startswith("b "))
    assert any(line.startswith("a ") for line in done.out.splitlines())
    assert "circuit_breaker 'b'" in done.err
    assert f"does not even tell its name: StorageCorrupt: '{record}' cannot be read; restore it" in done.err


def test_status_of_all_advises_no_one_to_delete_what_a_newer_version_wrote(run: Run, tmp_path: Path) -> None:
    run("failure", "Payments EU")
    (record,) = tmp_path.glob("state-home/resilience/circuit_breaker/*.state")
    data = bytearray(record.read_bytes())
    data[32:36] = struct.pack("=HH", 2, 2 ^ 0xFFFF)
    record.write_bytes(data)
    for arguments in (["status"], ["status", "--json"]):
        done = run(*arguments)
        assert f"StorageIncompatible: '{record}' has format 2, this library knows 1; update this ins" in done.err
        assert "delete" not in done.err


def test_status_of_one_that_nobody_knows(run: Run) -> None:
    assert table(run, "nobody") == [["NAME", "STATE", "FAILURES", "NOTE"], ["nobody", "closed", "0", "no record"]]
    assert shown(run, "nobody")["version"] is None
    assert run("status").out == "there are no circuit breakers yet\n"


def test_status_shows_names_in_the_order_given_each_once(run: Run) -> None:
    assert [row[0] for row in table(run, "b", "a", "b")] == ["NAME", "b", "a"]


def test_options_may_stand_between_names(run: Run) -> None:
    assert [status["name"] for status in json.loads(run("status", "b", "--json", "a").out)] == ["b", "a"]


def test_a_name_may_begin_with_a_dash(run: Run) -> None:
    assert run("failure", "--error", "E", "--", "-x") == (0, "", "")
    assert table(run, "--", "-x")[1][:3] == ["-x", "closed", "1"]


@pytest.mark.usefixtures("at_once")
def test_status_of_one_whose_time_is_up_changes_nothing(run: Run) -> None:
    trip(run)
    first = shown(run)
    assert (first["state"], first["retry_after"]) == ("open", 0)
    assert table(run)[1][1:4] == ["open", "3", "now"]
    assert shown(run)["version"] == first["version"]


def test_status_escapes_what_others_wrote(run: Run) -> None:
    run("failure", "x", "--error", "\x1b[31mred\n" + "e" * 100)
    run("open", "y", "--reason", "line\nline\u202e")
    out = run("status").out
    assert r"\x1b[31mred\neeee" in out
    assert "e" * 100 in out
    assert r"line\nline\u202e" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert shown(run, "y")["reason"] == "line\nline\u202e"


@pytest.mark.parametrize(
    "words",
    [
        *("success x", "failure x", "open x", "close x", "disable x", "metrics-only x", "reset x"),
        "run x -- true",
    ],
)
def test_a_change_that_ends_with_the_command_is_noted(words: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    note = (
        "resilience: warning: memory: keeps records in the memory of this process, with which they end; "
        "name a storage that processes share, such as file:///absolute/folder\n"
    )
    assert run(*words.split()) == (0, "", note)
    assert run("check", "x") == (0, "", "")
    assert run("status") == (0, "there are no circuit breakers yet\n", "")


def test_a_password_that_somebody_quotes_is_kept_nowhere(run: Run, tmp_path: Path) -> None:
    assert run("failure", "x", "--error", "redis://me:hunter2@host/0") == (0, "", "")
    assert run("open", "y", "--reason", "see redis://me:hunter2@host/0") == (0, "", "")
    for words in ("status", "status --json", "events"):
        out = run(*words.split()).out
        assert "redis://***@host/0" in out
        assert "hunter2" not in out
    kept = [path.read_bytes() for path in (tmp_path / "state-home").rglob("*") if path.is_file()]
    assert any(b"redis://***@host/0" in data for data in kept)
    assert not any(b"hunter2" in data for data in kept)


@pytest.mark.parametrize("words", ["status", "events"])
def test_only_a_terminal_gets_less_than_all(words: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the gateway is being repaired " * 12
    run("open", "y", "--reason", reason)
    assert reason.strip() in run(words).out
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert cli.main([words]) == 0
    assert "the gateway is being repaired the gateway" in terminal.getvalue()
    assert "…" in terminal.getvalue()
    assert reason.strip() not in terminal.getvalue()


def test_forced_open_without_an_end_cannot_say_when(run: Run) -> None:
    run("open", "x")
    assert table(run)[1] == ["x", "forced open", "0", "unknown"]


# What changes from one look to the next.
_FLEETING = frozenset({"retry_after"})


def lasting(statuses: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{name: value for name, value in status.items() if name not in _FLEETING} for status in statuses]


@pytest.mark.parametrize("plan", ["0", "1"])
def test_all_at_once_are_shown_as_one_by_one(run: Run, monkeypatch: pytest.MonkeyPatch, plan: str) -> None:
    monkeypatch.setenv("RESILIENCE_PLAN", plan)
    with Runtime():
        CircuitBreaker("plain").record_failure(TimeoutError())
        CircuitBreaker("stored", failure_threshold=1, reset_timeout=77).record_failure()
        for name in ("calls", "other calls"):
            window = CircuitBreaker(name, window="count", window_size=10, minimum_calls=2, gather=0)
            window.record_failure()
            window.record_success()
        CircuitBreaker("seconds", window="time").record_failure()
        CircuitBreaker("by name").force_open(60, "by hand")
    for name in ("BY_NAME", "CALLS"):
        monkeypatch.setenv(f"RESILIENCE_POLICIES__{name}__CIRCUIT_BREAKER__RESET_TIMEOUT", "5")
        names = ["by name", "calls", "other calls", "plain", "seconds", "stored"]
        one_by_one = [json.loads(run("status", each, "--json").out)[0] for each in names]
        together = run("status", "--json")
        assert lasting(json.loads(together.out)) == lasting(one_by_one)
        assert len(together.out.splitlines()) == len(names) + 2
        assert [row[0] for row in table(run)[1:]] == names


def test_a_storage_that_only_lists_its_keys_shows_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("failure", "b")
    run("failure", "a")
    expected = lasting(json.loads(run("status", "--json").out))
    monkeypatch.setattr(FileStorage, "records", None)
    assert lasting(json.loads(run("status", "--json").out)) == expected

    def fail(*_: object) -> None:
        raise ZeroDivisionError("no reading")

    monkeypatch.setattr(FileStorage, "records", fail)
    assert lasting(json.loads(run("status", "--json").out)) == expected


def test_hundreds_are_written_in_pieces(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.cli.output._PIECE", 2)
    for name in "abcde":
        run("failure", name)
        assert [status["name"] for status in json.loads(run("status", "--json").out)] == list("abcde"[: ord(name) - 96])


def test_one_of_all_that_cannot_be_read_is_told(run: Run, tmp_path: Path) -> None:
    run("failure", "good")
    run("failure", "bad")
    (record,) = (tmp_path / "state-home" / "resilience" / "circuit_breaker").glob("bad-*")
    content = bytearray(record.read_bytes())
    content[content.index(b'"state"') : content.index(b'"state"') + 7] = b"#######"
    record.write_bytes(content)
    done = run("status")
    assert done.status == 69
    assert len(done.err.splitlines()) == 1
    assert [line.split("  ")[0] for line in done.out.splitlines()] == ["NAME", "bad", "good"]


def test_one_of_all_whose_content_makes_no_sense_is_told(run: Run) -> None:
    run("failure", "good")
    with Runtime() as runtime:
        ports = runtime.opened.ports
        with ports.lock(Key("circuit_breaker", "bad"), 1):
            ports.save(Key("circuit_breaker", "bad"), b'{"state":"ajar"}', None, None, 1)
    done = run("status")
    assert done.status == 69
    assert done.err.startswith("resilience: circuit_breaker 'bad': the record's ")
    assert [line.split("  ")[0] for line in done.out.splitlines()] == ["NAME", "bad", "good"]


def test_a_record_that_cannot_be_read_does_not_hide_the_others(run: Run, tmp_path: Path) -> None:
    run("failure", "good")
    run("failure", "bad")
    (record,) = (tmp_path / "state-home" / "resilience" / "circuit_breaker").glob("bad-*")
    content = bytearray(record.read_bytes())
    content[content.index(b'"state"') : content.index(b'"state"') + 7] = b"#######"
    record.write_bytes(content)
    done = run("status", "bad", "good")
    assert done.status == 69
    (line,) = done.err.splitlines()
    assert line.startswith("resilience: ")
    assert "bad" in line
    _, bad, good = (re.split(r" {2,}", line) for line in done.out.splitlines())
    assert bad == ["bad", "cannot be read", "0"]
    assert good[:3] == ["good", "closed", "1"]
    states = {status["name"]: status["degraded"] for status in json.loads(run("status", "bad", "good", "--json").out)}
    assert states == {"bad": True, "good": False}


def test_a_storage_that_cannot_list_says_so(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("resilience.storage", "unlisted", "UnlistedStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "unlisted:")
    done = run("status")
    assert (done.status, done.out) == (69, "")
    assert done.err == "resilience: storage unlisted cannot list its keys; name the ones you want\n"
    assert run("status", "x").status == 0


def test_a_storage_that_does_not_answer_when_asked_for_keys(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.storage", "silent", "SilentStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "silent:")
    assert run("status") == (69, "", "resilience: no answer\n")
