"""How a process learns of others' commits, and what it believes when it does not."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from servers import pgbouncer, postgres_jobs
from servers.conftest import missing
from servers.pgbouncer import Pgbouncer

from resilience import CircuitBreaker, Freshness, Key, Runtime, StorageUnavailable
from resilience.testing import Subject, Workers, all_checks, run_check
from resilience_postgres import PostgresSettings, PostgresStorage, _listener
from resilience_postgres._connection import Connection, address
from resilience_postgres._errors import Lost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.postgres_server import PostgresServer
    from servers.proxy import Proxy

    from resilience import Snapshot

KEY = Key("test", "payments")
STALENESS = 0.3
SETTINGS = PostgresSettings(max_staleness=STALENESS)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Wait until something holds; for how long."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.001)
    return time.monotonic() - begun


def current(storage: PostgresStorage) -> Snapshot:
    """Load until what is loaded is known to be current."""
    found: list[Snapshot] = []

    def is_current() -> bool:
        found[:] = [storage.resilience_load(KEY, 5)]
        return found[0].is_current is not None and found[0].is_current()

    until(is_current)
    return found[0]


def still(snapshot: Snapshot) -> bool:
    assert snapshot.is_current is not None
    return snapshot.is_current()


@pytest.fixture
def storage(postgres_server: PostgresServer) -> Iterator[PostgresStorage]:
    storage = PostgresStorage(postgres_server.url(), SETTINGS)
    yield storage
    storage.close()


@pytest.fixture
def other(postgres_server: PostgresServer) -> Iterator[PostgresStorage]:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(push=False))
    yield storage
    storage.close()


def listeners() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "resilience-postgres-listen"]


def test_a_commit_elsewhere_is_heard_of_at_once(storage: PostgresStorage, other: PostgresStorage) -> None:
    delays: list[float] = []
    version = None
    for number in range(200):
        held = current(storage)
        version = other.resilience_save(KEY, b"%d" % number, version, None, 5).version
        delays.append(until(lambda held=held: not still(held)))  # type: ignore[misc]
    delays.sort()
    print(f"p50 {delays[100] * 1e3:.2f} ms, p99 {delays[197] * 1e3:.2f} ms")
    assert delays[100] < 0.01


def test_every_end_of_a_record_is_heard_of(storage: PostgresStorage, other: PostgresStorage) -> None:
    unborn = current(storage)
    first = other.resilience_save(KEY, b"1", None, None, 5)
    until(lambda: not still(unborn))
    held = current(storage)
    assert held.version == first.version
    other.resilience_delete(KEY, None, 5)
    until(lambda: not still(held))
    other.resilience_save(KEY, b"2", None, None, 5)
    held = current(storage)
    other.resilience_load(KEY, 5)
    other.resilience_discard(KEY, "by a test", 5)
    until(lambda: not still(held))
    assert current(storage).version is None


def test_what_this_process_commits_is_no_news(storage: PostgresStorage) -> None:
    current(storage)
    for number in range(20):
        version = storage.resilience_load(KEY, 5).version
        saved = storage.resilience_save(KEY, b"%d" % number, version, None, 5)
        time.sleep(0.005)  # until its own notification is there
        assert still(saved)


def test_a_listener_that_is_ended_is_missed_at_once_and_begins_anew(
    postgres_server: PostgresServer, storage: PostgresStorage, other: PostgresStorage
) -> None:
    held = current(storage)
    # Also sessions of earlier tests, which the server takes a moment to let go of; without a query behind a moment.
    assert postgres_server.terminate("LISTEN%") + postgres_server.terminate("") >= 1
    assert until(lambda: not still(held)) <= STALENESS + 1
    held = current(storage)
    other.resilience_save(KEY, b"{}", None, None, 5)
    until(lambda: not still(held))


def test_nothing_is_trusted_for_longer_than_max_staleness_when_the_server_is_silent(
    postgres_proxy: Proxy, postgres_server: PostgresServer
) -> None:
    storage = PostgresStorage(postgres_server.url(postgres_proxy.port), SETTINGS)
    held = current(storage)
    postgres_proxy.hang()
    seconds = until(lambda: not still(held))
    print(f"distrusted after {seconds:.2f} s")
    assert seconds <= STALENESS + 1
    postgres_proxy.recover()
    assert still(current(storage))
    storage.close()


def test_a_child_hears_by_itself(storage: PostgresStorage, other: PostgresStorage) -> None:
    held = current(storage)
    pid = postgres_jobs.fork()
    if pid == 0:  # pragma: no cover - it ends by `_exit`
        status = 1
        try:
            assert not still(held)
            assert listeners() == []
            held = current(storage)
            other.resilience_save(KEY, b"{}", None, None, 5)
            until(lambda: not still(held))
            storage.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    until(lambda: not still(held))
    version = current(storage).version
    held = current(storage)
    other.resilience_save(KEY, b"{}", version, None, 5)
    until(lambda: not still(held))


def test_it_is_closed_without_noise(postgres_server: PostgresServer) -> None:
    before = len(listeners())
    storage = PostgresStorage(postgres_server.url(), SETTINGS)
    for _ in range(2):
        current(storage)
        assert len(listeners()) == before + 1
        storage.close()
        assert len(listeners()) == before
    current(storage)
    del storage  # as whoever forgets to close it
    until(lambda: len(listeners()) == before)


def test_without_threads_nothing_is_believed(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    storage = PostgresStorage(postgres_server.url(), SETTINGS)
    for _ in range(3):
        assert not still(storage.resilience_load(KEY, 5))
    assert dict(found[:2] for found in storage.examine())["listener"] is False
    storage.after_fork()  # nor in a child, which has nothing to let go of
    assert not still(storage.resilience_load(KEY, 5))
    storage.close()


def test_whatever_ends_the_listener_it_begins_anew(storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Freshness) -> None:
        raise ZeroDivisionError("by zero")

    with monkeypatch.context() as patched:
        patched.setattr(Freshness, "prove", fail)
        for _ in range(3):
            assert not still(storage.resilience_load(KEY, 5))
        assert [found[2] for found in storage.examine() if found[0] == "listener"] == [
            "off: ZeroDivisionError: by zero"
        ]
    assert still(current(storage))


def test_opened_here_is_rejected_there(postgres_server: PostgresServer, tmp_path: Path) -> None:
    delays: list[float] = []
    with Workers(1) as workers, Runtime(storage=postgres_server.url(), environ={}):
        for number in range(12):
            ready = tmp_path / str(number)
            worker = workers.begin(0, postgres_jobs.reject_at, postgres_server.url(), f"b{number}", str(ready))
            until(ready.exists)
            CircuitBreaker(f"b{number}", failure_threshold=1).record_failure()
            opened = time.time()
            delays.append(worker.answer() - opened)
    delays.sort()
    print(f"p50 {delays[6] * 1e3:.2f} ms, longest {delays[-1] * 1e3:.2f} ms")
    assert delays[6] < 0.02


# --- behind a transaction pooler --------------------------------------------------------------------------------------


@pytest.fixture
def pooler(postgres_server: PostgresServer) -> Iterator[Pgbouncer]:
    if pgbouncer.PROGRAM is None:
        missing("pgbouncer is not installed: apt-get install pgbouncer")
    with Pgbouncer(postgres_server) as pooler:
        yield pooler


def test_behind_a_transaction_pooler_it_goes_on_without_push_and_says_so(
    pooler: Pgbouncer,
    postgres_server: PostgresServer,
    other: PostgresStorage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_listener, "_PROOF", 0.2)
    monkeypatch.setattr(_listener, "_DEAF", 0.01)  # it tries again and again, and says it once
    rest, tries = _listener.Listener._rest, iter(range(9))
    tried_again = threading.Event()

    def counted(listener: _listener.Listener, seconds: float) -> None:
        if next(tries, 1):
            tried_again.set()
        rest(listener, seconds)

    monkeypatch.setattr(_listener.Listener, "_rest", counted)
    with caplog.at_level(logging.WARNING, "resilience"):
        storage = PostgresStorage(postgres_server.url(pooler.port), SETTINGS)
        until(lambda: storage.resilience_load(KEY, 5).is_current is None)
        assert tried_again.wait(20)
    assert [record.message[:52] for record in caplog.records] == [
        "PostgreSQL storage: no notification arrives, as behi"
    ]
    version = None
    for number in range(20):  # enough to be prepared, where that were possible
        saved = storage.resilience_save(KEY, b"%d" % number, version, None, 5)
        version = other.resilience_save(KEY, b"{}", saved.version, None, 5).version
        assert storage.resilience_load(KEY, 5).version == version
    found = {what: (well, detail, fix) for what, well, detail, fix in storage.examine()}
    assert found["listener"][:2] == (False, "off: no notification arrives, as behind a transaction pooler")
    assert found["listener"][2].startswith("name the server itself, not a transaction pooler")
    storage.close()


def test_why_the_server_only_reads_a_pooler_does_not_tell(pooler: Pgbouncer, postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(pooler.port), PostgresSettings(push=False))
    storage.resilience_load(KEY, 5)
    postgres_server.ask("ALTER ROLE app SET default_transaction_read_only = on")
    postgres_server.terminate()
    try:
        storage.resilience_load(KEY, 5)  # over the same connection to the pooler, which has a new one to the server
        with pytest.raises(
            StorageUnavailable, match="it is a standby, or default_transaction_read_only is on for this"
        ):
            storage.resilience_save(KEY, b"{}", None, None, 5)
    finally:
        postgres_server.ask("ALTER ROLE app RESET default_transaction_read_only")
        storage.close()


def test_statements_that_another_server_of_a_pooler_has_prepared(
    pooler: Pgbouncer, postgres_server: PostgresServer
) -> None:
    """One client after the other gets a server that knows nothing of what the first has prepared, or knows it."""
    settings = PostgresSettings(push=False)
    storages = [PostgresStorage(postgres_server.url(pooler.port), settings) for _ in range(3)]
    for number in range(30):
        for storage in storages:
            version = storage.resilience_load(KEY, 5).version
            storage.resilience_save(KEY, b"%d" % number, version, None, 5)
    assert storages[0].resilience_load(KEY, 5).payload == b"29"
    for storage in storages:
        storage.close()


def test_commits_through_a_pooler_are_counted_exactly(pooler: Pgbouncer, postgres_server: PostgresServer) -> None:
    chosen = {"conflicts", "counts_threads", "births_threads", "readers_threads", "round_trip", "counts_tasks"}
    settings = PostgresSettings(push=False)

    def factory() -> PostgresStorage:
        return PostgresStorage(postgres_server.url(pooler.port), settings)

    with Subject(factory, quick=True) as subject:
        results = [run_check(check, subject) for check in all_checks("1") if check.name in chosen]
    assert {result.outcome for result in results} == {"passed"}, results


def test_what_comes_together_with_a_beat_is_heard_of_at_once(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = PostgresStorage(postgres_server.url(), PostgresSettings(max_staleness=3))
    there = PostgresStorage(postgres_server.url(), PostgresSettings(push=False))
    saved = there.resilience_save(KEY, b"{}", None, None, 5)
    snapshot = current(here)
    read, seen, looks = Connection.heard, threading.Event(), iter(range(1, 9))

    def heard(connection: Connection, **options: bool) -> list[bytes]:
        found = read(connection, **options)
        if next(looks, 0) == 2:  # the first one is before the beat; this one has read the answer to it
            there.resilience_save(KEY, b"[]", saved.version, None, 5)
            time.sleep(0.05)
            seen.set()
        return found

    monkeypatch.setattr(Connection, "heard", heard)
    assert seen.wait(10)
    assert until(lambda: not still(snapshot)) < 1  # the next look would be after one and a half
    here.close()
    there.close()


def test_a_child_closes_nothing_that_libpq_has_closed(postgres_server: PostgresServer) -> None:
    connection = Connection(address(postgres_server.url())[0], 5)
    assert postgres_server.terminate() >= 1

    def is_lost() -> bool:
        try:
            connection.heard()
        except Lost:
            return True
        return False

    until(is_lost)
    ends = os.pipe()
    assert connection.fd in ends  # the number is used again
    connection.abandon()
    for end in ends:
        os.close(end)


# --- who hears --------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer) -> Iterator[PostgresStorage]:
    """A storage whose thread, once it has heard something, is not there for a while, as one that waits for the GIL."""
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(max_staleness=30))
    current(storage)
    monkeypatch.setattr(_listener, "_REST", 0.5)
    yield storage
    storage.close()


def distract(slow: PostgresStorage, other: PostgresStorage) -> None:
    """Let the thread hear of another record, after which it rests."""
    key = Key("test", "of somebody else")
    held = slow.resilience_load(key, 5)
    other.resilience_save(key, b"{}", held.version, None, 5)
    until(lambda: not still(held))


def test_who_decides_hears_what_the_thread_has_no_time_for(slow: PostgresStorage, other: PostgresStorage) -> None:
    held = current(slow)
    distract(slow, other)
    look = slow._freshness.look
    assert look is not None
    look()  # there is nothing to hear
    other.resilience_save(KEY, b"{}", held.version, None, 5)
    assert still(held)
    until(lambda: look() is None and not still(held), 0.4)


def test_what_somebody_who_looks_meets_ends_the_trust(
    slow: PostgresStorage, other: PostgresStorage, postgres_server: PostgresServer
) -> None:
    held = current(slow)
    distract(slow, other)
    look = slow._freshness.look
    assert look is not None
    assert postgres_server.terminate("LISTEN%") + postgres_server.terminate("") >= 1
    until(lambda: look() is None and not still(held), 0.4)
    look()  # whether there is nothing to hear by any more, or the thread has made it anew by now
    assert still(current(slow))


def test_what_came_while_the_thread_rested_is_heard_after_it(slow: PostgresStorage, other: PostgresStorage) -> None:
    held = current(slow)
    distract(slow, other)
    other.resilience_save(KEY, b"{}", held.version, None, 5)
    until(lambda: not still(held))


def test_what_who_looks_cannot_read_ends_the_trust(
    slow: PostgresStorage, other: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, listener = current(slow), slow._listener
    assert listener is not None
    here = threading.get_ident()
    take = listener._take

    def fails_here(connection: Any) -> None:
        if threading.get_ident() == here:
            raise OSError("the line is dead")
        take(connection)

    monkeypatch.setattr(listener, "_take", fails_here)
    listener.look()
    assert not still(held)
    other.resilience_save(KEY, b"{}", held.version, None, 5)
    until(lambda: listener._connection is None)  # the thread woke, and gave it up


def test_who_looks_while_another_one_reads_does_not_wait_for_long(slow: PostgresStorage) -> None:
    held, listener = current(slow), slow._listener
    assert listener is not None
    with listener._reading:
        begun = time.monotonic()
        listener.look()
        assert time.monotonic() - begun < 0.5
    assert still(held)


def test_who_looks_by_the_last_listener_of_a_storage_that_was_closed_does_no_harm(slow: PostgresStorage) -> None:
    look = slow._freshness.look
    assert look is not None
    slow.close()
    held = current(slow)
    look()
    assert still(held)


def test_who_looks_when_the_connection_is_being_made_anew_reads_nothing(slow: PostgresStorage) -> None:
    current(slow)
    listener = slow._listener
    assert listener is not None

    class Late:
        """Before this one reads, the thread has given up."""

        def acquire(self, timeout: float) -> bool:
            slow._freshness.distrust()
            return True

        def release(self) -> None: ...

    reading, listener._reading = listener._reading, Late()  # type: ignore[assignment] # pyright: ignore[reportAttributeAccessIssue]
    listener.look()
    listener._reading = reading
    assert listener._failure is None
