"""What a server may answer instead of doing what it was asked: an error that says what to do, and no secret."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from typing import TYPE_CHECKING

import pytest

from resilience import (
    CircuitBreaker,
    Event,
    Key,
    Runtime,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageUnavailable,
    hookimpl,
)
from resilience_redis import RedisSettings, RedisStorage, _examine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from servers.proxy import Proxy
    from servers.redis_server import RedisServer

KEY = Key("test", "refused")
SECRET = "swordfish"


@pytest.fixture
def storage(redis_server: RedisServer) -> Iterator[RedisStorage]:
    storage = RedisStorage(redis_server.url, RedisSettings(push=False))
    yield storage
    storage.close()


def loads(storage: RedisStorage, timeout: float) -> list[Callable[[], Snapshot]]:
    """To load in a thread, and as a task."""
    return [
        lambda: storage.resilience_load(KEY, timeout),
        lambda: asyncio.run(storage.resilience_aload(KEY, timeout)),
    ]


def test_a_server_that_has_as_many_clients_as_it_may(storage: RedisStorage, redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        most = admin.config_get("maxclients")["maxclients"]
        admin.config_set("maxclients", 1)
        try:
            for load in loads(storage, 5):
                with pytest.raises(StorageUnavailable, match=r"max number of clients.*REDIS__MAX_CONNECTIONS"):
                    load()
        finally:
            admin.config_set("maxclients", most)


def test_noscript_is_no_error(storage: RedisStorage, redis_server: RedisServer) -> None:
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.script_flush()
        assert storage.resilience_load(KEY, 1).payload == b"1"
        admin.script_flush()
        saved = storage.resilience_save(KEY, b"2", saved.version, None, 1)
        admin.script_flush()
        assert storage.resilience_delete(KEY, saved.version, 1)


def test_readonly(storage: RedisStorage, redis_server: RedisServer) -> None:
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(StorageUnavailable, match="it is a replica: name the primary") as caught:
                storage.resilience_save(KEY, b"2", saved.version, None, 1)
            assert not caught.value.outcome_unknown
            (server,) = [row for row in storage.examine() if row[0] == "server"]
            assert server[1] is False
            assert "slave" in server[2]
        finally:
            admin.replicaof("NO", "ONE")
    assert storage.resilience_save(KEY, b"2", saved.version, None, 1).payload == b"2"


def test_out_of_memory(storage: RedisStorage, redis_server: RedisServer) -> None:
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("maxmemory", 1)
        with pytest.raises(StorageUnavailable, match="memory is full") as caught:
            storage.resilience_save(KEY, b"2", saved.version, None, 1)
        assert not caught.value.outcome_unknown
        assert storage.resilience_load(KEY, 1).payload == b"1"


def test_too_few_replicas(storage: RedisStorage, redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        admin.config_set("min-replicas-to-write", 1)
        try:
            with pytest.raises(StorageUnavailable, match="min-replicas-to-write"):
                storage.resilience_save(KEY, b"1", None, None, 1)
        finally:
            admin.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize("command", ["SET {} x", "LPUSH {} x", "HSET {} incarnation a number 1 payload x"])
def test_something_else_under_the_name_is_set_aside(
    command: str, storage: RedisStorage, redis_server: RedisServer
) -> None:
    name = storage.names.of(KEY).decode()
    with redis_server.admin() as admin:
        admin.execute_command(*command.format(name).split(" "))
        kind = admin.type(name)
        with pytest.raises(StorageCorrupt) as caught:
            storage.resilience_load(KEY, 1)
        assert caught.value.key == KEY
        storage.resilience_discard(KEY, "because", 1)
        assert storage.resilience_load(KEY, 1).payload is None
        aside = storage.names.aside(KEY)
        assert admin.type(aside) == kind
        assert 0 < admin.ttl(aside) <= 30 * 24 * 3600
        if kind == b"hash":
            assert admin.hget(aside, "reason") == b"because"


def test_a_save_over_damage_is_a_conflict_that_brings_nothing(storage: RedisStorage, redis_server: RedisServer) -> None:
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with redis_server.admin() as admin:
        admin.hset(storage.names.of(KEY), "number", 99)
    with pytest.raises(StorageConflict, match="a damaged record is stored") as caught:
        storage.resilience_save(KEY, b"2", saved.version, None, 1)
    assert caught.value.current is None  # who loads it is told what is wrong


def test_who_comes_later_sets_nothing_healthy_aside(storage: RedisStorage, redis_server: RedisServer) -> None:
    other = RedisStorage(redis_server.url, RedisSettings(push=False))
    for damage in (b"SET", b"HSET"):
        with redis_server.admin() as admin:
            name = storage.names.of(KEY)
            admin.delete(name)
            admin.execute_command(damage, name, *([b"number"] if damage == b"HSET" else []), b"x")
        for one in (storage, other):
            with pytest.raises(StorageCorrupt):
                one.resilience_load(KEY, 1)
        storage.resilience_discard(KEY, "first", 1)
        saved = storage.resilience_save(KEY, b"healthy", None, None, 1)
        other.resilience_discard(KEY, "second", 1)
        assert storage.resilience_load(KEY, 1).version == saved.version
        other.resilience_discard(Key("test", "another"), "of which nothing was read, and nothing is there", 1)
    other.close()


def test_a_breaker_begins_anew_after_damage_and_says_so(redis_server: RedisServer) -> None:
    told: list[str] = []

    class Telling:
        @hookimpl
        def resilience_event(self, event: Event) -> None:
            told.append(event.name)

    with Runtime(storage=redis_server.url, environ={}) as runtime:
        CircuitBreaker("damaged", runtime=runtime).record_failure()
    with redis_server.admin() as admin:
        (name,) = admin.keys("resilience:{*")
        admin.hset(name, "payload", b"not what was saved")
    with Runtime(storage=redis_server.url, environ={}, observers=[Telling()]) as runtime:
        guarded = CircuitBreaker("damaged", runtime=runtime)
        guarded.record_failure()
        assert guarded.status().failure_count == 1
        assert told == ["state_reset"]


def test_a_wrong_password_and_none(redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "someone", "reset", "on", f">{SECRET}", "~*", "&*", "+@all")
        admin.config_set("requirepass", SECRET)
        try:
            for user, settings in (
                ("someone:wrong-one@", None),
                ("nobody:wrong-one@", None),
                (":wrong-one@", None),
                ("", None),
                ("", RedisSettings.model_validate({"password": "wrong-one"})),
            ):
                storage = RedisStorage(f"redis://{user}127.0.0.1:{redis_server.port}/1", settings)
                with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__PASSWORD") as caught:
                    storage.resilience_save(KEY, b"1", None, None, 1)
                assert not caught.value.outcome_unknown
                said = "".join(traceback.format_exception(caught.value))
                rows = storage.examine()
                said += repr(storage) + repr(rows) + repr(storage.resilience_lock(KEY, 1))
                assert rows[0][:2] == ("server", False)
                assert "RESILIENCE_REDIS__PASSWORD" in rows[0][3]
                assert "wrong-one" not in said
                storage.close()
            storage = RedisStorage(f"redis://:{SECRET}@127.0.0.1:{redis_server.port}/1")
            assert storage.resilience_save(KEY, b"1", None, None, 1).payload == b"1"
            assert storage.is_pushed is False  # nothing was loaded yet
            storage.close()
        finally:
            admin.config_set("requirepass", "")


def test_a_server_that_wants_a_password_for_a_moment(storage: RedisStorage, redis_server: RedisServer) -> None:
    """Its refusal is an answer after which the driver hangs up: the next request opens another connection."""
    with redis_server.admin() as admin:
        admin.config_set("requirepass", SECRET)
        try:
            for _ in range(2):
                with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__PASSWORD"):
                    storage.resilience_load(KEY, 1)
                with pytest.raises(StorageUnavailable, match="RESILIENCE_REDIS__PASSWORD"):
                    asyncio.run(storage.resilience_aload(KEY, 1))
        finally:
            admin.config_set("requirepass", "")
    assert storage.resilience_load(KEY, 1).payload is None
    assert asyncio.run(storage.resilience_aload(KEY, 1)).payload is None


def test_a_database_that_there_is_not(redis_server: RedisServer) -> None:
    storage = RedisStorage(f"redis://127.0.0.1:{redis_server.port}/999", RedisSettings(push=False))
    advice = "the number behind the host in the URL"
    with pytest.raises(StorageUnavailable, match=f"DB index is out of range; {advice}"):
        storage.resilience_load(KEY, 1)
    assert [(*row[:2], row[3][: len(advice)]) for row in storage.examine()] == [("server", False, advice)]


def test_what_doctor_is_told(redis_server: RedisServer) -> None:
    storage = RedisStorage(redis_server.url)
    rows = {what: (well, detail, fix) for what, well, detail, fix in storage.examine()}
    assert rows["server"][0]
    assert "Redis 7" in rows["server"][1] or "Valkey" in rows["server"][1]
    assert rows["eviction"][0]
    assert rows["listener"] == (True, "commits of others are told at once", "")
    with redis_server.admin() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        admin.config_set("maxmemory", "100mb")
        (eviction,) = [row for row in storage.examine() if row[0] == "eviction"]
        admin.config_set("maxmemory-policy", "noeviction")
    assert eviction[1] is False
    assert "noeviction" in eviction[3]
    storage.close()
    deaf = RedisStorage(redis_server.url, RedisSettings(push=False))
    assert [row[:2] for row in deaf.examine()] == [("server", True), ("eviction", True), ("listener", True)]
    deaf.close()
    for file in ("tls_ca_file", "tls_cert_file"):
        plain = RedisStorage(redis_server.url, RedisSettings.model_validate({"push": False, file: "some.pem"}))
        encryption, *others = plain.examine()
        assert encryption[:3] == (
            "encryption",
            False,
            f"RESILIENCE_REDIS__{file.upper()} is set, and the URL asks for no TLS",
        )
        assert all(row[1] for row in others)
        plain.close()
    down = RedisStorage("redis://127.0.0.1:1")
    ((what, well, detail, fix),) = down.examine()  # and not that nothing is heard of it
    assert (what, well) == ("server", False)
    assert "refused" in detail
    assert fix == "see that it runs, and check the host and port in the URL"
    down.close()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://127.0.0.1:1", "check the host and port in the URL"),
        ("redis+unix:///no/such.sock", "check the path in the URL"),
        ("rediss://127.0.0.1:{port}", "that it speaks TLS there: redis:// is without, rediss:// with it"),
        ("redis+sentinel://127.0.0.1:{port}/mymaster", "it is no Sentinel: name one in the URL"),
    ],
)
def test_what_to_do_about_a_url_that_leads_nowhere(
    redis_server: RedisServer, url: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_examine, "_PATIENCE", 0.1)
    storage = RedisStorage(url.format(port=redis_server.port), RedisSettings(push=False))
    for load in loads(storage, 0.1):
        with pytest.raises(StorageUnavailable, match=advice) as caught:
            load()
        assert not caught.value.outcome_unknown
    assert advice in storage.examine()[0][3]
    storage.close()


def test_one_that_hangs_up(redis_proxy: Proxy) -> None:
    """As one does that wants TLS."""
    storage = RedisStorage(f"redis://127.0.0.1:{redis_proxy.port}", RedisSettings(push=False))
    for load in loads(storage, 1):
        redis_proxy.cut_after(b"EVALSHA")
        with pytest.raises(StorageUnavailable, match="is no Redis, or one that wants TLS"):
            load()
    storage.close()


def test_so_many_connections_and_no_more(redis_server: RedisServer) -> None:
    storage = RedisStorage(redis_server.url, RedisSettings(push=False, max_connections=1))
    storage.resilience_load(KEY, 1)
    redis_server.stop()
    try:
        from threading import Thread

        def load() -> None:
            with contextlib.suppress(StorageUnavailable):
                storage.resilience_load(KEY, 0.5)

        first = Thread(target=load)
        first.start()
        with pytest.raises(StorageUnavailable, match="1 requests of this process"):
            while first.is_alive():
                storage.resilience_load(KEY, 0.01)
        first.join()
    finally:
        redis_server.go_on()
    storage.close()
