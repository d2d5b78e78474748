"""What goes wrong below the hooks: the plugin's own words for it, and the translation into the framework's."""

from __future__ import annotations

from resilience import StorageConflict, StorageUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience import Key, StorageError


class Fault(Exception):
    """Something went wrong; `sent` tells whether the server may have been asked before, `advice` what to do."""

    def __init__(self, message: str, *, sent: bool = False, advice: str = "") -> None:
        super().__init__(message)
        self.sent = sent
        self.advice = advice


class Lost(Fault):
    """There is no connection, or there is one no longer."""


class Late(Fault):
    """The time was up."""


class Refused(Fault):
    """The server answered with an error: the statement did nothing.  `state` is the five letters of SQLSTATE.

    But one that was cancelled may have been so after the commit in its midst, see `resilience_postgres._schema`.
    """

    def __init__(self, message: str, state: str, advice: str = "") -> None:
        super().__init__(message, sent=state == _CANCELLED, advice=advice or _HINTS.get(state, ""))
        self.state = state


UNPREPARED: Final = frozenset(["26000", "42P05", "0A000", "08P01"])
"""States of a server, or of a pooler before it, that does not know what was prepared, or may not prepare."""

_CANCELLED: Final = "57014"

READ_ONLY: Final = "25006"
"""The state of a server that only reads."""

_MISSING: Final = frozenset(["42P01", "42883", "3F000", "42704"])
_RACED: Final = frozenset(["40001", "40P01"])
_ONE_RECORD: Final = frozenset(["55P03", "22021", "22P05", "54000", "22003"])

STANDBY: Final = (
    "the server only reads: it is a standby; name the primary in the URL, or all of them with "
    "?target_session_attrs=read-write"
)
SESSION_READS: Final = (
    "it is no standby: default_transaction_read_only is on for this role, this database or in the URL; set it off there"
)

_OTHERS: Final = "it is no table of resilience, or of another version: `resilience doctor` says whose it is"

_MORE: Final = (
    "let more connections in (max_connections, or the CONNECTION LIMIT of the role or the database), or set "
    "RESILIENCE_POSTGRES__CONNECTIONS"
)

_HINTS: Final = {
    READ_ONLY: "the server only reads: it is a standby, or default_transaction_read_only is on for this role",
    "42501": "grant this role what is missing; `resilience doctor` names it",
    "42703": _OTHERS,
    "42809": _OTHERS,
    "53100": "make room on the disk of the server",
    "53300": _MORE,
    "55P03": "another transaction holds its row: see pg_stat_activity",
    _CANCELLED: "the server's statement_timeout is shorter than RESILIENCE_STORAGE_TIMEOUT, or somebody cancelled it: "
    "set it longer for this role",
    "22021": "keep the table in a database whose encoding is UTF8",
    "22P05": "keep the table in a database whose encoding is UTF8",
}


_MAKING: Final = {
    "42501": "run `resilience storage init` with the URL of a user who owns the table, or may make it",
    "42P07": "name another table in RESILIENCE_POSTGRES__TABLE",
    "0A000": "use the version of resilience-framework that made it, or name another table in "
    "RESILIENCE_POSTGRES__TABLE",
}

REACH: Final = "see that it runs, and check that host and port in the URL are those of a PostgreSQL server"

_CONNECTING: Final = (
    (
        "password",
        "check user and password in the URL; the password may also be in PGPASSWORD, or in the file of PGPASSFILE",
    ),
    ("permission denied for database", "GRANT CONNECT ON DATABASE, to this user"),
    ("not permitted to log in", "ALTER ROLE … LOGIN, or name another user in the URL"),
    ("connection slots", _MORE),
    ("too many c", _MORE),  # of the server, of a role, or of a database
    ("no more connections", _MORE),  # of a pooler
    ("database system is", "it is starting, stopping or recovering: it will answer when that is over"),
    (
        "pg_hba.conf",
        "let pg_hba.conf admit this user from this host, or check user and database in the URL",
    ),
    ('database ""', "check the database in the URL"),
    ('role ""', "check the user in the URL"),
    ("SSL negotiation", REACH),
    ("invalid", "check what stands behind the ? in the URL"),
    ("parameter", "check what stands behind the ? in the URL"),
    ("SSL", "check sslmode and the certificates behind the ? in the URL"),
    ("certificate", "check sslmode and the certificates behind the ? in the URL"),
    ("session is read-only", "none of the servers in the URL writes: check target_session_attrs there"),
    ("standby", "check target_session_attrs in the URL"),
    ("FATAL", "check host, port, user and database in the URL"),
)
"""What to do, by words of libpq and of the server, the first that fit: no code comes with why nobody was let in."""


def unconnected(message: str) -> Lost:
    """Return why no connection could be made."""
    import re

    said = re.sub('"[^"]*"', '""', message)  # a name may have any words in it
    return Lost(message, advice=next((advice for words, advice in _CONNECTING if words in said), REACH))


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
    if doing == "making" and state in _MAKING:
        text += f"; {_MAKING[state]}"
    elif state in _MISSING:
        text += f"; make the table with `resilience storage init`, or by hand: {table} or a part of it is missing"
    elif fault.advice:
        text += f"; {fault.advice}"
    return StorageUnavailable(
        text, key=key if state in _ONE_RECORD else None, outcome_unknown=fault.sent and doing == "saving"
    )
