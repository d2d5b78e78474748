"""`resilience status`: the table, and its JSON."""

from __future__ import annotations

from resilience.cli.output import BOLD, DIM, GREEN, RED, YELLOW, paint, seconds
from resilience.cli.statuses import OK, UNAVAILABLE
from resilience.clock import wall
from resilience.errors import StorageError, StorageIncompatible
from resilience_circuit_breaker._status import CircuitStatus
from resilience_circuit_breaker.breaker import CircuitBreaker
from resilience_circuit_breaker.policy import CircuitBreakerPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Sequence
    from typing import Any

    from resilience import Snapshot
    from resilience.cli.shell import Shell

    Fields = dict[str, Any]

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
    looking = _Looking(shell)
    found: Iterable[tuple[Fields, bool]]
    names: list[str] = list(dict.fromkeys(arguments.name))
    if names:
        found = map(looking.at, names)
    else:
        records = shell.runtime.records(CircuitBreakerPolicy.kind)
        if not records and not arguments.json:
            shell.write("there are no circuit breakers yet\n")
            return OK
        found = (looking.upon(key[1], snapshot) for key, snapshot in records)
    if arguments.json:
        shell.json_lines(fields for fields, _ in found)
    else:
        now = wall()
        shell.table(_TITLES, [_row(CircuitStatus(**fields), now, readable=readable) for fields, readable in found])
    return looking.exit_status


class _Looking:
    """Looks at one breaker after the other, and tells of those that cannot be read."""

    def __init__(self, shell: Shell) -> None:
        self.exit_status = OK
        self._shell = shell
        self._runtime = shell.runtime
        self._policy: Any = shell.runtime.policies(CircuitBreakerPolicy)
        self._plain: Any = self._policy("any", {})

    def at(self, name: str) -> tuple[Fields, bool]:
        """Return the fields of the status of a breaker, and whether its record can be read.

        :raises StorageError: the storage as a whole does not answer: the others could not be read either.
        """
        breaker = CircuitBreaker.stored(name, self._runtime)
        try:
            return breaker.status(strict=True).to_dict(), True
        except StorageError as error:
            if error.key is None:
                raise
            self._shell.say(str(error))
            self.exit_status = UNAVAILABLE
            return breaker.status().to_dict(), False

    def upon(self, name: str, snapshot: Snapshot | None) -> tuple[Fields, bool]:
        """Do what `at` does, upon a record that was read already; there may be a hundred thousand of them."""
        if snapshot is None or snapshot.payload is None or snapshot.time is not None:
            return self.at(name)
        try:
            state = self._plain.decode(snapshot.payload)
        except (ValueError, StorageIncompatible):
            return self.at(name)
        policy: CircuitBreakerPolicy = self._policy(name, CircuitBreakerPolicy.stored_settings(state))
        return policy.shown(state, name=name, now=wall(), version=snapshot.version), True


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
        status.last_error or "",
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
