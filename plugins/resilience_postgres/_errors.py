"""What goes wrong below the hooks: the plugin's own words for it, and the translation into the framework's."""

from __future__ import annotations

from resilience import StorageConflict, StorageUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience import Key, StorageError


class Fault(Exception):
    """Something went wrong; `sent` tells whether the server may have been asked before."""

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent


class Lost(Fault):
    """There is no connection, or there is one no longer."""


class Late(Fault):
    """The time was up."""


class Refused(Fault):
    """The server answered with an error: the statement did nothing.  `state` is the five letters of SQLSTATE.

    But one that was cancelled may have been so after the commit in its midst, see `resilience_postgres._schema`.
    """

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message, sent=state == _CANCELLED)
        self.state = state


UNPREPARED: Final = frozenset(["26000", "42P05", "0A000", "08P01"])
"""States of a server, or of a pooler before it, that does not know what was prepared, or may not prepare."""

_CANCELLED: Final = "57014"

READ_ONLY: Final = "25006"
"""The state of a server that only reads."""

_MISSING: Final = frozenset(["42P01", "42883", "3F000", "42703", "42704", "42809"])
_RACED: Final = frozenset(["40001", "40P01"])
_ONE_RECORD: Final = frozenset(["55P03", "22021", "22P05", "54000", "22003"])

_HINTS: Final = {
    READ_ONLY: "the server only reads: it is a standby; name the primary, or all of them with "
    "?target_session_attrs=read-write",
    "42501": "grant this role what is missing; `resilience doctor` names it",
    "53100": "make room on the disk of the server",
    "53300": "allow the server more connections, or set RESILIENCE_POSTGRES__CONNECTIONS",
    "55P03": "another transaction holds its row: see pg_stat_activity",
    _CANCELLED: "the server's statement_timeout is shorter than RESILIENCE_STORAGE_TIMEOUT, or somebody cancelled it",
    "22021": "keep the table in a database whose encoding is UTF8",
    "22P05": "keep the table in a database whose encoding is UTF8",
}


def translated(fault: Fault, doing: str, place: str, table: str, key: Key | None) -> StorageError:
    """Return the error that a hook raises.

    It carries the key if only that key's row is concerned, so that the others are still asked for.

    :param doing: what the hook was doing; ``saving`` is what may have happened if the answer is missing.
    :param place: the server, without secrets.
    """
    what = f"{doing} {table}" if key is None else f"{doing} {key} in {table}"
    text = f"{what} on {place}: {fault}"
    state = fault.state if isinstance(fault, Refused) else ""
    if state in _RACED and doing == "saving":
        return StorageConflict(f"{text}; another transaction was in the way", key=key)
    if state in _MISSING:
        text += f"; make the table with `resilience storage init`, or by hand: {table} or a part of it is missing"
    elif hint := _HINTS.get(state):
        text += f"; {hint}"
    return StorageUnavailable(
        text, key=key if state in _ONE_RECORD else None, outcome_unknown=fault.sent and doing == "saving"
    )
