"""Short histories without versions: whether one order of the operations explains them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from resilience.testing import NotLinearizable, Operation, SearchTooLong, check_linearizable


def op(kind: str, value: Any, called: float, returned: float | None, result: Any = None) -> Operation:
    return Operation("p", int(called * 100), kind, called, returned, None, (kind, value), result)


def test_operations_one_after_the_other() -> None:
    history = [op("write", 1, 0, 1), op("read", None, 2, 3, 1), op("write", 2, 4, 5), op("read", None, 6, 7, 2)]
    assert check_linearizable(history) == history


def test_overlapping_operations_are_put_in_the_order_that_explains_them() -> None:
    history = [op("write", 1, 0, 10), op("write", 2, 0, 10), op("read", None, 1, 2, 2), op("read", None, 3, 4, 1)]
    order = check_linearizable(history)
    assert [operation.event for operation in order] == [("write", 2), ("read", None), ("write", 1), ("read", None)]


@pytest.mark.parametrize(
    "history",
    [
        [op("write", 1, 0, 1), op("read", None, 2, 3, None)],  # stale
        [op("read", None, 0, 1, 1), op("write", 1, 2, 3)],  # from the future
        [op("write", 1, 0, 1), op("write", 2, 2, 3), op("read", None, 4, 5, 2), op("read", None, 6, 7, 1)],  # back
        [op("write", 1, 0, 9), op("read", None, 1, 2, 1), op("read", None, 3, 4, None)],  # seen, then not
    ],
)
def test_what_no_order_explains_is_found(history: list[Operation]) -> None:
    with pytest.raises(NotLinearizable, match="no order explains these"):
        check_linearizable(history)


def test_what_never_returned_may_have_happened_or_not() -> None:
    killed = op("write", 1, 0, None)
    assert check_linearizable([killed, op("read", None, 1, 2, 1)])
    assert check_linearizable([killed, op("read", None, 1, 2, None)])
    assert check_linearizable([killed]) == []


def counter(state: int, event: tuple[str, Any]) -> tuple[int, int]:
    return state + 1, state + 1


@pytest.mark.parametrize("seed", range(5))
def test_counters_that_lose_an_update_are_found(seed: int) -> None:
    chance = random.Random(seed)
    history = [op("add", None, n - chance.random(), n + chance.random() * 2, n) for n in range(1, 30)]
    assert len(check_linearizable(history, 0, counter)) == 29
    lost = chance.randrange(5, 25)
    history[lost] = op("add", None, history[lost].called, history[lost].returned, lost)
    with pytest.raises(NotLinearizable):
        check_linearizable(history, 0, counter)


def test_a_search_that_takes_too_long_is_given_up() -> None:
    history = [op("write", n, 0, 10) for n in range(12)] + [op("read", None, 11, 12, "never")]
    with pytest.raises(SearchTooLong, match="1000 configurations of 13 operations"):
        check_linearizable(history, limit=1000)
