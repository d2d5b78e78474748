"""Storage on a Redis or Valkey server, shared by every machine that names it: `redis://host:6379/0`.

The example of a storage that works by compare-and-set alone: no lock, one round trip for a commit, and a conflict
brings the record that is committed now.

| file | subject |
|---|---|
| `storage` | the hooks |
| `_script` | what the server does in one step: load, save, delete, set aside |
| `_record` | how a record looks there: the name of its key, its fields, its checksum |
| `_address` | the URL: one server, those that a Sentinel names, or a cluster |
| `_route` | which server is asked, and what is done when it sends us to another |
| `_connections`, `_loops` | asking it: from threads, from coroutines |
| `_certificates` | what is wrong with our files, where TLS cannot begin |
| `_reply` | what it answers |
| `_freshness`, `_listener` | whether a snapshot is still current, and the thread that is told of commits |
| `_errors` | from the driver's errors to the framework's |
| `_examine` | what `resilience doctor` looks at |
| `_settings` | the variables |
"""

from __future__ import annotations

from resilience_redis._settings import RedisSettings
from resilience_redis.storage import RedisStorage

__all__ = ["RedisSettings", "RedisStorage"]
