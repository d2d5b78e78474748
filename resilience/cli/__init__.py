"""The command line: `resilience check payments`, `resilience run payments -- curl …`, `resilience status`.

`catalogue` has the verbs, `parser` reads the words, a `Shell` is what a verb works with; here errors become messages
and exit statuses.
"""

from __future__ import annotations

import sys

from resilience.cli import statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, TextIO

    from resilience.cli.shell import Shell

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; never raises, never prints a traceback.

    :param argv: the words after the name of the program; those of the process if left out.  Then the process is ours,
        and may end here.
    """
    if argv is not None:
        return _run(list(argv))
    try:
        import gc

        gc.disable()  # to look for garbage takes a tenth of the time of such a process, and finds none
        status = _run(sys.argv[1:])
        _let_go()
    except KeyboardInterrupt:
        status = statuses.SIGNALLED + 2  # SIGINT
    if "threading" not in sys.modules:
        _leave(status)
    return status


def _leave(status: int) -> NoReturn:
    """End the process at once: to take the interpreter apart, object by object, takes a seventh of its time.

    What others want done at the end is done.  Not for a process that may have threads, which are to be waited for.
    """
    import atexit
    import os

    atexit._run_exitfuncs()  # noqa: SLF001 - as `multiprocessing` does before the same call
    _let_go()
    os._exit(status)


def _let_go() -> None:
    """Write out what stands in the streams; what cannot be written is dropped, or the interpreter would try again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)
        except AttributeError:
            pass  # there is none


def _drop(stream: TextIO | None) -> None:
    """Let a stream lead nowhere."""
    import os

    try:
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        pass  # no file, so nothing is written at the end


def _run(words: list[str]) -> int:
    try:
        return _run_shell(words)
    except Exception as error:  # noqa: BLE001 - no traceback, whatever it is
        return _barely_said(error)


def _barely_said(error: Exception) -> int:
    """Say what went wrong by what is loaded already: nothing more can be, as where descriptors have run out."""
    what = error if isinstance(error, OSError | ImportError) else type(error).__name__
    try:
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is where it was closed
            sys.stderr.write(f"resilience: {what}\n")
    except (OSError, ValueError):
        pass
    return statuses.UNAVAILABLE


def _run_shell(words: list[str]) -> int:
    from resilience.cli.shell import Shell, Unwritable

    shell = Shell(sys.stdout, sys.stderr)
    try:
        try:
            with shell:
                status = _serve(shell, words)
            shell.tell()
            shell.flush()
        except SystemExit as leaving:
            shell.flush()
            return leaving.code if isinstance(leaving.code, int) else statuses.OK
    except KeyboardInterrupt:
        return statuses.SIGNALLED + 2  # SIGINT
    except (Unwritable, BrokenPipeError) as error:
        return _unwritable(shell, error.__cause__ or error)
    except Exception as error:  # noqa: BLE001 - a message, not a traceback
        return _explained(shell, error)
    return status


def _serve(shell: Shell, words: list[str]) -> int:
    from resilience.cli.parser import parse

    verb = shell.planned_verb(words[0]) if words else None
    if verb is not None:
        return verb.run(shell, parse(verb, words[1:]))
    return _serve_composing(shell, words)


def _serve_composing(shell: Shell, words: list[str]) -> int:
    """Do what no plan knows: all verbs are looked for, those of the core first."""
    from resilience.cli import catalogue
    from resilience.cli.parser import UsageError, parse, shown

    words = catalogue.joined(words)
    first = words[0] if words else "--help"
    if first in {"-h", "--help"}:
        from resilience.cli.help import overview

        shell.write(overview(shell))
        return statuses.OK if words else statuses.USAGE
    if first == "--version":
        from resilience import __version__

        shell.write(f"resilience {__version__}\n")
        return statuses.OK
    if first.startswith("-"):
        raise UsageError(f"there is no option {shown(first)}; options stand after the verb")
    verb = catalogue.find(first, shell)
    if verb is None:
        from resilience.cli.help import unknown

        raise unknown(first, shell)
    return verb.run(shell, parse(verb, words[1:]))


def _explained(shell: Shell, error: Exception) -> int:
    """Say what went wrong, and return the exit status that says it to programs."""
    from resilience.cli.parser import UsageError
    from resilience.errors import ConfigurationError, PluginError, PolicyRejected, StorageError

    if isinstance(error, UsageError):
        shell.say(str(error))
        shell.say(f"try: resilience {error.verb} --help" if error.verb else "try: resilience --help")
        return statuses.USAGE
    if isinstance(error, StorageError):
        shell.notes.clear()  # they say what the policy did meanwhile, but nothing was done
    shell.tell()
    if isinstance(error, PolicyRejected):
        shell.say(str(error))
        return statuses.REJECTED
    if isinstance(error, ConfigurationError | PluginError):
        shell.say(str(error))
        return statuses.CONFIGURATION
    if isinstance(error, StorageError):
        shell.say(str(error))
        return statuses.UNAVAILABLE
    if isinstance(error, OSError):  # descriptors have run out, or what is to be imported cannot be read
        shell.say(f"the system does not permit it: {error}")
        return statuses.UNAVAILABLE
    shell.say(f"a fault of this program: {type(error).__name__}: {error}")
    return statuses.SOFTWARE


def _unwritable(shell: Shell, cause: BaseException) -> int:
    """End without another try: the interpreter would make one when it leaves, and print a traceback."""
    _drop(sys.stdout)
    if isinstance(cause, BrokenPipeError):
        return statuses.SIGNALLED + 13  # SIGPIPE: whoever read has seen enough
    shell.say(f"the output cannot be written: {cause}")
    return statuses.CANNOT_WRITE
