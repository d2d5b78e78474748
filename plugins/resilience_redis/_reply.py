"""Reading what a server answers, from threads: RESP2, whole replies out of the bytes that have come.

redis-py's reader sets the time-out of the socket four times for an answer and for the look before it whether the
connection is still there, and reads line by line from a buffer: a fifth of the bytecode instructions of a commit, of
which this takes a quarter.  Where many commit one record, each commit is made upon the last one, so its time counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR, _STATUS, _NUMBER, _BULK, _LIST = b"-+:$*"


class Incomplete(Exception):
    """Not all of a reply has come yet."""


def read(  # noqa: C901 - one branch for each kind of reply
    data: bytes, at: int, error: Callable[[str], Exception]
) -> tuple[Any, int]:
    """Return the reply that begins there, and where it ends.

    :param error: makes of what an error says what stands for it in the reply.
    :raises Incomplete: there is more to come.
    :raises ValueError: it is no reply.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    kind, said = data[at], data[at + 1 : end]
    at = end + 2
    if kind == _BULK:
        end = at + int(said)
        if end < at:
            return None, at
        if len(data) < end + 2:
            raise Incomplete
        return data[at:end], end + 2
    if kind == _LIST:
        count = int(said)
        if count < 0:
            return None, at
        items: list[Any] = []
        for _ in range(count):
            item, at = read(data, at, error)
            items.append(item)
        return items, at
    if kind == _NUMBER:
        return int(said), at
    if kind == _STATUS:
        return said, at
    if kind == _ERROR:
        return error(said.decode("utf-8", "replace")), at
    raise ValueError(f"it does not speak the protocol of Redis: {data[:at][:100]!r}")
