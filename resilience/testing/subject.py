"""The storage under test: how it is made, what has been opened of it, which keys were used."""

from __future__ import annotations

import gc
import os
import random
import sys
import tempfile
import threading
import uuid
from contextlib import contextmanager
from functools import cached_property

from resilience import clock
from resilience.errors import ResilienceError
from resilience.storage import Capability, Key
from resilience.testing.handle import Handle, as_factory
from resilience.testing.jobs import opened
from resilience.testing.roads import AWAITED, CALLED
from resilience.testing.violations import Skipped, Violation, out_of_place
from resilience.testing.workers import Failed, shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, Self

    from resilience.testing.handle import Factory
    from resilience.testing.workers import Worker, Workers

KIND = "conformance"
"""The kind of the keys that the kit uses; a storage never has a policy of this name."""

TASKS = 5
"""Tasks of one loop, in each of many processes."""


class Subject:
    """A storage under test.

    :param factory: makes a storage object each time it is called, all of them for the same records; it can be sent to
        another process (`functools.partial` of the class).  Or a URL.
    :param damage: called as ``damage(storage, key)``; damages the stored record of a key.
    :param unreachable: makes storages of the same class whose store does not answer.
    :param quick: fewer rounds and fewer processes.
    :param seed: of all that is left to chance.
    :param road: how its hooks are reached: ``called``, or ``awaited`` from coroutines.
    """

    def __init__(
        self,
        factory: Factory | str,
        *,
        damage: Callable[[Any, Key], object] | None = None,
        unreachable: Factory | str | None = None,
        quick: bool = False,
        seed: int = 0,
        road: str = CALLED,
    ) -> None:
        self.road = road
        self.factory = as_factory(factory)
        self.damage = damage
        self.unreachable = None if unreachable is None else as_factory(unreachable)
        self.quick = quick
        self.chance = random.Random(seed)  # noqa: S311 - a run can be repeated
        self.notes: list[str] = []
        self.measured: dict[str, float] = {}
        self.keys: list[Key] = []
        self._handles: list[Handle] = []
        self._twin: Subject | None = None

    @cached_property
    def handle(self) -> Handle:
        """The storage, opened at first use."""
        return self._open()

    @cached_property
    def awaited(self) -> Subject:
        """The same storage, reached from coroutines; what is noted there is noted here."""
        twin = Subject(self.factory, damage=self.damage, unreachable=self.unreachable, quick=self.quick, road=AWAITED)
        twin.chance, twin.notes, twin._twin = self.chance, self.notes, self
        return twin

    def abandon_awaited(self) -> None:
        """Give up the loops that a check left behind, which may stand still; the next one gets others."""
        twin, _ = self.awaited, self.__dict__.pop("awaited")
        Background(twin.close).is_done(1.0)

    @property
    def figures(self) -> dict[str, float]:
        """All that was measured."""
        twin: Subject | None = self.__dict__.get("awaited")
        more = {} if twin is None else {f"{what}, awaited": seconds for what, seconds in twin.measured.items()}
        return {**self.measured, **more}

    @property
    def peers(self) -> str:
        """What its threads are to the storage: threads, or tasks."""
        return self.handle.road.peers

    @property
    def tasks(self) -> int:
        """How many in one process commit at once, where there are processes: from coroutines, tasks of one loop."""
        return TASKS if self.road == AWAITED else 1

    @property
    def capabilities(self) -> frozenset[str]:
        """What the storage declares."""
        return frozenset(getattr(self.handle.storage, "capabilities", ()))

    @property
    def is_shared(self) -> bool:
        """Whether it declares that processes share it."""
        return Capability.PROCESSES in self.capabilities

    def another(self) -> Handle:
        """Open a second object for the same records; for a storage of one process the same object again."""
        return self._open() if self.is_shared else self.handle

    def _open(self) -> Handle:
        handle = Handle.open(self.factory, self.road)
        self._handles.append(handle)
        return handle

    def key(self, label: str = "record", kind: str = KIND, *, plain: bool = False) -> Key:
        """Make a key that nothing is stored under; `plain`: exactly this name."""
        key = Key(kind, label if plain else f"{label} {uuid.uuid4().hex[:12]}")
        self.keys.append(key)
        return key

    def pick(self, quick: Any, full: Any) -> Any:
        """Choose by how much time there is."""
        return quick if self.quick else full

    def note(self, text: str) -> None:
        """Tell something that is no fault."""
        self.notes.append(text)

    def has_lock(self) -> bool:
        """Whether it has a lock, and does not work by compare-and-set alone."""
        return self.handle.has_lock(self.key("locks"))

    def how_to_keep_apart(self) -> str:
        """Tell the author of a storage whose commits disturb each other what to do about it."""
        if self.has_lock():
            return (
                "let the lock exclude every thread and every process from its beginning to its end, and `save` compare"
                " `expected` under it; `load` takes no lock, so it must bear with a save at any moment"
            )
        return (
            "the lock is contextlib.nullcontext(), so `save` must compare `expected` and write in one step that nobody"
            " can come between: UPDATE … WHERE version = …, a script on the server, a transaction; or have a real lock"
        )

    def _beside_others(self, name: str, text: str) -> Violation:
        """Say of one of our errors that a hook raised it in a crowd, though not alone.

        :param name: of its class.
        :param text: its message.
        """
        if name == "StorageLockTimeout":  # it waits for others, as it should, but for too long
            return out_of_place(name, text)
        fix = f"let no two of them use one connection, buffer or temporary file at once; {self.how_to_keep_apart()}"
        return out_of_place(name, text, fix, "while others were at work")

    # -- many at once ------------------------------------------------------------------------------------------------

    def need_processes(self) -> None:
        """Go on only with a storage that processes share.

        :raises Skipped: it is not declared.
        """
        if not self.is_shared:
            raise Skipped("the storage does not declare Capability.PROCESSES: it was tested with threads only")

    def need_posix(self) -> None:
        """Go on only where processes can be stopped and forked.

        :raises Skipped: not here.
        """
        if os.name != "posix":  # pragma: no cover - tested on Linux
            raise Skipped("needs signals and fork, which this system has not")

    @property
    def workers(self) -> Workers:
        """Processes to work with, shared by all checks."""
        return shared()

    def in_processes(self, jobs: Sequence[tuple[Any, ...]], limit: float = 30.0) -> list[Any]:
        """Let a process each open the storage and do a job: a function of `jobs.py` and its arguments.

        :raises Violation: one of them found one, a hook raised an error there, or one did not end in time.
        """
        try:
            return self.workers.each([(opened, self.factory, self.road, *job) for job in jobs], limit=limit)
        except Failed as failed:
            if failed.raised is None:
                raise _stuck(failed) from failed
            raise (self._beside_others if len(jobs) > 1 else out_of_place)(*failed.raised) from failed

    def in_process(self, function: Callable[..., Any], *arguments: Any, limit: float = 30.0) -> Any:
        """Let one process open the storage and do a job."""
        return self.in_processes([(function, *arguments)], limit)[0]

    def begin(self, member: int, function: Callable[..., Any], *arguments: Any, limit: float = 30.0) -> Worker:
        """Let a process open the storage and begin a job."""
        try:
            return self.workers.begin(member, opened, self.factory, self.road, function, *arguments, limit=limit)
        except Failed as failed:
            raise _stuck(failed) from failed

    def in_threads(self, jobs: Sequence[tuple[Any, ...]], limit: float = 30.0) -> list[Any]:
        """Let a thread each do a job with the open storage; awaited, they are tasks of three loops.

        :raises Violation: one of them found one, a hook raised an error there, or one did not end in time.
        """
        handles = [self.handle, *(self._beside if self.road == AWAITED else ())]
        with switching_often():
            threads = [
                Background(function, handles[number % len(handles)], *arguments)
                for number, (function, *arguments) in enumerate(jobs)
            ]
            end = clock.monotonic() + limit
            try:
                return [thread.result(max(0.1, end - clock.monotonic())) for thread in threads]
            except ResilienceError as error:
                raise self._beside_others(type(error).__name__, str(error)) from error

    @cached_property
    def _beside(self) -> list[Handle]:
        return [self.handle.beside() for _ in range(2)]

    def signs(self) -> Signs:
        """Make a folder for signs between processes: files that are there or not."""
        return Signs()

    # -- the end -----------------------------------------------------------------------------------------------------

    def let_go(self) -> None:
        """See that no process has anything open of the storage, on both roads; the next use opens it anew."""
        twin: Subject | None = self._twin or self.__dict__.get("awaited")
        for subject in (self, *([] if twin is None else [twin])):
            subject._close_all()  # noqa: SLF001 - another one of this class
        gc.collect()  # a storage that closes nothing by itself leaves it to the end of its objects
        self.workers.run(gc.collect)

    def close(self) -> None:
        """Remove what was stored, as far as the storage can, and close it."""
        twin: Subject | None = self.__dict__.pop("awaited", None)
        if twin is not None:
            twin.close()
        if self._handles:
            for key in self.keys:
                self._handles[0].remove(key)
        self.keys.clear()
        self._close_all()

    def _close_all(self) -> None:
        for handle in self.__dict__.pop("_beside", ()):
            handle.road.close()
        handles, self._handles = self._handles, []
        self.__dict__.pop("handle", None)
        for handle in handles:
            try:
                handle.close()
            except Violation as violation:
                self.note(str(violation.what))

    def __enter__(self) -> Self:
        """Return the subject."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()


class Signs:
    """A folder for signs between processes."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True)

    def __truediv__(self, name: str) -> str:
        """Name a sign."""
        return os.path.join(self._folder.name, name)  # noqa: PTH118 - sent to other processes as text

    def __enter__(self) -> Self:
        """Return the folder."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove it."""
        self._folder.cleanup()


class Background:
    """A function in a thread of its own, which ends with the process at the latest."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._answer: tuple[bool, Any] | None = None
        self._work = (function, arguments)
        self._thread = threading.Thread(target=self._run, name="conformance", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        function, arguments = self._work
        try:
            self._answer = (True, function(*arguments))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._answer = (False, error)

    def is_done(self, patience: float) -> bool:
        """Wait for so many seconds; whether it ended."""
        self._thread.join(patience)
        return not self._thread.is_alive()

    def result(self, patience: float) -> Any:
        """Return what it returned, or raise what it raised.

        :raises Violation: it did not end in `patience` seconds.
        """
        if not self.is_done(patience) or self._answer is None:
            raise _stuck(Failed(f"a thread did not answer in {patience:.0f} s"))
        well, answer = self._answer
        if well:
            return answer
        raise answer


def _stuck(failed: Failed) -> Violation:
    if "Traceback" in str(failed) or "cannot be sent" in str(failed):
        return Violation(
            str(failed),
            "the kit works with processes of its own, which make the storage by the factory",
            "let the factory be importable there (functools.partial of the class, or a URL), and look at the traceback",
        )
    return Violation(
        f"{failed}, although nothing holds a lock for long",
        "a call that protects something must never hang: the engine gives up, the thread is lost",
        "honour `timeout` in every hook, free the lock on every way out, and let no lock depend on who died",
    )


@contextmanager
def switching_often() -> Generator[None]:
    """Let the interpreter switch between threads so often that a race is found."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
