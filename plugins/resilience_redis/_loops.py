"""Asking a server from coroutines: the same as `_connections`, for each event loop its own.

A connection belongs to the loop that it was opened in.  It is closed with it: a generator that every loop ends before
it is closed (`shutdown_asyncgens`, which `asyncio.run` calls) holds them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from resilience import StorageUnavailable, clock
from resilience_redis._connections import has_parted, left
from resilience_redis._errors import Refused, Unreached, broken, is_refusal, refusal
from resilience_redis._script import packed

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, StreamReader
    from collections.abc import AsyncGenerator, Sequence

    from redis.asyncio.connection import AbstractConnection

    from resilience_redis._address import Address
    from resilience_redis._connections import Manner
    from resilience_redis._route import Command, Requests, T


class Loops:
    """The connections of each event loop."""

    def __init__(self, manner: Manner, most: int) -> None:
        self._manner = manner
        self._most = most
        self._loops: dict[AbstractEventLoop, tuple[LoopConnections, AsyncGenerator[None]]] = {}
        self._inherited: list[object] = []

    async def drive(self, requests: Requests[T], timeout: float) -> T:
        """Serve the requests of a generator, all of them within `timeout` seconds."""
        loop = asyncio.get_running_loop()
        found = self._loops.get(loop)
        if found is None:
            for other in list(self._loops):  # in one step: loops of other threads come and go
                if other.is_closed():
                    self._loops.pop(other, None)  # its end was not told
            connections = LoopConnections(self._manner, self._most)
            found = self._loops[loop] = connections, self._until_the_end(loop, connections)
            await anext(found[1])
        return await found[0].drive(requests, timeout)

    async def _until_the_end(self, loop: AbstractEventLoop, connections: LoopConnections) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._loops.pop(loop, None)
            await connections.close()

    def after_fork(self) -> None:
        """Use nothing, in a child, of what its parent's loops hold; it is kept, as letting go would close it."""
        self._inherited.append(self._loops)
        self._loops = {}


class LoopConnections:
    """The connections of one event loop."""

    def __init__(self, manner: Manner, most: int) -> None:
        self._manner = manner
        self._most = most
        self._idle: dict[Address, list[AbstractConnection]] = {}
        self._turns = asyncio.Semaphore(most)

    async def close(self) -> None:
        """Close all that nobody uses."""
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.disconnect()

    async def drive(self, requests: Requests[T], timeout: float) -> T:
        """Serve the requests of a generator, all of them within `timeout` seconds."""
        deadline = clock.monotonic() + timeout
        try:
            async with asyncio.timeout(left(deadline)):
                await self._turns.acquire()
        except TimeoutError:
            text = f"{self._most} requests of this event loop are under way and do not end"
            raise StorageUnavailable(text) from None
        try:
            address, commands = next(requests)
            while True:
                try:
                    replies = await self._ask(address, commands, deadline)
                except Unreached as error:
                    address, commands = requests.throw(error)
                    if clock.monotonic() >= deadline:
                        raise  # it took all the time: of the next one nothing is known
                else:
                    address, commands = requests.send(replies)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # untyped in typeshed
        finally:
            self._turns.release()

    async def _ask(self, address: Address, commands: Sequence[Command], deadline: float) -> list[Any]:
        from redis.exceptions import RedisError

        sent = False
        connection: AbstractConnection | None = None
        try:
            async with asyncio.timeout(left(deadline)):
                connection = await self._kept(address)
                if connection is None:
                    connection = await self._open(address)
                    said = self._manner.opening(address)
                    for reply in await exchange(connection, address, said) if said else ():
                        if isinstance(reply, Refused):
                            await _drop(connection)
                            return [reply]
                sent = True
                replies = await exchange(connection, address, commands)
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            await _drop(connection)
            if connection is None:
                raise self._manner.unreached(address, error) from error
            why, advice = broken(error)
            raise Unreached(address, why, sent=sent, advice=advice) from error
        except BaseException:
            await _drop(connection)
            raise
        if not has_parted(replies):
            self._idle.setdefault(address, []).append(connection)
        return replies

    async def _open(self, address: Address) -> AbstractConnection:
        from redis.asyncio import connection as module

        # The time-out around it all is asyncio's own.
        connection = self._manner.connection(module, address, 60.0)
        try:
            await connection.connect()
        except BaseException:
            await _drop(connection)
            raise
        return connection  # type: ignore[no-any-return]  # the driver's

    async def _kept(self, address: Address) -> AbstractConnection | None:
        """Return a connection that nobody uses, and that the server has not closed meanwhile."""
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            reader: StreamReader | None = connection._reader  # noqa: SLF001 - nothing public tells in all versions
            if reader is not None and not reader.at_eof() and reader.exception() is None:
                return connection
            await _drop(connection)
        return None


async def _drop(connection: AbstractConnection | None) -> None:
    if connection is not None:
        await connection.disconnect(nowait=True)


async def exchange(connection: AbstractConnection, address: Address, commands: Sequence[Command]) -> list[Any]:
    """Send commands in one go and return the replies; an error of the server is one."""
    from redis.exceptions import RedisError

    await connection.send_packed_command([packed(commands)], check_health=False)
    replies: list[Any] = []
    while len(replies) < len(commands) and not has_parted(replies):
        try:
            replies.append(await connection.read_response())
        except RedisError as error:
            if not is_refusal(error):
                raise
            replies.append(refusal(address, error))
    return replies
