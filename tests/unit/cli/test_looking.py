"""`config`, `plugins` and `doctor`: the verbs of the core that look."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from resilience import Capability, CircuitBreaker, Key, Runtime, StorageUnavailable, Version
from resilience.cli import doctor
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from unit.cli.command_line import Install, Run


STORAGE_HOOKS = ("load", "save", "lock", "keys", "delete", "discard")


def rows(out: str) -> list[list[str]]:
    return [re.split(r" {2,}", line) for line in out.splitlines()]


# --- config -----------------------------------------------------------------------------------------------------------


def settings(run: Run, *words: str) -> dict[str, dict[str, Any]]:
    done = run("config", *words, "--json")
    assert (done.status, done.err) == (0, "")
    return {f"{each['section']}.{each['setting']}": each for each in json.loads(done.out)}


def test_config_shows_each_setting_and_where_it_comes_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE_TIMEOUT", "500ms")
    monkeypatch.setenv("RESILIENCE_FILE__DURABILITY", "fsync")
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__IGNORE", "KeyError,requests:Timeout")
    done = run("config")
    assert (done.status, done.err) == (0, "")
    found = {row[0]: row[1:] for row in rows(done.out)}
    assert found["SETTING"] == ["VALUE", "SOURCE", "VARIABLE"]
    assert found["storage"] == ["file:", "default", "RESILIENCE_STORAGE"]
    assert found["storage_timeout"] == ["0.5", "RESILIENCE_STORAGE_TIMEOUT", "RESILIENCE_STORAGE_TIMEOUT"]
    assert found["file.durability"] == ["fsync", "RESILIENCE_FILE__DURABILITY", "RESILIENCE_FILE__DURABILITY"]
    variable = "RESILIENCE_CIRCUIT_BREAKER__IGNORE"
    assert found["circuit_breaker.ignore"] == ["KeyError,requests:Timeout", variable, variable]
    assert found["circuit_breaker.failure_if"] == ["none", "default", "in code only"]


def test_config_as_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT", "2m")
    found = settings(run)
    assert set(found["core.storage"]) == {"section", "setting", "value", "source", "variable", "description"}
    reset_timeout = found["circuit_breaker.reset_timeout"]
    assert reset_timeout["value"] == 120
    assert reset_timeout["source"] == "RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT"
    assert found["circuit_breaker.failure_if"]["variable"] is None


def test_config_of_a_name_shows_what_is_its_own(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime():
        CircuitBreaker("payments-api", failure_threshold=7, reset_timeout=9).record_failure()
    mine = "RESILIENCE_POLICIES__PAYMENTS_API__CIRCUIT_BREAKER__RESET_TIMEOUT"
    monkeypatch.setenv(mine, "11")
    found = settings(run, "payments-api")
    assert found["circuit_breaker.failure_threshold"]["value"] == 7
    assert found["circuit_breaker.failure_threshold"]["source"] == "stored by the code that made it"
    assert (found["circuit_breaker.reset_timeout"]["value"], found["circuit_breaker.reset_timeout"]["source"]) == (
        11,
        mine,
    )
    assert settings(run)["circuit_breaker.failure_threshold"]["value"] == 3


def test_config_shows_no_secrets(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("resilience.storage", "unlisted", "UnlistedStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "unlisted://me:hunter2@host/0?token=hunter2")
    for words in (["config"], ["config", "x"], ["config", "--json"], ["doctor"], ["plugins"], ["status"]):
        done = run(*words)
        assert "hunter2" not in done.out + done.err
    assert settings(run)["core.storage"]["value"] == "unlisted://***@host/0?token=***"


def test_config_shows_what_is_known_when_the_storage_does_not_answer(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "occupied").write_text("no folder")
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "occupied").as_uri())
    done = run("config", "x")
    assert done.status == 69
    (line,) = done.err.splitlines()
    assert line.startswith("resilience: the settings that code stored for circuit_breaker 'x' cannot be read: ")
    assert "circuit_breaker.failure_threshold" in done.out


def test_config_passes_over_a_policy_that_does_not_load(run: Run, install: Install) -> None:
    install("resilience.policy", "broken", "no_such_module:Policy")
    done = run("config")
    assert done.status == 0
    assert done.err.startswith("resilience: warning: plugin 'broken' (no_such_module:Policy of plugin_broken 1.5)")
    assert "circuit_breaker.failure_threshold" in done.out


def test_config_names_the_file_that_a_setting_comes_from(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text('[circuit_breaker]\nreset_timeout = "2m"\n[policies.a.circuit_breaker]\nfailure_threshold = 9\n')
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    found = settings(run, "a")
    assert (found["core.config"]["value"], found["core.config"]["source"]) == (str(path), "RESILIENCE_CONFIG")
    reset_timeout, threshold = found["circuit_breaker.reset_timeout"], found["circuit_breaker.failure_threshold"]
    assert (reset_timeout["value"], reset_timeout["source"]) == (120, f"{path}: circuit_breaker.reset_timeout")
    assert (threshold["value"], threshold["source"]) == (9, f"{path}: policies.a.circuit_breaker.failure_threshold")
    assert found["journal.enabled"]["value"] is True


@pytest.mark.parametrize(
    "content", ["[circuit_breaker\n", "zzz = 1\n", "[circuit_breaker]\nreset_timeout = true\n", None]
)
def test_a_file_that_is_wrong_is_told_in_one_line_by_every_verb(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "resilience.toml"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    for words in (["check", "a"], ["status"], ["config"], ["events"]):
        done = run(*words)
        assert (done.status, done.out) == (78, "")
        (line,) = done.err.splitlines()
        assert line.startswith("resilience: ")
        assert str(path) in line


def test_config_shows_what_was_left_open_as_it_is_in_force(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(run)
    open_ones = ("failure_threshold", "minimum_calls", "reset_timeout_max", "permit_timeout")
    assert [found[f"circuit_breaker.{name}"]["value"] for name in open_ones] == [3, 10, 600, 60]
    assert {found[f"circuit_breaker.{name}"]["source"] for name in open_ones} == {"default"}
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__WINDOW", "time")
    assert settings(run)["circuit_breaker.failure_threshold"]["value"] is None


def test_config_passes_over_an_observer_that_does_not_load(run: Run, install: Install) -> None:
    install("resilience", "broken", "no_such_module:Observer")
    assert run("config").status == 0


# --- plugins ----------------------------------------------------------------------------------------------------------


def test_plugins_names_each_with_its_distribution(run: Run) -> None:
    done = run("plugins")
    assert (done.status, done.err) == (0, "")
    titles, *found = rows(done.out)
    assert titles == ["GROUP", "NAME", "STATUS", "DISTRIBUTION", "VERSION", "VALUE", "HOOKS"]
    assert [row[:4] for row in found] == [
        ["resilience.storage", "file", "in use", "resilience-framework"],
        ["resilience.storage", "memory", "installed", "resilience-framework"],
        ["resilience.policy", "circuit_breaker", "in use", "resilience-framework"],
        ["resilience", "journal", "in use", "resilience-framework"],
        ["resilience", "logging", "in use", "resilience-framework"],
    ]
    hooks = {row[1]: row[6:] for row in found if row[1] != "journal"}
    assert hooks == {
        "file": [", ".join(STORAGE_HOOKS)],
        "memory": [", ".join(STORAGE_HOOKS)],
        "circuit_breaker": [],
        "logging": ["transition, event"],
    }


def test_plugins_shows_what_does_not_load_and_why(run: Run, install: Install) -> None:
    install("resilience.storage", "broken", "no_such_module:Storage")
    done = run("plugins")
    assert (done.status, done.err) == (0, "")
    (broken,) = [row for row in rows(done.out) if row[1] == "broken"]
    assert broken[2:5] == ["broken", "plugin_broken", "1.5"]
    assert broken[5:] == ["no_such_module:Storage", "ModuleNotFoundError: No module named 'no_such_module'"]


def test_plugins_as_json(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("resilience.storage", "broken", "no_such_module:Storage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    found = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").out)}
    assert found["broken"] == {
        "group": "resilience.storage",
        "name": "broken",
        "value": "no_such_module:Storage",
        "distribution": "plugin_broken",
        "version": "1.5",
        "hooks": [],
        "loads": False,
        "error": "ModuleNotFoundError: No module named 'no_such_module'",
        "chosen": False,
    }
    assert found["file"]["hooks"] == [f"resilience_{hook}" for hook in STORAGE_HOOKS]
    assert found["circuit_breaker"]["hooks"] == []
    assert (found["memory"]["chosen"], found["memory"]["loads"], found["file"]["chosen"]) == (True, True, False)


def test_plugins_are_shown_though_the_configuration_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_REDIS__TIMEOUT", "3")
    done = run("plugins")
    assert done.status == 78
    assert done.err.startswith("resilience: RESILIENCE_REDIS__TIMEOUT: ")
    assert [row[2] for row in rows(done.out)] == ["STATUS", "installed", "installed", "in use", "in use", "in use"]


# --- doctor -----------------------------------------------------------------------------------------------------------


def checks(run: Run, *, status: int = 0) -> dict[str, dict[str, Any]]:
    done = run("doctor", "--json")
    assert (done.status, done.err) == (status, "")
    return {check["name"]: check for check in json.loads(done.out)}


def test_doctor_finds_the_file_storage_well(run: Run, tmp_path: Path) -> None:
    found = checks(run)
    assert all(check["ok"] for check in found.values())
    assert {"configuration", "read", "commit", "stale commit", "exclusion", "latency"} <= set(found)
    assert found["configuration"]["detail"].endswith((tmp_path / "state-home" / "resilience").as_uri())
    assert found["exclusion"]["detail"] == "another process is kept out while the lock is held"
    with Runtime() as runtime:
        assert runtime.keys() == []


def test_doctor_as_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    done = run("doctor")
    assert (done.status, done.err) == (0, "")
    assert rows(done.out)[:2] == [
        ["CHECK", "RESULT", "DETAIL"],
        ["configuration", "ok", "RESILIENCE_STORAGE means memory:"],
    ]
    assert ["exclusion", "ok", "the storage is for the threads of one process"] in rows(done.out)


def test_doctor_says_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("no folder")
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "occupied").as_uri())
    done = run("doctor")
    assert (done.status, done.err) == (69, "")
    titles, *_, last = rows(done.out)
    assert titles == ["CHECK", "RESULT", "DETAIL", "FIX"]
    assert last[:2] == ["read", "FAILED"]
    assert last[3] == "see that the storage runs and can be reached"


def test_doctor_works_with_a_storage_that_deletes_nothing(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.storage", "unlisted", "UnlistedStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "unlisted:")
    assert all(check["ok"] for check in checks(run).values())


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")


@pytest.mark.usefixtures("memory")
def test_doctor_finds_a_storage_that_invents_records(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MemoryStorage.resilience_load

    def load(self: MemoryStorage, key: Any, timeout: float) -> Any:
        snapshot = plain(self, key, timeout)
        snapshot.payload = b"{}"
        return snapshot

    load.__dict__.update(plain.__dict__)
    monkeypatch.setattr(MemoryStorage, "resilience_load", load)
    found = checks(run, status=69)
    assert (found["read"]["ok"], found["read"]["detail"]) == (False, "a record that nobody wrote was found")
    assert (found["commit"]["ok"], found["commit"]["detail"]) == (False, "what was committed is not what is read")


@pytest.mark.usefixtures("memory")
def test_doctor_finds_a_storage_that_ignores_versions(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MemoryStorage.resilience_save

    def save(self: MemoryStorage, key: Any, payload: Any, expected: Any, expires_at: Any, timeout: Any) -> Any:
        now = self.resilience_load(key, 0).version
        assert expected is None or isinstance(expected, Version)
        return plain(self, key, payload, now, expires_at, timeout)

    save.__dict__.update(plain.__dict__)
    monkeypatch.setattr(MemoryStorage, "resilience_save", save)
    found = checks(run, status=69)
    assert (found["stale commit"]["ok"], found["stale commit"]["detail"]) == (False, "a stale commit was not refused")


@pytest.mark.usefixtures("memory")
def test_doctor_finds_a_storage_that_raises_what_it_likes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MemoryStorage.resilience_save

    def save(self: MemoryStorage, key: Any, payload: Any, expected: Any, expires_at: Any, timeout: Any) -> Any:
        raise ZeroDivisionError("in the plugin")

    save.__dict__.update(plain.__dict__)
    monkeypatch.setattr(MemoryStorage, "resilience_save", save)
    found = checks(run, status=69)
    assert found["commit"] == {
        "name": "commit",
        "ok": False,
        "detail": "ZeroDivisionError: in the plugin",
        "fix": "repair the plugin",
    }


@pytest.mark.usefixtures("memory")
def test_doctor_tells_that_a_storage_compares_instead_of_locking(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = MemoryStorage.resilience_lock

    def lock(self: MemoryStorage, key: Any, timeout: float) -> Any:
        return nullcontext()

    lock.__dict__.update(plain.__dict__)
    monkeypatch.setattr(MemoryStorage, "resilience_lock", lock)
    monkeypatch.setattr(MemoryStorage, "capabilities", frozenset({Capability.MACHINES}))
    assert checks(run)["exclusion"]["detail"] == "the storage does not lock: it refuses stale commits instead"


@contextmanager
def held_by_nobody() -> Generator[None]:
    yield


def test_doctor_finds_a_lock_that_keeps_nobody_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def lock(self: FileStorage, key: Any, timeout: float) -> Any:
        return held_by_nobody()

    def untried(*_: object) -> doctor.Check:  # the storage notices that it is used without its lock
        return doctor.Check("untried", ok=True, detail="")

    for name in ("_read", "_written", "_conflict", "_latency"):
        monkeypatch.setattr(doctor, name, untried)
    lock.__dict__.update(FileStorage.resilience_lock.__dict__)
    monkeypatch.setattr(FileStorage, "resilience_lock", lock)
    found = checks(run, status=69)["exclusion"]
    assert (found["ok"], found["detail"]) == (False, "another process got the lock while it was held")


def test_doctor_tells_when_another_process_cannot_try(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXCLUDED", 98)
    found = checks(run, status=69)["exclusion"]
    assert (found["ok"], found["detail"]) == (False, "another process could not try it")


@pytest.mark.usefixtures("memory")
def test_doctor_finds_a_storage_that_is_slower_than_its_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(doctor, "monotonic", lambda: next(times))
    latency = checks(run, status=69)["latency"]
    assert (latency["ok"], latency["fix"]) == (False, "raise RESILIENCE_STORAGE_TIMEOUT")


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("check", [("disk", False, "it is full", "make room"), ("disk", True, "some room", "")])
def test_doctor_asks_the_storage_itself(
    run: Run, monkeypatch: pytest.MonkeyPatch, check: tuple[str, bool, str, str]
) -> None:
    def examine(_: MemoryStorage) -> list[tuple[str, bool, str, str]]:
        return [check]

    monkeypatch.setattr(MemoryStorage, "examine", examine, raising=False)
    found = checks(run, status=0 if check[1] else 69)["disk"]
    assert found == {"name": check[0], "ok": check[1], "detail": check[2], "fix": check[3]}


@pytest.mark.usefixtures("memory")
def test_doctor_lives_with_a_storage_that_cannot_examine_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(_: MemoryStorage) -> Any:
        raise StorageUnavailable("not today")

    monkeypatch.setattr(MemoryStorage, "examine", examine, raising=False)
    found = checks(run, status=69)
    assert found["examine"] == {
        "name": "examine",
        "ok": False,
        "detail": "not today",
        "fix": "report this to the makers of storage memory",
    }
    assert found["latency"]["ok"]


def test_the_other_process_tells_by_its_status_whether_it_got_the_lock() -> None:
    with Runtime() as runtime:
        lock = runtime.opened.ports.lock
        assert doctor.try_lock("doctor", "free") == 11
        with lock(Key("doctor", "taken"), 1):
            assert doctor.try_lock("doctor", "taken") == 10
