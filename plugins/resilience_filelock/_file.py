"""One open file of one record: reading it without a lock, committing to it under the lock.

How it stays whole, whenever the process dies: a commit writes the slot that is not committed and then the head, one
aligned word, which names it.  With `durable`, each of the two is on the disk before the next step.  A reader takes the
slot that the head names; if the slot is not what the head says and the head stands still, the slot is damaged and the
other one, older by one commit, is taken.
"""

from __future__ import annotations

import os
import stat
import sys
from _operator import itemgetter  # see `resilience.storage`

from resilience import Key, Snapshot, StorageUnavailable, Version, Word, clock
from resilience_filelock._errors import NOT_THERE
from resilience_filelock._fork import enrol
from resilience_filelock._lock import native
from resilience_filelock._paths import SUFFIX, base_of
from resilience_filelock._record import (
    HEAD,
    HEAD_END,
    HEAD_OFFSET,
    MAX_HEADER,
    NUMBER_BITS,
    PLEA,
    PLEA_END,
    PLEA_OFFSET,
    PRIME,
    RETIRED,
    Damaged,
    Layout,
    Newer,
    decode_header,
    decode_slot,
    encode_slot,
    number_of,
)
from resilience_filelock._system import OPEN_FLAGS, open_kept, pread, pwrite, sync, sync_folder, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any, Final, NoReturn

    State = tuple[int, int, Snapshot]
    """A head, the number of the version that follows it, and the snapshot that the head stands for."""

LOOK: Final = 1.0
"""Seconds between two looks at whether somebody replaced the file behind our back."""
pack_head: Final = HEAD.pack
new_version: Callable[[type[Version], tuple[str, int]], Version] = tuple.__new__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - typeshed's gap
"""Makes a version without its constructor, which adds nothing: this stands on the road of every commit."""
blank_word: Callable[[type[Word]], Word] = object.__new__
blank_snapshot: Callable[[type[Snapshot]], Snapshot] = object.__new__
"""Likewise: their constructors take 0.1 µs together."""
_LONG_AGO: Final = float("-inf")
_NO_HEAD: Final = RETIRED - 1
"""What a head is taken for that is not there; no version has it."""
_NOTHING_READ: Final = -1
"""No head equals this."""
_NO_MAPPING: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}
"""From 3.13 on a mapping need not keep a descriptor of its own."""


class Unsure(Exception):
    """The head may have been written, or may not have reached the disk; its argument is the `OSError`."""


def new_incarnation() -> str:
    """16 random hexadecimal digits: what tells a record from an earlier one with the same key."""
    return os.urandom(8).hex()


class Descriptor:
    """An open file, closed when nobody refers to it any more: a thread that still reads never reads another's file."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it now; only a forked child may, whose other threads are gone."""
        number, self.number = self.number, -1
        if number >= 0:
            try:
                close(number)
            except OSError:
                pass  # it is closed all the same; what was to be on the disk was synchronised before

    def __del__(self) -> None:
        self.close()


class PolledHead:
    """The head read anew at each look, in the shape of a mapped one (`freshness=read`)."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor: Descriptor | None = descriptor

    def __getitem__(self, index: int, /) -> int:
        """Read the head.

        :raises ValueError: it was released, or cannot be read, which its cause then says.
        """
        descriptor = self._descriptor
        if descriptor is None:
            raise ValueError("operation forbidden on released head")
        try:
            data = pread(descriptor.number, HEAD.size, HEAD_OFFSET)
        except OSError as error:
            raise ValueError("the head cannot be read") from error
        return HEAD.unpack(data)[0] if len(data) == HEAD.size else _NO_HEAD

    def release(self) -> None:
        """No look any more."""
        self._descriptor = None


class Mode:
    """How all files of a storage are treated, from its settings and the file system that it is on."""

    __slots__ = ("durable", "mapped", "told")

    def __init__(self, *, durable: bool, mapped: bool, told: bool) -> None:
        self.durable = durable
        """Whether a commit waits for the disk."""
        self.mapped = mapped
        """Whether the head is looked at in memory, instead of read."""
        self.told = told
        """Whether a look at the head tells the truth at all; on a network file system it does not."""


class RecordFile:
    """An open file.

    `last` is the state that was read or committed last, with the head it stands for: as long as `view` shows that
    head, it is the committed one.  `fault` is what was wrong with the file when it was opened.
    """

    __slots__ = (
        "__weakref__",
        "_descriptor",
        "_identity",
        "_mapping",
        "_mode",
        "_placed",
        "capacity",
        "checked",
        "fault",
        "fd",
        "key",
        "last",
        "layout",
        "path",
        "plea",
        "view",
    )

    def __init__(self, descriptor: Descriptor, path: str, key: Key, mode: Mode) -> None:
        """Take over an open descriptor and look at the header.

        :raises OSError: it cannot be read.
        :raises StorageUnavailable: it is no file of this user's, or another key's.
        """
        self._descriptor = descriptor
        self._mapping: mmap | None = None
        self._mode = mode
        self._placed = False
        self.fd = descriptor.number
        self.path = path
        self.key = key
        self.last: State = (_NOTHING_READ, 0, Snapshot(None, None))
        status = os.fstat(self.fd)
        self._identity = (status.st_ino, status.st_dev)
        self.checked = clock.monotonic()
        self.layout = Layout(0, 0)
        self.fault = self._examine(status)
        self.capacity = self.layout.capacity
        self.plea: memoryview[int] | None = None
        self.view: memoryview[int] | PolledHead = self._look(status)
        enrol(self)

    def _examine(self, status: os.stat_result) -> Damaged | Newer | None:
        if not stat.S_ISREG(status.st_mode):
            raise StorageUnavailable(
                f"{self.path!r} is no regular file, so {self.key} has no place; remove it", key=self.key
            )
        if sys.platform != "win32" and status.st_uid != os.geteuid():
            raise StorageUnavailable(
                f"{self.path!r} belongs to another user (uid {status.st_uid}); run as that user, remove it, or choose "
                "another folder with RESILIENCE_STORAGE",
                key=self.key,
            )
        try:
            layout, key = decode_header(pread(self.fd, MAX_HEADER, HEAD_OFFSET))  # not from byte 0, which is the lock's
        except (Damaged, Newer) as fault:
            return fault
        if key != self.key:
            return self._of_another(key)
        if status.st_size < layout.size:
            return Damaged(f"has {status.st_size} of {layout.size} bytes")
        self.layout = layout
        return None

    def _of_another(self, key: tuple[str, str]) -> Damaged:
        """Tell a file that somebody copied to this place, which can be set aside, from two keys with one hash.

        :raises StorageUnavailable: the place belongs to both keys; the other one was first.
        """
        try:
            shared = self.path.endswith(base_of(Key(*key)) + SUFFIX)
        except ValueError:
            shared = False
        if shared:
            raise StorageUnavailable(
                f"{self.path!r} is the file of {self.key} and of {key[0]} {key[1]!r}, whose names have the same hash; "
                "rename one of the two",
                key=self.key,
            )
        return Damaged(f"is the record of {key[0]} {key[1]!r}")

    def _look(self, status: os.stat_result) -> memoryview[int] | PolledHead:
        if self._mode.mapped and status.st_size >= HEAD_END:
            from mmap import ACCESS_READ, mmap  # which a process that only asks once never comes to

            try:
                self._mapping = mmap(self.fd, HEAD_END, access=ACCESS_READ, **_NO_MAPPING)
            except OSError:
                pass  # no memory for it, or a file system that cannot map
            else:
                view = memoryview(self._mapping)
                if self.fault is None:
                    self.plea = view[PLEA_OFFSET:PLEA_END].cast("I")
                return view[HEAD_OFFSET:HEAD_END].cast("Q")
        return PolledHead(self._descriptor)

    def in_place(self) -> bool:
        """Whether this is still the file at its path, whole: one `lstat`.

        :raises OSError: the path cannot be looked at.
        """
        try:
            status = os.lstat(self.path)
        except NOT_THERE:
            same = False
        else:
            same = (status.st_ino, status.st_dev) == self._identity and status.st_size >= self.layout.size
        self.checked = clock.monotonic() if same else _LONG_AGO
        return same

    def is_well(self, *, fresh: bool) -> bool:
        """Whether it is open, was found whole, and, if `fresh`, shows what is committed now."""
        try:
            self.view[0]
        except ValueError:
            return False
        return self.fault is None and (self._mode.told or not fresh)

    def refresh(self, deadline: float) -> State | None:
        """Read what is committed now; `None` if the file is retired.

        :raises Damaged, Newer: there is nothing that could be read.
        :raises OSError: it cannot be read.
        :raises StorageUnavailable: others commit faster than this reads, until `deadline`.
        :raises ValueError: the file was released, or its head cannot be read.
        """
        if self.fault is not None:
            raise self.fault
        view, layout = self.view, self.layout
        while True:
            word = view[0]
            if word & RETIRED:
                return None
            if word == 0:
                return self._keep(word, 1, None, None)
            number = number_of(word)
            if number is not None:
                found = decode_slot(pread(self.fd, layout.slot, layout.slots[number & 1]))
                if found is not None and found[0] == number:
                    return self._keep(word, number + 1, found[3], Version(found[1], number))
            if view[0] == word:
                return self._recover(word, number or 0)
            if clock.monotonic() > deadline:
                raise StorageUnavailable(f"{self.key} is committed faster than it can be read", key=self.key)

    def _recover(self, word: int, number: int) -> State:
        """Find what a damaged file still holds: the younger of the slots that are whole.

        What is committed next gets a number above all that stand in the file, and the slot that is damaged.
        """
        layout = self.layout
        slots = [decode_slot(pread(self.fd, layout.slot, offset)) for offset in layout.slots]
        found = max((slot for slot in slots if slot is not None), key=itemgetter(0), default=None)
        if found is None:
            raise Damaged("has no version that is whole")
        following = max(found[0], number) + 1
        following += following & 1 == found[0] & 1
        return self._keep(word, following, found[3], Version(found[1], found[0]))

    def _keep(self, word: int, following: int, payload: bytes | None, version: Version | None) -> State:
        if self._mode.told:
            state = (word, following, Snapshot(payload, version, Word(self.view, word)))
        else:
            state = (_NOTHING_READ, following, Snapshot(payload, version))
        self.last = state
        return state

    def commit(self, current: State, payload: bytes, expires_at: float | None) -> Snapshot:
        """Write the version that follows the current state, with the lock held.

        Not that of `last`: another thread that reads without the lock may put an older one there at any time.

        :raises OSError: it was not written.
        :raises Unsure: it may have been.
        """
        _, number, snapshot = current
        version = snapshot.version
        incarnation = new_incarnation() if version is None else version[0]
        fd, mode = self.fd, self._mode
        data = encode_slot(number, incarnation.encode(), expires_at, payload)
        offset = self.layout.slots[number & 1]
        written = pwrite(fd, data, offset)
        if written != len(data):
            write_all(fd, data[written:], offset + written)
        durable = mode.durable
        if durable:
            if not self._placed:
                self.place()
            if number == 1:
                sync(fd)  # later ones have one before them, which stands in for a slot that is torn: see `_recover`
        head = number | number % PRIME << NUMBER_BITS  # `word_of`, in line
        try:
            pwrite(fd, pack_head(head), HEAD_OFFSET)
            if durable:
                sync(fd)
        except OSError as error:
            self._doubt(error, head)
        version = new_version(Version, (incarnation, number))
        if not mode.told:
            return self._keep(head, number + 1, payload, version)[2]
        # What `_keep` does, in line.
        word = blank_word(Word)
        word.view = self.view
        word.value = head
        word.look = None
        snapshot = blank_snapshot(Snapshot)
        snapshot.payload = payload
        snapshot.version = version
        snapshot.is_current = word
        snapshot.time = None
        self.last = (head, number + 1, snapshot)
        return snapshot

    def place(self) -> None:
        """Bring the names of the file and of its folder to the disk, before a commit in it is to survive all.

        Whoever made the file, or put it in the place of another one, may have been killed before he did.

        :raises OSError: it cannot be done.
        """
        folder = os.path.dirname(self.path)
        sync_folder(folder)
        sync_folder(os.path.dirname(folder))
        self._placed = True

    def _doubt(self, error: OSError, head: int) -> NoReturn:
        """Tell a head that could not be written from one that may have been."""
        try:
            unsure = self.view[0] == head
        except (OSError, ValueError):
            unsure = True
        if unsure:
            raise Unsure(error) from error
        raise error

    def _write_head(self, head: int) -> None:
        try:
            pwrite(self.fd, pack_head(head), HEAD_OFFSET)
            if self._mode.durable:
                sync(self.fd)
        except OSError as error:
            self._doubt(error, head)

    def retire(self) -> None:
        """Tell all who have this file open that it is no longer the record; with the lock held, before it goes."""
        if not self._is_foreign():  # else who has it open sees within a second that it is gone
            self._write_head(self.view[0] | RETIRED)

    def mend(self) -> None:
        """Take back a retirement whose owner died before the file went; with the lock held."""
        if not self._is_foreign():
            self._write_head(self.view[0] & ~RETIRED)

    def _is_foreign(self) -> bool:
        """Whether it is not ours to write to: never a record, or one of a later library."""
        return isinstance(self.fault, Newer) or (self.fault is not None and self.fault.foreign)

    def linked(self) -> bool:
        """Whether this is still the file at its path, looked at once a second.

        Asked before each commit: what is written to a file that somebody has deleted or replaced is lost.  To look
        each time would double the time of a commit (a file that is looked at has its times written in between).
        """
        return clock.monotonic() - self.checked < LOOK or self.in_place()

    def lock(self) -> bool:
        """Try once for the lock between processes."""
        return native.lock(self.fd, blocking=False)

    def plead(self, moment: int) -> None:
        """Say since which moment the first of those waits who wait for the lock; 0: nobody does, or is to say so anew.

        No more than a wish: who dies meanwhile costs the others one pause.
        """
        if self.plea is not None and self.plea[0] != moment:
            pwrite(self.fd, PLEA.pack(moment), PLEA_OFFSET)

    def release(self) -> None:
        """Let go of it: whoever still looks at the head learns that his snapshot is no longer current.

        The descriptor closes, and with it goes the lock, when the last thread that uses it is done.
        """
        self.view.release()
        if self.plea is not None:
            self.plea.release()
        mapping, self._mapping = self._mapping, None
        if mapping is not None:
            mapping.close()

    def after_fork(self) -> None:
        """Close it in the child, without unlocking: the lock is the parent's."""
        self.fd = -1
        self.release()
        self._descriptor.close()


def open_file(path: str, key: Key, mode: Mode) -> RecordFile:
    """Open the file of a record.

    :raises OSError: there is none, or it cannot be opened.
    :raises StorageUnavailable: it is no file of this user's.
    """
    return RecordFile(Descriptor(open_kept(path, OPEN_FLAGS)), path, key, mode)


def make_file(path: str, image: bytes, *, durable: bool) -> Descriptor:
    """Make a new file, all its bytes written: a commit never meets a full disk, a reader never half a file.

    :raises OSError: it is there already, or cannot be made; nothing is left of it.
    """
    descriptor = Descriptor(open_kept(path, OPEN_FLAGS | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        write_all(descriptor.number, image, 0)
        if durable:
            sync(descriptor.number)
    except BaseException:
        os.unlink(path)
        raise
    return descriptor
