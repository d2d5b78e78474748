"""`resilience doctor`: whether the chosen storage does what it must, here and now.

What the storage itself can say of its surroundings (`examine`), and what any storage must do, tried on a record of its
own, which is deleted at the end.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NamedTuple

from resilience.cli.output import GREEN, RED, paint
from resilience.cli.statuses import OK, UNAVAILABLE
from resilience.clock import SystemClock, monotonic
from resilience.errors import ResilienceError, StorageConflict, StorageLockTimeout
from resilience.redaction import redact
from resilience.storage import Capability, Key, Version

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from resilience.cli.shell import Shell
    from resilience.ports import Ports
    from resilience.runtime import Runtime

_TITLES = ("CHECK", "RESULT", "DETAIL", "FIX")
_LONGEST = 500
"""Characters of a cell: what to do is to be read whole."""

_ROUNDS = 20
_KEPT = 60.0
"""Seconds that the record of a storage that cannot delete is kept."""
_PATIENCE = 30.0
"""Seconds that another process may take to start."""

_STALE = Version("stale", 1)

# Exit statuses of the other process that tries the lock; none that an interpreter gives by itself.
_EXCLUDED, _LET_IN = 10, 11


class Check(NamedTuple):
    """One thing that was looked at; `fix` says what to do if it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def run(shell: Shell, arguments: Namespace) -> int:
    """Examine the storage and show what was found."""
    runtime = shell.runtime
    opened = runtime.opened
    checks = [Check("configuration", ok=True, detail=f"RESILIENCE_STORAGE means {redact(opened.url)}")]
    examine = getattr(opened.storage, "examine", None)
    if examine is not None:
        checks += _own(examine, opened.ports.name)
    checks += _tried(runtime, opened.ports)
    if arguments.json:
        shell.json([check._asdict() for check in checks])
    else:
        shell.table(_TITLES, [_row(check) for check in checks], longest=_LONGEST)
    return OK if all(check.ok for check in checks) else UNAVAILABLE


def _row(check: Check) -> list[str]:
    return [
        check.name,
        paint("ok", GREEN) if check.ok else paint("FAILED", RED),
        check.detail,
        "" if check.ok else check.fix,
    ]


def _own(examine: Callable[[], list[tuple[str, bool, str, str]]], storage: str) -> list[Check]:
    try:
        return [Check(name, bool(ok), detail, fix) for name, ok, detail, fix in examine()]
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return [Check("examine", ok=False, detail=_said(error), fix=f"report this to the makers of storage {storage}")]


def _tried(runtime: Runtime, ports: Ports) -> list[Check]:
    """Do what the engine does, on a record that nobody else has."""
    key = Key("doctor", f"probe-{SystemClock.draw():016x}")
    checks: list[Check] = []
    try:
        checks.append(_read(ports, key, runtime.timeout))
        checks.append(_written(ports, key, runtime.timeout))
        checks.append(_conflict(ports, key, runtime.timeout))
        checks.append(_exclusion(runtime, ports, key))
        checks.append(_latency(ports, key, runtime.timeout))
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        names = ("read", "commit", "stale commit", "exclusion", "latency")
        ours = isinstance(error, ResilienceError)
        fix = "see that the storage runs and can be reached" if ours else "repair the plugin"
        checks.append(Check(names[len(checks)], ok=False, detail=_said(error), fix=fix))
    finally:
        if ports.delete is not None:
            with suppress(Exception):
                ports.delete(key, None, runtime.timeout)
    return checks


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, ResilienceError) else f"{type(error).__name__}: {error}"


def _read(ports: Ports, key: Key, timeout: float) -> Check:
    if ports.load(key, timeout).payload is not None:
        return Check("read", ok=False, detail="a record that nobody wrote was found", fix="repair the plugin")
    return Check("read", ok=True, detail="nothing is found where nothing is")


def _written(ports: Ports, key: Key, timeout: float) -> Check:
    payload = b'{"probe":1}'
    with ports.lock(key, timeout):
        ports.save(key, payload, None, SystemClock.wall() + _KEPT, timeout)
    if ports.load(key, timeout).payload != payload:
        return Check("commit", ok=False, detail="what was committed is not what is read", fix="repair the plugin")
    return Check("commit", ok=True, detail="what was committed is read")


def _conflict(ports: Ports, key: Key, timeout: float) -> Check:
    try:
        with ports.lock(key, timeout):
            ports.save(key, b'{"probe":2}', _STALE, SystemClock.wall() + _KEPT, timeout)
    except StorageConflict:
        return Check("stale commit", ok=True, detail="a stale commit is refused")
    return Check("stale commit", ok=False, detail="a stale commit was not refused", fix="repair the plugin")


def _exclusion(runtime: Runtime, ports: Ports, key: Key) -> Check:
    """Try the lock from elsewhere while it is held here: from another process if the storage is for several."""
    if Capability.PROCESSES not in ports.capabilities and Capability.MACHINES not in ports.capabilities:
        return Check("exclusion", ok=True, detail="the storage is for the threads of one process")
    lock = ports.lock(key, runtime.timeout)
    if isinstance(lock, nullcontext):
        return Check("exclusion", ok=True, detail="the storage does not lock: it refuses stale commits instead")
    with lock:
        status = _from_another_process(runtime, key)
    if status == _EXCLUDED:
        return Check("exclusion", ok=True, detail="another process is kept out while the lock is held")
    if status == _LET_IN:
        detail, fix = "another process got the lock while it was held", "choose a place or a storage where locks work"
    else:
        detail, fix = "another process could not try it", "see that other processes can open the same storage"
    return Check("exclusion", ok=False, detail=detail, fix=fix)


def _from_another_process(runtime: Runtime, key: Key) -> int:
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; from resilience.cli.doctor import try_lock; "
        f"sys.exit(try_lock({key.kind!r}, {key.name!r}))"
    )
    environ = {**runtime.environ, "RESILIENCE_STORAGE": runtime.url}
    done = subprocess.run(  # noqa: S603 - this interpreter, our own program
        [sys.executable, "-c", program],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PATIENCE,
        check=False,
    )
    return done.returncode


def try_lock(kind: str, name: str) -> int:
    """Try a lock that another process holds; the exit status says whether it was to be had."""
    from resilience.runtime import Runtime

    ports = Runtime.current().opened.ports
    try:
        with ports.lock(Key(kind, name), 0.0):
            return _LET_IN
    except StorageLockTimeout:
        return _EXCLUDED


def _latency(ports: Ports, key: Key, timeout: float) -> Check:
    """The least of some tries: what the storage costs, not what else the machine does."""
    reads: list[float] = []
    commits: list[float] = []
    for round_ in range(_ROUNDS):
        start = monotonic()
        snapshot = ports.load(key, timeout)
        read = monotonic()
        with ports.lock(key, timeout):
            ports.save(key, b'{"probe":%d}' % round_, snapshot.version, SystemClock.wall() + _KEPT, timeout)
        commits.append(monotonic() - read)
        reads.append(read - start)
    read_time, commit_time = min(reads), min(commits)
    within = commit_time < timeout
    return Check(
        "latency",
        ok=within,
        detail=f"a read takes {read_time * 1e6:.0f} µs, a commit {commit_time * 1e6:.0f} µs",
        fix="" if within else "raise RESILIENCE_STORAGE_TIMEOUT",
    )
