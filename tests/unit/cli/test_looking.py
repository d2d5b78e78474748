"""`config` and `plugins`: the verbs of the core that look at what is set and installed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from resilience import CircuitBreaker, Runtime

if TYPE_CHECKING:
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


REDIS_SCHEMES = [
    "redis",
    "redis+cluster",
    "redis+sentinel",
    "redis+unix",
    "rediss",
    "rediss+cluster",
    "rediss+sentinel",
    "valkey",
    "valkeys",
]


def test_plugins_names_each_with_its_distribution(run: Run) -> None:
    done = run("plugins")
    assert (done.status, done.err) == (0, "")
    titles, *found = rows(done.out)
    assert titles == ["GROUP", "NAME", "STATUS", "DISTRIBUTION", "VERSION", "VALUE", "HOOKS"]
    assert [row[:4] for row in found] == [
        ["resilience.storage", "aesgcm", "installed", "resilience-framework"],
        ["resilience.storage", "file", "in use", "resilience-framework"],
        ["resilience.storage", "memory", "installed", "resilience-framework"],
        ["resilience.storage", "postgres", "installed", "resilience-framework"],
        ["resilience.storage", "postgresql", "installed", "resilience-framework"],
        *(["resilience.storage", scheme, "installed", "resilience-framework"] for scheme in REDIS_SCHEMES),
        ["resilience.policy", "circuit_breaker", "in use", "resilience-framework"],
        ["resilience", "journal", "in use", "resilience-framework"],
        ["resilience", "logging", "in use", "resilience-framework"],
    ]
    hooks = {row[1]: row[6:] for row in found if row[1] != "journal"}
    assert hooks == {
        "aesgcm": [", ".join([*STORAGE_HOOKS, "aload", "asave"])],
        "file": [", ".join(STORAGE_HOOKS)],
        "memory": [", ".join(STORAGE_HOOKS)],
        "postgres": [", ".join([*STORAGE_HOOKS, "aload", "asave"])],
        "postgresql": [", ".join([*STORAGE_HOOKS, "aload", "asave"])],
        **{scheme: [", ".join([*STORAGE_HOOKS, "aload", "asave"])] for scheme in REDIS_SCHEMES},
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
        "blocked_by": None,
        "chosen": False,
    }
    assert found["file"]["hooks"] == [f"resilience_{hook}" for hook in STORAGE_HOOKS]
    assert found["circuit_breaker"]["hooks"] == []
    assert (found["memory"]["chosen"], found["memory"]["loads"], found["file"]["chosen"]) == (True, True, False)


def test_plugins_are_shown_though_the_configuration_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_RIAK__TIMEOUT", "3")
    done = run("plugins")
    assert done.status == 78
    assert done.err.startswith("resilience: RESILIENCE_RIAK__TIMEOUT: ")
    statuses = {row[0]: row[2] for row in rows(done.out)}
    assert statuses["resilience.storage"] == "installed"
    assert statuses["resilience.policy"] == statuses["resilience"] == "in use"
