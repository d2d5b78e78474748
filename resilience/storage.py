"""What a storage plugin speaks: keys, versions, snapshots, capabilities, and the storage that another one holds.

A storage keeps one versioned record per key and knows no policy: the payload is bytes to it.  Its hooks are specified
in `resilience.hookspecs`.
"""

from __future__ import annotations

from _operator import itemgetter  # what `operator` offers under this name; it takes as long as three of our modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager
    from typing import ClassVar, Protocol, Self

    class Indexed(Protocol):
        """Anything whose item 0 is an integer: a list, an array, a `memoryview` of format ``Q``."""

        def __getitem__(self, index: int, /) -> int: ...


MAX_NAME_LENGTH = 1000
"""Characters that the name of a guard may have."""


class Key(tuple[str, str]):
    """The identity of a record: the kind of its policy and the name of its guard.

    A name is 1 to 1000 printable characters (letters of any script, signs, spaces inside); `ValueError` says what is
    wrong with another.  Two names are one only if they are equal character by character: no case folding, no Unicode
    normalisation.
    """

    __slots__ = ()

    def __new__(cls, kind: str, name: str) -> Self:
        """Check both parts."""
        for part, text in (("kind", kind), ("name", name)):
            if not isinstance(text, str):
                raise TypeError(f"the {part} of a key is a str, not {type(text).__name__}")
            if not text or text != text.strip():
                raise ValueError(f"the {part} of a key is empty or begins or ends with a space: {text[:80]!r}")
            if len(text) > MAX_NAME_LENGTH:
                raise ValueError(
                    f"the {part} of a key has {len(text)} characters, {MAX_NAME_LENGTH} are allowed: {text[:40]!r}…"
                )
            if not text.isprintable():
                raise ValueError(f"the {part} of a key has a character that cannot be printed: {text[:80]!r}")
        return tuple.__new__(cls, (kind, name))  # pyright: ignore[reportUnknownMemberType] - typeshed's gap

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """The kind of the policy, the name of its entry point."""
            ...

        @property
        def name(self) -> str:
            """The name of the guard."""
            ...

    else:
        kind = property(itemgetter(0), doc="The kind of the policy, the name of its entry point.")
        name = property(itemgetter(1), doc="The name of the guard.")

    def __str__(self) -> str:
        """Kind and name, for messages."""
        return f"{self[0]} {self[1]!r}"

    def __repr__(self) -> str:
        """As it would be written in code."""
        return f"Key(kind={self[0]!r}, name={self[1]!r})"

    def __getnewargs__(self) -> tuple[str, str]:
        """Pickle by parts."""
        return (self[0], self[1])


class Version(tuple[str, int]):
    """The version of a record: `number` counts its commits from 1, `incarnation` is drawn at random at its birth.

    A record that was deleted and born again has another incarnation, so no version of its earlier life matches.
    """

    __slots__ = ()

    def __new__(cls, incarnation: str, number: int) -> Self:
        """Make one; nothing is checked, this stands on the road of every commit."""
        return tuple.__new__(cls, (incarnation, number))  # pyright: ignore[reportUnknownMemberType] - typeshed's gap

    if TYPE_CHECKING:

        @property
        def incarnation(self) -> str:
            """Random text, drawn at the first commit of the record."""
            ...

        @property
        def number(self) -> int:
            """Commits of this incarnation, from 1."""
            ...

    else:
        incarnation = property(itemgetter(0), doc="Random text, drawn at the first commit of the record.")
        number = property(itemgetter(1), doc="Commits of this incarnation, from 1.")

    def __str__(self) -> str:
        """Short form for people: the number and the beginning of the incarnation."""
        return f"{self[1]}@{self[0][:8]}"

    def __repr__(self) -> str:
        """As it would be written in code."""
        return f"Version(incarnation={self[0]!r}, number={self[1]!r})"

    def __getnewargs__(self) -> tuple[str, int]:
        """Pickle by parts."""
        return (self[0], self[1])


UNTOLD = 0.001
"""Seconds after a commit that was told for which a storage may leave others untold; see `resilience.freshness`."""


class Word:
    """An `is_current` that the engine may read without calling it.

    `view[0] == value` as long as the snapshot is the last committed record.  A storage that can show its version as
    one machine word (a mapped file, an array in memory) gives a `Word`; the engine then compares the two in line,
    which spares a call of some 60 ns on the road of every call.  A view that was released (`ValueError`) means: no
    longer current.

    A storage that hears of commits on a connection gives `look` too: a function without arguments that reads what has
    come, without waiting, and sets the view.  While a snapshot with it and with a `time` is in use, the engine calls it
    from calls that are under way, every half millisecond at most, from any thread; it must not raise.  Without it a
    program that computes all the time would hear only when Python switches threads.  Its view may have a second item,
    which goes up with what is heard only, as those who wait for others to be done listen to the last item of it.  See
    `resilience.Freshness`.
    """

    __slots__ = ("look", "value", "view")

    def __init__(self, view: Indexed, value: int, look: Callable[[], object] | None = None) -> None:
        self.view = view
        self.value = value
        self.look = look

    def __call__(self) -> bool:
        """Whether the snapshot is still the last committed record."""
        try:
            return self.view[0] == self.value
        except ValueError:
            return False


class Snapshot:
    """A record as it was read or committed.  Treat it as frozen.

    `payload` and `version` are `None` if nothing is stored.  `is_current()` tells without I/O whether this is still
    the last committed record, also for a record that does not exist yet; `None` where the storage cannot tell.
    `time` is the storage's own clock where it has one: its server's wall-clock seconds, read while it answered this
    call, never kept from an earlier one.  All who share the storage go by it, whatever their machines' clocks say.
    """

    __slots__ = ("is_current", "payload", "time", "version")

    def __init__(
        self,
        payload: bytes | None,
        version: Version | None,
        is_current: Callable[[], bool] | None = None,
        time: float | None = None,
    ) -> None:
        self.payload = payload
        self.version = version
        self.is_current = is_current
        self.time = time

    def __repr__(self) -> str:
        """Version and size; a payload may be long."""
        size = "no payload" if self.payload is None else f"{len(self.payload)} bytes"
        return f"<Snapshot {self.version or 'of nothing'}, {size}>"


class Capability(str):
    """Something that a storage declares it can do; a storage's `capabilities` is a frozen set of these."""

    __slots__ = ()

    PROCESSES: ClassVar[Capability]
    """Shared by all processes of a machine."""
    MACHINES: ClassVar[Capability]
    """Shared by all machines that name the same storage."""
    DURABLE: ClassVar[Capability]
    """What was committed survives the loss of power."""
    PUSH: ClassVar[Capability]
    """`is_current` learns of other processes' commits at once."""
    INLINE: ClassVar[Capability]
    """Fast enough to be called on an event loop, with `timeout=0` for the lock."""


for _name in ("PROCESSES", "MACHINES", "DURABLE", "PUSH", "INLINE"):
    setattr(Capability, _name, Capability(_name.lower()))
del _name


class InnerStorage:
    """The hooks of an open storage, as functions that are called by position: what a storage holds that holds another.

    `load`, `save`, `lock` and so on are what `resilience.hookspecs` specifies, wrappers that watch included.  `keys`,
    `delete`, `aload` and `asave` are `None` where the storage does not implement them; `discard` is always there.
    `name` is its scheme, `storage` the object itself, for what is no hook.
    """

    __slots__ = (
        "aload",
        "asave",
        "capabilities",
        "delete",
        "discard",
        "keys",
        "load",
        "lock",
        "name",
        "save",
        "storage",
    )

    load: Callable[[Key, float], Snapshot]
    save: Callable[[Key, bytes, Version | None, float | None, float], Snapshot]
    lock: Callable[[Key, float], AbstractContextManager[None]]
    keys: Callable[[], Iterable[Key]] | None
    delete: Callable[[Key, Version | None, float], bool] | None
    discard: Callable[[Key, str, float], None]
    aload: Callable[[Key, float], Awaitable[Snapshot]] | None
    asave: Callable[[Key, bytes, Version | None, float | None, float], Awaitable[Snapshot]] | None

    def __init__(self, name: str, capabilities: frozenset[str], storage: object = None) -> None:
        self.name = name
        self.capabilities = capabilities
        self.storage = storage
