"""What several processes did to one record, and whether it can have happened: the version-replay checker.

Every process writes down its operations (`Diary`, or a `RecordedStorage` around the storage); the checkers look at all
of them together.  They are linear in the number of operations, but for the sorting.

I1  the committed versions are 1, 2, 3 … without gap or double;
I2  replayed in the order of their versions through a pure function, they give every recorded result;
I3  who returned before another was called comes before it: its version is the smaller one, and a read sees it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from operator import attrgetter

from resilience import clock
from resilience.errors import revive
from resilience.markers import hookimpl
from resilience.storage import Snapshot, Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any, TypeVar

    from resilience.storage import Key

    S = TypeVar("S")

READ = "read"
WRITE = "write"


@dataclass(frozen=True, slots=True)
class Operation:
    """One load or one commit of one process.

    `called` and `returned` are monotonic seconds, comparable over the processes of one machine; `returned` is `None`
    if it never did: it was killed, or its outcome is unknown.  `version` is what it wrote or read; `None` if it read
    nothing or its outcome is unknown.  `event` is what was asked, with the time that was used in it; `result` is what
    came of it.
    """

    process: str
    number: int
    kind: str
    called: float
    returned: float | None
    version: Version | None
    event: Any = None
    result: Any = None

    def __str__(self) -> str:
        """For messages."""
        end = "never returned" if self.returned is None else f"returned {self.returned:.6f}"
        return f"{self.kind} #{self.number} of {self.process} (called {self.called:.6f}, {end}, version {self.version})"


class Anomaly(AssertionError):
    """A history that cannot have happened on a storage that is right.

    `invariant` is ``I1``, ``I2`` or ``I3``; `operations` are those that contradict each other.
    """

    def __init__(self, invariant: str, message: str, operations: Sequence[Operation] = ()) -> None:
        super().__init__(f"{invariant}: {message}" + "".join(f"\n  {operation}" for operation in operations[:5]))
        self.invariant = invariant
        self.operations = tuple(operations)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle as it is: what a process pool cannot bring back, it waits for."""
        return revive, (type(self), self.args, dict(self.__dict__))


def check_history(
    operations: Iterable[Operation],
    initial: S | None = None,
    step: Callable[[S, Any], tuple[S, Any]] | None = None,
) -> int:
    """Check I1 and I3, and with `initial` and `step` I2 too; return how many commits there are.

    :raises Anomaly: one of them does not hold.
    """
    history = list(operations)
    commits = check_versions(history)
    check_order(history)
    if step is not None:
        check_replay(history, initial, step)
    return commits


def check_versions(operations: Iterable[Operation]) -> int:
    """Check I1: each incarnation's commits are 1, 2, 3 …; return how many commits there are.

    An operation that never returned may have filled one gap.

    :raises Anomaly: a version was committed twice, or is missing.
    """
    lives: dict[str, dict[int, Operation]] = {}
    unknown: list[Operation] = []
    for operation in operations:
        if operation.kind != WRITE:
            continue
        version = operation.version
        if version is None:
            unknown.append(operation)
            continue
        life = lives.setdefault(version.incarnation, {})
        twin = life.setdefault(version.number, operation)
        if twin is not operation:
            raise Anomaly("I1", f"version {version} was committed twice: one of them is lost", [twin, operation])
    missing = [
        Version(incarnation, number)
        for incarnation, life in lives.items()
        if len(life) != max(life) or min(life) < 1
        for number in range(1, max(life) + 1)
        if number not in life
    ]
    below = [op for life in lives.values() for number, op in life.items() if number < 1]
    if below:
        raise Anomaly("I1", "numbers of versions begin at 1", below)
    if len(missing) > len(unknown):
        named = ", ".join(map(str, missing[:5]))
        raise Anomaly("I1", f"nobody committed {named}: the numbers have {len(missing)} gaps", unknown)
    return sum(map(len, lives.values()))


def check_order(operations: Iterable[Operation]) -> None:
    """Check I3 for a record of one incarnation: versions follow the clock, reads see what was committed before them.

    :raises Anomaly: a write or a read came too late.
    """
    history = list(operations)
    ended = sorted((op for op in history if op.returned is not None and op.version), key=_returned)
    newest: Operation | None = None
    position = 0
    for operation in sorted(history, key=attrgetter("called")):
        while position < len(ended) and _returned(ended[position]) < operation.called:
            other = ended[position]
            if newest is None or _number(other) > _number(newest):
                newest = other
            position += 1
        if newest is None or operation.returned is None:
            continue
        mine, least = _number(operation), _number(newest)
        if operation.kind == READ and mine < least:
            seen = f"a read saw version {operation.version} although {newest.version} was there"
            raise Anomaly("I3", seen, [newest, operation])
        if operation.kind == WRITE and mine <= least:
            late = f"{operation.version} was committed after {newest.version} had been"
            raise Anomaly("I3", late, [newest, operation])


def _returned(operation: Operation) -> float:
    assert operation.returned is not None  # noqa: S101 - who calls has looked; for the type checkers
    return operation.returned


def _number(operation: Operation) -> int:
    return 0 if operation.version is None else operation.version.number


def check_replay(operations: Iterable[Operation], initial: Any, step: Callable[[Any, Any], tuple[Any, Any]]) -> Any:
    """Check I2 for a record of one incarnation; return the final state.

    :param initial: the state without a record.
    :param step: maps state and event to the next state and the result; pure.
    :raises Anomaly: a result is not what the events before it give.
    """
    writes = [operation for operation in operations if operation.kind == WRITE]
    known = sorted((operation for operation in writes if operation.version), key=_number)
    unknown = [operation for operation in writes if not operation.version]
    # Depth first over which of the operations that never returned filled which gap; without gaps it is one walk.
    trials: list[tuple[int, int, Any, tuple[Operation, ...]]] = [(0, 1, initial, ())]
    wrong: Anomaly | None = None
    while trials:
        position, number, state, used = trials.pop()
        while position < len(known):
            operation = known[position]
            if _number(operation) > number:
                for candidate in unknown:
                    if candidate not in used:
                        then, _ = step(state, candidate.event)
                        trials.append((position, number + 1, then, (*used, candidate)))
                wrong = wrong or Anomaly("I2", f"no operation explains version number {number}", [operation])
                break
            state, result = step(state, operation.event)
            if result != operation.result:
                wrong = wrong or Anomaly(
                    "I2", f"{operation.version} gave {operation.result!r}, its replay gives {result!r}", [operation]
                )
                break
            position, number = position + 1, number + 1
        else:
            return state
    raise wrong or Anomaly("I2", "the history cannot be replayed")


# --- writing down -----------------------------------------------------------------------------------------------------


@dataclass
class Diary:
    """Writes down the operations of one process.

    :param process: its name.
    :param path: a file of its own, for a process that may be killed: of each operation it holds the intent before the
        call and the outcome after it, a line each, written at once.  `None`: `operations` only.
    """

    process: str
    path: str | None = None
    operations: list[Operation] = field(default_factory=list[Operation])
    _file: int = -1
    _count: int = 0

    def begin(self, kind: str, event: Any = None) -> Operation:
        """Write down that an operation is about to be called."""
        self._count += 1
        operation = Operation(self.process, self._count, kind, clock.monotonic(), None, None, event)
        self._write({"n": self._count, "kind": kind, "called": operation.called, "event": event})
        return operation

    def end(self, operation: Operation, version: Version | None, result: Any = None) -> Operation:
        """Write down that it returned, and what."""
        now = clock.monotonic()
        done = Operation(
            self.process, operation.number, operation.kind, operation.called, now, version, operation.event, result
        )
        self._write({"n": operation.number, "returned": now, "version": version, "result": result})
        self.operations.append(done)
        return done

    def abandon(self, operation: Operation) -> None:
        """Write down that its outcome is unknown."""
        self.operations.append(operation)

    def _write(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        if self._file < 0:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @staticmethod
    def read(process: str, path: str | Path) -> list[Operation]:
        """Read a file back; an operation without outcome has `returned` `None`.

        Events and results come back as JSON has them.
        """
        begun: dict[int, dict[str, Any]] = {}
        with open(path, encoding="utf-8") as lines:  # noqa: PTH123 - a path of either form
            for line in lines:
                if line.endswith("\n"):
                    entry = json.loads(line)
                    begun.setdefault(entry["n"], {"returned": None, "version": None, "result": None}).update(entry)
        return [
            Operation(
                process,
                number,
                entry["kind"],
                entry["called"],
                entry["returned"],
                Version(*entry["version"]) if entry["version"] else None,
                entry["event"],
                entry["result"],
            )
            for number, entry in begun.items()
        ]


class RecordedStorage:
    """A storage that holds a storage and writes down each load and each save.

    :param inner: the storage; its hooks are called directly.
    :param diary: where it is written; the event of a save is its payload, decoded.
    """

    Settings = None

    def __init__(self, inner: Any, diary: Diary) -> None:
        self.inner = inner
        self.diary = diary
        self.capabilities = inner.capabilities

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """Load, and write down what was read."""
        operation = self.diary.begin(READ)
        try:
            snapshot: Snapshot = self.inner.resilience_load(key, timeout)
        except BaseException:
            self.diary.abandon(operation)
            raise
        self.diary.end(operation, snapshot.version)
        return snapshot

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """Save, and write down what was committed; a save that was refused is none."""
        from resilience.errors import StorageError

        operation = self.diary.begin(WRITE, payload.decode())
        try:
            snapshot: Snapshot = self.inner.resilience_save(key, payload, expected, expires_at, timeout)
        except StorageError as error:
            if getattr(error, "outcome_unknown", False):
                self.diary.abandon(operation)
            raise
        self.diary.end(operation, snapshot.version, payload.decode())
        return snapshot

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:
        """Lock."""
        lock: AbstractContextManager[None] = self.inner.resilience_lock(key, timeout)
        return lock
