"""The hooks: one row per record, one statement per load and per commit."""

from __future__ import annotations

import os
from _thread import allocate_lock
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from importlib import import_module
from weakref import finalize

from resilience import (
    Capability,
    ConfigurationError,
    Freshness,
    Key,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageError,
    Version,
    Word,
    clock,
    hookimpl,
)
from resilience_postgres._errors import Fault, translated
from resilience_postgres._fork import enrol
from resilience_postgres._records import FALSE, TRUE, checksum, identity, integer, row_in, seconds, time_in
from resilience_postgres._schema import Schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from typing import Final, Protocol

    from psycopg.pq.abc import PGresult

    from resilience.freshness import Begun
    from resilience_postgres._doctor import Finding
    from resilience_postgres._listener import Listener
    from resilience_postgres._records import Row
    from resilience_postgres._schema import Statement

    class PostgresPlan(Protocol):
        """What the storage reads of its settings; `PostgresSettings` is the model."""

        @property
        def table(self) -> str:
            """Schema and table."""
            ...

        @property
        def durability(self) -> str:
            """`fsync` or `none`."""
            ...

        @property
        def push(self) -> bool:
            """Whether to listen."""
            ...

        @property
        def max_staleness(self) -> float:
            """Seconds."""
            ...

        @property
        def connections(self) -> int:
            """Of one process at most."""
            ...

        @property
        def keep_damaged(self) -> int:
            """Of each key at most."""
            ...


LISTEN_AT: Final = 2
"""A process that loads so often listens: a command of the shell, which loads once, opens one connection and no more."""

_ADMINISTRATION: Final = 5.0
"""Seconds for what has no time-out of its own."""

_STALE: Final = Word([0], 1)
"""The `is_current` of a snapshot of which nobody can tell for now."""

_read: ContextVar[tuple[Key, Row] | None] = ContextVar("resilience_postgres_read", default=None)
"""The row that this thread or task has read last: the one that it may call damaged."""


class _Defaults:
    """The defaults of `PostgresSettings`, for those who do without."""

    table: str = "resilience.records"
    durability: str = "fsync"
    push: bool = True
    max_staleness: float = 1.0
    connections: int = 4
    keep_damaged: int = 8


class _SettingsClass:
    """`PostgresStorage.Settings`, imported when it is asked for, and pydantic with it."""

    def __get__(self, instance: object, owner: type) -> type:
        from resilience_postgres._settings import PostgresSettings

        return PostgresSettings


class PostgresStorage:
    """Keeps each record in a row of a table.

    :param url: ``postgresql://user:password@host:5432/database``, as libpq takes it, parameters included.
    :param settings: a `PostgresSettings`, or anything with its attributes; `None` for the defaults.
    :raises ConfigurationError: the URL cannot be read, or the driver is not installed.
    """

    Settings = _SettingsClass()
    plain_settings = True  # anything with the attributes of `PostgresSettings` will do, see `resilience.plan`
    capabilities: frozenset[Capability]

    def __init__(self, url: str, settings: PostgresPlan | None = None) -> None:
        _need_driver()
        from resilience_postgres._connection import address
        from resilience_postgres._pool import Pool

        chosen: PostgresPlan = _Defaults() if settings is None else settings
        self.schema = Schema(chosen.table)
        self._dsn, self.place = address(url)
        self._pool = Pool(self._dsn, chosen.connections)
        self._freshness = Freshness()
        self._beginning = allocate_lock()
        self._listener: Listener | None = None
        self._end: finalize[..., PostgresStorage] | None = None
        self._loads = 0
        self._push = chosen.push
        self._patience = chosen.max_staleness
        self._durable = TRUE if chosen.durability == "fsync" else FALSE
        self._keep = chosen.keep_damaged
        self.capabilities = frozenset(
            [
                Capability.PROCESSES,
                Capability.MACHINES,
                *([Capability.PUSH] if chosen.push else []),
                *([Capability.DURABLE] if chosen.durability == "fsync" else []),
            ]
        )
        enrol(self)

    def __repr__(self) -> str:
        """Show table and server, and no secret."""
        return f"<PostgresStorage {self.schema.table!r} on {self.place!r}>"

    # -- load ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        if (listener := self._count_load()) is not None:
            listener.said.wait(timeout / 2)
        begun = self._freshness.begin(tag)
        result = self._run("loading", self.schema.load, [tag], deadline, key, again=True)
        if _may_rest(begun, result):
            with suppress(StorageError):  # then it moves on
                result = _found(self._run("loading", self.schema.let_rest, [tag], deadline, key)) or result
        return self._loaded(key, tag, begun, result)

    @hookimpl
    async def resilience_aload(self, key: Key, timeout: float) -> Snapshot:
        """See `resilience.hookspecs`."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        self._count_load()  # nobody waits until it hears: the next snapshots tell
        begun = self._freshness.begin(tag)
        result = await self._arun("loading", self.schema.load, [tag], deadline, key, again=True)
        if _may_rest(begun, result):
            with suppress(StorageError):
                result = _found(await self._arun("loading", self.schema.let_rest, [tag], deadline, key)) or result
        return self._loaded(key, tag, begun, result)

    def _loaded(self, key: Key, tag: bytes, begun: Begun | None, result: PGresult) -> Snapshot:
        row, moves = row_in(result, 1), result.get_value(0, 5) == TRUE
        return self._snapshot(key, tag, begun, row, time_in(result, 0), moves=moves)

    def _snapshot(
        self, key: Key, tag: bytes, begun: Begun | None, row: Row | None, time: float, *, moves: bool
    ) -> Snapshot:
        if row is None:
            return Snapshot(None, None, self._word(None, begun), time)
        _read.set((key, row))
        if row.checksum != checksum(tag, row.record, row.version):
            raise StorageCorrupt(
                f"the row of {key} in {self.schema.table} on {self.place} does not match its checksum: it was changed "
                "by other means",
                key=key,
            )
        return Snapshot(row.record, row.version, self._word(row.version, begun, moves=moves), time)

    def _word(self, version: Version | None, begun: Begun | None, *, moves: bool = False) -> Word | None:
        listener = self._listener
        if not self._push or (listener is not None and listener.is_deaf):
            return None
        return self._freshness.judge(version, begun, moves=moves) or _STALE

    # -- save ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_save(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        version = _next(expected)
        begun = self._freshness.begin(tag)
        values = self._values(key, tag, payload, version, expires_at, timeout)
        result = self._run("saving", self.schema.save, values, deadline, key)
        return self._saved(key, tag, begun, payload, version, expected, result)

    @hookimpl
    async def resilience_asave(
        self, key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
    ) -> Snapshot:
        """See `resilience.hookspecs`."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        version = _next(expected)
        begun = self._freshness.begin(tag)
        values = self._values(key, tag, payload, version, expires_at, timeout)
        result = await self._arun("saving", self.schema.save, values, deadline, key)
        return self._saved(key, tag, begun, payload, version, expected, result)

    def _values(
        self, key: Key, tag: bytes, payload: bytes, version: Version, expires_at: float | None, timeout: float
    ) -> list[bytes | None]:
        return [
            tag,
            key.kind.encode(),
            key.name.encode(),
            version.incarnation.encode(),
            integer(version.number),
            payload,
            integer(checksum(tag, payload, version)),
            seconds(expires_at),
            b"%d" % max(1, int(timeout * 1000)),
            self._durable,
        ]

    def _saved(
        self,
        key: Key,
        tag: bytes,
        begun: Begun | None,
        payload: bytes,
        version: Version,
        expected: Version | None,
        result: PGresult,
    ) -> Snapshot:
        time, moves = time_in(result, 1), result.get_value(0, 6) == TRUE
        if result.get_value(0, 0) == TRUE:
            return Snapshot(payload, version, self._word(version, begun, moves=moves), time)
        current: Snapshot | None
        try:
            current = self._snapshot(key, tag, begun, row_in(result, 2), time, moves=moves)
        except StorageCorrupt:
            current = None  # whoever loads it is told
        found = "a damaged record" if current is None else current.version
        raise StorageConflict(f"{key}: expected {expected}, found {found}", key=key, current=current)

    # -- lock ----------------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_lock(self, key: Key, timeout: float) -> AbstractContextManager[None]:  # noqa: ARG002 - the hook's
        """See `resilience.hookspecs`.  `save` compares and writes in one step, so nothing is locked."""
        return nullcontext()

    # -- administration ------------------------------------------------------------------------------------------------

    @hookimpl
    def resilience_keys(self) -> list[Key]:
        """See `resilience.hookspecs`."""
        result = self._run("listing", self.schema.keys, [], clock.monotonic() + _ADMINISTRATION, None, again=True)
        pairs = (
            ((result.get_value(row, 0) or b"").decode(), (result.get_value(row, 1) or b"").decode())
            for row in range(result.ntuples)
        )
        return [Key(*pair) for pair in pairs]

    @hookimpl
    def resilience_delete(self, key: Key, expected: Version | None, timeout: float) -> bool:
        """See `resilience.hookspecs`."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        result = self._run("deleting", self.schema.delete, [tag, *_version(expected)], deadline, key)
        if result.ntuples:
            self._freshness.doubt(tag)
            return True
        if expected is not None:
            current = self.resilience_load(key, max(0.0, deadline - clock.monotonic()))
            if current.version is not None:
                raise StorageConflict(f"{key}: expected {expected}, found {current.version}", key=key, current=current)
        return False

    @hookimpl
    def resilience_discard(self, key: Key, reason: str, timeout: float) -> None:
        """See `resilience.hookspecs`.  The row that this thread or task has read last is the one that is set aside."""
        tag, deadline = identity(key), clock.monotonic() + timeout
        seen = _read.get()
        row = seen[1] if seen is not None and seen[0] == key else None
        values = [
            tag,
            os.urandom(32),
            reason.replace("\0", "").encode("utf-8", "replace"),
            *_version(None if row is None else row.version),
            None if row is None else integer(row.checksum),
            integer(self._keep),
        ]
        self._run("setting aside", self.schema.discard, values, deadline, key)
        self._freshness.doubt(tag)

    def prepare(self, *, dry: bool) -> str:
        """Make the table, for `resilience storage init`; what is there already stays.

        :param dry: return the SQL, and do nothing.
        """
        if dry:
            return self.schema.ddl
        from resilience_postgres._doctor import make

        return make(self._dsn, self.schema, self.place)

    def examine(self) -> list[Finding]:
        """Look at the server and the table, for `resilience doctor`."""
        from resilience_postgres._doctor import examine

        listener = self._listen() if self._push else None
        if listener is not None:
            listener.said.wait(_ADMINISTRATION)
        return examine(self._pool, self.schema, listener, durable=Capability.DURABLE in self.capabilities)

    def close(self) -> None:
        """Close all connections, and hear no more; the next use opens them anew."""
        listener, self._listener = self._listener, None
        self._loads = 0
        if listener is not None and self._end is not None:
            self._end.detach()
            listener.close()
        self._pool.close()

    def after_fork(self) -> None:
        """Begin anew in a child."""
        listener, self._listener = self._listener, None
        self._loads = 0
        self._beginning = allocate_lock()
        if listener is not None:
            listener.abandon()
        self._freshness.after_fork()

    # -- the server ----------------------------------------------------------------------------------------------------

    def _run(
        self,
        doing: str,
        statement: Statement,
        values: Sequence[bytes | None],
        deadline: float,
        key: Key | None,
        *,
        again: bool = False,
    ) -> PGresult:
        from resilience_postgres._waiting import conversation, in_thread

        try:
            return in_thread(conversation(self._pool, statement, values, again=again), deadline)
        except Fault as fault:
            raise translated(fault, doing, self.place, self.schema.table, key) from fault

    async def _arun(
        self,
        doing: str,
        statement: Statement,
        values: Sequence[bytes | None],
        deadline: float,
        key: Key,
        *,
        again: bool = False,
    ) -> PGresult:
        from resilience_postgres._waiting import conversation, on_loop

        try:
            return await on_loop(conversation(self._pool, statement, values, again=again), deadline)
        except Fault as fault:
            raise translated(fault, doing, self.place, self.schema.table, key) from fault

    def _count_load(self) -> Listener | None:
        """Begin to listen at the second load of a process; return the listener that began with it."""
        if not self._push or self._listener is not None:
            return None
        self._loads += 1
        return self._listen() if self._loads >= LISTEN_AT else None

    def _listen(self) -> Listener:
        """Begin to listen, once; return who does."""
        from resilience_postgres._listener import Listener

        with self._beginning:
            listener = self._listener
            if listener is None:
                listener = Listener(self._dsn, self.schema, self._pool, self._freshness, self._patience)
                self._listener = listener
                self._freshness.look = listener.look
                listener.start()
                self._end = finalize(self, listener.close)  # for whoever forgets to close
                self._end.atexit = False
        return listener


def _may_rest(begun: Begun | None, result: PGresult) -> bool:
    """Whether a record was loaded that moved until a while ago; where nothing is heard it makes no difference."""
    return begun is not None and result.get_value(0, 6) == TRUE


def _found(result: PGresult) -> PGresult | None:
    """Return a result that has a row."""
    return result if result.ntuples else None


def _next(expected: Version | None) -> Version:
    """Return the version that a commit has over the expected one."""
    if expected is None:
        return Version(os.urandom(16).hex(), 1)
    return Version(expected.incarnation, expected.number + 1)


def _version(expected: Version | None) -> tuple[bytes | None, bytes | None]:
    """Return a version as two parameters."""
    return (None, None) if expected is None else (expected.incarnation.encode(), integer(expected.number))


def _need_driver() -> None:
    """See that the driver is there.

    :raises ConfigurationError: it is not, or it does not load.
    """
    try:
        import_module("psycopg.pq")
    except ImportError as error:
        raise ConfigurationError(
            f"RESILIENCE_STORAGE: the PostgreSQL storage needs a driver that is not there ({error}); install it with "
            "pip install 'resilience-framework[postgres]'"
        ) from error
