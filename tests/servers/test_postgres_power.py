"""The power of the server's machine fails: what was acknowledged with `fsync` is there when it is back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes.disks import Disk, run, without_power
from servers.postgres_server import PostgresServer

from resilience import Key
from resilience_postgres import PostgresStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

OPTIONS = ("fsync=on", "wal_writer_delay=10s")
"""What no commit waits for is brought to the disk late, so that it can be lost."""

COMMITS = 10


@pytest.fixture
def disk() -> Iterator[Disk]:
    """One whose folder another user may enter, as the server's has to."""
    with tempfile.TemporaryDirectory(prefix="resilience-power-") as folder:
        Path(folder).chmod(0o755)
        disk = Disk(Path(folder), size=192)
        yield disk
        disk.eject()


def commit(server: PostgresServer, key: Key, durability: Literal["fsync", "none"]) -> int:
    """The number of the last version that was acknowledged."""
    storage = PostgresStorage(server.admin_url, PostgresStorage.Settings(durability=durability, push=False))
    version = None
    for _ in range(COMMITS):
        version = storage.resilience_save(key, b"{}", version, None, 5).version
    storage.close()
    assert version is not None
    return version.number


def found(disk: Disk, key: Key) -> int:
    """The number of the version that is there if the power fails now."""
    with tempfile.TemporaryDirectory(dir=disk.image.parent) as aside:
        Path(aside).chmod(0o755)
        with (
            without_power(disk.image, Path(aside)) as copy,
            PostgresServer(*OPTIONS, folder=copy / "server") as server,
        ):
            storage = PostgresStorage(server.admin_url)
            version = storage.resilience_load(key, 5).version
            storage.close()
    return 0 if version is None else version.number


def test_with_fsync_what_was_acknowledged_is_there(disk: Disk) -> None:
    durable, fast = Key("circuit_breaker", "durable"), Key("circuit_breaker", "fast")
    (disk.place / "server").mkdir()
    with PostgresServer(*OPTIONS, folder=disk.place / "server") as server:
        server.set_up()
        run("sync", "-f", disk.place)
        assert commit(server, durable, "fsync") == COMMITS
        assert found(disk, durable) == COMMITS
        assert commit(server, fast, "none") == COMMITS
        assert found(disk, fast) < COMMITS  # else nothing could be lost here
