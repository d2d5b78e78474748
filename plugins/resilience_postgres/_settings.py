"""The settings of the PostgreSQL storage: `RESILIENCE_POSTGRES__TABLE` and the others, whatever the URL's scheme."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from resilience.settings import Duration, StorageSettings

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,27}\.[a-z_][a-z0-9_]{0,27}")


class PostgresSettings(StorageSettings):
    """How the storage treats its table and its server."""

    section: ClassVar[str | None] = "postgres"

    table: str = Field(
        default="resilience.records",
        description="Schema and table that the records are in, in lower-case letters, digits and underscores; "
        "`resilience storage init` makes both.",
    )
    durability: Literal["fsync", "none"] = Field(
        default="fsync",
        description="What a commit survives: `fsync`, the loss of power of the server (a commit then waits for its "
        "disk); `none`, the death of any process, while a crash of the server may lose the last half second.",
    )
    push: bool = Field(
        default=True,
        description="Let the server tell of others' commits at once, by LISTEN and NOTIFY: one connection and one "
        "thread more in a process that uses the storage again and again.  Off, records are trusted for "
        "RESILIENCE_MAX_STALENESS, which is 0 unless it is set.  A transaction pooler passes no notifications on; "
        "that is noticed, and then it is as if it were off.",
    )
    max_staleness: Duration = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds after which a record is no longer trusted when the server was not heard of, and so may "
        "have told of a commit in vain.",
    )
    connections: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Connections of one process at most, besides the one that listens; opened as they are needed, and "
        "closed when they were not for a minute.",
    )
    keep_damaged: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Damaged records that are kept for inspection, the latest ones of each key.",
    )

    @field_validator("table")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if not _TABLE.fullmatch(value):
            raise ValueError(
                "a table is schema.table, each in lower-case letters, digits and underscores, 28 at most, as in "
                "billing.records"
            )
        return value
