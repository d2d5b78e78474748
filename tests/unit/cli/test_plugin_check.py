"""`resilience plugin check`: the conformance kit without pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Install, Run


def test_a_storage_that_is_right(run: Run) -> None:
    done = run("plugin", "check", "memory:", "--quick", "--only", "conflicts, visible")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "contract"
    assert lines[1].startswith("  ✓ conflicts ")
    assert lines[2] == "processes"
    assert lines[3].startswith("  - visible ")
    assert "memory: (MemoryStorage), kit 2, quick" in lines
    assert "declares: inline, push" in lines
    assert lines[-1].startswith("1 passed, 1 skipped in ")


def test_a_storage_that_is_wrong(run: Run, install: Install) -> None:
    install("resilience.storage", "forgetful", "ForgetfulStorage")
    done = run("plugin", "check", "forgetful://me:hunter2@host", "--only", "round_trip,versions")
    assert (done.status, done.err) == (1, "")
    assert "  ✗ round_trip " in done.out
    assert "load finds nothing after a save of 2 bytes" in done.out
    assert "what to do: return from save only when" in done.out
    assert "  - versions " in done.out
    assert "forgetful://***@host (ForgetfulStorage), kit 2" in done.out
    assert "1 failed, 1 skipped" in done.out.splitlines()[-1]


def test_as_json(run: Run, install: Install) -> None:
    install("resilience.storage", "forgetful", "ForgetfulStorage")
    done = run("plugin", "check", "forgetful://me:hunter2@host", "--only", "round_trip", "--json")
    assert (done.status, done.err) == (1, "")
    report = json.loads(done.out)
    assert (report["ok"], report["kit"], report["storage"]) == (False, "2", "forgetful://***@host (ForgetfulStorage)")
    assert [result["outcome"] for result in report["results"]] == ["failed"]


DAMAGING = """
def damage(storage, key):
    with open(storage.path(key), "r+b") as record:
        record.seek(-1, 2)
        last = record.read(1)
        record.seek(-1, 2)
        record.write(bytes([last[0] ^ 1]))
"""


def test_records_are_damaged_and_a_store_does_not_answer(
    run: Run, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a test class gives the kit by two methods is given here by two options."""
    install("resilience.storage", "folder", "conformance.references:FolderStorage")
    (tmp_path / "occupied").write_text("no folder")
    (tmp_path / "damaging.py").write_text(DAMAGING)
    monkeypatch.chdir(tmp_path)
    words = ("plugin", "check", f"folder:{tmp_path / 'store'}", "--only", "damaged,unreachable")
    done = run(*words)
    assert (done.status, done.out.count("  - ")) == (0, 2)  # neither way was given
    done = run(*words, "--damage", "damaging:damage", "--unreachable", (tmp_path / "occupied" / "x").as_uri())
    assert (done.status, done.err) == (0, "")
    assert "  ✓ damaged " in done.out
    assert "  ✓ unreachable " in done.out
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("damaging", "write it as module:function"),
        (":damage", "write it as module:function"),
        ("no_such_module:damage", "ModuleNotFoundError"),
        ("json:no_such_function", "AttributeError"),
        ("sys:path", "'path' of 'sys' is no function"),
    ],
)
def test_a_function_that_is_none(run: Run, text: str, said: str) -> None:
    done = run("plugin", "check", "memory:", "--damage", text)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


def test_no_secret_and_no_escape_code_is_shown(run: Run, install: Install) -> None:
    install("resilience.storage", "loud", "LoudStorage")
    for words in ([], ["--json"]):
        done = run("plugin", "check", "loud://me:hunter2@host", "--only", "round_trip", *words)
        assert done.status == 1
        assert "loud://***@host is down" in done.out
        assert "hunter2" not in done.out
        assert "\x1b" not in done.out


def test_a_store_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("no folder")
    done = run("plugin", "check", (tmp_path / "occupied").as_uri())
    assert (done.status, done.out) == (69, "")
    assert "occupied" in done.err


def test_a_url_that_names_no_storage(run: Run) -> None:
    done = run("plugin", "check", "fil:///tmp")
    assert (done.status, done.out) == (78, "")
    assert "did you mean 'file'?" in done.err


def test_a_plugin_whose_hooks_do_not_fit(run: Run, install: Install) -> None:
    install("resilience.storage", "bare", "UnfitStorage")
    done = run("plugin", "check", "bare:")
    assert (done.status, done.out) == (78, "")
    assert "expires" in done.err


@pytest.mark.parametrize(
    ("only", "says"), [("conflict", "did you mean 'conflicts'?"), ("zz,hooks", "there are hooks,")]
)
def test_a_check_that_there_is_not(run: Run, only: str, says: str) -> None:
    done = run("plugin", "check", "memory:", "--only", only)
    assert (done.status, done.out) == (2, "")
    assert says in done.err


def test_pytest_is_not_needed(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; sys.modules['pytest'] = None; from resilience import cli;"
        f" sys.exit(cli.main(['plugin', 'check', '{tmp_path.as_uri()}', '--quick', '--only', 'conflicts,visible']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 passed in" in done.stdout
