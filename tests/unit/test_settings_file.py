"""The configuration file: where it stands among the sources, and what is said of one that is wrong."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from pydantic import Field, SecretStr

from resilience import CircuitBreaker, ConfigurationError, Runtime, StorageSettings
from resilience.configfile import MOST_BYTES, load
from resilience.settings import Configuration, ConfigurationWarning, Duration, ObserverSettings, PolicySettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class GateSettings(PolicySettings):
    limit: int = Field(default=3, ge=1, le=100)
    most: int | None = None
    span: Annotated[Duration, Field(le=3600)] = 30.0
    strict: bool = False
    names: tuple[str, ...] = ()
    judge: Any = Field(default=None, json_schema_extra={"code_only": True})


class StoreSettings(StorageSettings):
    depth: int = 1
    password: SecretStr | None = None


class WatchSettings(ObserverSettings):
    loud: bool = False


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "resilience.toml"


def configure(path: Path, text: str, environ: Mapping[str, str] | None = None) -> Configuration:
    path.write_text(text, "utf-8")
    return Configuration(
        environ or {},
        storages=["file", "redis+tls"],
        policies={"gate": lambda: GateSettings},
        observers=["watch", "mute", "file"],
        file=load(str(path)),
    )


def gate(configuration: Configuration, name: str = "a", given: Mapping[str, object] | None = None) -> GateSettings:
    return configuration.policy_settings("gate", name, GateSettings, given or {})


def refusal(path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(path, text)
    return str(caught.value)


# -- what stands where -------------------------------------------------------------------------------------------------

EVERYTHING = """
storage = "redis+tls://host"
storage_timeout = "500ms"

[gate]
limit = 4
span = 60
names = ["a", "b"]

["redis+tls"]
depth = 2

[watch]
loud = true

[policies."payments-api".gate]
limit = 5
most = 6

[policies."支払い".gate]
limit = 7
"""


def test_every_part_is_found_where_it_belongs(path: Path) -> None:
    configured = configure(path, EVERYTHING)
    assert (configured.core.storage, configured.core.storage_timeout) == ("redis+tls://host", 0.5)
    assert configured.storage_settings("redis+tls", StoreSettings) == StoreSettings(depth=2)
    assert configured.observer_settings("watch", WatchSettings) == WatchSettings(loud=True)
    assert gate(configured) == GateSettings(limit=4, span=60, names=("a", "b"))
    assert gate(configured, "payments-api") == GateSettings(limit=5, most=6, span=60, names=("a", "b"))
    assert gate(configured, "payments_api").limit == 5
    assert gate(configured, "支払い").limit == 7


def test_sources_from_the_weakest_to_the_strongest(path: Path) -> None:
    text = "[gate]\nlimit = 4\n[policies.a.gate]\nlimit = 5\n"
    assert gate(configure(path, "")).limit == 3
    assert gate(configure(path, text), "b").limit == 4
    assert gate(configure(path, text)).limit == 5
    environ = {"RESILIENCE_GATE__LIMIT": "6"}
    assert gate(configure(path, text, environ)).limit == 6
    assert configure(path, text, environ).policy_settings("gate", "a", GateSettings, {}, {"limit": 7}).limit == 7
    assert gate(configure(path, text, environ), given={"limit": 8}).limit == 8
    environ["RESILIENCE_POLICIES__A__GATE__LIMIT"] = "9"
    assert gate(configure(path, text, environ), given={"limit": 8}).limit == 9
    core = configure(path, 'storage = "redis+tls:"\n', {"RESILIENCE_STORAGE": "file:"}).core
    assert core.storage == "file:"


def test_each_source_is_named_with_file_and_key(path: Path) -> None:
    configured = configure(path, EVERYTHING)
    source = {each.field: each.source for each in configured.explain("gate", "payments-api", GateSettings, {})}
    assert source["limit"] == f"{path}: policies.payments-api.gate.limit"
    assert source["span"] == f"{path}: gate.span"
    assert source["strict"] == "default"
    (loud,) = configured.explain_observer("watch", WatchSettings)
    assert (loud.value, loud.source, loud.variable) == (True, f"{path}: watch.loud", "RESILIENCE_WATCH__LOUD")
    assert configured.explain_core()[0].source == f"{path}: storage"
    assert configured.explain_storage("redis+tls", StoreSettings)[0].source == f'{path}: "redis+tls".depth'


def test_text_means_what_it_means_in_a_variable(path: Path) -> None:
    settings = gate(
        configure(path, '[gate]\nlimit = " 5 "\nmost = "none"\nspan = "2m"\nnames = "a, b"\nstrict = "yes"\n')
    )
    assert settings == GateSettings(limit=5, most=None, span=120, names=("a", "b"), strict=True)


def test_sections_of_storages_that_were_not_chosen_are_passed_over(path: Path) -> None:
    configured = configure(path, "[file]\nanything = {goes = 1}\n")
    assert configured.storage_settings("redis+tls", StoreSettings) == StoreSettings()
    with pytest.raises(ConfigurationError, match=r"file\.anything: nothing knows this key"):
        configured.storage_settings("file", StoreSettings)


def test_an_observer_without_settings_has_no_section(path: Path) -> None:
    configured = configure(path, "[mute]\nx = 1\n", {"RESILIENCE_MUTE__Y": "1"})
    with pytest.raises(ConfigurationError) as caught:
        configured.explain_observer("mute", None)
    assert "mute.x: nothing knows this key" in str(caught.value)
    assert "RESILIENCE_MUTE__Y: the observer 'mute' has no settings" in str(caught.value)


def test_an_observer_named_like_a_storage_has_no_section_of_its_own(path: Path) -> None:
    configured = configure(path, "[file]\ndepth = 2\n")
    assert configured.observer_settings("file", WatchSettings) == WatchSettings()
    assert configured.observer_settings("file", None) is None
    assert configured.explain_observer("file", WatchSettings) == []


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("storag = 1", "storag: nothing knows this key: did you mean storage?"),
        ("limit = 1", "limit: nothing knows this key: did you mean gate.limit?"),
        ("[gat]\nlimit = 1", "gat: nothing knows this key: did you mean gate?"),
        ("[wach]\n", "wach: nothing knows this key: did you mean watch?"),
        ("[polices.a.gate]\n", "polices: nothing knows this key: did you mean policies?"),
        ("[gate]\nlimits = 1", "gate.limits: nothing knows this key: did you mean gate.limit?"),
        ("[gate]\nzzz = 1", "gate.zzz: nothing knows this key: remove it"),
        ("[policies.a]\nlimit = 1", "policies.a.limit: nothing knows this key: did you mean policies.a.gate.limit?"),
        ("[policies.a.gat]\n", "policies.a.gat: nothing knows this key: did you mean policies.a.gate?"),
        (
            "[policies.a.gate]\nlimt = 1",
            "policies.a.gate.limt: nothing knows this key: did you mean policies.a.gate.limit?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_what_it_may_have_meant(path: Path, text: str, expected: str) -> None:
    message = refusal(path, text)
    assert message == f"{path}: {expected} (RESILIENCE_UNKNOWN=warn passes over what is unknown)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gate]\nlimit = 0", "gate.limit: 0 is refused: it should be greater than or equal to 1"),
        ("[gate]\nlimit = true", "gate.limit: true is refused: it has the wrong type: give it a value or remove it"),
        ("[gate]\nlimit = []", "gate.limit: [] is refused: it should be a valid integer"),
        ("[gate]\nlimit = 2.5", "gate.limit: 2.5 is refused: it should be a valid integer"),
        ("[gate]\nlimit = 2020-01-01", "gate.limit: 2020-01-01 is refused: it has the wrong type"),
        ("[gate.limit]\nx = 1", "gate.limit: this is a setting, not a section"),
        ('[gate]\nlimit = ""', "gate.limit: it is empty: give it a value or remove it"),
        ('[gate]\nspan = "soon"', "gate.span: 'soon' is refused: a duration is a number of seconds"),
        ("[gate]\nspan = inf", "gate.span: inf is refused: a duration is a number of seconds"),
        ("[gate]\nspan = nan", "gate.span: nan is refused: a duration is a number of seconds"),
        ("[gate]\nspan = -1", "gate.span: -1 is refused: a duration is a number of seconds"),
        ("[gate]\nnames = [{}]", "gate.names: ['{}'] is refused: it should be a valid string"),
        ("[gate]\njudge = 1", "gate.judge: judge can be set in code only: remove it"),
        ("gate = 3", "gate: this is a section, not a setting: write [gate]"),
        ("policies = 3", "policies: this is a section, not a setting: write [policies]"),
        ("policies.a = 3", "policies.a: this is a section, not a setting: write [policies.a]"),
        ("policies.a.gate = 3", "policies.a.gate: this is a section, not a setting: write [policies.a.gate]"),
        ('config = "x"', "config: config can be set by RESILIENCE_CONFIG only: remove it"),
        ('storage = "memory"', "storage: 'memory' is refused: a storage is a URL"),
        ("[gate]\n[Gate]\n", "Gate: this section stands there twice, spelt in two ways: join them"),
        ("[policies.a-b.gate]\n[policies.a_b.gate]\n", "policies.a_b.gate: this section stands there twice"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_key(path: Path, text: str, expected: str) -> None:
    message = refusal(path, text)
    assert message.startswith(f"{path}: {expected}")
    assert "\n" not in message


def test_a_contradiction_names_its_sources(path: Path) -> None:
    path.write_text('[circuit_breaker]\nwindow = "count"\nwindow_size = 5\n')
    environ = {"RESILIENCE_CONFIG": str(path), "RESILIENCE_CIRCUIT_BREAKER__MINIMUM_CALLS": "9"}
    with Runtime(storage="memory:", environ=environ), pytest.raises(ConfigurationError) as caught:
        CircuitBreaker("a").status()
    assert f"window_size by {path}: circuit_breaker.window_size" in str(caught.value)
    assert "minimum_calls by RESILIENCE_CIRCUIT_BREAKER__MINIMUM_CALLS" in str(caught.value)


def test_unknown_keys_are_warned_of_where_that_is_wanted(path: Path) -> None:
    with pytest.warns(ConfigurationWarning, match=r"gate\.zzz: nothing knows this key: remove it$"):
        configured = configure(path, 'unknown = "warn"\n[gate]\nzzz = 1\nlimit = 4\n')
    assert gate(configured).limit == 4
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        configure(path, 'unknown = "warn"\n' + "\n".join(f"zzz{number} = 1" for number in range(50)))
    assert str(caught[0].message).endswith("… and 30 more")


def test_a_policy_that_does_not_load_hides_no_message(path: Path) -> None:
    def load_model() -> type[PolicySettings]:
        raise ImportError

    path.write_text("storag = 1")
    with pytest.raises(ConfigurationError, match=r"did you mean storage\?"):
        Configuration({}, storages=[], policies={"gate": load_model}, file=load(str(path)))


def test_two_guards_that_the_file_means_both_are_told_apart_or_refused(path: Path) -> None:
    configured = configure(path, "[policies.a-b.gate]\nlimit = 4\n[policies.c.gate]\n")
    assert gate(configured, "a-b", {"most": 1}).limit == 4
    with pytest.raises(ConfigurationError) as caught:
        gate(configured, "a_b", {"most": 2})
    assert str(caught.value).startswith(f"{path}: policies.a-b.gate.limit: this means both 'a-b' and 'a_b'")
    assert gate(configured, "c").limit == 3


def test_secrets_are_never_shown(path: Path) -> None:
    text = 'storage = "redis+tls://:hunter2@host"\n["redis+tls"]\npassword = "hunter2"\ndepth = "x"\n'
    configured = configure(path, text)
    with pytest.raises(ConfigurationError) as caught:
        configured.storage_settings("redis+tls", StoreSettings)
    assert "hunter2" not in str(caught.value)
    configured = configure(path, text.replace('depth = "x"', ""))
    shown = repr(configured.explain_core()) + repr(configured.explain_storage("redis+tls", StoreSettings))
    assert "hunter2" not in shown
    assert "hunter2" not in refusal(path, 'storage = "redis://:hunter2@ho\\nst"')
    assert configured.plugin_values("redis+tls", StoreSettings) is None


def test_a_key_that_a_terminal_would_obey_is_shown_harmlessly(path: Path) -> None:
    message = refusal(path, '"\\u001b[31m\\"\\\\" = 1\n"' + "k" * 500 + '" = 1\n"" = 1\n')
    assert message.isprintable() or message.replace("\n", "").isprintable()
    assert len(message) < 1500


# -- the file itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"storage = \n", "is no TOML: Invalid value (at line 1"),
        (b"a = 1\na = 2\n", "is no TOML: Cannot overwrite a value (at line 2"),
        (b"[gate]\nlimit = 3\xff\n", "is not written in UTF-8 (line 2): save it as UTF-8"),
        (b"a = " + b"[" * 100_000, "is no TOML: "),
        (b"a = " + b"9" * 10_000, "is no TOML: a number in it has too many digits"),
        (b"#" * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes: that is no configuration"),
    ],
)
def test_a_file_that_cannot_be_understood(path: Path, content: bytes, expected: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"RESILIENCE_CONFIG: {path} {expected}")
    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 500


def test_a_mark_at_its_beginning_does_no_harm(path: Path) -> None:
    path.write_bytes(b'\xef\xbb\xbfstorage = "file:"\r\n')
    assert load(str(path)).tables == {"storage": "file:"}


def test_what_is_no_file_is_refused_and_not_waited_for(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory: mend it or unset"):
        load(str(path))
    with pytest.raises(ConfigurationError, match="is not a file: name a file in TOML"):
        load(str(tmp_path))
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="is not a file"):
        load(str(path))
    with pytest.raises(ConfigurationError, match=r"'.*\\x1b.*' cannot be read"):
        load(f"{path}\x1b[31m")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(f"{path}\0")


def test_a_runtime_reads_the_file_that_the_variable_names(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("[circuit_breaker]\nfailure_threshold = 1\n")
    monkeypatch.chdir(path.parent)
    with Runtime(storage="memory:", environ={"RESILIENCE_CONFIG": f" {path.name} "}) as runtime:
        breaker = CircuitBreaker("a")
        breaker.record_failure()
        assert breaker.status().state == "open"
        assert runtime.configuration.file is not None
        assert runtime.configuration.file.path == str(path)
    with (
        Runtime(storage="memory:", environ={"RESILIENCE_CONFIG": " "}),
        pytest.raises(ConfigurationError, match="RESILIENCE_CONFIG: it is empty"),
    ):
        breaker.status()
