"""Plugins that nobody wants: block-list, allow-list, no loading by itself.  What is kept out is not even imported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from resilience import CircuitBreaker, ConfigurationError, Runtime, plan
from resilience.settings import ConfigurationWarning

if TYPE_CHECKING:
    from unit.cli.command_line import Install, Run


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that must not be imported."""
    name = f"bomb_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return name


def observers(**variables: str) -> set[str]:
    environ = {"RESILIENCE_STORAGE": "memory:", **{f"RESILIENCE_{name}": value for name, value in variables.items()}}
    with Runtime(environ=environ) as runtime:
        return {name for name, _ in runtime.opened.observers or ()}


def test_all_are_loaded_where_nothing_is_said() -> None:
    assert observers() == {"journal", "logging"}


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({"PLUGINS_BLOCKED": "journal"}, {"logging", "other"}),
        ({"PLUGINS_BLOCKED": " Journal , logging"}, {"other"}),
        ({"PLUGINS_BLOCKED": "resilience_framework", "STORAGE": "mine:"}, {"other"}),
        ({"PLUGINS_ALLOWED": "logging,other"}, {"logging", "other"}),
        ({"PLUGINS_ALLOWED": "plugin-other"}, {"other"}),
        ({"PLUGINS_ALLOWED": "none"}, {"journal", "logging", "other"}),
        ({"PLUGINS_ALLOWED": "logging,journal", "PLUGINS_BLOCKED": "journal"}, {"logging"}),
        ({"PLUGINS_AUTOLOAD": "0"}, set[str]()),
        ({"PLUGINS_AUTOLOAD": "0", "PLUGINS_ALLOWED": "journal"}, {"journal"}),
        ({"PLUGINS_AUTOLOAD": "1"}, {"journal", "logging", "other"}),
    ],
)
def test_what_is_loaded(install: Install, variables: dict[str, str], loaded: set[str]) -> None:
    install("resilience", "other", "unit.test_fitting:MemoryObserver")
    install("resilience.storage", "mine", "resilience_memory:MemoryStorage")
    assert observers(**variables) == loaded


def test_an_observer_that_is_blocked_is_not_imported_and_its_variables_are_passed_over(
    install: Install, bomb: str
) -> None:
    install("resilience", "dangerous", f"{bomb}:Observer")
    assert "dangerous" not in observers(PLUGINS_BLOCKED="dangerous", DANGEROUS__FUSE="short")
    assert "dangerous" not in observers(PLUGINS_AUTOLOAD="no", DANGEROUS__FUSE="short")
    assert bomb not in sys.modules


def test_a_storage_that_is_blocked_cannot_be_chosen(install: Install, bomb: str) -> None:
    install("resilience.storage", "dangerous", f"{bomb}:Storage")
    environ = {"RESILIENCE_STORAGE": "dangerous:", "RESILIENCE_PLUGINS_BLOCKED": "dangerous"}
    with Runtime(environ=environ) as runtime, pytest.raises(ConfigurationError) as refused:
        runtime.keys()
    assert str(refused.value) == (
        f"RESILIENCE_STORAGE: RESILIENCE_PLUGINS_BLOCKED blocks plugin 'dangerous' ({bomb}:Storage of plugin_dangerous "
        "1.5); choose another one, or take it off that list"
    )
    assert bomb not in sys.modules


def test_a_storage_needs_no_allowance(install: Install) -> None:
    assert observers(PLUGINS_ALLOWED="journal") == {"journal"}


def test_a_policy_that_is_blocked_is_not_imported_and_its_variables_are_passed_over(
    install: Install, bomb: str, tmp_path: Path
) -> None:
    install("resilience.policy", "dangerous", f"{bomb}:Policy")
    (tmp_path / "resilience.toml").write_text("[dangerous]\nfuse = 1\n[policies.x.dangerous]\nfuse = 2\n")
    loaded = observers(
        PLUGINS_BLOCKED="dangerous",
        DANGEROUS__FUSE="short",
        POLICIES__X__DANGEROUS__FUSE="long",
        CONFIG=str(tmp_path / "resilience.toml"),
    )
    assert loaded == {"journal", "logging"}
    assert bomb not in sys.modules


def test_a_guard_whose_policy_is_blocked_says_so() -> None:
    environ = {"RESILIENCE_STORAGE": "memory:", "RESILIENCE_PLUGINS_BLOCKED": "circuit-breaker"}
    with Runtime(environ=environ), pytest.raises(ConfigurationError) as refused:
        CircuitBreaker("payments").status()
    assert str(refused.value) == (
        "CircuitBreaker('payments'): RESILIENCE_PLUGINS_BLOCKED keeps the policy 'circuit_breaker' out"
    )


@pytest.mark.parametrize("field", ["PLUGINS_BLOCKED", "PLUGINS_ALLOWED"])
def test_a_name_that_nothing_has_is_an_error_with_a_suggestion(field: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        observers(**{field: "logging,jornal"})
    assert str(refused.value) == (
        f"RESILIENCE_{field}: nothing that is installed is called 'jornal': did you mean journal?"
        " (RESILIENCE_UNKNOWN=warn passes over what is unknown)"
    )
    with pytest.raises(ConfigurationError, match=r"'zzz': there are aesgcm, circuit_breaker, "):
        observers(**{field: "zzz"})
    with pytest.warns(ConfigurationWarning, match="'zzz'"):
        assert observers(**{field: "zzz,logging", "UNKNOWN": "warn"})


@pytest.mark.parametrize(("field", "text"), [("PLUGINS_BLOCKED", "a,,b"), ("PLUGINS_AUTOLOAD", "perhaps")])
def test_what_cannot_be_is_refused(field: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"RESILIENCE_{field}: "):
        observers(**{field: text})


def test_the_file_can_say_it_too_and_a_reload_goes_by_it(tmp_path: Path) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text('storage = "memory:"\nplugins_blocked = ["journal"]\n')
    with Runtime(environ={"RESILIENCE_CONFIG": str(path)}) as runtime:
        assert {name for name, _ in runtime.opened.observers or ()} == {"logging"}
        path.write_text('storage = "memory:"\nplugins_autoload = false\n')
        runtime.reload()
        assert runtime.opened.observers == []
        assert runtime.configuration.selection.bar("resilience", "logging") == f"{path}: plugins_autoload"


# --- the command line -------------------------------------------------------------------------------------------------


def test_config_shows_what_keeps_plugins_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "journal")
    found = {(one["section"], one["setting"]): one for one in json.loads(run("config", "--json").out)}
    blocked = found["core", "plugins_blocked"]
    assert (blocked["value"], blocked["source"]) == (["journal"], "RESILIENCE_PLUGINS_BLOCKED")
    assert not any(section == "journal" for section, _ in found)


def test_plugins_names_what_is_kept_out_and_by_what(
    run: Run, install: Install, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience", "dangerous", f"{bomb}:Observer")
    install("resilience.storage", "explosive", f"{bomb}:Storage")
    monkeypatch.setenv("RESILIENCE_PLUGINS_ALLOWED", "logging")
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "explosive")
    found = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").out)}
    kept_out = {name: plugin["blocked_by"] for name, plugin in found.items() if plugin["blocked_by"]}
    assert kept_out == {
        "dangerous": "RESILIENCE_PLUGINS_ALLOWED",
        "journal": "RESILIENCE_PLUGINS_ALLOWED",
        "explosive": "RESILIENCE_PLUGINS_BLOCKED",
    }
    dangerous = found["dangerous"]
    assert (dangerous["loads"], dangerous["chosen"], dangerous["hooks"], dangerous["error"]) == (False, False, [], None)
    (line,) = [line for line in run("plugins").out.splitlines() if "dangerous" in line and "observer" not in line]
    assert "not loaded" in line
    assert line.endswith("kept out by RESILIENCE_PLUGINS_ALLOWED")
    assert bomb not in sys.modules


def test_plugins_shows_what_does_not_fit(run: Run, install: Install) -> None:
    install("resilience", "watcher", "unit.test_fitting:Argument")
    found = {plugin["name"]: plugin for plugin in json.loads(run("plugins", "--json").out)}["watcher"]
    assert (found["loads"], found["hooks"]) == (False, ["resilience_transition"])
    assert found["error"].startswith("resilience_transition takes 'transitoin'")
    (line,) = [line for line in run("plugins").out.splitlines() if " watcher " in line]
    assert line.endswith("did you mean transition? It has transition")


def test_nothing_is_loaded_while_it_is_unknown_what_is_blocked(
    run: Run, install: Install, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.policy", "dangerous", f"{bomb}:Policy")
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "dangerous,,")
    done = run("plugins")
    assert done.status == 78
    assert "an item of the list is empty" in done.err
    assert done.out.count("kept out by the configuration, which is wrong") == len(done.out.splitlines()) - 1
    helped = run("--help")
    assert helped.status == 0
    assert "Not shown: RESILIENCE_PLUGINS_BLOCKED: an item of the list is empty" in helped.out
    assert run("check", "x").status == 78
    assert bomb not in sys.modules


def test_verbs_of_what_is_blocked_are_not_there(
    run: Run, install: Install, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.policy", "dangerous", f"{bomb}:Policy")
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "dangerous,journal")
    done = run("events")
    assert done.status == 2
    assert "there is no verb 'events'" in done.err
    assert "  check " in run("--help").out
    assert run("check", "x").status == 0
    assert bomb not in sys.modules


def kept_plans() -> int:
    return len(list(Path(os.environ["XDG_CACHE_HOME"]).glob("resilience/*")))


def test_a_kept_plan_does_not_bring_back_what_is_blocked_now(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("check", "x").status == 0
    assert kept_plans() == 1
    assert plan.find(os.environ) is not None
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "file")
    assert plan.find(os.environ) is None
    done = run("check", "x")
    assert done.status == 78
    assert "RESILIENCE_PLUGINS_BLOCKED blocks plugin 'file'" in done.err


def test_a_plan_is_kept_with_what_may_be_loaded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "journal")
    assert run("failure", "x").status == 0
    kept = plan.find(os.environ)
    assert kept is not None
    assert [label for label, *_ in kept["observers"] if "#" not in label] == ["logging"]
    assert "events" not in kept["verbs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("RESILIENCE_DANGEROUS__FUSE", "short"), ("RESILIENCE_POLICIES__X__DANGEROUS__FUSE", "short")],
)
def test_no_plan_is_kept_of_what_nobody_could_check(
    run: Run, install: Install, bomb: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    install("resilience.policy", "dangerous", f"{bomb}:Policy")
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "dangerous")
    monkeypatch.setenv(name, value)
    assert run("check", "x").status == 0
    assert kept_plans() == 0


def test_nor_of_the_variables_of_an_observer_that_is_kept_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_PLUGINS_BLOCKED", "journal")
    monkeypatch.setenv("RESILIENCE_JOURNAL__ENABLED", "a secret, for all we know")
    assert run("check", "x").status == 0
    assert kept_plans() == 0
