"""A TCP proxy that stands between a client and its server, and cuts, delays, hangs or refuses when it is told to.

It knows no protocol.  Faults concern what comes after them: connections that are there, and those to come.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_HARD = struct.pack("ii", 1, 0)
"""Close by a reset: nobody waits for an orderly end."""


class Proxy:
    """Passes on what comes to `port` to another port of this machine.

    :param target: the port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.connections = 0
        """So many were accepted."""
        self._delay = 0.0
        self._cut_after: bytes | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    # -- faults ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Cut all connections; new ones are accepted."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def cut_after(self, request: bytes) -> None:
        """Let the next request that contains these bytes reach the server, and cut when its answer comes.

        The server has done what was asked for; who asked does not learn of it.
        """
        self._cut_after = request

    def delay(self, seconds: float) -> None:
        """Let each answer wait so long; 0: no longer."""
        self._delay = seconds

    def hang(self) -> None:
        """Pass on nothing, in either direction; connections stay, and new ones are accepted."""
        self._flowing.clear()

    def refuse(self) -> None:
        """Cut all connections and refuse new ones."""
        # To be closed, a listener must be woken from `accept`.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def recover(self) -> None:
        """Be a proxy without a fault again, on the same port."""
        self._delay = 0.0
        self._cut_after = None
        self._flowing.set()
        if self._listener.fileno() < 0:
            self._listener = self._listen(self.port)

    # -- passing on --------------------------------------------------------------------------------------------------

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), name="proxy", daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            cut = threading.Event()
            for work in (self._requests, self._answers):
                threading.Thread(target=work, args=(client, server, cut), name="proxy", daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        while data := self._received(client):
            wanted = self._cut_after
            if wanted is not None and wanted in data:
                self._cut_after = None
                cut.set()
            if not _sent(server, data):
                break
        self._close(client, server)

    def _answers(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        pause = threading.Event()
        while data := self._received(server):
            if cut.is_set():
                break
            if self._delay:
                pause.wait(self._delay)
            if not _sent(client, data):
                break
        self._close(client, server)

    def _received(self, end: socket.socket) -> bytes:
        """Return what comes next, once it may flow; nothing at the end."""
        try:
            data = end.recv(1 << 16)
        except OSError:
            return b""
        self._flowing.wait()
        return data

    def _close(self, *ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        with self._lock:
            self._open.difference_update(ends)

    # -- the end -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.refuse()
        self._flowing.set()


def _sent(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
    except OSError:
        return False
    return True
