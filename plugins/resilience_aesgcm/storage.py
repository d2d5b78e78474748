"""The storage that encrypts what another one keeps."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from resilience import (
    ConfigurationError,
    HoldingStorage,
    StorageCorrupt,
    StorageIncompatible,
    StorageUnavailable,
)
from resilience_aesgcm._keys import Keyring
from resilience_aesgcm._settings import AesGcmSettings

if TYPE_CHECKING:
    from resilience import InnerStorage, Key

FORMAT = 1
"""The number of the way in which records are written."""
_NONCE = 12
_KEY_NAME = re.compile("[0-9a-f]{16}")
_SECTION = "RESILIENCE_AESGCM__"


class AesGcmStorage(HoldingStorage):
    """Keeps ``{"aesgcm": 1, "kid": …, "nonce": …, "data": …}``: JSON, as every storage can keep it.

    :param url: ``aesgcm+inner:…``.
    :param settings: the keys.
    :param inner: the storage that keeps the records.
    :raises ConfigurationError: there is no key, or one cannot be.
    :raises PluginError: the package `cryptography` is not installed.
    """

    Settings = AesGcmSettings

    def __init__(self, url: str, settings: AesGcmSettings | None, inner: InnerStorage | object) -> None:
        super().__init__(url, settings, inner)
        settings = settings or AesGcmSettings()
        if (settings.key is None) == (settings.key_file is None):
            raise ConfigurationError(
                f"storage aesgcm: set {_SECTION}KEY to a random key, made with `openssl rand -base64 32`, or "
                f"{_SECTION}KEY_FILE to the path of a file with one{'; not both' if settings.key else ''}"
            )
        self._file = settings.key_file
        self._ring: Keyring | None = None
        if settings.key is not None:
            try:
                self._ring = Keyring(settings.key.get_secret_value())
            except ValueError as error:
                raise ConfigurationError(f"{_SECTION}KEY: {error}") from None

    def outgoing(self, key: Key, payload: bytes) -> bytes:
        """Encrypt."""
        ring = self._ring or self._read_file(key)
        nonce = os.urandom(_NONCE)
        data = ring.ciphers[ring.first].encrypt(nonce, payload, _associated(key))
        texts = {name: base64.b64encode(value).decode("ascii") for name, value in (("nonce", nonce), ("data", data))}
        return json.dumps({"aesgcm": FORMAT, "kid": ring.first, **texts}, separators=(",", ":")).encode("ascii")

    def incoming(self, key: Key, payload: bytes) -> bytes:
        """Decrypt.

        :raises StorageCorrupt: it was changed, or encrypted for another name.
        :raises StorageIncompatible: it was encrypted with a key that is not known here, or by a newer version, or not.
        """
        sealed = _unfolded(key, payload)
        ring = self._ring or self._read_file(key)
        if sealed.kid not in ring.ciphers and self._file is not None:
            ring = self._read_file(key)  # it may have come meanwhile
        cipher = ring.ciphers.get(sealed.kid)
        if cipher is None:
            raise StorageIncompatible(
                f"the record of {key} was encrypted with the key {sealed.kid}, and {self._where} has "
                f"{', '.join(ring.ciphers)}; add that key, or delete the record",
                key=key,
            )
        from cryptography.exceptions import InvalidTag

        try:
            return cipher.decrypt(sealed.nonce, sealed.data, _associated(key))
        except InvalidTag:
            raise StorageCorrupt(f"the record of {key} was changed, or belongs to another name", key=key) from None

    @property
    def _where(self) -> str:
        return f"{_SECTION}KEY" if self._file is None else self._file

    def _read_file(self, key: Key) -> Keyring:
        path = self._where
        try:
            self._ring = ring = Keyring(Path(path).read_text("ascii"))
        except OSError as error:
            raise StorageUnavailable.from_os_error(error, f"reading the key file {path}", key) from error
        except ValueError as error:
            what = "it is no text" if isinstance(error, UnicodeDecodeError) else error
            raise StorageUnavailable(f"the key file {path}: {what}", key=key) from None
        return ring


class _Sealed(NamedTuple):
    kid: str
    nonce: bytes
    data: bytes


def _associated(key: Key) -> bytes:
    """Return what a record is bound to; no part of a key has a line break."""
    return f"resilience aesgcm {FORMAT}\n{key.kind}\n{key.name}".encode()


def _unfolded(key: Key, payload: bytes) -> _Sealed:
    try:
        found: object = json.loads(payload)
    except (ValueError, RecursionError):
        raise StorageCorrupt(f"the record of {key} is no JSON", key=key) from None
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if "aesgcm" not in fields:
        raise StorageIncompatible(
            f"the record of {key} is not encrypted: another program keeps it in the same place; choose a new place for "
            "aesgcm+…, or delete the record",
            key=key,
        )
    number = fields["aesgcm"]
    if isinstance(number, int) and number > FORMAT:
        raise StorageIncompatible(f"the record of {key} was encrypted by a newer version: update this one", key=key)
    try:
        if number != FORMAT or not _KEY_NAME.fullmatch(fields["kid"]):
            raise ValueError("made by hand")
        nonce, data = (base64.b64decode(fields[name], validate=True) for name in ("nonce", "data"))
        if len(nonce) != _NONCE:
            raise ValueError("made by hand")
    except (ValueError, KeyError, TypeError):
        raise StorageCorrupt(f"the record of {key} is damaged", key=key) from None
    return _Sealed(fields["kid"], nonce, data)
