"""The roads by which a check reaches the hooks: called by whoever asks, or from coroutines, as the engine does it.

A check is written once, for a handle whose hooks it calls.  On the awaited road each of its threads has a task of its
own in an event loop, and that task makes the calls: so threads of a check are tasks of one loop, of several loops, or
of a loop in each of several processes, and the storage meets what it meets in a program of coroutines:

- it has awaitable hooks: load and save are awaited; the lock is tried once on the loop, and if somebody else holds it,
  everything up to its end is called in a worker thread, which waits for it;
- it declares INLINE: the same, called on the loop; what comes between lock and its end comes without another task;
- neither: everything is called in a worker thread, all that belongs to one lock in the same.
"""

from __future__ import annotations

import threading

from resilience import clock
from resilience.errors import StorageLockTimeout
from resilience.storage import Capability
from resilience.testing.calling import awaited, foreign, manager_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor, Future
    from typing import Any, Protocol

    from resilience.ports import Ports
    from resilience.storage import Key, Version

    Work = Callable[[], Awaitable[Any]]

    class Road(Protocol):
        """How hooks are reached; each method does what the hook of its name does."""

        peers: str
        """What the threads of a check are to the storage."""
        loads: str
        saves: str
        """The hooks that load and save, for messages."""

        def load(self, key: Key, timeout: float, /) -> object:
            """Load."""
            ...

        def save(
            self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float, /
        ) -> object:
            """Save."""
            ...

        def discard(self, key: Key, reason: str, timeout: float, /) -> object:
            """Set aside."""
            ...

        def lock(self, key: Key, timeout: float, /) -> Any:
            """Return what holds the lock while it is entered."""
            ...

        def close(self) -> None:
            """End what the road needed; the next call begins it anew."""
            ...


CALLED, AWAITED = "called", "awaited"
"""The names of the roads."""

WORKERS = 8
"""Threads that a loop hands calls to: as many as the engine has."""


class Called:
    """Whoever asks calls the hook."""

    peers = "threads"
    loads = "resilience_load"
    saves = "resilience_save"

    def __init__(self, ports: Ports) -> None:
        self.load = ports.load
        self.save = ports.save
        self.discard = ports.discard
        self.lock = ports.lock

    def close(self) -> None:
        """There is nothing to end."""


class Awaited:
    """Whoever asks has a task do it."""

    peers = "tasks"

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        is_awaitable = ports.aload is not None
        self.loads = "resilience_aload" if is_awaitable else Called.loads
        self.saves = "resilience_asave" if is_awaitable else Called.saves
        self.is_inline = Capability.INLINE in ports.capabilities
        self._making = threading.Lock()
        self._loop: Loop | None = None
        self._local = threading.local()

    @property
    def loop(self) -> Loop:
        """The loop, which runs from its first use to `close`."""
        with self._making:
            if self._loop is None:
                self._loop = Loop()
            return self._loop

    def load(self, key: Key, timeout: float) -> object:
        """Load."""
        task = self._task()
        return task.do(lambda: self._reach(task, self.loads, self.ports.load, self.ports.aload, key, timeout))

    def save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> object:
        """Save."""
        task, ports = self._task(), self.ports
        arguments = (key, payload, expected, expires_at, timeout)
        return task.do(lambda: self._reach(task, self.saves, ports.save, ports.asave, *arguments))

    def discard(self, key: Key, reason: str, timeout: float) -> object:
        """Set aside; the engine calls that where it holds the lock."""
        task = self._task()
        return task.do(lambda: self._discard(task, key, reason, timeout))

    def lock(self, key: Key, timeout: float) -> Lock:
        """Make what takes the lock when it is entered."""
        return Lock(self, self._task(), key, timeout)

    def close(self) -> None:
        """End the loop, its tasks and its workers."""
        with self._making:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.end()

    def longest_gap(self, function: Callable[[], object]) -> float:
        """Call a function, and return the longest time for which the loop did nothing else meanwhile, in seconds."""
        watch = Watch()
        done = self.loop.submit(watch.look)
        try:
            function()
        finally:
            watch.is_over = True
            done.result()
        return watch.longest

    def _task(self) -> Task:
        """Return the task of the thread that asks."""
        loop = self.loop
        task: Task | None = getattr(self._local, "task", None)
        if task is None or task.loop is not loop:
            task = self._local.task = Task(loop)
        return task

    async def _discard(self, task: Task, *arguments: Any) -> Any:
        if task.worker is None and self.on_the_loop:
            return self.ports.discard(*arguments)
        return await self._reach(task, "resilience_discard", self.ports.discard, None, *arguments)

    async def _reach(
        self, task: Task, name: str, hook: Callable[..., Any], awaitable: Callable[..., Any] | None, *arguments: Any
    ) -> Any:
        worker = task.worker
        if worker is not None:
            return await task.loop.hand_over(worker, hook, *arguments)
        if awaitable is not None:
            return await awaited(name, awaitable, *arguments)
        if self.on_the_loop:
            return hook(*arguments)
        worker = await task.loop.free.get()
        try:
            return await task.loop.hand_over(worker, hook, *arguments)
        finally:
            task.loop.free.put_nowait(worker)

    @property
    def on_the_loop(self) -> bool:
        """Whether the lock is tried on the loop, before anybody waits for it."""
        return self.ports.aload is not None or self.is_inline


ROADS: dict[str, Callable[[Ports], Road]] = {CALLED: Called, AWAITED: Awaited}


def way_from_coroutines(ports: Ports) -> str:
    """Say how the engine reaches a storage from coroutines."""
    if ports.aload is not None:
        return "awaited, by resilience_aload and resilience_asave"
    if Capability.INLINE in ports.capabilities:
        return "called on the event loop, as it declares INLINE"
    return "called in a worker thread"


class Lock:
    """A lock that a task takes and gives back, on the loop or in the worker thread that waited for it."""

    def __init__(self, road: Awaited, task: Task, key: Key, timeout: float) -> None:
        self._road, self._task, self._key, self._timeout = road, task, key, timeout
        self._manager: Any = None

    def __enter__(self) -> None:
        """Take it."""
        self._task.do(self._take)

    def __exit__(self, *exception: object) -> object:
        """Give it back."""
        return self._task.do(lambda: self._give_back(*exception))

    async def _take(self) -> None:
        road, task = self._road, self._task
        loop = task.loop
        if road.on_the_loop and not (road.ports.aload is None and loop.is_taken):
            try:
                self._manager = _entered(road.ports.lock(self._key, 0.0))
            except StorageLockTimeout:
                if not self._timeout:
                    raise
            else:
                loop.is_taken = True
                return
        worker = await loop.free.get()
        try:
            self._manager = await loop.hand_over(worker, lambda: _entered(road.ports.lock(self._key, self._timeout)))
        except BaseException:
            loop.free.put_nowait(worker)
            raise
        task.worker = worker

    async def _give_back(self, *exception: object) -> object:
        task, loop = self._task, self._task.loop
        worker, task.worker = task.worker, None
        if worker is None:
            loop.is_taken = False
            return self._manager.__exit__(*exception)
        try:
            return await loop.hand_over(worker, self._manager.__exit__, *exception)
        finally:
            loop.free.put_nowait(worker)


def _entered(answer: Any) -> Any:
    manager = manager_of(answer)
    manager.__enter__()
    return manager


class Task:
    """A task that does what one thread asks it to, one after the other: what it begins it ends.

    `worker` is the thread that it calls hooks in while it holds a lock there.
    """

    def __init__(self, loop: Loop) -> None:
        import asyncio

        self.loop = loop
        self.worker: Executor | None = None
        self._asked: asyncio.Queue[tuple[Work, Future[Any]]] = asyncio.Queue()
        loop.submit(self._begin).result()

    async def _begin(self) -> None:
        import asyncio

        self.loop.tasks.append(asyncio.ensure_future(self._serve()))

    def do(self, work: Work) -> Any:
        """Let it do something, and wait for the end."""
        from concurrent.futures import Future

        answer: Future[Any] = Future()
        self.loop.running.call_soon_threadsafe(self._asked.put_nowait, (work, answer))
        return answer.result()

    async def _serve(self) -> None:
        from asyncio import CancelledError, current_task

        while True:
            work, answer = await self._asked.get()
            try:
                found = await work()
            except CancelledError as error:
                answer.set_exception(foreign("a hook", error))
                task = current_task()
                if task is None or task.cancelling():  # the loop ends
                    raise
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                answer.set_exception(error)
            else:
                answer.set_result(found)


class Loop:
    """An event loop in a thread of its own, and the worker threads that it hands calls to."""

    running: asyncio.AbstractEventLoop
    free: asyncio.Queue[Executor]
    _is_over: asyncio.Event

    def __init__(self) -> None:
        self.is_taken = False
        """Whether one of its tasks holds a lock that it took on the loop."""
        self.tasks: list[asyncio.Future[None]] = []
        """All that serve threads; a running loop keeps no strong reference to what it runs."""
        self._runs = threading.Event()
        self._thread = threading.Thread(target=self._run, name="conformance loop", daemon=True)
        self._thread.start()
        self._runs.wait()

    def submit(self, work: Work) -> Future[Any]:
        """Begin something on it."""
        import asyncio

        async def begun() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(begun(), self.running)

    async def hand_over(self, worker: Executor, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a worker thread."""
        return await self.running.run_in_executor(worker, function, *arguments)

    def end(self) -> None:
        """End it as `asyncio.run` does."""
        self.running.call_soon_threadsafe(self._is_over.set)
        self._thread.join(10)

    def _run(self) -> None:
        import asyncio

        asyncio.run(self._main())

    async def _main(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        self.running = asyncio.get_running_loop()
        self.free = asyncio.Queue()
        workers = [ThreadPoolExecutor(1, "conformance worker") for _ in range(WORKERS)]
        for worker in workers:
            self.free.put_nowait(worker)
        self._is_over = asyncio.Event()
        self._runs.set()
        await self._is_over.wait()
        for worker in workers:
            worker.shutdown(wait=False)


class Watch:
    """Sees for how long a loop does nothing else."""

    TURN = 0.001
    """Seconds between two looks."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.is_over = False

    async def look(self) -> None:
        """Look again and again."""
        from asyncio import sleep

        before = clock.monotonic()
        while True:
            await sleep(self.TURN)
            now = clock.monotonic()
            self.longest = max(self.longest, now - before - self.TURN)
            before = now
            if self.is_over:
                return
