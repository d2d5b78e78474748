"""Every error of the framework, under one root.

A policy's plugin derives its own rejection from `PolicyRejected` (the breaker's is `CircuitOpenError`).  All of them
pickle with their attributes, so that they cross a process pool whole.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, TypeVar

    from resilience.storage import Key, Snapshot

    E = TypeVar("E", bound=BaseException)


def revive(kind: type[E], args: tuple[object, ...], attributes: dict[str, object]) -> E:
    """Make an error of its message and its attributes, whatever the signature of its class; for `__reduce__`."""
    error = kind.__new__(kind, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)  # some have slots
    return error


class ResilienceError(Exception):
    """Root of all errors that this framework raises."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Pickle message and attributes, whatever the signature of the class."""
        return revive, (type(self), self.args, dict(self.__dict__))


class ConfigurationError(ResilienceError):
    """A setting is unknown, impossible or contradicts another; the message names it, its source and the fix."""


class PluginError(ResilienceError):
    """A plugin does not load, does not fit the hook specifications, or broke the contract of a hook."""


class PolicyRejected(ResilienceError):
    """A policy did not let a call through.

    `name` is the guard's name; `retry_after` is the number of seconds after which asking again makes sense, 0 if at
    once, `None` if that cannot be known.
    """

    def __init__(self, message: str, *, name: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.name = name
        self.retry_after = retry_after


class StorageError(ResilienceError):
    """Root of what goes wrong below the hooks `load`, `save` and `lock`.

    `key` names the one record that is concerned; `None` means the storage as a whole.
    """

    def __init__(self, message: str, *, key: Key | None = None) -> None:
        super().__init__(message)
        self.key = key


class StorageConflict(StorageError):
    """`save` found another version than the expected one and changed nothing.

    `current` is the record that is committed now, where the storage could bring it along without another round trip.
    """

    def __init__(self, message: str, *, key: Key | None = None, current: Snapshot | None = None) -> None:
        super().__init__(message, key=key)
        self.current = current

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Leave the snapshot behind: what it maps belongs to this process."""
        return revive, (type(self), self.args, {**self.__dict__, "current": None})


class StorageCorrupt(StorageError):
    """The stored record is damaged."""


class StorageIncompatible(StorageError):
    """The stored record was written by a newer library; it is left alone."""


class StorageLockTimeout(StorageError):
    """The lock could not be had within the time-out."""


class StorageUnavailable(StorageError):
    """The storage did not do what was asked of it, within the time-out.

    `outcome_unknown` is true if a save may have happened all the same; it is then applied no second time.
    """

    def __init__(self, message: str, *, key: Key | None = None, outcome_unknown: bool = False) -> None:
        super().__init__(message, key=key)
        self.outcome_unknown = outcome_unknown

    @classmethod
    def from_os_error(cls, error: OSError, doing: str, key: Key | None = None) -> Self:
        """Translate an operating system's error met while `doing` something; it names the file, if `doing` does not."""
        file = "" if error.filename is None or str(error.filename) in doing else f": {error.filename!r}"
        return cls(f"{doing}: {error.strerror or error}{file}", key=key)
