"""A policy of a third party works as the breaker does: guard, verbs, variables, events, any number of processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from public_api import foreign
from storages import Recorder

from resilience import ConfigurationError, Key, PolicyRejected, Runtime
from resilience.plugins import installed
from resilience.testing import ManualClock

if TYPE_CHECKING:
    from unit.cli.command_line import Run

EXAMPLE = Path(__file__).parents[1] / "policy_example"
SOURCE = EXAMPLE / "src"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the policy is installed, as its wheel would be: its package, and what its distribution says."""
    information = tmp_path / "site" / "resilience_error_budget-1.0.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: resilience-error-budget\nVersion: 1.0.0\n")
    (information / "entry_points.txt").write_text(
        "[resilience.policy]\nerror_budget = resilience_error_budget:ErrorBudgetPolicy\n"
    )
    folders = [str(tmp_path / "site"), str(SOURCE)]
    monkeypatch.setattr(sys, "path", [*folders, *sys.path])
    return folders


@pytest.fixture
def budget(path: list[str]) -> Any:
    """The class that users import."""
    policy: Any = installed("resilience.policy")["error_budget"].load()
    return policy.guard_type()


def test_it_uses_public_names_only() -> None:
    files = list(SOURCE.rglob("*.py"))
    assert {file.name for file in files} == {"__init__.py", "policy.py", "guard.py", "settings.py", "verbs.py"}
    assert {file.name: found for file in files if (found := foreign(file, own="resilience_error_budget"))} == {}


def test_decorated_entered_and_called(budget: Any, tmp_path: Path) -> None:
    clock, told = ManualClock(), Recorder()
    with Runtime(storage=tmp_path.as_uri(), clock=clock, observers=[told], environ={}) as runtime:
        payments = budget("payments", failures=2, period=60)

        def divide(amount: int) -> int:
            return 100 // amount

        charge = payments(divide)
        assert charge(5) == 20
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                charge(0)
        with pytest.raises(PolicyRejected, match=r"error budget 'payments': 2 failures") as rejected:
            charge(5)
        assert (rejected.value.name, rejected.value.retry_after) == ("payments", 60)
        with pytest.raises(PolicyRejected), payments:
            raise AssertionError("it was let in")
        status = payments.status()
        assert (status.state, status.failures, status.left, status.retry_after) == ("spent", 2, 0, 60)
        clock.advance(60)
        assert payments.call(charge, 4) == 25
        assert payments.status().left == 2
        assert told.moves == [("within", "spent"), ("spent", "within")]
        assert [transition.reason for transition in told.transitions] == ["2 failures", "a new period"]
        assert runtime.keys() == [Key("error_budget", "payments")]


def test_in_coroutines_and_by_hand(budget: Any) -> None:
    async def main() -> None:
        with Runtime(storage="memory:", environ={}):
            payments = budget("payments", failures=1)
            with pytest.raises(OSError, match="no answer"):
                await payments.acall(fails)
            with pytest.raises(PolicyRejected):
                await payments.acall(fails)
            payments.refill()
            permit = payments.acquire()
            permit.failure(OSError())
            assert payments.status().state == "spent"
            with pytest.raises(ValueError, match="has no 'empty'"):
                payments.control("empty")

    async def fails() -> None:
        raise OSError("no answer")

    asyncio.run(main())


def test_a_late_report_changes_nothing(budget: Any) -> None:
    told = Recorder()
    with Runtime(storage="memory:", observers=[told], environ={}):
        payments = budget("payments", failures=1)
        late = [payments.acquire() for _ in range(3)]
        payments.spend("Timeout")
        payments.refill()
        for permit in late:
            permit.failure("Timeout")
        assert payments.status().failures == 0
    assert told.names == ["late"], "told once a second"


def test_configured_by_variables_and_checked_like_ours(budget: Any) -> None:
    environ = {
        "RESILIENCE_STORAGE": "memory:",
        "RESILIENCE_ERROR_BUDGET__FAILURES": "7",
        "RESILIENCE_POLICIES__PAYMENTS__ERROR_BUDGET__FAILURES": "3",
        "RESILIENCE_ERROR_BUDGET__PERIOD": "24h",
    }
    with Runtime(environ=environ):
        assert budget("payments", failures=5).status().left == 3
        assert budget("orders").status().left == 7
        assert budget("orders", failures=5).status().left == 5
    for name, value, says in (
        ("RESILIENCE_ERROR_BUDGET__FAILURS", "1", "did you mean RESILIENCE_ERROR_BUDGET__FAILURES?"),
        ("RESILIENCE_ERROR_BUDGET__FAILURES", "0", "RESILIENCE_ERROR_BUDGET__FAILURES: '0' is refused"),
    ):
        with Runtime(environ={**environ, name: value}), pytest.raises(ConfigurationError) as refused:
            budget("orders").status()
        assert says in str(refused.value)
    with pytest.raises(ConfigurationError, match=r"ErrorBudget\('x', failures=…\): 0 is refused"):
        budget("x", failures=0)


@pytest.mark.parametrize(("mode", "raises"), [("local", None), ("allow", None), ("deny", PolicyRejected)])
def test_while_the_storage_does_not_answer(budget: Any, tmp_path: Path, mode: str, raises: Any) -> None:
    (tmp_path / "occupied").write_text("no folder")
    with Runtime(storage=(tmp_path / "occupied").as_uri(), environ={}):
        payments = budget("payments", failures=1, on_store_error=mode)
        if raises is None:
            assert payments.call(int) == 0
        else:
            with pytest.raises(raises):
                payments.call(int)
        assert payments.status().degraded


def test_a_damaged_record_is_set_aside_and_a_newer_one_left_alone(budget: Any) -> None:
    key = Key("error_budget", "payments")
    whole: dict[str, object] = {"v": 1, "since": None, "failures": 0, "state": "within", "epoch": 0}
    for fields, degraded in (({}, False), ({**whole, "failures": "many"}, False), ({**whole, "v": 2}, True)):
        payload = json.dumps(fields).encode()
        with Runtime(storage="memory:", environ={}) as runtime:
            runtime.opened.ports.save(key, payload, None, None, 1)
            payments = budget("payments")
            payments.spend()
            assert payments.status().degraded == degraded
            assert (runtime.opened.ports.load(key, 1).payload == payload) == degraded


# --- the command line, and other processes ----------------------------------------------------------------------------


def shell(path: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *filter(None, sys.path)])}
    return subprocess.run(
        [sys.executable, "-m", "resilience", *words],
        env=environ,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.usefixtures("budget")
def test_its_verbs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_ERROR_BUDGET__FAILURES", "2")
    assert run("ask", "payments") == (0, "", "")
    assert run("spend", "payments", "--error", "Timeout") == (0, "", "")
    assert run("spend", "payments") == (0, "", "")
    done = run("ask", "payments")
    assert (done.status, done.out, done.err) == (75, "", "resilience: error budget 'payments': 2 failures\n")
    assert run("status") == (0, "there are no circuit breakers yet\n", ""), "its own is named after its kind"
    shown = run("error_budget.status")
    assert [line.split() for line in shown.out.splitlines()] == [
        ["NAME", "STATE", "FAILURES", "LEFT"],
        ["payments", "spent", "2", "0"],
    ]
    (status,) = json.loads(run("error_budget.status", "payments", "--json").out)
    assert 86000 < status.pop("retry_after") <= 86400
    assert status == {"name": "payments", "state": "spent", "failures": 2, "left": 0, "degraded": False}
    assert run("refill", "payments").status == 0
    assert run("ask", "payments").status == 0
    events = [json.loads(line)["data"]["new"] for line in run("events", "--json").out.splitlines()]
    assert events == ["spent", "within"]


@pytest.mark.usefixtures("budget")
def test_it_is_listed_explained_and_helped(run: Run) -> None:
    found = {one["name"]: one for one in json.loads(run("plugins", "--json").out)}["error_budget"]
    assert (found["distribution"], found["version"], found["loads"]) == ("resilience-error-budget", "1.0.0", True)
    settings = {(one["section"], one["setting"]): one for one in json.loads(run("config", "payments", "--json").out)}
    assert settings["error_budget", "failures"]["variable"] == "RESILIENCE_POLICIES__PAYMENTS__ERROR_BUDGET__FAILURES"
    helped = run("--help").out
    assert "  refill " in helped
    assert "  error_budget.status " in helped


def test_two_processes_share_it(budget: Any, path: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "state").as_uri())
    monkeypatch.setenv("RESILIENCE_ERROR_BUDGET__FAILURES", "2")
    with Runtime():
        payments = budget("payments")
        payments.spend("Timeout")
        done = shell(path, "spend", "payments")
        assert (done.returncode, done.stderr) == (0, "")
        with pytest.raises(PolicyRejected):
            payments.call(int)
        assert shell(path, "ask", "payments").returncode == 75
        payments.refill()
        assert shell(path, "ask", "payments").returncode == 0


@pytest.mark.usefixtures("budget")
def test_what_a_file_may_have_meant_is_of_the_policy_it_names(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text("[policies.payments.circuit_breaker]\nfailure = 1\n")
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    done = run("config")
    assert done.status == 78
    assert "policies.payments.circuit_breaker.failure_" in done.err
    assert "error_budget" not in done.err
