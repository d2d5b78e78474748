"""A real redis-server on a loopback port of its own, started and ended by the tests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

from redis import Redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 20.0
"""Seconds that no server takes to start or to end."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server; nothing it holds is written to disk.

    :param folder: its working directory.
    :param options: more of its command line; ``port`` is chosen if they name none.
    :param program: another program that is started alike, such as Valkey's.
    """

    def __init__(self, folder: Path, *options: str, port: int | None = None, program: str = "redis-server") -> None:
        self.folder = folder
        self.options = options
        self.program = program
        self.port = free_port() if port is None else port
        folder.mkdir(parents=True, exist_ok=True)
        self._process = self._start()

    @staticmethod
    def is_installed(program: str = "redis-server") -> bool:
        """Whether there is one to start."""
        return shutil.which(program) is not None

    @property
    def url(self) -> str:
        """How to reach it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def admin(self, **options: Any) -> Any:
        """Make a client for the tests' own use; redis-py's annotations are not complete."""
        return Redis(host="127.0.0.1", port=self.port, socket_timeout=PATIENCE, **options)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command += ["--dir", str(self.folder), "--logfile", str(self.folder / "log"), *self.options]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                process.wait()
                raise AssertionError(f"{self.program} did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.005)
        return process

    def _answers(self) -> bool:
        """Whether it speaks the protocol; an error is an answer too."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.sendall(b"PING\r\n")
                return bool(probe.recv(1))
        except OSError:
            return False

    # -- faults ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let it hang (SIGSTOP): the system goes on accepting connections for it."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; whatever it held is lost."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def start(self) -> None:
        """Start it again, on the same port, with nothing in it."""
        self._process = self._start()

    def clear(self) -> None:
        """Make it as if it were new: no records, no users, no settings of the last test."""
        if self._process.poll() is not None:
            self.start()
        self.go_on()
        with self.admin() as admin:
            try:
                admin.execute_command("CLIENT", "UNPAUSE")
                admin.execute_command("ACL", "LOAD")
            except RedisError:
                pass  # there is no file of users
            admin.config_set("maxmemory", 0)
            admin.config_resetstat()
            admin.flushall()

    # -- the end -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process.poll() is None:
            self.kill()
