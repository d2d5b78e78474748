"""What a function does to files and to the network, as far as the interpreter tells of it (audit events).

A library in C that opens a connection by itself is not seen; what is seen was done.
"""

from __future__ import annotations

import os
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TOLD = {
    "os.mkdir": "makes the directory",
    "os.rename": "renames",
    "os.remove": "removes",
    "socket.bind": "binds a socket to",
    "socket.connect": "connects a socket to",
    "socket.getaddrinfo": "looks up",
    "sqlite3.connect": "opens the database",
    "subprocess.Popen": "starts",
}
"""Events, and how they are said."""

_noted: dict[int, list[str]] = {}
"""What was noted of each thread that is watched."""
_is_hooked: list[bool] = []


def done_by(function: Callable[[], object]) -> list[str]:
    """Call a function, and return in words what it did, in this thread, that changes a file or leaves the process.

    The first call leaves a hook in this process, which cannot be taken away again.
    """
    if not _is_hooked:
        sys.addaudithook(_note)
        _is_hooked.append(True)
    thread = threading.get_ident()
    noted = _noted[thread] = []
    try:
        function()
    finally:
        del _noted[thread]
    return noted


def _note(event: str, arguments: tuple[Any, ...]) -> None:  # pragma: no cover - nothing traces an audit hook
    if not _noted or (noted := _noted.get(threading.get_ident())) is None:
        return
    if event == "open":
        about, _, flags = arguments
        if not flags & _TO_WRITE or isinstance(about, int):  # the latter: it is open
            return
        noted.append(f"opens {_plain(about)} for writing")
    elif event in _TOLD:
        about = arguments[event in {"socket.bind", "socket.connect"}]
        noted.append(f"{_TOLD[event]} {_plain(about)}")


def _plain(about: object) -> str:  # pragma: no cover - likewise
    return repr(os.fspath(about) if isinstance(about, os.PathLike) else about)  # pyright: ignore[reportUnknownArgumentType] - of anything
