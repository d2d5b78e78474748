"""One look instead of an engine: it says yes only where the engine would, without anything to commit."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from storages import giving

from resilience import CircuitBreaker, Runtime, Snapshot, glance, plan
from resilience.cli import main
from resilience_circuit_breaker.policy import CircuitBreakerPolicy
from resilience_filelock import FileReader, FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from unit.cli.command_line import Install, Run


def lets_in(name: str) -> bool:
    kept = plan.find(os.environ)
    assert kept is not None
    return glance.lets_in(kept, os.environ, CircuitBreakerPolicy, name)


def test_it_lets_in_what_is_closed(run: Run) -> None:
    run("check", "a")
    assert lets_in("a")
    run("failure", "a")
    assert lets_in("a")


@pytest.mark.parametrize("verb", ["open", "disable", "metrics-only"])
def test_it_says_of_what_was_put_by_hand_what_the_engine_says(run: Run, verb: str) -> None:
    run("check", "a")
    run(verb, "a")
    assert lets_in("a") is (verb != "open")
    assert run("check", "a").status == (75 if verb == "open" else 0)


def test_it_leaves_a_probe_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__RESET_TIMEOUT", "0")
    for _ in range(3):
        run("failure", "a")
    assert run("check", "a").status == 0
    assert not lets_in("a")
    assert '"state": "half_open"' in run("status", "a", "--json").out


def test_it_goes_by_what_code_stored(run: Run) -> None:
    run("check", "a")
    with Runtime():
        breaker = CircuitBreaker("a", window="count", window_size=4, minimum_calls=2)
        breaker.record_failure()
    assert lets_in("a")
    with Runtime():
        CircuitBreaker("a", window="count", window_size=4, minimum_calls=2).record_failure()
    assert not lets_in("a")


def test_settings_that_have_to_be_checked_are_left_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    with Runtime():
        CircuitBreaker("a", failure_threshold=5).record_failure()
    assert lets_in("a")

    def sparing(*known: Any) -> Any:
        return None if len(known) > 3 else plan.policy_of(*known)

    monkeypatch.setattr(glance, "policy_of", sparing)
    assert not lets_in("a")
    monkeypatch.setattr(glance, "policy_of", giving(None))
    assert not lets_in("a")


@pytest.mark.parametrize("fault", [OSError("gone"), ValueError("unclear"), ZeroDivisionError("a plugin")])
def test_a_fault_is_left_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    run("check", "a")

    def fail(*_: object) -> Snapshot:
        raise fault

    monkeypatch.setattr(FileReader, "resilience_load", fail)
    assert not lets_in("a")
    assert run("check", "a") == (0, "", "")


def test_a_time_that_all_share_is_left_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    monkeypatch.setattr(FileReader, "resilience_load", giving(Snapshot(None, None, time=1.0)))
    assert not lets_in("a")


def test_a_url_that_has_to_be_found_out_is_left_to_the_engine(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    monkeypatch.setattr(glance, "url_of", giving(None))
    assert not lets_in("a")


class PlainStorage(MemoryStorage):
    """A storage without a reader; it is made for the look, and closed after it."""

    closed = 0

    def close(self) -> None:
        type(self).closed += 1


class UnreadableStorage(MemoryStorage):
    """A storage whose reader does not load."""

    reader = "no_such_module:Reader"


def test_without_a_reader_the_storage_itself_is_asked(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.storage", "plain", "unit.cli.test_glance:PlainStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "plain:")
    run("check", "a")
    before = PlainStorage.closed
    assert lets_in("a")
    assert PlainStorage.closed == before + 1


def test_a_reader_that_does_not_load_is_done_without(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.storage", "unreadable", "unit.cli.test_glance:UnreadableStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "unreadable:")
    run("check", "a")
    assert lets_in("a")


def test_the_file_storage_is_not_made_for_a_look(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    run("failure", "a")

    def make(*_: object) -> None:
        raise AssertionError("made")

    monkeypatch.setattr(FileStorage, "__init__", make)
    assert run("check", "a") == (0, "", "")


# --- the end of the process -------------------------------------------------------------------------------------------


class Left(BaseException):
    """In the place of the end of the process."""


def leave(status: int) -> None:
    raise Left(status)


@pytest.mark.parametrize("stream", ["working", "closed", "none"])
def test_a_process_of_its_own_ends_at_once(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    ended: list[str] = []
    monkeypatch.setattr(sys, "argv", ["resilience", "--version"])
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: ended.append("atexit"))
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("gc.disable", lambda: None)
    monkeypatch.delitem(sys.modules, "threading")
    if stream == "closed":
        out = io.StringIO()
        monkeypatch.setattr(out, "flush", out.close)
        monkeypatch.setattr(sys, "stderr", out)
        out.close()
    elif stream == "none":
        monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(Left) as left:
        main()
    assert left.value.args == (0,)
    assert ended == ["atexit"]


def test_a_process_with_threads_ends_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resilience", "--version"])
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("gc.disable", lambda: None)
    assert main() == 0


def test_an_interruption_from_the_first_line_on_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gc.disable", interrupt)
    assert main() == 130


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")  # noqa: PTH110
def test_what_cannot_be_said_does_not_change_the_answer() -> None:
    """The interpreter would try again when it ends, and leave with 120."""
    program = "import threading; from resilience.cli import main; raise SystemExit(main())"
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123 - no file
        done = subprocess.run([sys.executable, "-c", program], stderr=full, timeout=60, check=False)
        assert done.returncode == 2
        done = subprocess.run([sys.executable, "-c", program, "status"], stdout=full, timeout=60, check=False)
        assert done.returncode == 74


def test_what_others_want_done_at_the_end_is_done() -> None:
    program = (
        "import atexit, sys; atexit.register(print, 'told at the end'); sys.argv[1:] = ['--version'];"
        "from resilience.cli import main; main(); print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("resilience ")
    assert "told at the end" in rest
    assert done.returncode == 0
