"""The settings: ``RESILIENCE_SQLITE__SYNCHRONOUS`` and ``RESILIENCE_SQLITE__KEEP_DAMAGED``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resilience import StorageSettings


class SQLiteSettings(StorageSettings):
    """How the database is written."""

    synchronous: Literal["normal", "full"] = Field(
        default="normal",
        description="What a commit survives: `normal`, the death of any process; `full`, also the loss of power.",
    )
    keep_damaged: int = Field(
        default=10, ge=0, le=10_000, description="Damaged records that are kept for inspection, the latest ones."
    )
