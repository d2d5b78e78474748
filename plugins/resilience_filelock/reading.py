"""Records as they lie there, one look each: for who asks once and ends, and for who looks at all of them.

No file stays open, none is mapped, made or locked; nothing is got ready for a second look.
"""

from __future__ import annotations

import os
import stat

from resilience import Key, Snapshot, Version
from resilience_filelock._paths import SUFFIX, base_of, distrust, folder_of, is_on_network, key_of
from resilience_filelock._record import (
    HEAD,
    HEAD_OFFSET,
    RETIRED,
    Damaged,
    Newer,
    decode_header,
    decode_slot,
    number_of,
)
from resilience_filelock._system import OPEN_FLAGS, pread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

__all__ = ["FileReader", "Unclear"]

_ONLY_READ: Final = OPEN_FLAGS & ~os.O_RDWR
_MOST: Final = 12288 - HEAD_OFFSET
"""Bytes that are read: all of a file that has not grown, whatever its name."""
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_NOTHING: Final = Snapshot(None, None)


class Unclear(Exception):
    """One look is not enough: the storage itself has to see to it, which makes, waits, mends, or says what is wrong."""


class FileReader:
    """Reads what a `FileStorage` of the same URL would, where that takes no more than a look."""

    plain_settings = True  # it needs none of them

    def __init__(self, url: str, settings: object = None) -> None:  # noqa: ARG002 - as a storage is made
        self._folder = folder_of(url)

    def resilience_load(self, key: Key, timeout: float) -> Snapshot:  # noqa: ARG002 - the hook's
        """Read one record.

        :raises Unclear: see there.
        :raises OSError: the file is not there, or cannot be opened as the storage would.
        """
        path = f"{self._folder}{os.sep}{base_of(key)}{SUFFIX}"
        self._examine(os.path.dirname(path))
        descriptor = os.open(path, OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise Unclear
            found, snapshot = _read(pread(descriptor, _MOST, HEAD_OFFSET))
        finally:
            os.close(descriptor)
        if found != key or snapshot is None:
            raise Unclear
        return snapshot

    def records(self, kind: str) -> Iterator[tuple[Key, Snapshot | None]]:
        """Read all records of a kind, in no order; `None` for one that is unclear.

        Files that tell no key, neither within nor by their name, or are another user's, are passed over, as by
        `resilience_keys`.

        :raises Unclear: the folders are not there, or not to be trusted.
        :raises OSError: they cannot be read, or a file in them.
        """
        folder = f"{self._folder}{os.sep}{os.path.dirname(base_of(Key(kind, 'any')))}"
        status = self._examine(folder)
        user = os.geteuid() if status.st_mode & _OTHERS_WRITE else None  # else nobody else can put a file here
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.endswith(SUFFIX) or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    descriptor = os.open(entry.path, _ONLY_READ)
                except OSError as error:
                    from resilience_filelock._errors import NOT_OURS

                    if error.errno in NOT_OURS:
                        continue
                    raise
                try:
                    if user is not None and os.fstat(descriptor).st_uid != user:
                        continue
                    key, snapshot = _read(pread(descriptor, _MOST, HEAD_OFFSET))
                except Unclear as unclear:
                    named = key_of(entry.path, unclear.__cause__)
                    if named is None:
                        continue
                    key, snapshot = named, None
                finally:
                    os.close(descriptor)
                if key[0] == kind and snapshot is not _NOTHING:
                    yield key, snapshot

    def _examine(self, folder: str) -> os.stat_result:
        """Make sure that the folders can be trusted; return the `lstat` of the one that has the files."""
        for each in (self._folder, folder):
            status = os.lstat(each)
            if distrust(status, status) is not None or is_on_network(each, status):
                raise Unclear
        return status


def _read(data: bytes) -> tuple[Key, Snapshot | None]:
    """Read the bytes of a file from its head on; the snapshot is `None` if that takes more.

    They were copied from the front to the end while others may have been writing.  What stands in the slot that the
    head names was committed when the head was read, if it has that number: for another to stand there the head would
    have to have moved on twice.
    """
    try:
        layout, parts = decode_header(data)
        key = Key(*parts)
    except (Damaged, Newer, ValueError) as fault:
        raise Unclear from fault
    if len(data) < layout.size - HEAD_OFFSET:
        return key, None
    (word,) = HEAD.unpack_from(data)
    number = number_of(word)
    if number == 0 and not word & RETIRED:
        return key, _NOTHING
    if number and not word & RETIRED:
        begin = layout.slots[number & 1] - HEAD_OFFSET
        slot = decode_slot(data[begin : begin + layout.slot])
        if slot is not None and slot[0] == number:
            return key, Snapshot(slot[3], Version(slot[1], number))
    return key, None
