"""Resilience policies whose state is shared by every process.

    from resilience import CircuitBreaker

    payments = CircuitBreaker("payments", failure_threshold=3, reset_timeout=30)

    @payments
    def charge(order): ...

Names are imported when they are first used, so that `import resilience` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.clock import SystemClock
    from resilience.errors import (
        ConfigurationError,
        PluginError,
        PolicyRejected,
        ResilienceError,
        StorageConflict,
        StorageCorrupt,
        StorageError,
        StorageIncompatible,
        StorageLockTimeout,
        StorageUnavailable,
    )
    from resilience.events import Event, Transition
    from resilience.freshness import Freshness
    from resilience.guard import Guard
    from resilience.holding import HoldingStorage
    from resilience.markers import hookimpl
    from resilience.permits import Permit
    from resilience.runtime import Runtime
    from resilience.settings import Duration, ObserverSettings, PolicySettings, StorageSettings
    from resilience.storage import Capability, InnerStorage, Key, Snapshot, Version, Word
    from resilience_circuit_breaker import (
        CircuitBreaker,
        CircuitBreakerFamily,
        CircuitOpenError,
        CircuitState,
        CircuitStatus,
    )

__version__ = "0.1.0"

_HOME = {
    "Capability": "resilience.storage",
    "CircuitBreaker": "resilience_circuit_breaker",
    "CircuitBreakerFamily": "resilience_circuit_breaker",
    "CircuitOpenError": "resilience_circuit_breaker",
    "CircuitState": "resilience_circuit_breaker",
    "CircuitStatus": "resilience_circuit_breaker",
    "ConfigurationError": "resilience.errors",
    "Duration": "resilience.settings",
    "Event": "resilience.events",
    "Freshness": "resilience.freshness",
    "Guard": "resilience.guard",
    "HoldingStorage": "resilience.holding",
    "InnerStorage": "resilience.storage",
    "Key": "resilience.storage",
    "ObserverSettings": "resilience.settings",
    "Permit": "resilience.permits",
    "PluginError": "resilience.errors",
    "PolicyRejected": "resilience.errors",
    "PolicySettings": "resilience.settings",
    "ResilienceError": "resilience.errors",
    "Runtime": "resilience.runtime",
    "Snapshot": "resilience.storage",
    "StorageConflict": "resilience.errors",
    "StorageCorrupt": "resilience.errors",
    "StorageError": "resilience.errors",
    "StorageIncompatible": "resilience.errors",
    "StorageLockTimeout": "resilience.errors",
    "StorageSettings": "resilience.settings",
    "StorageUnavailable": "resilience.errors",
    "SystemClock": "resilience.clock",
    "Transition": "resilience.events",
    "Version": "resilience.storage",
    "Word": "resilience.storage",
    "hookimpl": "resilience.markers",
}

__all__ = [
    "Capability",
    "CircuitBreaker",
    "CircuitBreakerFamily",
    "CircuitOpenError",
    "CircuitState",
    "CircuitStatus",
    "ConfigurationError",
    "Duration",
    "Event",
    "Freshness",
    "Guard",
    "HoldingStorage",
    "InnerStorage",
    "Key",
    "ObserverSettings",
    "Permit",
    "PluginError",
    "PolicyRejected",
    "PolicySettings",
    "ResilienceError",
    "Runtime",
    "Snapshot",
    "StorageConflict",
    "StorageCorrupt",
    "StorageError",
    "StorageIncompatible",
    "StorageLockTimeout",
    "StorageSettings",
    "StorageUnavailable",
    "SystemClock",
    "Transition",
    "Version",
    "Word",
    "hookimpl",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'resilience' has no attribute {name!r}")
    import sys

    __import__(home)  # `importlib` takes longer to import than most of what stands here
    value = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
