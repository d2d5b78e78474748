"""The windows of a circuit breaker: how calls are counted, as plain values.  When they trip stands in `_state`.

A window is ``(calls, failures, slow, content)``: what stands in it, and what that was counted from.  All of it is
frozen; adding makes a new one.

``count``: the last `window_size` calls.  The content is two whole numbers of `window_size` bits, one for failures and
one for slow calls; the youngest call is the lowest bit.

``time``: the calls of the last `window_duration` seconds, in the running bucket and the nine before it.  A bucket is
``(number, calls, failures, slow)``; the content is those before the last, the text of them, and the last, as nearly
every call changes the last one only.  Buckets are aligned to the clock, so that all processes share their edges.  A
bucket from the future is a neighbour's whose clock is ahead: it counts up to one window ahead, beyond it is dropped.

``consecutive`` is no window of calls but a streak of failures, whose number stands in the state itself.

A shape is the name under which a window stands in the record: ``consecutive``, ``count:100``, ``time:60``.
"""

from __future__ import annotations

from resilience.policy import FAILURE, FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from resilience.policy import Report
    from resilience_circuit_breaker._config import CircuitBreakerConfig

    Bucket = tuple[int, int, int, int]
    Window = tuple[int, int, int, Any]
    Windows = Mapping[str, Window | float | None]

CONSECUTIVE = "consecutive"
COUNT = "count"
TIME = "time"
WINDOWS = (CONSECUTIVE, COUNT, TIME)
"""What `window` may be."""

BUCKETS = 10
"""Buckets in a window of time."""
MOST_BUCKETS = 2 * BUCKETS
"""Buckets that can be kept at most: those of the window, and as many from the future."""
MOST_SHAPES = 4
"""Shapes that are kept beside each other under one name."""

NOTHING: Window = (0, 0, 0, ())
"""A window in which nothing stands."""
NO_WINDOWS: Windows = {}
_WRITTEN = "[%d,%d,%d,%d],".__mod__


def shape_of(window: str, size: int, duration: float) -> str:
    """Name a shape."""
    if window == COUNT:
        return f"{COUNT}:{size}"
    return f"{TIME}:{duration:.15g}" if window == TIME else CONSECUTIVE


def nanoseconds(duration: float) -> int:
    """Nanoseconds of a duration in seconds."""
    return round(duration * 1e9)


def bucket_of(span: int, at: float) -> int:
    """Number of the bucket of a wall-clock second, in a window of `span` nanoseconds."""
    return int(at * 1e9) * BUCKETS // span


def end_of_bucket(span: int, number: int) -> float:
    """Wall-clock second at which a bucket ends."""
    return -((number + 1) * span // -BUCKETS) / 1e9


class Bounds:
    """Where a bucket lies in time: its nanoseconds, and the wall-clock seconds at which it ends and leaves the window.

    From `surely_from` on and before `surely_until`, wall-clock seconds as well, it is this bucket: to find that out
    takes two comparisons.  Within a microsecond of an edge the nanoseconds are compared, which are exact.
    """

    __slots__ = ("begin", "end", "ends_at", "leaves_at", "number", "surely_from", "surely_until")

    def __init__(self, span: int, number: int) -> None:
        self.number = number
        self.begin = begin = -(number * span // -BUCKETS)
        self.end = end = -((number + 1) * span // -BUCKETS)
        self.ends_at = end / 1e9
        self.leaves_at = end_of_bucket(span, number + BUCKETS - 1)
        first, last = (begin + 1_000) / 1e9, (end - 1_000) / 1e9
        # In a time so far from ours that a number of seconds cannot tell microseconds apart, nothing may be sure.
        is_fine = begin <= int(first * 1e9) and int(last * 1e9) < end
        self.surely_from, self.surely_until = (first, last) if is_fine else (FOREVER, FOREVER)


_running: dict[int, Bounds] = {}
_MOST_RUNNING = 64


def running(span: int, at: float) -> Bounds:
    """Return the bucket of a wall-clock second.

    The last one of each span is kept: nearly always it is asked for again, and to divide numbers as long as these each
    time takes a quarter of all that a policy does for a commit.
    """
    bucket = _running.get(span)
    if bucket is None or not bucket.surely_from <= at < bucket.surely_until:
        nanosecond = int(at * 1e9)
        if bucket is None or not bucket.begin <= nanosecond < bucket.end:
            if len(_running) >= _MOST_RUNNING:
                _running.clear()
            bucket = _running[span] = Bounds(span, nanosecond * BUCKETS // span)
    return bucket


def leaves_at(span: int, number: int) -> float:
    """Wall-clock second at which a bucket leaves the window."""
    bucket = _running.get(span)
    if bucket is not None and bucket.number == number:
        return bucket.leaves_at
    return end_of_bucket(span, number + BUCKETS - 1)


def added(config: CircuitBreakerConfig, windows: Windows, event: Report) -> Window:
    """Add what is reported to the configured window; what no longer stands in it is left out."""
    window: Any = windows.get(config.shape, NOTHING)
    calls = event.count
    failed = calls if event.outcome == FAILURE else 0
    duration = event.duration
    slow = calls if duration is not None and duration > config.slow_after else 0
    if config.window == COUNT:
        return _pushed(config, window, calls, failed, slow)
    at = event.at
    now = event.now
    span = config.window_span
    bucket = running(span, now)
    number = present = bucket.number
    if at < now and at < bucket.surely_from:  # nothing ends after it was reported
        number = bucket_of(span, at)
    total, failures, slows, content = window
    if content:
        older, text, last = content
        its_number, its, its_failures, its_slows = last
        if its_number == number == present and (older[0] if older else last)[0] > present - BUCKETS:
            last = (number, its + calls, its_failures + failed, its_slows + slow)
            return total + calls, failures + failed, slows + slow, (older, text, last)
    if number <= present - BUCKETS:  # it had to wait for so long that it is out of the window
        return seen(span, window, now)
    counted: dict[int, Bucket] = {kept[0]: kept for kept in _kept(buckets_of(window), present)}
    _, its, its_failures, its_slows = counted.get(number, (number, 0, 0, 0))
    counted[number] = (number, its + calls, its_failures + failed, its_slows + slow)
    return summed(sorted(counted.values()))


def _pushed(config: CircuitBreakerConfig, window: Window, calls: int, failed: int, slow: int) -> Window:
    size = config.window_size
    total, _, _, content = window
    failures, slows = content or (0, 0)
    total += calls
    if total > size:
        total = size
        calls = min(calls, size)
    full = config.window_mask
    failures = failures << calls & full
    slows = slows << calls & full
    if failed:
        failures |= (1 << calls) - 1
    if slow:
        slows |= (1 << calls) - 1
    return total, failures.bit_count(), slows.bit_count(), (failures, slows)


def added_late(config: CircuitBreakerConfig, windows: Windows, event: Report) -> Window:
    """Add what is reported to a window that is kept to be looked at: nothing leaves it, whatever the time."""
    window: Any = windows.get(config.shape, NOTHING)
    calls = event.count
    failed = calls if event.outcome == FAILURE else 0
    slow = calls if event.duration is not None and event.duration > config.slow_after else 0
    if config.window == COUNT:
        return _pushed(config, window, calls, failed, slow)
    *older, last = buckets_of(window) or ((bucket_of(config.window_span, event.now), 0, 0, 0),)
    number, its, failures, slows = last
    return summed((*older, (number, its + calls, failures + failed, slows + slow)))


def filled(config: CircuitBreakerConfig, now: float, successes: int, failures: int, slows: int) -> Window:
    """Make a window in which so many calls stand, ended just now, the failures last."""
    total = successes + failures
    slows = min(slows, total)
    if config.window == COUNT:
        total = min(total, config.window_size)
        failures = min(failures, total)
        slows = min(slows, total)
        masks = ((1 << failures) - 1, (1 << slows) - 1)
        return total, failures, slows, masks
    return summed(((bucket_of(config.window_span, now), total, failures, slows),)) if total else NOTHING


def seen(span: int, window: Window, now: float) -> Window:
    """What stands in a window of time at wall-clock second `now`."""
    buckets = buckets_of(window)
    present = bucket_of(span, now)
    if not buckets or (buckets[0][0] > present - BUCKETS and buckets[-1][0] <= present + BUCKETS):
        return window
    return summed(_kept(buckets, present))


def all_seen(windows: Windows, now: float) -> Windows:
    """What stands in each window at wall-clock second `now`."""
    return {
        shape: seen(span_of(shape), window, now) if isinstance(window, tuple) and is_of_time(shape) else window
        for shape, window in windows.items()
    }


def _kept(buckets: Iterable[Bucket], present: int) -> tuple[Bucket, ...]:
    oldest, newest = present - BUCKETS, present + BUCKETS
    return tuple(bucket for bucket in buckets if oldest < bucket[0] <= newest)


def buckets_of(window: Window) -> tuple[Bucket, ...]:
    """List the buckets of a window of time, the oldest first."""
    content = window[3]
    return (*content[0], content[2]) if content else ()


def summed(buckets: Sequence[Bucket]) -> Window:
    """Make a window of time of its buckets."""
    if not buckets:
        return NOTHING
    _, calls, failures, slows = zip(*buckets, strict=True)
    *older, last = buckets
    text = "".join(map(_WRITTEN, older))
    return sum(calls), sum(failures), sum(slows), (tuple(older), text, last)


def is_of_time(shape: str) -> bool:
    """Whether a shape is one of time."""
    return shape.startswith("time:")


def span_of(shape: str) -> int:
    """Nanoseconds that a window of time spans, from its shape."""
    return nanoseconds(float(shape.partition(":")[2]))


def ends_at(shape: str, window: Window) -> float | None:
    """Wall-clock second after which nothing stands in a window any more; `None`: it has no such end."""
    if not is_of_time(shape):
        return None
    buckets = buckets_of(window)
    return leaves_at(span_of(shape), buckets[-1][0]) if buckets else 0.0
