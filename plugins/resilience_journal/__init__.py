"""Observer that keeps a journal: each transition and each event, as a line of JSON, beside the state.

``events.jsonl`` stands in the folder of a storage that has one (the file storage), else in ``resilience`` below the
state home of the user.  A storage that holds its state in one process has no journal: nothing of it outlives that.

Many processes append to one file: each line is one `write` at the end, opened for it and closed again, so nothing has
to be kept over a fork.  When the file has grown too big, one of them renames it to ``events.jsonl.1``, over the one
before.  What cannot be written is given up, as a journal is no reason to disturb a call.
"""

from __future__ import annotations

import os
import stat
from math import isfinite

from resilience import Capability, hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from resilience import Event, Key, Runtime, Transition
    from resilience.cli.verbs import Verb
    from resilience_journal._settings import JournalSettings

__all__ = ["FILE", "OLD", "JournalObserver", "JournalSettings", "folder_of"]

FILE = "events.jsonl"
"""Name of the journal."""
OLD = "events.jsonl.1"
"""Name of what was the journal before."""

_LONGEST = 1000
"""Characters of a text."""
_MOST_FIELDS = 50
_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


def folder_of(runtime: Runtime) -> str | None:
    """Return the folder of the journal; `None` if the storage of a runtime has none.

    :raises ResilienceError: the storage cannot be opened.
    """
    storage = runtime.opened.storage
    folder = getattr(storage, "folder", None)
    if isinstance(folder, str):
        return folder
    if not {Capability.PROCESSES, Capability.MACHINES} & set(getattr(storage, "capabilities", ())):
        return None
    return str(runtime.state_home / "resilience")


class _SettingsClass:
    """`JournalObserver.Settings`, imported when it is asked for: pydantic takes longer than everything else here."""

    def __get__(self, instance: object, owner: type) -> type[JournalSettings]:
        from resilience_journal._settings import JournalSettings

        return JournalSettings


class JournalObserver:
    """Appends what it is told to the journal; never raises because of the disk.

    Each line has ``time``, ``event`` (``transition`` for a change of state), ``kind`` and ``name`` (`None`: the whole
    storage), ``pid``, and in ``data`` what else the transition or the event says.

    :param runtime: whose storage says where the journal is.
    :param settings: `JournalSettings`, or anything with their attributes.
    """

    Settings = _SettingsClass()
    plain_settings = True  # anything with the attributes of `JournalSettings` will do, see `resilience.plan`

    def __init__(self, runtime: Runtime, settings: JournalSettings) -> None:
        self._runtime = runtime
        self._enabled = settings.enabled
        self._max_size = settings.max_size
        self._path: str | None = None

    @staticmethod
    def verbs() -> Sequence[Verb]:
        """Load the verb that reads the journal."""
        from resilience_journal.verbs import VERBS

        return VERBS

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        """Write down a change of state."""
        if self._enabled:
            version = transition.version
            data = {
                "old": transition.old,
                "new": transition.new,
                "reason": transition.reason,
                "version": None if version is None else version.number,
                "epoch": transition.epoch,
            }
            self._write("transition", transition.key, transition.time, data)

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        """Write down anything else."""
        if self._enabled:
            self._write(event.name, event.key, event.time, event.data)

    def _write(self, name: str, key: Key | None, time: float, data: Mapping[str, object]) -> None:
        path = self._path or self._find()
        if not path:
            return
        line = {
            "time": _plain(time),
            "event": _plain(name),
            "kind": None if key is None else key.kind,
            "name": None if key is None else key.name,
            "pid": os.getpid(),
            "data": {str(field)[:_LONGEST]: _plain(value) for field, value in [*data.items()][:_MOST_FIELDS]},
        }
        try:
            from resilience.jsontext import dumps

            append(path, f"{dumps(line)}\n".encode("ascii"), self._max_size)
        except (OSError, ImportError):
            pass  # the disk is full, or descriptors have run out: whoever needs to know is told by the storage

    def _find(self) -> str:
        """Find out where the journal is, once; nowhere is ``""``."""
        folder = folder_of(self._runtime)
        if folder is None:
            self._enabled = False
            return ""
        self._path = path = os.path.join(folder, FILE)
        if getattr(self._runtime.opened.storage, "folder", None) is None:
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError:
                pass  # then nothing can be written
        return path


def append(path: str, line: bytes, max_size: int) -> None:
    """Append a line; if the file has grown too big, begin a new one and keep the old one.

    :raises OSError: that cannot be done.
    """
    for _ in range(3):  # others may begin a new one at the same time
        fd = os.open(path, _FLAGS, 0o600)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not _is_ours(status):
                return  # whatever it is, it is not the journal
            if status.st_size and status.st_size + len(line) > max_size and _turn(fd, path):
                continue
            os.write(fd, line)
        finally:
            os.close(fd)
        return


def _is_ours(status: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or status.st_uid == os.geteuid()


def _turn(fd: int, path: str) -> bool:
    """Rename the full file, if nobody else has; true if the path has to be opened again.

    The lock is on the file that is renamed: of all who found it full one gets it, the others see another file there.
    """
    from filelock import lock_descriptor

    try:
        if not lock_descriptor(fd, blocking=False):
            return False  # somebody is renaming it: the line goes to the end of the old one
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            os.replace(path, os.path.join(os.path.dirname(path), OLD))
    except FileNotFoundError:
        pass  # somebody has just renamed it
    return True  # closing the descriptor frees the lock


def _plain(value: object) -> object:
    """Return a value as JSON has it, of bearable length, without the secrets of a URL that is quoted in it."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and isfinite(value)):
        return value
    text = str(value)[:_LONGEST]
    if "://" in text:
        from resilience.settings import redact  # with pydantic, which is there already where such a URL is used

        return redact(text)
    return text


def __getattr__(name: str) -> object:
    """Import the settings model, and pydantic with it, when it is first asked for."""
    if name == "JournalSettings":
        from resilience_journal._settings import JournalSettings

        return JournalSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
