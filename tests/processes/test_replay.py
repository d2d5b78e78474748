"""What several processes committed, put in the order of its versions, is what the pure policy makes of the same events.

Each commit is written down by who made it: version, events, and the record that came of it.  Then the versions have no
gap and no double, each record follows from the one before, and each change of state was announced once.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from processes.support import METHODS, Crowd, breaker, lines

from resilience import CircuitOpenError, Version
from resilience.policy import Admit, Control, Rejected, Report

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS: dict[str, Any] = {
    "failure_threshold": 3,
    "reset_timeout": 0.002,
    "reset_timeout_backoff": 2,
    "reset_timeout_max": 0.01,
    "reset_timeout_jitter": 0.5,
    "half_open_max_calls": 2,
    "half_open_success_threshold": 3,
    "permit_timeout": 0.01,
}


def keep_a_diary(path: str) -> None:
    """From now on, write down each commit of this process."""
    from resilience_circuit_breaker.policy import CircuitBreakerPolicy
    from resilience_filelock import FileStorage

    last: dict[str, Any] = {}
    step, save = CircuitBreakerPolicy.step, FileStorage.resilience_save

    def noting_step(self: Any, state: Any, event: Any, /) -> Any:
        follows = last.get("state") is state  # a commit answers several events, each from the state that the last left
        done = step(self, state, event)
        last["events"] = [*(last["events"] if follows else []), event]
        last["state"] = done.state
        return done

    def noting_save(self: Any, key: Any, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
        saved: Any = save(self, key, payload, expected, expires_at, timeout)
        events: list[Any] = last["events"]
        entry = {
            "version": list(saved.version),
            "events": [
                [type(event).__name__, {name: getattr(event, name) for name in event.__slots__}] for event in events
            ],
            "record": payload.decode(),
        }
        last["state"] = None
        with Path(path).open("a") as diary:
            diary.write(json.dumps(entry) + "\n")
        return saved

    noting_save.__dict__.update(save.__dict__)  # the mark of a hook implementation
    CircuitBreakerPolicy.step = noting_step  # type: ignore[method-assign]
    FileStorage.resilience_save = noting_save  # type: ignore[method-assign]


def live(url: str, log: str, seed: int, times: int) -> None:
    """Do what processes do to a breaker, in an order of chance."""
    chance = random.Random(seed)
    guarded = breaker(url, "shared", log, **SETTINGS)

    def fail() -> None:
        raise OSError("x" * chance.randrange(3))

    def succeed() -> None:
        guarded.call(int)

    def hold() -> None:
        held.append(guarded.acquire())

    def release() -> None:
        if held:
            permit = held.pop(chance.randrange(len(held)))
            chance.choice([permit.success, permit.failure, permit.release])()

    held: list[Any] = []
    actions: list[Callable[[], object]] = [
        *[lambda: guarded.call(fail)] * 8,
        *[succeed] * 4,
        *[hold, release] * 3,
        guarded.check,
        guarded.record_success,
        guarded.record_failure,
        lambda: guarded.force_open(0.001, "by hand"),
        lambda: guarded.disable(0.001),
        guarded.close,
        lambda: guarded.reset("anew"),
    ]
    for _ in range(times):
        try:
            chance.choice(actions)()
        except (CircuitOpenError, OSError):
            pass


EVENTS = {"Admit": Admit, "Report": Report, "Rejected": Rejected, "Control": Control}


def revived(name: str, fields: dict[str, Any]) -> Any:
    """An event as it stands in a diary."""
    kind: Any = EVENTS[name]
    event = kind.__new__(kind)
    for field, value in fields.items():
        setattr(event, field, value)
    return event


def replay(url: str, diaries: list[Path], log: Path) -> int:
    """Check a history; return how many commits it has."""
    entries = [json.loads(line) for diary in diaries for line in diary.read_text().splitlines()]
    entries.sort(key=lambda entry: entry["version"][1])
    assert [entry["version"][1] for entry in entries] == list(range(1, len(entries) + 1))
    assert len({entry["version"][0] for entry in entries}) == 1
    policy: Any = breaker(url, "shared", **SETTINGS)._bound().policy
    state = policy.initial()
    moves: list[str] = []
    for entry in entries:
        steps: list[Any] = []
        for name, fields in entry["events"]:
            steps.append(policy.step(state, revived(name, fields)))
            state = steps[-1].state
            if steps[-1].moved is not None:
                moved = steps[-1].moved
                moves.append(f"{moved.old}->{moved.new} {state.epoch} {Version(*entry['version'])}")
        assert any(step.keep for step in steps)
        assert policy.encode(state).decode() == entry["record"], entry
        assert policy.decode(entry["record"].encode()) == state
    told = [line for line in lines(log, "shared") if not line.startswith("event")]
    assert sorted(told) == sorted(moves)
    return len(entries)


@pytest.mark.parametrize("seed", range(3))
def test_a_history_of_four_processes(url: str, tmp_path: Path, seed: int) -> None:
    diaries = [tmp_path / f"diary {member}" for member in range(4)]
    log = tmp_path / "log"
    with Crowd(METHODS[0], 4) as crowd:
        crowd.each([(keep_a_diary, str(diary)) for diary in diaries])
        crowd.each([(live, url, str(log), 4 * seed + member, 300) for member in range(4)])
    assert replay(url, diaries, log) > 100


def test_a_history_with_a_lost_commit_is_found(url: str, tmp_path: Path) -> None:
    diary, log = tmp_path / "diary", tmp_path / "log"
    with Crowd(METHODS[0], 1) as crowd:
        crowd.one(0, keep_a_diary, str(diary))
        crowd.one(0, live, url, str(log), 1, 100)
    commits = diary.read_text().splitlines()
    assert replay(url, [diary], log) == len(commits)
    diary.write_text("\n".join(commits[:5] + commits[6:]))
    with pytest.raises(AssertionError):
        replay(url, [diary], log)
    forged = json.loads(commits[5])
    forged["events"][-1][1]["now"] += 1
    forged["record"] = forged["record"].replace('"epoch":', '"epoch":1')
    diary.write_text("\n".join([*commits[:5], json.dumps(forged), *commits[6:]]))
    with pytest.raises(AssertionError):
        replay(url, [diary], log)
