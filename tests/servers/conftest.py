"""Real servers, started once and used by all tests that need one; nothing here is ever a fake.

Everything in this folder is marked `servers`.  Where a server is not installed its tests are skipped; with
`RESILIENCE_TEST_SERVERS=required`, as in continuous integration, that is an error.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers.postgres_server import PostgresServer
    from servers.proxy import Proxy
    from servers.redis_server import RedisServer

HERE = Path(__file__).parent
REQUIRED = os.environ.get("RESILIENCE_TEST_SERVERS") == "required"

# Without its driver nothing can be said of a server.
collect_ignore_glob = (
    []
    if REQUIRED or find_spec("redis") is not None
    else ["test_doctor.py", "test_machines.py", "test_moving.py", "test_proxy.py", "test_redis*.py"]
)
if not REQUIRED and find_spec("psycopg") is None:
    collect_ignore_glob += ["test_doctor.py", "test_machines.py", "test_moving.py", "test_postgres*.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, before the marks are used to choose."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("servers")


def missing(what: str) -> None:
    """Something that a test needs is not installed."""
    if REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def _redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    from servers.redis_server import RedisServer

    if not RedisServer.is_installed():
        missing("redis-server is not installed: apt-get install redis-server")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_server: RedisServer) -> RedisServer:
    """A Redis with nothing in it."""
    _redis_server.clear()
    return _redis_server


@pytest.fixture
def redis_proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """What stands between a client and that Redis."""
    from servers.proxy import Proxy

    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[PostgresServer]:
    from servers.postgres_server import PostgresServer, programs

    if programs() is None:
        missing("PostgreSQL is not installed: apt-get install postgresql")
    with PostgresServer() as server:
        server.set_up()
        yield server


@pytest.fixture
def postgres_server(_postgres_server: PostgresServer) -> PostgresServer:
    """A PostgreSQL whose table is empty."""
    _postgres_server.clear()
    return _postgres_server


@pytest.fixture
def postgres_proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    """What stands between a client and that PostgreSQL."""
    from servers.proxy import Proxy

    with Proxy(postgres_server.port) as proxy:
        yield proxy
