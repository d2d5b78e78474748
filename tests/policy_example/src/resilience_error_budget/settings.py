"""What can be set: `RESILIENCE_ERROR_BUDGET__FAILURES` and the others."""

from typing import Literal

from pydantic import Field

from resilience import Duration, PolicySettings


class ErrorBudgetSettings(PolicySettings):
    """How much may fail."""

    failures: int = Field(default=100, ge=1, le=1_000_000, description="So many failures are allowed in each period.")
    period: Duration = Field(default=86400, ge=1, description="Seconds after which the budget is whole again.")
    on_store_error: Literal["local", "allow", "deny", "raise"] = Field(
        default="local", description="What is decided while the storage does not answer."
    )
