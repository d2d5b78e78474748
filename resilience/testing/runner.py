"""Running the kit without pytest: `run` for all of it, `run_check` for one check."""

from __future__ import annotations

from resilience import clock
from resilience.errors import ResilienceError, StorageError
from resilience.redaction import redact
from resilience.testing import KIT_VERSION
from resilience.testing.checks import all_checks
from resilience.testing.report import Report, Result
from resilience.testing.roads import AWAITED, way_from_coroutines
from resilience.testing.subject import Background, Subject
from resilience.testing.violations import Skipped, Violation, out_of_place
from resilience.testing.workers import abandon_shared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from resilience.storage import Key
    from resilience.testing.checks import Check
    from resilience.testing.handle import Factory


def run_check(check: Check, subject: Subject) -> Result:
    """Run one check, for its limit of seconds at most; whatever happens is in the result."""
    begun = clock.monotonic()
    noted = len(subject.notes)

    def result(outcome: Any, **found: str) -> Result:
        if outcome == "failed":
            abandon_shared()  # they may still be at work for it, and the next check must not meet them there
            if check.road == AWAITED:
                subject.abandon_awaited()
        notes = tuple(subject.notes[noted:])
        return Result(check.name, check.title, check.group, outcome, clock.monotonic() - begun, notes=notes, **found)

    working = Background(check, subject)
    try:
        if not working.is_done(check.limit):
            raise Violation(
                f"it did not end in {check.limit:g} s",
                "a call that protects something must never hang: the thread that made it is lost",
                "honour `timeout` in every hook, and free the lock on every way out",
            )
        working.result(1)
    except Skipped as skipped:
        return result("skipped", reason=str(skipped))
    except Violation as violation:
        return result("failed", what=violation.what, why=violation.why, fix=violation.fix)
    except ResilienceError as error:
        said = out_of_place(type(error).__name__, str(error))
        return result("failed", what=said.what, why=said.why, fix=said.fix)
    except Exception as error:  # noqa: BLE001 - a mistake of the kit, or of a hook that the author gave it
        import traceback

        where = "".join(traceback.format_exception(error)[-2:]).strip()
        return result(
            "failed",
            what=f"the check itself raised {type(error).__name__}: {error}\n{where}",
            why="nothing is known of the storage",
            fix="look at the traceback; `damage` and the factory are yours, everything else is a mistake of the kit",
        )
    return result("passed")


def run_unless_broken(check: Check, subject: Subject, failed: set[str]) -> Result:
    """Run one check, unless one that it stands on has failed.

    :param failed: the names of those that have, or were not run for that; it is kept up to date.
    """
    broken = [name for name in check.after if name in failed]
    if broken:
        reason = f"says nothing before this is mended: {', '.join(broken)}"
        result = Result(check.name, check.title, check.group, "skipped", 0.0, reason=reason)
    else:
        result = run_check(check, subject)
    if broken or result.outcome == "failed":
        failed.add(check.name)
    else:
        failed.discard(check.name)
    return result


def run(
    factory: Factory | str,
    *,
    kit: str = KIT_VERSION,
    quick: bool = False,
    only: Collection[str] | None = None,
    damage: Callable[[Any, Key], object] | None = None,
    unreachable: Factory | str | None = None,
    seed: int = 0,
    progress: Callable[[Result], object] | None = None,
) -> Report:
    """Put a storage to the proof.

    :param factory: makes a storage object each time it is called, all for the same records, and can be sent to another
        process: ``functools.partial(MyStorage, "mine:…", None)``.  Or the URL of an installed storage.
    :param kit: the version of the suite.
    :param quick: fewer rounds and processes: some 10 s instead of 40, where nothing else runs.
    :param only: names of the checks to run, in any order; all, if left out.
    :param damage: called as ``damage(storage, key)``: damages the stored record of a key.
    :param unreachable: makes storages whose store does not answer.
    :param seed: of what is left to chance.
    :param progress: told each result as it comes.
    :raises ConfigurationError: the URL names no storage.
    :raises PluginError: its plugin does not load.
    :raises ValueError: there is no such kit, or no such check in it.
    """
    begun = clock.monotonic()
    checks = all_checks(kit)
    chosen = {check.name for check in checks} if only is None else set(only)
    unknown = chosen - {check.name for check in checks}
    if unknown:
        raise ValueError(f"kit {kit} has no check {', '.join(sorted(unknown))}")
    results: list[Result] = []
    failed: set[str] = set()
    with Subject(factory, damage=damage, unreachable=unreachable, quick=quick, seed=seed) as subject:
        name, capabilities, coroutines = _described(factory, subject)
        for check in checks:
            if check.name not in chosen:
                continue
            result = run_unless_broken(check, subject, failed)
            results.append(result)
            if progress is not None:
                progress(result)
        measured = subject.figures
    return Report(name, kit, quick, capabilities, tuple(results), measured, clock.monotonic() - begun, coroutines)


def _described(factory: Factory | str, subject: Subject) -> tuple[str, tuple[str, ...], str]:
    try:
        name, capabilities = type(subject.handle.storage).__name__, tuple(sorted(map(str, subject.capabilities)))
        coroutines = way_from_coroutines(subject.handle.ports)
    except (Violation, StorageError):
        name, capabilities, coroutines = "a storage that does not open", (), ""
    return (f"{redact(factory)} ({name})" if isinstance(factory, str) else name), capabilities, coroutines
