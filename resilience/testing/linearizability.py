"""Whether a history could have come from one operation at a time: the search of Wing and Gong, as Lowe made it fast.

For storages or objects without versions; the search is exponential at worst, so histories are short: some tens of
operations of a few processes.  Where there are versions, `resilience.testing.check_history` is linear.

J. M. Wing, C. Gong: Testing and verifying concurrent objects, 1993.  G. Lowe: Testing for linearizability, 2017.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable
    from typing import Any

    from resilience.testing.history import Operation

    Model = Callable[[Any, Any], tuple[Any, Any]]

_NEVER = float("inf")


class NotLinearizable(AssertionError):
    """No order of the operations explains their results."""


class SearchTooLong(RuntimeError):
    """The search was given up; nothing is known."""


def register(state: Hashable, event: tuple[str, Hashable]) -> tuple[Hashable, Hashable]:
    """Model a register: the event ``("write", value)`` gives `None`, ``("read", None)`` gives what was written last."""
    kind, value = event
    return (value, None) if kind == "write" else (state, state)


def check_linearizable(
    operations: Iterable[Operation], initial: Hashable = None, model: Model = register, *, limit: int = 1_000_000
) -> list[Operation]:
    """Find an order of the operations that keeps to the clock and explains every result.

    An operation that never returned may have happened at any time after it was called, or not at all.

    :param operations: their `event` and `result` count, their versions do not.
    :param initial: the state before the first one; states are hashable.
    :param model: maps state and event to the next state and the result; pure.
    :param limit: configurations to look at.
    :returns: the operations in that order.
    :raises NotLinearizable: there is none.
    :raises SearchTooLong: more configurations than `limit` would have to be looked at.
    """
    history = sorted(operations, key=lambda operation: operation.called)
    ends = [_NEVER if operation.returned is None else operation.returned for operation in history]
    must = sum(1 << index for index, end in enumerate(ends) if end != _NEVER)
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Hashable, tuple[int, ...]]] = [(0, initial, ())]
    longest: tuple[int, ...] = ()
    while stack:
        done, state, order = stack.pop()
        if done & must == must:
            return [history[index] for index in order]
        if len(seen) > limit:
            raise SearchTooLong(f"{limit} configurations of {len(history)} operations were looked at; give fewer")
        if len(order) > len(longest):
            longest = order
        # Next can come who was called before any that is left returned.
        left = [index for index in range(len(history)) if not done >> index & 1]
        horizon = min(ends[index] for index in left)
        for index in reversed(left):
            operation = history[index]
            if operation.called > horizon:
                continue
            then, result = model(state, operation.event)
            if ends[index] != _NEVER and result != operation.result:
                continue
            reached = (done | 1 << index, then)
            if reached not in seen:
                seen.add(reached)
                stack.append((*reached, (*order, index)))
    rest = [operation for index, operation in enumerate(history) if index not in longest]
    raise NotLinearizable(
        f"no order explains these {len(history)} operations; the longest that does has {len(longest)}, and then none of"
        + "".join(f"\n  {operation} {operation.event!r} -> {operation.result!r}" for operation in rest[:5])
    )
