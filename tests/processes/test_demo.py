"""The demo as it is played: a server, eight workers, one breaker; and nothing of it is left, however it ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from resilience.cli.demo import stage
from resilience.cli.demo.stage import DemoFailed, FlakyServer, Workers, perform
from resilience.cli.demo.worker import ServerFailed, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from resilience.cli.demo.model import Play
    from resilience.cli.demo.worker import Task

DEADLINE = 60.0
"""Seconds that may pass on a busy machine before something counts as not happening."""

HERE = Path("/proc")


class Stage:
    """What surrounds one demo: a mark in the environment of its processes, a folder for temporary ones, a home."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = folder / "temporary"
        self.home = folder / "home"
        self.temporary.mkdir()
        self.home.mkdir()
        self.started: list[subprocess.Popen[bytes]] = []
        self.environ = {
            **os.environ,
            "DEMO_TEST_MARK": self.mark,
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "TERM": "xterm-256color",
        }
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            self.environ.pop(name, None)

    def start(self, *options: str, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "resilience", "demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self.environ,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def clear(self) -> None:
        """End what a test left behind because it failed."""
        for process in self.processes():
            os.kill(process, signal.SIGKILL)
        for started in self.started:
            with started:  # waits, and closes the pipes
                pass

    def processes(self) -> list[int]:
        found: list[int] = []
        for folder in HERE.iterdir():
            if folder.name.isdecimal():
                try:
                    environ = (folder / "environ").read_bytes()
                except OSError:
                    continue
                if f"DEMO_TEST_MARK={self.mark}".encode() in environ:
                    found.append(int(folder.name))
        return found

    def none_left(self) -> bool:
        end = time.monotonic() + DEADLINE
        while self.processes():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Stage]:
    surroundings = Stage(tmp_path)
    yield surroundings
    surroundings.clear()


needs_proc = pytest.mark.skipif(not (HERE / "self" / "environ").exists(), reason="processes are found in /proc")


VIEWS = re.compile(rb"\d+/\d+/\d+")
"""What the workers see: calls, failures, rejections."""


def read_until(process: subprocess.Popen[bytes], what: re.Pattern[bytes]) -> str:
    """Read whole lines up to the first one that has something in it."""
    assert process.stdout is not None
    read = b""
    for line in process.stdout:
        read += line
        if what.search(line):
            return read.decode("ascii")
    raise AssertionError(f"{what} is not in {read!r}")


REQUESTS = re.compile(r"^ +(\d+) requests of 4 processes .*\((\d+) calls, (\d+) rejected\)$", re.MULTILINE)


@needs_proc
def test_demo_plays_to_the_end_and_leaves_nothing(surroundings: Stage) -> None:
    # None of it is meant for the demo, which has a storage and settings of its own.
    surroundings.environ |= {
        "RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD": "1000",
        "RESILIENCE_STORAGE": "nonsense:",
        "RESILIENCE_NONSENSE": "1",
        "http_proxy": "http://127.0.0.1:9",
    }
    process = surroundings.start("--plain", "--seconds", "6")
    text = read_until(process, VIEWS)
    begin = time.monotonic()
    out, err = process.communicate(timeout=DEADLINE)
    took = time.monotonic() - begin
    text += out.decode("ascii")
    assert (process.returncode, err) == (0, b""), text
    assert took < 10, "no more than five seconds were left, and what it takes to end"

    (bare, bare_calls, none), (shared, shared_calls, rejected) = (
        tuple(map(int, found)) for found in REQUESTS.findall(text)
    )
    assert 3 <= shared < bare
    assert none == 0 < rejected
    assert shared + rejected < shared_calls
    assert bare < bare_calls
    assert f"The breaker spared it {bare - shared} requests" in text

    moves = re.findall(r"moved the breaker: (\S+) -> (\S+) \(", text)
    assert moves[0] == ("closed", "open")
    assert moves[-1] == ("half-open", "closed")
    assert re.findall(r"the server is (\w+)", text) == ["healthy", "failing", "recovering"]

    assert not surroundings.processes()
    assert not list(surroundings.temporary.iterdir())
    assert not list(surroundings.home.iterdir())


@pytest.mark.heavy
@needs_proc
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
def test_interrupted_it_ends_at_once_and_leaves_nothing(
    number: signal.Signals, status: int, surroundings: Stage
) -> None:
    process = surroundings.start("--plain")
    read_until(process, VIEWS)
    assert len(surroundings.processes()) == 9
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (status, b"")
    assert b"requests" not in out
    assert not surroundings.processes()
    assert not list(surroundings.temporary.iterdir())


@needs_proc
def test_interrupted_while_it_starts_it_leaves_nothing(surroundings: Stage) -> None:
    process = surroundings.start("--plain")
    read_until(process, re.compile(b"server"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, err) == (130, b"")
    assert surroundings.none_left()
    assert not list(surroundings.temporary.iterdir())


@pytest.mark.heavy
@needs_proc
def test_killed_it_leaves_no_process(surroundings: Stage) -> None:
    process = surroundings.start("--plain")
    read_until(process, VIEWS)
    process.kill()
    process.communicate(timeout=DEADLINE)
    assert surroundings.none_left()


@pytest.mark.heavy
@needs_proc
def test_reader_that_leaves_ends_it(surroundings: Stage) -> None:
    process = surroundings.start("--plain")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(DEADLINE) == 128 + signal.SIGPIPE
    assert err == b""
    assert not surroundings.processes()
    assert not list(surroundings.temporary.iterdir())
    process.stderr.close()


def on_a_terminal(surroundings: Stage) -> str:
    """Play it on a terminal and return what it wrote there."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        process = surroundings.start("--seconds", "3", stdout=terminal)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # nobody has the terminal any more
            break
        if not part:
            break
        written += part
    os.close(ours)
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(DEADLINE) == 0
    return written.decode()


COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3|4|9|10)[0-9](?:;[0-9]+)*m")


@pytest.mark.heavy
def test_terminal_gets_a_drawing_in_colour(surroundings: Stage) -> None:
    text = on_a_terminal(surroundings)
    assert COLOUR.search(text)
    assert text.count("resilience demo") > 3, "it is drawn again and again"
    assert text.count("The breaker spared it") == 1


@pytest.mark.heavy
def test_no_color_is_honoured(surroundings: Stage) -> None:
    surroundings.environ["NO_COLOR"] = "1"
    text = on_a_terminal(surroundings)
    assert not COLOUR.search(text)
    assert text.count("resilience demo") > 3, "it is still drawn"


# -- on this side of the processes ------------------------------------------------------------------------------------


class Record:
    """Shows nothing, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seen.append((-1.0, "", ""))

    def update(self, play: Play) -> None:
        self.seen.append((play.elapsed, play.phase, play.state))


@pytest.mark.heavy
def test_workers_and_server_agree_on_every_call() -> None:
    show = Record()
    play = perform(show, 4.0)
    for protected in (True, False):
        assert play.hits[protected] == play.total(protected=protected, outcome="failed")
        assert play.hits[protected] > 0
    assert play.hits[True] < play.hits[False]
    assert {row.state for row in play.rows if not row.protected} == {""}
    assert all(row.calls for row in play.rows)
    # The shared state is what the workers see, each of them.
    assert {row.state for row in play.rows if row.protected} == {play.state}
    assert {state for _, _, state in show.seen[:-1]} >= {"closed", "open"}
    assert show.seen[-1] == (-1.0, "", "")


def task(**changes: object) -> Task:
    made: dict[str, object] = {"port": 9, "path": "/bare", "storage": None, "reset_timeout": 1.0}
    return {**made, "interval": 0.01, "offset": 0.0, **changes}  # type: ignore[typeddict-item]  # changes have the right types


def test_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        Workers([task(storage="nonsense:")], tmp_path) as workers,
        pytest.raises(DemoFailed, match=r"worker process 1 ended: .*ConfigurationError.*nonsense"),
    ):
        workers.ready()


def test_worker_that_ends_without_a_word_is_told_with_its_status(tmp_path: Path) -> None:
    with Workers([task()], tmp_path) as workers:
        workers.ready()
        workers._processes[0].kill()
        with pytest.raises(DemoFailed, match="worker process 1 ended: status -9"):
            for _ in workers.heard(DEADLINE):
                pass


def test_workers_that_are_not_ready_in_time_end_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "READY_TIMEOUT", 0.0)
    with Workers([task()], tmp_path) as workers, pytest.raises(DemoFailed, match="not ready within 0 s"):
        workers.ready()


def test_worker_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workers([task()], tmp_path) as workers:
        (process,) = workers._processes
        os.kill(process.pid, signal.SIGSTOP)
        monkeypatch.setattr(stage, "END_TIMEOUT", 0.0)
        workers.end()
        assert process.returncode == -signal.SIGKILL
        assert workers.end() == []


def test_workers_that_cannot_be_started_end_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(DemoFailed, match="No such file or directory: '/nonexistent/python'"):
        perform(Record(), 3.0)


def test_line_to_a_worker_that_has_ended_is_lost(tmp_path: Path) -> None:
    with Workers([task()], tmp_path) as workers:
        (process,) = workers._processes
        process.kill()
        process.wait()
        workers._send(process, "begin")
        with pytest.raises(DemoFailed, match="ended"):
            list(workers.heard(DEADLINE))


def test_server_counts_those_it_fails() -> None:
    with FlakyServer() as server:
        port = server.server_address[1]
        fetch(port, "/bare")
        server.failing = True
        for path in ("/bare", "/protected", "/bare"):
            with pytest.raises(ServerFailed):
                fetch(port, path)
        assert server.hits == {True: 1, False: 2}
        # Nobody of ours: it is hung up on, nothing is printed.
        with pytest.raises(ConnectionError):
            fetch(port, "/favicon.ico")
        assert server.hits == {True: 1, False: 2}


# -- a worker by itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "resilience.cli.demo.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def lines_of(process: subprocess.Popen[bytes]) -> Iterator[Any]:
    assert process.stdout is not None
    return (json.loads(line) for line in process.stdout)


def test_worker_without_a_task_ends(worker: subprocess.Popen[bytes]) -> None:
    assert worker.communicate(timeout=DEADLINE) == (b"", b"")
    assert worker.returncode == 0


def test_worker_that_is_never_told_to_begin_calls_nobody(worker: subprocess.Popen[bytes]) -> None:
    out, err = worker.communicate(json.dumps(task()).encode() + b"\n", DEADLINE)
    assert (json.loads(out), err) == ({"ready": True}, b"")
    assert worker.returncode == 0


def test_worker_that_nobody_hears_ends(worker: subprocess.Popen[bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(task(port=port)).encode() + b"\nbegin\n")
    worker.stdin.flush()
    lines = lines_of(worker)
    assert next(lines) == {"ready": True}
    assert next(lines) == {"did": "failed", "state": ""}
    worker.stdout.close()
    assert worker.wait(DEADLINE) == 0
    assert worker.stderr is not None
    assert worker.stderr.read() == b""
