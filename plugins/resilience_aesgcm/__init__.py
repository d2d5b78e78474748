"""Encrypts the records of any other storage: `aesgcm+file:///var/lib/app`, `aesgcm+redis://host`.

AES-GCM, with the key and the name of the record as associated data: a record that was changed, or moved to another
name, is damaged.  Needs the package `cryptography` (``pip install resilience-framework[crypto]``).

    RESILIENCE_STORAGE=aesgcm+file:
    RESILIENCE_AESGCM__KEY=$(openssl rand -base64 32)

What is not hidden: that there is a record, its name, its version, its size, and when it is committed.  Who may write
to the storage can put an older record of the same name back.
"""

from __future__ import annotations

from resilience_aesgcm._settings import AesGcmSettings
from resilience_aesgcm.storage import AesGcmStorage

__all__ = ["AesGcmSettings", "AesGcmStorage"]
