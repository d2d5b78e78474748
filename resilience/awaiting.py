"""What an event loop waits for and what is finished even if nobody waits for it any more."""

from __future__ import annotations

import os
import sys
from _thread import allocate_lock

from resilience.errors import ResilienceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor
    from typing import TypeVar

    T = TypeVar("T")

_pool: Executor | None = None


def _workers() -> Executor:
    """Return threads of our own: those of the loop may all wait for the dependency that is down."""
    global _pool  # noqa: PLW0603 - one pool of a process
    if _pool is None:
        from concurrent.futures import ThreadPoolExecutor

        _pool = ThreadPoolExecutor(8, "resilience")
    return _pool


def _forget_workers() -> None:
    global _pool  # noqa: PLW0603 - a child has none of its parent's threads
    _pool = None


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_workers)


def is_asyncio() -> bool:
    """Whether this is run by an event loop of asyncio, and not by another one, or by hand."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:  # it takes long to import, and whoever runs such a loop has it
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_thread(work: Callable[[], T], abandon: Callable[[T], None] | None) -> T:
    """Let a worker thread do something to its end; if nobody waits for the answer any more, it abandons it as well.

    Where no asyncio runs, nothing can wait for a thread: it is done on the spot, which blocks.  An admission warns of
    that before it takes anything; a report is made whatever the filters of warnings say.
    """
    if not is_asyncio():
        if abandon is not None:
            from warnings import warn

            warn(
                "resilience awaits with asyncio, which does not run here: a lock or a server that is waited for blocks "
                "this event loop",
                RuntimeWarning,
                stacklevel=2,
            )
        return work()

    import asyncio
    from contextvars import copy_context

    handing_over = allocate_lock()
    abandoned = False
    answers: list[T] = []
    failures: list[BaseException] = []

    def errand() -> None:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited, if it is
            # Not returned: its traceback keeps the frames up to the worker's, which keeps what this returns.
            failures.append(error)
            return
        with handing_over:
            answers.append(answer)
            if not abandoned:
                return
        if abandon is not None:
            abandon(answer)

    loop = asyncio.get_running_loop()
    begun = loop.run_in_executor(_workers(), copy_context().run, errand)
    try:
        await asyncio.shield(begun)
    except asyncio.CancelledError:
        with handing_over:
            abandoned = True
            answered = bool(answers)
        if answered and abandon is not None:  # at the same instant
            loop.run_in_executor(_workers(), abandon, answers[0])
        raise
    if failures:
        raise failures.pop()
    return answers[0]


async def shielded(awaitable: Awaitable[T], abandon: Callable[[T], Awaitable[None]] | None) -> T:
    """Await something that is finished even if the caller is cancelled; then its answer is abandoned."""
    import asyncio

    async def begin() -> T:
        return await awaitable

    task = asyncio.ensure_future(begin())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        leftover = asyncio.ensure_future(_left(task, abandon))
        _leftovers.add(leftover)  # the loop itself keeps no strong reference
        leftover.add_done_callback(_leftovers.discard)
        raise
    finally:
        del task  # it keeps its error, and that this frame: both would wait for the garbage collector


async def _left(task: asyncio.Future[T], abandon: Callable[[T], Awaitable[None]] | None) -> None:
    try:
        answer = await task
    except ResilienceError:
        return  # nobody waits for it
    if abandon is not None:
        await abandon(answer)


_leftovers: set[asyncio.Future[None]] = set()
