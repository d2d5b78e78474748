"""One look at one row, for `resilience check`: without what only a second look or a commit needs.

Half of the time that `check` takes with this storage is the import of SQLite itself.
"""

from __future__ import annotations

import os
import sqlite3

from resilience_sqlite_example.rows import path_of, row_of, snapshot_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience import Key, Snapshot


class SQLiteReader:
    """Reads what a `SQLiteStorage` of the same URL would; if anything is wrong, the storage is asked, and says it."""

    plain_settings = True  # it needs none of them

    def __init__(self, url: str, settings: object = None) -> None:
        self._path = path_of(url)

    def resilience_load(self, key: Key, timeout: float) -> Snapshot:
        """Read a row."""
        os.stat(self._path)  # noqa: PTH116 - SQLite would make the file; `pathlib` takes as long to import as SQLite
        connection = sqlite3.connect(self._path, timeout=0)
        try:
            return snapshot_of(key, row_of(connection, key))
        finally:
            connection.close()
