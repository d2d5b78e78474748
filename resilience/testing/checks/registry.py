"""The list of all checks."""

from __future__ import annotations

from dataclasses import dataclass

from resilience.testing.roads import AWAITED, CALLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.testing.subject import Subject

    Function = Callable[[Subject], None]

GROUPS = (
    "contract",
    "reading",
    "locking",
    "freshness",
    "awaitable",
    "concurrency",
    "processes",
    "forks",
    "faults",
    "speed",
    "coroutines",
)
"""The modules of checks, in the order in which they are run."""

FIRST, SECOND = "1", "2"
"""The versions of the kit."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    `name` never changes its meaning; `title` says what holds if it passes; `kit` is the version that brought it;
    `after` are checks without which this one says nothing; `limit` is seconds, after which it is given up; `road` is
    how it reaches the hooks.
    """

    name: str
    title: str
    group: str
    function: Function
    kit: str
    after: tuple[str, ...]
    limit: float
    road: str = CALLED

    def __call__(self, subject: Subject) -> None:
        """Look at a storage.

        :raises Violation: the storage broke the contract.
        :raises Skipped: there is nothing to look at.
        """
        self.function(subject.awaited if self.road == AWAITED else subject)


_CHECKS: list[Check] = []

BOTH = (CALLED, AWAITED)


def check(
    title: str,
    *,
    kit: str = FIRST,
    after: tuple[str, ...] = ("round_trip",),
    limit: float = 30.0,
    roads: tuple[str, ...] = BOTH,
) -> Callable[[Function], Function]:
    """Make checks of a function ``check_<name>``: ``<name>``, and ``awaited_<name>``, the same from coroutines.

    :param roads: those on which it says something; the second version of the kit brought the awaited one.
    """

    def registered(function: Function) -> Function:
        name = function.__name__.removeprefix("check_")
        group = function.__module__.rpartition(".")[2]
        if CALLED in roads:
            _CHECKS.append(Check(name, title, group, function, kit, after, limit))
            if AWAITED in roads:
                # What the plain form finds is said once: where it fails, this one is not run.
                before = (name, *after, *(f"awaited_{other}" for other in after))
                newer = max(kit, SECOND, key=int)
                form = Check(f"awaited_{name}", title, f"{group}, awaited", function, newer, before, limit, AWAITED)
                _CHECKS.append(form)
        else:
            _CHECKS.append(Check(name, title, group, function, kit, after, limit, AWAITED))
        return function

    return registered


def all_checks(kit: str | None = None) -> tuple[Check, ...]:
    """List the checks of a version of the kit; all there are, if it is left out.

    :raises ValueError: there is no such version.
    """
    ordered = sorted(_CHECKS, key=lambda check: (check.road == AWAITED, GROUPS.index(check.group.partition(",")[0])))
    if kit is None:
        return tuple(ordered)
    from resilience.testing import KIT_VERSION

    if not kit.isdecimal() or not 1 <= int(kit) <= int(KIT_VERSION):
        raise ValueError(f"there is no version {kit!r} of the kit; this release has 1 to {KIT_VERSION}")
    return tuple(check for check in ordered if int(check.kit) <= int(kit))
