"""Processes that do what they are told, at one instant; that can be killed and stopped; and that always end.

Each is a fresh interpreter: nothing is inherited by a fork, and the main module is not imported again, so a script
needs no ``if __name__ == "__main__"``.  What they run has to be importable there: they get this process's `sys.path`.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import traceback
from multiprocessing.connection import Connection, Pipe

from resilience import clock
from resilience.errors import ResilienceError
from resilience.testing.violations import Skipped, Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Self

    Job = tuple[Any, ...]

PATIENCE = 60.0
"""Seconds that nothing here takes on a machine that works, however much else it has to do."""


class Failed(AssertionError):
    """A worker did not do what it was told; the message has its traceback, or says that it did not answer.

    `raised` is class and message of what its function raised, if that was an error of the framework.
    """

    def __init__(self, message: str, raised: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.raised = raised

    @property
    def briefly(self) -> str:
        """The message, without a traceback where the error says enough."""
        return str(self) if self.raised is None else "in another process {} was raised: {}".format(*self.raised)


def wait_until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for something that another thread or process brings about.

    :raises Failed: it did not happen in `patience` seconds.
    """
    end = clock.monotonic() + patience
    while not condition():
        if clock.monotonic() > end:
            raise Failed(f"{what} did not happen in {patience:g} s")
        clock.sleep(0.001)


class Worker:
    """One process."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self.pipe = ours
        number = theirs.fileno()
        code = f"from resilience.testing.workers import serve; serve({number})"
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter and a constant
            [sys.executable, *_flags(), "-c", _BOOT, code, *sys.path],
            stdin=subprocess.DEVNULL,
            pass_fds=(number,),
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def begin(self, limit: float, function: Callable[..., Any], *arguments: Any) -> None:
        """Tell it what to do, and wait until it is ready to begin."""
        try:
            self.pipe.send((sys.path, limit, function, arguments))
        except Exception as error:
            raise Failed(
                f"{function!r} with its arguments cannot be sent to another process: {type(error).__name__}: {error};"
                " use functions and classes that stand at the top of a module, and functools.partial instead of lambda"
            ) from error
        self.answer()

    def start(self, at: float) -> None:
        """Let it begin at a monotonic second."""
        self.pipe.send(at)

    def answer(self, patience: float = PATIENCE) -> Any:
        """Wait for what its function returns, and raise what that raised.

        :raises Violation: the function did.
        :raises Failed: it raised anything else, died, or did not answer.
        """
        try:
            if not self.pipe.poll(patience):
                raise Failed(f"a process did not answer in {patience:g} s")
            kind, answer = self.pipe.recv()
        except (EOFError, OSError):
            raise Failed("a process died before it answered") from None
        if kind == "violation":
            raise Violation(*answer)
        if kind == "skipped":
            raise Skipped(answer)
        if kind == "raised":
            text, raised = answer
            raise Failed(f"in another process:\n{text}", raised)
        return answer

    def stop(self) -> None:
        """Stop it where it is (SIGSTOP); `resume` lets it go on."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL), and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self.pipe.close()

    def end(self, patience: float = 5.0) -> None:
        """Let it end by itself, for so many seconds."""
        self.pipe.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _flags() -> list[str]:
    """The options of this interpreter that others should have."""
    return [*(f"-W{option}" for option in sys.warnoptions), *(["-s"] if sys.flags.no_user_site else [])]


_BOOT = "import sys; code = sys.argv[1]; sys.path[:] = sys.argv[2:]; exec(code)"


class Workers:
    """A crowd of processes.

    ``with Workers(4) as workers: answers = workers.run(function, argument)``

    :param size: how many there are to begin with; more are started when they are asked for.
    """

    def __init__(self, size: int = 0) -> None:
        self.members: list[Worker] = []
        self.grow(size)

    def grow(self, size: int) -> list[Worker]:
        """Start as many as are missing to `size`, and return the first `size`."""
        while len(self.members) < size:
            self.members.append(Worker())
        return self.members[:size]

    def run(
        self, function: Callable[..., Any], *arguments: Any, count: int | None = None, limit: float = 30
    ) -> list[Any]:
        """Let `count` of them (all, if left out) call a function at one instant; return what they return."""
        return self.each([(function, *arguments)] * (len(self.members) if count is None else count), limit=limit)

    def each(self, jobs: Iterable[Job], *, limit: float = 30) -> list[Any]:
        """Let each do its own job, a function and its arguments, at one instant; return what they return.

        :param limit: seconds; who is not done by then is killed and replaced.
        :raises Violation: a function raised one.
        :raises Failed: it raised anything else, or did not end.
        """
        todo = list(jobs)
        crowd = self.grow(len(todo))
        try:
            for worker, (function, *arguments) in zip(crowd, todo, strict=True):
                worker.begin(limit, function, *arguments)
            at = clock.monotonic() + 0.005
            for worker in crowd:
                worker.start(at)
            end = at + limit
            return [worker.answer(max(0.0, end - clock.monotonic())) for worker in crowd]
        except BaseException:
            for worker in crowd:
                self.replace(worker)
            raise

    def begin(self, member: int, function: Callable[..., Any], *arguments: Any, limit: float = 30) -> Worker:
        """Let one of them call a function, and do not wait for what it returns: `Worker.answer` does."""
        worker = self.grow(member + 1)[member]
        worker.begin(limit, function, *arguments)
        worker.start(0.0)
        return worker

    def replace(self, worker: Worker) -> None:
        """Kill one of them; another takes its place when it is asked for."""
        worker.kill()
        if worker in self.members:  # another thread may have been faster
            self.members.remove(worker)

    def close(self) -> None:
        """End all of them."""
        members, self.members = self.members, []
        for worker in members:
            worker.pipe.close()
        for worker in members:
            worker.end()

    def __enter__(self) -> Self:
        """Return the crowd."""
        return self

    def __exit__(self, *exception: object) -> None:
        """End all of them."""
        self.close()


_shared: list[tuple[int, Workers]] = []


def shared() -> Workers:
    """Return the crowd that all checks of this process share: starting twenty takes longer than most of the checks."""
    if not _shared or _shared[0][0] != os.getpid():
        crowd = Workers()
        _shared[:] = [(os.getpid(), crowd)]
        atexit.register(crowd.close)
    return _shared[0][1]


def abandon_shared() -> None:
    """Kill the shared crowd: what was given up may still be talking to it.  Whoever asks next gets another."""
    while _shared:
        _, crowd = _shared.pop()
        atexit.unregister(crowd.close)
        for worker in list(crowd.members):
            crowd.replace(worker)


# --- in the worker ----------------------------------------------------------------------------------------------------


def serve(number: int) -> None:
    """Do what comes through a pipe until its other end is closed."""
    pipe = Connection(number)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
    while True:
        try:
            path, limit, function, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        except Exception:  # noqa: BLE001 - told to who sent it
            pipe.send(("raised", (f"what was sent cannot be imported here\n{traceback.format_exc()}", None)))
            continue
        sys.path[:] = path
        pipe.send(("answer", None))
        try:
            at = pipe.recv()
        except (EOFError, OSError):
            return
        # Whatever it does, it ends: the signal's default is death, also in the middle of a call to the system.
        signal.setitimer(signal.ITIMER_REAL, limit + 5)
        clock.sleep(max(0.0, at - clock.monotonic()))
        try:
            answer: tuple[str, object] = ("answer", function(*arguments))
        except Violation as violation:
            answer = ("violation", violation.args)
        except Skipped as skipped:
            answer = ("skipped", str(skipped))
        except ResilienceError as error:
            answer = ("raised", (traceback.format_exc(), (type(error).__name__, str(error))))
        except BaseException:  # noqa: BLE001 - told to who sent it
            answer = ("raised", (traceback.format_exc(), None))
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            pipe.send(answer)
        except (EOFError, OSError):
            return
