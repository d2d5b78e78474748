"""The kit passes: on one server, through a socket in the file system, with and without push."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from conformance.encrypted import encrypted

from resilience.testing import StorageConformance, run
from resilience_redis import RedisSettings, RedisStorage

if TYPE_CHECKING:
    from servers.redis_server import RedisServer

    from resilience import Key


class OnRedis(StorageConformance):
    """What all share: how a record is damaged, and a server that is not there."""

    kit = "1"
    quick = True  # started processes import the driver: twenty of them take as long as all the rest
    __test__ = False

    @pytest.fixture(autouse=True)
    def _the_server(self, redis_server: RedisServer) -> None:
        type(self).server = redis_server

    server: RedisServer

    def damage(self, storage: Any, key: Key) -> None:
        assert isinstance(storage, RedisStorage)
        with self.server.admin() as admin:
            assert admin.hset(storage.names.of(key), "payload", b"{}") == 0

    def unreachable(self) -> Any:
        return partial(RedisStorage, "redis://127.0.0.1:1/0")


class TestPushed(OnRedis):
    """From coroutines as well."""

    __test__ = True
    kit = "2"

    @pytest.fixture
    def storage_factory(self, redis_server: RedisServer) -> Any:
        return partial(RedisStorage, redis_server.url)


class TestLoaded(OnRedis):
    """Without the thread, in another database, under another prefix."""

    __test__ = True

    @pytest.fixture
    def storage_factory(self, redis_server: RedisServer) -> Any:
        url = f"valkey://127.0.0.1:{redis_server.port}/3"
        return partial(RedisStorage, url, RedisSettings(push=False, prefix="our*[team]:"))

    def damage(self, storage: Any, key: Key) -> None:
        with self.server.admin(db=3) as admin:
            assert admin.hdel(storage.names.of(key), "sum") == 1


def test_encrypted(redis_server: RedisServer) -> None:
    checks = [
        "round_trip",
        "conflicts",
        "is_current_elsewhere",
        "awaitable",
        "counts_tasks",
        "visible",
        "cancelled_saves",
    ]
    report = run(partial(encrypted, RedisStorage, redis_server.url), quick=True, only=checks)
    assert [result.outcome for result in report.results] == ["passed"] * 7, report.text()
