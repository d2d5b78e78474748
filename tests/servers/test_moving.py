"""A record that many commit all the time: not all of it is told, and nobody takes an old one for the last."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from resilience import CircuitBreaker, CircuitOpenError, Key, Runtime, Word
from resilience.freshness import CALM, FEW, MOVING
from resilience.storage import UNTOLD
from resilience.testing import wait_until
from resilience_postgres import PostgresStorage
from resilience_postgres._settings import PostgresSettings
from resilience_redis import RedisStorage
from resilience_redis._settings import RedisSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilience import Snapshot

    Storage = RedisStorage | PostgresStorage

KEY = Key("test", "moving")
COMMITS = 400


@pytest.fixture(params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    server: Any = request.getfixturevalue(f"{request.param}_server")
    return str(server.url if request.param == "redis" else server.url())


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., Storage]]:
    """Make a storage that listens, or one that does not."""
    made: list[Storage] = []

    def make(*, push: bool) -> Storage:
        if url.startswith("redis"):
            made.append(RedisStorage(url, RedisSettings(push=push)))
        else:
            made.append(PostgresStorage(url, PostgresSettings(push=push, durability="none")))
        return made[-1]

    yield make
    for storage in made:
        storage.close()


@pytest.fixture
def heard(url: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], int]]:
    """How many messages came on the channel until now."""
    if url.startswith("redis"):
        with request.getfixturevalue("redis_server").admin() as admin, admin.pubsub() as channel:
            channel.subscribe("resilience:changed")
            count = 0

            def told() -> int:
                nonlocal count
                admin.publish("resilience:changed", "- 0 last")
                while channel.get_message(timeout=5)["data"] != b"- 0 last":
                    count += 1
                return count

            yield told
    else:
        with psycopg.connect(request.getfixturevalue("postgres_server").admin_url, autocommit=True) as connection:
            connection.execute('LISTEN "resilience.records"')
            total = 0

            def notified() -> int:
                nonlocal total
                connection.execute("SELECT pg_notify('resilience.records', 'last')")
                for notice in connection.notifies(timeout=30):
                    if notice.payload == "last":
                        break
                    total += 1
                return total

            yield notified


def still(snapshot: Snapshot) -> bool:
    assert snapshot.is_current is not None
    return snapshot.is_current()


def gets_old(snapshot: Snapshot) -> None:
    """See that a snapshot of what rests is old once somebody has committed."""
    wait_until(lambda: not still(snapshot), "the commit that came then", 10)


def load(storage: Storage) -> tuple[Snapshot, bool]:
    """Load the record; and whether it is held for current for longer than one that moves, see `Freshness`."""
    begun = time.monotonic()
    snapshot = storage.resilience_load(KEY, 5)
    now = time.monotonic()
    end = now + 2 * max(MOVING, now - begun)
    is_over = False
    while not is_over:
        is_over = time.monotonic() >= end  # read first: who is kept waiting in between asks all the same
        if snapshot.is_current is None or not still(snapshot):
            return snapshot, False
    return snapshot, True


def rests(storage: Storage) -> Snapshot:
    """Load until what is loaded is known to be the last for as long as nothing is told."""
    found: list[Snapshot] = []

    def at_rest() -> bool:
        snapshot, is_held = load(storage)
        found[:] = [snapshot]
        return is_held

    wait_until(at_rest, "the record rests", 20)
    return found[0]


def move(storage: Storage, times: int = COMMITS) -> tuple[Snapshot, int]:
    """Commit one after the other; return the last one, and how often there was a pause after which all is told."""
    pauses = 0
    snapshot = storage.resilience_load(KEY, 5)
    last = time.monotonic()
    for number in range(times):
        snapshot = storage.resilience_save(KEY, b"%d" % number, snapshot.version, None, 5)
        now = time.monotonic()
        pauses, last = pauses + (now - last > CALM / 2), now
    return snapshot, pauses


def test_of_many_commits_few_are_told(make: Callable[..., Storage], heard: Callable[[], int]) -> None:
    writing = make(push=False)
    before = heard()
    begun = time.monotonic()
    _, pauses = move(writing)
    most = FEW * (1 + pauses) + (time.monotonic() - begun) / UNTOLD + 1
    assert FEW <= heard() - before <= most


def moving(listening: Storage, writing: Storage) -> Snapshot:
    """Commit until the record moves, and return it as it is loaded then; a pause may come at any time."""
    end = time.monotonic() + 60  # for a machine on which others start thousands of processes
    while time.monotonic() < end:
        saved, _ = move(writing, 2 * FEW)
        loaded, is_held = load(listening)
        assert loaded.version == saved.version
        if not is_held and not load(listening)[1]:  # the first may be by news
            return loaded
    pytest.fail("it never moved")


def test_a_snapshot_of_what_moves_gets_old_by_itself(make: Callable[..., Storage]) -> None:
    storage = make(push=True)
    rests(storage)
    snapshot = moving(storage, storage)
    assert snapshot.payload == b"%d" % (2 * FEW - 1)
    word = snapshot.is_current
    assert isinstance(word, Word)
    assert word.look is not None
    word.look()
    assert word.view[0] != word.value  # as the engine reads it


def test_nobody_who_found_it_at_rest_misses_what_comes(make: Callable[..., Storage]) -> None:
    listening, writing = make(push=True), make(push=False)
    rests(listening)
    for _ in range(20):
        saved, _ = move(writing, 2 * FEW)
        found = rests(listening)
        assert found.version == saved.version
        writing.resilience_save(KEY, b"last", saved.version, None, 5)
        gets_old(found)


def test_what_was_found_at_rest_rests_whatever_the_clock_of_the_server_does(
    make: Callable[..., Storage], request: pytest.FixtureRequest
) -> None:
    listening, writing = make(push=True), make(push=False)
    rests(listening)
    for _ in range(3):
        moving(listening, writing)
        found = rests(listening)
        # As it is where the clock was set back by as much as has passed since the last one that was told.
        if isinstance(writing, RedisStorage):
            with request.getfixturevalue("redis_server").admin() as admin:
                seconds, microseconds = admin.time()
                admin.hset(writing.names.of(KEY), "told", seconds * 1000000 + microseconds)
                writing.resilience_save(KEY, b"last", found.version, None, 5)
        else:
            with psycopg.connect(request.getfixturevalue("postgres_server").admin_url, autocommit=True) as connection:
                connection.execute("UPDATE resilience.records SET told_at = clock_timestamp()")
                writing.resilience_save(KEY, b"last", found.version, None, 5)
        gets_old(found)


def test_where_nothing_may_be_written_what_moved_moves_on(request: pytest.FixtureRequest, url: str) -> None:
    if not url.startswith("redis"):
        return  # there it is a statement of its own
    with closing(RedisStorage(url)) as listening, closing(RedisStorage(url, RedisSettings(push=False))) as writing:
        rests(listening)
        last = moving(listening, writing)
        with request.getfixturevalue("redis_server").admin() as admin:
            admin.config_set("min-replicas-to-write", 1)
            try:
                end = time.monotonic() + 3 * CALM
                while time.monotonic() < end:
                    found, is_held = load(listening)
                    assert (found.version, is_held) == (last.version, False)
            finally:
                admin.config_set("min-replicas-to-write", 0)
        assert rests(listening).version == last.version


def test_a_call_learns_what_was_not_told(url: str) -> None:
    with (
        Runtime(storage=url, storage_timeout=30, environ={}) as here,
        Runtime(storage=url, storage_timeout=30, environ={}) as there,
    ):
        for number in range(10):
            failing = CircuitBreaker(f"moving {number}", runtime=here, failure_threshold=1000)
            calling = CircuitBreaker(f"moving {number}", runtime=there, failure_threshold=1000)
            calling.call(int)
            for _ in range(3 * FEW):
                failing.record_failure()
                calling.call(int)
            failing.force_open()
            begun, calls = time.monotonic(), 0
            with pytest.raises(CircuitOpenError):
                while time.monotonic() - begun < 0.5 or calls < 10:  # in a second it would look anyway
                    calling.call(int)
                    calls += 1


def test_what_somebody_is_about_to_commit_goes_on_moving(
    make: Callable[..., Storage], request: pytest.FixtureRequest, url: str
) -> None:
    """A commit that was not told is made, and is not to be seen yet."""
    if url.startswith("redis"):
        return  # it does one thing after the other
    listening, writing = make(push=True), make(push=False)
    rests(listening)
    last = moving(listening, writing)
    with psycopg.connect(request.getfixturevalue("postgres_server").admin_url) as connection:
        connection.execute("UPDATE resilience.records SET number = number")
        end = time.monotonic() + 3 * CALM
        while time.monotonic() < end:
            found, is_held = load(listening)
            assert found.version == last.version
            assert not is_held
    assert rests(listening).version == last.version
