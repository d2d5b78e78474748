"""Positional reads and writes for Windows, which has none.  Written for it, tested nowhere yet."""

from __future__ import annotations

import os
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_SEEK: Final = RLock()
"""A descriptor has one position for all threads."""


def pread(descriptor: int, length: int, offset: int) -> bytes:
    """Read up to `length` bytes at `offset`."""
    with _SEEK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)


def pwrite(descriptor: int, data: bytes, offset: int) -> int:
    """Write at `offset`; how many bytes were taken."""
    with _SEEK:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


sync = os.fsync
