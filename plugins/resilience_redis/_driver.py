"""redis-py, imported when a storage is made, by one thread while all others wait for this module.

Its modules import each other.  Two threads that begin at two ends of that, as the first call and the listener do, or a
thread and an event loop, wait for each other, and Python lets one of them fail.
"""

from __future__ import annotations

# Used by nobody here: to import it is all that this module is for.  It brings the part for asyncio too.
import redis.connection  # noqa: F401 # pyright: ignore[reportUnusedImport]
