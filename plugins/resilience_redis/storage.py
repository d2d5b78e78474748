"""The hooks: each runs one script on the server that has the record, within its time-out."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakSet, finalize

from resilience import (
    Capability,
    Freshness,
    Key,
    PluginError,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    Version,
    clock,
    hookimpl,
)
from resilience_redis import _script
from resilience_redis._address import parse
from resilience_redis._connections import Connections, Manner, left
from resilience_redis._errors import Refused, Unreached, unavailable
from resilience_redis._listener import Listener, message
from resilience_redis._record import Names, checksum, stored
from resilience_redis._route import each_key, route_of, run
from resilience_redis._settings import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from resilience.freshness import Begun
    from resilience_redis._connections import Connection
    from resilience_redis._loops import Loops
    from resilience_redis._route import Route
    from resilience_redis._script import Argument

_ADMINISTRATION = 5.0
"""Seconds for the one hook that has no time-out of its own."""
_KEPT = 30 * 24 * 3600 * 1000
"""Milliseconds for which a damaged record is kept for inspection."""


class RedisStorage:
    """Keeps each record in a hash on a Redis or Valkey server.

    :param url: see `resilience_redis._address`.
    :param settings: those of the variables; the defaults if left out.
    :raises ConfigurationError: the URL names no server.
    :raises PluginError: the driver, redis-py, is not installed, or does not load.
    """

    Settings = RedisSettings

    _loops: Loops | None = None

    def __init__(self, url: str, settings: RedisSettings | None = None) -> None:
        _need_driver()
        settings = settings or RedisSettings()
        self.place = parse(url)
        pushing = {Capability.PUSH} if settings.push else set[Capability]()
        self.capabilities = frozenset({Capability.PROCESSES, Capability.MACHINES, *pushing})
        self.names = Names(settings.prefix)
        self._manner = Manner(self.place, settings)
        self._most = settings.max_connections
        self._route = route_of(self.place)
        self._connections = Connections(self._manner, self._most)
        self._freshness = Freshness()
        connect = partial(_connect, self._connections, self._route)
        listener = Listener(self._freshness, connect, self.names.channel, settings.max_staleness)
        self._listener = listener if settings.push else None
        self._freshness.look = listener.look
        self._seen = threading.local()
        finalize(self, listener.close).atexit = False
        _storages.add(self)

    def __repr__(self) -> str:
        """Show the server, without user and password."""
        return f"<RedisStorage {self.place}>"

    @property
    def is_pushed(self) -> bool:
        """Whether commits of others are told at once, now; else each record is loaded to know what it is."""
        return self._listener is not None and self._listener.is_live

    # -- load --------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        deadline = clock.monotonic() + timeout
        if self._listener is not None:
            self._listener.start(timeout / 2)
        begun = self._freshness.begin(self.names.of(key))
        with _translated(f"loading {key}", key):
            return self._loaded(key, begun, self._run(_script.LOAD, key, (), left(deadline)))

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        if self._listener is not None:
            self._listener.start(0)  # until it has subscribed, records are loaded
        begun = self._freshness.begin(self.names.of(key))
        with _translated(f"loading {key}", key):
            return self._loaded(key, begun, await self._arun(_script.LOAD, key, (), timeout))

    def _loaded(self, key: Key, begun: Begun | None, reply: Sequence[Any]) -> Snapshot:
        """Make a snapshot of a reply of `LOAD`.

        :raises StorageCorrupt: the record is damaged.
        """
        record = stored(reply[2:7])
        self._seen.record = key, record
        payload, version = (None, None) if record is None else record.checked(key)
        return self._snapshot(payload, version, begun, reply)

    def _snapshot(
        self, payload: bytes | None, version: Version | None, begun: Begun | None, reply: Sequence[Any]
    ) -> Snapshot:
        word = self._freshness.judge(version, begun, moves=reply[-1] == 1)
        return Snapshot(payload, version, word, int(reply[0]) + int(reply[1]) / 1e6)

    # -- save --------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:  # noqa: ARG002 - nothing to do
        """Hold nothing: `save` compares and writes in one step."""
        return nullcontext()

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`.  A conflict brings the record that is committed now."""
        version, arguments = self._to_save(key, payload, expected, expires_at)
        begun = self._freshness.begin(self.names.of(key))
        with _translated(f"saving {key}", key, saving=True):
            reply = self._run(_script.SAVE, key, arguments, timeout)
        return self._saved(key, payload, version, begun, reply)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`."""
        version, arguments = self._to_save(key, payload, expected, expires_at)
        begun = self._freshness.begin(self.names.of(key))
        with _translated(f"saving {key}", key, saving=True):
            reply = await self._arun(_script.SAVE, key, arguments, timeout)
        return self._saved(key, payload, version, begun, reply)

    def _to_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None
    ) -> tuple[Version, tuple[Argument, ...]]:
        version = Version(uuid4().hex, 1) if expected is None else Version(expected.incarnation, expected.number + 1)
        expiry: tuple[Argument, Argument] = ("", "")
        if expires_at is not None:
            expiry = (int(expires_at * 1000), int((expires_at - clock.wall()) * 1000))
        before: tuple[Argument, ...] = ("", "") if expected is None else tuple(expected)
        told = (self.names.channel, message(self.names.of(key), version))
        new = (*version, checksum(key, payload, version), payload)
        return version, (*before, *new, *told, *expiry)

    def _saved(self, key: Key, payload: bytes, version: Version, begun: Begun | None, reply: Sequence[Any]) -> Snapshot:
        if len(reply) == 3:  # the time and whether it moves, and nothing to say besides
            return self._snapshot(payload, version, begun, reply)
        raise self._conflict(key, begun, reply)

    def _conflict(self, key: Key, begun: Begun | None, reply: Sequence[Any]) -> StorageConflict:
        try:
            current = self._loaded(key, begun, reply)
        except StorageCorrupt:
            return StorageConflict(f"{key}: a damaged record is stored", key=key)
        return StorageConflict(f"{key} has version {current.version} now", key=key, current=current)

    # -- administration ----------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        """See `resilience.hookspecs`; `SCAN` on every server that holds records."""
        with _translated("listing the records", None):
            names = self._connections.drive(each_key(self._route, self.names.pattern), _ADMINISTRATION)
        return [key for key in map(self.names.key_of, names) if key is not None]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """See `resilience.hookspecs`."""
        begun = self._freshness.begin(self.names.of(key))
        arguments = (*(expected or ("", "")), self.names.channel, message(self.names.of(key), None))
        with _translated(f"deleting {key}", key, saving=True):
            reply = self._run(_script.DELETE, key, arguments, timeout)
        if not isinstance(reply, int):
            raise self._conflict(key, begun, reply)
        self._freshness.doubt(self.names.of(key))
        return reply > 0

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """See `resilience.hookspecs`.  What this thread read last is set aside, nothing that was saved meanwhile."""
        seen_key, record = getattr(self._seen, "record", (None, None))
        name = self.names.of(key)
        arguments: list[Argument] = [reason, _KEPT, self.names.channel, message(name, None)]
        if seen_key != key or record is None:
            arguments.append("no")
        else:
            arguments += ["yes", *(field or b"" for field in record)]
        with _translated(f"setting aside {key}", None, saving=True):
            self._run(_script.SET_ASIDE, key, arguments, timeout, self.names.aside(key))
        self._freshness.doubt(name)

    def examine(self) -> list[tuple[str, bool, str, str]]:
        """See what `resilience doctor` must know of the server: rows of (what, whether it is well, detail, fix)."""
        from resilience_redis._examine import examine

        return examine(self._connections, self._route, self._listener, self._manner.in_vain)

    def close(self) -> None:
        """Close all connections and end the thread; the next use opens them anew."""
        if self._listener is not None:
            self._listener.close()
        self._connections.close()

    # -- asking ------------------------------------------------------------------------------------------------------

    def _run(
        self, script: _script.Script, key: Key, arguments: Sequence[Argument], timeout: float, *others: bytes
    ) -> Any:
        requests = run(self._route, script, (self.names.of(key), *others), arguments)
        return self._connections.drive(requests, timeout)

    async def _arun(self, script: _script.Script, key: Key, arguments: Sequence[Argument], timeout: float) -> Any:
        loops = self._loops
        if loops is None:
            from resilience_redis._loops import Loops  # and asyncio, which threads do without

            # In one step, as event loops of two threads may begin at once: what the other one made nobody would close.
            loops = vars(self).setdefault("_loops", Loops(self._manner, self._most))
        return await loops.drive(run(self._route, script, (self.names.of(key),), arguments), timeout)

    def after_fork(self) -> None:
        """Use nothing, in a child, that belongs to its parent."""
        self._connections.after_fork()
        if self._loops is not None:
            self._loops.after_fork()
        self._freshness.after_fork()
        if self._listener is not None:
            self._listener.after_fork()


def _connect(connections: Connections, route: Route, patience: float) -> Connection:
    """Open a connection to a server that messages come from: in a cluster any has those of all."""
    address = connections.drive(route.find(b""), patience)
    try:
        return connections.open(address, clock.monotonic() + patience)
    except (Unreached, Refused):
        route.lose(b"", address)
        raise


@contextmanager
def _translated(doing: str, key: Key | None, *, saving: bool = False) -> Generator[None]:
    """Say what goes wrong in the framework's words: here, once."""
    try:
        yield
    except (Unreached, Refused) as error:
        raise unavailable(error, doing, key, saving=saving) from error


def _need_driver() -> None:
    """Import the driver, which takes longer than a server may: before the time of any hook begins.

    :raises PluginError: it is not there, or does not load.
    """
    try:
        import_module("resilience_redis._driver")
    except ImportError as error:
        raise PluginError(
            f"this storage needs redis-py ({error}): pip install 'resilience-framework[redis]'"
        ) from error


_storages: WeakSet[RedisStorage] = WeakSet()


def _after_fork_in_child() -> None:
    for storage in list(_storages):
        storage.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
