"""`resilience status`: the table, and its JSON."""

from __future__ import annotations

from resilience.cli.output import BOLD, DIM, GREEN, RED, YELLOW, escaped, paint, seconds
from resilience.cli.statuses import OK, UNAVAILABLE
from resilience.clock import wall
from resilience.errors import StorageError
from resilience_circuit_breaker.breaker import CircuitBreaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from resilience.cli.shell import Shell
    from resilience_circuit_breaker._status import CircuitStatus

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


def run(shell: Shell, arguments: Namespace) -> int:
    """Show breakers by name, or all that have a record."""
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
