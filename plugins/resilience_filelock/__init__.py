"""Storage in files, shared by every process of a machine: `file:///var/lib/app/resilience`.

The default storage: no server, nothing to start.  One small file per record, written in place so that a crash at any
instruction leaves the old record or the new one; `_record` has the layout, `_file` the order of the writes, `_lock`
the waiting.
"""

from __future__ import annotations

from resilience_filelock.storage import FileStorage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience_filelock._settings import FileSettings

__all__ = ["FileSettings", "FileStorage"]


def __getattr__(name: str) -> object:
    """Import the settings model, and pydantic with it, when it is first asked for."""
    if name == "FileSettings":
        from resilience_filelock._settings import FileSettings

        return FileSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
