"""The keys: how they are written, and what each is called in a record."""

from __future__ import annotations

import base64
import re
from binascii import Error
from hashlib import sha256
from typing import TYPE_CHECKING

from resilience import PluginError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_LENGTHS = (16, 24, 32)


class Keyring:
    """Ciphers by the names of their keys; the first encrypts.

    :param text: keys in base64, parted by commas or white space.
    :raises ValueError: one of them cannot be a key; the message says which, and shows none.
    """

    def __init__(self, text: str) -> None:
        keys = [_key(word, number) for number, word in enumerate(re.split(r"[,\s]+", text.strip()), 1)]
        self.ciphers: dict[str, AESGCM] = {name_of(key): _cipher(key) for key in keys}
        self.first = name_of(keys[0])


def _key(word: str, number: int) -> bytes:
    which = f"key {number}"
    try:
        key = base64.b64decode(word.encode("ascii"), altchars=b"-_" if re.search("[-_]", word) else None, validate=True)
    except (Error, UnicodeEncodeError):
        raise ValueError(f"{which} is not in base64; make one with: openssl rand -base64 32") from None
    if len(key) not in _LENGTHS:
        raise ValueError(f"{which} has {len(key)} bytes, not 16, 24 or 32; make one with: openssl rand -base64 32")
    return key


def name_of(key: bytes) -> str:
    """Return what a key is called in the records that it encrypted: it says nothing of a key that is random."""
    return sha256(b"resilience aesgcm key " + key).hexdigest()[:16]


def _cipher(key: bytes) -> AESGCM:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise PluginError(
            "the storage aesgcm needs the package cryptography: pip install 'resilience-framework[crypto]'"
        ) from error
    return AESGCM(key)
