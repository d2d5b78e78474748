"""What may be shown of a URL: everything but its secrets.

When in doubt it hides too much: a host missing from a message is a nuisance, a password in a log is an incident.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"
"""What stands in place of a secret."""

# Parts of the names of query parameters whose values are secrets; found anywhere in a name, in any case.
_SECRET_NAMES = ("pass", "pwd", "secret", "token", "key", "cred", "auth", "sig", "sas", "jwt", "cookie", "session")

# What parts the parameters of a query, of a fragment, or of a connection string such as "host=db password=x".
_SEPARATOR = re.compile(r"([?&;#\s]+)")

# A host, or several, each with a port: what an authority without "@" looks like if it holds no secret.
_HOST = r"(?:\[[0-9A-Fa-f:.]*(?:%[\w.-]*)?\]|[^:,\[\]]*)(?::[0-9]*)?"
_HOSTS = re.compile(f"{_HOST}(?:,{_HOST})*")

_DRIVE = re.compile(r"/*[A-Za-z]:[/\\]")


def redact(url: str) -> str:
    """Return a URL without its secrets, for messages, reprs, logs and ``resilience config``.

    Hidden are the user and the password before an ``@`` (a user alone may be a token), a password where the host or
    the port should be, and the values of query parameters with names such as ``password``, ``token``, ``api_key``.
    Text that is no URL comes back as it is, unless a part of it looks like one of these.
    """
    scheme, colon, rest = url.partition(":")
    if colon:
        url = f"{scheme}:{_without_user(rest)}"
    return _without_values(url)


def redact_within(text: str) -> str:
    """Take the secrets out of a line that quotes a URL, as a plugin may do with its own in an error."""
    before, mark, _ = text.partition("://")
    if not mark:
        return text
    start = before.rfind(" ") + 1
    return text[:start] + redact(text[start:])


def _without_user(rest: str) -> str:
    """Hide user and password in what follows the scheme."""
    body = rest.lstrip("/")
    slashes = rest[: len(rest) - len(body)]
    # Up to the last "@": a password may hold one, and "/", "?" and "#" as well.
    secret, at, host = body.rpartition("@")
    if at:
        is_path = len(slashes) not in (0, 2) and ":" not in _DRIVE.sub("", secret, count=1)
        return rest if is_path else f"{slashes}{HIDDEN}@{host}"
    if slashes == "//":
        authority = re.split(r"[/?#]", body, maxsplit=1)[0]
        if not _HOSTS.fullmatch(authority):
            return f"{slashes}{HIDDEN}{body[len(authority) :]}"
    return rest


def _without_values(url: str) -> str:
    """Hide the values of parameters that are secrets."""
    kept: list[str] = []
    hiding = False
    separator = ""
    for index, part in enumerate(_SEPARATOR.split(url)):
        if index % 2:
            separator = part
            continue
        name, equals, value = part.partition("=")
        if equals:
            hiding = _is_secret(name)
        # A part without a name belongs to the value before it: people write "&", "#" and spaces in passwords.
        elif hiding:
            continue
        kept += (separator, f"{name}={HIDDEN}" if hiding and value else part)
    return "".join(kept)


def _is_secret(name: str) -> bool:
    plain = unquote(re.split(r"[/:]", name)[-1]).lower()
    return any(part in plain for part in _SECRET_NAMES)
