"""The logging observer: constant messages, fields in `extra`, nothing printed unless somebody wants it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from resilience import CircuitBreaker, Event, Key, Runtime, Transition, Version
from resilience_logging import LoggingObserver

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = Key("circuit_breaker", "payments")
OPENED = Transition(KEY, "closed", "open", "3 failures in a row", 12.5, Version("a" * 32, 3), 1)


def fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name.startswith("resilience_")}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "resilience")
    return caplog


def test_transition_has_a_constant_message_and_its_fields(log: pytest.LogCaptureFixture) -> None:
    LoggingObserver().resilience_transition(OPENED)
    (record,) = log.records
    assert (record.name, record.levelname, record.getMessage()) == ("resilience", "WARNING", "state changed")
    assert fields(record) == {
        "resilience_kind": "circuit_breaker",
        "resilience_name": "payments",
        "resilience_old": "closed",
        "resilience_new": "open",
        "resilience_reason": "3 failures in a row",
        "resilience_time": 12.5,
        "resilience_version": "3@aaaaaaaa",
        "resilience_epoch": 1,
    }


def test_transition_of_a_private_copy_has_no_version(log: pytest.LogCaptureFixture) -> None:
    LoggingObserver().resilience_transition(Transition(KEY, "closed", "open", "", 1.0, None, 1))
    assert fields(log.records[0])["resilience_version"] is None


@pytest.mark.parametrize(
    ("name", "data", "level", "message"),
    [
        ("degraded", {"error": "no space left", "mode": "local"}, "WARNING", "storage does not answer"),
        ("recovered", {"seconds": 1.5}, "INFO", "storage answers again"),
        ("dropped", {"error": "a bug"}, "ERROR", "outcome given up"),
        ("late", {"outcome": "failure"}, "DEBUG", "late report"),
        ("reset", {"state": "open"}, "INFO", "reset by hand"),
        ("state_reset", {"error": "checksum"}, "ERROR", "damaged record set aside"),
        ("settings_conflict", {"window": "count:9", "other": "consecutive"}, "WARNING", "settings in conflict"),
        ("would_have_opened", {"reason": "3 failures in a row"}, "WARNING", "would have opened"),
        ("version_regression", {"seen": 9, "found": 7}, "WARNING", "older record than before"),
        ("clock_skew", {"seconds": 7200.0, "storage": "redis"}, "WARNING", "clock of this machine is off"),
        ("configuration_reloaded", {"file": "/x.toml", "reopened": False}, "INFO", "configuration reloaded"),
        ("configuration_rejected", {"file": "/x.toml", "error": "no"}, "ERROR", "configuration refused"),
        ("invented_tomorrow", {"answer": 42}, "INFO", "event"),
    ],
)
def test_event_has_a_constant_message_and_its_fields(
    name: str, data: Mapping[str, object], level: str, message: str, log: pytest.LogCaptureFixture
) -> None:
    LoggingObserver().resilience_event(Event(name, KEY, 7.0, MappingProxyType(data)))
    (record,) = log.records
    assert (record.name, record.levelname, record.getMessage()) == ("resilience", level, message)
    assert fields(record) == {
        "resilience_event": name,
        "resilience_kind": "circuit_breaker",
        "resilience_name": "payments",
        "resilience_time": 7.0,
        **{f"resilience_{field}": value for field, value in data.items()},
    }


def test_event_of_the_whole_storage_has_no_key(log: pytest.LogCaptureFixture) -> None:
    LoggingObserver().resilience_event(Event("degraded", None, 7.0, {}))
    assert fields(log.records[0]) == {
        "resilience_event": "degraded",
        "resilience_kind": None,
        "resilience_name": None,
        "resilience_time": 7.0,
    }


def test_data_hides_no_field_and_clashes_with_no_attribute_of_a_record(log: pytest.LogCaptureFixture) -> None:
    data = {"name": "n", "event": "e", "kind": "k", "time": 0, "message": "m", "args": "a", "exc_info": "x"}
    LoggingObserver().resilience_event(Event("late", KEY, 7.0, data))
    (record,) = log.records
    assert (record.getMessage(), record.args, record.exc_info) == ("late report", (), None)
    found = fields(record)
    assert (found["resilience_name"], found["resilience_event"]) == ("payments", "late")
    assert {found[f"resilience_data_{field}"] for field in ("name", "event", "kind", "time")} == {"n", "e", "k", 0}
    assert (found["resilience_message"], found["resilience_args"], found["resilience_exc_info"]) == ("m", "a", "x")


def test_passwords_in_urls_are_never_logged(log: pytest.LogCaptureFixture) -> None:
    text = "cannot reach redis://app:hunter2@db.example:6379/0: refused"
    LoggingObserver().resilience_event(Event("degraded", KEY, 7.0, {"error": text}))
    LoggingObserver().resilience_transition(Transition(KEY, "closed", "open", text, 1.0, None, 1))
    assert len(log.records) == 2
    for record in log.records:
        assert "hunter2" not in str(fields(record))
        assert "db.example:6379" in str(fields(record))


def test_it_is_an_installed_observer(log: pytest.LogCaptureFixture) -> None:
    with Runtime(storage="memory:", environ={}):
        CircuitBreaker("payments").force_open(reason="maintenance")
    (record,) = log.records
    found = fields(record)
    assert (found["resilience_name"], found["resilience_old"], found["resilience_new"]) == (
        "payments",
        "closed",
        "forced_open",
    )


ALONE = """
import json, logging, sys
from resilience_logging import LoggingObserver
from resilience import Event, Key
observer = LoggingObserver()
if {configured}:
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("resilience").addHandler(logging.StreamHandler(sys.stderr))
for number in range(2):
    observer.resilience_event(Event("degraded", None, 0.0, {{}}))
print(json.dumps([type(handler).__name__ for handler in logging.getLogger("resilience").handlers]))
"""


@pytest.mark.parametrize(
    ("configured", "handlers", "printed"),
    [(False, ["NullHandler"], 0), (True, ["StreamHandler"], 4)],
    ids=["nothing configured", "configured"],
)
def test_it_prints_only_where_the_program_says_so(*, configured: bool, handlers: list[str], printed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(configured=configured)],
        capture_output=True,
        check=True,
        encoding="utf-8",
        timeout=60,
    )
    assert json.loads(done.stdout) == handlers
    assert done.stderr.count("storage does not answer") == printed
