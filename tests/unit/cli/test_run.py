"""`run`, as far as it needs no process of its own; see `tests/processes/test_cli_run.py` for the rest."""

from __future__ import annotations

import io
import os
import signal
from typing import TYPE_CHECKING, cast

import pytest

from resilience.cli import relay, run
from resilience.cli.shell import Shell

if TYPE_CHECKING:
    from resilience import Guard

RELAYS = [relay.HandlerRelay, relay.WaitingRelay]


class Interrupted:
    """A guard that is asked while somebody presses Ctrl-C, and its permit."""

    def __init__(self) -> None:
        self.released = 0

    def acquire(self) -> Interrupted:
        signal.raise_signal(signal.SIGINT)
        return self

    def release(self) -> None:
        self.released += 1


def interrupted(guard: Interrupted) -> int:
    with Shell(io.StringIO(), io.StringIO()) as shell:
        words = ["no-such-command-1"]
        return run.run(shell, cast("Guard", guard), words, ok_status=(), timeout=None, kill_after=1)


def test_an_interrupt_before_the_command_begins_gives_the_permit_back() -> None:
    guard = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        interrupted(guard)
    assert guard.released == 1


def test_an_interrupt_before_the_command_begins_where_signals_cannot_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "Relay", relay.HandlerRelay)
    guard = Interrupted()
    assert interrupted(guard) == 130
    assert guard.released == 1


@pytest.mark.parametrize("kind", RELAYS)
def test_a_signal_that_came_while_the_command_was_started_is_passed_on(kind: type[relay.HandlerRelay]) -> None:
    with kind() as passing:
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)
        assert passing.unwanted == signal.SIGTERM
        passing.start(["sleep", "60"])
        assert passing.wait() == -signal.SIGTERM


@pytest.mark.parametrize("kind", RELAYS)
def test_the_signals_are_given_back(kind: type[relay.HandlerRelay]) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGTSTP, signal.SIGCHLD]
    before = [signal.getsignal(number) for number in numbers], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with kind() as passing:
        passing.start(["true"])
        assert passing.wait() == 0
    assert ([signal.getsignal(number) for number in numbers], signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


def test_a_signal_that_came_together_with_the_end_of_the_command_is_noticed() -> None:
    with relay.WaitingRelay() as passing:
        passing.start(["true"])
        signal.raise_signal(signal.SIGUSR1)
        os.waitid(os.P_PID, passing._started.pid, os.WEXITED | os.WNOWAIT)
        assert passing.wait() == 0
    assert passing.received == {signal.SIGUSR1}


def test_this_system_tells_who_sent_a_signal_if_it_can() -> None:
    assert relay.Relay is (relay.WaitingRelay if hasattr(signal, "sigtimedwait") else relay.HandlerRelay)
