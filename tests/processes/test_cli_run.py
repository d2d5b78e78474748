"""`resilience run`: the command it starts, its streams, its signals, its end, and what is recorded of it."""

from __future__ import annotations

import fcntl
import json
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
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0

# The same command line with either relay; the second is the one of systems without `sigtimedwait`.
RELAYS = {
    "waits": "import sys; from resilience.cli import main; sys.exit(main())",
    "handles": (
        "import sys; from resilience.cli import main, relay; relay.Relay = relay.HandlerRelay; sys.exit(main())"
    ),
}

RECORDED = ("state", "failure_count", "last_error", "permits_in_use")


@pytest.fixture(params=list(RELAYS))
def program(request: pytest.FixtureRequest) -> list[str]:
    return [sys.executable, "-c", RELAYS[request.param]]


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes, and see that none is left behind."""
    processes: list[subprocess.Popen[str]] = []

    def start(words: list[str], **options: Any) -> subprocess.Popen[str]:
        # Its own group, so that what is sent to one process reaches no other; its own session, so that no terminal.
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True, **options}
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


def recorded(name: str = "x") -> dict[str, object]:
    status = ended([sys.executable, "-m", "resilience", "status", name, "--json"])
    assert status.returncode == 0, status.stderr
    (found,) = json.loads(status.stdout)
    return {field: found[field] for field in RECORDED}


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


def test_the_standard_streams_pass_through(program: list[str]) -> None:
    done = ended([*program, "run", "x", "--", "sh", "-c", "cat; echo heard >&2"], input="said\n")
    assert (done.stdout, done.stderr, done.returncode) == ("said\n", "heard\n", 0)


def test_inherited_descriptors_pass_through(program: list[str]) -> None:
    reading, writing = os.pipe()
    done = ended([*program, "run", "x", "--", "sh", "-c", f"echo here >/dev/fd/{writing}"], pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert (done.returncode, pipe.read()) == (0, "here\n")


def test_the_command_gets_its_words_untouched(program: list[str]) -> None:
    words = ["a b", "", "*", "$HOME", "--json", "--", "-x"]
    done = ended([*program, "run", "x", "--", "printf", "[%s]", *words])
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
    program: list[str], command: str, status: int, then: dict[str, object]
) -> None:
    assert ended([*program, "run", "x", "sh", "-c", command]).returncode == status
    assert recorded() == then


def test_a_success_is_recorded(program: list[str]) -> None:
    ended([*program, "run", "x", "false"])
    assert recorded() == failure("exit 1")
    ended([*program, "run", "x", "true"])
    assert recorded()["failure_count"] == 0


@pytest.mark.parametrize(("status", "counted"), [(0, 0), (3, 0), (10, 0), (12, 0), (127, 0), (4, 1), (13, 1)])
def test_ok_status_widens_what_is_a_success(status: int, counted: int) -> None:
    words = [sys.executable, "-m", "resilience", "run", "x", "--ok-status", "3,10-12,127", "--", "sh", "-c"]
    assert ended([*words, f"exit {status}"]).returncode == status
    assert recorded()["failure_count"] == counted


def test_a_command_that_is_not_there_is_recorded_as_nothing(program: list[str]) -> None:
    done = ended([*program, "run", "x", "--", "no-such-command-1\x1b[31m"])
    assert done.returncode == 127
    assert done.stderr == "resilience: no-such-command-1\\x1b[31m: there is no such command\n"
    assert recorded() == NOTHING


def test_a_command_that_cannot_be_run_is_recorded_as_nothing(program: list[str], tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("exit 0\n")
    done = ended([*program, "run", "x", "--", str(script)])
    assert (done.returncode, done.stderr) == (126, f"resilience: {script}: it cannot be run: Permission denied\n")
    script.chmod(0o755)
    done = ended([*program, "run", "x", "--", str(script)])
    assert done.returncode == 126
    assert done.stderr.endswith("Exec format error; does it begin with a #! line?\n")
    assert recorded() == NOTHING


def test_a_rejected_command_is_not_started(program: list[str], tmp_path: Path) -> None:
    ended([*program, "open", "x", "--for", "10m", "--reason", "work on the gateway"])
    done = ended([*program, "run", "x", "--", "touch", str(tmp_path / "started")])
    assert (done.returncode, done.stdout) == (75, "")
    message = r"resilience: circuit breaker 'x' is forced open \(work on the gateway\); try again in [56]\d\d s\n"
    assert re.fullmatch(message, done.stderr)
    assert not (tmp_path / "started").exists()


def test_a_probe_that_could_not_be_started_gives_its_permit_back(program: list[str]) -> None:
    for _ in range(3):
        ended([*program, "failure", "x"], env={**os.environ, "RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT": "0"})
    assert recorded()["state"] == "open"
    assert ended([*program, "run", "x", "--", "no-such-command-1"]).returncode == 127
    assert (recorded()["state"], recorded()["permits_in_use"]) == ("half_open", 0)
    # Two successes close it, each with a permit of its own.
    assert ended([*program, "run", "x", "true"]).returncode == 0
    assert recorded()["state"] == "half_open"
    assert ended([*program, "run", "x", "true"]).returncode == 0
    assert recorded()["state"] == "closed"


def test_an_ignored_sigchld_does_not_hide_the_status(program: list[str]) -> None:
    script = f"trap '' CHLD; exec {shlex.join([*program, 'run', 'x', '--', 'sh', '-c', 'exit 7'])}"
    if "HandlerRelay" in program[-1]:
        pytest.skip("the relay that cannot know who sent a signal leaves SIGCHLD alone")
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


def test_an_ignored_signal_stays_ignored(
    program: list[str], started: Callable[..., subprocess.Popen[str]]
) -> None:
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
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def child_of(pid: int) -> int:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
        return int(children.read())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_stopping_and_continuing_reach_both(
    program: list[str], started: Callable[..., subprocess.Popen[str]]
) -> None:
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
import signal, sys
count = 0
def interrupted(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupted)
print("ready", flush=True)
sys.stdin.readline()
print(f"interrupted {count} times", flush=True)
"""


class Terminal:
    """A terminal, and what is run in its foreground."""

    def __init__(self, words: list[str], **environ: str) -> None:
        self._keys, screen = pty.openpty()
        attributes = termios.tcgetattr(screen)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(screen, termios.TCSANOW, attributes)
        starter = [sys.executable, "-c", ON_A_TERMINAL, *words]
        self.process = subprocess.Popen(
            starter, stdin=screen, stdout=screen, stderr=screen, env={**os.environ, "TERM": "xterm", **environ}
        )
        os.close(screen)
        self.seen = ""

    def type(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def until(self, text: str) -> None:
        while text not in self.seen:
            ready, _, _ = select.select([self._keys], [], [], PATIENCE)
            assert ready, f"{text!r} was not shown, but {self.seen!r}"
            self.seen += self._read()

    def rest(self) -> str:
        """All that is shown until everybody has left."""
        while part := self._read():
            self.seen += part
        return self.seen

    def _read(self) -> str:
        try:
            return os.read(self._keys, 65536).decode()
        except OSError:  # nobody holds the other end
            return ""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keys)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def make(words: list[str], **environ: str) -> Terminal:
        terminals.append(Terminal(words, **environ))
        return terminals[-1]

    yield make
    for each in terminals:
        each.close()


def test_ctrl_c_reaches_the_command_once(program: list[str], terminal: Callable[..., Terminal]) -> None:
    shown = terminal([*program, "run", "x", "--", sys.executable, "-c", COUNTS_INTERRUPTS])
    shown.until("ready")
    for count in range(1, 4):
        shown.type("\x03")
        until_pending(shown.process.pid, count)
    shown.type("\n")
    shown.until("times")
    assert "interrupted 3 times" in shown.seen
    assert shown.process.wait(PATIENCE) == 0
    assert recorded() == NOTHING


def until_pending(pid: int, _count: int) -> None:
    """Wait until no signal waits to be taken any more by anybody, or two interrupts would be one."""
    for each in (pid, child_of(pid)):
        until(lambda each=each: not _pending(each))  # type: ignore[misc]  # one at a time


def _pending(pid: int) -> bool:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        masks = dict(line.split(":", 1) for line in status if line.startswith(("SigPnd", "ShdPnd")))
    return any(int(mask, 16) for mask in masks.values())


def test_ctrl_c_ends_a_command_and_is_no_failure(program: list[str], terminal: Callable[..., Terminal]) -> None:
    shown = terminal([*program, "run", "x", "--", sys.executable, "-c", _PLAIN])
    shown.until("ready")
    shown.type("\x03")
    assert shown.process.wait(PATIENCE) == 130
    assert recorded() == NOTHING


def test_an_interrupt_from_elsewhere_reaches_the_command_in_the_foreground_too(
    terminal: Callable[..., Terminal],
) -> None:
    shown = terminal([sys.executable, "-m", "resilience", "run", "x", "--", sys.executable, "-c", _PLAIN])
    shown.until("ready")
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(PATIENCE) == 130


@pytest.mark.parametrize(
    ("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"TERM": ""}, False)]
)
def test_status_is_coloured_on_a_terminal_only(
    terminal: Callable[..., Terminal], environ: dict[str, str], coloured: bool
) -> None:
    ended([sys.executable, "-m", "resilience", "failure", "x"])
    shown = terminal([sys.executable, "-m", "resilience", "status"], **environ).rest()
    assert ("\x1b[32mclosed\x1b[0m" in shown) is coloured
    assert ("\x1b[" in shown) is coloured
    piped = ended([sys.executable, "-m", "resilience", "status"]).stdout
    assert re.sub(r"\x1b\[[0-9]*m|\r", "", shown).split() == piped.split() or "ago" in piped
