"""A started command and the signals of whoever started us: each that is sent to us goes on to the command.

The command stays in our process group and keeps our terminal, so what the terminal sends (Ctrl-C, Ctrl-Z, a change of
its size) reaches both by itself and must not be sent a second time: many programs take a second Ctrl-C for "at once".
Linux says who sent a signal to whoever waits for it with `sigtimedwait`; elsewhere it is guessed, see `HandlerRelay`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from resilience.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType
    from typing import Self

_PASSED_ON = (
    "SIGINT",
    "SIGTERM",
    "SIGHUP",
    "SIGQUIT",
    "SIGUSR1",
    "SIGUSR2",
    "SIGWINCH",
    "SIGTSTP",
    "SIGCONT",
    "SIGBREAK",
)
_OF_THE_TERMINAL = ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGWINCH", "SIGBREAK")
_OF_A_HANGUP = ("SIGHUP", "SIGCONT")
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")


def _numbers(names: Sequence[str]) -> frozenset[int]:
    """Return the numbers of those signals that this system has."""
    return frozenset(int(getattr(signal, name)) for name in names if hasattr(signal, name))


ENDING = _numbers(_ENDING)
"""The signals by which somebody wants the command to end."""

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # which kills, where there is no other


class HandlerRelay:
    """Starts one command and waits for it, with handlers that pass signals on.

    Here it cannot be known who sent a signal: those that a terminal sends are taken for the terminal's, and not passed
    on, while we are in its foreground.

    :param kill_after: seconds between the request to end, when the time is up, and the end.
    """

    def __init__(self, *, timeout: float | None = None, kill_after: float = 5.0) -> None:
        self._timeout = timeout
        self._kill_after = kill_after
        self._process: subprocess.Popen[bytes] | None = None
        self._replaced: dict[int, Any] = {}
        self._early: list[int] = []
        self.received: set[int] = set()
        """The signals that came, from anybody."""
        self.timed_out = False
        """Whether the command was ended because its time was up."""

    def __enter__(self) -> Self:
        """Take over the signals."""
        for number in _heeded():
            self._replaced[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._replaced.items():
            signal.signal(number, handler)

    @property
    def unwanted(self) -> int | None:
        """The signal by which somebody asked us to end before the command was started."""
        return min(self.received & ENDING, default=None)

    def start(self, command: Sequence[str]) -> None:
        """Start a command with our streams, our environment and all inherited descriptors.

        :raises OSError: it cannot be started.
        """
        self._process = subprocess.Popen(command, close_fds=False)  # noqa: S603 - what the user wants
        while self._early:
            self._pass_on(self._early.pop(0), from_terminal=False)  # it came before the command was there

    def wait(self) -> int:
        """Wait for the end of the command; return its status, or the negative number of the signal that killed it."""
        process = self._started
        for patience, number in ((self._timeout, signal.SIGTERM), (self._kill_after, _KILL)):
            try:
                return process.wait(patience)
            except subprocess.TimeoutExpired:
                self._end(number)
        return process.wait()

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None  # noqa: S101 - for the type checkers: `start` came first
        return self._process

    def _end(self, number: int) -> None:
        """Ask the command to end, or end it, because its time is up."""
        self.timed_out = True
        for each in (number, *_numbers(["SIGCONT"])):  # it may be stopped
            self._started.send_signal(each)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.received.add(number)
        if self._process is None:
            self._early.append(number)
        else:
            self._pass_on(number, from_terminal=number in _numbers(_OF_THE_TERMINAL) and _in_foreground())

    def _pass_on(self, number: int, *, from_terminal: bool) -> None:
        if not from_terminal:
            self._started.send_signal(number)
        if number == getattr(signal, "SIGTSTP", None):
            self._stop()

    def _stop(self) -> None:
        """Stop as the command does, so that the shell which started us sees a stopped job; goes on when continued."""
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)


class WaitingRelay(HandlerRelay):
    """The same where `sigtimedwait` tells who sent a signal.

    The signals are blocked from the beginning, so that no thread that a storage starts takes one away, and let
    through only while the command is started, which must not inherit that.
    """

    def __enter__(self) -> Self:
        """Take over the signals."""
        self._watched = _heeded() | {signal.SIGCHLD}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        super().__enter__()
        # A SIGCHLD that is ignored would take the status of the command away.
        self._replaced[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back; one that came too late for the command is now ours."""
        super().__exit__(kind, error, traceback)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    @property
    def unwanted(self) -> int | None:
        """The signal by which somebody asked us to end before the command was started."""
        return min((self.received | signal.sigpending()) & ENDING, default=None)

    def start(self, command: Sequence[str]) -> None:
        """Start a command with our streams, our environment and all inherited descriptors.

        :raises OSError: it cannot be started.
        """
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        try:
            super().start(command)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)

    def wait(self) -> int:
        """Wait for the end of the command; return its status, or the negative number of the signal that killed it."""
        process = self._started
        ends = [signal.SIGTERM, signal.SIGKILL]
        deadline = None if self._timeout is None else monotonic() + self._timeout
        while (status := process.poll()) is None:
            info = (
                signal.sigwaitinfo(self._watched)
                if deadline is None
                else signal.sigtimedwait(self._watched, max(0.0, deadline - monotonic()))
            )
            if info is not None:
                self._take(info)
            else:
                self._end(ends.pop(0))
                deadline = monotonic() + self._kill_after if ends else None
        while (info := signal.sigtimedwait(self._watched, 0.0)) is not None:
            self._note(info)  # what came together with the end of the command
        return status

    def _stop(self) -> None:
        """Stop as the command does."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        super()._stop()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})

    def _note(self, info: signal.struct_siginfo) -> bool:
        if info.si_signo != signal.SIGCHLD:
            self.received.add(info.si_signo)
        return info.si_signo != signal.SIGCHLD

    def _take(self, info: signal.struct_siginfo) -> None:
        if self._note(info):  # a process that sends one has a code of 0 or less
            self._pass_on(info.si_signo, from_terminal=info.si_code > 0 and not _is_for_leader(info.si_signo))


def _heeded() -> frozenset[int]:
    """The signals to take over: not those that are ignored, which the command shall ignore too, see `nohup`."""
    return frozenset(
        number for number in _numbers(_PASSED_ON) if signal.getsignal(number) not in (signal.SIG_IGN, None)
    )


def _is_for_leader(number: int) -> bool:
    """Whether the system sends a signal to us alone: a terminal that hangs up tells whoever leads its session.

    That is a shell, which tells its jobs, unless `run` was started in its place: by `ssh -t`, or by a terminal window.
    """
    return number in _numbers(_OF_A_HANGUP) and os.getsid(0) == os.getpid()


def _in_foreground() -> bool:
    """Whether we belong to the foreground of our terminal, so that what it sends reaches the command by itself."""
    if sys.platform == "win32":  # pragma: no cover - a console sends to all its processes
        return True
    try:
        with open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123 - `pathlib` takes longer to import
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


Relay: type[HandlerRelay] = WaitingRelay if hasattr(signal, "sigtimedwait") else HandlerRelay
"""The one for this system."""
