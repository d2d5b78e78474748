"""What any storage must do, tried through its hooks: a function each, on a record that nobody else has."""

from __future__ import annotations

import json
from contextlib import nullcontext
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from resilience.cli.output import seconds
from resilience.clock import SystemClock, monotonic, sleep
from resilience.errors import StorageConflict, StorageError, StorageLockTimeout, StorageUnavailable
from resilience.sharedclock import WELL_SET
from resilience.storage import Capability, Key, Version

if TYPE_CHECKING:
    from resilience.cli.doctor.neighbour import Neighbour
    from resilience.ports import Ports
    from resilience.storage import Snapshot

KIND = "doctor"
"""The kind of the key; no policy has this name."""

ROUNDS = 20
"""Reads and commits that are timed, and commits that two processes race for, each."""
ENOUGH = 2.0
"""Seconds after which no other round is begun."""
KEPT = 60.0
"""Seconds that the record of a storage that cannot delete is kept."""
AT_ONCE = 1.0
"""Seconds within which a commit of another process is to be seen."""
LOOK_EVERY = 0.0002

_STALE = Version("stale", 1)


class Check(NamedTuple):
    """One thing that was looked at; `fix` says what to do if it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


class Patient:
    """The storage under examination, and the record that is used."""

    def __init__(self, ports: Ports, timeout: float, key: Key | None = None) -> None:
        self.ports = ports
        self.timeout = timeout
        self.key = key or Key(KIND, f"probe-{SystemClock.draw():016x}")
        self.has_written = False
        """Whether the record may be there."""

    @property
    def is_shared(self) -> bool:
        """Whether it is for more than the threads of one process."""
        return not {Capability.PROCESSES, Capability.MACHINES}.isdisjoint(self.ports.capabilities)

    def load(self) -> Snapshot:
        """Load the record."""
        return self.ports.load(self.key, self.timeout)

    def save(self, number: int, over: Snapshot, expected: Version | None) -> Snapshot:
        """Save a number; `over` is what was loaded before."""
        written, self.has_written = self.has_written, True  # whatever comes of it, until that is known
        # By the time of the storage: one that drops what has expired would drop it at once where our clock is behind.
        expires_at = KEPT + (SystemClock.wall() if over.time is None else over.time)
        try:
            return self.ports.save(self.key, b'{"probe":%d}' % number, expected, expires_at, self.timeout)
        except StorageError as error:
            if not (isinstance(error, StorageUnavailable) and error.outcome_unknown):
                self.has_written = written
            raise

    def commit(self) -> None:
        """Add one to the number that is stored, under the lock."""
        with self.ports.lock(self.key, self.timeout):
            before = self.load()
            self.save(number_in(before) + 1, before, before.version)

    def locks(self) -> bool:
        """Whether it has a lock, and does not work by compare-and-set alone."""
        lock = self.ports.lock(self.key, self.timeout)
        with lock:
            return not isinstance(lock, nullcontext)


def number_in(snapshot: Snapshot) -> int:
    """Return the number that a record holds; 0: there is none."""
    if snapshot.payload is None:
        return 0
    number: int = json.loads(snapshot.payload)["probe"]
    return number


def reachable(patient: Patient) -> Check:
    """Load what is not there."""
    start = monotonic()
    found = patient.load()
    took = monotonic() - start
    if found.payload is not None:
        return Check("reachable", ok=False, detail="a record that nobody wrote was found", fix="repair the plugin")
    return Check("reachable", ok=True, detail=f"it answered after {short(took)}")


def committed(patient: Patient) -> Check:
    """Save, and load that."""
    patient.commit()
    if number_in(patient.load()) != 1:
        return Check("commit", ok=False, detail="what was committed is not what is read", fix="repair the plugin")
    return Check("commit", ok=True, detail="what was committed is read")


def refuses_stale(patient: Patient) -> Check:
    """Save with a version that is not the stored one."""
    before = patient.load()
    try:
        with patient.ports.lock(patient.key, patient.timeout):
            patient.save(0, before, _STALE)
    except StorageConflict:
        return Check("stale commit", ok=True, detail="a stale commit is refused")
    return Check("stale commit", ok=False, detail="a stale commit was not refused", fix="repair the plugin")


def listed(patient: Patient) -> Check:
    """List the keys."""
    keys = patient.ports.keys
    if keys is None:
        return Check("list", ok=True, detail="it cannot list its records: the command line needs names")
    found = set(keys())
    if patient.key not in found:
        return Check("list", ok=False, detail="a record that is there is not listed", fix="repair the plugin")
    others = len(found) - 1
    return Check("list", ok=True, detail=f"{others} {'record' if others == 1 else 'records'} of policies")


def excludes(patient: Patient, neighbour: Neighbour) -> Check:
    """Try the lock in another process while it is held here; then let both commit at once, and count."""
    said: list[str] = []
    is_locked = patient.locks()
    if is_locked:
        with patient.ports.lock(patient.key, patient.timeout):
            got = neighbour.ask("lock")["got"]
        if got:
            return _excludes_nobody("another process got the lock while it was held")
        said.append("another process is kept out while the lock is held")
    else:
        said.append("it does not lock: it refuses stale commits instead")
    before = number_in(patient.load())
    neighbour.begin("race")
    ours, theirs = race(patient), neighbour.answer()
    if is_locked and ours["conflicts"] + theirs["conflicts"]:
        return _excludes_nobody("two processes were inside the lock at the same time")
    done = ours["done"] + theirs["done"]
    lost = before + done - number_in(patient.load())
    if not -(ours["unknown"] + theirs["unknown"]) <= lost <= 0:
        return _excludes_nobody(f"of {done} commits of two processes {abs(lost)} are lost or were done twice")
    said.append(f"{done} commits of two processes at once, none lost")
    return Check("exclusion", ok=True, detail="; ".join(said))


def _excludes_nobody(detail: str) -> Check:
    return Check("exclusion", ok=False, detail=detail, fix="choose a place or a storage where its lock works")


def race(patient: Patient) -> dict[str, int]:
    """Commit as often as there is time for, while others do."""
    counts: dict[str, int] = {"done": 0, "unknown": 0, "conflicts": 0}
    end = monotonic() + ENOUGH
    while counts["done"] < ROUNDS and monotonic() < end:
        try:
            patient.commit()
        except StorageConflict:
            counts["conflicts"] += 1
        except StorageLockTimeout:
            pass  # the other one had it
        except StorageUnavailable as error:
            if not error.outcome_unknown:
                raise
            counts["unknown"] += 1
        else:
            counts["done"] += 1
    return counts


def pushes(patient: Patient, neighbour: Neighbour) -> Check:
    """Let another process commit, and see how long a snapshot of this one says that it is current."""
    end = monotonic() + AT_ONCE
    while (is_current := patient.load().is_current) is not None and not is_current():
        if monotonic() > end:
            return Check(
                "push",
                ok=False,
                detail=f"no snapshot says that it is current, for {short(AT_ONCE)}: each call loads",
                fix="see that the storage may push to this process",
            )
        sleep(LOOK_EVERY)  # it has yet to hear of the commits before
    if is_current is None:
        return Check(
            "push",
            ok=True,
            detail="a snapshot cannot tell that it is old: each call loads, or trusts it for RESILIENCE_MAX_STALENESS",
        )
    neighbour.begin("commit")
    end = monotonic() + neighbour.patience
    while is_current() and not neighbour.has_answered and monotonic() < end:
        sleep(LOOK_EVERY)
    seen = monotonic()
    told = neighbour.answer()
    while is_current() and seen <= told["done"] + AT_ONCE:
        sleep(LOOK_EVERY)
        seen = monotonic()
    after = seen - told["done"]
    if after > AT_ONCE:
        return Check(
            "push",
            ok=False,
            detail=f"a commit of another process was not seen for {short(after)}",
            fix="see that the storage may push to this process; till then others' changes are seen late",
        )
    took = short(told["done"] - told["begun"])
    when = f"{short(after)} after it had returned there" if after > 0 else "before it had returned there"
    detail = f"a commit of another process, which took it {took}, was seen here {when}, without a load"
    return Check("push", ok=True, detail=detail)


def fast(patient: Patient) -> list[Check]:
    """Time reads and commits; the reads tell the storage's time as well."""
    reads: list[float] = []
    commits: list[float] = []
    clocks: list[tuple[float, float]] = []
    end = monotonic() + ENOUGH
    while len(reads) < ROUNDS and (monotonic() < end or not reads):
        start = monotonic()
        found = patient.load()
        reads.append(monotonic() - start)
        if found.time is not None:
            clocks.append((reads[-1], SystemClock.wall() - reads[-1] / 2 - found.time))
        start = monotonic()
        patient.commit()
        commits.append(monotonic() - start)
    return [_latency(patient, reads, commits), _clock(clocks)]


def _latency(patient: Patient, reads: list[float], commits: list[float]) -> Check:
    commit = median(commits)
    return Check(
        "latency",
        ok=commit < patient.timeout,
        detail=f"a read takes {short(median(reads))}, a commit {short(commit)}, as the median of {len(reads)}",
        fix=f"a commit may take {short(patient.timeout)}: raise RESILIENCE_STORAGE_TIMEOUT",
    )


def _clock(clocks: list[tuple[float, float]]) -> Check:
    if not clocks:
        return Check("clock", ok=True, detail="the storage tells no time: this machine's clock counts")
    took, off_by = min(clocks)
    sure = f"give or take {short(took / 2)}"
    if abs(off_by) <= WELL_SET + took:
        return Check("clock", ok=True, detail=f"the storage's time is this machine's, to {abs(off_by):.1g} s, {sure}")
    where = "ahead of" if off_by > 0 else "behind"
    return Check(
        "clock",
        ok=False,
        detail=f"this machine's clock is {seconds(abs(off_by))} {where} the storage's, {sure}",
        fix="set it; breakers go by the storage's time and are safe, logs and certificates are not",
    )


def deleted(patient: Patient) -> Check:
    """Delete the record."""
    delete = patient.ports.delete
    if delete is None:
        return Check("delete", ok=True, detail=f"it cannot delete: what was written here ends after {KEPT:.0f} s")
    if patient.load().payload is None:  # of a commit that failed nobody knows whether it was made
        return Check("delete", ok=True, detail="there is nothing to delete")
    if not delete(patient.key, None, patient.timeout) or patient.load().payload is not None:
        detail = f"the record of {patient.key} cannot be deleted"
        return Check("delete", ok=False, detail=detail, fix="delete it by other means")
    return Check("delete", ok=True, detail="what was written here is gone again")


def swept(patient: Patient) -> list[Check]:
    """Delete what a look may have left where no record is: an empty place for one, as a file."""
    if patient.ports.delete is not None:
        patient.ports.delete(patient.key, None, patient.timeout)
    return []


def short(span: float) -> str:
    """Return a span of time in the unit that fits it."""
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if span < 1000 * size:
            return f"{span / size:.3g} {unit}"
    return seconds(span)
