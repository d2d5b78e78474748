"""For tests of programs that use `resilience`, and the proof of storages that others write for it.

Names are imported when they are first used: pytest's plugin of this package is loaded by every run of pytest.
`StorageConformance` and the fixtures need pytest (``pip install resilience-framework[testing]``), nothing else does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.testing.applications import Clean, Recorder, clean_runtime, forced_open
    from resilience.testing.checks import Check, all_checks
    from resilience.testing.conformance import StorageConformance
    from resilience.testing.faulty import AwaitedFaultyStorage, FaultyStorage
    from resilience.testing.handle import Handle
    from resilience.testing.history import (
        Anomaly,
        Diary,
        Operation,
        RecordedStorage,
        check_history,
        check_order,
        check_replay,
        check_versions,
    )
    from resilience.testing.linearizability import NotLinearizable, SearchTooLong, check_linearizable
    from resilience.testing.manual_clock import ManualClock
    from resilience.testing.report import Report, Result
    from resilience.testing.runner import run, run_check
    from resilience.testing.scheduler import Explored, Scenario, ScheduleFailed, explore, replay
    from resilience.testing.subject import Subject
    from resilience.testing.violations import Skipped, Violation
    from resilience.testing.workers import Failed, Workers, wait_until

KIT_VERSION = "2"
"""The newest version of the suite for storages.

A version is a fixed set of checks: no release adds a check to a version that was published, or makes one stricter.
What is new gets the next version, and runs where an author asks for it: the second brought all that is proven from
coroutines.
"""

_HOME = {
    "Anomaly": "history",
    "AwaitedFaultyStorage": "faulty",
    "Check": "checks",
    "Clean": "applications",
    "Diary": "history",
    "Explored": "scheduler",
    "Failed": "workers",
    "FaultyStorage": "faulty",
    "Handle": "handle",
    "ManualClock": "manual_clock",
    "NotLinearizable": "linearizability",
    "Operation": "history",
    "RecordedStorage": "history",
    "Recorder": "applications",
    "Report": "report",
    "Result": "report",
    "Scenario": "scheduler",
    "ScheduleFailed": "scheduler",
    "SearchTooLong": "linearizability",
    "Skipped": "violations",
    "StorageConformance": "conformance",
    "Subject": "subject",
    "Violation": "violations",
    "Workers": "workers",
    "all_checks": "checks",
    "check_history": "history",
    "check_linearizable": "linearizability",
    "check_order": "history",
    "check_replay": "history",
    "check_versions": "history",
    "clean_runtime": "applications",
    "explore": "scheduler",
    "forced_open": "applications",
    "replay": "scheduler",
    "run": "runner",
    "run_check": "runner",
    "wait_until": "workers",
}

__all__ = [
    "KIT_VERSION",
    "Anomaly",
    "AwaitedFaultyStorage",
    "Check",
    "Clean",
    "Diary",
    "Explored",
    "Failed",
    "FaultyStorage",
    "Handle",
    "ManualClock",
    "NotLinearizable",
    "Operation",
    "RecordedStorage",
    "Recorder",
    "Report",
    "Result",
    "Scenario",
    "ScheduleFailed",
    "SearchTooLong",
    "Skipped",
    "StorageConformance",
    "Subject",
    "Violation",
    "Workers",
    "all_checks",
    "check_history",
    "check_linearizable",
    "check_order",
    "check_replay",
    "check_versions",
    "clean_runtime",
    "explore",
    "forced_open",
    "replay",
    "run",
    "run_check",
    "wait_until",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'resilience.testing' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"resilience.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
