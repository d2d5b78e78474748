"""What processes do that fork, for the checks of what a fork leaves behind."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading

from resilience import clock
from resilience.errors import ResilienceError
from resilience.testing.handle import Handle
from resilience.testing.history import Diary
from resilience.testing.jobs import LOCK_WAIT, add_one, checked
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from resilience.storage import Key
    from resilience.testing.handle import Factory
    from resilience.testing.subject import Background

    Seen = tuple[int, str]
    """The number of a commit, and who made it."""


class Line:
    """Between a process and one that it has forked, or a child of that: one asks, the other serves.

    :param limit: seconds that the other side lives at most.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._asked, self._ask = os.pipe()
        self._answers, self._answer = os.pipe()

    def ask(self, who: str) -> Any:
        """Let the other side do what it serves, once, and return what that returned.

        :param who: the other side, for messages.
        :raises Violation: that did, or it has died.
        """
        text = b""
        try:
            os.write(self._ask, b"?")
            while not text.endswith(b"\n"):
                more = os.read(self._answers, 1 << 16)
                if not more:
                    raise BrokenPipeError
                text += more
        except BrokenPipeError:
            raise _of_a_child(f"{who} died, or did not answer in {self._limit:g} s") from None
        well, answer = json.loads(text)
        if not well:
            raise _of_a_child(f"{who} finds: {answer}")
        return answer

    def serve(self, work: Callable[[], object]) -> None:
        """Do something each time that it is asked for, until the other side hangs up."""
        while os.read(self._asked, 1):
            os.write(self._answer, f"{json.dumps(_tried(work))}\n".encode())

    def fork(self, function: Callable[..., None], *arguments: Any) -> int:
        """Fork a child that calls a function with this line and its arguments, and ends by itself at any rate."""
        child = os.fork()
        if child == 0:  # pragma: no cover - it ends by `_exit`
            try:
                signal.setitimer(signal.ITIMER_REAL, self._limit)
                os.close(self._ask)
                os.close(self._answers)
                function(self, *arguments)
            finally:
                os._exit(0)
        self.is_theirs()
        return child

    def is_theirs(self) -> None:
        """Close the end of who serves: it is another process."""
        os.close(self._asked)
        os.close(self._answer)

    def hang_up(self) -> None:
        """Ask no more."""
        os.close(self._ask)
        os.close(self._answers)


def _tried(work: Callable[[], object]) -> tuple[bool, object]:
    try:
        return True, work()
    except Violation as violation:
        return False, violation.what
    except ResilienceError as error:
        return False, f"a hook raised {type(error).__name__}: {error}"


def _of_a_child(what: str) -> Violation:
    return Violation(
        f"after a fork, {what}",
        "servers fork their workers: one that cannot use its storage counts no failures, and may stand still for good",
        "let a child have everything anew, connections and locks of threads, too (os.register_at_fork): what another"
        " thread held at the fork nobody frees there; or let the fork wait until nobody holds anything, by a function"
        " that is called before it",
    )


# -- incarnations ------------------------------------------------------------------------------------------------------


def born_beside_a_fork(handle: Handle, key: Key, limit: float) -> list[str]:
    """Let two children and their parent, one after the other, save a key that has no record; what each drew."""
    handle.put(key, b"{}")  # so that whatever it draws from is there, and both children have the same
    handle.delete(key)
    drawn: list[str] = []
    children: list[tuple[Line, int]] = []
    for _ in range(2):
        line = Line(limit)
        children.append((line, line.fork(_serve_births, handle, key)))
    for line, _ in children:
        drawn.append(line.ask("a child"))
        handle.delete(key)
    drawn.append(_birth(handle, key))
    for line, _ in children:
        line.hang_up()
    for _, child in children:
        os.waitpid(child, 0)
    return drawn


def _serve_births(line: Line, handle: Handle, key: Key) -> None:  # pragma: no cover - in a forked child
    beside = handle.beside()
    line.serve(lambda: _birth(beside, key))


def _birth(handle: Handle, key: Key) -> str:
    with handle.lock(key):
        version = handle.save(key, b"{}", None).version
    assert version is not None  # noqa: S101 - the handle looked; for the type checkers
    return version.incarnation


# -- a parent that ends ------------------------------------------------------------------------------------------------


def outlive_parent(_: Handle, factory: Factory, road: str, key: Key, limit: float) -> list[tuple[Seen, Seen]]:
    """Fork a parent that uses the storage, forks a child and ends; what the child commits later, and others then load.

    This process itself never uses it: it would be one more that has the storage open, and hide what goes wrong with
    the last.
    """
    line, to_the_child = Line(limit), Line(limit)
    parent = line.fork(_be_a_parent, factory, road, key, to_the_child)
    to_the_child.is_theirs()
    line.ask("a process that forked")
    seen: list[tuple[Seen, Seen]] = []
    try:
        to_the_child.ask("the child")
        line.hang_up()
        os.waitpid(parent, 0)
        while len(seen) < 2:  # who looks may be the last that closes it, too
            committed = to_the_child.ask("the child, whose parent has ended,")
            looking = Line(limit)
            looker = looking.fork(_look, factory, road, key)
            loaded = looking.ask("another process")
            looking.hang_up()
            os.waitpid(looker, 0)
            seen.append((tuple(committed), tuple(loaded)))
    finally:
        to_the_child.hang_up()
    return seen


def _be_a_parent(  # pragma: no cover - in a forked child
    line: Line, factory: Factory, road: str, key: Key, to_the_child: Line
) -> None:
    handle: Handle | None = Handle.open(factory, road)

    def use_and_fork() -> None:
        assert handle is not None  # noqa: S101 - for the type checkers
        _commit(handle, key, "the parent")
        to_the_child.fork(_serve_commits, handle, key, "the child")

    line.serve(use_and_fork)
    assert handle is not None  # noqa: S101 - likewise
    handle.close()
    handle = None
    gc.collect()  # a storage that closes nothing by itself leaves it to the end of its objects


def _serve_commits(line: Line, handle: Handle, key: Key, who: str) -> None:  # pragma: no cover - in a forked child
    beside = handle.beside()
    line.serve(lambda: _commit(beside, key, who))


def _look(line: Line, factory: Factory, road: str, key: Key) -> None:  # pragma: no cover - in a forked child
    def load() -> Seen:
        handle = Handle.open(factory, road)
        try:
            return checked(handle.load(key))
        finally:
            handle.close()

    line.serve(load)


def _commit(handle: Handle, key: Key, who: str) -> Seen:
    add_one(handle, key, who, Diary(who))
    return checked(handle.load(key))


# -- threads at work ---------------------------------------------------------------------------------------------------


THREADS, WRITERS = 8, 2
"""At work while a process forks: so many that one of them is always in a hook, and how many of them commit."""


def fork_beside_threads(handle: Handle, key: Key, forks: int, limit: float) -> tuple[float, int, int]:
    """Fork beside threads that load and commit; when they have ended, each child loads and commits once.

    :param limit: seconds after which the threads end, whether the fork has returned or not; it is tried no more then.
    :return: seconds that a fork took at most, commits, and how many of them are counted.
    """
    from resilience.testing.subject import Background, switching_often

    _commit(handle, key, "the parent")
    commits, longest = 1, 0.0
    with switching_often():
        while forks > 0 and longest < limit:
            forks -= 1
            calls, is_over = [0] * THREADS, threading.Event()
            threads = [Background(_work_until, handle, key, number, calls, is_over) for number in range(THREADS)]
            end = threading.Timer(limit, is_over.set)
            line = Line(limit)
            try:
                _wait_for_all(calls, threads, limit)
                end.start()
                begun = clock.monotonic()
                child = line.fork(_serve_commits, handle, key, "a child")
                longest = max(longest, clock.monotonic() - begun)
            finally:
                end.cancel()
                is_over.set()
            commits += sum(thread.result(LOCK_WAIT) for thread in threads) + 1
            line.ask("a child that was forked beside threads at work")
            line.hang_up()
            os.waitpid(child, 0)
    return longest, commits, checked(handle.load(key))[0]


def _wait_for_all(calls: Sequence[int], threads: Sequence[Background], limit: float) -> None:
    """Wait until all threads but one, which others may keep from the lock, are at work; or one ended, as it failed."""
    end = clock.monotonic() + limit
    while calls.count(0) > 1 and not any(thread.is_done(0) for thread in threads) and clock.monotonic() < end:
        clock.sleep(0.0005)


def _work_until(handle: Handle, key: Key, number: int, calls: list[int], is_over: threading.Event) -> int:
    commits, who = 0, f"thread {number}"
    while not is_over.is_set():
        if number < WRITERS:
            add_one(handle, key, who, Diary(who))
            commits += 1
        else:
            checked(handle.load(key))
        calls[number] += 1
    return commits
