"""The circuit breaker: the first policy of `resilience`, and the pattern for the others.

`_state` is the pure state machine, `_window` how it counts, `_codec` its record, `_settings` its configuration,
`policy` what the engine sees, `breaker` what users hold, `family` breakers by key, `session` a thin form of it for
agents.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience_circuit_breaker._errors import CircuitOpenError
    from resilience_circuit_breaker._status import CircuitState, CircuitStatus
    from resilience_circuit_breaker.breaker import CircuitBreaker
    from resilience_circuit_breaker.family import CircuitBreakerFamily

__all__ = ["CircuitBreaker", "CircuitBreakerFamily", "CircuitOpenError", "CircuitState", "CircuitStatus"]

_HOME = {
    "CircuitBreaker": "breaker",
    "CircuitBreakerFamily": "family",
    "CircuitOpenError": "_errors",
    "CircuitState": "_status",
    "CircuitStatus": "_status",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys

    module = f"{__name__}.{home}"
    __import__(module)  # `importlib` takes longer to import than most of what stands here
    value = getattr(sys.modules[module], name)
    globals()[name] = value
    return value
