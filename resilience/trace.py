"""``RESILIENCE_TRACE_HOOKS=1``: each call of a hook as a line on the standard error.

    resilience: 0.000012 s resilience_load(circuit_breaker 'payments') by file: version 3@1f0a77be, 212 bytes

Functions are wrapped when a storage is opened, so it costs nothing where it is not asked for.  No payload is shown, and
of URLs no secret; a line has 400 characters at most.
"""

from __future__ import annotations

import os
import sys

from resilience.clock import monotonic
from resilience.events import Event, Transition
from resilience.redaction import redact
from resilience.storage import Key, Snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Any

__all__ = ["traced"]

_LONGEST = 400
_TOLD = {"resilience_transition", "resilience_event"}
"""The hooks of observers, who answer nothing."""


def traced(function: Callable[..., Any], hook: str, by: str) -> Callable[..., Any]:
    """Make the function that does the same and says so.

    :param hook: its name.
    :param by: names of the plugins that are called.
    """
    if hook == "resilience_lock":
        return _locking(function, hook, by)
    if hook in {"resilience_aload", "resilience_asave"}:
        return _awaiting(function, hook, by)

    def call(*arguments: object) -> object:
        start = monotonic()
        try:
            answer = function(*arguments)
        except BaseException as error:
            _say(start, hook, by, arguments, _failed(error))
            raise
        _say(start, hook, by, arguments, "done" if hook in _TOLD else _shown(answer))
        return answer

    return call


def _awaiting(function: Callable[..., Any], hook: str, by: str) -> Callable[..., Awaitable[object]]:
    async def call(*arguments: object) -> object:
        start = monotonic()
        try:
            answer = await function(*arguments)
        except BaseException as error:
            _say(start, hook, by, arguments, _failed(error))
            raise
        _say(start, hook, by, arguments, _shown(answer))
        return answer

    return call


def _locking(function: Callable[..., Any], hook: str, by: str) -> Callable[..., object]:
    def call(*arguments: object) -> object:
        start = monotonic()
        try:
            lock = function(*arguments)
        except BaseException as error:
            _say(start, hook, by, arguments, _failed(error))
            raise
        if not hasattr(lock, "__enter__"):
            return lock  # the engine says what is wrong with it
        return _Lock(lock, start, lambda took: _say(start, hook, by, arguments, took))

    return call


class _Lock:
    """A lock that says, when it is free again, how long it was waited for and held."""

    def __init__(self, lock: AbstractContextManager[None], start: float, say: Callable[[str], None]) -> None:
        self._lock = lock
        self._start = start
        self._say = say
        self._held_since = start

    def __enter__(self) -> None:
        """Wait for it."""
        try:
            self._lock.__enter__()
        except BaseException as error:
            self._say(_failed(error))
            raise
        self._held_since = monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        """Free it."""
        waited = self._held_since - self._start
        try:
            return self._lock.__exit__(kind, error, traceback)
        finally:
            self._say(f"waited {waited:.6f} s, held {monotonic() - self._held_since:.6f} s")


def _say(start: float, hook: str, by: str, arguments: tuple[object, ...], what: str) -> None:
    took = monotonic() - start
    about = ", ".join(_argument(argument) for argument in arguments[:1])
    line = f"resilience: {took:.6f} s {hook}({about}) by {by} in process {os.getpid()}: {what}"
    # What no terminal obeys and every encoding has; an error may be long, so it is cut off before and after.
    line = line[:_LONGEST].encode("unicode_escape").decode("ascii")
    try:
        sys.stderr.write(f"{line[:_LONGEST]}\n")
    except (OSError, ValueError, AttributeError):
        pass  # nobody reads it: that changes nothing for the caller


def _argument(argument: object) -> str:
    """Say what a hook is called about: its first argument, which all but `resilience_keys` have."""
    if isinstance(argument, Transition):
        return f"{argument.key}: {argument.old} -> {argument.new}"
    if isinstance(argument, Event):
        return argument.name if argument.key is None else f"{argument.name}, {argument.key}"
    return str(argument) if isinstance(argument, Key) else type(argument).__name__


def _shown(answer: object) -> str:
    """Say what a hook gave, without what is in it."""
    if isinstance(answer, Snapshot):
        if answer.payload is None:
            return "nothing stored"
        return f"version {answer.version}, {len(answer.payload)} bytes"
    return repr(answer) if answer is None or isinstance(answer, bool) else f"a {type(answer).__name__}"


def _failed(error: BaseException) -> str:
    """Say what a hook raised: the storage may have quoted its URL in it."""
    words = (redact(word) if "://" in word else word for word in str(error).split(" "))
    return f"{type(error).__name__}: {' '.join(words)}"
