"""What a forked child must let go of: connections and threads are its parent's."""

from __future__ import annotations

import os
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    class Inherited(Protocol):
        """Something that a child begins anew."""

        def after_fork(self) -> None:
            """Let go of connections, locks and threads, in the child."""
            ...


_members: Final[WeakSet[Inherited]] = WeakSet()


def enrol(member: Inherited) -> None:
    """Tell `member` about each fork from now on, in the child, as long as it lives."""
    _members.add(member)


def _in_child() -> None:
    for member in list(_members):
        member.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_in_child)
