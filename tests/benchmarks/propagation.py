"""Opened here, rejected there: how long after the commit another process still lets calls in."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.crowd import CONTEXT
from benchmarks.harness import quantile

from resilience import CircuitBreaker, CircuitOpenError, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from benchmarks.bench import Bench


def measure(bench: Bench) -> dict[str, Any]:
    """Measure it on the file storage."""
    return propagation((bench.folder / "state").as_uri(), bench.of(300, 40))


def propagation(url: str, rounds: int, work: float = 0.0, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Open a breaker again and again while another process calls through it.

    :param work: seconds that each call waits for what it protects; without, it computes all the time, and no other
        thread of that process gets the interpreter unless Python switches.
    :param environ: the variables that both are made with.
    :return: seconds from the return of the call that opened to the first rejection elsewhere, `p50`, `p99` and `worst`;
        and `let_in`, the calls that began after that return and were let in.
    """
    ours, theirs = CONTEXT.Pipe()
    environ = environ or {}
    other = CONTEXT.Process(target=_call_until_rejected, args=(theirs, url, work, environ))
    other.start()
    theirs.close()
    delays: list[float] = []
    let_in = 0
    with Runtime(storage=url, environ=environ) as runtime:
        breaker = CircuitBreaker("propagated", failure_threshold=1, reset_timeout=100_000, runtime=runtime)
        for _ in range(rounds):
            breaker.close()
            ours.send("call")
            assert ours.recv() == "calling"
            time.sleep(0.002)
            breaker.record_failure()
            opened = time.monotonic()
            begun, rejected = ours.recv()
            delays.append(max(0.0, rejected - opened))
            let_in += sum(each > opened for each in begun)
        ours.send("end")
        other.join()
    return {
        "rounds": rounds,
        "p50": quantile(delays, 0.5),
        "p99": quantile(delays, 0.99),
        "worst": max(delays),
        "let_in": let_in,
    }


def _call_until_rejected(pipe: Connection, url: str, work: float, environ: dict[str, str]) -> None:
    with Runtime(storage=url, environ=environ) as runtime:
        breaker = CircuitBreaker("propagated", failure_threshold=1, reset_timeout=100_000, runtime=runtime)
        call: Callable[[], object] = breaker(partial(time.sleep, work) if work else time.monotonic)
        while pipe.recv() == "call":
            _let_in(call)
            pipe.send("calling")
            begun: list[float] = []
            try:
                while True:
                    before = time.monotonic()
                    call()
                    begun.append(before)
            except CircuitOpenError:
                pipe.send((begun[-1000:], time.monotonic()))


def _let_in(call: Callable[[], object]) -> None:
    """Wait until it is seen that the breaker is closed again."""
    until = time.monotonic() + 10
    while True:
        try:
            call()
        except CircuitOpenError:
            if time.monotonic() > until:
                raise
        else:
            return
