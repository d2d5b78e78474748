"""What a verb works with: the runtime, and the two streams that it may write to."""

from __future__ import annotations

from os import environ  # noqa: TID251 - what a runtime would read, for a run that needs none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Any, Self, TextIO

    from resilience.cli.verbs import Verb
    from resilience.plan import Plan
    from resilience.policy import Policy
    from resilience.runtime import Runtime


class Unwritable(Exception):
    """The output could not be written, because of an `OSError`, which is its cause."""


class Shell:
    """One run of the command line.

    Entered, it catches what would otherwise reach the terminal in several lines: warnings, and what the framework
    logs.  `notes` are told before a command is run, and at the end.
    """

    def __init__(self, out: TextIO | None, err: TextIO | None) -> None:
        self._out = out
        self._err = err
        self._runtime: Runtime | None = None
        self._plan: Plan | None = None
        self._looked = False
        self._entered: list[Any] = []
        self.notes: list[str] = []
        """What happened on the side and a person should know."""

    # -- the runtime -------------------------------------------------------------------------------------------------

    @property
    def runtime(self) -> Runtime:
        """The runtime of this run, made at the first use."""
        if self._runtime is None:
            from resilience.cli.notes import Notes, OneLine
            from resilience.runtime import Runtime

            self._runtime = runtime = Runtime(observers=[Notes(self.notes)], plan=self.plan)
            self._enter(runtime)
            self._enter(OneLine(self.notes))
        return self._runtime

    @property
    def plan(self) -> Plan | None:
        """What an earlier run came to, if this one may take it over."""
        if not self._looked:
            from resilience.plan import find

            self._plan = find(environ)
            self._looked = True
        return self._plan

    def planned_verb(self, name: str) -> Verb | None:
        """Find a verb as an earlier run found it; `None` if there is no plan, or it does not know the verb."""
        plan = self.plan
        if plan is None:
            return None
        from resilience.plan import verb_of

        return verb_of(plan, name)

    def lets_in(self, kind: type[Policy], name: str) -> bool:
        """Whether a call is let in, as a plan knows without a runtime; false if the runtime has to be asked."""
        plan = self.plan
        if plan is None:
            return False
        from resilience.glance import lets_in

        return lets_in(plan, environ, kind, name)

    def expect_sharing(self) -> None:
        """Note that what this run changes ends with it, where the storage is for one process alone.

        For a verb that changes something.

        :raises ResilienceError: the storage cannot be opened.
        """
        from resilience.cli.sharing import is_shared, unshared

        if not is_shared(self.runtime):
            self.notes.append(unshared(self.runtime))

    def _enter(self, manager: Any) -> None:
        manager.__enter__()
        self._entered.append(manager)

    def __enter__(self) -> Self:
        """Catch warnings, once there can be any."""
        from resilience.cli.hearing import Hearing

        self._enter(Hearing("warnings", self._catch_warnings))
        return self

    def _catch_warnings(self) -> None:
        import warnings

        def note(message: Warning | str, *_: object, **__: object) -> None:
            self.notes.append(str(message))

        caught = warnings.catch_warnings()
        caught.__enter__()
        self._entered.insert(0, caught)  # what is closed at the end may warn as well
        warnings.simplefilter("always", UserWarning)  # ours are none of the program's, so `-W error` is not meant
        warnings.showwarning = note

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Keep what this run came to for the next, and close the runtime."""
        try:
            if self._runtime is not None and self._runtime.has_composed:
                from resilience.cli.catalogue import brought_by

                self._runtime.keep_plan(brought_by(self._runtime.selection))
        finally:
            while self._entered:
                self._entered.pop().__exit__(kind, error, traceback)

    # -- output ------------------------------------------------------------------------------------------------------

    @property
    def is_terminal(self) -> bool:
        """Whether the output is a terminal that obeys codes."""
        environ = self.runtime.environ
        return self._out is not None and self._out.isatty() and environ.get("TERM", "") not in {"", "dumb"}

    @property
    def has_colour(self) -> bool:
        """Whether the output is a terminal that shows colours, and `NO_COLOR` does not forbid them."""
        return self.is_terminal and not self.runtime.environ.get("NO_COLOR")

    def collecting(self) -> Collecting:
        """Keep what is written while this is entered, to be written as a whole: ``with … as frame``."""
        return Collecting(self)

    def write(self, text: str) -> None:
        """Write to the standard output.

        :raises Unwritable: that could not be done.
        """
        if self._out is None:
            if text:
                from resilience.cli.output import closed

                raise closed()
            return
        try:
            self._out.write(_encodable(text, self._out))
        except OSError as error:
            raise Unwritable from error

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[str]], *, longest: int | None = None) -> None:
        """Write a table.  On a terminal its cells are shortened, elsewhere nothing is cut off.

        :param longest: characters that a cell has at most on a terminal; a number that suits most if left out.
        """
        from resilience.cli.output import LONGEST_CELL, table

        fits = (longest or LONGEST_CELL) if self.is_terminal else None
        self.write(table(titles, rows, colour=self.has_colour, longest=fits))

    def json(self, value: object) -> None:
        """Write JSON."""
        from resilience.cli.output import json_text

        self.write(json_text(value))

    def json_lines(self, values: Iterable[object]) -> None:
        """Write a list as JSON, a line for each value, as they come."""
        from resilience.cli.output import json_lines

        for piece in json_lines(values):
            self.write(piece)

    def flush(self) -> None:
        """Let go of all that was written.

        :raises Unwritable: that could not be done.
        """
        if self._out is not None:
            try:
                self._out.flush()
            except OSError as error:
                raise Unwritable from error

    def say(self, text: str) -> None:
        """Write one line to the standard error, or several if the text has several; if that fails, nobody can know."""
        if self._err is None:
            return
        from resilience.cli.output import escaped

        lines = "".join(f"resilience: {escaped(_without_secrets(line))}\n" for line in text.splitlines())
        try:
            self._err.write(_encodable(lines, self._err))
            self._err.flush()
        except (OSError, ValueError):
            pass

    def tell(self) -> None:
        """Tell the notes."""
        notes, self.notes[:] = list(self.notes), []
        for note in notes:
            self.say(f"warning: {' '.join(note.splitlines())}")


class Collecting:
    """Takes the place of the output of a shell for a while; what was written is `getvalue()`."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._parts: list[str] = []
        self._out: TextIO | None = None

    def __enter__(self) -> Self:
        """Begin."""
        collected: Any = self
        self._out, self._shell._out = self._shell._out, collected  # noqa: SLF001 - this module's own
        return self

    def __exit__(self, *error: object) -> None:
        """Let the shell have its output again."""
        self._shell._out = self._out  # noqa: SLF001 - this module's own

    @property
    def encoding(self) -> str | None:
        """That of the output."""
        return None if self._out is None else self._out.encoding

    def isatty(self) -> bool:
        """Whether the output is a terminal."""
        return self._out is not None and self._out.isatty()

    def write(self, text: str) -> None:
        """Keep it."""
        self._parts.append(text)

    def getvalue(self) -> str:
        """Return all that was written."""
        return "".join(self._parts)


def _encodable(text: str, stream: TextIO) -> str:
    """Replace what the stream's encoding has no character for."""
    if text.isascii():
        return text
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _without_secrets(line: str) -> str:
    if "://" not in line:
        return line
    from resilience.redaction import redact_within

    return redact_within(line)
