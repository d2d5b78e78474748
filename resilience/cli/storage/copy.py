"""`resilience storage copy FROM TO`: bring all records from one storage to another, through their hooks alone.

A record arrives as it is, byte for byte, with a version that begins anew: it is saved where nothing is stored, by
compare-and-set, so nothing that is there is lost unless that is asked for.  What cannot be read is left where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from resilience.cli.output import DIM, GREEN, RED, paint
from resilience.cli.parser import UsageError
from resilience.cli.sharing import is_shared, unshared
from resilience.cli.statuses import OK, UNAVAILABLE
from resilience.clock import SystemClock
from resilience.errors import (
    ResilienceError,
    StorageConflict,
    StorageCorrupt,
    StorageIncompatible,
    StorageUnavailable,
)
from resilience.redaction import redact, redact_within
from resilience.runtime import Runtime

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterator

    from resilience.cli.shell import Shell
    from resilience.storage import Key, Snapshot

PATIENCE = 5.0
"""Seconds that each hook may take: nobody's call waits for it."""

# What came of a record.
COPIED = "copied"
SAME = "same"
KEPT = "kept"
EXPIRED = "expired"
DAMAGED = "damaged"
NEWER = "newer"
FAILED = "failed"
_COLOURS = {COPIED: GREEN, SAME: DIM, EXPIRED: DIM, DAMAGED: RED, NEWER: RED, FAILED: RED}
_LEFT = (DAMAGED, NEWER, FAILED)
"""What should have been copied, and was not."""

_TITLES = ("KIND", "NAME", "RESULT", "DETAIL")
_LONGEST = 1200
"""Characters of a cell on a terminal: why something failed is to be read whole, and a name may have a thousand."""


class Record(NamedTuple):
    """What came of one record."""

    kind: str
    name: str
    result: str
    detail: str = ""


def run(shell: Shell, arguments: Namespace) -> int:
    """Copy all records and show what came of each.

    :raises UsageError: both URLs are one, or one is of a storage that ends with this process.
    :raises ConfigurationError: a URL or a variable is wrong.
    :raises PluginError: a plugin does not load.
    :raises StorageUnavailable: the first storage is not there, does not answer, or cannot list its records.
    """
    environ = shell.runtime.environ
    source, target = (Runtime(storage=vars(arguments)[end], environ=environ) for end in ("from", "to"))
    try:
        if source.opened.url == target.opened.url:
            raise UsageError("both URLs name the same storage", "storage copy")
        _expect_records(source)
        _expect_others(target)
        records = list(Copying(source, target, overwrite=arguments.overwrite, dry=arguments.dry).all())
        _show(shell, arguments, source, target, records)
    finally:
        target.close()
        source.close()
    return UNAVAILABLE if any(record.result in _LEFT for record in records) else OK


def _expect_records(source: Runtime) -> None:
    """Whoever copies means that there is something: a place that was never made is the wrong one."""
    _expect_others(source)
    missing: Callable[[], str] | None = getattr(source.opened.storage, "missing", None)
    if missing is not None and (what := missing()):
        raise StorageUnavailable(f"copying from {redact(source.opened.url)}: {what}")


def _expect_others(runtime: Runtime) -> None:
    """What only this process sees would be empty before, or gone after."""
    if not is_shared(runtime):
        raise UsageError(unshared(runtime), "storage copy")


class Copying:
    """The records of one storage on their way to another.

    :param overwrite: replace a record that is there already.
    :param dry: look only.
    """

    def __init__(self, source: Runtime, target: Runtime, *, overwrite: bool, dry: bool) -> None:
        self._source = source
        self._target = target
        self._overwrite = overwrite
        self._dry = dry

    def all(self) -> Iterator[Record]:
        """Copy each record; what keeps one of them from being copied stops none of the others.

        :raises StorageUnavailable: the records cannot be listed.
        """
        down: str | None = None
        for key in self._source.keys():  # noqa: SIM118 - no mapping
            result, detail = FAILED, f"not tried: {down}"
            if down is None:
                try:
                    result, detail = self._one(key)
                except StorageCorrupt as error:
                    result, detail = DAMAGED, str(error)
                except StorageIncompatible as error:
                    result, detail = NEWER, str(error)
                except ResilienceError as error:
                    detail = str(error)
                    if isinstance(error, StorageUnavailable) and error.key is None:
                        down = detail.replace(str(key), "a record")  # it is no matter of this one
                except Exception as error:  # noqa: BLE001 - a plugin may raise anything
                    detail = f"{type(error).__name__}: {error}"
            yield Record(key.kind, key.name, result, redact_within(" ".join(detail.split())))

    def _one(self, key: Key) -> tuple[str, str]:
        ports = self._source.opened.ports
        found = ports.load(key, PATIENCE)
        payload = found.payload
        if payload is None:
            return EXPIRED, "it is gone"
        expires_at, note = self._end(key, payload)
        if _is_over(found, expires_at):
            return EXPIRED, ""
        try:
            return self._put(key, payload, expires_at) or (COPIED, note)
        except StorageConflict:
            return KEPT, "somebody saved it there at the same time"
        except StorageCorrupt as error:
            return FAILED, f"the one that is there is damaged: {error}"

    def _put(self, key: Key, payload: bytes, expires_at: float | None) -> tuple[str, str] | None:
        """Save a record, or say why it is not saved."""
        ports = self._target.opened.ports
        if self._dry:
            return self._taken(key, payload, ports.load(key, PATIENCE))
        with ports.lock(key, PATIENCE):
            there = ports.load(key, PATIENCE)
            taken = self._taken(key, payload, there)
            if taken is None:
                ports.save(key, payload, there.version, expires_at, PATIENCE)
        return taken

    def _end(self, key: Key, payload: bytes) -> tuple[float | None, str]:
        """When a record ends, which its policy knows; and what is to be said of it.

        :raises StorageCorrupt: the record is damaged.
        :raises StorageIncompatible: a newer library wrote it.
        """
        from resilience.plugins import POLICY, installed, policy_class

        if key.kind not in installed(POLICY):
            return None, "as it is: its policy is not installed here, which would know when it ends"
        kind = policy_class(key.kind)
        try:
            policy = self._source.policy(kind, key.name, None)
            state = policy.decode(payload)
            stored = policy.stored_settings(state)
            if stored:
                policy = self._source.policy(kind, key.name, None, stored)
            return policy.expires_at(state), ""
        except ValueError as error:
            raise StorageCorrupt(str(error), key=key) from error

    def _taken(self, key: Key, payload: bytes, there: Snapshot) -> tuple[str, str] | None:
        """Say why a record is not saved where it should be; `None`: it may be."""
        if there.payload is None:
            return None
        if there.payload == payload:
            return SAME, ""
        try:
            is_over = _is_over(there, self._end(key, there.payload)[0])
        except StorageIncompatible as error:
            return KEPT, f"there is one of a newer library: {error}"
        if is_over or self._overwrite:
            return None
        return KEPT, "there is another one; --overwrite replaces it"


def _is_over(found: Snapshot, expires_at: float | None) -> bool:
    return expires_at is not None and expires_at <= (SystemClock.wall() if found.time is None else found.time)


def _show(shell: Shell, arguments: Namespace, source: Runtime, target: Runtime, records: list[Record]) -> None:
    counts = {name: sum(record.result == name for record in records) for name in (COPIED, SAME, KEPT, EXPIRED, *_LEFT)}
    places = [redact(runtime.opened.url) for runtime in (source, target)]
    if arguments.json:
        shell.json(
            {
                "from": places[0],
                "to": places[1],
                "dry_run": arguments.dry,
                "counts": counts,
                "records": [record._asdict() for record in records],
            }
        )
        return
    shell.table(_TITLES, [_row(record) for record in records], longest=_LONGEST)
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to copy"
    shell.write(f"{'would be: ' if arguments.dry else ''}{said}; from {places[0]} to {places[1]}\n")


def _row(record: Record) -> list[str]:
    colour = _COLOURS.get(record.result)
    return [
        record.kind,
        record.name,
        record.result if colour is None else paint(record.result, colour),
        record.detail,
    ]
