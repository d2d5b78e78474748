"""`resilience run`: the command it starts, its streams, its signals, its end, and what is recorded of it."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from resilience import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 30.0

# The same command line with either relay; the second is the one of systems without `sigtimedwait`.
RELAYS = {
    "waits": "import sys; from resilience.cli import main; sys.exit(main())",
    "handles": (
        "import sys; from resilience.cli import main, relay; relay.Relay = relay.HandlerRelay; sys.exit(main())"
    ),
}

RESILIENCE = [sys.executable, "-m", "resilience"]

RECORDED = ("state", "failure_count", "last_error", "permits_in_use")


@pytest.fixture(params=list(RELAYS))
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-c", RELAYS[request.param]]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes, and see that none is left behind."""
    processes: list[subprocess.Popen[str]] = []

    def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
        # A group of its own, as from a shell, in the background of the terminal that the tests may run on.
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "process_group": 0, **options}
        process = subprocess.Popen(words, text=True, **options)
        processes.append(process)
        return process

    yield start
    for process in processes:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()


def ended(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


def recorded() -> dict[str, object]:
    status = CircuitBreaker.stored("x").status().to_dict()
    return {field: status[field] for field in RECORDED}


NOTHING = {"state": "closed", "failure_count": 0, "last_error": None, "permits_in_use": 0}


def failure(error: str) -> dict[str, object]:
    return {**NOTHING, "failure_count": 1, "last_error": error}


def a_line(process: subprocess.Popen[str]) -> str:
    """The next line that the command prints."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "nothing was printed"
    return process.stdout.readline().strip()


# --- streams and statuses ---------------------------------------------------------------------------------------------


def test_the_standard_streams_pass_through() -> None:
    done = ended([*RESILIENCE, "run", "x", "--", "sh", "-c", "cat; echo heard >&2"], input="said\n")
    assert (done.stdout, done.stderr, done.returncode) == ("said\n", "heard\n", 0)


def test_inherited_descriptors_pass_through() -> None:
    reading, writing = os.pipe()
    done = ended([*RESILIENCE, "run", "x", "--", "sh", "-c", f"echo here >/dev/fd/{writing}"], pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert (done.returncode, pipe.read()) == (0, "here\n")


def test_the_command_gets_its_words_untouched() -> None:
    words = ["a b", "", "*", "$HOME", "--json", "--", "-x"]
    done = ended([*RESILIENCE, "run", "x", "--", "printf", "[%s]", *words])
    assert done.stdout == "".join(f"[{word}]" for word in words)


@pytest.mark.parametrize(
    ("command", "status", "then"),
    [
        ("exit 0", 0, NOTHING),
        ("exit 3", 3, failure("exit 3")),
        ("exit 255", 255, failure("exit 255")),
        ("kill -KILL $$", 137, failure("SIGKILL")),
        ("kill -SEGV $$", 139, failure("SIGSEGV")),
        ("kill -40 $$", 168, failure("signal 40")),
        ("exit 126", 126, NOTHING),
        ("no-such-command-1", 127, NOTHING),
    ],
)
def test_the_status_of_the_command_is_passed_on_and_recorded(
    command: str, status: int, then: dict[str, object]
) -> None:
    assert ended([*RESILIENCE, "run", "x", "sh", "-c", command]).returncode == status
    assert recorded() == then


@pytest.mark.everywhere
def test_a_success_is_recorded() -> None:
    ended([*RESILIENCE, "run", "x", "false"])
    assert recorded() == failure("exit 1")
    ended([*RESILIENCE, "run", "x", "true"])
    assert recorded()["failure_count"] == 0


@pytest.mark.parametrize(("status", "counted"), [(0, 0), (3, 0), (10, 0), (12, 0), (127, 0), (4, 1), (13, 1)])
def test_ok_status_widens_what_is_a_success(status: int, counted: int) -> None:
    words = [*RESILIENCE, "run", "x", "--ok-status", "3,10-12,127", "--", "sh", "-c"]
    assert ended([*words, f"exit {status}"]).returncode == status
    assert recorded()["failure_count"] == counted


def test_a_command_that_is_not_there_is_recorded_as_nothing() -> None:
    done = ended([*RESILIENCE, "run", "x", "--", "no-such-command-1\x1b[31m"])
    assert done.returncode == 127
    assert done.stderr == "resilience: no-such-command-1\\x1b[31m: there is no such command\n"
    assert recorded() == NOTHING


def test_a_command_that_cannot_be_run_is_recorded_as_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("exit 0\n")
    done = ended([*RESILIENCE, "run", "x", "--", str(script)])
    assert (done.returncode, done.stderr) == (126, f"resilience: {script}: it cannot be run: Permission denied\n")
    script.chmod(0o755)
    done = ended([*RESILIENCE, "run", "x", "--", str(script)])
    assert done.returncode == 126
    assert done.stderr.endswith("Exec format error; does it begin with a #! line?\n")
    assert recorded() == NOTHING


def test_a_rejected_command_is_not_started(tmp_path: Path) -> None:
    CircuitBreaker("x").force_open(600, "work on the gateway")
    done = ended([*RESILIENCE, "run", "x", "--", "touch", str(tmp_path / "started")])
    assert (done.returncode, done.stdout) == (75, "")
    message = r"resilience: circuit breaker 'x' is forced open \(work on the gateway\); try again in [56]\d\d s\n"
    assert re.fullmatch(message, done.stderr)
    assert not (tmp_path / "started").exists()


def test_a_probe_that_could_not_be_started_gives_its_permit_back() -> None:
    breaker = CircuitBreaker("x", reset_timeout=0)
    for _ in range(3):
        breaker.record_failure()
    assert recorded()["state"] == "open"
    assert ended([*RESILIENCE, "run", "x", "--", "no-such-command-1"]).returncode == 127
    assert (recorded()["state"], recorded()["permits_in_use"]) == ("half_open", 0)
    # Two successes close it, each with a permit of its own.
    assert ended([*RESILIENCE, "run", "x", "true"]).returncode == 0
    assert recorded()["state"] == "half_open"
    assert ended([*RESILIENCE, "run", "x", "true"]).returncode == 0
    assert recorded()["state"] == "closed"


def test_an_ignored_sigchld_does_not_hide_the_status() -> None:
    script = f"trap '' CHLD; exec {shlex.join([*RESILIENCE, 'run', 'x', '--', 'sh', '-c', 'exit 7'])}"
    assert ended(["sh", "-c", script]).returncode == 7
    assert recorded() == failure("exit 7")


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_command_whose_time_is_up_is_ended_and_has_failed(program: list[str]) -> None:
    done = ended([*program, "run", "x", "--timeout", "200ms", "--", "sleep", "60"])
    assert done.returncode == 124
    assert recorded() == failure("timeout")


def test_a_command_that_does_not_end_when_asked_is_killed(program: list[str]) -> None:
    stubborn = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    done = ended([*program, "run", "--timeout", "1s", "--kill-after", "100ms", "x", "--", "sh", "-c", stubborn])
    assert (done.returncode, done.stdout) == (124, "ready\nasked\n")
    assert recorded() == failure("timeout")


def test_a_stopped_command_whose_time_is_up_is_ended_too(program: list[str]) -> None:
    done = ended([*program, "run", "x", "--timeout", "300ms", "--", "sh", "-c", "kill -STOP $$"])
    assert done.returncode == 124


def test_a_command_that_is_quick_enough_has_not_timed_out(program: list[str]) -> None:
    assert ended([*program, "run", "x", "--timeout", "30s", "--", "sh", "-c", "exit 4"]).returncode == 4


# --- signals ----------------------------------------------------------------------------------------------------------

TRAPS = "trap 'echo got; exit 5' {signal}; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
def test_a_signal_that_ends_is_passed_on_and_nothing_is_recorded(
    program: list[str], started: Callable[..., subprocess.Popen[str]], name: str
) -> None:
    process = started([*program, "run", "x", "--", "sh", "-c", TRAPS.format(signal=name)])
    assert a_line(process) == "ready"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert (process.wait(PATIENCE), a_line(process)) == (5, "got")
    assert recorded() == NOTHING


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "USR2"])
def test_a_command_that_dies_of_what_was_sent_to_us_is_recorded_as_nothing(
    program: list[str], started: Callable[..., subprocess.Popen[str]], name: str
) -> None:
    process = started([*program, "run", "x", "--", sys.executable, "-c", _PLAIN])
    assert a_line(process) == "ready"
    number = getattr(signal, f"SIG{name}")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert recorded() == NOTHING


_PLAIN = """\
import signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_signal_that_only_tells_something_leaves_the_outcome_to_the_command(
    program: list[str], started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started([*program, "run", "x", "--", "sh", "-c", TRAPS.format(signal="USR1")])
    assert a_line(process) == "ready"
    process.send_signal(signal.SIGUSR1)
    assert (process.wait(PATIENCE), a_line(process)) == (5, "got")
    assert recorded() == failure("exit 5")


def test_an_ignored_signal_stays_ignored(program: list[str], started: Callable[..., subprocess.Popen[str]]) -> None:
    command = "echo ready; read line; echo still here"
    words = shlex.join([*program, "run", "x", "--", "sh", "-c", command])
    process = started(["sh", "-c", f"trap '' HUP; exec {words}"], stdin=subprocess.PIPE)
    assert a_line(process) == "ready"
    os.killpg(process.pid, signal.SIGHUP)
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert (a_line(process), process.wait(PATIENCE)) == ("still here", 0)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii"))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_stopping_and_continuing_reach_both(program: list[str], started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started([*program, "run", "x", "--", "sh", "-c", TRAPS.format(signal="TERM")])
    assert a_line(process) == "ready"
    child = child_of(process.pid)
    process.send_signal(signal.SIGTSTP)
    until(lambda: state_of(process.pid) == "T" and state_of(child) == "T")
    process.send_signal(signal.SIGCONT)
    until(lambda: state_of(process.pid) != "T" and state_of(child) != "T")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 5


# --- the terminal -----------------------------------------------------------------------------------------------------

ON_A_TERMINAL = """\
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""

COUNTS_INTERRUPTS = """\
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", flush=True)
for count in range(1, 4):
    signal.sigwait({signal.SIGINT})
    print("interrupt", count, flush=True)
print("one more" if signal.sigtimedwait({signal.SIGINT}, 0.5) else "no more", flush=True)
"""


class Terminal:
    """A terminal, and what is run in its foreground."""

    def __init__(self, words: list[str]) -> None:
        self._keys, screen = pty.openpty()
        attributes = termios.tcgetattr(screen)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(screen, termios.TCSANOW, attributes)
        starter = [sys.executable, "-c", ON_A_TERMINAL, *words]
        self.process = subprocess.Popen(starter, stdin=screen, stdout=screen, stderr=screen)
        os.close(screen)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def until(self, text: str) -> None:
        while text not in self.seen:
            ready, _, _ = select.select([self._keys], [], [], PATIENCE)
            assert ready, f"{text!r} was not shown, but {self.seen!r}"
            self.seen += os.read(self._keys, 65536).decode()

    def hang_up(self) -> None:
        os.close(self._keys)
        self._keys = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._keys >= 0:
            os.close(self._keys)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def make(words: list[str]) -> Terminal:
        terminals.append(Terminal(words))
        return terminals[-1]

    yield make
    for each in terminals:
        each.close()


def test_ctrl_c_reaches_the_command_once(program: list[str], terminal: Callable[..., Terminal]) -> None:
    shown = terminal([*program, "run", "x", "--", sys.executable, "-c", COUNTS_INTERRUPTS])
    shown.until("ready")
    for count in range(1, 4):
        shown.type("\x03")
        shown.until(f"interrupt {count}")
    shown.until("more")
    assert "no more" in shown.seen
    assert shown.process.wait(PATIENCE) == 0
    assert recorded() == NOTHING


def test_ctrl_c_ends_a_command_and_is_no_failure(program: list[str], terminal: Callable[..., Terminal]) -> None:
    shown = terminal([*program, "run", "x", "--", sys.executable, "-c", _PLAIN])
    shown.until("ready")
    shown.type("\x03")
    assert shown.process.wait(PATIENCE) == 130
    assert recorded() == NOTHING


def test_an_interrupt_from_elsewhere_reaches_the_command_in_the_foreground_too(
    terminal: Callable[..., Terminal],
) -> None:
    shown = terminal([*RESILIENCE, "run", "x", "--", sys.executable, "-c", _PLAIN])
    shown.until("ready")
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(PATIENCE) == 130


def test_a_terminal_that_hangs_up_ends_the_command(program: list[str], terminal: Callable[..., Terminal]) -> None:
    """It tells whoever leads the session, and nobody else: `run` in the place of a shell, as under `ssh -t`."""
    shown = terminal([*program, "run", "x", "--", sys.executable, "-c", _PLAIN])
    shown.until("ready")
    shown.hang_up()
    assert shown.process.wait(PATIENCE) == 129
    assert recorded() == NOTHING
