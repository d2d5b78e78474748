"""The PostgreSQL storage: what stands in the table, what it costs, who may do what."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from servers.postgres_server import PASSWORD, programs

import resilience_postgres
from resilience import (
    CircuitBreaker,
    ConfigurationError,
    Key,
    Runtime,
    StorageConflict,
    StorageCorrupt,
    StorageUnavailable,
    Version,
    Word,
)
from resilience.testing import wait_until
from resilience_postgres import PostgresSettings, PostgresStorage, _pool
from resilience_postgres._connection import Connection, address
from resilience_postgres._errors import Lost, unconnected
from resilience_postgres._records import identity
from resilience_postgres._waiting import _tell_from_afar, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.postgres_server import PostgresServer
    from servers.proxy import Proxy

    from resilience_postgres._pool import Pool

KEY = Key("test", "payments")


@pytest.fixture
def storage(postgres_server: PostgresServer) -> Iterator[PostgresStorage]:
    storage = PostgresStorage(postgres_server.url())
    yield storage
    storage.close()


def calls(server: PostgresServer) -> int:
    """Statements that applications have run, those aside that prove that the server tells."""
    ((count,),) = server.ask(
        "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements JOIN pg_roles r ON r.oid = userid"
        " WHERE rolname = 'app' AND toplevel AND query !~ '^(LISTEN|SELECT pg_notify)'"
    )
    return int(count)


# --- what stands in the table -----------------------------------------------------------------------------------------


def test_an_operator_can_query_the_state(postgres_server: PostgresServer) -> None:
    with Runtime(storage=postgres_server.url(), environ={}):
        CircuitBreaker("payments", failure_threshold=1).record_failure(TimeoutError())
    ((kind, name, payload, number),) = postgres_server.ask(
        "SELECT kind, name, payload, number FROM resilience.records WHERE payload @> '{}' AND expires_at IS NULL"
    )
    ((record,),) = postgres_server.ask("SELECT convert_from(record, 'UTF8') FROM resilience.records")
    assert (kind, name, number) == ("circuit_breaker", "payments", 1)
    assert payload == json.loads(record)
    assert "open" in json.dumps(payload)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"b": 1.10,\n"a":1,"a": 2}', {"a": 2, "b": 1.1}),
        (b'"\\ud800"', None),
        (b'{"nul": "\\u0000"}', None),
        (b"\xff\x00", None),
        (b"", None),
    ],
)
def test_each_payload_comes_back_byte_for_byte(
    postgres_server: PostgresServer, storage: PostgresStorage, payload: bytes, shown: object
) -> None:
    storage.resilience_save(KEY, payload, None, None, 5)
    assert storage.resilience_load(KEY, 5).payload == payload
    assert postgres_server.ask("SELECT payload FROM resilience.records") == [(shown,)]


def test_records_that_expired_are_swept_by_births(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    storage.resilience_save(KEY, b"{}", None, time.time() - 1, 5)
    kept = Key("test", "kept")
    storage.resilience_save(kept, b"{}", None, time.time() + 60, 5)
    for number in range(200):  # one in sixteen sweeps
        storage.resilience_save(Key("test", f"birth {number}"), b"{}", None, None, 5)
        if KEY not in storage.resilience_keys():
            break
    keys = storage.resilience_keys()
    assert KEY not in keys
    assert kept in keys


def test_the_time_is_the_server_s(storage: PostgresStorage) -> None:
    before = time.time()
    snapshots = [
        storage.resilience_load(KEY, 5),
        storage.resilience_save(KEY, b"{}", None, None, 5),
        storage.resilience_load(KEY, 5),
    ]
    with pytest.raises(StorageConflict) as caught:
        storage.resilience_save(KEY, b"{}", None, None, 5)
    assert caught.value.current is not None
    times = [snapshot.time for snapshot in (*snapshots, caught.value.current)]
    assert times == sorted(times)  # type: ignore[type-var]
    assert times[0] is not None
    assert times[-1] is not None
    assert before - 0.1 < times[0] <= times[-1] < time.time() + 0.1


# --- conflicts --------------------------------------------------------------------------------------------------------


def sessions(server: PostgresServer) -> set[object]:
    """Return those of applications; some may be of earlier tests, whose end the server has not seen yet."""
    return set(server.ask("SELECT pid FROM pg_stat_activity WHERE usename = 'app'"))


def wait_for_a_waiter(server: PostgresServer) -> None:
    """Wait until an application waits for a row."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'"
    end = time.monotonic() + 20
    while server.ask(waits) != [(1,)]:
        assert time.monotonic() < end


def conflict_of(
    storage: PostgresStorage, expected: Version | None, before_commit: Callable[[], None]
) -> StorageConflict:
    """Save while another transaction has the row, which is committed then."""
    with ThreadPoolExecutor(1) as thread:
        saving = thread.submit(storage.resilience_save, KEY, b'{"n":"late"}', expected, None, 10)
        before_commit()
        conflict = saving.exception(20)
    assert isinstance(conflict, StorageConflict)
    return conflict


def test_who_waited_for_the_row_is_told_what_came_of_it(
    postgres_server: PostgresServer, storage: PostgresStorage
) -> None:
    """Not what was there when its statement began: that is what it lost to."""
    saved = storage.resilience_save(KEY, b'{"n":1}', None, None, 5)
    assert saved.version is not None
    winner = Version(saved.version.incarnation, 2)
    values = storage._values(KEY, identity(KEY), b'{"n":2}', winner, None, 5)
    values[-1] = b"\0"  # it is committed here

    with psycopg.connect(postgres_server.admin_url) as connection:
        text = storage.schema.save.text.decode()
        connection.pgconn.exec_(b"BEGIN")
        result = connection.pgconn.exec_params(text.encode(), values, storage.schema.save.types, [1] * len(values))
        assert result.get_value(0, 0) == b"t"

        def commit() -> None:
            wait_for_a_waiter(postgres_server)
            connection.pgconn.exec_(b"COMMIT")

        conflict = conflict_of(storage, saved.version, commit)
    assert conflict.current is not None
    assert (conflict.current.version, conflict.current.payload) == (winner, b'{"n":2}')


def test_a_row_that_somebody_holds_is_waited_for_no_longer_than_the_time_out(
    postgres_server: PostgresServer, storage: PostgresStorage
) -> None:
    saved = storage.resilience_save(KEY, b"{}", None, None, 5)
    with psycopg.connect(postgres_server.admin_url) as connection:
        connection.execute("SELECT FROM resilience.records FOR UPDATE")
        begun = time.monotonic()
        with pytest.raises(StorageUnavailable) as caught:
            storage.resilience_save(KEY, b"{}", saved.version, None, 0.2)
        assert time.monotonic() - begun < 2
        assert storage.resilience_load(KEY, 5).version == saved.version  # a load waits for nobody
        connection.rollback()
    storage.resilience_save(KEY, b"{}", saved.version, None, 5)
    assert caught.value.outcome_unknown or (
        caught.value.key == KEY and "another transaction holds its row" in str(caught.value)
    )


def test_a_transaction_in_the_way_is_a_conflict(postgres_server: PostgresServer) -> None:
    """Under stricter isolation the server raises 40001 for who waited."""
    storage = PostgresStorage(f"{postgres_server.url()}?options=-c%20default_transaction_isolation%3Dserializable")
    saved = storage.resilience_save(KEY, b"{}", None, None, 5)
    with psycopg.connect(postgres_server.admin_url) as connection:
        connection.execute("UPDATE resilience.records SET number = 2")

        def commit() -> None:
            wait_for_a_waiter(postgres_server)
            connection.commit()

        conflict = conflict_of(storage, saved.version, commit)
    assert "40001" in str(conflict)
    storage.close()


def test_who_is_chosen_to_end_a_deadlock_has_changed_nothing(postgres_server: PostgresServer) -> None:
    """A birth that sweeps waits for nobody, but what a trigger of the operator's does, nobody knows."""
    storage = PostgresStorage(postgres_server.url())
    postgres_server.ask(
        "CREATE FUNCTION chosen() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE SQLSTATE '40P01' USING MESSAGE = 'deadlock detected'; END $$;"
        " CREATE TRIGGER chosen BEFORE INSERT ON resilience.records FOR EACH ROW EXECUTE FUNCTION chosen()"
    )
    try:
        with pytest.raises(StorageConflict, match=r"deadlock detected .*another transaction was in the way"):
            storage.resilience_save(KEY, b"{}", None, None, 5)
    finally:
        postgres_server.ask("DROP TRIGGER chosen ON resilience.records; DROP FUNCTION chosen()")
    storage.resilience_save(KEY, b"{}", None, None, 5)
    storage.close()


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damaged_rows_are_set_aside_and_few_are_kept(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(keep_damaged=2))
    for number in range(4):
        storage.resilience_save(KEY, b"%d" % number, storage.resilience_load(KEY, 5).version, None, 5)
        postgres_server.ask("UPDATE resilience.records SET checksum = 0 WHERE set_aside IS NULL")
        with pytest.raises(StorageCorrupt, match="does not match its checksum"):
            storage.resilience_load(KEY, 5)
        storage.resilience_discard(KEY, f"reason {number}\0\ud800", 5)
        assert storage.resilience_load(KEY, 5).version is None
    kept = postgres_server.ask("SELECT record, set_aside FROM resilience.records ORDER BY changed_at")
    assert kept == [(b"2", "reason 2?"), (b"3", "reason 3?")]
    assert storage.resilience_keys() == []
    assert [found[:2] for found in storage.examine() if found[0] == "damaged records"] == [("damaged records", False)]
    storage.close()


def test_a_healthy_successor_is_not_set_aside(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    storage.resilience_save(KEY, b"damaged", None, None, 5)
    postgres_server.ask("UPDATE resilience.records SET checksum = 0")
    with pytest.raises(StorageCorrupt):
        storage.resilience_load(KEY, 5)
    postgres_server.ask("DELETE FROM resilience.records")
    other = PostgresStorage(postgres_server.url())
    healthy = asyncio.run(other.resilience_asave(KEY, b"healthy", None, None, 5))
    other.close()
    storage.resilience_discard(KEY, "it was damaged", 5)
    assert storage.resilience_load(KEY, 5).version == healthy.version


def test_delete_of_a_version_that_is_gone(storage: PostgresStorage) -> None:
    assert storage.resilience_delete(KEY, Version("gone", 1), 5) is False


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_calls_that_change_nothing_ask_nothing_and_a_failure_is_one_statement(postgres_server: PostgresServer) -> None:
    with Runtime(storage=postgres_server.url(), environ={}):
        payments = CircuitBreaker("payments", failure_threshold=1_000)

        def asks_nothing() -> bool:
            before = calls(postgres_server)
            payments.call(int)
            return calls(postgres_server) == before

        wait_until(asks_nothing, "it is told of commits")
        postgres_server.ask("SELECT pg_stat_statements_reset()")
        begun = time.monotonic()
        for number in range(10_000):
            payments.call(int)
            if number % 1500 == 0:  # so seldom that the record does not move: then it would be loaded again as well
                payments.record_failure()
        seconds = time.monotonic() - begun
        asked = calls(postgres_server)
        # Each failure is one statement, and so is the success after it, which ends the streak; a look each second.
        assert 14 <= asked <= 14 + 2 * (seconds + 1)
        payments.force_open()
        payments.check()
        postgres_server.ask("SELECT pg_stat_statements_reset()")
        begun = time.monotonic()
        for _ in range(2_000):
            assert not payments.check()
        assert calls(postgres_server) <= 3 * (time.monotonic() - begun + 1)


def test_a_short_process_has_one_connection_and_no_thread(postgres_server: PostgresServer) -> None:
    import threading

    earlier, before = sessions(postgres_server), threading.active_count()
    with Runtime(storage=postgres_server.url(), environ={}):
        CircuitBreaker("payments", failure_threshold=1).record_failure()
        assert len(sessions(postgres_server) - earlier) == 1
    assert threading.active_count() <= before


def test_a_snapshot_is_looked_at_in_line(storage: PostgresStorage) -> None:
    storage.resilience_load(KEY, 5)
    snapshot = storage.resilience_load(KEY, 5)
    assert isinstance(snapshot.is_current, Word)
    assert snapshot.is_current()


# --- threads and loops ------------------------------------------------------------------------------------------------


def test_more_threads_than_connections(postgres_server: PostgresServer) -> None:
    earlier = sessions(postgres_server)
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(connections=2, push=False))
    with ThreadPoolExecutor(8) as threads:
        loading = [threads.submit(storage.resilience_load, KEY, 10) for _ in range(100)]
    assert {loaded.result().version for loaded in loading} == {None}
    assert len(sessions(postgres_server) - earlier) <= 2
    storage.close()


def test_loops_one_after_the_other_share_the_connections(postgres_server: PostgresServer) -> None:
    """A connection belongs to no loop, so none warns when its loop ends."""
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(connections=2))

    async def many() -> list[bytes | None]:
        return [each.payload for each in await asyncio.gather(*(storage.resilience_aload(KEY, 10) for _ in range(20)))]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert asyncio.run(many()) == [None] * 20
    storage.close()


def test_a_task_that_is_cancelled_gives_its_connection_up(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(connections=1, push=False))

    async def cancelled_at(pause: int) -> None:
        task = asyncio.ensure_future(storage.resilience_aload(KEY, 5))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await storage.resilience_aload(KEY, 5)).version is None

    for pause in (1, 2, 3):
        asyncio.run(cancelled_at(pause))
    storage.close()


def test_a_task_does_not_wait_longer_than_it_was_told_to(
    postgres_proxy: Proxy, postgres_server: PostgresServer
) -> None:
    url = postgres_server.url(postgres_proxy.port)
    storage = PostgresStorage(url, PostgresSettings(connections=1, push=False))

    async def late() -> None:
        await storage.resilience_aload(KEY, 5)
        postgres_proxy.hang()
        with pytest.raises(StorageUnavailable, match="in time"):
            await storage.resilience_aload(KEY, 0.05)

    asyncio.run(late())
    storage.close()


def test_a_large_record(storage: PostgresStorage) -> None:
    """More than the buffers of the system take at once."""
    payload = bytes(20_000_000)

    async def save() -> Version | None:
        return (await storage.resilience_asave(KEY, payload, None, None, 30)).version

    version = asyncio.run(save())
    assert storage.resilience_load(KEY, 30).payload == payload
    storage.resilience_save(KEY, payload, version, None, 30)


# --- settings, rights, and what is wrong ------------------------------------------------------------------------------


def test_variables_have_one_name_for_both_schemes(postgres_server: PostgresServer) -> None:
    for scheme in ("postgres", "postgresql"):
        url = postgres_server.url().replace("postgresql", scheme)
        environ = {"RESILIENCE_STORAGE": url, "RESILIENCE_POSTGRES__DURABILITY": "none"}
        runtime = Runtime(environ=environ)
        assert "durable" not in runtime.opened.ports.capabilities
        assert runtime.opened.ports.load(KEY, 5).version is None
        runtime.close()
    with pytest.raises(ConfigurationError, match="write RESILIENCE_POSTGRES__PUSH"):
        _ = Runtime(environ={"RESILIENCE_STORAGE": url + "ql:", "RESILIENCE_POSTGRESQL__PUSH": "no"}).opened


@pytest.mark.parametrize("table", ["records", "a.b; DROP TABLE c", 'a."b"', "A.b", "a.b.c", f"a.{'b' * 29}"])
def test_a_table_that_is_no_name(table: str) -> None:
    with pytest.raises(ConfigurationError, match=r"RESILIENCE_POSTGRES__TABLE: .* refused: a table is schema\.table"):
        _ = Runtime(environ={"RESILIENCE_STORAGE": "postgres:", "RESILIENCE_POSTGRES__TABLE": table}).opened


def test_a_url_that_cannot_be_read_and_no_secret_is_shown() -> None:
    with pytest.raises(ConfigurationError, match="is no URL of a PostgreSQL server") as caught:
        PostgresStorage(f"postgresql://app:{PASSWORD}@host:port/db?no_such=1")
    assert PASSWORD not in str(caught.value)
    with (
        pytest.raises(ConfigurationError, match=r"is no URL of a PostgreSQL server; .* write postgresql://host:5432/d"),
        Runtime(environ={"RESILIENCE_STORAGE": f"postgresql://app:{PASSWORD}@host:port/db"}) as runtime,
    ):
        _ = runtime.opened
    with pytest.raises(ConfigurationError, match="is no URL of a PostgreSQL server") as caught:
        PostgresStorage(f"postgresql://app:{PASSWORD}/rest@host/db")  # its slash had to be escaped
    assert PASSWORD not in str(caught.value)
    storage = PostgresStorage(f"postgresql://app:{PASSWORD}@one,two/db")
    assert repr(storage) == "<PostgresStorage 'resilience.records' on 'one,two'>"
    assert b"target_session_attrs=read-write" in storage._dsn
    assert PASSWORD.encode() in storage._dsn
    assert PASSWORD not in f"{vars(storage)} {vars(storage._pool)} {storage._dsn!s}"


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ('FATAL:  too many connections for role "app"', "the CONNECTION LIMIT of the role or the database"),
        ('FATAL:  too many connections for database "app"', "the CONNECTION LIMIT of the role or the database"),
        ("FATAL:  sorry, too many clients already", "let more connections in"),
        ("FATAL:  no more connections allowed (max_client_conn)", "let more connections in"),
        ('FATAL:  role "too many clients" is not permitted to log in', "ALTER ROLE … LOGIN"),
        ('FATAL:  role "app" does not exist', "check the user in the URL"),
        (
            'FATAL:  no pg_hba.conf entry for host "::1", user "app", database "d", no encryption',
            "let pg_hba.conf admit",
        ),
        ('FATAL:  pg_hba.conf rejects connection for host "::1", user "app", database "d"', "let pg_hba.conf admit"),
        ("received invalid response to SSL negotiation: -", "are those of a PostgreSQL server"),
        ("FATAL:  the database system is starting up", "it will answer when that is over"),
        ("FATAL:  the database system is shutting down", "it will answer when that is over"),
    ],
)
def test_what_to_do_about_a_connection_that_is_refused(message: str, advice: str) -> None:
    assert advice in unconnected(message).advice


@pytest.mark.parametrize("secret", ["an@{}", "an@@{}", "a/an@{}", "5/{}", "an@/{}", "a?n@{}", "an#@{}"], ids=repr)
def test_what_libpq_takes_for_a_host_or_a_database_may_be_the_rest_of_a_password(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="%-escapes for what is special") as caught:
        PostgresStorage(f"postgresql://app:{secret.format(PASSWORD)}@localhost/db")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:an%40{PASSWORD}@localhost/db",
        "postgresql://app@%2Frun%2Fa@b:5432/db",  # a folder of sockets
        "postgresql:///db?host=@abstract",  # a socket without a file
        "postgresql://app@localhost/db%40home",
    ],
)
def test_an_at_sign_that_belongs_there(url: str) -> None:
    assert PASSWORD not in repr(PostgresStorage(url))


def test_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg.pq", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'resilience-framework\[postgres\]'"):
        PostgresStorage("postgresql://")


def test_a_wrong_password(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(user="app:wrong-secret"))
    with pytest.raises(StorageUnavailable, match="password authentication failed") as caught:
        storage.resilience_load(KEY, 5)
    assert "wrong-secret" not in f"{caught.value!r} {caught.value.__cause__!r} {storage!r}"
    assert [found[:2] for found in storage.examine()] == [("server", False)]
    with pytest.raises(StorageUnavailable, match="password authentication failed"):
        storage.prepare(dry=False)
    storage.close()


@pytest.mark.parametrize(
    ("end", "said", "advice"),
    [
        ("app@127.0.0.1:{port}/postgres", "no password supplied", "check user and password in the URL; .*PGPASSFILE"),
        (f"app:{PASSWORD}@127.0.0.1:{{port}}/no_such", 'database "no_such" does not', "check the database in the URL"),
        (
            "password@127.0.0.1:1/value",
            "Connection refused",
            "check that host and port in the URL are those of a Postg",
        ),
        (
            "app@127.0.0.1:{port}/postgres?sslmode=no_such",
            "invalid sslmode",
            r"check what stands behind the \? in the U",
        ),
        ("app@127.0.0.1:{port}/postgres?sslmode=require", "SSL was required", "check sslmode and the certificates"),
    ],
)
def test_what_to_do_about_a_url_that_leads_nowhere(
    postgres_server: PostgresServer, end: str, said: str, advice: str
) -> None:
    storage = PostgresStorage(f"postgresql://{end.format(port=postgres_server.port)}", PostgresSettings(push=False))
    with pytest.raises(StorageUnavailable, match=f"{said}.*; .*{advice}") as caught:
        storage.resilience_load(KEY, 5)
    assert PASSWORD not in str(caught.value)
    ((what, well, _, fix),) = storage.examine()
    assert (what, well) == ("server", False)
    assert re.search(advice, fix)
    storage.close()


def test_a_server_of_another_kind(postgres_proxy: Proxy, postgres_server: PostgresServer) -> None:
    """It waits for the end of what it takes for a line."""
    postgres_proxy.hang()
    storage = PostgresStorage(postgres_server.url(postgres_proxy.port), PostgresSettings(push=False, connections=1))
    with pytest.raises(StorageUnavailable, match=r"could be had in time; .* are those of a PostgreSQL server"):
        storage.resilience_load(KEY, 0.05)
    storage.close()


def test_all_connections_are_in_use(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(push=False, connections=1))
    storage.resilience_load(KEY, 5)
    taken = storage._pool.take()
    assert isinstance(taken, Connection)
    with pytest.raises(StorageUnavailable, match="all are in use: set RESILIENCE_POSTGRES__CONNECTIONS"):
        storage.resilience_load(KEY, 0.01)
    storage._pool.give(taken)
    storage.close()


@pytest.fixture
def taken(postgres_server: PostgresServer) -> Iterator[PostgresSettings]:
    """The name of a table that is somebody else's."""
    postgres_server.ask("CREATE SCHEMA theirs")
    postgres_server.ask("CREATE TABLE theirs.records (a int)")
    postgres_server.ask("GRANT USAGE ON SCHEMA theirs TO app")
    postgres_server.ask("GRANT SELECT ON theirs.records TO app")
    yield PostgresSettings(table="theirs.records", push=False)
    postgres_server.ask("DROP SCHEMA theirs CASCADE")


def made_in(server: PostgresServer, schema: str) -> list[str]:
    rows = server.ask(
        "SELECT proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s", schema
    )
    return [name for (name,) in rows]


def test_a_table_of_somebody_else_is_left_alone(postgres_server: PostgresServer, taken: PostgresSettings) -> None:
    owner = PostgresStorage(postgres_server.admin_url, taken)
    with pytest.raises(
        StorageUnavailable,
        match=r"theirs\.records is no table of resilience, and belongs to postgres .*; name another .*POSTGRES__TABLE",
    ):
        owner.prepare(dry=False)
    assert made_in(postgres_server, "theirs") == []
    storage = PostgresStorage(postgres_server.url(), taken)
    with pytest.raises(StorageUnavailable, match=r"it is no table of resilience, .*`resilience doctor` says whose"):
        storage.resilience_load(KEY, 5)
    found = {what: (well, detail, fix) for what, well, detail, fix in storage.examine()}
    assert found["table"][:2] == (False, "theirs.records belongs to postgres and is no table of resilience")
    assert found["table"][2].startswith("name another table in RESILIENCE_POSTGRES__TABLE")
    assert not {"rights", "records"} & set(found)
    owner.close()
    storage.close()


def test_whoever_makes_it_by_hand_does_not_take_it_over(
    postgres_server: PostgresServer, taken: PostgresSettings
) -> None:
    """Also not as psql does it that was not told to make one transaction of it, and goes on after an error."""
    folder = programs()
    assert folder is not None
    sql = PostgresStorage(postgres_server.admin_url, taken).prepare(dry=True)
    for options, made in ((["-1"], []), ([], ["records_json", "records_save"])):
        command = [str(folder / "psql"), "-q", *options, postgres_server.admin_url]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=30, check=False)
        assert "theirs.records is no table of resilience, and belongs to postgres" in done.stderr
        assert sorted(made_in(postgres_server, "theirs")) == made
        assert postgres_server.ask("SELECT obj_description('theirs.records'::regclass)") == [(None,)]


def test_a_table_of_a_later_form_is_left_alone(postgres_server: PostgresServer, taken: PostgresSettings) -> None:
    postgres_server.ask("COMMENT ON TABLE theirs.records IS 'resilience 2'")
    owner = PostgresStorage(postgres_server.admin_url, taken)
    with pytest.raises(
        StorageUnavailable, match=r'of the form "resilience 2", not "resilience 1" .*; use the version of resilience-fr'
    ):
        owner.prepare(dry=False)
    assert made_in(postgres_server, "theirs") == []
    ((well, detail, fix),) = [found[1:] for found in owner.examine() if found[0] == "table"]
    assert (well, detail) == (
        False,
        "theirs.records: its form is 'resilience 2', and this version knows 'resilience 1'",
    )
    assert fix.startswith("use the version of resilience-framework that made it")
    owner.close()


def test_the_statements_of_the_doctor_are_all_that_is_needed(postgres_server: PostgresServer) -> None:
    """Made without a grant, and without what everybody may do: what the doctor prints is run as it stands."""
    settings = PostgresSettings(table="granted.records", push=False)
    owner, storage = (
        PostgresStorage(postgres_server.admin_url, settings),
        PostgresStorage(postgres_server.url(), settings),
    )
    owner.prepare(dry=False)
    try:
        postgres_server.ask("REVOKE ALL ON ALL ROUTINES IN SCHEMA granted FROM PUBLIC")
        found = {what: (well, detail, fix) for what, well, detail, fix in storage.examine()}
        assert found["server"][0]
        assert found["table"][0]
        missing = (
            "missing: USAGE ON SCHEMA granted, SELECT, INSERT, UPDATE, DELETE ON granted.records, "
            "EXECUTE ON PROCEDURE granted.records_save, EXECUTE ON FUNCTION granted.records_json"
        )
        grants = (
            "GRANT USAGE ON SCHEMA granted TO app; "
            "GRANT SELECT, INSERT, UPDATE, DELETE ON granted.records TO app; "
            "GRANT EXECUTE ON PROCEDURE granted.records_save TO app; "
            "GRANT EXECUTE ON FUNCTION granted.records_json TO app;"
        )
        assert found["rights"] == (False, missing, grants)
        postgres_server.ask(grants)
        assert ("rights", True) in [found[:2] for found in storage.examine()]
        saved = storage.resilience_save(KEY, b"{}", None, None, 5)
        assert storage.resilience_delete(KEY, saved.version, 5)
        postgres_server.ask("DROP PROCEDURE granted.records_save")
        (table,) = [found for found in storage.examine() if found[0] == "table"]
        assert table[1:3] == (False, "granted.records: granted.records_save is missing")
        with pytest.raises(StorageUnavailable, match="with the URL of a user who owns the table, or may make it"):
            storage.prepare(dry=False)
    finally:
        postgres_server.ask("DROP SCHEMA granted CASCADE")
        owner.close()
        storage.close()


def test_a_table_that_is_missing(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(table="elsewhere.records"))
    with pytest.raises(StorageUnavailable, match="make the table with `resilience storage init`"):
        storage.resilience_load(KEY, 5)
    with pytest.raises(StorageUnavailable, match="resilience storage init") as caught:
        storage.resilience_save(KEY, b"{}", None, None, 5)
    assert not caught.value.outcome_unknown
    found = {what: (well, detail) for what, well, detail, _ in storage.examine()}
    assert found["table"] == (False, "elsewhere.records: there is none")
    assert "rights" not in found  # to what is not there
    with pytest.raises(StorageUnavailable, match="permission denied for database"):
        storage.prepare(dry=False)
    assert "CREATE SCHEMA elsewhere" in storage.prepare(dry=True)
    storage.close()


def test_the_table_is_made_twice_and_kept(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    saved = storage.resilience_save(KEY, b"{}", None, None, 5)
    owner = PostgresStorage(postgres_server.admin_url)
    assert owner.prepare(dry=False) == "the table resilience.records is there"
    owner.close()
    assert storage.resilience_load(KEY, 5).version == saved.version


def test_a_role_without_a_grant(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    saved = storage.resilience_save(KEY, b"{}", None, None, 5)  # before: one birth in sixteen sweeps, and needs DELETE
    postgres_server.ask("REVOKE UPDATE, DELETE ON resilience.records FROM app")
    try:
        with pytest.raises(StorageUnavailable, match=r"permission denied .*`resilience doctor` names it") as caught:
            storage.resilience_save(KEY, b"{}", saved.version, None, 5)
        assert not caught.value.outcome_unknown
        found = {what: (well, detail, fix) for what, well, detail, fix in storage.examine()}
        missing = "UPDATE, DELETE ON resilience.records"
        assert found["rights"] == (False, f"missing: {missing}", f"GRANT {missing} TO app;")
    finally:
        postgres_server.ask("GRANT UPDATE, DELETE ON resilience.records TO app")
    assert [what for what, well, _, _ in storage.examine() if not well] == ["durability"]  # this server's fsync is off


def test_a_server_that_only_reads(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(f"{postgres_server.url()}?options=-c%20default_transaction_read_only%3Don")
    assert storage.resilience_load(KEY, 5).version is None
    with pytest.raises(StorageUnavailable, match="it is no standby: default_transaction_read_only is on") as caught:
        storage.resilience_save(KEY, b"{}", None, None, 5)
    assert (caught.value.outcome_unknown, caught.value.key) == (False, None)
    (primary,) = [found[1:] for found in storage.examine() if found[0] == "primary"]
    assert primary[:2] == (False, "it only lets app read: default_transaction_read_only is on")
    assert primary[2].startswith("ALTER ROLE app SET default_transaction_read_only = off;")
    storage.close()


def test_a_statement_that_the_server_cancels(postgres_server: PostgresServer) -> None:
    url = f"{postgres_server.url()}?options=-c%20statement_timeout%3D50"
    storage = PostgresStorage(url)
    saved = storage.resilience_save(KEY, b"{}", None, None, 5)
    with psycopg.connect(postgres_server.admin_url) as connection:
        connection.execute("SELECT FROM resilience.records FOR UPDATE")
        with pytest.raises(StorageUnavailable, match="statement_timeout is shorter") as caught:
            storage.resilience_save(KEY, b"{}", saved.version, None, 5)
        connection.rollback()
    with psycopg.connect(postgres_server.admin_url) as connection:
        connection.execute("LOCK resilience.records")
        found = storage.examine()[-1]
        assert found[:2] == ("server", False)
        assert "statement_timeout is shorter" in found[3]
        connection.rollback()
    assert caught.value.outcome_unknown  # it is cancelled as easily after the commit, before the disk has answered
    storage.close()


# --- at the edges -----------------------------------------------------------------------------------------------------


def test_a_conflict_with_a_damaged_record(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    storage.resilience_save(KEY, b"{}", None, None, 5)
    postgres_server.ask("UPDATE resilience.records SET checksum = 0")
    with pytest.raises(StorageConflict, match="found a damaged record") as caught:
        storage.resilience_save(KEY, b"{}", None, None, 5)
    assert caught.value.current is None


def test_no_time_at_all(storage: PostgresStorage) -> None:
    storage.resilience_load(KEY, 5)
    with pytest.raises(StorageUnavailable, match="in time"):
        storage.resilience_load(KEY, 0)


def test_what_was_prepared_may_be_refused(postgres_server: PostgresServer, storage: PostgresStorage) -> None:
    version = None
    for _ in range(4):
        version = storage.resilience_save(KEY, b"{}", version, None, 5).version
    postgres_server.ask("REVOKE UPDATE ON resilience.records FROM app")
    try:
        with pytest.raises(StorageUnavailable, match="permission denied"):
            storage.resilience_save(KEY, b"{}", version, None, 5)
    finally:
        postgres_server.ask("GRANT UPDATE ON resilience.records TO app")


def test_without_push_the_doctor_says_so(postgres_server: PostgresServer) -> None:
    storage = PostgresStorage(postgres_server.url(), PostgresSettings(push=False))
    found = {what: (well, detail) for what, well, detail, _ in storage.examine()}
    assert found["listener"] == (True, "off: a record is trusted for RESILIENCE_MAX_STALENESS")
    storage.close()


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'NoSuch'"):
        _ = resilience_postgres.NoSuch


class TestPool:
    @pytest.fixture
    def pool(self, storage: PostgresStorage) -> Pool:
        storage.resilience_load(KEY, 5)
        return storage._pool

    @staticmethod
    def taken(pool: Pool) -> Connection:
        connection = pool.take()
        return connection.result(10) if isinstance(connection, Future) else connection

    def test_connections_that_nobody_needs_are_closed(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        one, two = self.taken(pool), self.taken(pool)
        monkeypatch.setattr(_pool, "IDLE", -1.0)
        pool.give(one)
        pool.give(two)
        assert pool._idle == []

    def test_one_that_was_lent_before_the_end_is_not_kept(self, pool: Pool) -> None:
        connection = self.taken(pool)
        pool.close()
        pool.give(connection)
        assert pool._idle == []

    def test_one_that_was_being_opened_before_the_end_is_not_kept(
        self, pool: Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Connection] = []

        def connect(dsn: bytes, patience: float) -> Connection:
            pool.close()
            opened.append(Connection(dsn, patience))
            return opened[0]

        kept = self.taken(pool)
        monkeypatch.setattr(_pool, "Connection", connect)
        promise = pool.take()
        assert isinstance(promise, Future)
        promise.cancel()
        end = time.monotonic() + 10
        while pool._opening:
            assert time.monotonic() < end
        assert pool._idle == []
        pool.give(kept)

    def test_a_promise_that_was_kept_too_late(self, pool: Pool) -> None:
        kept = self.taken(pool)
        promise = pool.take()
        assert isinstance(promise, Future)
        connection = promise.result(10)
        pool.recall(promise)
        assert connection in pool._idle
        pool.give(kept)

    def test_whatever_goes_wrong_is_told_to_who_waits(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        def connect(dsn: bytes, patience: float) -> Connection:
            raise ZeroDivisionError("by zero")

        kept = self.taken(pool)
        monkeypatch.setattr(_pool, "Connection", connect)
        promise = pool.take()
        assert isinstance(promise, Future)
        with pytest.raises(Lost, match="ZeroDivisionError: by zero"):
            promise.result(10)
        pool.give(kept)

    def test_who_gave_up_meanwhile_is_told_nothing(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        promises: list[Future[Connection]] = []

        def connect(dsn: bytes, patience: float) -> Connection:
            promises.extend(pool._waiting)
            promises[0].cancel()
            raise ZeroDivisionError("by zero")

        kept = self.taken(pool)
        monkeypatch.setattr(_pool, "Connection", connect)
        monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # here and now
        assert pool.take() is promises[0]
        assert promises[0].cancelled()
        assert (pool._opening, len(pool._waiting)) == (0, 0)  # the next one begins anew
        pool.give(kept)

    def test_a_connection_that_is_closed_behind_its_back(self, storage: PostgresStorage, pool: Pool) -> None:
        connection = self.taken(pool)
        connection._pgconn.finish()
        for attempt in (lambda: in_thread(connection.script(b""), time.monotonic() + 5), connection.heard):
            with pytest.raises(Lost):
                attempt()
        pool.drop(connection)
        assert storage.resilience_load(KEY, 5).version is None

    def test_connecting_has_an_end(self, postgres_proxy: Proxy, postgres_server: PostgresServer) -> None:
        postgres_proxy.hang()
        with pytest.raises(Lost, match="while connecting"):
            Connection(address(postgres_server.url(postgres_proxy.port))[0], 0.1)

    def test_a_loop_that_is_closed_is_told_nothing(self) -> None:
        loop = asyncio.new_event_loop()
        ready = loop.create_future()
        loop.close()
        _tell_from_afar(loop, ready)
        assert not ready.done()
