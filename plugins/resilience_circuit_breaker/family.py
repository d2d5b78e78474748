"""Circuit breakers by key: one for each host, tenant or tool, made when it is first asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from resilience.errors import ConfigurationError
from resilience_circuit_breaker.breaker import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience.runtime import Runtime

Breaker = TypeVar("Breaker", bound=CircuitBreaker)

_MOST_GUARDS = 1_000_000


class CircuitBreakerFamily(Generic[Breaker]):
    """Circuit breakers with the same settings, one a key; see `CircuitBreaker.family`.

    The breaker of a key is named ``family:key``: under that name the command line shows it, and variables such as
    ``RESILIENCE_POLICIES__HTTP_API_EXAMPLE_COM__CIRCUIT_BREAKER__…`` mean it.  Safe to use from many threads; two that
    ask for a new key at the same instant may get two guards, which share their state as all of one name do.

    Each key that ever failed has a record in the storage: take keys from what you know, such as the hosts in your
    configuration, not from what a stranger sends.
    """

    __slots__ = ("_arguments", "_breakers", "_kind")

    def __init__(
        self,
        kind: type[Breaker],
        name: str,
        settings: Mapping[str, Any],
        *,
        max_guards: int = 1000,
        runtime: Runtime | None = None,
    ) -> None:
        given = dict(settings)
        kind(name, runtime=runtime, **given)  # checks name and settings
        if ":" in name:
            raise ConfigurationError(
                f"{kind.__name__}.family({name[:80]!r}): the name of a family has no colon, which parts it from the key"
            )
        limit: Any = max_guards  # not all callers are checked
        if not isinstance(limit, int) or not 1 <= limit <= _MOST_GUARDS:
            raise ConfigurationError(
                f"{kind.__name__}.family({name[:80]!r}): max_guards is a whole number from 1 to {_MOST_GUARDS}"
            )

        def make(key: str) -> Breaker:
            if type(key) is not str:
                raise TypeError(f"{self!r}: a key is a str, not {type(key).__name__}")
            if not key:
                raise ConfigurationError(f"{self!r}: the name of a key is empty")
            return kind(f"{name}:{key}", runtime=runtime, **given)

        self._kind = kind
        self._arguments = (name, given, max_guards, runtime)
        self._breakers = lru_cache(maxsize=max_guards)(make)

    @property
    def name(self) -> str:
        """The name it was made with, which begins the name of each breaker."""
        return self._arguments[0]

    def __getitem__(self, key: str) -> Breaker:
        """Return the breaker of a key.

        :raises ConfigurationError: the key makes no name: it is empty, too long, ends with a space, or has characters
            that cannot be printed.
        """
        return self._breakers(key)

    def __len__(self) -> int:
        """Return how many breakers are kept in this process."""
        return self._breakers.cache_info().currsize

    def __bool__(self) -> bool:
        """A family is one, also before its first breaker."""
        return True

    def __repr__(self) -> str:
        """Class and name."""
        return f"{self._kind.__name__}.family({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as name and settings, without the breakers."""
        name, given, max_guards, runtime = self._arguments
        if runtime is not None:
            raise TypeError(f"{self!r} is bound to a runtime of this process and cannot be pickled")
        return _remade, (self._kind, name, given, max_guards)


def _remade(kind: type[Breaker], name: str, settings: dict[str, Any], max_guards: int) -> CircuitBreakerFamily[Breaker]:
    return CircuitBreakerFamily(kind, name, settings, max_guards=max_guards)
