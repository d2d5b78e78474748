"""A server that reads its data after a start, a replica, and a replica whose primary is gone: real ones of each."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest
from servers.program import Program
from servers.redis_server import RedisServer

from resilience import Key, StorageUnavailable
from resilience.testing import wait_until
from resilience_redis import RedisSettings, RedisStorage

if TYPE_CHECKING:
    from pathlib import Path

KEY = Key("circuit_breaker", "payments")


def program(server: RedisServer) -> Program:
    return Program(RedisStorage(server.url, RedisSettings(push=False)))


def test_while_it_reads_its_data_there_is_an_outage_and_then_everything_is_there(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--rdbcompression", "no") as server, program(server) as running:
        assert [running.fail(), running.fail()] == ["failed"] * 2
        with server.admin() as admin:
            admin.mset({f"other:{number}": "x" * 100 for number in range(400)})
            admin.save()
        server.kill()
        # Microseconds for each key, and how often it looks whether somebody asks meanwhile.
        server.options = ("--key-load-delay", "3000", "--loading-process-events-interval-bytes", "1024")
        server.start()
        with pytest.raises(StorageUnavailable, match="it is reading its data after a start and will answer") as caught:
            running.storage.resilience_load(KEY, 1)
        assert not caught.value.outcome_unknown
        with pytest.raises(StorageUnavailable, match="it is reading its data after a start and will answer"):
            asyncio.run(running.storage.resilience_aload(KEY, 1))
        gc.collect()  # would warn of a connection that was left open
        assert [running.fail(), running.fail()] == ["failed", "rejected"]  # by the private copy
        assert "it is reading its data after a start" in str(running.told.events[0].data["error"])
        running.comes_back(failures=2)


def test_a_replica_is_refused_with_its_primary_and_without_and_serves_when_it_is_promoted(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "primary", "--repl-diskless-sync-delay", "0") as primary:
        with program(primary) as before:
            assert [before.fail(), before.fail()] == ["failed"] * 2
        following = ("--replicaof", f"127.0.0.1 {primary.port}", "--replica-serve-stale-data", "no")
        with (
            RedisServer(tmp_path / "replica", *following) as replica,
            replica.admin() as admin,
            program(replica) as running,
        ):

            def link() -> Any:
                return admin.info("replication")["master_link_status"]

            wait_until(lambda: link() == "up", "the link")
            assert running.fail() == "failed"
            assert "it is a replica: name the primary" in str(running.told.events[0].data["error"])
            primary.kill()
            wait_until(lambda: link() == "down", "the end of the link")
            with pytest.raises(StorageUnavailable, match="it is a replica without its primary") as caught:
                running.storage.resilience_load(KEY, 1)
            assert not caught.value.outcome_unknown
            admin.replicaof("NO", "ONE")
            running.comes_back(failures=2)
