"""Which server is asked for a record, and what is done when it sends us to another.

Written once, as generators of requests: a request is an address and the commands for it, the answer is the list of
replies, an error of the server (`Refused`) among them; whoever drives the generator asks, and throws in `Unreached`.
Threads do it in `_connections`, coroutines in `_loops`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from resilience_redis._address import Address
from resilience_redis._errors import Refused, Unreached

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resilience_redis._address import Place
    from resilience_redis._script import Argument, Script

T = TypeVar("T")
Command = tuple[Any, ...]
Requests = Generator[tuple[Address, Sequence[Command]], list[Any], T]

_TURNS = 5
"""So often a request is sent on before it is given up."""
_ELSEWHERE = frozenset(["READONLY", "LOADING", "MASTERDOWN"])
"""What a server answers that is not, or not yet, the one to ask."""


class Route:
    """One server, always the same."""

    def __init__(self, place: Place) -> None:
        self._seeds = list(place.seeds)

    def find(self, key: bytes) -> Requests[Address]:  # noqa: ARG002 - a cluster needs it
        """Find the server of a key."""
        yield from ()
        return self._seeds[0]

    def lose(self, key: bytes, address: Address) -> bool:  # noqa: ARG002 - others look at them
        """Take note that a server did not answer; true if it makes sense to look for another one at once."""
        return False

    def move(self, key: bytes, address: Address) -> bool:  # noqa: ARG002 - a cluster looks at them
        """Take note that a key has another server; true if that may be."""
        return False

    def _ask_last(self, address: Address) -> None:
        """Let all others come before a server; the list is another one then, as other threads go through this one."""
        self._seeds = [*(seed for seed in self._seeds if seed != address), address]

    def everywhere(self) -> Requests[list[Address]]:
        """Find all servers that hold records."""
        return [(yield from self.find(b""))]


class SentinelRoute(Route):
    """The one that the Sentinels call the master; looked up again when it does not answer, or is a replica."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._name = place.master
        self._master: Address | None = None

    def find(self, key: bytes) -> Requests[Address]:  # noqa: ARG002 - one server has all
        """Ask one Sentinel after the other; who does not answer is asked last the next time."""
        if self._master is not None:
            return self._master
        why: Exception | None = None
        for sentinel in self._seeds:
            try:
                (reply,) = yield sentinel, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)]
            except Unreached as error:
                error.sent = False  # the server itself was not asked
                why = error
            else:
                if reply is not None and not isinstance(reply, Refused):
                    host, port = reply
                    self._master = Address(host.decode(), int(port))
                    return self._master
                why = (
                    Refused(sentinel, "MASTER", f"it knows no master {self._name!r}")
                    if reply is None
                    else reply.by_sentinel()
                )
            self._ask_last(sentinel)
        assert why is not None  # noqa: S101 - a URL names one server at least; for the type checkers
        raise why

    def lose(self, key: bytes, address: Address) -> bool:  # noqa: ARG002 - one server has all
        """Ask the Sentinels again."""
        if self._master == address:
            self._master = None
        return True


class ClusterRoute(Route):
    """The node of the key's slot, as far as it is known: whoever is asked for another's slot says whose it is."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._slots: dict[int, Address] = {}

    def find(self, key: bytes) -> Requests[Address]:
        """Return the node that is known for the slot, or any."""
        yield from ()
        return self._slots.get(_slot(key)) or self._seeds[0]

    def lose(self, key: bytes, address: Address) -> bool:  # noqa: ARG002 - its other keys are as lost
        """Forget all that the node had; ask another one that is known."""
        self._slots = {slot: node for slot, node in self._slots.items() if node != address}
        if address in self._seeds:
            self._ask_last(address)
        return self._seeds[0] != address

    def move(self, key: bytes, address: Address) -> bool:
        """Remember the node of a slot, which others can be asked of as well."""
        self._slots[_slot(key)] = address
        if address not in self._seeds:
            self._seeds = [*self._seeds, address]
        return True

    def everywhere(self) -> Requests[list[Address]]:
        """Ask any node for the table of all slots."""
        why: Exception | None = None
        for node in self._seeds:
            try:
                (reply,) = yield node, [("CLUSTER", "SLOTS")]
            except Unreached as error:
                why = error
                continue
            if isinstance(reply, Exception):
                raise reply
            primaries = [slots[2] for slots in reply]
            return list({Address((host or b"").decode() or node.host, port) for host, port, *_ in primaries})
        assert why is not None  # noqa: S101 - a URL names one server at least; for the type checkers
        raise why


def _slot(key: bytes) -> int:
    """The slot of a key: of what stands in its braces."""
    from redis.crc import key_slot

    return key_slot(key)


def route_of(place: Place) -> Route:
    """Make the route that a URL asks for."""
    return {"one": Route, "sentinel": SentinelRoute, "cluster": ClusterRoute}[place.form](place)


def run(route: Route, script: Script, keys: tuple[bytes, ...], arguments: Iterable[Argument]) -> Requests[Any]:
    """Run a script where its record is, and return its reply.

    :raises Unreached: the server did not answer.
    :raises Refused: it answered with an error.
    """
    given = tuple(arguments)
    key = keys[0]
    command = script.by_name(keys, given)
    before: tuple[Command, ...] = ()
    address = yield from route.find(key)
    turn = 0
    while True:
        turn += 1
        try:
            reply = (yield address, (*before, command))[-1]
        except Unreached as error:
            if not route.lose(key, address) or error.sent or turn >= _TURNS:
                raise
            address = yield from route.find(key)
            before = ()
            continue
        if not isinstance(reply, Refused):
            return reply
        if turn >= _TURNS:
            raise reply
        if reply.code == "NOSCRIPT":
            command = script.in_full(keys, given)
        elif reply.code == "MOVED" and route.move(key, there := _sent_to(reply, address)):
            address, before = there, ()
        elif reply.code == "ASK":
            address, before = _sent_to(reply, address), (("ASKING",),)
        else:
            if reply.code not in _ELSEWHERE or not route.lose(key, address):
                raise reply
            address, before = (yield from route.find(key)), ()


def _sent_to(reply: Refused, asked: Address) -> Address:
    """Read ``3999 host:port``; a node that does not know its own name means the one that was asked."""
    host, _, port = reply.rest.partition(" ")[2].rpartition(":")
    return Address(host or asked.host, int(port))


def each_key(route: Route, pattern: bytes) -> Requests[set[bytes]]:
    """Find the names of all keys that a pattern fits, on all servers.

    :raises Unreached: one of them did not answer.
    :raises Refused: one answered with an error.
    """
    found: set[bytes] = set()
    for address in (yield from route.everywhere()):
        cursor: bytes | int = 0
        while True:
            (reply,) = yield address, [("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)]
            if isinstance(reply, Refused):
                raise reply
            cursor, names = reply
            found.update(names)
            if int(cursor) == 0:
                break
    return found
