"""The storage that encrypts passes the whole kit, over the memory and over files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from conformance.encrypted import encrypted
from conformance.test_kit import failures

from resilience.testing import all_checks, run
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from resilience import Key
    from resilience_aesgcm import AesGcmStorage


def damage_record(storage: AesGcmStorage, key: Key) -> None:
    """Change the encrypted text itself, as an attacker would."""
    snapshot = storage.inner.load(key, 1)
    assert snapshot.payload is not None
    sealed = snapshot.payload.replace(b'"data":"', b'"data":"AAAA')
    with storage.inner.lock(key, 1):
        storage.inner.save(key, sealed, snapshot.version, None, 1)


@pytest.mark.heavy
@pytest.mark.parametrize("storage", [MemoryStorage, FileStorage])
def test_it_passes_the_kit(tmp_path: Path, storage: Any) -> None:
    report = run(partial(encrypted, storage, f"file://{tmp_path}/state"), damage=damage_record, quick=True)
    assert report.ok, failures(report)
    assert report["damaged"].outcome == report["is_current"].outcome == "passed"
    if storage is FileStorage:
        passed = {result.name for result in report.results if result.outcome == "passed"}
        assert {check.name for check in all_checks()} - passed == {
            *("awaitable", "counts_tasks", "cancelled_saves", "cancelled_calls"),  # it has no awaitable hooks
            *("time", "unreachable", "awaited_time", "awaited_unreachable", "discard_spares", "awaited_claims"),
            "reader",  # `check` asks the storage itself
        }


def test_some_of_it_on_every_interpreter(tmp_path: Path) -> None:
    checks = ["round_trip", "conflicts", "names", "delete", "is_current", "visible", "damaged"]
    factory = partial(encrypted, FileStorage, f"file://{tmp_path}/state")
    report = run(factory, quick=True, only=checks, damage=damage_record)
    assert [result.outcome for result in report.results] == ["passed"] * 7, failures(report)
