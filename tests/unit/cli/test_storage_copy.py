"""`resilience storage copy`: what arrives, what is left, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.command_line import UnlistedStorage

from resilience import (
    Capability,
    CircuitBreaker,
    CircuitState,
    Key,
    Runtime,
    StorageConflict,
    StorageUnavailable,
    clock,
)
from resilience.cli.storage import copy
from resilience.clock import SystemClock
from resilience.testing import FaultyStorage
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Install, Run

KIND = "circuit_breaker"
WELL = b'{"schema":1,"state":"closed","epoch":3}'
NEWER = b'{"schema":99,"state":"closed"}'


class Places:
    """Two storages, and the command between them."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.old, self.new = ((folder / name).as_uri() for name in ("old", "new"))
        self._run = run

    def put(self, url: str, name: str, payload: bytes, kind: str = KIND) -> None:
        with Runtime(storage=url) as runtime:
            ports, key = runtime.opened.ports, Key(kind, name)
            with ports.lock(key, 1):
                ports.save(key, payload, ports.load(key, 1).version, None, 1)

    def payload(self, url: str, name: str, kind: str = KIND) -> bytes | None:
        with Runtime(storage=url) as runtime:
            return runtime.opened.ports.load(Key(kind, name), 1).payload

    def copy(self, *words: str, status: int = 0) -> dict[str, tuple[str, str]]:
        done = self._run("storage", "copy", self.old, self.new, *words, "--json")
        assert (done.status, done.err) == (status, "")
        told = json.loads(done.out)
        assert sum(told["counts"].values()) == len(told["records"])
        return {record["name"]: (record["result"], record["detail"]) for record in told["records"]}


@pytest.fixture
def places(tmp_path: Path, run: Run) -> Places:
    return Places(tmp_path, run)


def test_everything_arrives_as_it_is_with_versions_that_begin_anew(places: Places) -> None:
    with Runtime(storage=places.old):
        CircuitBreaker("open", failure_threshold=2).record_failure(TimeoutError())
        CircuitBreaker("open", failure_threshold=2).record_failure(TimeoutError())
        CircuitBreaker("by hand").force_open(600, "work on the gateway")
    assert places.copy() == {"open": ("copied", ""), "by hand": ("copied", "")}
    with Runtime(storage=places.new) as runtime:
        status = CircuitBreaker("open", failure_threshold=2).status()
        assert (status.state, status.failure_count, status.last_error) == (CircuitState.OPEN, 2, "TimeoutError")
        assert CircuitBreaker("by hand").status().reason == "work on the gateway"
        version = runtime.opened.ports.load(Key(KIND, "open"), 1).version
        assert version is not None
        assert version.number == 1
    assert places.payload(places.new, "open") == places.payload(places.old, "open")
    assert places.copy() == {"open": ("same", ""), "by hand": ("same", "")}


def test_what_is_there_is_kept_unless_it_is_to_be_overwritten(places: Places) -> None:
    with Runtime(storage=places.old):
        CircuitBreaker("payments").force_open()
    with Runtime(storage=places.new):
        CircuitBreaker("payments").record_failure()
    assert places.copy() == {"payments": ("kept", "there is another one; --overwrite replaces it")}
    with Runtime(storage=places.new):
        assert CircuitBreaker("payments").status().state is CircuitState.CLOSED
    assert places.copy("--overwrite") == {"payments": ("copied", "")}
    with Runtime(storage=places.new):
        assert CircuitBreaker("payments").status().state is CircuitState.FORCED_OPEN


def test_a_dry_run_does_nothing(places: Places, run: Run) -> None:
    with Runtime(storage=places.old):
        CircuitBreaker("payments").force_open()
    done = run("storage", "copy", places.old, places.new, "--dry-run")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "KIND             NAME      RESULT",
        "circuit_breaker  payments  copied",
        f"would be: 1 copied; from {places.old} to {places.new}",
    ]
    assert places.payload(places.new, "payments") is None


def test_there_is_nothing(places: Places, run: Run, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    done = run("storage", "copy", places.old, places.new)
    assert done == (0, f"nothing to copy; from {places.old} to {places.new}\n", "")


@pytest.mark.parametrize("scheme", ["file", "aesgcm+file"])
def test_a_place_that_is_not_there_is_an_error(
    scheme: str, places: Places, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme != "file":
        monkeypatch.setenv("RESILIENCE_AESGCM__KEY", "A" * 43 + "=")
    url = places.old.replace("file", scheme, 1)
    done = run("storage", "copy", url, places.new)
    place = str(tmp_path / "old")
    message = f"copying from {url}: there is no folder {place!r}; see that its name is spelt right"
    assert done == (69, "", f"resilience: {message}\n")
    assert not (tmp_path / "old").exists()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("memory_is", ["from", "to"])
def test_a_storage_that_ends_with_the_command_is_refused(memory_is: str, places: Places, run: Run) -> None:
    places.put(places.old, "payments", WELL)
    urls = ("memory:", places.old) if memory_is == "from" else (places.old, "memory:")
    done = run("storage", "copy", *urls)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("resilience: memory: keeps records in the memory of this process, with which they end; ")
    assert "such as file:///absolute/folder\n" in done.err


def test_what_has_expired_is_passed_over_and_makes_room(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(storage=places.old):
        CircuitBreaker("ended", failure_max_age=60).record_failure()
        CircuitBreaker("payments").force_open()
    with Runtime(storage=places.new):
        CircuitBreaker("payments").record_failure()
    later = clock.wall() + 10 * 86400
    monkeypatch.setattr(SystemClock, "wall", staticmethod(lambda: later))
    assert places.copy() == {"ended": ("expired", ""), "payments": ("copied", "")}


def test_the_end_of_a_record_goes_with_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(storage=places.old):
        CircuitBreaker("payments", failure_max_age=7200).record_failure()
    ends: list[Any] = []
    plain = FileStorage.resilience_save

    def save(self: FileStorage, key: Key, payload: bytes, expected: Any, expires_at: Any, timeout: float) -> Any:
        ends.append(expires_at)
        return plain(self, key, payload, expected, expires_at, timeout)

    save.__dict__.update(plain.__dict__)
    monkeypatch.setattr(FileStorage, "resilience_save", save)
    places.copy()
    (end,) = ends
    assert clock.wall() + 7100 < end < clock.wall() + 7201


def test_what_cannot_be_read_is_named_and_left(places: Places) -> None:
    places.put(places.old, "damaged", b"no JSON")
    places.put(places.old, "newer", NEWER)
    places.put(places.old, "payments", WELL)
    places.put(places.old, "foreign", b"whatever", "error_budget")
    told = places.copy(status=69)
    assert {name: result for name, (result, _) in told.items()} == {
        "damaged": "damaged",
        "newer": "newer",
        "payments": "copied",
        "foreign": "copied",
    }
    assert told["foreign"][1].startswith("as it is: its policy is not installed here")
    assert places.payload(places.new, "damaged") is None
    assert places.payload(places.new, "newer") is None
    assert places.payload(places.new, "foreign", "error_budget") == b"whatever"


def test_a_newer_record_that_is_there_is_never_overwritten(places: Places) -> None:
    places.put(places.old, "payments", WELL)
    places.put(places.new, "payments", NEWER)
    result, detail = places.copy("--overwrite")["payments"]
    assert (result, detail.partition(":")[0]) == ("kept", "there is one of a newer library")


def test_a_damaged_record_that_is_there_is_left_for_inspection(places: Places) -> None:
    places.put(places.old, "payments", WELL)
    places.put(places.new, "payments", b"no JSON")
    result, detail = places.copy("--overwrite", status=69)["payments"]
    assert (result, detail.partition(":")[0]) == ("failed", "the one that is there is damaged")


def test_the_reason_of_a_failure_is_told_whole(places: Places, run: Run, tmp_path: Path) -> None:
    places.put(places.old, "payments", WELL)
    (tmp_path / "new").write_text("no folder")
    done = run("storage", "copy", places.old, places.new)
    assert done.status == 69
    assert "is not a folder; remove what is there or choose another with RESILIENCE_STORAGE=file:///…\n" in done.out


def test_one_storage_under_both_urls(run: Run) -> None:
    done = run("storage", "copy", "file:", "file:")
    assert (done.status, done.out) == (2, "")
    assert "both URLs name the same storage" in done.err


def test_a_storage_that_cannot_list_its_records(
    run: Run, install: Install, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UnlistedStorage, "capabilities", frozenset({Capability.PROCESSES}))
    install("resilience.storage", "unlisted", "UnlistedStorage")
    done = run("storage", "copy", "unlisted:", places.new)
    assert (done.status, done.out) == (69, "")
    assert "cannot list its keys" in done.err


class TestFaults:
    """Storages that fail as planned, below the command."""

    @staticmethod
    def copied(old: object, new: object) -> dict[str, tuple[str, str]]:
        source, target = Runtime(storage=old), Runtime(storage=new)
        for name in "abc":
            source.opened.ports.save(Key(KIND, name), WELL, None, None, 1)
        done = copy.Copying(source, target, overwrite=False, dry=False)
        return {record.name: (record.result, record.detail) for record in done.all()}

    def test_one_that_does_not_answer_is_not_asked_again_and_again(self) -> None:
        new = FaultyStorage(MemoryStorage("memory:"))
        new.fail("load", 2, StorageUnavailable("loading circuit_breaker 'b': redis://me:hunter2@host is down"))
        assert self.copied(MemoryStorage("memory:"), new) == {
            "a": ("copied", ""),
            "b": ("failed", "loading circuit_breaker 'b': redis://***@host is down"),
            "c": ("failed", "not tried: loading a record: redis://***@host is down"),
        }
        assert new.calls == ["lock", "load", "save", "lock", "load"]

    @pytest.mark.parametrize(
        ("error", "result", "detail"),
        [
            (StorageUnavailable("too long", key=Key(KIND, "a")), "failed", "too long"),
            (StorageConflict("b"), "kept", "somebody saved it there at the same time"),
            (ZeroDivisionError("by zero"), "failed", "ZeroDivisionError: by zero"),
        ],
    )
    def test_one_record_stops_none_of_the_others(self, error: Exception, result: str, detail: str) -> None:
        new = FaultyStorage(MemoryStorage("memory:")).fail("save", 1, error)
        told = self.copied(MemoryStorage("memory:"), new)
        assert told == {"a": (result, detail), "b": ("copied", ""), "c": ("copied", "")}

    def test_a_record_that_is_gone_when_its_turn_comes(self) -> None:
        class Forgetful(MemoryStorage):
            def resilience_keys(self) -> list[Key]:
                return [*super().resilience_keys(), Key(KIND, "gone")]

            resilience_keys.__dict__.update(MemoryStorage.resilience_keys.__dict__)

        assert self.copied(Forgetful("memory:"), MemoryStorage("memory:"))["gone"] == ("expired", "it is gone")
