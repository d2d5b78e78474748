"""What the tests of the command line hold: what a run came to, and plugins that do what a test wants of them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple, Protocol

from resilience import Event, Snapshot, StorageUnavailable, hookimpl
from resilience.cli.verbs import Verb
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from argparse import Namespace

    from resilience import Key
    from resilience.cli.shell import Shell


class Terminal(io.StringIO):
    """A terminal as the standard output."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Done(NamedTuple):
    """Exit status, standard output and standard error of one run."""

    status: int
    out: str
    err: str


class Run(Protocol):
    """Run the command line in this process."""

    def __call__(self, *words: str) -> Done: ...


class Install(Protocol):
    """Let a plugin be found, besides ours and before them; `what` is the name of one below, or any value."""

    def __call__(self, group: str, name: str, what: str) -> None: ...


class BrokenObserver:
    @hookimpl
    def resilience_transition(self) -> None:
        raise ZeroDivisionError("in the observer")

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        raise ZeroDivisionError("in the observer")


class OtherPolicy:
    """A policy of somebody else with verbs of its own, some of which are called like ours."""

    @staticmethod
    def verbs() -> list[Verb]:
        def says(shell: Shell, _arguments: Namespace) -> int:
            shell.write("the other one\n")
            return 0

        return [Verb(name, "Show.", says) for name in ("status", "other", "config")]


class TabledStorage(MemoryStorage):
    """A storage that needs a table."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url, settings)
        self.url = url

    def prepare(self, *, dry: bool) -> str:
        if self.url.endswith("down"):
            raise StorageUnavailable("the server is down")
        if self.url.endswith("broken"):
            raise ZeroDivisionError("by zero")
        return "CREATE TABLE t" if dry else "made the table"


class PolicyWithoutVerbs:
    pass


class UnlistedStorage(MemoryStorage):
    """A storage that cannot list its keys, nor delete."""

    resilience_keys = None  # type: ignore[assignment]
    resilience_delete = None  # type: ignore[assignment]


class ForgetfulStorage(MemoryStorage):
    """A storage that takes its arguments, and loads nothing."""

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        return Snapshot(None, None)


class UnfitStorage(MemoryStorage):
    """A storage with an argument that no specification has."""

    @hookimpl
    def resilience_save(self, key: Key, payload: bytes, expires: float) -> Snapshot:  # type: ignore[override]
        return Snapshot(payload, None)


class LoudStorage(MemoryStorage):
    """A storage whose errors quote its URL, in red."""

    def __init__(self, url: str, settings: None = None) -> None:
        super().__init__(url, settings)
        self.url = url

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        raise OSError(f"\x1b[31m{self.url} is down")


class SilentStorage(MemoryStorage):
    """A storage that does not answer when it is asked for its keys."""

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        raise StorageUnavailable("no answer")
