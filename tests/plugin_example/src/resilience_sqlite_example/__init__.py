"""All breakers of a machine in one SQLite database: ``RESILIENCE_STORAGE=sqlite:///var/lib/app/breakers.db``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience_sqlite_example.settings import SQLiteSettings
    from resilience_sqlite_example.storage import SQLiteStorage

__all__ = ["SQLiteSettings", "SQLiteStorage"]

_HOME = {"SQLiteSettings": "settings", "SQLiteStorage": "storage"}


def __getattr__(name: str) -> object:
    """Import what is asked for: who only reads one row, see `reading`, pays neither for the rest nor for pydantic."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
