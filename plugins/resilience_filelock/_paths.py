"""Where files are, how they are called, and whether the place can be trusted."""

from __future__ import annotations

import os
import stat
import sys

from resilience import ConfigurationError, Key, StorageCorrupt, StorageError, StorageIncompatible, StorageUnavailable
from resilience_filelock._record import UPDATE, Newer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MOUNTS: Final = "/proc/self/mountinfo"
SUFFIX: Final = ".state"
_SLUG_LENGTH: Final = 60
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_RESERVED: Final = frozenset(
    ["con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(10))]
)
_NETWORK: Final = frozenset(
    [
        *("nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "gpfs"),
        *("beegfs", "ncpfs", "coda", "davfs", "webdav"),
        *("9p", "v9fs", "virtiofs", "vboxsf", "vmhgfs", "prl_fs", "drvfs", "fuse"),  # another machine's, or a program
    ]
)


def folder_of(url: str) -> str:
    """Read the absolute folder that a `file:` URL names.

    :raises ConfigurationError: it names none; the message says how it should be written.
    """
    scheme, colon, rest = url.partition(":")
    if scheme.lower() != "file" or not colon:
        raise ConfigurationError(f"RESILIENCE_STORAGE: {url!r} is not a file URL; write file:///absolute/folder")
    for mark, part in (("?", "query"), ("#", "fragment")):
        if mark in rest:
            raise ConfigurationError(
                f"RESILIENCE_STORAGE: {url!r} has a {part}, which a file storage has no use for; write a {mark} in a "
                f"folder's name as %{ord(mark):02X}, and settings as variables (RESILIENCE_FILE__DURABILITY=fsync)"
            )
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise ConfigurationError(
                f"RESILIENCE_STORAGE: {url!r} names the host {host!r}, a file storage is on this machine; write "
                f"file:///{host}{slash}{path} with three slashes if it is a folder"
            )
        rest = slash + path
    path = _unquote(rest, url)
    if sys.platform == "win32":  # pragma: no cover - tested on Linux only
        path = path.lstrip("/").replace("/", "\\")
    if not os.path.isabs(path):
        raise ConfigurationError(f"RESILIENCE_STORAGE: {url!r} has no absolute path; write file:///absolute/folder")
    return os.path.normpath(path)


def _unquote(text: str, url: str) -> str:
    """Decode percent signs; `urllib.parse` would cost every start of a program several milliseconds."""
    if "%" not in text:
        result = text
    else:
        first, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
        try:
            decoded = first + b"".join(bytes.fromhex(part[:2].decode("ascii")) + part[2:] for part in rest)
        except ValueError:
            raise ConfigurationError(
                f"RESILIENCE_STORAGE: {url!r} has a % without two hexadecimal digits; write %25 for a %"
            ) from None
        result = os.fsdecode(decoded)
    if "\0" in result:
        raise ConfigurationError(f"RESILIENCE_STORAGE: {url!r} has a NUL character in its path")
    return result


def _digest(text: str) -> str:
    try:
        from _blake2 import blake2b  # the hash itself, without OpenSSL, which `hashlib` loads
    except ImportError:  # pragma: no cover - an interpreter that has it elsewhere
        from hashlib import blake2b
    return blake2b(text.encode(), digest_size=10).hexdigest()


def _slug(text: str) -> str:
    return "".join(letter if letter in _PLAIN else "-" for letter in text.lower()[:_SLUG_LENGTH]).strip("-")


def base_of(key: Key) -> str:
    """Make the path of a key's file inside the storage's folder, without `SUFFIX`.

    A folder for the kind, and in it what can be kept of the name and a hash of kind and name as they are: no two keys
    share a file, also where the file system ignores case or normalises letters.
    """
    kind, name = key
    slug = _slug(kind)
    folder = kind if slug == kind and kind not in _RESERVED else f"{slug}-{_digest(kind)}"
    return f"{folder}{os.sep}{_slug(name)}-{_digest(f'{kind}{chr(10)}{name}')}"


def key_of(path: str, fault: BaseException | None) -> Key | None:
    """Tell the key of a file that cannot be read by its path: of a name that stands there as it is, as the hash proves.

    `None`: it does not.  Then an error is logged, as nobody who lists all would hear of it else.

    :param fault: what stands in the way.
    """
    folder, file = os.path.split(path)
    kind, name = os.path.basename(folder), file.removesuffix(SUFFIX).rpartition("-")[0]
    try:
        key = Key(kind, name)
        if f"{base_of(key)}{SUFFIX}" == os.path.join(kind, file):
            return key
    except ValueError:
        pass
    import logging  # which a command needs for nothing else

    lost: StorageError
    if isinstance(fault, Newer):
        lost = StorageIncompatible(f"{path!r} {fault}; {UPDATE}")
    else:
        lost = StorageCorrupt(f"{path!r} cannot be read; restore it by moving a copy into place, or delete it")
    logging.getLogger("resilience").error("a record does not even tell its name", exc_info=lost)
    return None


def prepare(folder: str) -> None:
    """Make a folder (mode 0700, and its parents) or make sure that the one that is there can be trusted.

    Whoever can exchange our files can make a breaker say anything, so a folder is refused that is no folder, belongs
    to another user (root's is fine), is a symbolic link of another user, or can be written by everyone without the
    sticky bit.  A group's right to write is the administrator's own decision and is left to him.

    :raises StorageUnavailable: it cannot be made or not be trusted; the message says what to do.
    """
    try:
        try:
            link = os.lstat(folder)
        except FileNotFoundError:
            _make(folder)
            link = os.lstat(folder)
        status = os.stat(folder) if stat.S_ISLNK(link.st_mode) else link
    except OSError as error:
        from resilience_filelock._errors import fix_of_folder

        fix = "make it writable for this user, or choose another with RESILIENCE_STORAGE=file:///absolute/folder"
        raise StorageUnavailable(
            f"the state folder {folder!r} cannot be made or read: {error.strerror or error}; "
            f"{fix_of_folder(error, fix)}"
        ) from error
    if problem := distrust(link, status):
        raise StorageUnavailable(f"the state folder {folder!r} {problem}")


def distrust(link: os.stat_result, status: os.stat_result) -> str | None:
    """Why a folder cannot be trusted, and what to do about it; `link` is its `lstat`, `status` its `stat`."""
    if not stat.S_ISDIR(status.st_mode):
        return "is not a folder; remove what is there or choose another with RESILIENCE_STORAGE=file:///…"
    if sys.platform == "win32":  # pragma: no cover - there are no such owners and modes there
        return None
    trusted = (os.geteuid(), 0)
    if link.st_uid not in trusted:
        return f"is a symbolic link or folder of another user (uid {link.st_uid}); choose one that is your own"
    if status.st_uid not in trusted:
        return f"belongs to another user (uid {status.st_uid}); choose one that is your own, or run as that user"
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        return "can be written by every user; run chmod o-w on it, or choose a folder below it, which will be private"
    return None


def _make(folder: str) -> None:
    parent = os.path.dirname(folder)
    if parent != folder and not os.path.lexists(parent):
        _make(parent)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return  # another process was faster
    if os.lstat(folder).st_mode & stat.S_IRWXU != stat.S_IRWXU and sys.platform != "win32":
        os.chmod(folder, 0o700)  # a mask meant for files, such as 0177, took from us the right to enter


def file_system_of(folder: str) -> str | None:
    """Find the type of the file system that a folder is on, `None` where that cannot be told (only Linux tells)."""
    if folder.startswith("\\\\"):
        return "smbfs"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as table:
            lines = table.readlines()
    except OSError:
        return None
    path = os.path.realpath(folder)
    best, found = -1, None
    for line in lines:
        fields = line.split(" ")
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later line mounts over an earlier one
            best, found = len(point), fields[fields.index("-") + 1]
    return found


def is_network(file_system: str | None) -> bool:
    """Whether a type of file system is one that several machines, or a program of its own, may stand behind."""
    return file_system is not None and (file_system in _NETWORK or file_system.startswith("fuse."))


def is_on_network(folder: str, status: os.stat_result) -> bool:
    """Whether a folder is on such a file system; `status` is its `stat`.

    What has a device of its own is a disk of this machine: the number says so, and no table of mounts has to be read.
    """
    return not (hasattr(os, "major") and os.major(status.st_dev)) and is_network(file_system_of(folder))
