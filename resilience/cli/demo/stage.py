"""Where the demo is played: the flaky server, the worker processes, and the folder that some of them share."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import IO, TYPE_CHECKING, Protocol

from resilience.cli.demo.model import FAILING, INTERVAL, WORKERS, Play, Script
from resilience.clock import monotonic
from resilience.errors import ResilienceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from types import TracebackType
    from typing import Any, Self

    from resilience.cli.demo.worker import Task

READY_TIMEOUT = 60.0
"""Seconds that the workers may take to start."""

END_TIMEOUT = 3.0
"""Seconds that a worker may take to end."""

REDRAW = 0.1
"""Seconds between two looks at what happened."""

LEAST_SHARE = 0.6
"""Starting the workers counts as part of the demo, but so much of its time at least is left for the play."""

_PATHS = {"/protected": True, "/bare": False}


class DemoFailed(ResilienceError):
    """The demo cannot be played; the message says why."""


class Show(Protocol):
    """What shows a play; entered before the first scene, left after the last."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def update(self, play: Play) -> None:
        """Show the play as it stands now."""


class FlakyServer(ThreadingTCPServer):
    """An HTTP server on loopback that fails while it is told to, and counts who asked it meanwhile."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failing = False
        self._counting = threading.Lock()
        self._hits = {True: 0, False: 0}

    def answer(self, path: str) -> int:
        """Give the status of the answer."""
        with self._counting:
            if not self.failing:
                return 200
            self._hits[_PATHS[path]] += 1
            return 503

    @property
    def hits(self) -> dict[bool, int]:
        """Requests that it failed to answer: of workers with the breaker, and without."""
        with self._counting:
            return dict(self._hits)

    def handle_error(self, request: object, client_address: object) -> None:
        """Tell nobody: a worker that ended hung up."""

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self.serve_forever, args=(REDRAW,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        """Serve no more."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FlakyServer  # pyright: ignore[reportIncompatibleVariableOverride] - nothing else makes one

    def do_GET(self) -> None:
        """Answer, or fail."""
        self.send_response(self.server.answer(self.path))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Log nothing: the screen is the demo's."""


class Workers:
    """The worker processes: started by entering, ended by leaving, whatever happens in between."""

    def __init__(self, tasks: list[Task], folder: Path) -> None:
        self._tasks = tasks
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        # What they say, by number; `None`: this one says no more.
        self._said: queue.SimpleQueue[tuple[int, dict[str, Any] | None]] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        """Start all; see `ready`."""
        try:
            for number, task in enumerate(self._tasks):
                with self._errors(number).open("wb") as errors:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "resilience.cli.demo.worker"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        # What ends the demo with a key ends it only: the workers end as their input does.
                        process_group=0,
                        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                    )
                self._processes.append(process)
                thread = threading.Thread(target=self._listen, args=(number, process.stdout), daemon=True)
                thread.start()
                self._threads.append(thread)
                self._send(process, json.dumps(task))
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """End all."""
        self.end()

    def _errors(self, number: int) -> Path:
        return self._folder / f"worker-{number}.txt"

    @staticmethod
    def _send(process: subprocess.Popen[bytes], line: str) -> None:
        assert process.stdin is not None  # noqa: S101 - it is a pipe; for the type checkers
        with suppress(BrokenPipeError):  # it has ended already, which is heard where the others are waited for
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()

    def _listen(self, number: int, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self._said.put((number, json.loads(line)))
        self._said.put((number, None))

    def heard(self, seconds: float) -> Iterator[tuple[int, dict[str, Any]]]:
        """Hear what they say for so many seconds.

        :raises DemoFailed: one of them has ended.
        """
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            try:
                number, message = self._said.get(timeout=left)
            except queue.Empty:
                return
            if message is None:
                raise DemoFailed(f"worker process {number + 1} ended: {self._last_words(number)}")
            yield number, message

    def _last_words(self, number: int) -> str:
        lines = self._errors(number).read_text("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"status {self._processes[number].wait(END_TIMEOUT)}"

    def ready(self) -> None:
        """Wait until all are ready, and let them begin, all at once.

        :raises DemoFailed: one of them has ended, or they took too long.
        """
        waiting = len(self._processes)
        for _ in self.heard(READY_TIMEOUT):
            waiting -= 1
            if not waiting:
                break
        else:
            raise DemoFailed(f"the worker processes were not ready within {READY_TIMEOUT:.0f} s")
        for process in self._processes:
            self._send(process, "begin")

    def end(self) -> list[tuple[int, dict[str, Any]]]:
        """End all and return what they said last."""
        for process in self._processes:
            assert process.stdin is not None  # noqa: S101 - as above
            with suppress(BrokenPipeError):
                process.stdin.close()
        end = monotonic() + END_TIMEOUT
        for process, thread in zip(self._processes, self._threads, strict=False):
            try:
                process.wait(max(0.0, end - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            thread.join()
        self._processes, self._threads = [], []
        last: list[tuple[int, dict[str, Any]]] = []
        while not self._said.empty():
            number, message = self._said.get()
            if message is not None:
                last.append((number, message))
        return last


def perform(show: Show, seconds: float) -> Play:
    """Play the demo, in so many seconds, and return how it stands at the end.

    :raises DemoFailed: this machine has no loopback, no temporary folder or no room for the processes, or one of them
        ended too early.
    """
    start = monotonic()
    play = Play(Script(seconds))
    with ExitStack() as stage:
        stage.enter_context(show)
        show.update(play)
        server, workers = _set(stage, play.script)
        workers.ready()
        begin = monotonic()
        play.script = Script(max(seconds - (begin - start), seconds * LEAST_SHARE))
        while (elapsed := monotonic() - begin) < play.script.seconds:
            play.advance(elapsed)
            server.failing = play.phase == FAILING
            for number, message in workers.heard(REDRAW):
                play.take(number, message)
            play.hits = server.hits
            show.update(play)
        for number, message in workers.end():
            play.take(number, message)
        play.hits = server.hits
        show.update(play)
    return play


def _set(stage: ExitStack, script: Script) -> tuple[FlakyServer, Workers]:
    try:
        with _uninterrupted():
            folder = tempfile.TemporaryDirectory(prefix="resilience-demo-", ignore_cleanup_errors=True)
            name = stage.enter_context(folder)
        server = stage.enter_context(FlakyServer())
        tasks = _tasks(server.server_address[1], Path(name) / "state", script)
        workers = stage.enter_context(Workers(tasks, Path(name)))
    except OSError as error:
        raise DemoFailed(str(error)) from error
    return server, workers


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Let signals wait: between the making of a folder and the promise to remove it, one would leave it behind."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - only Windows has none, and no test runs there
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tasks(port: int, folder: Path, script: Script) -> list[Task]:
    return [
        {
            "port": port,
            "path": path,
            "storage": folder.as_uri() if protected else None,
            "reset_timeout": script.reset_timeout,
            "interval": INTERVAL,
            # One after the other, evenly.
            "offset": INTERVAL * (number + protected / 2) / WORKERS,
        }
        for path, protected in _PATHS.items()
        for number in range(WORKERS)
    ]
