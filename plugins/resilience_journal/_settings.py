"""The settings of the journal: `RESILIENCE_JOURNAL__ENABLED` and the other."""

from __future__ import annotations

from pydantic import Field

from resilience.settings import ObserverSettings


class JournalSettings(ObserverSettings):
    """How the journal is kept."""

    enabled: bool = Field(
        default=True,
        description="Keep a journal of transitions and events beside the state, which `resilience events` reads.",
    )
    max_size: int = Field(
        default=1_048_576,
        ge=4096,
        le=1_073_741_824,
        description="Bytes that it may have; then it is renamed to events.jsonl.1, over the one before, and a new one "
        "begins.",
    )
