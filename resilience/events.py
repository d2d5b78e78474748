"""What observers are told: one small frozen object each, so that a new field breaks no observer."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from resilience.storage import Key, Version


class _Told:
    """Base: slots, keyword arguments, frozen, comparable, printable."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]  # data is a mapping

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in zip(self.__slots__, self._values(), strict=True))
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[type[_Told], tuple[object, ...]]:
        return type(self), self._values()


_set = object.__setattr__


class Transition(_Told):
    """A committed change of state, told once, by the process that committed it.

    `key` names the guard, `old` and `new` its states, `reason` why (for a person), `time` the wall-clock seconds that
    the decision used, `version` the committed version (`None`: it happened in a private copy while the storage did
    not answer), `epoch` the number of the state that begins: it grows by one at each change.
    """

    __slots__ = ("key", "old", "new", "reason", "time", "version", "epoch")  # noqa: RUF023 - the order of arguments

    def __init__(
        self, key: Key, old: str, new: str, reason: str, time: float, version: Version | None, epoch: int
    ) -> None:
        _set(self, "key", key)
        _set(self, "old", old)
        _set(self, "new", new)
        _set(self, "reason", reason)
        _set(self, "time", time)
        _set(self, "version", version)
        _set(self, "epoch", epoch)

    key: Key
    old: str
    new: str
    reason: str
    time: float
    version: Version | None
    epoch: int


class Event(_Told):
    """Anything else worth telling: see `resilience.hookspecs.resilience_event` for the names.

    `key` is `None` where the whole storage is concerned; `time` is wall-clock seconds; `data` holds plain values.
    """

    __slots__ = ("name", "key", "time", "data")  # noqa: RUF023 - the order of arguments

    def __init__(self, name: str, key: Key | None, time: float, data: Mapping[str, object]) -> None:
        _set(self, "name", name)
        _set(self, "key", key)
        _set(self, "time", time)
        _set(self, "data", data)

    name: str
    key: Key | None
    time: float
    data: Mapping[str, object]
