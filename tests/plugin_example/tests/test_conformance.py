"""The storage is put to the proof by the framework's conformance kit."""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from typing import TYPE_CHECKING

import pytest
from resilience_sqlite_example import SQLiteStorage

from resilience.testing import StorageConformance

if TYPE_CHECKING:
    from pathlib import Path

    from resilience import Key


class TestSQLite(StorageConformance):
    kit = "2"
    quick = os.environ.get("QUICK") == "1"

    @pytest.fixture
    def storage_factory(self, tmp_path: Path) -> partial[SQLiteStorage]:
        return partial(SQLiteStorage, f"sqlite://{tmp_path}/state/breakers.db")

    def damage(self, storage: SQLiteStorage, key: Key) -> None:
        connection = sqlite3.connect(storage.path)
        connection.execute("UPDATE records SET payload = 'damaged' WHERE kind = ? AND name = ?", key)
        connection.commit()
        connection.close()

    def unreachable(self) -> partial[SQLiteStorage]:
        return partial(SQLiteStorage, "sqlite:///dev/null/breakers.db")
