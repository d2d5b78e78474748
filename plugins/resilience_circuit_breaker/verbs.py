"""The verbs of a circuit breaker on the command line.

A shell has no code: each verb takes the breaker as the code that made it left it (`CircuitBreaker.stored`), so that
it opens where the code said.
"""

from __future__ import annotations

from resilience.cli.arguments import COMMAND, FOR, JSON, NAME, NAMES, REASON
from resilience.cli.statuses import OK, REJECTED
from resilience.cli.verbs import Argument, Verb
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from resilience.cli.shell import Shell
    from resilience_circuit_breaker.breaker import CircuitBreaker


def _token(text: str) -> str:
    from resilience.permits import parse_token

    parse_token(text)
    return text


TOKEN = Argument("--token", help="the token that check --token printed", metavar="TOKEN", convert=_token)


def _breaker(shell: Shell, arguments: Namespace) -> CircuitBreaker:
    from resilience_circuit_breaker.breaker import CircuitBreaker

    return CircuitBreaker.stored(arguments.name, shell.runtime)


def _changed(shell: Shell, arguments: Namespace) -> CircuitBreaker:
    """Make the breaker for a verb that changes it, which somebody should see afterwards."""
    shell.expect_sharing()
    return _breaker(shell, arguments)


# --- a call -----------------------------------------------------------------------------------------------------------


def _check(shell: Shell, arguments: Namespace) -> int:
    if not (arguments.token or arguments.json) and shell.lets_in(CircuitBreakerPolicy, arguments.name):
        return OK
    return _ask(shell, arguments)


def _ask(shell: Shell, arguments: Namespace) -> int:
    from resilience_circuit_breaker._errors import CircuitOpenError

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
    _changed(shell, arguments).record_success(token=arguments.token, strict=True)
    return OK


def _failure(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).record_failure(arguments.error, token=arguments.token, strict=True)
    return OK


def _run(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.run import run

    return run(
        shell,
        _changed(shell, arguments),
        arguments.command,
        ok_status=arguments.ok_status,
        timeout=arguments.timeout,
        kill_after=arguments.kill_after,
    )


# --- by hand ----------------------------------------------------------------------------------------------------------


def _open(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).force_open(arguments.seconds, arguments.reason)
    return OK


def _disable(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).disable(arguments.seconds, arguments.reason)
    return OK


def _metrics_only(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).metrics_only(arguments.seconds, arguments.reason)
    return OK


def _close(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).close(arguments.reason)
    return OK


def _reset(shell: Shell, arguments: Namespace) -> int:
    _changed(shell, arguments).reset(arguments.reason)
    return OK


# --- looking ----------------------------------------------------------------------------------------------------------


def _status(shell: Shell, arguments: Namespace) -> int:
    from resilience_circuit_breaker._table import run

    return run(shell, arguments)


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
        *COMMAND,
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
