"""The command line as programs see it: several at once, into pipes, onto terminals, with streams that are closed."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from resilience import CircuitBreaker

PATIENCE = 60.0

RESILIENCE = [sys.executable, "-m", "resilience"]


def shell(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which `resilience` is ours."""
    ours = f'resilience() {{ "{sys.executable}" -m resilience "$@"; }}\n'
    return subprocess.run(
        ["sh", "-c", ours + script, "sh", *words], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_parallel_shells_count_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE_TIMEOUT", "30s")  # a busy machine is not what is tested
    shells = [subprocess.Popen([*RESILIENCE, "failure", "x"], stderr=subprocess.PIPE) for _ in range(8)]
    for each in shells:
        _, said = each.communicate(timeout=PATIENCE)
        assert (each.returncode, said) == (0, b"")
    status = CircuitBreaker.stored("x").status()
    # Three of them opened it; those that came after are late, and none is lost.
    assert (status.state, status.failure_count, status.late_count) == ("open", 3, 5)
    assert status.version is not None
    assert status.version.startswith("8@")


@pytest.mark.everywhere
def test_a_shell_checks_and_another_reports() -> None:
    breaker = CircuitBreaker("x", failure_threshold=1, reset_timeout=0, half_open_success_threshold=1)
    breaker.record_failure()
    done = shell("token=$(resilience check x --token) && resilience success x --token $token && resilience check x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert breaker.status().state == "closed"


def test_a_script_asks_before_it_calls() -> None:
    script = "if resilience check x; then echo called; else echo spared $?; fi"
    assert shell(script).stdout == "called\n"
    CircuitBreaker("x").force_open()
    done = shell(script)
    assert (done.stdout, done.stderr) == ("spared 75\n", "resilience: circuit breaker 'x' is forced open\n")


def test_a_reader_who_leaves_early_is_no_error() -> None:
    script = "{ resilience config x --json; echo $? >&2; } | true"
    assert shell(script).stderr.strip() in {"141", "0"}  # 0: all of it went into the pipe before the reader left


def test_a_reader_who_has_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*RESILIENCE, "status"], stdout=writing, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once() -> None:
    done = shell("resilience status >/dev/full")
    message = "resilience: the output cannot be written: [Errno 28] No space left on device\n"
    assert (done.returncode, done.stderr) == (74, message)


def test_a_closed_output_is_an_error_of_who_has_something_to_say() -> None:
    done = shell("resilience status >&-; echo $?; resilience status >&- 2>&-; echo $?; resilience check x <&- >&- 2>&-")
    message = "resilience: the output cannot be written: the standard output is closed\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "74\n74\n", message)


def test_descriptors_that_run_out_are_an_error_in_one_line() -> None:
    # What measures coverage would complain too.
    done = shell("unset COVERAGE_PROCESS_CONFIG COVERAGE_PROCESS_START; ulimit -n 4; resilience failure x")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("resilience: ")
    assert done.stderr.count("\n") == 1
    assert "Too many open files" in done.stderr


def test_names_that_are_no_text_are_refused() -> None:
    done = subprocess.run(
        [*map(os.fsencode, RESILIENCE), b"check", b"\xff\xfe"], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(rb"resilience: argument NAME: '\udcff\udcfe' is refused")


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({}, False)],
)
def test_a_terminal_gets_colours_unless_it_wants_none(environ: dict[str, str], coloured: bool) -> None:  # noqa: FBT001
    CircuitBreaker("x").record_failure()
    keys, screen = pty.openpty()
    plain = {name: value for name, value in os.environ.items() if name not in {"TERM", "NO_COLOR"}}
    process = subprocess.Popen([*RESILIENCE, "status"], stdout=screen, env={**plain, **environ})
    os.close(screen)
    seen = b""
    try:
        while part := os.read(keys, 65536):
            seen += part
    except OSError:  # the end, on Linux
        pass
    os.close(keys)
    assert process.wait(PATIENCE) == 0
    assert b"x " in seen
    assert (b"\x1b[32mclosed\x1b[0m" in seen) is coloured
    assert (b"\x1b" in seen) is coloured


def test_python_options_that_make_errors_of_warnings_change_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "resilience", "check", "x"],
        env={**os.environ, "RESILIENCE_FOO": "1", "RESILIENCE_UNKNOWN": "warn"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    message = "resilience: warning: RESILIENCE_FOO: nothing knows this variable: unset it\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", message)
