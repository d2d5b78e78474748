"""What `resilience doctor` looks at: everything that the file storage leans on, tried out in its folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from mmap import ACCESS_READ, mmap

from resilience import ResilienceError
from resilience_filelock._errors import FULL
from resilience_filelock._folder import DAMAGED, TEMPORARY, list_keys
from resilience_filelock._lock import native
from resilience_filelock._paths import file_system_of, is_network, prepare
from resilience_filelock._record import HEAD, HEAD_END, HEAD_OFFSET
from resilience_filelock._system import OPEN_FLAGS, pwrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    Row = tuple[str, bool, str, str]
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

_ENOUGH: Final = 16 << 20
_TRY_LOCK: Final = """
import os, sys
from filelock import lock_descriptor
print(lock_descriptor(os.open(sys.argv[1], os.O_RDWR), blocking=False))
"""
_ROOM: Final = "make room: a new record needs 4 KiB"
_CHOOSE: Final = "choose another folder with RESILIENCE_STORAGE=file:///absolute/folder"


def examine(folder: str, *, mapped: bool, network_allowed: bool) -> list[Row]:
    """Try out everything in a folder; a check that fails does not stop the others, a missing folder does."""
    rows: list[Row] = []
    try:
        prepare(folder)
    except ResilienceError as error:
        return [("folder", False, str(error), _CHOOSE)]
    status = os.stat(folder)
    rows.append(("folder", True, f"{folder}, uid {status.st_uid}, mode {status.st_mode & 0o7777:04o}", ""))
    rows.append(_file_system(folder, allowed=network_allowed))
    free = shutil.disk_usage(folder).free
    fix = "" if free >= _ENOUGH else _ROOM
    rows.append(("free space", free >= _ENOUGH, f"{free >> 20} MiB", fix))
    probe = os.path.join(folder, f"doctor.{os.urandom(8).hex()}{TEMPORARY}")
    try:
        descriptor = os.open(probe, OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        rows.append(_unwritable(probe, error))
    else:
        try:
            rows.extend(_file(descriptor, probe, mapped=mapped))
        finally:
            os.close(descriptor)
            os.unlink(probe)
    rows.extend(_records(folder))
    return rows


def _file(descriptor: int, path: str, *, mapped: bool) -> Iterator[Row]:
    try:
        pwrite(descriptor, bytes(HEAD_END), 0)
    except OSError as error:
        yield _unwritable(path, error)
    else:
        yield ("write", True, "a file can be made and written", "")
        if mapped:
            yield _try("mapping", lambda: _mapping(descriptor), "set RESILIENCE_FILE__FRESHNESS=read")
    yield _try("lock", lambda: _lock(descriptor, path), _CHOOSE)


def _unwritable(path: str, error: OSError) -> Row:
    fix = _ROOM if error.errno in FULL else f"make the folder writable for this user, or {_CHOOSE}"
    return ("write", False, f"{path}: {error.strerror or error}", fix)


def _try(name: str, check: Callable[[], str | None], fix: str) -> Row:
    try:
        problem = check()
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    return (name, problem is None, problem or "works", "" if problem is None else fix)


def _file_system(folder: str, *, allowed: bool) -> Row:
    kind = file_system_of(folder)
    if not is_network(kind):
        return ("file system", True, kind or "of unknown type, taken as local", "")
    detail = f"{kind}, a network file system: nothing is mapped, each look opens the file"
    return ("file system", allowed, detail, "" if allowed else _CHOOSE)


def _mapping(descriptor: int) -> str | None:
    with mmap(descriptor, HEAD_END, access=ACCESS_READ) as mapping:
        for number in (1, 2):
            pwrite(descriptor, HEAD.pack(number), HEAD_OFFSET)
            if mapping[HEAD_OFFSET:HEAD_END] != HEAD.pack(number):
                return "what is written is not seen in mapped memory"
    return None


def _lock(descriptor: int, path: str) -> str | None:
    def elsewhere() -> str:
        command = [sys.executable, "-c", _TRY_LOCK, path]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()  # noqa: S603 - our own interpreter and text

    native.lock(descriptor, blocking=False)
    if elsewhere() != "False":
        return "two processes can hold one lock at a time"
    native.unlock(descriptor)
    if elsewhere() != "True":
        return "a lock that was given back stays held"
    return None


def _records(folder: str) -> Iterator[Row]:
    try:
        keys = list_keys(folder)
        names = [name for _, _, files in os.walk(folder) for name in files]
    except OSError as error:
        yield ("records", False, str(error), "make the folder and all in it readable for this user")
        return
    yield ("records", True, f"{len(keys)}", "")
    damaged = sum(DAMAGED in name for name in names)
    yield (
        "damaged records",
        not damaged,
        f"{damaged} set aside for inspection",
        "look at their last line for the reason, then delete them; restore one by moving a copy into place (mv), never "
        "by cp over a file in use: that kills processes which have it mapped"
        if damaged
        else "",
    )
