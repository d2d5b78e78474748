"""Processes that begin at one instant and do one thing over and over for some seconds."""

from __future__ import annotations

import multiprocessing
import time
from typing import TYPE_CHECKING, Any

from benchmarks.harness import quantile

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Barrier

    Make = Callable[..., tuple[Callable[[], object], Callable[[], object]]]
    """Makes, in a process, what it does over and over, and what it does at its end."""

CONTEXT = multiprocessing.get_context("spawn")
"""As a fleet starts: nothing is inherited."""

Share = dict[str, Any]


def crowd(size: int, seconds: float, make: Make, *arguments: object, pause: float = 0.0) -> list[Share]:
    """Let so many processes do something for some seconds.

    :param make: a function of a module, called with `arguments` in each process.
    :param pause: each sleeps up to so many seconds after each time, drawn evenly.
    :return: of each process: `count`, and `p50`, `p99` and `worst` in seconds.
    """
    start = CONTEXT.Barrier(size)
    pipes: list[Connection] = []
    members: list[BaseProcess] = []
    for number in range(size):
        ours, theirs = CONTEXT.Pipe(duplex=False)
        member = CONTEXT.Process(target=_member, args=(theirs, start, number, seconds, pause, make, arguments))
        member.start()
        theirs.close()
        pipes.append(ours)
        members.append(member)
    shares: list[Share] = [pipe.recv() for pipe in pipes]
    for ended in members:
        ended.join()
    return shares


def _member(
    pipe: Connection,
    start: Barrier,
    number: int,
    seconds: float,
    pause: float,
    make: Make,
    arguments: tuple[object, ...],
) -> None:
    from random import Random

    draw = Random(number).random
    act, end = make(*arguments)
    times: list[float] = []
    start.wait(60)
    now = time.perf_counter()
    until = now + seconds
    while now < until:
        if pause:
            time.sleep(draw() * pause)
        before = time.perf_counter()
        act()
        now = time.perf_counter()
        times.append(now - before)
    end()
    pipe.send({"count": len(times), "times": times})
    pipe.close()


def summary(shares: list[Share], seconds: float) -> dict[str, float]:
    """Put together what the processes of a crowd say."""
    counts = [share["count"] for share in shares]
    times = [each for share in shares for each in share["times"]]
    return {
        "per_second": sum(counts) / seconds,
        "count": sum(counts),
        "p50": quantile(times, 0.5),
        "p99": quantile(times, 0.99),
        "worst": max(times),
        "largest_share": max(counts) / min(counts),
        "smallest_of_mean": min(counts) * len(counts) / sum(counts),
    }
