"""A real standby: it is refused while it only reads, and serves when it is promoted."""

from __future__ import annotations

import pytest
from servers.postgres_server import PostgresServer
from servers.program import Program

from resilience import Key, StorageUnavailable
from resilience.testing import wait_until
from resilience_postgres import PostgresStorage

KEY = Key("circuit_breaker", "payments")


def test_a_standby_is_refused_and_serves_when_it_is_promoted(postgres_server: PostgresServer) -> None:
    with Program(PostgresStorage(postgres_server.url())) as before:
        assert [before.fail(), before.fail()] == ["failed"] * 2
    with PostgresServer(primary=postgres_server) as standby, Program(PostgresStorage(standby.url())) as running:
        wait_until(lambda: standby.ask("SELECT count(*) FROM resilience.records") == [(1,)], "the copy")
        saved = running.storage.resilience_load(KEY, 5)  # to read is all that it can
        with pytest.raises(StorageUnavailable, match="the server only reads: it is a standby") as caught:
            running.storage.resilience_save(KEY, b"{}", saved.version, None, 5)
        assert not caught.value.outcome_unknown
        found = {what: (well, fix) for what, well, _, fix in running.storage.examine()}
        assert found["primary"] == found["listener"]  # for one reason
        assert not found["primary"][0]
        assert "name the primary in the URL" in found["primary"][1]
        assert [running.fail(), running.fail()] == ["failed", "rejected"]  # by the private copy
        assert "it is a standby" in str(running.told.events[0].data["error"])
        standby.promote()
        running.comes_back(failures=2)
        with Program(PostgresStorage(postgres_server.url())) as other:
            assert other.breaker.status().failure_count == 2  # nobody touched the other one
