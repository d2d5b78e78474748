"""The whole examination, in order: each check for itself, none longer than it may, and nothing left behind."""

from __future__ import annotations

import platform
import threading
from typing import TYPE_CHECKING

from resilience import __version__
from resilience.cli.doctor import checks
from resilience.cli.doctor.checks import Check, Patient
from resilience.cli.doctor.neighbour import Neighbour, Unanswered
from resilience.errors import ResilienceError
from resilience.plugins import STORAGE, installed
from resilience.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilience.runtime import Runtime

    Look = Callable[[], list[Check]]

PATIENCE = 10.0
"""Seconds that a check may take beside what the storage's own time-out allows."""

_FIX = "see that the storage runs, can be reached, and permits this"

_ESSENTIAL = frozenset({"reachable", "commit", "stale commit"})
"""What a storage cannot do without: where one of them fails, the others would fail for the same reason."""

_HOOKS = 4 * checks.ROUNDS
"""So many hooks a check calls at most."""

_FOR_THREADS = "the storage is for the threads of one process"


def examine(runtime: Runtime) -> list[Check]:
    """Look at everything; the first check that a storage cannot do without ends it.

    So does a storage that finds nothing good at all to say of its place: what cannot be reached is told once.
    """
    opened = runtime.opened
    found = [
        Check("configuration", ok=True, detail=f"RESILIENCE_STORAGE means {redact(opened.url)}"),
        Check("versions", ok=True, detail="; ".join(_versions(opened.url))),
    ]
    own: Callable[[], list[tuple[str, bool, str, str]]] | None = getattr(opened.storage, "examine", None)
    patience = PATIENCE + _HOOKS * runtime.timeout
    told: list[Check] = []
    if own is not None:
        told = _looked("examine", lambda: [Check(*row) for row in own()], patience)[0]
        if told and not any(check.ok for check in told) and told[0].name != "examine":
            return [*found, *told]
    tried = _tried(runtime, Patient(opened.ports, runtime.timeout), patience)
    return [*found, *told, *_after(told, tried)]


def _after(told: list[Check], tried: list[Check]) -> Iterator[Check]:
    """Say of what the storage refused that its own words come first, where it has some."""
    amiss = ", ".join(check.name for check in told if not check.ok)
    for check in tried:
        yield check._replace(fix=f"mend first what failed above: {amiss}") if amiss and check.fix == _FIX else check


def _versions(url: str) -> Iterator[str]:
    yield f"resilience {__version__}, Python {platform.python_version()}"
    known = installed(STORAGE)
    for scheme in url.partition(":")[0].split("+"):
        distribution = known[scheme].dist if scheme in known else None
        if distribution is not None:
            yield f"{scheme}: of {distribution.name} {distribution.version}"


def _tried(runtime: Runtime, patient: Patient, patience: float) -> list[Check]:
    """Do what the engine does, on a record that nobody else has."""
    found: list[Check] = []
    hangs = False
    try:
        for name, look in _examination(runtime, patient):
            looked, hangs = _looked(name, look, patience)
            found += looked
            if hangs or (name in _ESSENTIAL and not all(check.ok for check in looked)):
                break
    finally:
        if patient.has_written:
            looked, hangs = _looked("delete", lambda: [checks.deleted(patient)], patience)
            found += looked
        if not hangs:
            _looked("delete", lambda: checks.swept(patient), patience)  # if it fails, why has been told
    return found


def _examination(runtime: Runtime, patient: Patient) -> Iterator[tuple[str, Look]]:
    yield "reachable", lambda: [checks.reachable(patient)]
    yield "commit", lambda: [checks.committed(patient)]
    yield "stale commit", lambda: [checks.refuses_stale(patient)]
    yield "list", lambda: [checks.listed(patient)]
    if patient.is_shared:
        yield "exclusion", lambda: _beside_another_process(runtime, patient)
    else:
        yield "exclusion", lambda: [Check("exclusion", ok=True, detail=_FOR_THREADS)]
    yield "latency", lambda: checks.fast(patient)


def _beside_another_process(runtime: Runtime, patient: Patient) -> list[Check]:
    with Neighbour(runtime, patient) as neighbour:
        found = _answered("exclusion", lambda: [checks.excludes(patient, neighbour)])
        if all(check.ok for check in found):  # else the other process may be gone, or busy with what went wrong
            found += _answered("push", lambda: [checks.pushes(patient, neighbour)])
        return found


def _looked(name: str, look: Look, patience: float) -> tuple[list[Check], bool]:
    """Look, in a thread of its own, and say whether that does not end: a storage may hang, whatever its time-out."""
    answers: list[list[Check]] = []
    work = threading.Thread(target=lambda: answers.append(_answered(name, look)), name="doctor", daemon=True)
    work.start()
    work.join(patience)
    if answers:
        return answers[0], False
    detail = f"it did not end within {patience:g} s, though its time-out is shorter"
    return [Check(name, ok=False, detail=detail, fix="repair the plugin")], True


def _answered(name: str, look: Look) -> list[Check]:
    try:
        return look()
    except Unanswered as error:
        return [Check(name, ok=False, detail=str(error), fix="see that other processes can open the same storage")]
    except ResilienceError as error:
        return [Check(name, ok=False, detail=str(error), fix=_FIX)]
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        return [Check(name, ok=False, detail=f"{type(error).__name__}: {error}", fix="repair the plugin")]
