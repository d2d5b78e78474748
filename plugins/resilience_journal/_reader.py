"""Reads the journal while others write it and rename it: what is there, then what comes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Self, cast

from resilience import StorageUnavailable
from resilience_journal import FILE, OLD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Line = dict[str, Any]

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_AT_ONCE = 65536
_LONGEST = 262_144
"""Bytes of a line; a longer one was not written by a journal."""


class Journal:
    """One reading of a journal, from its oldest line on.

    :param folder: where it stands; neither folder nor file need be there yet.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, FILE)
        self._old = os.path.join(folder, OLD)
        self._fd: int | None = None
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file."""
        self._close()

    def read(self) -> Iterator[Line]:
        """Yield the lines that were not read yet, across a renaming.

        :raises StorageUnavailable: the journal cannot be read.
        """
        for _ in range(3):  # a journal that is renamed more often than it is read has no end
            if self._fd is not None:
                yield from self._to_the_end()
            if self._fd is not None and _is(self._fd, self._path):
                return
            # Another file stands there, or none was opened: what is left of the old one, then all that came after it.
            seen = None
            if self._fd is not None:
                yield from self._to_the_end()
                seen = os.fstat(self._fd)
                self._close()
            following = _opened(self._path)  # before the old one: if it is renamed meanwhile, it is found there
            try:
                self._fd = _opened(self._old)
            except StorageUnavailable:
                if following is not None:
                    os.close(following)
                raise
            if self._fd is not None:
                its = os.fstat(self._fd)
                if not (seen is not None and os.path.samestat(its, seen)) and not (
                    following is not None and os.path.samestat(its, os.fstat(following))
                ):
                    yield from self._to_the_end()
                self._close()
            self._fd = following
            if following is None:
                return

    def follow(self, wait: Callable[[], object]) -> Iterator[Line | None]:
        """Yield the lines that there are and those that come, and `None` when there are no more for now.

        :param wait: called then; to wait longer than nothing is its part.
        """
        while True:
            yield from self.read()
            yield None
            wait()

    def _to_the_end(self) -> Iterator[Line]:
        assert self._fd is not None  # noqa: S101 - the caller looked; for the type checkers
        while data := os.read(self._fd, _AT_ONCE):
            *whole, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > _LONGEST:
                self._rest = b""
            for text in whole:
                line = _parsed(text)
                if line is not None:
                    yield line

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._rest = None, b""


def _opened(path: str) -> int | None:
    """Open a file; `None` if there is none.

    :raises StorageUnavailable: what stands there cannot be read.
    """
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageUnavailable(f"the journal {path!r} cannot be read: {error.strerror}") from error
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise StorageUnavailable(f"the journal {path!r} cannot be read: it is no regular file")


def _is(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return True  # nothing stands there: who renamed it makes a new one in a moment


def _parsed(text: bytes) -> Line | None:
    """Read a line; `None` if it is not whole, as the disk was full or the machine lost its power."""
    import json

    try:
        line: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("Line", line) if isinstance(line, dict) else None
