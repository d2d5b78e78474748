"""The command line as a whole: what it says, where, and with which exit status; whatever it is given."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import pytest

from resilience import (
    CircuitBreaker,
    ConfigurationError,
    PluginError,
    StorageUnavailable,
    __version__,
    cli,
)
from resilience.cli import catalogue
from resilience.cli.verbs import Verb
from resilience.selection import Selection

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from pathlib import Path

    from unit.cli.command_line import Install, Run

    from resilience.cli.shell import Shell

    Does = Callable[[Callable[[Shell], int]], None]


@pytest.fixture
def does(monkeypatch: pytest.MonkeyPatch) -> Does:
    """Let the verb `try` do something."""

    def does(what: Callable[[Shell], int]) -> None:
        def handler(shell: Shell, _arguments: Namespace) -> int:
            return what(shell)

        monkeypatch.setattr(catalogue, "CORE", (*catalogue.CORE, Verb("try", "Try.", handler)))

    return does


def raising(error: BaseException) -> Callable[[Shell], int]:
    def raises(_shell: Shell) -> int:
        raise error

    return raises


# --- help and usage ---------------------------------------------------------------------------------------------------


def test_help_names_every_verb_and_every_exit_status(run: Run) -> None:
    done = run("--help")
    assert (done.status, done.err) == (0, "")
    for verb in (*catalogue.CORE, *catalogue.of_plugins(Selection())[0]):
        assert f"  {verb.name} " in done.out
        assert verb.help in done.out
    for status in ("0", "2", "69", "70", "74", "75", "78", "124", "126", "127", "128+n"):
        assert status in done.out.partition("exit status:")[2]
    assert run("-h") == done


def test_without_a_verb_there_is_help_and_a_usage_error(run: Run) -> None:
    assert run() == (2, run("--help").out, "")


def test_every_verb_has_help(run: Run) -> None:
    for verb in (*catalogue.CORE, *catalogue.of_plugins(Selection())[0]):
        done = run(verb.name, "--help")
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith(f"usage: resilience {verb.name} ")
        assert verb.help in done.out
        assert "exit status:" in done.out


def test_the_help_of_run_shows_where_the_command_stands(run: Run) -> None:
    assert "NAME [CMD ...]" in run("run", "--help").out


def test_the_version(run: Run) -> None:
    assert run("--version") == (0, f"resilience {__version__}\n", "")


def test_the_words_of_the_process_are_read_if_none_are_given(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["resilience", "--version"])
    assert cli.main() == 0
    assert capfd.readouterr().out == f"resilience {__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["chek", "x"], "there is no verb 'chek'; did you mean 'check'?"),
        (["frobnicate"], "there is no verb 'frobnicate'; there are check, success, failure, run, status"),
        (["\x1b[31m"], r"there is no verb '\x1b[31m'"),
        (["v" * 100_000], "…'"),
        ([""], "there is no verb ''"),
        (["--json", "status"], "there is no option '--json'; options stand after the verb"),
        (["check"], "the following arguments are required: NAME"),
        (["check", "x", "y"], "unrecognized arguments: y"),
        (["check", "x", "--jsn"], "unrecognized arguments: --jsn"),
        (["check", "x", "--js"], "unrecognized arguments: --js"),
        (["check", "x", "\x1b[31m"], r"unrecognized arguments: \x1b[31m"),
        (["check", ""], "argument NAME: '' is refused: the name of a key is empty"),
        (["check", "a\nb"], r"argument NAME: 'a\nb' is refused: the name of a key has a character that cannot be"),
        (["check", "\x1b]0;x\x07"], r"argument NAME: '\x1b]0;x\x07' is refused"),
        (["check", "\udcff"], r"argument NAME: '\udcff' is refused"),
        (["check", "x" * 10_000_000], "the name of a key has 10000000 characters, 1000 are allowed"),
        (["status", "ok", ""], "argument NAME: '' is refused"),
        (["open", "x", "--for", "soon"], "argument --for: 'soon' is refused: a duration is a number of seconds"),
        (["open", "x", "--for", "-1"], "argument --for: "),
        (["open", "x", "--for", "0"], "argument --for: '0' is refused: it is no time at all; a duration is"),
        (["open", "x", "--for", "nan"], "argument --for: 'nan' is refused: a duration is"),
        (["open", "x", "--for", "1e309"], "argument --for: '1e309' is refused: a duration is"),
        (["disable", "x", "--for", ""], "argument --for: '' is refused: it is empty; a duration is"),
        (["success", "x", "--token", "t"], "argument --token: 't' is refused: 't' is not a token"),
        (["failure", "x", "--error"], "argument --error: expected one argument"),
        (["run"], "the following arguments are required: NAME"),
        (["run", "x"], "a command is missing: resilience run NAME -- CMD…"),
        (["run", "x", "--"], "a command is missing: resilience run NAME -- CMD…"),
        (["run", "x", "--timeout", "0", "true"], "argument --timeout: '0' is refused: it is no time at all"),
        (
            ["run", "x", "--ok-status", "256", "true"],
            "argument --ok-status: '256' is refused: exit statuses are numbers",
        ),
        (["run", "x", "--ok-status", "5-3", "true"], "argument --ok-status: '5-3' is refused: exit statuses are"),
        (["run", "x", "--ok-status", "-1", "true"], "argument --ok-status: "),
        (["run", "x", "--ok-status", "3,,4", "true"], "argument --ok-status: '3,,4' is refused"),
        (["run", "x", "--ok-status", "٣", "true"], "argument --ok-status: '٣' is refused"),
        (["demo", "--seconds", "many"], "argument --seconds: 'many' is refused"),
    ],
)
def test_a_command_line_that_makes_no_sense(run: Run, words: list[str], says: str) -> None:
    done = run(*words)
    assert (done.status, done.out) == (2, "")
    assert says in done.err
    message, hint = done.err.splitlines()
    assert message.isprintable()
    assert len(message) < 2100
    assert hint.startswith("resilience: try: resilience ")
    assert hint.endswith("--help")


def test_the_demo_has_its_own_limits(run: Run) -> None:
    done = run("demo", "--plain", "--seconds", "1h")
    assert (done.status, done.out) == (2, "")
    assert "--seconds" in done.err


def test_the_hint_names_the_verb(run: Run) -> None:
    assert run("open", "x", "--for", "soon").err.endswith("resilience: try: resilience open --help\n")
    assert run("chek").err.endswith("resilience: try: resilience --help\n")


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "err"),
    [
        (ConfigurationError("this is wrong\nand that"), 78, "resilience: this is wrong\nresilience: and that\n"),
        (PluginError("it is broken"), 78, "resilience: it is broken\n"),
        (StorageUnavailable("no answer"), 69, "resilience: no answer\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(7), 7, ""),
        (SystemExit(), 0, ""),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (
            ZeroDivisionError("by \x1b[31mzero"),
            70,
            "resilience: a fault of this program: ZeroDivisionError: by \\x1b[31mzero\n",
        ),
        (
            OSError(24, "Too many open files", "/lib/json.py"),
            69,
            "resilience: the system does not permit it: [Errno 24] Too many open files: '/lib/json.py'\n",
        ),
        (RecursionError("deep"), 70, "resilience: a fault of this program: RecursionError: deep\n"),
        (
            StorageUnavailable("cannot reach redis://me:hunter2@host/0?password=hunter2"),
            69,
            "resilience: cannot reach redis://***@host/0?password=***\n",
        ),
    ],
)
def test_each_error_has_its_exit_status_and_no_traceback(
    run: Run,
    does: Does,
    error: BaseException,
    status: int,
    err: str,
) -> None:
    does(raising(error))
    assert run("try") == (status, "", err)


def test_what_cannot_even_be_explained_is_said_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where descriptors have run out: then nothing that was not needed so far can be imported."""
    monkeypatch.setitem(sys.modules, "resilience.cli.parser", None)
    done = run("nonsense")
    assert (done.status, done.out) == (69, "")
    assert done.err == "resilience: import of resilience.cli.parser halted; None in sys.modules\n"


def test_what_was_written_before_somebody_leaves_is_seen(run: Run, does: Does) -> None:
    def leaves(shell: Shell) -> int:
        shell.write("said\n")
        raise SystemExit(3)

    does(leaves)
    assert run("try") == (3, "said\n", "")


def test_warnings_are_one_line_each(run: Run, does: Does, monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(shell: Shell) -> int:
        warnings.warn("first\nof two lines", UserWarning, stacklevel=1)
        assert shell.runtime.configuration.core.storage
        return 0

    does(warns)
    monkeypatch.setenv("RESILIENCE_STORAG", "x")
    monkeypatch.setenv("RESILIENCE_UNKNOWN", "warn")
    assert run("try").err.splitlines() == [
        "resilience: warning: first of two lines",
        "resilience: warning: RESILIENCE_STORAG: nothing knows this variable: did you mean RESILIENCE_STORAGE?",
    ]


def test_an_observer_that_raises_is_one_line(run: Run, install: Install) -> None:
    install("resilience", "broken", "BrokenObserver")
    done = run("open", "x")
    assert done == (0, "", "resilience: warning: observer failed (broken): ZeroDivisionError: in the observer\n")


def test_records_of_the_logger_that_tell_no_error_are_not_for_the_shell(run: Run, does: Does) -> None:
    def logs(shell: Shell) -> int:
        assert shell.runtime.configuration.core.storage
        logging.getLogger("resilience").error("nothing raised")
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            logging.getLogger("resilience").exception("this did")
        return 0

    does(logs)
    before = list(logging.getLogger("resilience").handlers)
    assert run("try") == (0, "", "resilience: warning: this did: ZeroDivisionError: \n")
    assert logging.getLogger("resilience").handlers == before


# --- plugins that are broken ------------------------------------------------------------------------------------------


def test_a_broken_policy_stops_no_verb_of_another(run: Run, install: Install) -> None:
    install("resilience.policy", "broken", "no_such_module:Policy")
    assert run("check", "x") == (0, "", "")
    assert "Not shown: plugin 'broken' (no_such_module:Policy of plugin_broken 1.5) does not load" in run("--help").out


def test_an_unknown_verb_may_be_one_of_a_broken_policy(run: Run, install: Install) -> None:
    install("resilience.policy", "broken", "no_such_module:Policy")
    done = run("chek")
    assert (done.status, done.out) == (78, "")
    unknown, broken = done.err.splitlines()
    assert unknown == "resilience: there is no verb 'chek'; did you mean 'check'?"
    assert broken.startswith(
        "resilience: plugin 'broken' (no_such_module:Policy of plugin_broken 1.5) does not load: ModuleNotFoundError"
    )


def test_nobody_takes_a_verb_from_us(run: Run, install: Install) -> None:
    install("resilience.policy", "a_policy", "OtherPolicy")
    install("resilience.policy", "b_policy", "PolicyWithoutVerbs")
    assert run("status", "x", "--json").out.startswith("[")
    assert run("a_policy.status") == (0, "the other one\n", "")
    assert run("a_policy.config") == (0, "the other one\n", "")
    assert run("other") == (0, "the other one\n", "")
    helped = run("--help").out
    assert "  a_policy.status  Show.\n" in helped
    value = "unit.cli.command_line:PolicyWithoutVerbs"
    assert f"Not shown: plugin 'b_policy' ({value} of plugin_b_policy 1.5) brings no verbs: AttributeError" in helped


# --- streams ----------------------------------------------------------------------------------------------------------


class Full(io.StringIO):
    """A stream with no room: at writing, or only when it is let go."""

    def __init__(self, error: OSError, *, at_once: bool) -> None:
        super().__init__()
        self._error = error
        self._at_once = at_once

    def write(self, text: str) -> int:
        if self._at_once:
            raise self._error
        return len(text)

    def flush(self) -> None:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize("at_once", [True, False])
def test_output_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, at_once: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(OSError(28, "No space left on device"), at_once=at_once))
    assert cli.main(["status"]) == 74
    message = "resilience: the output cannot be written: [Errno 28] No space left on device\n"
    assert capfd.readouterr().err == message


@pytest.mark.parametrize("at_once", [True, False])
def test_a_reader_who_has_seen_enough_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *, at_once: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(BrokenPipeError(32, "Broken pipe"), at_once=at_once))
    assert cli.main(["status"]) == 141
    assert capfd.readouterr().err == ""


def test_without_streams_there_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["status"]) == 74
    assert cli.main(["check", "x"]) == 0
    assert cli.main(["chek"]) == 2


def test_an_error_that_cannot_be_told_is_still_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Full(OSError(28, "No space left on device"), at_once=True))
    assert cli.main(["chek"]) == 2


@pytest.mark.parametrize("full", [True, False])
def test_what_cannot_be_explained_nor_said_has_its_status(monkeypatch: pytest.MonkeyPatch, full: bool) -> None:  # noqa: FBT001
    stream = Full(OSError(28, "No space left on device"), at_once=True) if full else None
    monkeypatch.setitem(sys.modules, "resilience.cli.parser", None)
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(["nonsense"]) == 69


def test_what_a_stream_has_no_character_for_is_written_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    CircuitBreaker("zürich €").record_failure("Größe")
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["status"]) == 0
    out.flush()
    written = out.buffer.getvalue().decode("latin-1")
    assert "zürich \\u20ac" in written
    assert "Größe" in written


# --- bad environments, for each verb ----------------------------------------------------------------------------------

VERBS = {
    "check": ["check", "x"],
    "check --json": ["check", "x", "--json"],
    "success": ["success", "x"],
    "failure": ["failure", "x"],
    "run": ["run", "x", "--", "true"],
    "status": ["status"],
    "status x": ["status", "x"],
    "open": ["open", "x"],
    "close": ["close", "x"],
    "disable": ["disable", "x"],
    "reset": ["reset", "x"],
    "config": ["config"],
    "config x": ["config", "x"],
    "plugins": ["plugins"],
    "doctor": ["doctor"],
}

ENVIRONMENTS: dict[str, tuple[dict[str, str], str, dict[str, int]]] = {
    "unknown variable": ({"RESILIENCE_STORAGE_TIMOUT": "1"}, "did you mean RESILIENCE_STORAGE_TIMEOUT?", {}),
    "bad number": ({"RESILIENCE_STORAGE_TIMEOUT": "nan"}, "RESILIENCE_STORAGE_TIMEOUT: 'nan' is refused", {}),
    "bad setting of a policy": (
        {"RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD": "0"},
        "RESILIENCE_CIRCUIT_BREAKER__FAILURE_THRESHOLD: '0' is refused",
        {},
    ),
    "exception that there is not": (
        {"RESILIENCE_CIRCUIT_BREAKER__FAILURE_ON": "ConectionError"},
        "there is no built-in exception 'ConectionError'; did you mean 'ConnectionError'?",
        {},
    ),
    "bad setting of a name": (
        {"RESILIENCE_POLICIES__X__CIRCUIT_BREAKER__RESET_TIMEOUT": "-1"},
        "RESILIENCE_POLICIES__X__CIRCUIT_BREAKER__RESET_TIMEOUT: '-1' is refused",
        {},
    ),
    "no URL": ({"RESILIENCE_STORAGE": "nonsense"}, "RESILIENCE_STORAGE: 'nonsense' is refused", {}),
    "escape codes": ({"RESILIENCE_STORAGE": "file:///\x1b[31m"}, "RESILIENCE_STORAGE: ", {}),
    "unknown scheme": ({"RESILIENCE_STORAGE": "fil:///tmp"}, "did you mean 'file'?", {"plugins": 0}),
    "bad setting of the storage": (
        {"RESILIENCE_FILE__DURABILITY": "perhaps"},
        "RESILIENCE_FILE__DURABILITY: 'perhaps' is refused",
        {"plugins": 0},
    ),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_bad_configuration_is_told_by_every_verb(
    run: Run, monkeypatch: pytest.MonkeyPatch, verb: str, environment: str
) -> None:
    variables, says, exceptions = ENVIRONMENTS[environment]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = run(*VERBS[verb])
    assert done.status == exceptions.get(verb, 78)
    assert "Traceback" not in done.err
    assert all(line.startswith("resilience: ") and line.isprintable() for line in done.err.splitlines())
    assert (says in done.err) is (done.status == 78)
    if verb != "plugins":
        assert done.out == ""


UNREACHABLE = {"check": 0, "check --json": 0, "run": 0, "config": 0, "plugins": 0}


@pytest.mark.parametrize("verb", VERBS)
def test_a_storage_that_does_not_answer_is_told_by_every_verb(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "occupied").write_text("no folder")
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "occupied").as_uri())
    done = run(*VERBS[verb])
    assert done.status == UNREACHABLE.get(verb, 69)
    assert "Traceback" not in done.err
    assert all(line.startswith("resilience: ") for line in done.err.splitlines())
    if verb not in {"config", "plugins"}:
        assert "occupied" in done.err + done.out


@pytest.mark.parametrize(
    ("mode", "verb", "status", "note"),
    [
        ("local", "check", 0, "going on with a private copy of the state"),
        ("local", "run", 0, "going on with a private copy of the state"),
        ("allow", "check", 0, "letting calls through"),
        ("allow", "run", 0, "letting calls through"),
        ("deny", "check", 75, ""),
        ("deny", "run", 75, ""),
        ("raise", "check", 69, ""),
        ("raise", "run", 69, ""),
    ],
)
def test_in_an_outage_the_policy_decides(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
    verb: str,
    status: int,
    note: str,
) -> None:
    (tmp_path / "occupied").write_text("no folder")
    monkeypatch.setenv("RESILIENCE_STORAGE", (tmp_path / "occupied").as_uri())
    monkeypatch.setenv("RESILIENCE_CIRCUIT_BREAKER__ON_STORE_ERROR", mode)
    done = run(*VERBS[verb])
    assert (done.status, done.out) == (status, "")
    (line,) = done.err.splitlines()
    assert "is not a folder" in line
    assert line.startswith("resilience: warning: the storage does not answer (") is bool(note)
    assert note in line


def test_a_damaged_record_is_told_and_set_aside(run: Run, tmp_path: Path) -> None:
    run("failure", "x")
    (record,) = (tmp_path / "state-home" / "resilience" / "circuit_breaker").glob("x-*")
    record.write_bytes(b"\0" * record.stat().st_size)
    done = run("failure", "x")
    assert (done.status, done.out) == (0, "")
    message = "resilience: warning: circuit_breaker 'x': its damaged record was set aside, it begins anew ("
    assert done.err.startswith(message)
    assert json.loads(run("status", "x", "--json").out)[0]["failure_count"] == 1


@pytest.mark.parametrize(("name", "status"), [("stdout", 74), ("stderr", 0)])
def test_a_process_without_a_stream_ends_all_the_same(name: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"import sys; sys.{name} = None; sys.argv[1:] = ['--version']; from resilience.cli import main; exit(main())"
    assert subprocess.run([sys.executable, "-c", gone], check=False, stderr=subprocess.DEVNULL).returncode == status
    monkeypatch.setattr(sys, name, None)
    cli._let_go()  # the same, where it can be measured


@pytest.mark.parametrize(
    "words",
    ["status", "status --json", "config", "plugins", "events", "check x --token", "demo", "--help", "run --help"],
)
def test_who_has_something_to_say_and_no_output_ends_with_an_error(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(words.split()) == 74
    assert capsys.readouterr().err == "resilience: the output cannot be written: the standard output is closed\n"


@pytest.mark.parametrize("words", ["check x", "success x", "failure x", "open x", "reset x"])
def test_who_has_nothing_to_say_needs_no_output(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(words.split()) == 0


def test_what_a_full_disk_does_not_take_is_dropped_at_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:

        def full() -> None:
            raise OSError("no space left on device")

        monkeypatch.setattr(stream, "flush", full, raising=False)
        monkeypatch.setattr(sys, "stdout", stream)
        cli._let_go()
        monkeypatch.undo()
        stream.write("lost")
    assert not (tmp_path / "out").read_text()
