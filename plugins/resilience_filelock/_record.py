"""The layout of a record's file; pure functions over bytes.

====================  ================================================================================================
offset                what
====================  ================================================================================================
0                     one byte for the lock (Windows locks a range; nothing is ever read or written here)
4                     the plea, 4 bytes: since when the first waits who waits for the lock; means nothing to a commit
8                     the head, 8 bytes, aligned: the number of the committed version, and with it the commit itself
16                    ``resilience-state`` and the header: format, sizes, the key in full, a checksum
`Layout.header`       slot 0: the versions with an even number
header + slot         slot 1: the versions with an odd number
====================  ================================================================================================

A commit writes the slot that is not committed, then the head.  The disk may take them in any order: a head whose slot
is not there is the commit before it.  Numbers are in the machine's own byte order: a state folder belongs to one
machine.

The head carries the number in its low 48 bits, above them the number modulo a prime, so that a flipped bit is not
taken for another version, and in bit 63 `RETIRED`: this file was or is about to be deleted, set aside or replaced.
A slot carries a checksum over all of it, its own number, the incarnation, when it expires, and the payload as it is,
for a person to read with ``strings``.
"""

from __future__ import annotations

from _struct import Struct  # what `struct` offers under this name
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience import Key

PLEA_OFFSET: Final = 4
PLEA_END: Final = 8
PLEA: Final = Struct("=I")
HEAD_OFFSET: Final = 8
HEAD_END: Final = 16
"""A file shorter than this has no head that could be mapped."""
HEAD: Final = Struct("=Q")
RETIRED: Final = 1 << 63
LAST_NUMBER: Final = 1 << 47
"""A number above is damage: at a million commits a second it takes four years to get here."""
NUMBER_BITS: Final = 48
NUMBER: Final = (1 << NUMBER_BITS) - 1
PRIME: Final = 32749

FORMAT: Final = 1
_MAGIC: Final = b"resilience-state"
_HEADER: Final = Struct("=16sHHIIHHI")  # magic, format, its complement, header, slot, length of kind, of name, checksum
_HEADER_OFFSET: Final = HEAD_END
_KEY_OFFSET: Final = _HEADER_OFFSET + _HEADER.size
_TEXT: Final = _KEY_OFFSET - HEAD_OFFSET
"""Where the key begins in what is read of a file, which is all from the head on."""
MAX_HEADER: Final = 9216
"""Two names of 1000 characters with 4 bytes each, rounded up."""

_SECTOR: Final = 512
_SLOT: Final = Struct("=IIQd16s")  # checksum, length of the payload, number, expires_at, incarnation
_BODY: Final = Struct("=IQd16s")  # the same without the checksum
_CRC: Final = Struct("=I")
_NO_CHECKSUM: Final = bytes(_CRC.size)
"""What stands in the place of the checksum when it is computed."""
_pack_body: Final = _BODY.pack
_pack_crc: Final = _CRC.pack
NEVER: Final = float("inf")
FIRST_SLOT: Final = 1536
"""Header and two slots of this size make a file that fills one page of 4 KiB."""
MAX_PAYLOAD: Final = 1 << 20


class Layout:
    """Where the parts of one file are.

    `slots` are the offsets of the two slots, `capacity` is the longest payload that a slot takes, in bytes.
    """

    __slots__ = ("capacity", "header", "slot", "slots")

    def __init__(self, header: int, slot: int) -> None:
        self.header = header
        self.slot = slot
        self.slots = (header, header + slot)
        self.capacity = slot - _SLOT.size - 1  # a newline after the payload, for people

    @property
    def size(self) -> int:
        """Bytes that the file must have at least."""
        return self.header + 2 * self.slot


class Damaged(Exception):
    """The bytes are not a record, or no longer; `foreign`: they never were one."""

    foreign = False


class Newer(Exception):
    """The file was written by a later version of this library."""


UPDATE: Final = "update this installation or use another folder"
"""What to do about a `Newer` file: nothing about the file."""


def word_of(number: int) -> int:
    """Make the head for a version number."""
    return number | number % PRIME << NUMBER_BITS


def number_of(word: int) -> int | None:
    """Read the version number that a head stands for, retired or not; `None` if the head is damaged."""
    number = word & NUMBER
    return number if word & ~RETIRED == word_of(number) and number <= LAST_NUMBER else None


def layout_for(key: Key, length: int = 0) -> Layout:
    """Lay out a new file for a key, with room for a payload of `length` bytes and for its growth."""
    header = _KEY_OFFSET + len(key.kind.encode()) + len(key.name.encode()) + 2
    slot = FIRST_SLOT
    while slot - _SLOT.size - 1 < length:
        slot *= 4
    return Layout(-(-header // _SECTOR) * _SECTOR, slot)


def encode_file(
    key: Key,
    layout: Layout,
    number: int = 0,
    incarnation: str = "",
    expires_at: float | None = None,
    payload: bytes = b"",
) -> bytes:
    """Make a whole new file, all its bytes written, with one committed version or, for number 0, with none."""
    kind, name = key.kind.encode(), key.name.encode()
    text = kind + b"\n" + name + b"\n"
    parts = (_MAGIC, FORMAT, FORMAT ^ 0xFFFF, layout.header, layout.slot, len(kind), len(name))
    checksum = crc32(_HEADER.pack(*parts, 0) + text)
    image = bytearray(layout.size)
    image[HEAD_OFFSET:HEAD_END] = HEAD.pack(word_of(number))
    image[_HEADER_OFFSET : _KEY_OFFSET + len(text)] = _HEADER.pack(*parts, checksum) + text
    if number:
        slot = encode_slot(number, incarnation.encode(), expires_at, payload)
        begin = layout.slots[number & 1]
        image[begin : begin + len(slot)] = slot
    return bytes(image)


def decode_header(data: bytes) -> tuple[Layout, tuple[str, str]]:
    """Read layout and key (kind, name) of a file, from its bytes from the head to `MAX_HEADER`, or more of them.

    Nothing in it is believed that the checksum does not cover, and no size that a file of ours cannot have.

    :raises Damaged: with what is wrong.
    :raises Newer: a later format; only the place of the format is fixed for all time.
    """
    if len(data) < _TEXT:
        raise Damaged(f"has {HEAD_OFFSET + len(data)} bytes, too few for a record")
    magic, version, complement, header, slot, kind, name, checksum = _HEADER.unpack_from(data, HEAD.size)
    if magic != _MAGIC or version ^ complement != 0xFFFF:
        damage = Damaged("does not begin like a record")
        damage.foreign = magic != _MAGIC
        raise damage
    if version != FORMAT:
        raise Newer(f"has format {version}, this library knows {FORMAT}")
    text = data[_TEXT : _TEXT + kind + name + 2]
    covered = data[HEAD.size : _TEXT - _CRC.size] + _NO_CHECKSUM
    if len(text) != kind + name + 2 or crc32(text, crc32(covered)) != checksum:
        raise Damaged("has a damaged header")
    layout = Layout(header, slot)
    # The checksum is no secret: whoever writes hostile numbers computes it too.
    if header % _SECTOR or header < _KEY_OFFSET + len(text) or header > MAX_HEADER:
        raise Damaged("has an impossible header size")
    if slot % _SECTOR or slot < _SECTOR or layout.capacity > 4 * MAX_PAYLOAD:
        raise Damaged("has an impossible slot size")
    try:
        return layout, (text[:kind].decode(), text[kind + 1 : -1].decode())
    except UnicodeDecodeError:
        raise Damaged("has a key that is no text") from None


def encode_slot(number: int, incarnation: bytes, expires_at: float | None, payload: bytes) -> bytes:
    """Make what is written into the slot of a version."""
    body = _pack_body(len(payload), number, NEVER if expires_at is None else expires_at, incarnation) + payload
    return _pack_crc(crc32(body)) + body + b"\n"


def decode_slot(data: bytes) -> tuple[int, str, float, bytes] | None:
    """Read number, incarnation, when it expires, and payload of a slot; `None` if it is empty, torn or damaged."""
    if len(data) < _SLOT.size:
        return None
    checksum, length, number, expires_at, incarnation = _SLOT.unpack_from(data)
    end = _SLOT.size + length
    if end > len(data) or not 0 < number <= LAST_NUMBER or crc32(memoryview(data)[_CRC.size : end]) != checksum:
        return None
    try:
        return number, incarnation.decode("ascii"), expires_at, data[_SLOT.size : end]
    except UnicodeDecodeError:
        return None
