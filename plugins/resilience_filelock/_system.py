"""The calls to the operating system that differ between systems."""

from __future__ import annotations

import os
import sys
from errno import EIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["OPEN_FLAGS", "open_kept", "pread", "publish", "pwrite", "sync", "sync_folder", "write_all"]

OPEN_FLAGS: Final = (
    os.O_RDWR
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO in the file's place must not hold us
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NOINHERIT", 0)
)

if sys.platform == "win32":  # pragma: no cover - tested on Linux only
    from os import rename as publish  # never replaces there

    from resilience_filelock._windows import pread, pwrite, sync
elif sys.platform == "darwin":  # pragma: no cover - tested on Linux only
    from fcntl import F_FULLFSYNC, fcntl
    from os import link as publish
    from os import pread, pwrite

    def sync(descriptor: int) -> None:
        """Bring what was written to the disk itself: `fsync` stops at the disk's cache there."""
        fcntl(descriptor, F_FULLFSYNC)
else:
    from os import fdatasync as sync
    from os import link as publish  # unlike a rename it never replaces
    from os import pread, pwrite


_STANDARD_ERROR: Final = 2


def open_kept(path: str, flags: int, mode: int = 0o777) -> int:
    """Open a file that stays open, never as descriptor 0, 1 or 2.

    Where a program was started without its standard streams, the system gives their numbers to what is opened first,
    and whatever a library then writes to the standard error would stand in a record.

    :raises OSError: it cannot be opened.
    """
    descriptor = os.open(path, flags, mode)
    return descriptor if descriptor > _STANDARD_ERROR else _above_the_standard(descriptor)


def _above_the_standard(descriptor: int) -> int:
    """Give an open file another number, and what it had to something that nobody can write to.

    The numbers do not stay free: before 3.13 a mapping takes one as well.
    """
    low: list[int] = []
    try:
        while descriptor <= _STANDARD_ERROR:
            low.append(descriptor)
            descriptor = os.dup(descriptor)
        nothing, other = os.pipe()  # there may be no /dev/null here
    except OSError:
        for number in {*low, descriptor}:
            os.close(number)
        raise
    os.close(other)
    for number in low:
        os.dup2(nothing, number, inheritable=False)
    os.close(nothing)
    return descriptor


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data`, also where the system takes it piece by piece."""
    while data:
        written = pwrite(fd, data, offset)
        if not written:
            raise OSError(EIO, "nothing was written")
        data = data[written:]
        offset += written


def sync_folder(path: str) -> None:
    """Bring the names in a folder to the disk."""
    if sys.platform != "win32":  # pragma: no branch - folders cannot be opened there
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
