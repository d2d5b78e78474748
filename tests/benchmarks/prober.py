"""A process that is killed with the only permit of a half-open breaker: how soon another one gets it."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.crowd import CONTEXT

from resilience import CircuitBreaker, CircuitOpenError, CircuitState, Runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PERMIT = 1.0
"""`permit_timeout`, in seconds."""

RESET = 0.05
LOOK = 0.005
"""Seconds between two calls of who waits for the permit."""


def killed_prober(url: str, rounds: int) -> dict[str, Any]:
    """Kill a prober again and again.

    :return: `permit_timeout`; of all rounds the longest time in seconds from the permit to the next call that was let
        in, `worst`; and `closed`, how often the breaker was closed after that call.
    """
    waited: list[float] = []
    closed = 0
    with Runtime(storage=url, environ={}) as runtime:
        for number in range(rounds):
            name = f"probed {number}"
            breaker = _breaker(name, runtime)
            breaker.record_failure()
            ours, theirs = CONTEXT.Pipe()
            prober = CONTEXT.Process(target=_probe, args=(theirs, url, name))
            prober.start()
            theirs.close()
            taken = ours.recv()
            prober.kill()
            prober.join()
            _until_let_in(partial(breaker.call, int))
            waited.append(time.monotonic() - taken)
            closed += breaker.status().state == CircuitState.CLOSED
    return {"rounds": rounds, "permit_timeout": PERMIT, "worst": max(waited), "closed": closed}


def _breaker(name: str, runtime: Runtime) -> CircuitBreaker:
    return CircuitBreaker(
        name,
        failure_threshold=1,
        reset_timeout=RESET,
        permit_timeout=PERMIT,
        half_open_max_calls=1,
        half_open_success_threshold=1,
        runtime=runtime,
    )


def _until_let_in(ask: Callable[[], object]) -> None:
    while True:
        try:
            ask()
        except CircuitOpenError:
            time.sleep(LOOK)  # when a call is let in is what is measured, and only asking shows it
        else:
            return


def _probe(pipe: Connection, url: str, name: str) -> None:
    with Runtime(storage=url, environ={}) as runtime:
        _until_let_in(_breaker(name, runtime).acquire)
        pipe.send(time.monotonic())
        pipe.recv()  # nothing comes: it is killed
