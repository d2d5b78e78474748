"""The settings: `RESILIENCE_REDIS__PREFIX` and the others, for every scheme of this storage."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from resilience import Duration, StorageSettings


class RedisSettings(StorageSettings):
    """How the storage uses its server; what is different for each program stands in the URL."""

    section: ClassVar[str | None] = "redis"

    prefix: str = Field(
        default="resilience:",
        min_length=1,
        max_length=100,
        description="What the name of each key and of the channel begins with.  Programs with the same prefix share "
        "their breakers; printable, without braces or spaces.",
    )
    push: bool = Field(
        default=True,
        description="Whether a thread listens for the commits of others, so that a call asks the server only after "
        "one.  Without it a record is loaded at each call, or trusted for `RESILIENCE_MAX_STALENESS`.",
    )
    max_staleness: Duration = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds after which no snapshot is trusted any more if the listening thread does not hear from "
        "the server; it asks four times as often.",
    )
    max_connections: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Connections that the threads of a process use at one time, and the tasks of each event loop; "
        "others wait for one.  The listener has one of its own.",
    )
    username: str | None = Field(default=None, description="The user, unless the URL names one.")
    password: SecretStr | None = Field(default=None, description="The password, unless the URL has one.")
    sentinel_username: str | None = Field(default=None, description="The user at the Sentinels.")
    sentinel_password: SecretStr | None = Field(default=None, description="The password at the Sentinels.")
    tls_ca_file: str | None = Field(
        default=None,
        description="Certificates that the server's is checked against, in PEM; the system's, if left out.",
    )
    tls_cert_file: str | None = Field(default=None, description="The certificate that is shown to the server, in PEM.")
    tls_key_file: str | None = Field(
        default=None,
        description="The private key of that certificate, in PEM, without a passphrase; that file, if left out.",
    )
    tls_check_hostname: bool = Field(
        default=True,
        description="Whether the certificate of the server must be for the host of the URL.  It is checked in any "
        "case who signed it.",
    )

    @field_validator("tls_key_file")
    @classmethod
    def _has_a_certificate(cls, value: str | None, given: ValidationInfo) -> str | None:
        if value is not None and given.data.get("tls_cert_file") is None:
            raise ValueError("a private key is of use with its certificate only: set tls_cert_file too")
        return value

    @field_validator("prefix")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        if not value.isprintable() or any(letter in value for letter in "{} "):
            raise ValueError("a prefix is printable and has no braces or spaces")
        return value
