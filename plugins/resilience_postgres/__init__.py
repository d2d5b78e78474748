"""Storage in PostgreSQL, shared by every process of every machine: `postgresql://user@host/database`.

One row per record.  A commit is one statement, which compares the version and writes; a lock is not needed.  `_schema`
has the table and the procedure, `_freshness` and `_listener` how a process learns of others' commits, `_pool` and
`_connection` how it talks to the server within its time-out, from threads and from event loops.
"""

from __future__ import annotations

from resilience_postgres.storage import PostgresStorage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience_postgres._settings import PostgresSettings

__all__ = ["PostgresSettings", "PostgresStorage"]


def __getattr__(name: str) -> object:
    """Import the settings model, and pydantic with it, when it is first asked for."""
    if name == "PostgresSettings":
        from resilience_postgres._settings import PostgresSettings

        return PostgresSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
