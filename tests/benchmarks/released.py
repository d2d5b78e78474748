"""Processes that are released together at half-open, where one call was to be let through: how many are."""

from __future__ import annotations

import importlib
import time
from typing import TYPE_CHECKING, Any

from benchmarks.crowd import CONTEXT

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

SIZE = 8
HELD = 0.02
"""Seconds that a call takes that is let in; meanwhile all others ask."""


def released(contender: str, url: str, rounds: int, reset: float, learning: float = 0.0) -> dict[str, Any]:
    """Let each process ask once at the same instant, again and again.

    :param contender: a module of `benchmarks.contenders` with a `protect`.
    :param reset: seconds that the breaker stays open.
    :param learning: seconds after which each calls once while it is open; for those that look at what others did only
        now and then, and only when they are called.
    :return: `let_in` is of each round, how many were at one time; who asks late finds the first one's permit free.
    """
    pipes: list[Connection] = []
    processes: list[BaseProcess] = []
    for _ in range(SIZE):
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_ask, args=(theirs, contender, url, reset))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    let_in: list[int] = []
    for number in range(rounds):
        _tell(pipes, f"{contender} {number}")  # each makes its breaker, and calls once through the closed one
        _tell(pipes[:1], "fail")
        at = time.monotonic() + reset + 0.1
        if learning:
            time.sleep(learning)
            _tell(pipes, "look")
        let_in.append(_at_one_time([calls for calls in _tell(pipes, at) if calls]))
    for pipe in pipes:
        pipe.send(None)
    for ended in processes:
        ended.join()
    return {"rounds": rounds, "processes": SIZE, "let_in": let_in, "most": max(let_in)}


def _tell(pipes: list[Connection], what: object) -> list[Any]:
    for pipe in pipes:
        pipe.send(what)
    return [pipe.recv() for pipe in pipes]


def _at_one_time(calls: list[tuple[float, float]]) -> int:
    """The most of these calls, from begin to end, that were under way at any instant."""
    return max((sum(begin <= instant < end for begin, end in calls) for instant, _ in calls), default=0)


class Work:
    """The protected function: fails, or takes its time and keeps when it did."""

    def __init__(self) -> None:
        self.fails = False
        self.call: tuple[float, float] | None = None
        """Monotonic seconds."""

    def __call__(self) -> None:
        if self.fails:
            raise OSError
        begun = time.monotonic()
        time.sleep(HELD)
        self.call = begun, time.monotonic()


def _ask(pipe: Connection, contender: str, url: str, reset: float) -> None:
    protect = importlib.import_module(f"benchmarks.contenders.{contender}").protect
    work = Work()
    guarded = work.__call__
    while (told := pipe.recv()) is not None:
        if isinstance(told, str) and told not in {"fail", "look"}:
            guarded = protect(url, told, work.__call__, reset=reset)
        work.fails = told == "fail"
        work.call = None
        if isinstance(told, float):
            time.sleep(max(0.0, told - time.monotonic()))
        try:
            guarded()
        except Exception:  # noqa: BLE001 - rejected, or the failure that opens
            pass
        pipe.send(work.call)
