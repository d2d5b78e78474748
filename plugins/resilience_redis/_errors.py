"""From the driver's errors to the framework's, once, at the edge.

Two things can go wrong: a server is not reached (`Unreached`), or it refuses (`Refused`).  What is made of them for
the engine stands in `unavailable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience import StorageCorrupt, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from resilience import Key
    from resilience_redis._address import Address

_LONGEST = 300

_CLOSED = (
    "if it does so each time it is no Redis, or one that wants TLS: rediss://, or through it a certificate:"
    " RESILIENCE_REDIS__TLS_CERT_FILE"
)
"""What to do about a server that ends a connection."""

_TARDY = "see whether it hangs, or is slower than RESILIENCE_STORAGE_TIMEOUT"
"""What to do about a server that takes connections and says nothing."""

_FULL = "raise its maxclients, or let each process open fewer: RESILIENCE_REDIS__MAX_CONNECTIONS"

RIGHTS = (
    "+eval +evalsha +time +type +hmget +hset +pexpireat +persist +pexpire +del +rename +publish +subscribe +ping +scan"
    " +select"
)
"""What a user must be permitted.  The server does not say which one it was that a script lacked."""

_HINTS = {
    "AUTH": "give user and password in the URL, or as RESILIENCE_REDIS__USERNAME and RESILIENCE_REDIS__PASSWORD",
    "NOPERM": f"give this user the rights of docs/redis.md: {RIGHTS}, on the prefix's keys and its channel",
    "DB": "the number behind the host in the URL, /0 if it has none, is to be one that the server has (`databases`)",
    "SENTINEL": "it is no Sentinel: name one in the URL, or the server itself by redis://",
    "SENTINEL AUTH": "give what the Sentinels ask for as RESILIENCE_REDIS__SENTINEL_USERNAME and"
    " RESILIENCE_REDIS__SENTINEL_PASSWORD",
    "MASTER": "the name behind the hosts in the URL is to be one that `sentinel monitor` gave",
    "CLUSTER": "it is no node of a cluster: name it by redis://",
    "UNKNOWN": "it keeps no records, or that command was renamed: a Sentinel is named by redis+sentinel://",
    "READONLY": "it is a replica: name the primary, or let Sentinels name it (redis+sentinel://)",
    "LOADING": "it is reading its data after a start and will answer soon",
    "OOM": "its memory is full: raise maxmemory, or use a server of its own; see docs/redis.md for eviction",
    "CLUSTERDOWN": "no node serves this record now; look at CLUSTER INFO",
    "MASTERDOWN": "it is a replica without its primary",
    "MISCONF": "it cannot write its snapshot to disk and refuses writes; look at its log",
    "NOREPLICAS": "fewer replicas are connected than min-replicas-to-write asks for",
    "BUSY": "a script of somebody else has been running for too long",
    "MOVED": "it is a node of a cluster: name it by redis+cluster://",
}
"""What to do, by the first word of a server's error."""

_UNSURE = frozenset(["NOPERM"])
"""A script that was stopped by it may have got as far as writing."""


class Unreached(Exception):
    """A server did not answer.

    :param sent: whether it may have got the request all the same.
    :param advice: what to do, where that is known.
    """

    def __init__(self, address: Address, why: str, *, sent: bool, advice: str = "") -> None:
        super().__init__(f"{address}: {why}")
        self.sent = sent
        self.advice = advice


class Refused(Exception):
    """A server answered with an error.

    :param code: its first word, such as ``READONLY``.
    """

    def __init__(self, address: Address, code: str, text: str) -> None:
        super().__init__(f"{address}: {text}")
        self.code = code
        self.advice = _HINTS.get(code, "")
        if code == "NOPERM":
            lacked = "+" + text.partition(" run the '")[2].partition("'")[0]
            if lacked != "+" and lacked not in RIGHTS.split():  # those of a cluster, or of a Sentinel
                self.advice = f"give this user {lacked} as well, and see docs/redis.md for the others"
        self.rest = text.removeprefix(code).strip()

    def by_sentinel(self) -> Refused:
        """Advise about a refusal of a Sentinel, which has users of its own."""
        if self.code == "AUTH":
            self.advice = _HINTS["SENTINEL AUTH"]
        return self

    @property
    def is_parting(self) -> bool:
        """Whether the connection is given up with it, as redis-py does: all that comes next may be refused too."""
        return self.code in {"AUTH", "LOADING"}


def refusal(address: Address, error: Exception) -> Refused:
    """Say in the server's own words what the driver made an error of: it takes the first word of some away."""
    from redis import exceptions

    text = " ".join(str(error).split())
    text = text.partition(", with args beginning with")[0][:_LONGEST]  # what was said, which may be a password
    if isinstance(error, exceptions.AskError):
        code = "MOVED" if isinstance(error, exceptions.MovedError) else "ASK"
        text = f"{code} {text.removeprefix(code).strip()}"
    for kind, code in (
        (exceptions.AuthenticationError, "AUTH"),
        (exceptions.NoScriptError, "NOSCRIPT"),
        (exceptions.ReadOnlyError, "READONLY"),
        (exceptions.BusyLoadingError, "LOADING"),
        (exceptions.NoPermissionError, "NOPERM"),
        (exceptions.OutOfMemoryError, "OOM"),
        (exceptions.TryAgainError, "TRYAGAIN"),
        (exceptions.MasterDownError, "MASTERDOWN"),
        (exceptions.ClusterDownError, "CLUSTERDOWN"),
    ):
        if isinstance(error, kind):
            return Refused(address, code, text)
    if "DB index is out of range" in text:
        return Refused(address, "DB", text)
    if "unknown command" in text:
        return Refused(address, "SENTINEL" if "'SENTINEL'" in text else "UNKNOWN", text)
    if "cluster support disabled" in text:
        return Refused(address, "CLUSTER", text)
    if "ACL failure" in text or "executing the script can't" in text:
        return Refused(address, "NOPERM", text)
    if "WRONGTYPE" in text:
        return Refused(address, "WRONGTYPE", text)
    return Refused(address, text.partition(" ")[0], text)


def is_refusal(error: Exception) -> bool:
    """Whether an error of the driver is an answer of the server, rather than the lack of one."""
    from redis import exceptions

    answers = (exceptions.ResponseError, exceptions.AuthenticationError, exceptions.BusyLoadingError)
    return isinstance(error, answers)


def broken(error: Exception) -> tuple[str, str]:
    """Say why a connection came to its end, and what to do about that."""
    why = str(error)
    if isinstance(error, TimeoutError) or not why:
        return "it did not answer in time", _TARDY
    if "max number of clients" in why:
        return why, _FULL
    # A server that misses our certificate says so, or hangs up before that has arrived.
    is_local = isinstance(error, OSError) and not isinstance(error, ConnectionError)
    return why, "" if is_local and "CERTIFICATE_REQUIRED" not in why else _CLOSED


def unavailable(error: Unreached | Refused, doing: str, key: Key | None, *, saving: bool) -> StorageError:
    """Make the error that a hook raises.

    :param saving: whether a record was to be written: then it may have been, though nobody said so.
    """
    text = f"{doing}: {error}"
    if error.advice:
        text = f"{text.removesuffix('.')}; {error.advice}"
    if isinstance(error, Unreached):
        return StorageUnavailable(text, outcome_unknown=saving and error.sent)
    if error.code == "WRONGTYPE" and key is not None:
        return StorageCorrupt(f"{doing}: something else than a record is stored there: {error}", key=key)
    return StorageUnavailable(text, outcome_unknown=saving and error.code in _UNSURE)
