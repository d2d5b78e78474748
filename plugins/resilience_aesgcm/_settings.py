"""The settings: `RESILIENCE_AESGCM__KEY` or `RESILIENCE_AESGCM__KEY_FILE`."""

from __future__ import annotations

from pydantic import Field, SecretStr

from resilience import StorageSettings


class AesGcmSettings(StorageSettings):
    """The keys: of several, the first encrypts, all decrypt."""

    key: SecretStr | None = Field(
        default=None,
        description="16, 24 or 32 random bytes in base64 (`openssl rand -base64 32`), or several with commas between: "
        "the first encrypts, all decrypt.",
    )
    key_file: str | None = Field(
        default=None,
        description="Path of a file with the keys instead, one a line.  It is read when it is needed first, and again "
        "when a record was encrypted with a key that is not known.",
    )
