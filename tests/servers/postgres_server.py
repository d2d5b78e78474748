"""A real PostgreSQL on a loopback port of its own, started and ended by the tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psycopg

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 30.0
"""Seconds that no server takes to start or to end."""

PASSWORD = "hunter2"
"""Of the role `app`."""

ACCESS = """\
host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""

GRANTS = """\
GRANT USAGE ON SCHEMA resilience TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON resilience.records TO app;
GRANT EXECUTE ON PROCEDURE resilience.records_save TO app;
GRANT EXECUTE ON FUNCTION resilience.records_json TO app;
"""
"""Those of the documentation, to the letter."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def programs() -> Path | None:
    """The folder with the newest server that is installed; Debian keeps it off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int("0" + "".join(filter(str.isdigit, folder.parent.name))), default=None)


class PostgresServer:
    """A server; a folder that it was not given is removed in the end.

    :param options: settings of the server, such as ``fsync=on``.
    :param primary: the server that this one is a standby of; it begins as a copy of it.
    :param folder: where it keeps its data: an empty one, or that of a server whose machine is gone.
    """

    def __init__(self, *options: str, primary: PostgresServer | None = None, folder: Path | None = None) -> None:
        where = programs()
        assert where is not None
        self._programs = where
        self._options = options
        self.port = free_port()
        # The server refuses to run as root, and whom it runs as must be able to reach its folder.
        self._user: dict[str, Any] = {}
        self._home = tempfile.TemporaryDirectory(prefix="resilience-postgres-", ignore_cleanup_errors=True)
        self.folder = folder or Path(self._home.name)
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        data = str(self.folder / "data")
        if (self.folder / "data").exists():
            (self.folder / "data" / "postmaster.pid").unlink()  # a process of that machine
        elif primary is None:
            language = ("-E", "UTF8", "--locale=C.UTF-8")
            self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", *language)
            (self.folder / "data" / "pg_hba.conf").write_text(ACCESS)
        else:  # with the file that says so, and the address
            self._run("pg_basebackup", "-D", data, "-d", primary.admin_url, "-R", "-c", "fast", "--no-sync")
        self._process = self._start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **self._user)
        assert done.returncode == 0, done.stderr

    def _start(self) -> subprocess.Popen[bytes]:
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "autovacuum=off",
            "shared_preload_libraries=pg_stat_statements",
            "log_min_messages=panic",
            *self._options,
        ]
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        command += [word for setting in settings for word in ("-c", setting)]
        log = (self.folder / "log").open("wb")
        with log:
            process: subprocess.Popen[bytes] = subprocess.Popen(  # pyright: ignore[reportAssignmentType] - `user` is any
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **self._user
            )
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                raise AssertionError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return process

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.admin_url, connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    # -- reaching it ---------------------------------------------------------------------------------------------------

    @property
    def admin_url(self) -> str:
        """How an administrator reaches it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def url(self, port: int | None = None, user: str = f"app:{PASSWORD}") -> str:
        """How an application reaches it, through another port if there is one."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/postgres"

    def ask(self, statement: str, *values: object) -> Sequence[tuple[Any, ...]]:
        """Run something as an administrator; the rows that came of it."""
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def set_up(self) -> None:
        """Make the table, and a role that may do what the documentation grants it, and nothing else."""
        from resilience_postgres import PostgresStorage

        storage = PostgresStorage(self.admin_url)
        storage.prepare(dry=False)
        storage.close()
        self.ask("CREATE EXTENSION pg_stat_statements")
        self.ask(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
        self.ask("REVOKE ALL ON ALL ROUTINES IN SCHEMA resilience FROM PUBLIC")
        self.ask(GRANTS)

    # -- faults --------------------------------------------------------------------------------------------------------

    def _all(self) -> list[int]:
        """The server's processes: it gives each a session of its own."""
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    def stop(self) -> None:
        """Let it hang: the system goes on accepting connections for it."""
        for pid in self._all():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        for pid in reversed(self._all()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.go_on()
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(PATIENCE)

    def start(self) -> None:
        """Start it again, on the same port, with what was committed."""
        self._process = self._start()

    def promote(self) -> None:
        """Let a standby be a primary."""
        assert self.ask("SELECT pg_promote()") == [(True,)]

    def terminate(self, kind: str = "%") -> int:
        """End the sessions of the applications, as an administrator can; how many there were."""
        return len(
            self.ask(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE usename = 'app' AND pid <> pg_backend_pid() AND query LIKE %s",
                kind,
            )
        )

    def clear(self) -> None:
        """Make it as if it were new."""
        if self._process.poll() is not None:
            self.start()
        self.go_on()
        self.ask("TRUNCATE resilience.records")
        self.ask("SELECT pg_stat_statements_reset()")

    # -- the end -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._home.cleanup()
