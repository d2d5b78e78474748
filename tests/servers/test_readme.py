"""The twelve lines of the README do on each storage what the README says that they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servers.postgres_server import PostgresServer
    from servers.redis_server import RedisServer

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def twelve_lines(url: str) -> None:
    """Run them twice: what a process did, the next one finds."""
    lines, printed = re.findall(r"## Twelve lines\n+```python\n(.*?)```\n```text\n(.*?)```", README, re.DOTALL)[0]
    environ = {**os.environ, "RESILIENCE_STORAGE": url, "RESILIENCE_STORAGE_TIMEOUT": "5"}
    for expected in (printed, "CircuitOpenError"):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", lines],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        found = re.sub(r"try again in \d+ s", "try again in 30 s", done.stdout)
        assert found == expected or (expected in found and "ConnectionError: the" not in found)


def test_on_files(tmp_path: Path) -> None:
    twelve_lines((tmp_path / "breakers").as_uri())


def test_on_redis(redis_server: RedisServer) -> None:
    twelve_lines(redis_server.url)


def test_on_postgresql(postgres_server: PostgresServer) -> None:
    twelve_lines(postgres_server.url())
