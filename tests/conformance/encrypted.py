"""How a process makes the storage that encrypts, over another one."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from resilience_aesgcm import AesGcmSettings, AesGcmStorage

SETTINGS = AesGcmSettings(key=SecretStr("c2l4dGVlbiByYW5kb20gYnl0ZXMgYW5kIDE2IG1vcmU="))


def encrypted(storage: Any, url: str, settings: None = None) -> AesGcmStorage:
    """Make it; what the inner storage says of itself is told by the report too."""
    return AesGcmStorage(f"aesgcm+{url}", SETTINGS, storage(url, settings))
