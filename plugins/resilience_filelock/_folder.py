"""What stands in the folder beside the file that is asked for: the other records, leftovers, what was set aside.

Nothing here is on the road of a call; files are opened one by one and closed at once.
"""

from __future__ import annotations

import os
import stat
from itertools import islice

from resilience import Key, clock
from resilience_filelock._errors import NOT_OURS
from resilience_filelock._lock import native
from resilience_filelock._paths import SUFFIX, key_of
from resilience_filelock._record import (
    HEAD,
    HEAD_OFFSET,
    MAX_HEADER,
    RETIRED,
    Damaged,
    Newer,
    decode_header,
    decode_slot,
    number_of,
)
from resilience_filelock._system import OPEN_FLAGS, pread, pwrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TEMPORARY: Final = ".new"
"""Files in the making; one that is older than `_MAKING` seconds was left behind by a process that was killed."""
DAMAGED: Final = ".damaged-"
MOST_DAMAGED: Final = 8
"""Damaged files of one key that are kept for inspection."""
_MAKING: Final = 60.0
_UNUSED: Final = 3600.0
"""Seconds after which a file that never held a record is dropped."""
_NEIGHBOURS: Final = 16
_UNKNOWN: Final = 1
"""Stands for a head that cannot be read: there was something."""


def list_keys(folder: str) -> list[Key]:
    """List the keys of all records below a folder, of those that are damaged as well.

    :raises OSError: the folder is there and cannot be read, or a file in it.
    """
    keys: list[Key] = []
    try:
        kinds = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return keys
    for kind in kinds:
        for name in sorted(os.listdir(kind)):
            found = _peek(os.path.join(kind, name)) if name.endswith(SUFFIX) else None
            if found is not None and found[1] & ~RETIRED:
                keys.append(found[0])
    return keys


def _peek(path: str) -> tuple[Key, int] | None:
    """Key and head of a file, of a damaged one what its name says; `None` if that tells no key, or it is not ours.

    :raises OSError: that cannot be told now, and who asks for all would miss one.
    """
    try:
        descriptor = os.open(path, OPEN_FLAGS & ~os.O_RDWR)
    except OSError as error:
        if error.errno in NOT_OURS:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = pread(descriptor, MAX_HEADER, HEAD_OFFSET)
        _, (kind, name) = decode_header(data)
        return Key(kind, name), HEAD.unpack_from(data)[0]
    except (ValueError, Damaged, Newer) as fault:
        key = key_of(path, fault)
        return None if key is None else (key, _UNKNOWN)
    finally:
        os.close(descriptor)


def sweep(folder: str, draw: int) -> None:
    """Look at a few files of a kind's folder, and drop what means nothing any more; never waits, never raises.

    `draw`: random bits, which say where to look.  Called when a file was made, so that there are never many more files
    than live records: what killed processes left half made, records that have expired, files that nobody ever wrote a
    record into.
    """
    # Half of the times the first few, a quarter of the times some of the twice as many that follow, and so forth: all
    # are looked at in time, while making a file costs much the same however many there are.
    level = draw & -draw or 1
    skipped = _NEIGHBOURS * (level - 1 + draw // (2 * level) % level)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, skipped, skipped + _NEIGHBOURS)]
    except OSError:
        return  # whoever uses the folder next will tell
    now = clock.wall()
    for name in names:
        path = os.path.join(folder, name)
        try:
            if name.endswith(TEMPORARY):
                if now - os.lstat(path).st_mtime > _MAKING:
                    os.unlink(path)
            elif name.endswith(SUFFIX):
                _drop_if_dead(path, now)
        except OSError:
            continue  # somebody else swept it, or it is no file


def _drop_if_dead(path: str, now: float) -> None:
    descriptor = os.open(path, OPEN_FLAGS)
    try:
        if not _is_dead(descriptor, now) or not native.lock(descriptor, blocking=False):
            return
        try:
            # Looked at again: it may have been committed to, or replaced, until the lock was there.
            if _is_dead(descriptor, now) and os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                (word,) = HEAD.unpack(pread(descriptor, HEAD.size, HEAD_OFFSET))
                pwrite(descriptor, HEAD.pack(word | RETIRED), HEAD_OFFSET)
                os.unlink(path)
        finally:
            native.unlock(descriptor)  # closing alone would leave it to a child that was forked meanwhile
    finally:
        os.close(descriptor)


def _is_dead(descriptor: int, now: float) -> bool:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return False
    data = pread(descriptor, MAX_HEADER, HEAD_OFFSET)
    try:
        layout, _ = decode_header(data)
    except (Damaged, Newer):
        return False
    (word,) = HEAD.unpack_from(data)
    number = number_of(word)
    if number is None:
        return False
    if number == 0:
        return now - status.st_mtime > _UNUSED
    slot = decode_slot(pread(descriptor, layout.slot, layout.header + (number & 1) * layout.slot))
    return slot is not None and slot[0] == number and slot[2] < now


def keep_copy(path: str) -> str:
    """Give a damaged file a second name, under which it stays for inspection; returns that name.

    :raises OSError: it cannot be had.
    """
    kept = _set_aside(path)
    number = _turn(kept[-1]) + 1 if kept else 0
    name = f"{path}{DAMAGED}{clock.wall():.0f}-{number}"
    os.link(path, name)  # with the lock held, so nobody else takes this number
    return name


def annotate(path: str, kept: str, reason: str) -> None:
    """Write at the end of what was set aside why it was, and drop the oldest that are too many for one key."""
    try:
        with open(kept, "ab") as file:
            file.write(f"\nset aside: {reason[:1000]}\n".encode("utf-8", "backslashreplace"))
        for other in _set_aside(path)[:-MOST_DAMAGED]:
            os.unlink(os.path.join(os.path.dirname(path), other))
    except OSError:
        pass  # the record is set aside, which is what matters


def _set_aside(path: str) -> list[str]:
    """Names of what was set aside of a file, the oldest first."""
    folder, name = os.path.split(path)
    return sorted((other for other in os.listdir(folder) if other.startswith(name + DAMAGED)), key=_turn)


def _turn(name: str) -> int:
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1  # not named by us
