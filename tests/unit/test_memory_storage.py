"""The storage in memory: the hooks of administration, and what a lock and a version protect."""

from __future__ import annotations

import pytest

from resilience import CircuitBreaker, Key, Runtime, StorageConflict, StorageLockTimeout, Version
from resilience_memory import MemoryStorage

KEY = Key("circuit_breaker", "payments")


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage("memory:")


def test_keys_are_those_that_have_a_record(storage: MemoryStorage) -> None:
    storage.resilience_load(Key("circuit_breaker", "asked for"), 1)
    assert storage.resilience_keys() == []
    with Runtime(storage=storage, environ={}) as runtime:
        for name in ("payments", "mail"):
            CircuitBreaker(name).record_failure()
        assert sorted(key.name for key in runtime.keys()) == ["mail", "payments"]  # noqa: SIM118 - no mapping


def test_what_was_deleted_is_born_again_with_another_life(storage: MemoryStorage) -> None:
    first = storage.resilience_save(KEY, b"1", None, None, 1)
    assert first.version is not None
    assert storage.resilience_delete(KEY, first.version, 1)
    assert first.is_current is not None
    assert not first.is_current()
    assert storage.resilience_keys() == []
    assert not storage.resilience_delete(KEY, None, 1)
    second = storage.resilience_save(KEY, b"2", None, None, 1)
    assert second.version is not None
    assert second.version.number == 1
    assert second.version.incarnation != first.version.incarnation
    assert storage.resilience_delete(KEY, None, 1)


def test_another_version_than_the_expected_is_not_deleted(storage: MemoryStorage) -> None:
    saved = storage.resilience_save(KEY, b"1", None, None, 1)
    with pytest.raises(StorageConflict) as conflict:
        storage.resilience_delete(KEY, Version("another", 1), 1)
    assert conflict.value.current is saved
    assert storage.resilience_load(KEY, 1).payload == b"1"


def test_what_is_locked_is_not_deleted(storage: MemoryStorage) -> None:
    storage.resilience_save(KEY, b"1", None, None, 1)
    with storage.resilience_lock(KEY, 1), pytest.raises(StorageLockTimeout, match="another thread holds the lock"):
        storage.resilience_delete(KEY, None, 0)
    assert storage.resilience_delete(KEY, None, 0)
