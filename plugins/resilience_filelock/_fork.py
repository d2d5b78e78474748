"""What a forked child must let go of.

A descriptor that a child inherits is the same open file as its parent's: its lock is the parent's lock, and to unlock
it in the child would free the parent's.  So the child closes what it inherited, without a word to the lock, and opens
anew what it needs.
"""

from __future__ import annotations

import os
from _thread import RLock
from _weakref import ref  # what `weakref` offers under this name, without its containers, which take a millisecond

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    class Inherited(Protocol):
        """Something that a child must not go on using."""

        def after_fork(self) -> None:
            """Let go of descriptors, mappings and thread locks, in the child."""
            ...


BIRTH: Final = RLock()
"""Held while files are opened, made, renamed or evicted, and by `fork`: no child inherits a descriptor that is not
listed here, or a table that is half changed."""

_members: Final[dict[int, ref[Inherited]]] = {}


def enrol(member: Inherited) -> None:
    """Tell `member` about each fork from now on, in the child, as long as it lives."""
    number = id(member)  # nobody else's before the reference is cleared and this entry gone
    with BIRTH:
        _members[number] = ref(member, lambda _: _members.pop(number, None))


def _in_child() -> None:
    # All at once, before the first of them lets go of the others.
    members = [member for reference in list(_members.values()) if (member := reference()) is not None]
    for member in members:
        member.after_fork()
    BIRTH.release()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(before=BIRTH.acquire, after_in_parent=BIRTH.release, after_in_child=_in_child)
