"""The kept plan: every verb answers the same with it and without, and it is never taken when anything differs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field, SecretStr

import resilience.runtime
from resilience import Capability, CircuitBreaker, ObserverSettings, Runtime, StorageSettings, hookimpl, plan, plugins
from resilience.cli import catalogue, grammar, parser, watch
from resilience.cli.arguments import COMMAND, FOR, JSON, NAME, NAMES, REASON
from resilience.cli.verbs import Argument, Verb
from resilience.clock import wall
from resilience_circuit_breaker._settings import CircuitBreakerSettings
from resilience_circuit_breaker.policy import CircuitBreakerPolicy
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from unit.cli.command_line import Done, Install, Run


class PlainStorage(MemoryStorage):
    """A storage of somebody else, without settings."""


class WatchingObserver:
    """An observer that pluggy has to call, as it wraps the others."""

    @hookimpl(wrapper=True)
    def resilience_load(self) -> Generator[None, object, object]:
        return (yield)


class PlainBrokenObserver:
    @hookimpl
    def resilience_transition(self, transition: object) -> None:
        raise ZeroDivisionError("in the observer")


class DeafObserver:
    def __init__(self) -> None:
        raise ZeroDivisionError("no ears")


class PlacedSettings(StorageSettings):
    """JSON has no form for a path."""

    place: Path = Path("/somewhere")


class PlacedStorage(MemoryStorage):
    Settings = PlacedSettings  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    def __init__(self, url: str, settings: object) -> None:
        super().__init__(url)


class NumberedSettings(StorageSettings):
    """JSON has names of text only."""

    shares: dict[int, int] = Field(default={1: 2})


class NumberedStorage(PlacedStorage):
    Settings = NumberedSettings  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class TimedSettings(StorageSettings):
    patience: float = 2.5
    hosts: list[str] = Field(default=["one", "two"])


class TimedStorage(MemoryStorage):
    """A storage that wants an instance of its own model."""

    capabilities = frozenset({Capability.PROCESSES})  # or `failure` has something to say

    Settings = TimedSettings  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    def __init__(self, url: str, settings: TimedSettings) -> None:
        super().__init__(url)
        assert type(settings) is TimedSettings
        assert (settings.patience, settings.hosts) == (2.5, ["one", "two"])


class SecretSettings(StorageSettings):
    password: SecretStr = SecretStr("")


class SecretStorage(PlacedStorage):
    Settings = SecretSettings  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]


class SecretObserver:
    class Settings(ObserverSettings):
        password: SecretStr = SecretStr("")

    def __init__(self, _runtime: Runtime, settings: object) -> None:
        self.settings = settings


class SecretiveSettings(CircuitBreakerSettings):
    password: SecretStr = SecretStr("")


class SecretivePolicy(CircuitBreakerPolicy):
    kind = "secretive"

    @staticmethod
    def settings_model() -> type[CircuitBreakerSettings]:
        return SecretiveSettings


class OtherPlacePolicy(CircuitBreakerPolicy):
    kind = "other_place"


class PlacedObserver:
    class Settings(ObserverSettings):
        place: Path = Path("/somewhere")

    def __init__(self, _runtime: Runtime, settings: object) -> None:
        self.settings = settings


def kept() -> Path:
    place = plan.place(os.environ)
    assert place is not None
    return Path(*place)


def forbid_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(path: object) -> object:
        raise AssertionError("looked for plugins")

    monkeypatch.setattr(plugins, "_entry_points", look)


# --- the same answer --------------------------------------------------------------------------------------------------

LINES = (
    "check a",
    "check a --json",
    "check a --token",
    "success a",
    "failure a --error=timeout",
    "failure a",
    "failure a",
    "check a",
    "check a --json",
    "status a",
    "status",
    "status --json",
    "run a -- true",
    "run b -- false",
    "run b false",
    "run c -- no-such-command",
    "open b --for 10m --reason x",
    "close b",
    "disable b",
    "reset b",
    "success b --token 0",
    "success b --token nonsense",
    "check",
    "check --no-such-option a",
    "chek a",
    "open b --for soon",
    "check --help",
    "config b",
    "config --json",
    "events zzz",
    "plugins",
    "plugin new file",
    "plugin check memory: --quick --only hooks,versions",
    "plugin check memory: --only nonsense",
    "storage init",
    "storage init memory: --print",
    "storage copy memory: memory:",
    "metrics-only b --for 1h",
    "doctor --json",
    "watch --interval soon",
    "watch",
    "demo --seconds no",
    "--version",
)
"""Each verb, and each way to go wrong."""

_TIMES = re.compile(
    r"[0-9.]+ s\b|[0-9]+ (?:µ|\\u00b5)s\b|\b\d{9,}(?:\.\d+)?|@[0-9a-f]{8}|\b[0-9a-f]{16,}\S*"
    r"|\"(?:retry_after|\w+_time|opened_at)\": [0-9.]+|\"detail\": \"[^\"]*\""
)


def answers(run: Run, lines: Sequence[str] = LINES) -> list[Done]:
    return [run(*line.split()) for line in lines]


def timeless(done: Sequence[Done]) -> list[tuple[object, ...]]:
    return [tuple(_TIMES.sub("…", part) if isinstance(part, str) else part for part in each) for each in done]


def without_plan(_environ: object) -> None:
    """In the place of `plan.find`."""


def interrupt(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_every_verb_answers_the_same_with_a_plan(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "sleep", interrupt)
    with monkeypatch.context() as alone:
        alone.setattr(plan, "find", without_plan)
        expected = answers(run)
    shutil.rmtree(tmp_path / "state-home")
    before = kept().read_bytes()
    assert found()
    told = answers(run)
    for line, one, other in zip(LINES, timeless(told), timeless(expected), strict=True):
        assert one == other, line
    assert kept().read_bytes() == before


def test_no_verb_is_left_out_of_that() -> None:
    said = {" ".join(catalogue.joined([*line.split()])[:1]) for line in LINES}
    with Runtime() as runtime:
        verbs = {verb.name for verb in (*catalogue.CORE, *catalogue.of_plugins(runtime.selection)[0])}
    assert verbs - said == set()


def test_the_switch_turns_it_off(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    monkeypatch.setenv("RESILIENCE_PLAN", "0")
    assert not found()
    kept().unlink()
    assert run("check", "a") == (0, "", "")
    assert not kept().exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RESILIENCE_STORAGE", "fil:///x"),
        ("RESILIENCE_STORAGE", "file"),
        ("RESILIENCE_STORAGE", ""),
        ("RESILIENCE_STORAGE", "file://host/x"),
        ("RESILIENCE_STORAGE", "file:///x\ny"),
        ("RESILIENCE_STORAG", "file:"),
        ("RESILIENCE_FILE__DURABILITY", "some"),
        ("RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD", "0"),
        ("RESILIENCE_POLICIES__A__CIRCUIT_BREAKER__RESET_TIMEOUT", "never"),
        ("resilience_storage", "file:"),
    ],
)
def test_a_variable_that_is_wrong_is_told_whatever_was_kept(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", f"file://{os.environ['XDG_STATE_HOME']}/storage")
    assert run("check", "a").status == 0
    monkeypatch.setenv(variable, value)
    with_plan = run("check", "a")
    kept().unlink()
    assert with_plan == run("check", "a")
    assert with_plan.status == 78
    assert not kept().exists()


def test_what_variables_and_code_say_binds_with_a_plan_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD", "4")
    monkeypatch.setenv("RESILIENCE_POLICIES__ONE__CIRCUIT_BREAKER__FAILURE_THRESHOLD", "1")
    with Runtime():
        CircuitBreaker("made", failure_threshold=2, reset_timeout="30s").force_open()
    run("close", "made")
    forbid_looking(monkeypatch)
    run("failure", "one")
    assert run("check", "one").status == 75
    for name, threshold in (("made", 2), ("other", 4)):
        for _ in range(threshold):
            assert run("check", name).status == 0
            run("failure", name)
        assert run("check", name).status == 75


@pytest.mark.parametrize(
    "values",
    [
        {"failure_threshold": None},
        {"failure_threshold": 0},
        {"failure_threshold": 2.5},
        {"reset_timeout": "soon"},
        {"reset_timeout_jitter": "0.5"},
        {"reset_timeout": 60, "reset_timeout_max": 30},
    ],
)
def test_values_that_the_settings_model_would_change_or_refuse_are_left_to_it(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        policy: Any = CircuitBreakerPolicy
        policy.from_values(values)


# --- taken only if nothing differs ------------------------------------------------------------------------------------


def test_a_plan_spares_the_search_for_plugins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("failure", "a")
    forbid_looking(monkeypatch)
    assert run("status", "a").status == 0
    assert run("check", "a").status == 0


def found() -> bool:
    return plan.find(os.environ) is not None


def test_a_variable_that_differs_makes_a_plan_void(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    assert found()
    for variable in ("RESILIENCE_STORAGE_TIMEOUT", "HOME", "XDG_STATE_HOME", "resilience_x"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert not found()
    assert found()
    monkeypatch.setenv("OTHER", "1")
    assert found()


def test_a_place_for_modules_that_changed_makes_a_plan_void(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "modules"
    place.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    run("check", "a")
    assert found()
    (place / "new.dist-info").mkdir()
    assert not found()


@pytest.mark.parametrize(
    ("where", "what"), [(sys, "version"), (sys, "prefix"), (plan, "__version__"), (plan, "_FORMAT")]
)
def test_another_interpreter_or_library_makes_a_plan_void(
    run: Run, monkeypatch: pytest.MonkeyPatch, where: object, what: str
) -> None:
    run("check", "a")
    assert found()
    monkeypatch.setattr(where, what, "other")
    assert not found()


def test_a_module_of_the_plan_that_changed_makes_it_void(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "a_storage.py").write_text("from resilience_memory import MemoryStorage as Mine\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(modules)])
    install("resilience.storage", "mine", "a_storage:Mine")
    monkeypatch.setenv("RESILIENCE_STORAGE", "mine:")
    assert run("check", "a").status == 0
    assert found()
    with (modules / "a_storage.py").open("a") as module:
        module.write("# changed\n")
    assert not found()


def test_a_configuration_file_that_was_touched_makes_a_plan_void(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text("[circuit_breaker]\nfailure_threshold = 1\n")
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    assert run("check", "a").status == 0
    assert found()
    path.write_text("[circuit_breaker]\nfailure_threshold = 22\n")
    assert not found()
    assert run("failure", "a").status == 0
    assert run("check", "a").status == 0
    assert found()
    path.unlink()
    assert run("check", "a").status == 78


def test_a_configuration_file_that_changes_while_it_is_used_leaves_no_plan(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text("")
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    with Runtime() as runtime:
        CircuitBreaker("a").check()
        path.write_text("[circuit_breaker]\n")
        assert not runtime.keep_plan({})
    with Runtime() as runtime:
        CircuitBreaker("a").check()
        assert runtime.keep_plan({})


def test_what_the_file_says_binds_with_a_plan_too(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text(
        f'storage = "file://{tmp_path}/filed"\n[circuit_breaker]\nfailure_threshold = 3\n'
        "[policies.one.circuit_breaker]\nfailure_threshold = 1\n"
        '[policies."支払い".circuit_breaker]\nfailure_threshold = 1\n'
    )
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    with Runtime():
        CircuitBreaker("made", failure_threshold=2).force_open()
    run("close", "made")
    forbid_looking(monkeypatch)
    for name, threshold in (("one", 1), ("支払い", 1), ("made", 2), ("other", 3)):
        for _ in range(threshold):
            assert run("check", name).status == 0
            run("failure", name)
        assert run("check", name).status == 75
    assert (tmp_path / "filed").is_dir()


@pytest.mark.parametrize(
    "text", ['storage = "plain://user:hunter2@host/"', "[memory]\nx = 1", '[circuit_breaker]\nignore = "a://u:p@h"']
)
def test_nothing_is_kept_that_the_file_says_and_nobody_may_see(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    install("resilience.storage", "plain", "unit.cli.test_plan:PlainStorage")
    path = tmp_path / "resilience.toml"
    path.write_text(text)
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    run("check", "a")
    assert not kept().exists()


def test_the_journal_is_written_with_a_plan_too(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _ in range(2):
        run("open", "a")
        run("close", "a")
    monkeypatch.setenv("RESILIENCE_JOURNAL__ENABLED", "no")
    run("open", "a")
    run("close", "a")
    journal = tmp_path / "state-home" / "resilience" / "events.jsonl"
    assert journal.read_text().count('"transition"') == 4


# --- whom it trusts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_plan_that_others_may_touch_is_not_read(run: Run, mode: int) -> None:
    run("check", "a")
    kept().chmod(mode)
    assert not found()
    assert run("check", "a").status == 0
    assert kept().stat().st_mode & 0o777 == 0o600
    assert found()


def test_a_plan_in_a_folder_that_others_may_enter_is_neither_read_nor_written(run: Run) -> None:
    run("check", "a")
    kept().parent.chmod(0o755)
    assert not found()
    kept().unlink()
    assert run("check", "a").status == 0
    assert not kept().exists()


def test_file_and_folder_are_for_this_user_alone(run: Run) -> None:
    run("check", "a")
    assert kept().stat().st_mode & 0o777 == 0o600
    assert kept().parent.stat().st_mode & 0o777 == 0o700


def test_a_plan_of_another_user_is_not_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("check", "a")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert not found()


def test_a_link_is_not_followed(run: Run, tmp_path: Path) -> None:
    run("check", "a")
    kept().rename(tmp_path / "elsewhere")
    kept().symlink_to(tmp_path / "elsewhere")
    assert not found()
    assert run("check", "a").status == 0
    assert not kept().is_symlink()


@pytest.mark.parametrize("special", ["folder", "pipe"])
def test_what_is_no_file_is_not_waited_for(run: Run, special: str) -> None:
    run("check", "a")
    kept().unlink()
    if special == "folder":
        kept().mkdir()
    else:
        os.mkfifo(kept(), 0o600)
    assert not found()
    assert run("check", "a").status == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 100, b"\xff", b"[]", b"{}", b"[1,2,3]", b"null", b'"', b"[" * 100_000, b"[NaN, [], {}]", b"9" * 5000],
)
def test_what_is_no_plan_is_composed_anew(run: Run, content: bytes) -> None:
    run("check", "a")
    whole = kept().read_bytes()
    kept().write_bytes(content)
    assert not found()
    assert run("check", "a").status == 0
    assert kept().read_bytes() == whole


def test_a_plan_that_was_cut_off_anywhere_is_composed_anew(run: Run) -> None:
    run("check", "a")
    whole = kept().read_bytes()
    for end in range(0, len(whole), 97):
        kept().write_bytes(whole[:end])
        assert not found()


def test_a_plan_that_names_what_there_is_not_is_composed_anew(run: Run) -> None:
    run("check", "a")
    whole = kept().read_text()
    kept().write_text(whole.replace("resilience_filelock:FileStorage", "resilience_filelock:NoStorage"))
    assert found()
    assert run("check", "a").status == 0
    kept().write_text(whole.replace('CircuitBreakerPolicy", "check"', 'NoPolicy", "check"'))
    assert run("check", "a").status == 0


def test_it_lies_in_the_cache_of_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative"):  # what the specification of these folders calls invalid
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert kept().parent == tmp_path / ".cache" / "resilience"


def test_without_a_home_there_is_no_plan(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "")
    assert plan.place(os.environ) is None
    assert not found()
    assert not plan.keep(os.environ, {}, [], 0.0)
    assert run("check", "a").status == 0


def test_a_place_that_cannot_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert run("check", "a").status == 0
    assert not found()


@pytest.mark.parametrize("mask", [0, 0o177])
def test_the_folders_around_it_are_made(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path, mask: int) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    old = os.umask(mask)
    try:
        assert run("check", "a").status == 0
    finally:
        os.umask(old)
    assert found()
    made = [tmp_path / "not", tmp_path / "not" / "yet", tmp_path / "not" / "yet" / "resilience"]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o700] * 3


@pytest.mark.parametrize("below", [".cache", "deep/er"])
def test_no_home_is_made(monkeypatch: pytest.MonkeyPatch, run: Run, tmp_path: Path, below: str) -> None:
    home = tmp_path / "nobody" / "home"
    monkeypatch.setenv("HOME", f"{home}/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / below))
    assert run("check", "a").status == 0
    assert not home.parent.exists()


def test_a_write_that_fails_leaves_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    assert run("check", "a").status == 0
    assert list(kept().parent.iterdir()) == []


def test_what_a_killed_process_left_half_made_is_dropped(run: Run) -> None:
    run("check", "a")
    old, new, foreign = (kept().with_name(f"{kept().name}{end}") for end in (".0123", ".4567", "x"))
    for path in (old, new, foreign):
        path.write_text("[")
    for path in (old, foreign):
        os.utime(path, (1e9, 1e9))
    kept().unlink()
    run("check", "a")
    assert {path.name for path in kept().parent.iterdir()} == {kept().name, new.name, foreign.name}


def test_what_others_drop_meanwhile_is_no_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir

    def remembering(path: str) -> list[str]:
        return [*listdir(path), f"{kept().name}.gone"]

    monkeypatch.setattr(os, "listdir", remembering)
    assert run("check", "a") == (0, "", "")
    assert found()


def test_nothing_is_made_in_the_home_of_somebody_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    shutil.rmtree(kept().parents[1], ignore_errors=True)
    kept().parents[1].mkdir()
    assert run("check", "a").status == 0
    assert list(kept().parents[1].iterdir()) == []


@pytest.mark.parametrize("fields", ["[]", "null", '"text"', "{} {}", "{}}"])
def test_a_plan_that_is_no_plan_behind_its_seal_is_composed_anew(run: Run, fields: str) -> None:
    run("check", "a")
    whole = kept().read_text()
    sealed, _, _ = whole.rpartition(', {"url"')
    kept().write_text(f"{sealed}, {fields}]" if "}}" not in fields else f"{whole}]")
    assert not found()
    assert run("check", "a") == (0, "", "")
    assert kept().read_text() == whole


# --- what is not kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RESILIENCE_PLAN", "0"),
        ("RESILIENCE_PLAN", "false"),
        ("RESILIENCE_MEMORY__PASSWORD", "hunter2"),
        ("RESILIENCE_CIRCUIT_BREAKER__FAILURE_ON", "a://user:hunter2@host:X"),
    ],
)
def test_nothing_is_kept_that_is_not_wanted_or_not_checked(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    run("check", "a")
    assert not kept().exists()


def test_a_variable_that_nothing_knows_is_warned_of_each_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_UNKNOWN", "warn")
    monkeypatch.setenv("RESILIENCE_SECRET", "hunter2")
    first = run("check", "a")
    assert "RESILIENCE_SECRET" in first.err
    assert run("check", "a") == first
    assert not kept().exists()


def test_the_url_of_the_storage_is_not_kept(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install("resilience.storage", "plain", "unit.cli.test_plan:PlainStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "plain://user:hunter2@host/")
    assert run("check", "a").status == 0
    assert "hunter2" not in kept().read_text()
    assert found()
    monkeypatch.setenv("RESILIENCE_STORAGE", "plain://user:other@host/")
    assert found()
    assert run("check", "a").status == 0


@pytest.fixture
def real_steps(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Undo what `run` does for the other tests."""
    monkeypatch.setattr(plan, "_STEP", 0.05)
    monkeypatch.setattr(plan, "_COARSE_STEP", 2.05)
    assert run("check", "a") == (0, "", "")


@pytest.mark.usefixtures("real_steps")
def test_nothing_is_kept_of_what_changed_a_moment_ago(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is changed twice in an instant, without another size, looks as it did after the first time."""
    path = tmp_path / "resilience.toml"
    path.write_text("[circuit_breaker]\nfailure_threshold = 1\n")
    monkeypatch.setenv("RESILIENCE_CONFIG", str(path))
    now = int(wall()) + 10 * 86400  # all else that a plan depends on was changed long ago then
    monkeypatch.setattr(resilience.runtime, "wall", lambda: now)
    for changed, is_kept in (
        (now + 0.5, False),
        (now - 0.03125, False),
        (now - 1, False),  # a whole second: the file system may note no others
        (now - 0.5, True),
        (now - 3, True),
    ):
        kept().unlink(missing_ok=True)
        os.utime(path, ns=(int(changed * 1e9), int(changed * 1e9)))
        assert run("check", "a") == (0, "", "")
        assert kept().exists() is is_kept


@pytest.mark.usefixtures("real_steps")
def test_nothing_is_kept_of_what_changed_while_it_was_composed(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "modules"
    place.mkdir()
    os.utime(place, (1e9 + 0.5, 1e9 + 0.5))
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    with Runtime() as runtime:
        CircuitBreaker("a").check()
        assert runtime.keep_plan({})
        (place / "new.dist-info").mkdir()
        assert not runtime.keep_plan({})


@pytest.mark.parametrize(
    ("group", "what", "scheme"),
    [
        ("resilience", "PlacedObserver", "file"),
        ("resilience.storage", "PlacedStorage", "placed"),
        ("resilience.storage", "NumberedStorage", "placed"),
    ],
)
def test_settings_that_json_has_no_form_for_are_checked_each_time(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, group: str, what: str, scheme: str
) -> None:
    install(group, "placed", f"unit.cli.test_plan:{what}")
    monkeypatch.setenv("RESILIENCE_STORAGE", f"{scheme}:")
    assert [run("check", "a") for _ in range(2)] == [(0, "", "")] * 2
    assert not kept().exists()


@pytest.mark.parametrize(
    ("group", "what", "scheme"),
    [("resilience", "SecretObserver", "file"), ("resilience.storage", "SecretStorage", "placed")],
)
def test_no_secret_of_a_plugin_is_kept(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, group: str, what: str, scheme: str
) -> None:
    install(group, "placed", f"unit.cli.test_plan:{what}")
    monkeypatch.setenv("RESILIENCE_STORAGE", f"{scheme}:")
    monkeypatch.setenv("RESILIENCE_PLACED__PASSWORD", "hunter2")
    assert [run("check", "a") for _ in range(2)] == [(0, "", "")] * 2
    assert not kept().exists()


def test_no_secret_of_a_policy_is_kept(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("resilience.policy", "secretive", "unit.cli.test_plan:SecretivePolicy")
    assert run("check", "a") == (0, "", "")
    made = plan.find(os.environ)
    assert made is not None
    assert set(made["policies"]) == {"circuit_breaker", "secretive"}
    kept().unlink()
    monkeypatch.setenv("RESILIENCE_SECRETIVE__PASSWORD", "hunter2")
    assert [run("check", "a") for _ in range(2)] == [(0, "", "")] * 2
    assert not kept().exists()


def test_a_policy_that_no_plan_knows_finds_its_settings_itself(run: Run) -> None:
    assert run("check", "a") == (0, "", "")
    kept_plan = plan.find(os.environ)
    assert kept_plan is not None
    with Runtime(plan=kept_plan) as runtime:
        other: Any = OtherPlacePolicy
        policy: Any = runtime.policies(other)("a", {"failure_threshold": 7})
        assert policy.config.failure_threshold == 7


def test_a_storage_gets_an_instance_of_its_own_model(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("resilience.storage", "timed", "unit.cli.test_plan:TimedStorage")
    monkeypatch.setenv("RESILIENCE_STORAGE", "timed:")
    assert run("check", "a") == (0, "", "")
    assert found()
    forbid_looking(monkeypatch)
    assert [run("check", "a"), run("failure", "a")] == [(0, "", "")] * 2


def test_policies_of_others_are_no_part_of_a_plan(run: Run, install: Install) -> None:
    install("resilience.policy", "other", "OtherPolicy")
    install("resilience.policy", "broken", "no_such_module:Policy")
    assert run("check", "a") == (0, "", "")
    made = plan.find(os.environ)
    assert made is None or set(made["policies"]) == {"circuit_breaker"}


def test_what_is_another_thing_when_it_is_read_again_is_not_kept() -> None:
    assert not plan.keep(os.environ, {"a tuple": (1,)}, [], wall())
    assert not kept().exists()


class Foreign:
    """What a plan may name, and does not fit any more."""

    kind = "circuit_breaker"

    @staticmethod
    def verbs() -> list[Verb]:
        return [Verb("look", "Look.", nothing)]


def test_what_a_plan_does_not_know_is_found_out() -> None:
    here = "unit.cli.test_plan:Foreign"
    ours = "resilience_circuit_breaker.policy:CircuitBreakerPolicy"
    verbs = {
        "look": [here, "look"],
        "foreign.look": [here, "look"],
        "listen": [here, "listen"],
        "smell": ["no_such_module:Class", "smell"],
    }
    made = plan.Plan({"verbs": verbs, "policies": {}, "url": None, "filed_url": None, "settings": None})
    for name in ("look", "foreign.look"):
        verb = plan.verb_of(made, name)
        assert verb is not None
        assert verb.name == name
    assert plan.verb_of(made, "listen") is None
    assert plan.verb_of(made, "smell") is None
    assert plan.verb_of(made, "other") is None
    assert plan.policy_of(made, CircuitBreakerPolicy, "a") is None
    assert plan.names_of(made, CircuitBreakerPolicy) is None
    assert plan.settings_of(made, Foreign) is None
    for value, values in ((here, {}), (ours, {"failure_threshold": 0})):
        known = plan.Plan({"policies": {"circuit_breaker": [value, values, {}, {}]}})
        assert plan.policy_of(known, CircuitBreakerPolicy, "a") is None
    assert plan.names_of(known, CircuitBreakerPolicy) == set()


@pytest.mark.parametrize("observer", ["WatchingObserver", "DeafObserver"])
def test_a_composition_that_pluggy_has_a_part_in_or_that_went_wrong_is_not_kept(
    run: Run, install: Install, observer: str
) -> None:
    install("resilience", "observing", f"unit.cli.test_plan:{observer}")
    first = run("check", "a")
    assert first.status == 0
    assert not kept().exists()
    assert run("check", "a") == first


def test_an_observer_is_told_with_a_plan_too(run: Run, install: Install) -> None:
    install("resilience", "broken", "unit.cli.test_plan:PlainBrokenObserver")
    told = [run(verb, "x") for verb in ("open", "close", "open")]
    assert found()
    assert [done.err for done in told] == [
        "resilience: warning: observer failed (broken): ZeroDivisionError: in the observer\n"
    ] * 3


# --- several at once --------------------------------------------------------------------------------------------------


def test_starts_at_the_same_time_leave_one_whole_plan() -> None:
    line = [sys.executable, "-P", "-m", "resilience", "check", "a"]
    started = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    for process in started:
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0
    assert [path.name for path in kept().parent.iterdir()] == [kept().name]


# --- what is imported -------------------------------------------------------------------------------------------------

HEAVY = {
    "argparse",
    "asyncio",
    "collections",
    "contextvars",
    "dataclasses",
    "enum",
    "filelock",
    "functools",
    "importlib.metadata",
    "inspect",
    "json",
    "logging",
    "mmap",
    "operator",
    "pathlib",
    "pluggy",
    "pydantic",
    "pydantic_settings",
    "re",
    "signal",
    "subprocess",
    "threading",
    "typing",
    "warnings",
    "weakref",
}

_SAY = "import sys; from resilience.cli import main; main(sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"


def imported(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {_SAY}", *words],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("words", [("check", "a"), ("check", "a", "--token"), ("check", "b")])
def test_a_verb_that_only_asks_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    imported(*words)
    assert imported(*words) & (HEAVY - {"mmap"}) == set()


def test_a_question_that_one_look_answers_imports_few_modules() -> None:
    """Each costs some 50 µs to find and load, a two-hundredth of a bare interpreter, however little is in it."""
    imported("check", "a")
    found = imported("check", "a")
    ours = {name for name in found if name.startswith("resilience")}
    assert found & HEAVY == set()
    assert ours.isdisjoint({"resilience.engine", "resilience.runtime", "resilience_filelock.storage"})
    assert len(ours) <= 30


def test_a_verb_that_reports_imports_nothing_heavy_but_the_lock() -> None:
    imported("check", "a")
    with_lock = imported("failure", "a") & HEAVY
    assert "filelock" in with_lock
    assert with_lock.isdisjoint({"argparse", "importlib.metadata", "pluggy", "pydantic", "pydantic_settings"})


def test_the_storage_that_plugin_new_writes_is_in_nobody_s_way(
    run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run("plugin", "new", "my-store", "--folder", str(tmp_path / "written")).status == 0
    install("resilience.storage", "my-store", "resilience_my_store:MyStoreStorage")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "written" / "src"), *sys.path])
    for place in tmp_path.rglob("*"):
        os.utime(place, (1e9 + 0.5, 1e9 + 0.5))  # what was written a moment ago is in no plan
    monkeypatch.setenv("RESILIENCE_STORAGE", f"my-store://{tmp_path}/records")
    assert "pydantic" in imported("check", "a")
    found = imported("check", "a")
    assert {name for name in found if "my_store" in name} == {"resilience_my_store", "resilience_my_store.reading"}
    assert found & (HEAVY | {"hashlib", "urllib.parse"}) == set()
    reporting = imported("failure", "a")
    assert "resilience_my_store.storage" in reporting
    assert reporting.isdisjoint({"pydantic", "pydantic_settings"})


def test_the_marks_and_the_facade_import_nothing() -> None:
    code = "import sys; import resilience; resilience.hookimpl; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert set(done.stdout.split()) & HEAVY == set()


# --- words ------------------------------------------------------------------------------------------------------------


def nothing(_shell: object, _arguments: object) -> int:
    return 0


VERB = Verb("try", "Try.", nothing, NAME, FOR, REASON, JSON, Argument("-n", "--max-count", help="", convert=int))
MANY = Verb("many", "Try.", nothing, NAMES, JSON)
MAYBE = Verb("maybe", "Try.", nothing, Argument("NAME", help="", nargs="?", default="x"), *COMMAND)


@pytest.mark.parametrize(
    ("verb", "line"),
    [
        (VERB, "a"),
        (VERB, "a --for 10m --json"),
        (VERB, "--for=10m a --reason=x=y"),
        (VERB, "--json --reason r a -n 3"),
        (VERB, "a --max-count=4 --max-count 5"),
        (VERB, "a --reason="),
        (MANY, ""),
        (MANY, "a b a"),
        (MANY, "a --json b"),
        (MAYBE, ""),
        (MAYBE, "a --timeout 3s --ok-status 1,2"),
    ],
)
def test_plain_words_mean_what_argparse_makes_of_them(verb: Verb, line: str) -> None:
    words = line.split()
    expected = vars(grammar.parser(verb).parse_intermixed_args(words))
    read = parser._plainly(verb, words)
    assert read is not None
    assert vars(read) == expected
    assert {name: type(value) for name, value in vars(read).items()} == {
        name: type(value) for name, value in expected.items()
    }


@pytest.mark.parametrize(
    "line",
    ["", "a b", "a --no", "a --jso", "a --json=1", "a --for", "a --for -1", "a -n3", "a --", "a --for soon", "-h"],
)
def test_what_is_more_than_plain_is_left_to_argparse(line: str) -> None:
    assert parser._plainly(VERB, line.split()) is None


@pytest.mark.parametrize(
    "argument",
    [
        Argument("X", help="", nargs=2),
        Argument("X", help="", choices=["a"]),
        Argument("X", help="", dest="y"),
        Argument("--x", help="", nargs="*"),
        Argument("--x", help="", action="append"),
        Argument("--x", help="", convert=int, default="3"),
    ],
)
def test_an_argument_that_is_more_than_plain_is_left_to_argparse(argument: Argument) -> None:
    assert parser._plainly(Verb("x", "X.", nothing, argument), ["a"]) is None
