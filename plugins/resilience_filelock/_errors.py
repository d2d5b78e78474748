"""From the operating system's errors to the framework's, once, at the edge."""

from __future__ import annotations

import errno
import os

from resilience import StorageUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience import Key

_ONE_FILE: Final = frozenset([errno.ELOOP, errno.EMLINK, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.ETXTBSY])
FULL: Final = frozenset([errno.ENOSPC, errno.EDQUOT])
_DENIED: Final = frozenset([errno.EACCES, errno.EPERM])
_HINTS: Final = {
    errno.ELOOP: "a symbolic link stands where the file should be; remove it",
    errno.EMLINK: "a symbolic link stands where the file should be; remove it",
    errno.EISDIR: "a folder stands where the file should be; remove it",
    errno.ENXIO: "something that is no regular file stands where the file should be; remove it",
    errno.EACCES: "make it readable and writable for this user, or choose another folder with RESILIENCE_STORAGE",
    errno.EPERM: "the file system does not permit it (it must know hard links); choose another with RESILIENCE_STORAGE",
    errno.EROFS: "mount the file system writable, or choose another folder with RESILIENCE_STORAGE",
    errno.ENOSPC: "make room on the file system",
    errno.EDQUOT: "make room in this user's quota",
    errno.EFBIG: "allow this process bigger files (ulimit -f)",
    errno.EMFILE: "allow this process more open files (ulimit -n)",
    errno.ENFILE: "allow the system more open files",
    errno.ENOLCK: "the file system has no locks; choose another folder with RESILIENCE_STORAGE",
    errno.ENOSYS: "the system has no file locks; choose another storage with RESILIENCE_STORAGE",
}
_NO_FOLDER: Final = (
    "what stands there, or in the path to it, is not a folder; remove it or choose another with "
    "RESILIENCE_STORAGE=file:///absolute/folder"
)
NOT_OURS: Final = _ONE_FILE | _DENIED | {errno.ENOENT}
"""What opening a file fails with that is no record of ours, or no longer: to list records passes it over."""
NOT_THERE: Final = (FileNotFoundError, NotADirectoryError)


def fix_of_folder(error: OSError, otherwise: str) -> str:
    """Say what to do where a folder cannot be used."""
    return _NO_FOLDER if isinstance(error, NotADirectoryError) else otherwise


def unavailable(error: OSError, doing: str, path: str, key: Key, *, unknown: bool = False) -> StorageUnavailable:
    """Make the error that a hook raises of an operating system's.

    It carries the key if only that key's file is concerned, so that the others are still asked for; `unknown`: the
    commit may have happened.
    """
    one = (
        error.errno in _ONE_FILE
        or (error.errno in _DENIED and os.access(os.path.dirname(path), os.R_OK | os.W_OK | os.X_OK))
        # Files that are there are written in place: on a full disk they go on.
        or (error.errno in FULL and not os.path.lexists(path))
    )
    hint = _HINTS.get(error.errno or 0)
    place = path if one else os.path.dirname(path)
    text = f"{doing} {key} in {place!r}: {error.strerror or error}" + (f"; {hint}" if hint else "")
    result = StorageUnavailable(text, key=key if one else None, outcome_unknown=unknown)
    result.__cause__ = error
    return result
