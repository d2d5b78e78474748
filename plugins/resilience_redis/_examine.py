"""What `resilience doctor` looks at: the server's version and role, what it does when it is full, and the push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience_redis._errors import Refused, Unreached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from resilience_redis._connections import Connections
    from resilience_redis._listener import Listener
    from resilience_redis._route import Requests, Route

    Row = tuple[str, bool, str, str]
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

_PATIENCE = 2.0
_SEE = "see that it runs and can be reached, and who may use it"
_DANGEROUS = frozenset(["allkeys-lru", "allkeys-lfu", "allkeys-random"])


def examine(connections: Connections, route: Route, listener: Listener | None, in_vain: str) -> list[Row]:
    """Look at each server that holds records, and at the listening thread of this process.

    :param in_vain: a variable for TLS that is set although the URL does not ask for TLS.
    """
    rows: list[Row] = []
    if in_vain:
        rows.append(
            ("encryption", False, f"{in_vain} is set, and the URL asks for no TLS", "write rediss://, or unset it")
        )
    try:
        told = connections.drive(_informed(route), _PATIENCE)
    except (Unreached, Refused) as error:
        return [*rows, ("server", False, str(error), error.advice or _SEE)]  # the listener would say the same
    for address, information in told:
        rows.extend(_server(address, information))
    if any(well for name, well, _, _ in rows if name == "server"):
        rows.append(_push(listener))
    return rows


def _informed(route: Route) -> Requests[list[tuple[str, dict[str, str] | Refused]]]:
    """Ask every server for what it tells of itself."""
    found: list[tuple[str, dict[str, str] | Refused]] = []
    for address in (yield from route.everywhere()):
        (reply,) = yield address, [("INFO",)]
        found.append((str(address), reply if isinstance(reply, Refused) else _fields(reply)))
    return found


def _fields(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _server(address: str, information: dict[str, str] | Refused) -> Iterator[Row]:
    if isinstance(information, Refused):
        if information.code == "NOPERM":  # which nobody needs who is no operator
            yield ("server", True, f"{address}; this user may not ask it for more (INFO)", "")
        else:
            yield ("server", False, str(information), information.advice or _SEE)
        return
    kind = "Valkey" if "valkey_version" in information else "Redis"
    version = information.get("valkey_version") or information.get("redis_version", "of unknown version")
    role = information.get("role", "of unknown role")
    is_primary = role == "master"
    yield ("server", is_primary, f"{address}, {kind} {version}, {role}", "" if is_primary else "name the primary")
    policy = information.get("maxmemory_policy", "unknown")
    is_safe = information.get("maxmemory", "0") == "0" or policy not in _DANGEROUS
    fix = "" if is_safe else "set maxmemory-policy to noeviction or volatile-ttl, or use a server of its own"
    yield ("eviction", is_safe, f"{address}, maxmemory-policy {policy}", fix)


def _push(listener: Listener | None) -> Row:
    if listener is None:
        return ("listener", True, "off: records are loaded, or trusted for RESILIENCE_MAX_STALENESS", "")
    listener.start(_PATIENCE)
    if listener.is_live:
        return ("listener", True, "commits of others are told at once", "")
    return (
        "listener",
        False,
        listener.error or "not yet subscribed",
        "let this user SUBSCRIBE to the channel and PING, or set RESILIENCE_REDIS__PUSH=off",
    )
