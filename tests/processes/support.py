"""Crowds of processes that do one thing at one instant, and what they need for it.

Started processes import this file by the name `processes.support`.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
import warnings
from functools import cache
from mmap import mmap
from typing import TYPE_CHECKING, Any, Self

from resilience import CircuitBreaker, Event, Runtime, Transition, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from pathlib import Path

METHODS = [method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]

PATIENCE = 100.0
"""Seconds that nothing here takes on a machine that works, however much else it has to do."""

PRELOADED = ["pytest", "resilience.environment", "resilience_circuit_breaker.session", "resilience_filelock"]
"""What the server forks with, so that twenty processes need not import it each."""


# --- crowds -----------------------------------------------------------------------------------------------------------


class Crowd:
    """Processes that wait for something to do, and then all do it at the same instant.

    :param method: how they are started: fork, spawn or forkserver.
    :param size: how many there are.
    """

    def __init__(self, method: str, size: int) -> None:
        context: Any = multiprocessing.get_context(method)  # typeshed knows no common class with a `Process`
        if method == "forkserver":
            multiprocessing.set_forkserver_preload(PRELOADED)
        self.members: list[tuple[BaseProcess, Connection]] = []
        self._context = context
        self._forks = method == "fork"
        for _ in range(size):
            self.join_in()

    def answer(self, member: int) -> Any:
        """Wait for what one of them returns after `begin`."""
        return _answer(self.members[member][1])

    def replace(self, member: int) -> None:
        """Start one in the place of another, which has ended."""
        _, pipe = self.members[member]
        pipe.close()
        _ours.remove(pipe)
        self.join_in()
        self.members[member] = self.members.pop()

    def join_in(self) -> BaseProcess:
        """Start one more."""
        ours, theirs = multiprocessing.Pipe()
        _ours.append(ours)
        process: BaseProcess = self._context.Process(target=_member, args=(theirs, self._forks), daemon=True)
        with warnings.catch_warnings():
            # 3.12 warns of a fork beside threads, such as the one of pytest's time-out: here it is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self.members.append((process, ours))
        return process

    def run(self, function: Callable[..., Any], *arguments: Any, count: int | None = None) -> list[Any]:
        """Let `count` of them (all, if left out) call a function at one instant; return what they return."""
        return self.each([(function, *arguments)] * (len(self.members) if count is None else count))

    def each(self, jobs: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Let each do its own job, a function and its arguments, at one instant."""
        working: list[Connection] = []
        try:
            for (_, pipe), job in zip(self.members, jobs, strict=False):
                pipe.send(job)
                working.append(pipe)
            for pipe in working:
                assert _answer(pipe) == "ready"
            at = time.monotonic() + 0.004  # all have heard of it by then
            for pipe in working:
                pipe.send(at)
            answers = [_received(pipe) for pipe in working]
        except BaseException:
            self._start_again()
            raise
        return [_unpacked(answer) for answer in answers]

    def _start_again(self) -> None:
        """Replace all, as some may still be at what a test gave up waiting for."""
        for member, (process, _) in enumerate(self.members):
            process.kill()
            process.join(5)
            self.replace(member)

    def one(self, member: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Let one of them call a function, now."""
        _, pipe = self.members[member]
        self.begin(member, function, *arguments)
        return _answer(pipe)

    def begin(self, member: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Let one of them call a function, and do not wait for what it returns."""
        _, pipe = self.members[member]
        pipe.send((function, *arguments))
        assert _answer(pipe) == "ready"
        pipe.send(0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for _, pipe in self.members:
            pipe.close()
            _ours.remove(pipe)
        for process, _ in self.members:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join(5)


_ours: list[Connection] = []
"""The ends of this process, of all crowds."""


class Failed(AssertionError):
    """What a process was told to do raised; the message has its traceback."""


def _received(pipe: Connection) -> tuple[str, Any]:
    assert pipe.poll(PATIENCE), "a process did not answer"
    received: tuple[str, Any] = pipe.recv()
    return received


def _unpacked(received: tuple[str, Any]) -> Any:
    kind, answer = received
    if kind == "raised":
        raise Failed(answer)
    return answer


def _answer(pipe: Connection) -> Any:
    return _unpacked(_received(pipe))


def _member(pipe: Connection, inherited: bool) -> None:  # noqa: FBT001 - by position, as arguments of processes are
    if inherited:  # else nobody sees the end of who started it
        for other in _ours:
            other.close()
    for name in [name for name in os.environ if name.startswith("RESILIENCE_")]:
        del os.environ[name]
    while True:
        try:
            function, *arguments = pipe.recv()
            pipe.send(("answer", "ready"))
            at = pipe.recv()
        except (EOFError, OSError):
            return
        time.sleep(max(0.0, at - time.monotonic()))
        try:
            answer = ("answer", function(*arguments))
        except BaseException:  # noqa: BLE001 - told to who waits
            answer = ("raised", traceback.format_exc())
        pipe.send(answer)


class Meeting:
    """Two processes meet here again and again, by a byte each in a file: whoever comes first waits for the other.

    A process that comes alone, because the other has nothing left to do, goes on after `patience` seconds.
    """

    def __init__(self, path: Path, me: int, patience: float = 2.0) -> None:
        with path.open("a+b") as file:
            file.truncate(2)
            self._bytes = mmap(file.fileno(), 2)
        self._me = me
        self._patience = patience

    def wait(self) -> None:
        """Wait for the other to come as often."""
        self._bytes[self._me] += 1
        end = time.monotonic() + self._patience
        while self._bytes[1 - self._me] < self._bytes[self._me] and time.monotonic() < end:
            time.sleep(0.0001)


# --- what they do -----------------------------------------------------------------------------------------------------


@cache
def breaker(url: str, name: str = "shared", log: str | None = None, **settings: Any) -> CircuitBreaker:
    """Return this process's breaker; `log` is where its transitions and events go, see `lines`."""
    return CircuitBreaker(name, runtime=_runtime(url, log), **settings)


@cache
def _runtime(url: str, log: str | None) -> Runtime:
    # On a machine with much else to do a lock is waited for longer than the quarter of a second that is the default.
    observers = [] if log is None else [Appending(log)]
    return Runtime(storage=url, storage_timeout=PATIENCE / 2, environ={}, observers=observers)


class Appending:
    """An observer that many processes write one file with, one for each breaker; a line is written whole."""

    def __init__(self, path: str) -> None:
        self._path = path

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        self._write(transition.key.name, f"{transition.old}->{transition.new} {transition.epoch} {transition.version}")

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        self._write("" if event.key is None else event.key.name, f"event {event.name} {dict(event.data)}")

    def _write(self, name: str, line: str) -> None:
        descriptor = os.open(f"{self._path} {name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


def lines(log: Path, name: str, beginning: str = "") -> list[str]:
    """What was told to `Appending` of a breaker, as far as it begins so."""
    file = log.with_name(f"{log.name} {name}")
    return [line for line in file.read_text().splitlines() if line.startswith(beginning)] if file.exists() else []


def number(version: str | None) -> int:
    """The number in a version that a status shows."""
    return 0 if version is None else int(version.partition("@")[0])


def command(*arguments: str) -> list[str]:
    """Return a command line of this interpreter, which warns as loudly as the tests do."""
    return [sys.executable, *arguments]
