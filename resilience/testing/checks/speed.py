"""How fast it is, beside the memory storage: told, and asserted only where it is declared."""

from __future__ import annotations

from resilience import clock
from resilience.storage import Capability
from resilience.testing.checks.registry import check
from resilience.testing.handle import Handle
from resilience.testing.roads import CALLED
from resilience.testing.violations import Violation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.testing.subject import Subject

INLINE_LIMIT = 0.01
"""Seconds that a commit of a storage that is called on an event loop takes at most, as the median of many."""


@check("it is as fast as it declares; how fast, beside the memory storage, is told", roads=(CALLED,))
def check_speed(subject: Subject) -> None:
    """Measure loads and commits."""
    from resilience.plugins import storage_class
    from resilience.selection import Selection

    times = subject.pick(50, 300)
    memory = Handle(storage_class("memory", Selection())("memory:", None))
    mine, theirs = _measure(subject.handle, subject, times), _measure(memory, subject, times)
    for what, seconds in mine.items():
        subject.measured[f"{what}, µs"] = seconds * 1e6
        subject.measured[f"{what}, times memory"] = seconds / theirs[what]
    if Capability.INLINE in subject.capabilities and mine["commit"] > INLINE_LIMIT:
        raise Violation(
            f"it declares INLINE, and a commit takes {mine['commit'] * 1e3:.1f} ms",
            "INLINE storages are called on the event loop, which stands still meanwhile",
            "drop INLINE from `capabilities`; the engine then calls it in a thread, or by resilience_aload",
        )


def _measure(handle: Handle, subject: Subject, times: int) -> dict[str, float]:
    key = subject.key()
    handle.put(key, b'{"n": 0}')
    return {
        "load": _median(lambda: handle.load(key), times),
        "commit": _median(lambda: handle.put(key, b'{"n": 1}'), times),
    }


def _median(function: Callable[[], object], times: int) -> float:
    taken: list[float] = []
    give_up = clock.monotonic() + 1.0
    while len(taken) < times and (not taken or clock.monotonic() < give_up):
        begun = clock.monotonic()
        function()
        taken.append(clock.monotonic() - begun)
    return sorted(taken)[len(taken) // 2]
