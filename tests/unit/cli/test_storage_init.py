"""`resilience storage init`: a storage makes what it needs before its first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unit.cli.command_line import Install, Run


def test_a_storage_that_needs_nothing_says_so(run: Run) -> None:
    done = run("storage", "init")
    assert (done.status, done.out) == (0, "")
    assert "storage file needs nothing to be made before its first use" in done.err


def test_the_chosen_storage_is_prepared(run: Run, install: Install) -> None:
    install("resilience.storage", "tabled", "TabledStorage")
    done = run("storage", "init", "tabled://me:hunter2@host")
    assert done == (0, "tabled://***@host: made the table\n", "")


def test_what_would_be_done_is_printed_and_not_done(run: Run, install: Install) -> None:
    install("resilience.storage", "tabled", "TabledStorage")
    done = run("storage", "init", "tabled://me:hunter2@host", "--print")
    assert done == (0, "CREATE TABLE t\n", "")


def test_a_storage_that_cannot_be_prepared(run: Run, install: Install) -> None:
    install("resilience.storage", "tabled", "TabledStorage")
    done = run("storage", "init", "tabled://down")
    assert (done.status, done.out) == (69, "")
    assert "the server is down" in done.err
    done = run("storage", "init", "tabled://broken")
    assert (done.status, done.out) == (78, "")
    assert "storage tabled: its prepare raised ZeroDivisionError: by zero; repair the plugin" in done.err
