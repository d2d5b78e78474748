"""Another process that opens the same storage and does there what it is told: one line of JSON each way.

Started as a fresh interpreter, on every system; what it does is bounded by the time that its answer is waited for.
"""

from __future__ import annotations

import json
import sys
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from resilience.clock import monotonic
from resilience.errors import StorageLockTimeout

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType
    from typing import Self

    from resilience.cli.doctor.checks import Patient
    from resilience.runtime import Runtime

PATIENCE = 20.0
"""Seconds that its start, or what it was told, may take in all."""


class Unanswered(Exception):
    """It did not do what it was told; the message says why."""


class Neighbour:
    """The other process.  To be entered; it is gone afterwards, whatever it was doing.

    :param runtime: names the storage.
    :param patient: names the record.
    """

    def __init__(self, runtime: Runtime, patient: Patient, patience: float = PATIENCE) -> None:
        self.patience = patience
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; from resilience.cli.doctor.neighbour import serve; "
            f"serve({patient.key.kind!r}, {patient.key.name!r})"
        )
        self._program = [sys.executable, "-c", program]
        self._environ = {**runtime.environ, "RESILIENCE_STORAGE": runtime.url, "PYTHONIOENCODING": "utf-8"}
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        # A pipe cannot be waited for with a time-out on every system; a queue can.
        self._reader = threading.Thread(target=self._read, name="doctor", daemon=True)

    def __enter__(self) -> Self:
        """Start it, and wait until it has opened the storage."""
        import subprocess

        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own program
            self._program,
            env=self._environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self._reader.start()
        try:
            self.answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        process = self._process
        assert process is not None  # noqa: S101 - it was entered; for the type checkers
        assert process.stdin is not None  # noqa: S101 - as it was started; for the type checkers
        process.kill()
        process.wait()
        try:
            process.stdin.close()
        except OSError:
            pass  # something was left to be written
        self._reader.join(1.0)  # at the end of what the process wrote

    def ask(self, what: str) -> dict[str, Any]:
        """Tell it what to do, and wait for its answer."""
        self.begin(what)
        return self.answer()

    def begin(self, what: str) -> None:
        """Tell it what to do.

        :raises Unanswered: it is gone.
        """
        process = self._process
        assert process is not None  # noqa: S101 - it was entered; for the type checkers
        assert process.stdin is not None  # noqa: S101 - as it was started; for the type checkers
        try:
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
        except OSError as error:
            raise Unanswered("another process died before it was told what to do") from error

    @property
    def has_answered(self) -> bool:
        """Whether there is an answer to be had, or it is gone."""
        return not self._lines.empty()

    def answer(self) -> dict[str, Any]:
        """Wait for what it answers.

        :raises Unanswered: it failed, died, or did not answer in time.
        """
        end = monotonic() + self.patience
        said = ""
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - monotonic()))
            except Empty:
                raise Unanswered(f"another process did not answer in {self.patience:g} s") from None
            if not line:
                raise Unanswered(f"another process failed: {said or 'it died'}")
            try:
                answer = json.loads(line)
            except ValueError:
                said = line.strip() or said  # a warning, or the end of a traceback
                continue
            if "failed" in answer:
                raise Unanswered(f"in another process: {answer['failed']}")
            return dict(answer)

    def _read(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - it was entered; for the type checkers
        assert process.stdout is not None  # noqa: S101 - as it was started; for the type checkers
        with process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")


# --- in the other process ---------------------------------------------------------------------------------------------


def serve(kind: str, name: str) -> None:
    """Open the storage of the variables, and do what comes by the standard input until it ends."""
    from resilience.cli.doctor.checks import Patient
    from resilience.runtime import Runtime
    from resilience.storage import Key

    try:
        runtime = Runtime.current()
        patient = Patient(runtime.opened.ports, runtime.timeout, Key(kind, name))
        _say({})
        for line in sys.stdin:
            _say(do(patient, line.strip()))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything; told to who asked
        _say({"failed": f"{type(error).__name__}: {error}"})


def do(patient: Patient, what: str) -> dict[str, Any]:
    """Do one thing."""
    from resilience.cli.doctor.checks import race

    if what == "race":
        return dict(race(patient))
    if what == "commit":
        begun = monotonic()
        patient.commit()
        return {"begun": begun, "done": monotonic()}
    try:
        with patient.ports.lock(patient.key, 0.0):
            return {"got": True}
    except StorageLockTimeout:
        return {"got": False}


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()
