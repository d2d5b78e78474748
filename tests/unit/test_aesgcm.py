"""Encrypted records: what is kept, with which key, and what is said of a record that cannot be read."""

from __future__ import annotations

import base64
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from resilience import (
    CircuitBreaker,
    ConfigurationError,
    Key,
    PluginError,
    Runtime,
    StorageCorrupt,
    StorageIncompatible,
    StorageUnavailable,
)
from resilience_aesgcm import AesGcmSettings, AesGcmStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Run

ONE, TWO = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
KEY = Key("circuit_breaker", "payments")
SECRET = b'{"state":"open","last_error":"TimeoutError"}'


def storage(keys: str = ONE, inner: object = None) -> AesGcmStorage:
    return AesGcmStorage("aesgcm+memory:", AesGcmSettings(key=SecretStr(keys)), inner or MemoryStorage("memory:"))


def stored(inner: MemoryStorage, key: Key = KEY) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inner.resilience_load(key, 1).payload or b"")
    return found


def put(inner: MemoryStorage, fields: object, key: Key = KEY) -> None:
    payload = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    inner.resilience_save(key, payload, inner.resilience_load(key, 1).version, None, 1)


@pytest.fixture
def inner() -> MemoryStorage:
    return MemoryStorage("memory:")


def test_what_is_kept_is_json_and_says_nothing(inner: MemoryStorage) -> None:
    saved = storage(inner=inner).resilience_save(KEY, SECRET, None, None, 1)
    fields = stored(inner)
    assert list(fields) == ["aesgcm", "kid", "nonce", "data"]
    assert fields["aesgcm"] == 1
    assert len(base64.b64decode(fields["nonce"])) == 12
    assert len(base64.b64decode(fields["data"])) == len(SECRET) + 16
    assert b"open" not in (inner.resilience_load(KEY, 1).payload or b"open")
    loaded = storage(inner=inner).resilience_load(KEY, 1)
    assert (loaded.payload, loaded.version, saved.payload) == (SECRET, saved.version, SECRET)


def test_no_two_records_are_alike(inner: MemoryStorage) -> None:
    aesgcm = storage(inner=inner)
    found: set[str] = set()
    for _ in range(50):
        aesgcm.resilience_save(KEY, SECRET, inner.resilience_load(KEY, 1).version, None, 1)
        found |= {stored(inner)["nonce"], stored(inner)["data"]}
    assert len(found) == 100


@pytest.mark.parametrize("length", [16, 24, 32])
def test_keys_have_three_lengths_and_two_ways_to_be_written(inner: MemoryStorage, length: int) -> None:
    key = bytes(range(248, 248 + 8)) * (length // 8)
    storage(base64.b64encode(key).decode(), inner).resilience_save(KEY, SECRET, None, None, 1)
    assert storage(base64.urlsafe_b64encode(key).decode(), inner).resilience_load(KEY, 1).payload == SECRET


def test_keys_rotate(inner: MemoryStorage) -> None:
    storage(ONE, inner).resilience_save(KEY, SECRET, None, None, 1)
    both = storage(f" {TWO},\n{ONE} ", inner)
    assert both.resilience_load(KEY, 1).payload == SECRET
    before = stored(inner)["kid"]
    both.resilience_save(KEY, SECRET, inner.resilience_load(KEY, 1).version, None, 1)
    assert stored(inner)["kid"] != before
    assert storage(TWO, inner).resilience_load(KEY, 1).payload == SECRET


def test_another_key_leaves_the_record_alone(inner: MemoryStorage) -> None:
    with Runtime(storage=storage(ONE, inner), environ={}):
        CircuitBreaker("payments", failure_threshold=1).record_failure()
    before = inner.resilience_load(KEY, 1)
    with pytest.raises(StorageIncompatible) as refused:
        storage(TWO, inner).resilience_load(KEY, 1)
    kid = stored(inner)["kid"]
    assert str(refused.value).startswith(
        f"the record of circuit_breaker 'payments' was encrypted with the key {kid}, and RESILIENCE_AESGCM__KEY has "
    )
    assert ONE not in str(refused.value) + repr(refused.value)
    assert TWO not in str(refused.value)
    with Runtime(storage=storage(TWO, inner), environ={}):
        breaker = CircuitBreaker("payments")
        breaker.record_failure()
        assert breaker.status().degraded
    assert inner.resilience_load(KEY, 1).version == before.version
    with Runtime(storage=storage(ONE, inner), environ={}):
        assert CircuitBreaker("payments").status().state == "open"


def test_a_record_that_was_moved_to_another_name_is_damaged(inner: MemoryStorage) -> None:
    aesgcm = storage(inner=inner)
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    for other in (Key("circuit_breaker", "orders"), Key("bulkhead", "payments")):
        put(inner, stored(inner), other)
        with pytest.raises(StorageCorrupt, match="was changed, or belongs to another name"):
            aesgcm.resilience_load(other, 1)


@pytest.mark.parametrize("field", ["nonce", "data"])
def test_a_record_that_was_changed_is_damaged_and_set_aside(inner: MemoryStorage, field: str) -> None:
    aesgcm = storage(inner=inner)
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    fields = stored(inner)
    raw = bytearray(base64.b64decode(fields[field]))
    for place in range(len(raw)):
        raw[place] ^= 1
        put(inner, {**fields, field: base64.b64encode(raw).decode()})
        with pytest.raises(StorageCorrupt):
            aesgcm.resilience_load(KEY, 1)
        raw[place] ^= 1
    with Runtime(storage=aesgcm, environ={}):
        put(inner, {**fields, field: base64.b64encode(raw[::-1]).decode()})
        breaker = CircuitBreaker("payments")
        breaker.record_failure()
        assert breaker.status().failure_count == 1
        assert not breaker.status().degraded


@pytest.mark.parametrize(
    "change",
    [
        {"kid": "0"},
        {"kid": 5},
        {"nonce": "AAAA"},
        {"nonce": "not base64!"},
        {"data": None},
        {"aesgcm": 0},
        {"aesgcm": "1"},
    ],
    ids=str,
)
def test_what_was_made_by_hand_is_damaged(inner: MemoryStorage, change: dict[str, object]) -> None:
    aesgcm = storage(inner=inner)
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    put(inner, {**stored(inner), **change})
    with pytest.raises(StorageCorrupt, match="is damaged"):
        aesgcm.resilience_load(KEY, 1)


@pytest.mark.parametrize("missing", ["kid", "nonce", "data"])
def test_what_lacks_a_part_is_damaged(inner: MemoryStorage, missing: str) -> None:
    aesgcm = storage(inner=inner)
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    put(inner, {name: value for name, value in stored(inner).items() if name != missing})
    with pytest.raises(StorageCorrupt, match="is damaged"):
        aesgcm.resilience_load(KEY, 1)


@pytest.mark.parametrize("payload", [b"\xff\x00", b"{", b"[" * 100_000])
def test_what_is_no_json_is_damaged(inner: MemoryStorage, payload: bytes) -> None:
    put(inner, payload)
    with pytest.raises(StorageCorrupt, match="is no JSON"):
        storage(inner=inner).resilience_load(KEY, 1)


@pytest.mark.parametrize("fields", [{"state": "open"}, [1], "text"])
def test_what_is_not_encrypted_is_left_alone(inner: MemoryStorage, fields: object) -> None:
    put(inner, fields)
    with pytest.raises(StorageIncompatible, match="is not encrypted"):
        storage(inner=inner).resilience_load(KEY, 1)


def test_what_a_newer_version_encrypted_is_left_alone(inner: MemoryStorage) -> None:
    put(inner, {"aesgcm": 2, "something": "else"})
    with pytest.raises(StorageIncompatible, match="by a newer version: update"):
        storage(inner=inner).resilience_load(KEY, 1)


# --- the keys ---------------------------------------------------------------------------------------------------------


def test_chosen_by_variables(tmp_path: Path) -> None:
    environ = {"RESILIENCE_STORAGE": f"aesgcm+{tmp_path.as_uri()}", "RESILIENCE_AESGCM__KEY": ONE}
    with Runtime(environ=environ):
        CircuitBreaker("payments", failure_threshold=1).record_failure(TimeoutError())
    with Runtime(environ=environ):
        assert CircuitBreaker("payments").status().last_error == "TimeoutError"
    (state,) = tmp_path.glob("*/*.state")
    content = state.read_bytes()
    assert b"aesgcm" in content
    assert b"TimeoutError" not in content


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "storage aesgcm: set RESILIENCE_AESGCM__KEY to a random key, made with `openssl rand -base64 32`, or "),
        ({"KEY": ONE, "KEY_FILE": "/etc/key"}, "; not both"),
        ({"KEY": "hunter2"}, "RESILIENCE_AESGCM__KEY: key 1 is not in base64; make one with: openssl rand -base64 32"),
        ({"KEY": f"{ONE},aHVudGVyMg=="}, "RESILIENCE_AESGCM__KEY: key 2 has 7 bytes, not 16, 24 or 32; make one"),
        ({"KEY": "schlüssel"}, "RESILIENCE_AESGCM__KEY: key 1 is not in base64"),
    ],
)
def test_what_cannot_be_a_key_is_said_without_it(variables: dict[str, str], says: str) -> None:
    environ = {f"RESILIENCE_AESGCM__{name}": value for name, value in variables.items()}
    with Runtime(storage="aesgcm+memory:", environ=environ) as runtime, pytest.raises(ConfigurationError) as refused:
        runtime.keys()
    assert says in str(refused.value)
    assert not any(secret in str(refused.value) for secret in ("hunter2", "aHVudGVyMg", ONE, "schl"))


def test_the_keys_are_never_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "aesgcm+file:")
    monkeypatch.setenv("RESILIENCE_AESGCM__KEY", ONE)
    for words in (["config"], ["config", "--json"], ["failure", "payments"], ["status"], ["doctor"], ["plugins"]):
        done = run(*words)
        assert done.status == 0, done
        assert ONE not in done.out + done.err
    assert ONE not in repr(storage().settings)


def test_keys_in_a_file_are_read_when_they_are_needed(tmp_path: Path, inner: MemoryStorage) -> None:
    path = tmp_path / "keys"
    aesgcm = AesGcmStorage("aesgcm+memory:", AesGcmSettings(key_file=str(path)), inner)
    with pytest.raises(StorageUnavailable, match=r"reading the key file .*keys: No such file"):
        aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    for content, says in ((b"hunter2", "key 1 is not in base64"), (b"\xff", "it is no text")):
        path.write_bytes(content)
        with pytest.raises(StorageUnavailable) as refused:
            aesgcm.resilience_save(KEY, SECRET, None, None, 1)
        assert str(refused.value).startswith(f"the key file {path}: {says}")
        assert "hunter2" not in str(refused.value)
    path.write_text(f"{ONE}\n")
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    assert storage(ONE, inner).resilience_load(KEY, 1).payload == SECRET


def test_a_file_with_a_new_key_is_read_again_when_a_record_needs_it(tmp_path: Path, inner: MemoryStorage) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{ONE}\n")
    aesgcm = AesGcmStorage("aesgcm+memory:", AesGcmSettings(key_file=str(path)), inner)
    aesgcm.resilience_save(KEY, SECRET, None, None, 1)
    storage(TWO, inner).resilience_save(KEY, SECRET, inner.resilience_load(KEY, 1).version, None, 1)
    with pytest.raises(StorageIncompatible, match=f"and {path} has "):
        aesgcm.resilience_load(KEY, 1)
    path.write_text(f"{ONE}\n{TWO}\n")
    assert aesgcm.resilience_load(KEY, 1).payload == SECRET


def test_a_record_is_read_first_with_the_keys_of_a_file(tmp_path: Path, inner: MemoryStorage) -> None:
    path = tmp_path / "keys"
    path.write_text(ONE)
    storage(ONE, inner).resilience_save(KEY, SECRET, None, None, 1)
    assert AesGcmStorage("x:", AesGcmSettings(key_file=str(path)), inner).resilience_load(KEY, 1).payload == SECRET


def test_without_the_package_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(PluginError, match=r"pip install 'resilience-framework\[crypto\]'"):
        storage()


def test_made_by_hand_without_settings_it_asks_for_a_key(inner: MemoryStorage) -> None:
    with pytest.raises(ConfigurationError, match="RESILIENCE_AESGCM__KEY"):
        AesGcmStorage("aesgcm+memory:", None, inner)
