"""The list of all checks."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.testing.subject import Subject

    Function = Callable[[Subject], None]

GROUPS = (
    "contract",
    "locking",
    "freshness",
    "awaitable",
    "concurrency",
    "processes",
    "faults",
    "speed",
)
"""The modules of checks, in the order in which they are run."""

FIRST = "1"
"""The first version of the kit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    `name` never changes its meaning; `title` says what holds if it passes; `kit` is the version that brought it;
    `after` are checks without which this one says nothing; `limit` is seconds, after which it is given up.
    """

    name: str
    title: str
    group: str
    function: Function
    kit: str
    after: tuple[str, ...]
    limit: float

    def __call__(self, subject: Subject) -> None:
        """Look at a storage.

        :raises Violation: the storage broke the contract.
        :raises Skipped: there is nothing to look at.
        """
        self.function(subject)


_CHECKS: list[Check] = []


def check(
    title: str, *, kit: str = FIRST, after: tuple[str, ...] = ("round_trip",), limit: float = 30.0
) -> Callable[[Function], Function]:
    """Make a check of a function ``check_<name>``."""

    def registered(function: Function) -> Function:
        name = function.__name__.removeprefix("check_")
        group = function.__module__.rpartition(".")[2]
        _CHECKS.append(Check(name, title, group, function, kit, after, limit))
        return function

    return registered


def all_checks(kit: str | None = None) -> tuple[Check, ...]:
    """List the checks of a version of the kit; all there are, if it is left out.

    :raises ValueError: there is no such version.
    """
    ordered = sorted(_CHECKS, key=lambda check: GROUPS.index(check.group))
    if kit is None:
        return tuple(ordered)
    from resilience.testing import KIT_VERSION

    if not kit.isdecimal() or not 1 <= int(kit) <= int(KIT_VERSION):
        raise ValueError(f"there is no version {kit!r} of the kit; this release has 1 to {KIT_VERSION}")
    return tuple(check for check in ordered if int(check.kit) <= int(kit))
