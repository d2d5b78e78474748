"""Each call to the system is the last one in turn, or is refused, in all that changes state.

A fresh process then finds the state from before or the one from after, can commit, and finds nothing left over.
"""
# ruff: noqa: FBT001 - parametrized tests take booleans as they come

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import signal
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes import tracing
from processes.test_file_storage import KEY, LONG, add_one, alone

from resilience import CircuitBreaker, Event, Runtime, StorageCorrupt, StorageUnavailable, hookimpl
from resilience.cli import main
from resilience.testing import ManualClock
from resilience_filelock import FileStorage
from resilience_filelock._file import RecordFile
from resilience_filelock._record import HEAD, HEAD_OFFSET, word_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], None]
    Work = Callable[[str, Say], object]
    """What a child does in a folder of its own, saying what is done."""

QUICK = 2.0
"""Seconds within which whoever comes after a kill has read and committed, on a busy machine."""


@pytest.fixture(scope="module", autouse=True)
def _traceable() -> None:
    if not alone(tracing.works):
        pytest.skip("a child may not be traced here by ptrace, or it is not Linux on x86-64")


def struck(work: Work, folder: str, *, refused: bool, every: int = 1) -> Iterator[tuple[str, tracing.Run]]:
    """Strike at each call about files that a child makes; yield its folder, and what came of it.

    To kill it, at each that may change something: it is the same to be killed before another one.

    :param refused: whether the call is refused; else the child is killed.
    :param every: 2 for each second call only.
    """

    def run(nth: int, error: int | None = None) -> tuple[str, tracing.Run]:
        place = f"{folder}/{nth}"
        os.mkdir(place)  # noqa: PTH102 - as short as what is tested
        return place, tracing.strike(partial(work, place), nth, error)

    work(folder, lambda _: None)  # imports what the children then need not
    gc.collect()
    gc.freeze()
    _, whole = run(0)
    assert whole.status == 0, whole.said
    calls = whole.about_files if refused else whole.changing
    for nth, error in zip(calls[::every], cycle(tracing.ERRORS), strict=False):
        place, done = run(nth, error if refused else None)
        if done.struck:  # else it made fewer calls than the first time
            assert done.status == (0 if refused else -signal.SIGKILL), (nth, done)
            yield place, done
        shutil.rmtree(place)


def leftovers(place: str) -> list[str]:
    """What stands there that should not, but for one half-made file, which is swept when it is a minute old."""
    names = [path.name for path in Path(place).rglob("*") if path.is_file()]
    halves = [name for name in names if name.endswith(".new")]
    odd = [name for name in names if not name.endswith((".state", ".new", ".json", ".jsonl"))]
    return odd + halves[1:]


# --- the hooks --------------------------------------------------------------------------------------------------------

STEPS = ["commit", "commit", "grown", "commit", "discarded", "commit", "deleted", "commit"]


def hooks(durability: str, place: str, say: Say) -> None:
    """Birth, commits, growth, discard, deletion, birth again; what is refused is not tried again."""
    one = FileStorage(f"file://{place}/state", FileStorage.Settings(durability=durability))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    tracing.begin()
    try:
        for step in STEPS:
            if step == "discarded":
                with one.resilience_lock(KEY, LONG):
                    one.resilience_discard(KEY, "test", LONG)
            elif step == "deleted":
                one.resilience_delete(KEY, None, LONG)
            else:
                add_one(one, padding=3000 if step == "grown" else 0)
            say(step)
    except StorageUnavailable:
        say("refused")
    tracing.end()
    add_one(one)  # when the fault is over, all goes on
    say("commit")
    one.close()
    gc.collect()  # an error and its traceback hold each other, and with them a file
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def counted(steps: list[str]) -> int:
    """The count that the record has after some steps, each of which was done."""
    last = max((nth for nth, step in enumerate(steps, 1) if step in {"discarded", "deleted"}), default=0)
    return len(steps) - last


def look(place: str, said: list[str]) -> None:
    """Find what was said, and perhaps the step that was not."""
    if "refused" in said:
        done, more = said[: said.index("refused")], 1
    else:
        done, more = said, 0
    either = {counted(done) + more, counted([*done, *STEPS[len(done) : len(done) + 1]]) + more}
    one = FileStorage(f"file://{place}/state")
    before = time.monotonic()
    snapshot = one.resilience_load(KEY, QUICK)
    found = json.loads(snapshot.payload)["count"] if snapshot.payload else 0
    assert found in either, (said, found, place)
    assert (snapshot.version.number if snapshot.version else 0) == found
    assert add_one(one) == found + 1
    assert time.monotonic() - before < QUICK
    one.close()
    assert len([name for name in leftovers(place) if ".damaged-" not in name]) == 0


def strike_hooks(folder: str, durability: str, refused: bool) -> int:
    times = 0
    for place, run in struck(partial(hooks, durability), folder, refused=refused):
        look(place, run.said)
        times += 1
    return times


@pytest.mark.parametrize(
    ("durability", "refused"), [("none", False), ("fsync", False), ("fsync", True)], ids=["none", "fsync", "refused"]
)
def test_the_hooks_leave_the_old_state_or_the_new(tmp_path: Path, durability: str, refused: bool) -> None:
    assert alone(strike_hooks, str(tmp_path), durability, refused) > 50


# --- a breaker --------------------------------------------------------------------------------------------------------


class Told:
    """Hears what events there were."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        self.events.append(event.name)


FAILED, ASKED = "failed", "failing"


def breaker(place: str, say: Say) -> None:
    """A streak that opens it, which the journal is told; then one more, when the fault is over."""
    told, hands = Told(), ManualClock()
    runtime = Runtime(storage=f"file://{place}/state", environ={}, clock=hands, observers=[told])
    guarded = CircuitBreaker("payments", failure_threshold=2, runtime=runtime)
    runtime.opened  # noqa: B018 - what is composed is not what is tested
    tracing.begin()
    for _ in range(2):
        say(ASKED)
        guarded.record_failure()
        say(FAILED)
    tracing.end()
    hands.advance(5)
    guarded.record_failure()
    status = guarded.status()
    runtime.close()
    outage = [name for name in told.events if name in {"degraded", "recovered"}]
    assert outage in ([], ["degraded", "recovered"]), told.events
    assert not status.degraded
    say("outage" if outage else "well")
    say(f"{status.failure_count} {status.late_count}")


def look_at_the_breaker(place: str, said: list[str]) -> None:
    runtime = Runtime(storage=f"file://{place}/state", environ={})
    status = CircuitBreaker("payments", failure_threshold=2, runtime=runtime).status()
    runtime.close()
    count = status.failure_count + status.late_count
    meant, done = said.count(ASKED), said.count(FAILED)
    if "well" in said or "outage" in said:
        meant, done = meant + 1, (0 if "outage" in said else done + 1)  # what an outage counted is its process's own
    assert done <= count <= meant, (said, status)
    assert status.state == ("open" if status.failure_count >= 2 else "closed")
    assert not status.degraded
    assert leftovers(place) == []
    journal = Path(place, "state", "events.jsonl")
    if journal.exists():
        for line in journal.read_text("ascii").splitlines():
            json.loads(line)


def strike_breaker(folder: str, refused: bool) -> int:
    times = 0
    for place, run in struck(breaker, folder, refused=refused):
        look_at_the_breaker(place, run.said)
        times += 1
    return times


@pytest.mark.parametrize("refused", [False, True], ids=["killed", "refused"])
def test_a_breaker_loses_nothing_acknowledged_and_tells_one_outage(tmp_path: Path, refused: bool) -> None:
    assert alone(strike_breaker, str(tmp_path), refused) > 20


# --- the command line -------------------------------------------------------------------------------------------------


def command(*words: str) -> tuple[int, str]:
    """Run the command line in this process; its exit status, and what it said of errors."""
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        return main(words), said.getvalue()


def shell(words: list[str], place: str, say: Say) -> None:
    """One verb in a home of its own, where nothing is kept yet: the plan is made too."""
    for name in [name for name in os.environ if name.startswith(("RESILIENCE_", "XDG_"))]:
        del os.environ[name]
    os.environ["HOME"] = place
    if words[0] == "storage":
        Counter(f"file://{place}/from").add_one()
    os.environ["RESILIENCE_STORAGE"] = f"file://{place}/state"
    tracing.begin()
    status, said = command(*(word.format(place=place) for word in words))
    tracing.end()
    say(f"{status}\n{said}".rstrip())


class Counter:
    """A breaker that is looked at and counted with by another process than the one that was struck."""

    def __init__(self, url: str) -> None:
        self._guarded = CircuitBreaker("x", runtime=Runtime(storage=url, environ={}))

    def count(self) -> int:
        status = self._guarded.status()
        assert not status.degraded
        return status.failure_count or 0

    def add_one(self) -> int:
        self._guarded.record_failure()
        return self.count()


def strike_shell(folder: str, words: list[str], refused: bool) -> int:
    times = 0
    for place, run in struck(partial(shell, words), folder, refused=refused, every=3 if refused else 1):
        status = run.said[0] if run.said else "killed"
        assert status in {"0", "69", "killed"}, run.said
        assert all(line.startswith("resilience: ") for line in run.said[1:]), run.said
        counter = Counter(f"file://{place}/state")
        found = counter.count()
        assert found in ({1} if status == "0" else {0, 1}), run.said
        assert counter.add_one() == found + 1
        assert len([name for name in leftovers(place) if not name.startswith("plan")]) == 0
        times += 1
    return times


@pytest.mark.parametrize("refused", [False, True], ids=["killed", "refused"])
@pytest.mark.parametrize(
    "words", [["failure", "x"], ["storage", "copy", "file://{place}/from", "file://{place}/state"]]
)
def test_the_command_line_does_it_or_not_and_says_so(tmp_path: Path, words: list[str], refused: bool) -> None:
    assert alone(strike_shell, str(tmp_path), words, refused) > 20


# --- and these tests find what they are for ---------------------------------------------------------------------------


def strike_a_hasty_storage(folder: str) -> None:
    """With the head written before the slot that it names, which is found at once."""
    commit = RecordFile.commit

    def hasty(self: RecordFile, *args: Any) -> Any:
        os.pwrite(self.fd, HEAD.pack(word_of(args[0][1])), HEAD_OFFSET)
        return commit(self, *args)

    RecordFile.commit = hasty  # type: ignore[method-assign, assignment]
    strike_hooks(folder, "none", refused=False)


def test_a_commit_in_the_wrong_order_is_found(tmp_path: Path) -> None:
    with pytest.raises((StorageCorrupt, AssertionError)):  # a first version that is not there, or a gap
        alone(strike_a_hasty_storage, str(tmp_path))
