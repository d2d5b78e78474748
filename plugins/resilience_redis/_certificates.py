"""Which of our files TLS cannot begin with: the driver names the server's host and port for each of them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resilience_redis._settings import RedisSettings


def fault(settings: RedisSettings) -> str:
    """Return the variable, the file, and what is wrong with it; nothing if all can be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate, key = settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file
    name, path = "CA", authority
    try:
        if authority:
            context.load_verify_locations(authority)
        if certificate:
            name, path = "CERT", certificate
            Path(certificate).read_bytes()  # of a file that is not there, the next but one does not say which
            if key:
                name, path = "KEY", key
                Path(key).read_bytes()
            context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks for one at the terminal
    except OSError as error:
        return f"RESILIENCE_REDIS__TLS_{name}_FILE: {path}: {error.strerror or error}"
    return ""
