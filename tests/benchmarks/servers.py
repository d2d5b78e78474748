"""The same breaker on a Redis and on a PostgreSQL of this machine, and others' on that Redis.

Servers are started on loopback ports of their own, and ended.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import failures
from benchmarks.bench import HERE
from benchmarks.crowd import crowd, summary
from benchmarks.harness import race
from benchmarks.jobs import work
from benchmarks.outage import outage, reached
from benchmarks.prober import killed_prober
from benchmarks.propagation import propagation
from benchmarks.released import released
from servers.postgres_server import PostgresServer
from servers.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench

SIZE = 8
RIVALS = ("pybreaker_redis", "purgatory_redis", "interlock_redis")
FAILURES = 500
"""Failing calls, of which none opens the breaker."""
WORK = 0.0005
"""Seconds that a call waits for what it protects, where it does."""
DURABLE = ("fsync=on", "synchronous_commit=on")
"""Settings of a PostgreSQL whose commits survive the loss of power."""
QUICK = {"RESILIENCE_POSTGRES__DURABILITY": "none"}
"""A storage that commits with `synchronous_commit = off`.  By itself the storage waits for the disk on a server whose
setting that is as well."""


def measure(bench: Bench) -> dict[str, Any]:
    """Return what is known of each server, and the calls of all in one race."""
    logging.disable()  # some tell of a lost server at length
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(bench.folder / "redis"))
        durable = stack.enter_context(PostgresServer(*DURABLE))
        durable.set_up()
        versions = {"Redis": str(_about(redis, "server")["redis_version"])}
        versions["PostgreSQL"] = str(durable.ask("SHOW server_version")[0][0]).partition(" ")[0]
        return {
            "versions": versions,
            "calls": _calls(bench, redis.url, durable.url()),
            "trips": _trips(redis, durable),
            "failures": {
                "redis": _failures(bench, redis.url),
                "postgres, fsync": _failures(bench, durable.url()),
                "postgres, asynchronous commit": _failures(bench, durable.url(), QUICK),
            },
            "propagation": {
                name: propagation(url, bench.of(300, 30), work)
                for server, url in (("redis", redis.url), ("postgres", durable.url()))
                for name, work in ((server, 0.0), (f"{server}, waiting", WORK))
            },
            "without push": {
                "redis": propagation(redis.url, bench.of(5, 2), environ={"RESILIENCE_REDIS__PUSH": "0"}),
                "postgres": propagation(durable.url(), bench.of(5, 2), environ={"RESILIENCE_POSTGRES__PUSH": "0"}),
            },
            "prober": {
                "redis": killed_prober(redis.url, bench.of(5, 1)),
                "postgres": killed_prober(durable.url(), bench.of(5, 1)),
            },
            "released": _released(bench, redis.url),
            "outage": _outages(bench, redis),
            "reached": _reached(redis),
        }


def _calls(bench: Bench, redis: str, postgres: str) -> dict[str, dict[str, float]]:
    urls = dict.fromkeys(("resilience_redis", *RIVALS), redis) | {"resilience_postgres": postgres}
    for name, url in urls.items():
        (bench.folder / name).mkdir()
        (bench.folder / name / "url").write_text(url)
    counts = {
        "closed": {"": 2_000} | dict.fromkeys(RIVALS, 50) | {"interlock_redis": 200},
        "failure": {"": 30, "resilience": 100, "resilience_memory": 100},
    }
    names = ("resilience", "resilience_memory", *urls)
    return race(names, counts, bench.of(41, 7), bench.folder, bench.pythons[HERE])


def _trips(redis: RedisServer, postgres: PostgresServer) -> dict[str, dict[str, float]]:
    """How often a server is asked for one call: all closed, with one failure in a hundred, and all failing."""
    found: dict[str, dict[str, float]] = {}

    def asked() -> int:
        return int(_about(redis, "stats")["total_reads_processed"])

    for name in ("resilience_redis", *RIVALS):
        found[name] = {
            "closed": _asked_by_a_call(name, redis.url, asked, 0),
            "failing": _asked_by_a_call(name, redis.url, asked, 100),
            "failure": _asked_by_a_call(name, redis.url, asked, 1, FAILURES),
        }

    def stated() -> int:
        (row,) = postgres.ask(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid"
            " WHERE r.rolname = 'app'"
        )
        return int(row[0])

    # On any server `protect` is the same; it stands beside the others on Redis.
    found["resilience_postgres"] = {
        "closed": _asked_by_a_call("resilience_redis", postgres.url(), stated, 0),
        "failing": _asked_by_a_call("resilience_redis", postgres.url(), stated, 100),
        "failure": _asked_by_a_call("resilience_redis", postgres.url(), stated, 1, FAILURES),
    }
    return found


def _about(redis: RedisServer, section: str) -> dict[str, Any]:
    with redis.admin() as admin:
        client: Any = admin  # whose answer has no complete type
        return dict(client.info(section))


def _asked_by_a_call(contender: str, url: str, asked: Callable[[], int], one_in: int, calls: int = 2_000) -> float:
    """Count what a server is asked for a call; with `one_in`, of that many calls one fails."""
    number = 0

    def sometimes() -> None:
        nonlocal number
        number += 1
        if one_in and number % one_in == 0:
            raise OSError

    call = _protect(contender)(url, f"{contender} trips {one_in}", sometimes, threshold=1_000)
    for _ in range(10):
        try:
            call()
        except OSError:
            continue
    before = asked()
    asking = asked() - before
    before += asking
    for _ in range(calls):
        try:
            call()
        except OSError:
            continue
    return (asked() - before - asking) / calls


def _failures(bench: Bench, url: str, environ: dict[str, str] | None = None) -> dict[str, float]:
    seconds = bench.of(3.0, 0.7)
    before = failures.ours_counted(url)
    result = summary(crowd(SIZE, seconds, failures.ours, url, environ or {}), seconds)
    return result | {"processes": SIZE, "lost": before + result["count"] + SIZE - failures.ours_counted(url)}


def _released(bench: Bench, url: str) -> dict[str, dict[str, Any]]:
    found = {"resilience_redis": released("resilience_redis", url, bench.of(200, 10), 0.05)}
    for name in RIVALS:
        if name == "interlock_redis":
            found[name] = released(name, url, bench.of(3, 1), 3.0, learning=1.5)
        else:
            found[name] = released(name, url, bench.of(5, 2), 0.3)
    return found


def _outages(bench: Bench, redis: RedisServer) -> dict[str, dict[str, float]]:
    ours = partial(_protect("resilience_redis"), timeout=0.25)  # the default
    with RedisServer(bench.folder / "hanging") as hanging:
        calls = {
            "resilience_redis": ours(redis.url, "gone", work),
            "resilience_redis, hung": ours(hanging.url, "hung", work),
            "resilience_memory": ours("memory:", "memory", work),
        }

        def stop() -> None:
            redis.kill()
            hanging.stop()

        found = outage(calls, stop, bench.of(101, 21), 1_000)
    for name in RIVALS:
        redis.clear()
        found |= outage({name: _protect(name)(redis.url, "gone", work)}, redis.kill)
    return found


def _reached(redis: RedisServer) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in ("resilience_redis", *RIVALS):
        redis.clear()
        found[name] = reached(_protect(name), redis.url, redis.kill)
    return found


def _protect(contender: str) -> Callable[..., Callable[[], object]]:
    protect: Callable[..., Callable[[], object]] = importlib.import_module(f"benchmarks.contenders.{contender}").protect
    return protect
