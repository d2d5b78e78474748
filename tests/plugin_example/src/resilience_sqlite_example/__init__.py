"""All breakers of a machine in one SQLite database: ``RESILIENCE_STORAGE=sqlite:///var/lib/app/breakers.db``."""

from resilience_sqlite_example.settings import SQLiteSettings
from resilience_sqlite_example.storage import SQLiteStorage

__all__ = ["SQLiteSettings", "SQLiteStorage"]
