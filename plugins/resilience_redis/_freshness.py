"""Whether a snapshot is still the last committed record, told without I/O.

Each key has a number in memory, and a snapshot is current as long as it is the one that it was given.  The number
moves when a newer version is heard of: by a message of who committed it, by a load, a save or a conflict of this
process.  Versions say which news are news, so that a commit of this process, which it is told of as well, makes its own
snapshot no older.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from resilience import Word

if TYPE_CHECKING:
    from resilience import Version

_UNHEARD: Final = "unheard"
"""What is known of a key after the thread heard nothing for a while: nothing."""


class Number(list[int]):
    """The number of a key, as its item 0, and the newest version that was heard of; `None`: nothing is stored."""

    __slots__ = ("__weakref__", "version")

    version: Version | str | None


class Freshness:
    """The numbers of all keys that somebody holds a snapshot of."""

    def __init__(self) -> None:
        self._numbers: WeakValueDictionary[bytes, Number] = WeakValueDictionary()
        self._lock = threading.Lock()

    def number(self, name: bytes) -> Number:
        """Return the number of a key.  Read it before the server is asked: news may come while it answers."""
        with self._lock:
            number = self._numbers.get(name)
            if number is None:
                number = Number([0])
                number.version = _UNHEARD
                self._numbers[name] = number
            return number

    def answered(self, number: Number, before: int, version: Version | None) -> Word:
        """Take over what the server answered; the word of that snapshot.

        :param before: the number when it was asked.
        """
        with self._lock:
            if number.version != version:
                if number[0] != before and not _follows(version, number.version):
                    return Word(number, number[0] - 1)  # news of something else came meanwhile: which is newer?
                number.version = version
                number[0] += 1
            return Word(number, number[0])

    def told(self, name: bytes, version: Version | None) -> None:
        """Take over what a message says; `None`: the record is gone."""
        with self._lock:
            number = self._numbers.get(name)
            if number is not None and (version is None or not _follows(number.version, version, same=True)):
                number.version = version
                number[0] += 1

    def doubt(self, name: bytes) -> None:
        """Hold nothing for current of one key: this process changed it, and others may have done so since."""
        with self._lock:
            number = self._numbers.get(name)
            if number is not None:
                number.version = _UNHEARD
                number[0] += 1

    def forget(self) -> None:
        """Hold nothing for current: messages may have been missed."""
        with self._lock:
            for number in list(self._numbers.values()):
                number.version = _UNHEARD
                number[0] += 1

    def after_fork(self) -> None:
        """Begin anew in a child; another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self.forget()


def _follows(version: Version | str | None, other: Version | str | None, *, same: bool = False) -> bool:
    """Whether a version is a later one of the same record; `same`: or the other one itself."""
    if not isinstance(version, tuple) or not isinstance(other, tuple) or version[0] != other[0]:
        return False
    return version[1] >= other[1] if same else version[1] > other[1]
