"""`resilience run NAME -- CMD…`: a command under protection."""

from __future__ import annotations

from resilience.cli.output import escaped
from resilience.cli.statuses import NOT_EXECUTABLE, NOT_FOUND, OK, SIGNALLED, TIMED_OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from resilience.cli.relay import HandlerRelay
    from resilience.cli.shell import Shell
    from resilience.guard import Guard
    from resilience.permits import Permit


def run(
    shell: Shell,
    guard: Guard,
    command: Sequence[str],
    *,
    ok_status: Collection[int],
    timeout: float | None,
    kill_after: float,
) -> int:
    """Run a command if the guard lets it, report how it went, and return its exit status.

    :param ok_status: exit statuses that are successes besides 0.
    :param timeout: seconds that it may take.
    :param kill_after: seconds between the request to end and the end.
    :raises PolicyRejected: the guard does not let it; it was not started.
    :raises StorageUnavailable: the storage does not answer and `on_store_error` is ``raise``.
    """
    from resilience.cli.relay import Relay  # with what it needs to start a command, which the other verbs do not

    with Relay(timeout=timeout, kill_after=kill_after) as relay:
        permit = guard.acquire()
        shell.tell()
        if relay.unwanted is not None:
            permit.release()
            return SIGNALLED + relay.unwanted
        try:
            relay.start(command)
        except OSError as error:
            permit.release()
            return _not_started(shell, command[0], error)
        returned = relay.wait()
        _report(permit, relay, returned, ok_status)
    if relay.timed_out:
        return TIMED_OUT
    return returned if returned >= 0 else SIGNALLED - returned


def _not_started(shell: Shell, program: str, error: OSError) -> int:
    import errno

    name = escaped(program, 200)
    if error.errno == errno.ENOENT:
        shell.say(f"{name}: there is no such command")
        return NOT_FOUND
    hint = "; does it begin with a #! line?" if error.errno == errno.ENOEXEC else ""
    shell.say(f"{name}: it cannot be run: {error.strerror or error}{hint}")
    return NOT_EXECUTABLE


def _report(permit: Permit, relay: HandlerRelay, returned: int, ok_status: Collection[int]) -> None:
    """Say how it went, unless that says nothing of what the command calls."""
    from resilience.cli.relay import ENDING

    if relay.timed_out:
        permit.failure("timeout")
    elif not relay.received.isdisjoint(ENDING) or -returned in relay.received:
        permit.release()  # somebody ended it
    elif returned == OK or returned in ok_status:
        permit.success()
    elif returned in {NOT_EXECUTABLE, NOT_FOUND}:
        permit.release()  # a shell that could not run what it was told to
    elif returned < 0:
        permit.failure(_signal_name(-returned))
    else:
        permit.failure(f"exit {returned}")


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
