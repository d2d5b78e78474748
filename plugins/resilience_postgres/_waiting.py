"""To wait for the server, in a thread or on an event loop: one conversation, two ways to wait.

A conversation is a generator of what it waits for: the promise of a connection, or a connection and what is to come on
it.  `in_thread` waits for it in this thread, `on_loop` as a task.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from selectors import EVENT_WRITE

from resilience import clock
from resilience_postgres._errors import REACH, READ_ONLY, Late, Lost, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator, Sequence

    from psycopg.pq.abc import PGresult

    from resilience_postgres._connection import Connection
    from resilience_postgres._pool import Pool
    from resilience_postgres._schema import Statement

    Awaited = Future[Connection] | tuple[Connection, int]
    Conversation = Generator[Awaited, bool, PGresult]
    """Yields what to wait for; it is sent whether that came in time."""


def conversation(pool: Pool, statement: Statement, values: Sequence[bytes | None], *, again: bool) -> Conversation:
    """Let the server run a statement.

    :param again: whether it may be run twice; then a connection that turns out to be dead is not the end.
    :raises Fault: it was not done, or nobody knows.
    """
    while True:
        taken = pool.take()
        connection = (yield from _promised(pool, taken)) if isinstance(taken, Future) else taken
        try:
            result = yield from connection.run(statement, values)
        except Refused as refused:
            if refused.state == READ_ONLY:  # it was a primary: another connection may find the one that is now
                pool.drop(connection)
            else:
                pool.give(connection)
            raise
        except Lost:
            pool.drop(connection)
            if not again:
                raise
            again = False
        except BaseException:
            pool.drop(connection)
            raise
        else:
            pool.give(connection)
            return result


def _promised(pool: Pool, promise: Future[Connection]) -> Generator[Awaited, bool, Connection]:
    try:
        if not (yield promise):
            advice = "all are in use: set RESILIENCE_POSTGRES__CONNECTIONS" if pool.is_full else REACH
            raise Late("no connection could be had in time", advice=advice)
    except BaseException:
        pool.recall(promise)
        raise
    return promise.result()


def in_thread(conversing: Conversation, deadline: float) -> PGresult:
    """Hold a conversation in this thread.

    :param deadline: monotonic seconds.
    """
    try:
        awaited = next(conversing)
        while True:
            left = deadline - clock.monotonic()
            if not isinstance(awaited, Future):
                connection, events = awaited
                came = connection.wait(events, left)
            else:
                came = _came(awaited, left)
            awaited = conversing.send(came)
    except StopIteration as done:
        result: PGresult = done.value
        return result
    finally:
        conversing.close()


def _came(promise: Future[Connection], seconds: float) -> bool:
    try:
        promise.exception(seconds)
    except (TimeoutError, CancelledError):
        return False
    return True


async def on_loop(conversing: Conversation, deadline: float) -> PGresult:
    """Hold a conversation as a task.

    :param deadline: monotonic seconds.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    try:
        awaited = next(conversing)
        while True:
            came = await _ready(loop, awaited, deadline - clock.monotonic())
            awaited = conversing.send(came)
    except StopIteration as done:
        result: PGresult = done.value
        return result
    finally:
        conversing.close()


async def _ready(loop: asyncio.AbstractEventLoop, awaited: Awaited, seconds: float) -> bool:
    """Wait on an event loop; false if nothing came in so many seconds."""
    ready: asyncio.Future[bool] = loop.create_future()
    timer = loop.call_at(loop.time() + seconds, _tell, ready, False)
    fd, events = -1, 0
    try:
        if isinstance(awaited, Future):
            awaited.add_done_callback(lambda _: _tell_from_afar(loop, ready))
        else:
            connection, events = awaited
            fd = connection.fd
            loop.add_reader(fd, _tell, ready, True)
            if events & EVENT_WRITE:
                loop.add_writer(fd, _tell, ready, True)
        return await ready
    finally:
        timer.cancel()
        if events:
            loop.remove_reader(fd)
        if events & EVENT_WRITE:
            loop.remove_writer(fd)


def _tell(ready: asyncio.Future[bool], came: bool) -> None:  # noqa: FBT001 - as it is answered
    if not ready.done():
        ready.set_result(came)


def _tell_from_afar(loop: asyncio.AbstractEventLoop, ready: asyncio.Future[bool]) -> None:
    """In the thread that keeps a promise."""
    try:
        loop.call_soon_threadsafe(_tell, ready, True)
    except RuntimeError:
        pass  # the loop was closed meanwhile; whoever waited is gone
