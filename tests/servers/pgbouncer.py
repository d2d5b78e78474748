"""A real pgbouncer before a real PostgreSQL, which gives a server to each transaction."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from servers.postgres_server import PASSWORD, PATIENCE, free_port

if TYPE_CHECKING:
    from servers.postgres_server import PostgresServer

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class Pgbouncer:
    """A transaction pooler with two servers for all its clients."""

    def __init__(self, server: PostgresServer) -> None:
        assert PROGRAM is not None
        self.port = free_port()
        self._home = tempfile.TemporaryDirectory(prefix="resilience-pgbouncer-", ignore_cleanup_errors=True)
        folder = Path(self._home.name)
        (folder / "users").write_text(f'"app" "{PASSWORD}"\n')
        (folder / "ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
            f"auth_file = {folder / 'users'}\npool_mode = transaction\ndefault_pool_size = 2\n"
        )
        user: dict[str, Any] = {}
        if os.getuid() == 0:  # it refuses to run as root
            owner = pwd.getpwnam("postgres")
            for path in (folder, *folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, str(folder / "ini")], stdout=log, stderr=log, cwd="/", **user)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self._process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end
                time.sleep(0.01)
            else:
                break

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._home.cleanup()
