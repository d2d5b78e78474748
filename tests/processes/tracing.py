"""A forked child, watched at each of its calls to the system, by `ptrace`: killed before the n-th, or refused it.

In counts, not in time: what a function asks of the system is much the same each time, so that every call of a short
program can be its last one in turn.  A run takes milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
import traceback
from functools import cache
from itertools import count
from mmap import mmap
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_TRACEME, _PEEKUSER, _POKEUSER, _SYSCALL, _SETOPTIONS = 0, 3, 6, 24, 0x4200
_MARK_CALLS, _DIE_WITH_TRACER = 0x1, 0x100000
_AT_CALL: Final = signal.SIGTRAP | 0x80

IS_KNOWN: Final = sys.platform == "linux" and platform.machine() == "x86_64"
"""Whether registers and numbers of calls are those that stand here."""
_RESULT, _NUMBER, _FIFTH = 80, 120, 72
_NONE: Final = (1 << 64) - 1
_GETPPID, _CLOSE, _MMAP = 110, 3, 9
_READING: Final = {0: "read", 5: "fstat", 6: "lstat", 8: "lseek", _MMAP: "mmap", 17: "pread64", 217: "getdents64"}
_READING.update({262: "newfstatat", 318: "getrandom"})
_CHANGING: Final = {1: "write", _CLOSE: "close", 18: "pwrite64", 72: "fcntl", 73: "flock", 74: "fsync", 82: "rename"}
_CHANGING.update({75: "fdatasync", 77: "ftruncate", 83: "mkdir", 86: "link", 87: "unlink", 257: "openat"})

ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.ENOLCK)
"""What a call is refused with, in turns."""

_is_child: Final[list[bool]] = []


class Run(NamedTuple):
    """What came of a child."""

    status: int
    """Its exit status; negative: the signal that killed it."""
    said: list[str]
    struck: bool
    """Whether it came to the call that was meant."""
    about_files: list[int]
    """Which of its calls were about files: those that may be refused.  Who is refused memory dies as any program."""
    changing: list[int]
    """Which of these may change something: to be killed before another one is to be killed before the next of these."""


def strike(work: Callable[[Callable[[str], None]], object], nth: int, error: int | None = None) -> Run:
    """Let a forked child work, and strike at its n-th call to the system, counted from `begin` to `end`.

    :param work: gets a function by which it tells words, without a call to the system.
    :param error: number of the error that the call gets, if it is one about files; `None`: the child is killed.
    """
    words = mmap(-1, 1 << 16)

    def say(word: str) -> None:
        words.write(f"{word}\n".encode())

    pid = os.fork()
    if pid == 0:
        status = 1
        _is_child.append(True)
        try:
            work(say)
            status = 0
        except BaseException:  # noqa: BLE001 - told to who waits
            say(traceback.format_exc())
        finally:
            os._exit(status)
    child = _Child(pid)
    struck, calls = _watch(child, nth, error)
    about_files = [place for place, number in calls.items() if number in _READING or number in _CHANGING]
    changing = [place for place, number in calls.items() if number in _CHANGING]
    said = words[:].rstrip(b"\0").decode().splitlines()
    return Run(os.waitstatus_to_exitcode(child.status), said, struck, about_files, changing)


def begin() -> None:
    """In the child: calls count from here on; where there is none, nothing."""
    if not _is_child:
        return
    if _ptrace(_TRACEME, 0) < 0:
        raise OSError(ctypes.get_errno(), "may not be traced")
    os.kill(os.getpid(), signal.SIGSTOP)


def end() -> None:
    """In the child: and no longer."""
    os.getppid()


def works() -> bool:
    """Whether a child may be traced here, and its calls are known."""

    def work(_: Callable[[str], None]) -> None:
        begin()
        os.getuid()

    return IS_KNOWN and strike(work, 1).status == -signal.SIGKILL


class _Child:
    """A child that has stopped, or ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        _, self.status = os.waitpid(pid, 0)
        if os.WIFSTOPPED(self.status):
            _ptrace(_SETOPTIONS, pid, 0, _MARK_CALLS | _DIE_WITH_TRACER)

    def goes_on(self) -> bool:
        """Let it go on until a call begins or ends; false: it has ended."""
        signalled = 0
        while os.WIFSTOPPED(self.status):
            _ptrace(_SYSCALL, self._pid, 0, signalled)
            _, self.status = os.waitpid(self._pid, 0)
            signalled = os.WSTOPSIG(self.status) if os.WIFSTOPPED(self.status) else 0
            if signalled == _AT_CALL:
                return True
        return False

    def call(self) -> int:
        """Return the number of the call that begins; that for memory is none of ours."""
        number = _ptrace(_PEEKUSER, self._pid, _NUMBER)
        if number == _MMAP and _ptrace(_PEEKUSER, self._pid, _FIFTH) & 0xFFFFFFFF == 0xFFFFFFFF:
            return -1
        return number

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    def refuse(self, number: int) -> None:
        """Keep the call that begins from being made; but a file is closed, whatever comes of it."""
        if number != _CLOSE:
            _ptrace(_POKEUSER, self._pid, _NUMBER, _NONE)

    def fail(self, error: int) -> None:
        """Give the call that ends an error."""
        _ptrace(_POKEUSER, self._pid, _RESULT, -error & _NONE)


def _watch(child: _Child, nth: int, error: int | None) -> tuple[bool, dict[int, int]]:
    calls: dict[int, int] = {}
    for place in count(1):
        if not child.goes_on():
            break
        number = child.call()
        if number == _GETPPID:
            break
        calls[place] = number
        refused = place == nth and error is not None and (number in _READING or number in _CHANGING)
        if place == nth and error is None:
            child.kill()
        elif refused:
            child.refuse(number)
        if not child.goes_on():
            break
        if refused and error is not None:
            child.fail(error)
    while child.goes_on():
        pass
    return nth in calls, calls


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return library


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result: int = _library().ptrace(request, pid, address, data)
    return result
