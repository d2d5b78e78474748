"""The circuit breaker as sessions of agents use it: one folder a session, one breaker an agent type, plain functions.

A thin form of the same engine.  The state stands in ``<session_dir>/.circuits`` on the file storage, shared by all
processes of the machine.  Half open, every call is let in, and exactly one of those that ask makes the transition; no
permits are kept, so each report counts.

The three numbers below bind, whatever the environment says: variables for policies, and `RESILIENCE_STORAGE`, mean
other breakers.  Only those for the file storage itself (`RESILIENCE_FILE__…`) apply here too, as they say what the
folder stands on.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from resilience.runtime import Runtime
from resilience_circuit_breaker._status import CircuitState, CircuitStatus
from resilience_circuit_breaker.breaker import CircuitBreaker

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os

__all__ = [
    "FAILURE_THRESHOLD",
    "HALF_OPEN_SUCCESS_THRESHOLD",
    "RESET_TIMEOUT",
    "CircuitState",
    "CircuitStatus",
    "check_circuit",
    "load_circuit",
    "record_failure",
    "record_success",
    "save_circuit",
]

FAILURE_THRESHOLD = 3
"""So many failures that follow each other open it.  Read at each call, as are the other two."""
RESET_TIMEOUT = 300
"""Seconds that it stays open."""
HALF_OPEN_SUCCESS_THRESHOLD = 1
"""So many successes close it when it is half open."""

_FOLDER = ".circuits"
_STORAGE_TIMEOUT = 5.0
_NEVER_TOO_OLD = 365 * 86400.0
"""Seconds, the most that can be set: a count in a session is not forgotten for its age."""


def check_circuit(session_dir: str | os.PathLike[str], agent_type: str) -> bool:
    """Whether a call may be made now; an open circuit whose time is up becomes half open by this.

    :param session_dir: the folder of the session; made if it is missing.
    :param agent_type: the name of the circuit in it.
    """
    return _circuit(session_dir, agent_type).check()


def record_success(session_dir: str | os.PathLike[str], agent_type: str) -> CircuitStatus:
    """Report that a call went well, and return the status after it."""
    circuit = _circuit(session_dir, agent_type)
    circuit.record_success()
    return circuit.status()


def record_failure(session_dir: str | os.PathLike[str], agent_type: str) -> CircuitStatus:
    """Report that a call failed, and return the status after it."""
    circuit = _circuit(session_dir, agent_type)
    circuit.record_failure()
    return circuit.status()


def load_circuit(session_dir: str | os.PathLike[str], agent_type: str) -> CircuitStatus:
    """Look without changing anything; a circuit that nothing happened to is closed."""
    return _circuit(session_dir, agent_type).status()


def save_circuit(session_dir: str | os.PathLike[str], agent_type: str, status: CircuitStatus) -> None:
    """Put the circuit into a given state, with the counts of `status`; open, it is so since `last_failure_time`.

    :raises ValueError: a count or a time of `status` makes no sense.
    :raises StorageError: the storage did not do it.
    """
    _circuit(session_dir, agent_type).restore(status)


def _circuit(session_dir: str | os.PathLike[str], agent_type: str) -> CircuitBreaker:
    folder = str(Path(session_dir).resolve())
    return _made(folder, agent_type, FAILURE_THRESHOLD, RESET_TIMEOUT, HALF_OPEN_SUCCESS_THRESHOLD)


# Caches whose calls are safe in threads and across a fork without a lock of ours: two threads that meet may make two
# runtimes of one folder, which are no more to each other than those of two processes.  What is evicted works on for who
# still has it.


@lru_cache(maxsize=256)
def _made(
    folder: str, agent_type: str, failure_threshold: int, reset_timeout: float, half_open_success_threshold: int
) -> CircuitBreaker:
    return CircuitBreaker(
        agent_type,
        runtime=_runtime(folder),
        failure_threshold=failure_threshold,
        failure_max_age=_NEVER_TOO_OLD,
        reset_timeout=reset_timeout,
        half_open_max_calls=None,
        half_open_success_threshold=half_open_success_threshold,
    )


@lru_cache(maxsize=64)
def _runtime(folder: str) -> Runtime:
    environ = Runtime.current().environ
    return Runtime(
        storage=(Path(folder) / _FOLDER).as_uri(),
        storage_timeout=_STORAGE_TIMEOUT,
        environ={name: value for name, value in environ.items() if name.startswith("RESILIENCE_FILE__")},
    )
