"""The URL: which servers there are, who we are there, and whether they are asked through TLS.

redis://[user:password@]host[:port][/database]            rediss:// through TLS
redis+unix:///path/of/socket[?db=1]
redis+sentinel://host[:port],host[:port]…/name[/database]   rediss+sentinel://
redis+cluster://host[:port],host[:port]…                  rediss+cluster://
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote

from resilience import ConfigurationError

_FORMS = {
    "redis": ("one", False),
    "rediss": ("one", True),
    "valkey": ("one", False),
    "valkeys": ("one", True),
    "redis+unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PORTS = {"one": 6379, "sentinel": 26379, "cluster": 6379}
_EXAMPLES = {
    "one": "redis://host:6379/0",
    "unix": "redis+unix:///run/redis/redis.sock?db=0",
    "sentinel": "redis+sentinel://host1:26379,host2:26379/mymaster/0",
    "cluster": "redis+cluster://host1:6379,host2:6379",
}


class Address(NamedTuple):
    """Where a server listens; a socket in the file system has no port."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        """For messages."""
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Place(NamedTuple):
    """What a URL says.

    `form` is ``one``, ``sentinel`` or ``cluster``; `seeds` are the servers that it names, `master` is the name that
    the Sentinels know the one by that is meant.
    """

    form: str
    seeds: tuple[Address, ...]
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    master: str = ""

    def __repr__(self) -> str:
        """As for messages: who looks at variables shall see no password."""
        return f"<Place {self}>"

    def __str__(self) -> str:
        """For messages: without user and password."""
        scheme = "rediss" if self.tls else "redis"
        servers = ",".join(map(str, self.seeds))
        if self.form == "cluster":
            return f"{scheme}+cluster://{servers}"
        if self.form == "sentinel":
            return f"{scheme}+sentinel://{servers}/{self.master}/{self.database}"
        if not self.seeds[0].port:
            return f"redis+unix://{servers}?db={self.database}"
        return f"{scheme}://{servers}/{self.database}"


def parse(url: str) -> Place:
    """Read a URL.

    :raises ConfigurationError: it is none that this storage knows; the message does not repeat it, as it may hold a
        password.
    """
    scheme, _, rest = url.partition(":")
    form, tls = _FORMS[scheme]
    try:
        return _parse(form, rest, tls=tls)
    except ValueError as error:
        raise ConfigurationError(
            # No "@" behind a URL: what stands before one is taken for a secret, and blotted out of messages.
            f"RESILIENCE_STORAGE: {error}; with user:password@ before the host if need be, and %-escapes for what is"
            f" special in URLs, write {_EXAMPLES[form].replace('redis', 'rediss' if tls else 'redis', 1)}"
        ) from None


def _parse(form: str, rest: str, *, tls: bool) -> Place:
    if not rest.startswith("//"):
        raise ValueError("the URL names no server")
    rest, _, query = rest[2:].partition("?")
    netloc, _, path = rest.partition("/")
    identity, at, servers = netloc.rpartition("@")
    username, _, password = identity.partition(":")
    user = (unquote(username) or None, unquote(password) or None) if at else (None, None)
    if form == "unix":
        if servers or not path:
            raise ValueError("the URL names no socket by its absolute path")
        name, _, database = query.partition("=")
        if query and name != "db":
            raise ValueError("the one thing after ? is db")
        return Place("one", (Address(f"/{unquote(path)}"),), False, *user, _database(database))
    if query:
        raise ValueError("nothing may follow a ?: the settings are variables, RESILIENCE_REDIS__…")
    seeds = tuple(_server(server, _PORTS[form]) for server in servers.split(","))
    parts = [unquote(part) for part in path.split("/") if part]
    master = ""
    if form == "sentinel":
        if not parts:
            raise ValueError("the URL does not say what the Sentinels call the server")
        master, *parts = parts
    if len(parts) > (form != "cluster") or (form == "one" and len(seeds) > 1):
        raise ValueError("the URL has too many parts")
    return Place(form, seeds, tls, *user, _database(parts[0] if parts else ""), master)


def _server(text: str, port: int) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or number.endswith("]"):
        host, number = text, str(port)
    host = unquote(host.removeprefix("[").removesuffix("]"))
    if not host or not number.isascii() or not number.isdecimal() or not 0 < int(number) <= 65535:
        raise ValueError("a server is host or host:port")
    return Address(host, int(number))


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise ValueError("the database is a number")
    return int(text or 0)
