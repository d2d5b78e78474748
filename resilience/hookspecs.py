"""All hooks, in the order of a record's life.

A storage implements `resilience_load`, `resilience_save` and `resilience_lock`, the three of administration where it
can, and the two awaitable ones where it talks over a network.  Observers implement `resilience_transition` and
`resilience_event`.  Arguments are passed by name, always all of them: an implementation takes the ones it needs and
gives none of them a default.

There is one plugin manager per open storage, with exactly one storage in it, hence `firstresult`.
"""

# A specification is a signature and its docstring, so nothing is returned.
# pyright: reportReturnType=false

from __future__ import annotations

from resilience.markers import hookspec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from contextlib import AbstractContextManager

    from resilience.events import Event, Transition
    from resilience.storage import Key, Snapshot, Version


@hookspec(firstresult=True)
def resilience_load(key: Key, timeout: float) -> Snapshot:
    """Read the last committed record of a key.

    Called by the engine when it holds no snapshot of the key or the one it holds is no longer current, at most once a
    second besides; by `commit` with the lock held, by everything else without.

    :param key: whose record.
    :param timeout: seconds this may take in all.
    :returns: the snapshot; its payload and version are `None` if nothing is stored.  Takes no lock.  Never torn,
        mixed or uncommitted.  Its `is_current()` tells without I/O whether this is still the last committed record,
        also for a record that does not exist yet; `None` where the storage cannot tell: the engine then trusts the
        snapshot for `RESILIENCE_MAX_STALENESS` seconds (default 0: it loads each time).  Its `time`, where the storage
        has a clock of its own, is read while it answers this very call: all who share the storage go by it.
    :raises StorageCorrupt: the record is damaged.
    :raises StorageUnavailable: anything wrong with the store itself, within `timeout`.

    First result wins.  Plugins use it to bring records from where they are kept; a watching wrapper, to trace reads.
    """


@hookspec(firstresult=True)
def resilience_save(
    key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
) -> Snapshot:
    """Commit a record if nobody else did meanwhile.

    Called by the engine with the lock held, for each event that changes what others must know.

    :param key: whose record.
    :param payload: the new content; JSON text in UTF-8 for all policies that ship with the framework.
    :param expected: the version that must be stored now; `None`: nothing is stored.
    :param expires_at: wall-clock seconds after which the record means nothing any more and may be dropped; `None`:
        never.
    :param timeout: seconds this may take in all.
    :returns: the snapshot of what was committed.  Its version has the incarnation of the expected one and the next
        number; the first save of a key draws a random incarnation and has number 1.  A crash at any instruction leaves
        the old record or the new one, whole.
    :raises StorageConflict: the stored version is not `expected`; nothing was changed.  With `current`, the record
        that is committed now, where it costs nothing to bring it along.
    :raises StorageCorrupt: the record is damaged, so nobody can tell whether its version is `expected`; a storage that
        can tell that it is not may raise `StorageConflict`, without `current`.  It is never taken for nothing stored.
    :raises StorageUnavailable: anything wrong with the store itself, within `timeout`; with `outcome_unknown=True`
        if the record may have been committed all the same.

    First result wins; `None` is a `PluginError`.  What changes payloads (encryption) is a storage that holds a
    storage, not a wrapper around this hook.
    """


@hookspec(firstresult=True)
def resilience_lock(key: Key, timeout: float) -> AbstractContextManager[None]:
    """Exclude all other threads and processes from committing a key, and other tasks where the storage is awaited.

    Called by the engine around load, step and save.  The user's function never runs while it is held.  The context
    manager is entered at once, once, in the calling thread.  Waiting may happen in this call or on entering.  Around
    `resilience_asave` it is taken on the event loop, with `timeout` 0, and held while that is awaited; all tasks of the
    loop are one thread, so it must not let a thread in twice.

    :param key: whose record.
    :param timeout: seconds to wait in all; 0: try once.
    :returns: a context manager that holds the lock; the lock is free again after it, and when its holder dies.  A
        storage that works by compare-and-set alone returns `contextlib.nullcontext()`: `expected` protects it.
    :raises StorageLockTimeout: somebody else holds it.
    :raises StorageUnavailable: anything wrong with the store itself.

    First result wins; `None` is a `PluginError`.
    """


@hookspec
def resilience_transition(transition: Transition) -> None:
    """Be told of a committed change of state.

    Called once per change, in the process that committed it, after the lock was released, in the thread of the call
    that caused it: be quick.  What it raises is reported (logger ``resilience``) and changes nothing for the caller.

    :param transition: what changed; new fields may come, none goes.

    Plugins use it for logs, metrics, alarms.
    """


@hookspec
def resilience_event(event: Event) -> None:
    """Be told of everything else worth telling.

    Called like `resilience_transition`.

    :param event: its `name` is one of

        ``degraded``
            the storage does not answer; ``error`` says why, ``mode`` what the policy does meanwhile.
        ``recovered``
            it answers again; ``seconds`` says how long it did not.
        ``clock_skew``
            this machine's clock is off by more than a second, as the storage's server tells the time; ``seconds`` says
            how far it is ahead.  Nothing is decided by it.  Told again after an hour.
        ``configuration_rejected``
            the configuration file was touched and cannot be used, so nothing changed; ``file`` and ``error`` say why.
        ``configuration_reloaded``
            file and variables were read anew; ``file`` names it (`None`: there is none), ``reopened`` says whether the
            storage was opened anew.
        ``dropped``
            an outcome that was owed was given up, as the policy raised at it; ``error`` says what.
        ``late``
            a report came after the state it belongs to; ``outcome`` says which.
        ``reset``
            a guard was reset by hand.
        ``settings_conflict``
            processes judge one breaker by windows of different shapes; ``window`` and ``other`` name both.
        ``state_reset``
            a damaged record was set aside and the guard began anew; ``error`` says what was wrong.
        ``version_regression``
            a record is older than it was: an older copy was restored, or a server lost its last commits.  What stands
            there now is gone by; ``seen`` and ``found`` are the numbers of the two versions.
        ``would_have_opened``
            a breaker that only watches (METRICS_ONLY) crossed a threshold; ``reason`` says which.

        ``late`` and ``settings_conflict`` are told once a second for each key; ``suppressed`` in the data of the next
        one says how many were not told, if any.

    Plugins use it for logs, metrics, alarms.
    """


@hookspec(firstresult=True)
def resilience_keys() -> Iterable[Key]:
    """List all keys that have a record, in any order.

    Called by administration (``resilience status`` without names).

    :returns: the keys; records that are born or deleted meanwhile may be there or not.
    :raises StorageUnavailable: anything wrong with the store itself.

    First result wins.  A storage that cannot list its keys leaves it out.
    """


@hookspec(firstresult=True)
def resilience_delete(key: Key, expected: Version | None, timeout: float) -> bool:
    """Delete a record.

    Called by administration, never by a policy: `reset` of a breaker is an event, not a deletion.

    :param key: whose record.
    :param expected: delete only this version; `None`: whatever is stored.
    :param timeout: seconds this may take in all.
    :returns: whether there was a record and it is gone.
    :raises StorageConflict: another version than `expected` is stored; nothing was changed.
    :raises StorageLockTimeout: somebody else holds the lock.
    :raises StorageUnavailable: anything wrong with the store itself.

    First result wins.
    """


@hookspec(firstresult=True)
def resilience_discard(key: Key, reason: str, timeout: float) -> None:
    """Set a damaged record aside for inspection, so that the next load finds nothing stored.

    Called by the engine with the lock held, after `StorageCorrupt` or a payload that no policy can read, and after a
    second load under the lock that was no better.  Without a real lock the storage must make sure that it sets aside
    the damaged record it was asked about, not a healthy successor.

    :param key: whose record.
    :param reason: what is wrong with it, for the person who inspects.
    :param timeout: seconds this may take in all.
    :raises StorageUnavailable: anything wrong with the store itself.

    First result wins.
    """


@hookspec(firstresult=True)
def resilience_aload(key: Key, timeout: float) -> Awaitable[Snapshot]:
    """Do what `resilience_load` does, awaitably.

    Called instead of it from coroutines.  A storage has both `resilience_aload` and `resilience_asave` or neither; one
    that has neither is called in a worker thread, or on the loop if it declares `Capability.INLINE`.

    :param key: whose record.
    :param timeout: seconds this may take in all.
    :returns: an awaitable of the snapshot.

    First result wins.
    """


@hookspec(firstresult=True)
def resilience_asave(
    key: Key, payload: bytes, expected: Version | None, expires_at: float | None, timeout: float
) -> Awaitable[Snapshot]:
    """Do what `resilience_save` does, awaitably.

    Called instead of it from coroutines; a commit that has begun is shielded from cancellation.

    :param key: whose record.
    :param payload: the new content.
    :param expected: the version that must be stored now; `None`: nothing is stored.
    :param expires_at: wall-clock seconds after which the record means nothing any more; `None`: never.
    :param timeout: seconds this may take in all.
    :returns: an awaitable of the snapshot.

    First result wins.
    """
