"""Storage in files, shared by every process of a machine: `file:///var/lib/app/resilience`.

The default storage: no server, nothing to start.  One small file per record, written in place so that a crash at any
instruction leaves the old record or the new one; `_record` has the layout, `_file` the order of the writes, `_lock`
the waiting.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience_filelock._settings import FileSettings
    from resilience_filelock.reading import FileReader
    from resilience_filelock.storage import FileStorage

__all__ = ["FileReader", "FileSettings", "FileStorage"]

_HOME = {"FileReader": "reading", "FileSettings": "_settings", "FileStorage": "storage"}


def __getattr__(name: str) -> object:
    """Import what is asked for and what it needs: who only reads does without the rest, and most without pydantic."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys

    module = f"{__name__}.{home}"
    __import__(module)
    value = getattr(sys.modules[module], name)
    globals()[name] = value
    return value
