"""One worker of the demo, a process of its own: ``python -m resilience.cli.demo.worker``.

Its task comes as a line of JSON on standard input; it says when it is ready, waits for a second line, and then calls
the server again and again, with a line of JSON for each call.  It ends when its standard input does: so none is left
when the demo ends, however it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypedDict

from resilience.clock import monotonic
from resilience.errors import PolicyRejected
from resilience.markers import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.events import Transition

CALL_TIMEOUT = 2.0
"""Seconds that one request may take."""


class Task(TypedDict):
    """What a worker does.  Times are seconds; `storage` is `None` for one without a breaker."""

    port: int
    path: str
    storage: str | None
    reset_timeout: float
    interval: float
    offset: float


class ServerFailed(Exception):
    """The server says that it failed."""


class Tell:
    """Observer that sends each change of state to the demo."""

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        """Send it."""
        say(old=transition.old, new=transition.new, reason=transition.reason, epoch=transition.epoch)


def say(**message: object) -> None:
    """Send a message to the demo: at once, in one piece."""
    os.write(1, json.dumps(message).encode() + b"\n")


def fetch(port: int, path: str) -> None:
    """Ask the server for something.

    :raises ServerFailed: it answers with an error.
    :raises OSError: it does not answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=CALL_TIMEOUT)
    try:
        connection.request("GET", path)
        if connection.getresponse().status != http.client.OK:
            raise ServerFailed
    finally:
        connection.close()


def outcome(request: Callable[[], object]) -> str:
    """Make a request and say what came of it."""
    try:
        request()
    except PolicyRejected:
        return "rejected"
    except (ServerFailed, OSError, http.client.HTTPException):
        return "failed"
    return "ok"


def caller(task: Task) -> Callable[[], None]:
    """Make the function that calls the server once and tells what came of it."""
    port, path = task["port"], task["path"]
    if task["storage"] is None:
        return lambda: say(did=outcome(lambda: fetch(port, path)), state="")

    from resilience import CircuitBreaker, Runtime

    breaker = CircuitBreaker(
        "demo",
        # A storage of its own and no variables: nothing that the user has set up is touched.
        runtime=Runtime(storage=task["storage"], storage_timeout=CALL_TIMEOUT, observers=[Tell()], environ={}),
        failure_threshold=3,
        reset_timeout=task["reset_timeout"],
        half_open_max_calls=1,
        half_open_success_threshold=2,
    )
    breaker.status()  # binds, so that the first call is no slower than the others
    return lambda: say(did=outcome(lambda: breaker.call(fetch, port, path)), state=breaker.status().state)


def main() -> None:
    """Do what standard input says, until it ends."""
    task: Task | None = json.loads(sys.stdin.buffer.readline() or b"null")
    if task is None:
        return
    call = caller(task)
    say(ready=True)
    if not sys.stdin.buffer.readline():
        return
    ended = threading.Event()

    def await_the_end() -> None:
        os.read(0, 1)
        ended.set()

    threading.Thread(target=await_the_end, daemon=True).start()
    due = monotonic() + task["offset"]
    while not ended.wait(max(0.0, due - monotonic())):
        call()
        due = max(due + task["interval"], monotonic())


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the demo has ended
        main()
