"""So many failures are allowed in each period, over all processes."""

from resilience_error_budget.guard import BudgetStatus, ErrorBudget
from resilience_error_budget.policy import BudgetSpentError, ErrorBudgetPolicy
from resilience_error_budget.settings import ErrorBudgetSettings

__all__ = ["BudgetSpentError", "BudgetStatus", "ErrorBudget", "ErrorBudgetPolicy", "ErrorBudgetSettings"]
