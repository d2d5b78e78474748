"""Storages that hold a storage: how they are chosen, what passes through, and whose mistake is told."""

from __future__ import annotations

import asyncio
import json
import zlib
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from pydantic import Field
from storages import Awaited, Casual, Faulty
from storages import install as install_storages

from resilience import (
    Capability,
    CircuitBreaker,
    ConfigurationError,
    HoldingStorage,
    InnerStorage,
    Key,
    PluginError,
    Runtime,
    Snapshot,
    StorageConflict,
    StorageCorrupt,
    StorageIncompatible,
    StorageSettings,
    StorageUnavailable,
    Version,
    Word,
    hookimpl,
)
from resilience_filelock import FileStorage
from resilience_memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.command_line import Install, Run

KEY = Key("test", "x")


class PackedSettings(StorageSettings):
    level: int = Field(default=6, ge=0, le=9, description="How hard it tries.")


class Packed(HoldingStorage):
    """Compresses, as a third party would write it."""

    Settings = PackedSettings

    def outgoing(self, key: Key, payload: bytes) -> bytes:
        level = 6 if self.settings is None else self.settings.level
        return json.dumps({"packed": b64encode(zlib.compress(payload, level)).decode()}).encode()

    def incoming(self, key: Key, payload: bytes) -> bytes:
        try:
            return zlib.decompress(b64decode(json.loads(payload)["packed"]))
        except (ValueError, KeyError, zlib.error) as error:
            raise ValueError(f"cannot be unpacked: {error}") from error


class Marked(HoldingStorage):
    """Marks with the kind of the key, and has no settings."""

    def outgoing(self, key: Key, payload: bytes) -> bytes:
        return key.kind.encode() + b":" + payload

    def incoming(self, key: Key, payload: bytes) -> bytes:
        kind, _, rest = payload.partition(b":")
        if kind.decode() != key.kind:
            raise StorageIncompatible(f"{key}: marked {kind!r}", key=key)
        return rest


@pytest.fixture
def holders(install: Install) -> None:
    install("resilience.storage", "packed", "unit.test_holding:Packed")
    install("resilience.storage", "marked", "unit.test_holding:Marked")


@pytest.mark.usefixtures("holders")
@pytest.mark.parametrize("outer", ["packed", "packed+marked", "marked+packed+marked"])
def test_a_breaker_on_a_storage_that_holds_others(tmp_path: Path, outer: str) -> None:
    with Runtime(storage=f"{outer}+{tmp_path.as_uri()}", environ={}) as runtime:
        breaker = CircuitBreaker("payments", failure_threshold=1)
        breaker.record_failure()
        assert breaker.status().state == "open"
        storage = runtime.opened.storage
        assert storage.capabilities == {Capability.PROCESSES, Capability.INLINE, Capability.PUSH}
        assert (storage.url, storage.inner.name) == (f"{outer}+{tmp_path.as_uri()}", f"{outer}+file".partition("+")[2])
        assert runtime.keys() == [Key("circuit_breaker", "payments")]
    with Runtime(storage=tmp_path.as_uri(), environ={}) as runtime:
        raw = runtime.opened.ports.load(Key("circuit_breaker", "payments"), 1).payload or b""
    assert b"open" not in raw
    with Runtime(storage=f"{outer}+{tmp_path.as_uri()}", environ={}):
        assert CircuitBreaker("payments").status().state == "open"


@pytest.mark.usefixtures("holders")
def test_the_default_place_is_the_inner_one_s(tmp_path: Path) -> None:
    environ = {"RESILIENCE_STORAGE": "marked+packed+file:", "XDG_STATE_HOME": str(tmp_path)}
    with Runtime(environ=environ) as runtime:
        assert runtime.opened.url == f"marked+packed+{(tmp_path / 'resilience').as_uri()}"
        CircuitBreaker("x").record_failure()
        assert runtime.opened.storage.folder == str(tmp_path / "resilience"), "its place is the inner storage's"


@pytest.mark.usefixtures("holders")
def test_settings_of_both_are_known_and_checked() -> None:
    environ = {
        "RESILIENCE_STORAGE": "packed+file:",
        "RESILIENCE_PACKED__LEVEL": "9",
        "RESILIENCE_FILE__DURABILITY": "fsync",
    }
    with Runtime(environ=environ) as runtime:
        opened = runtime.opened
        assert opened.storage.settings.level == 9
        assert Capability.DURABLE in opened.ports.capabilities
    for name, value, says in (
        ("RESILIENCE_PACKED__LEVEL", "10", "RESILIENCE_PACKED__LEVEL: '10' is refused"),
        ("RESILIENCE_FILE__DURABILITY", "much", "RESILIENCE_FILE__DURABILITY: 'much' is refused"),
        ("RESILIENCE_PACKED__LEVLE", "1", "did you mean RESILIENCE_PACKED__LEVEL?"),
        ("RESILIENCE_FILE__DURABILTY", "none", "did you mean RESILIENCE_FILE__DURABILITY?"),
        ("RESILIENCE_MARKED__LEVEL", "1", "the storage 'marked' has no settings"),
    ):
        changed = {**environ, "RESILIENCE_STORAGE": "marked+packed+file:", name: value}
        with Runtime(environ=changed) as runtime, pytest.raises(ConfigurationError) as refused:
            runtime.keys()
        assert says in str(refused.value)


@pytest.mark.usefixtures("holders")
@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("packed:", "unit.test_holding:Packed of plugin_packed 1.5) holds another storage and keeps nothing by itself"),
        ("packed:", "; write packed+file:…, for example"),
        ("memory+file:", "resilience_memory:MemoryStorage of resilience-framework"),
        ("memory+file:", "holds no other storage; write file:… without it"),
        ("packed+memory+file:", "holds no other storage; write file:… without it"),
        ("paked+file:", "no installed plugin stores to 'paked:'; did you mean 'packed'?"),
        ("packed+fil:", "no installed plugin stores to 'fil:'; did you mean 'file'?"),
        ("packed+marked:", "plugin 'marked' (unit.test_holding:Marked of plugin_marked 1.5) holds another storage"),
    ],
)  # fmt: skip
def test_errors_name_which_of_them(url: str, says: str) -> None:
    with Runtime(environ={"RESILIENCE_STORAGE": url}) as runtime, pytest.raises(ConfigurationError) as refused:
        runtime.keys()
    assert str(refused.value).startswith("RESILIENCE_STORAGE: ")
    assert says in str(refused.value)


@pytest.mark.usefixtures("holders")
def test_one_that_is_blocked_is_named() -> None:
    environ = {"RESILIENCE_STORAGE": "packed+memory:", "RESILIENCE_PLUGINS_BLOCKED": "packed"}
    with Runtime(environ=environ) as runtime, pytest.raises(ConfigurationError, match="blocks plugin 'packed'"):
        runtime.keys()
    environ["RESILIENCE_PLUGINS_BLOCKED"] = "memory"
    with Runtime(environ=environ) as runtime, pytest.raises(ConfigurationError, match="blocks plugin 'memory'"):
        runtime.keys()


class Unmade(HoldingStorage):
    def __init__(self, url: str, settings: None, inner: InnerStorage) -> None:
        raise KeyError("unmade")


class Misfit(MemoryStorage):
    @hookimpl
    def resilience_lod(self) -> None: ...


def test_the_one_that_cannot_be_made_or_does_not_fit_is_named(install: Install) -> None:
    install("resilience.storage", "unmade", "unit.test_holding:Unmade")
    install("resilience.storage", "misfit", "unit.test_holding:Misfit")
    install("resilience.storage", "packed", "unit.test_holding:Packed")
    for url, says in (
        ("unmade+memory:", "plugin 'unmade' (unit.test_holding:Unmade of plugin_unmade 1.5) cannot be made: KeyError"),
        (
            "packed+misfit:",
            "'misfit' (unit.test_holding:Misfit of plugin_misfit 1.5): resilience_lod is no hook",
        ),
    ):
        with Runtime(storage=url, environ={}) as runtime, pytest.raises(PluginError) as refused:
            runtime.keys()
        assert says in str(refused.value)


@pytest.mark.usefixtures("holders")
def test_a_scheme_with_a_plus_of_its_own_is_one_storage(install: Install) -> None:
    install("resilience.storage", "packed+tls", "resilience_memory:MemoryStorage")
    with Runtime(storage="packed+tls:", environ={}) as runtime:
        assert type(runtime.opened.storage) is MemoryStorage


def test_reload_opens_anew_if_a_setting_of_either_changes(holders: None, tmp_path: Path) -> None:
    path = tmp_path / "resilience.toml"
    path.write_text('storage = "packed+memory:"\n')
    with Runtime(environ={"RESILIENCE_CONFIG": str(path)}) as runtime:
        before = runtime.opened
        path.write_text('storage = "packed+memory:"\n[packed]\nlevel = 1\n')
        runtime.reload()
        assert runtime.opened is not before
        assert runtime.opened.storage.settings.level == 1


# --- what passes through ----------------------------------------------------------------------------------------------


def opened(storage: object) -> InnerStorage:
    return HoldingStorage("holding:", None, storage).inner


def test_the_inner_storage_is_its_hooks_as_functions() -> None:
    memory = MemoryStorage("memory:")
    inner = opened(memory)
    assert (inner.name, inner.storage, inner.capabilities) == ("MemoryStorage", memory, memory.capabilities)
    with inner.lock(KEY, 1):
        saved = inner.save(KEY, b"{}", None, None, 1)
    assert inner.load(KEY, 1).version == saved.version
    assert (inner.aload, inner.asave) == (None, None)
    assert opened(inner) is inner


def test_a_storage_that_changes_nothing_is_the_inner_one(tmp_path: Path) -> None:
    inner = FileStorage(tmp_path.as_uri())
    with Runtime(storage=HoldingStorage("x:", None, inner), environ={}) as runtime:
        ports = runtime.opened.ports
        with ports.lock(KEY, 1):
            saved = ports.save(KEY, b"{}", None, None, 1)
        assert isinstance(saved.is_current, Word)
        assert inner.resilience_load(KEY, 1).payload == b"{}"
        assert ports.load(KEY, 1).payload == b"{}"
        assert isinstance(ports.load(KEY, 1).is_current, Word)


def test_freshness_and_time_pass_through() -> None:
    memory = MemoryStorage("memory:")
    packed = Packed("packed:", None, memory)
    first = packed.resilience_load(KEY, 1)
    assert (first.payload, first.version, isinstance(first.is_current, Word)) == (None, None, True)
    with packed.resilience_lock(KEY, 1):
        saved = packed.resilience_save(KEY, b"payload", None, None, 1)
    assert saved.payload == b"payload"
    assert isinstance(saved.is_current, Word)
    assert saved.is_current()
    assert first.is_current is not None
    assert not first.is_current()

    class Timed(MemoryStorage):
        @hookimpl
        def resilience_load(self, key: Key, timeout: float) -> Snapshot:
            return Snapshot(b"x:1", Version("a", 1), None, 12.5)

    assert Marked("marked:", None, Timed("memory:")).resilience_load(Key("x", "y"), 1).time == 12.5


def test_the_record_of_a_conflict_is_readable() -> None:
    memory = MemoryStorage("memory:")
    packed = Packed("packed:", None, memory)
    packed.resilience_save(KEY, b"first", None, None, 1)
    for act in (
        lambda: packed.resilience_save(KEY, b"second", None, None, 1),
        lambda: packed.resilience_delete(KEY, Version("other", 1), 1),
    ):
        with pytest.raises(StorageConflict) as conflict:
            act()
        assert conflict.value.current is not None
        assert conflict.value.current.payload == b"first"


def test_a_conflict_with_what_cannot_be_read_brings_nothing_along() -> None:
    memory = MemoryStorage("memory:")
    memory.resilience_save(KEY, b"not packed", None, None, 1)
    packed = Packed("packed:", None, memory)
    with pytest.raises(StorageConflict) as conflict:
        packed.resilience_save(KEY, b"second", None, None, 1)
    assert conflict.value.current is None
    with pytest.raises(StorageCorrupt, match=r"the record of test 'x' cannot be unpacked: "):
        packed.resilience_load(KEY, 1)


def test_a_conflict_without_a_record_stays_one() -> None:
    storage = Faulty("holding-conflict:")
    storage.plan("save", StorageConflict("gone", key=KEY))
    with pytest.raises(StorageConflict) as conflict:
        Packed("packed:", None, storage).resilience_save(KEY, b"", None, None, 1)
    assert conflict.value.current is None


def test_what_is_damaged_is_set_aside_and_what_is_incompatible_stays() -> None:
    memory = MemoryStorage("memory:")
    key = Key("circuit_breaker", "payments")
    memory.resilience_save(key, b"not packed", None, None, 1)
    with Runtime(storage=Packed("packed:", None, memory), environ={}):
        CircuitBreaker("payments").record_failure()
    version = memory.resilience_load(key, 1).version
    assert version is not None
    assert version.number == 1, "a new record"

    memory.resilience_delete(key, None, 1)
    memory.resilience_save(key, b"other:{}", None, None, 1)
    with Runtime(storage=Marked("marked:", None, memory), environ={}):
        breaker = CircuitBreaker("payments")
        breaker.record_failure()
        assert breaker.status().degraded
    assert memory.resilience_load(key, 1).payload == b"other:{}"


def test_hooks_that_the_inner_storage_has_not_are_not_there() -> None:
    class Least(Casual):
        resilience_discard = None  # type: ignore[assignment]

    with Runtime(storage=Packed("packed:", None, Least("holding-least:")), environ={}) as runtime:
        ports = runtime.opened.ports
        assert (ports.keys, ports.delete, ports.aload, ports.asave) == (None, None, None, None)
        with pytest.raises(StorageUnavailable, match="cannot set it aside"):
            ports.discard(KEY, "damaged", 1)


def test_awaitable_hooks_pass_through() -> None:
    storage = Awaited("holding-awaited:")
    packed = Packed("packed:", None, storage)

    async def main() -> None:
        saved = await packed.resilience_asave(KEY, b"payload", None, None, 1)
        assert saved.payload == b"payload"
        assert (await packed.resilience_aload(KEY, 1)).payload == b"payload"
        with pytest.raises(StorageConflict) as conflict:
            await packed.resilience_asave(KEY, b"again", None, None, 1)
        assert conflict.value.current is not None
        assert conflict.value.current.payload == b"payload"
        with Runtime(storage=packed, environ={}):
            breaker = CircuitBreaker("async", failure_threshold=1)
            with pytest.raises(ZeroDivisionError):
                await breaker.acall(fails)
            assert breaker.status().state == "open"

    async def fails() -> None:
        raise ZeroDivisionError

    asyncio.run(main())
    assert {"aload", "asave"} <= set(storage.calls)


def test_closing_closes_the_inner_one_where_it_can_be() -> None:
    storage = Faulty("holding-closed:")
    Packed("packed:", None, storage).close()
    assert storage.is_closed
    Packed("packed:", None, MemoryStorage("memory:")).close()


def test_all_records_in_one_go_are_readable(tmp_path: Path) -> None:
    with Runtime(storage=Packed("packed:", None, FileStorage(tmp_path.as_uri())), environ={}) as runtime:
        for name in ("a", "b"):
            CircuitBreaker(name).record_failure()
        inner = runtime.opened.storage.inner
        with inner.lock(Key("circuit_breaker", "c"), 1):
            inner.save(Key("circuit_breaker", "c"), b"not packed", None, None, 1)
        found = dict(runtime.records("circuit_breaker"))
    names = {key.name: None if snapshot is None else snapshot.payload for key, snapshot in found.items()}
    assert names.pop("c") is None, "it is to be loaded, which says why"
    assert {name: b"packed" in (payload or b"packed") for name, payload in names.items()} == {"a": False, "b": False}


def test_records_that_are_to_be_loaded_stay_so() -> None:
    class Listing(MemoryStorage):
        def records(self, kind: str) -> list[tuple[Key, Snapshot | None]]:
            return [(KEY, None)]

    assert list(Packed("packed:", None, Listing("memory:")).records("test")) == [(KEY, None)]


def test_what_neither_has_is_not_there() -> None:
    packed = Packed("packed:", None, MemoryStorage("memory:"))
    with pytest.raises(AttributeError, match="MemoryStorage"):
        assert packed.examine
    with pytest.raises(AttributeError, match="_private"):
        assert packed._private
    with pytest.raises(AttributeError, match="MemoryStorage"):
        assert packed.records
    with pytest.raises(AttributeError, match="anything_else"):
        assert Packed("packed:", None, Faulty("else:")).anything_else
    with pytest.raises(AttributeError, match="inner"):
        print(Packed.__new__(Packed).inner)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("holders")
def test_on_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "packed+marked+file:")
    assert run("failure", "payments").status == 0
    assert json.loads(run("status", "--json").out)[0]["failure_count"] == 1
    shown = {(one["section"], one["setting"]) for one in json.loads(run("config", "--json").out)}
    assert {("packed", "level"), ("file", "durability")} <= shown
    storages = [one for one in json.loads(run("plugins", "--json").out) if one["group"] == "resilience.storage"]
    found = {one["name"]: one["chosen"] for one in storages}
    assert {name for name, chosen in found.items() if chosen} == {"packed", "marked", "file"}
    done = run("doctor")
    assert done.status == 0, done.out
    assert "RESILIENCE_STORAGE means packed+marked+file:///" in done.out


class Prepared(MemoryStorage):
    prepared: ClassVar[list[bool]] = []

    def prepare(self, *, dry: bool) -> str:
        self.prepared.append(dry)
        return "made"


@pytest.mark.usefixtures("holders")
def test_what_the_inner_storage_needs_is_made(run: Run, install: Install) -> None:
    install("resilience.storage", "prepared", "unit.test_holding:Prepared")
    done = run("storage", "init", "packed+prepared:")
    assert (done.status, done.err) == (0, "")
    assert Prepared.prepared == [False]


def test_storages_of_tests_can_be_held(holders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_storages(tmp_path, monkeypatch)
    with Runtime(storage="packed+awaited:held", environ={}) as runtime:
        found: Any = runtime.opened.storage.inner.storage
        assert type(found) is Awaited
        assert found.calls == [], "a constructor does no I/O"
