"""What the demo shows, without its processes."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from resilience.cli import demo, main
from resilience.cli.demo.model import FAILING, HEALTHY, RECOVERING, SLOTS, WORKERS, Play, Script, summary
from resilience.cli.demo.plain import Lines
from resilience.cli.demo.screen import MOVES, Screen, conclusion, frame
from resilience.cli.demo.stage import DemoFailed
from resilience.cli.shell import Unwritable

if TYPE_CHECKING:
    from pathlib import Path


def opened(epoch: int = 1, *, old: str = "closed", new: str = "open") -> dict[str, object]:
    return {"old": old, "new": new, "reason": "3 failures in a row", "epoch": epoch}


def call(outcome: str, state: str = "closed") -> dict[str, object]:
    return {"did": outcome, "state": state}


@pytest.fixture
def play() -> Play:
    """A play of ten seconds, five seconds in: the breaker is open, and one worker was the third to fail."""
    play = Play(Script(10.0))
    for second, outcome in enumerate(("ok", "ok", "failed", "rejected", "rejected")):
        play.advance(float(second))
        if second == 2:
            play.take(1, opened())
        play.take(1, call(outcome, "closed" if second < 2 else "open"))
        play.take(WORKERS, call("ok" if second < 2 else "failed", ""))
    play.hits = {True: 1, False: 3}
    return play


# -- the model ---------------------------------------------------------------------------------------------------------


def test_script_is_healthy_then_fails_then_recovers() -> None:
    script = Script(10.0)
    phases = [script.phase(second) for second in (0.0, 1.9, 2.1, 6.9, 7.1, 9.9, 10.0, 11.0)]
    assert phases == [HEALTHY, HEALTHY, FAILING, FAILING, RECOVERING, RECOVERING, RECOVERING, RECOVERING]
    assert script.failing_seconds == pytest.approx(5.0)


def test_breaker_probes_the_failing_server_several_times_and_closes_before_the_end() -> None:
    script = Script(12.0)
    recovery = script.seconds - sum(script.phase(second / 10) == RECOVERING for second in range(120)) / 10
    assert script.failing_seconds / script.reset_timeout > 3
    assert recovery + 2 * script.reset_timeout < script.seconds


def test_every_second_is_drawn_somewhere() -> None:
    script = Script(10.0)
    assert [script.slot(second) for second in (-1.0, 0.0, 5.0, 10.0, 99.0)] == [0, 0, SLOTS // 2, SLOTS - 1, SLOTS - 1]


def test_calls_are_counted_by_worker_and_outcome(play: Play) -> None:
    assert [row.calls for row in play.rows] == [0, 5, 0, 0, 5, 0, 0, 0]
    assert play.rows[1].counts == {"ok": 2, "failed": 1, "rejected": 2}
    assert (play.rows[1].state, play.rows[WORKERS].state) == ("open", "")
    assert (play.total(protected=True), play.total(protected=False)) == (5, 5)
    assert play.total(protected=False, outcome="failed") == 3


def test_state_is_the_newest_whatever_arrives_first() -> None:
    play = Play(Script(10.0))
    play.take(0, opened(2, old="open", new="half_open"))
    play.take(1, opened(1))
    assert play.state == "half_open"
    assert [move.new for move in play.moves] == ["half_open", "open"]


def test_what_matters_most_is_drawn_where_several_things_happen_at_once() -> None:
    play = Play(Script(10.0))
    for outcome in ("rejected", "failed", "ok"):
        play.take(0, call(outcome))
    assert play.rows[0].strip.kinds == ["failed"] + [""] * (SLOTS - 1)


@pytest.mark.parametrize("message", [{}, {"did": "ok"}, {"did": 1, "state": "open"}, {"old": "open"}])
def test_message_that_is_none_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="worker 1 reports"):
        Play(Script(10.0)).take(0, message)


def test_summary_says_what_the_server_counted(play: Play) -> None:
    assert summary(play) == [
        "While the server failed, 5.0 s long, it was hit by",
        "     3 requests of 4 processes without a breaker  (5 calls, 0 rejected)",
        "     1 requests of 4 processes that share one     (5 calls, 2 rejected)",
        "The breaker spared it 2 requests, 67 %.",
    ]


def test_summary_of_nothing_divides_by_nothing() -> None:
    assert summary(Play(Script(10.0)))[-1] == "The breaker spared it 0 requests, 0 %."


# -- in lines ----------------------------------------------------------------------------------------------------------


def test_lines_tell_each_thing_once(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    with Lines() as show:
        capsys.readouterr()
        show.update(play)
        show.update(play)
    assert capsys.readouterr().out.splitlines() == [
        "  4.0 s  the server is failing",
        "  2.0 s  worker 2 moved the breaker: closed -> open (3 failures in a row)",
        "  4.0 s            0/0/0    open      5/1/2              0/0/0              0/0/0",
        "  4.0 s            0/0/0    open      5/1/2              0/0/0              0/0/0",
    ]
    play.advance(4.1)
    for _ in range(4):
        show.update(play)
    assert len(capsys.readouterr().out.splitlines()) == 2, "a line a second"
    show.end(play)
    assert capsys.readouterr().out.splitlines() == ["", *summary(play)]


def test_lines_that_cannot_be_written_are_an_error_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError("no space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(Unwritable) as raised:
        Lines().__enter__()
    assert str(raised.value.__cause__) == "no space left on device"


# -- on a terminal -----------------------------------------------------------------------------------------------------


def drawn(what: Any, *, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_frame_fits_a_small_terminal(play: Play) -> None:
    for number in range(20):
        play.take(2, opened(number))
    lines = drawn(frame(play, ascii_only=False))
    assert len(lines) < 24
    assert not any("…" in line for line in lines)


def test_frame_has_the_same_height_from_the_start(play: Play) -> None:
    assert len(drawn(frame(Play(Script(10.0)), ascii_only=False))) == len(drawn(frame(play, ascii_only=False)))


def test_frame_shows_the_last_changes_only(play: Play) -> None:
    for number in range(2, 20):
        play.take(2, opened(number, old="open", new="half_open"))
    lines = drawn(frame(play, ascii_only=False))
    assert sum("→ half-open" in line for line in lines) == MOVES
    assert not any("closed → open" in line for line in lines)


def test_frame_shows_what_each_worker_sees(play: Play) -> None:
    lines = drawn(frame(play, ascii_only=True))
    assert next(line.split() for line in lines if "worker 2" in line) == [
        *("worker", "2", "open", "5", "1", "2"),
        *("+", "+", "x", ".", "."),
    ]
    assert next(line.split() for line in lines if "bare 1" in line) == [
        *("bare", "1", "no", "breaker", "5", "3"),
        *("+", "+", "x", "x", "x"),
    ]
    assert next(line.split() for line in lines if "breaker  " in line)[:2] == ["breaker", "open"]
    assert next(line.split() for line in lines if "server  " in line)[:2] == ["server", "failing"]
    assert any("worker 2: closed -> open  3 failures in a row" in line for line in lines)


def test_frame_in_ascii_is_ascii_but_for_the_rule(play: Play) -> None:
    text = "\n".join(drawn(frame(play, ascii_only=True)))
    assert text.replace("─", "-").isascii()


def test_conclusion_fits_a_small_terminal(play: Play) -> None:
    play.hits = {True: 9999, False: 9999}
    lines = drawn(conclusion(play))
    assert len(lines) == len(summary(play)) + 2
    for line in summary(play):
        assert any(line.strip() in found for found in lines)


@pytest.mark.parametrize(("encoding", "sign"), [("utf-8", "✗"), ("ascii", "x")])
def test_screen_draws_what_the_terminal_can_show(play: Play, encoding: str, sign: str) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with Screen(Console(file=file, width=80, force_terminal=True)) as show:
        show.update(play)
    show.end(play)
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    text = file.buffer.getvalue().decode(encoding)
    assert sign in text
    assert "spared it 2 requests" in text


# -- how it is shown ---------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def chosen(monkeypatch: pytest.MonkeyPatch, stdout: io.StringIO, *, plain: bool = False) -> Lines | Screen:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stdout)
        return demo.choose(plain=plain)


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_terminal_gets_a_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(chosen(monkeypatch, Terminal()), Screen)


def test_terminal_gets_lines_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(chosen(monkeypatch, Terminal(), plain=True), Lines)


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(chosen(monkeypatch, Terminal()), Lines)


def test_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(chosen(monkeypatch, Terminal()), Lines)


def test_file_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert isinstance(chosen(monkeypatch, io.StringIO()), Lines)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", ["2.9", "15.1"])
def test_demo_is_neither_very_short_nor_long(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seconds", seconds]) == 2
    assert "--seconds is from 3 to 15" in capsys.readouterr().err


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it impossible to begin."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))


PLAIN = argparse.Namespace(plain=True, seconds=3.0)


@pytest.mark.usefixtures("nowhere")
def test_no_temporary_folder_is_said_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert demo.run(PLAIN) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resilience: the demo failed: [Errno 2] No such file or directory")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("nowhere")
def test_it_runs_beside_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(demo.run(PLAIN)))
    thread.start()
    thread.join()
    assert statuses == [70]
    assert "No such file" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no such signal")
def test_a_signal_that_is_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []

    def failing(show: object, seconds: float) -> Play:
        handlers.extend(signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM))
        raise DemoFailed("enough")

    monkeypatch.setattr(demo, "perform", failing)
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert demo.run(PLAIN) == 70
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, kept)
    hangup, terminate = handlers
    assert hangup is signal.SIG_IGN
    assert callable(terminate)
