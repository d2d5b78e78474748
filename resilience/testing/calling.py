"""Calling what an author wrote: errors of the framework pass, anything else is a violation."""

from __future__ import annotations

import sys
from traceback import walk_tb

from resilience.errors import ResilienceError
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any


def called(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call something.

    :raises Violation: it raised what is none of the framework's errors.
    """
    try:
        return function(*arguments)
    except (ResilienceError, Violation):
        raise
    except Exception as error:
        raise foreign(what, error) from error


async def awaited(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call something and await what it returned.

    :raises Violation: that cannot be awaited, or raised what is none of the framework's errors.
    """
    answer = called(what, function, *arguments)
    if not hasattr(answer, "__await__"):
        raise Violation(
            f"{what} returned {type(answer).__name__}, not an awaitable",
            "the engine awaits it",
            f"make {what} a coroutine function: async def",
        )
    try:
        return await answer
    except (ResilienceError, Violation):
        raise
    except Exception as error:
        raise foreign(what, error) from error


def manager_of(answer: Any) -> Any:
    """Look at what `resilience_lock` returned.

    :raises Violation: it is no context manager.
    """
    if not (hasattr(answer, "__enter__") and hasattr(answer, "__exit__")):
        raise Violation(
            f"resilience_lock returned {type(answer).__name__}, not a context manager",
            "the engine enters what it returns; anything else is a PluginError and nothing is protected",
            "return a context manager that holds the lock, or contextlib.nullcontext() if your storage works by"
            " compare-and-set alone",
        )
    return answer


def foreign(what: str, error: BaseException) -> Violation:
    """Say what an exception of something else means, and where it is from."""
    if isinstance(error, NotImplementedError):
        fix = "leave a hook that you do not have out of the class"
    elif isinstance(error, _MISTAKES):
        fix = "mend that line: this is a mistake in the code and says nothing of the store"
    else:
        fix = (
            "translate at the edge: raise StorageUnavailable for anything wrong with the store, StorageLockTimeout for"
            " a lock that could not be had, StorageCorrupt for a damaged record; return an empty Snapshot for none"
        )
    return Violation(
        f"{what} raised {type(error).__name__}: {error}{_place(error)}",
        "the engine knows what to do with the framework's storage errors only; this one is a broken plugin to it",
        fix,
    )


_MISTAKES = AttributeError, ImportError, NameError, TypeError
"""What no store brings about."""


def _place(error: BaseException) -> str:
    """Say which line of the author's own code an exception came through last."""
    frames = [(frame, line) for frame, line in walk_tb(error.__traceback__) if not _is_foreign(_package(frame))]
    if not frames:
        return ""
    own = _package(frames[0][0])
    frame, line = [found for found in frames if _package(found[0]) == own][-1]
    return f" (line {line} of {frame.f_globals['__name__']}, in {frame.f_code.co_name})"


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _is_foreign(package: str) -> bool:
    """Whether it stands between us and the author's code."""
    return package in {"", "pluggy", "resilience"} or package in sys.stdlib_module_names
