"""The PostgreSQL storage is put to the proof by the conformance kit, with both durabilities and without push."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from conformance.encrypted import encrypted

from resilience.testing import StorageConformance, run
from resilience_postgres import PostgresSettings, PostgresStorage

if TYPE_CHECKING:
    from servers.postgres_server import PostgresServer

    from resilience import Key


class _Conformance(StorageConformance):
    kit = "1"
    quick = True
    settings = PostgresSettings()

    @pytest.fixture
    def storage_factory(self, postgres_server: PostgresServer) -> partial[PostgresStorage]:
        self.server = postgres_server
        return partial(PostgresStorage, postgres_server.url(), self.settings)

    def damage(self, storage: Any, key: Key) -> None:
        damaged = self.server.ask(
            "UPDATE resilience.records SET record = 'x' WHERE kind = %s AND name = %s RETURNING 1", *key
        )
        assert damaged == [(1,)]

    def unreachable(self) -> partial[PostgresStorage]:
        return partial(PostgresStorage, "postgresql://app@127.0.0.1:9/postgres", self.settings)


class TestPostgres(_Conformance):
    """From coroutines as well."""

    kit = "2"


class TestPostgresWithoutPush(_Conformance):
    settings = PostgresSettings(push=False, durability="none")


def test_encrypted(postgres_server: PostgresServer) -> None:
    checks = [
        "round_trip",
        "conflicts",
        "is_current_elsewhere",
        "awaitable",
        "counts_tasks",
        "visible",
        "cancelled_saves",
    ]
    report = run(partial(encrypted, PostgresStorage, postgres_server.url()), quick=True, only=checks)
    assert [result.outcome for result in report.results] == ["passed"] * 7, report.text()
