"""The verbs of a circuit breaker on the command line.

A shell has no code: each verb takes the breaker as the code that made it left it (`CircuitBreaker.stored`), so that
it opens where the code said.
"""

from __future__ import annotations

from resilience.cli.arguments import FOR, JSON, NAME, NAMES, REASON
from resilience.cli.output import BOLD, DIM, GREEN, RED, YELLOW, escaped, paint, seconds
from resilience.cli.run import OPTIONS
from resilience.cli.run import run as run_command
from resilience.cli.statuses import OK, REJECTED, UNAVAILABLE
from resilience.cli.verbs import Argument, Verb
from resilience.clock import wall
from resilience.errors import StorageError
from resilience.permits import parse_token
from resilience_circuit_breaker._errors import CircuitOpenError
from resilience_circuit_breaker.breaker import CircuitBreaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from resilience.cli.shell import Shell
    from resilience_circuit_breaker._status import CircuitStatus


def _token(text: str) -> str:
    parse_token(text)
    return text


TOKEN = Argument("--token", help="the token that check --token printed", metavar="TOKEN", convert=_token)


def _breaker(shell: Shell, arguments: Namespace) -> CircuitBreaker:
    return CircuitBreaker.stored(arguments.name, shell.runtime)


# --- a call -----------------------------------------------------------------------------------------------------------


def _check(shell: Shell, arguments: Namespace) -> int:
    breaker = _breaker(shell, arguments)
    token = None
    try:
        if arguments.token:
            token = breaker.acquire().token
        else:
            breaker.admit()
    except CircuitOpenError as rejection:
        if not arguments.json:
            raise
        answer = {name: getattr(rejection, name) for name in ("state", "retry_after", "last_error", "reason")}
        shell.json({"name": breaker.name, "allowed": False, "token": None, **answer})
        return REJECTED
    if arguments.json:
        shell.json({"name": breaker.name, "allowed": True, "token": token})
    elif token is not None:
        shell.write(f"{token}\n")
    return OK


def _success(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).record_success(token=arguments.token, strict=True)
    return OK


def _failure(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).record_failure(arguments.error, token=arguments.token, strict=True)
    return OK


def _run(shell: Shell, arguments: Namespace) -> int:
    return run_command(
        shell,
        _breaker(shell, arguments),
        arguments.command,
        ok_status=arguments.ok_status,
        timeout=arguments.timeout,
        kill_after=arguments.kill_after,
    )


# --- by hand ----------------------------------------------------------------------------------------------------------


def _open(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).force_open(arguments.seconds, arguments.reason)
    return OK


def _disable(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).disable(arguments.seconds, arguments.reason)
    return OK


def _metrics_only(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).metrics_only(arguments.seconds, arguments.reason)
    return OK


def _close(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).close(arguments.reason)
    return OK


def _reset(shell: Shell, arguments: Namespace) -> int:
    _breaker(shell, arguments).reset(arguments.reason)
    return OK


# --- looking ----------------------------------------------------------------------------------------------------------

_TITLES = (
    "NAME",
    "STATE",
    "FAILURES",
    "SUCCESSES",
    "SLOW",
    "REJECTED",
    "RETRY AFTER",
    "LAST FAILURE",
    "LAST ERROR",
    "NOTE",
)

_COLOURS = {
    "closed": GREEN,
    "open": RED,
    "half_open": YELLOW,
    "forced_open": RED,
    "disabled": DIM,
    "metrics_only": YELLOW,
}


def _status(shell: Shell, arguments: Namespace) -> int:
    kind = CircuitBreaker.policy_type.kind
    names: list[str] = list(dict.fromkeys(arguments.name))
    if not names:
        names = [key.name for key in shell.runtime.keys() if key.kind == kind]  # noqa: SIM118 - no mapping
        if not names and not arguments.json:
            shell.write("there are no circuit breakers yet\n")
            return OK
    exit_status = OK
    found: list[tuple[CircuitStatus, bool]] = []
    for name in names:
        breaker = CircuitBreaker.stored(name, shell.runtime)
        try:
            found.append((breaker.status(strict=True), True))
        except StorageError as error:
            if error.key is None:
                raise  # the storage as a whole: the others could not be read either
            shell.say(str(error))
            exit_status = UNAVAILABLE
            found.append((breaker.status(), False))
    if arguments.json:
        shell.json([status.to_dict() for status, _ in found])
    else:
        now = wall()
        shell.table(_TITLES, [_row(status, now, readable=readable) for status, readable in found])
    return exit_status


def _row(status: CircuitStatus, now: float, *, readable: bool) -> Sequence[str]:
    state = status.state.value
    failed_at = status.last_failure_time
    return (
        status.name,
        paint(state.replace("_", " "), _COLOURS[state]) if readable else paint("cannot be read", BOLD),
        _counted(status.failure_count, status.failure_rate),
        "" if status.success_count is None else str(status.success_count),
        _counted(status.slow_count, status.slow_call_rate) if status.slow_count else "",
        str(status.rejected_count) if status.rejected_count else "",
        _retry_after(status) if readable else "",
        "" if failed_at is None else f"{seconds(now - failed_at)} ago",
        escaped(status.last_error or "", 40),
        status.reason or ("no record" if readable and status.version is None else ""),
    )


def _counted(count: int, rate: float | None) -> str:
    return str(count) if rate is None else f"{count} ({rate:.0%})"


def _retry_after(status: CircuitStatus) -> str:
    if status.state in {"closed", "disabled", "metrics_only"}:
        return ""
    if status.retry_after is None:
        return "unknown"
    return seconds(status.retry_after) if status.retry_after else "now"


VERBS = (
    Verb(
        "check",
        "Ask whether a call may be made; it is then to be reported with success or failure.",
        _check,
        NAME,
        Argument("--token", help="print a token, to be given to success or failure", action="store_true"),
        JSON,
    ),
    Verb("success", "Report that a call went well.", _success, NAME, TOKEN),
    Verb(
        "failure",
        "Report that a call failed.",
        _failure,
        NAME,
        TOKEN,
        Argument("--error", help="what failed, in a word: the name of an error", metavar="ERROR"),
    ),
    Verb(
        "run",
        "Run a command if it may be run, and report how it went.",
        _run,
        NAME,
        *OPTIONS,
        takes_command=True,
    ),
    Verb("status", "Show the state of circuit breakers, and change nothing.", _status, NAMES, JSON),
    Verb("open", "Reject all calls, until it is taken back or for some time.", _open, NAME, FOR, REASON),
    Verb("close", "Let calls through again, whatever the state.", _close, NAME, REASON),
    Verb("disable", "Let all calls through and count nothing.", _disable, NAME, FOR, REASON),
    Verb(
        "metrics-only",
        "Let all calls through, count them, and tell when it would have opened.",
        _metrics_only,
        NAME,
        FOR,
        REASON,
    ),
    Verb("reset", "Close it and forget all counts.", _reset, NAME, REASON),
)
"""All of them, in the order of the help."""
