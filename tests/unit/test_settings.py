from __future__ import annotations

import pickle
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretBytes, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from resilience.errors import ConfigurationError
from resilience.settings import (
    Configuration,
    ConfigurationWarning,
    CoreSettings,
    Duration,
    Effective,
    PolicySettings,
    StorageSettings,
    check_given,
)
from resilience.variables import normal_form

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Names = Annotated[tuple[str, ...], Field(max_length=3)]
Pairs = TypeAliasType("Pairs", tuple[str, ...])


class GateSettings(PolicySettings):
    limit: int = Field(default=3, ge=1, le=1000, description="How many.")
    most: int | None = Field(default=100, ge=1, description="How many at most.")
    span: Duration = Field(default=60, gt=0, le=86400, description="How long.")
    share: float = Field(default=0.5, gt=0, le=1)
    names: Names = ("one",)
    more: Optional[list[str]] = None  # noqa: UP045 - the old spelling is a union of its own
    even: Annotated[list[int], Field(max_length=3)] | None = None
    pairs: Pairs = ()
    weight: float = 1
    strict: bool = False
    judge: object = Field(default=None, json_schema_extra={"code_only": True}, description="Says yes or no.")

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> GateSettings:
        if self.most is not None and self.limit > self.most:
            raise ValueError("limit is above most: lower it")
        return self


class OtherSettings(PolicySettings):
    limit: int = 7


class StoreSettings(StorageSettings):
    durability: Literal["none", "fsync"] = Field(default="none", description="What a commit survives.")
    url: str = "x://user:hunter2@host"
    password: SecretStr | None = None
    keys: tuple[SecretBytes, ...] = ()
    pin: int = Field(default=1, ge=1, json_schema_extra={"secret": True})

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value.startswith("bad"):
            raise ValueError(f"cannot use {value}")
        return value

    @field_validator("password")
    @classmethod
    def _check_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value and value.get_secret_value().startswith("bad"):
            raise PydanticCustomError("bad", "begins with {start}", {"start": value.get_secret_value()[:5]})
        return value

    @model_validator(mode="after")
    def _check_both(self) -> StoreSettings:
        if self.password and self.durability == "fsync":
            raise ValueError(f"no fsync with {self.password.get_secret_value()}")
        return self


class NeedySettings(StorageSettings):
    address: str


def configure(**environ: str) -> Configuration:
    """Read variables that are given without their prefix."""
    return configuration({f"RESILIENCE_{name}": value for name, value in environ.items()})


def configuration(environ: Mapping[str, str]) -> Configuration:
    return Configuration(
        environ,
        storages=["file", "memory", "json", "redis+tls"],
        policies={"gate": lambda: GateSettings, "other_gate": lambda: OtherSettings},
    )


def refusal(**environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        configure(**environ)
    return str(caught.value)


def sources(explained: list[Effective]) -> dict[str, tuple[object, str]]:
    return {each.field: (each.value, each.source) for each in explained}


# -- the core ----------------------------------------------------------------------------------------------------------


def test_without_variables_the_defaults_rule() -> None:
    core = configuration({"HOME": "/", "RESILIENT": "x", "STORAGE": "memory:"}).core
    assert core == CoreSettings()
    assert (core.storage, core.storage_timeout, core.max_staleness, core.unknown) == ("file:", 0.25, 0.0, "error")


def test_variables_set_the_core() -> None:
    core = configure(STORAGE=" memory: ", STORAGE_TIMEOUT="500ms", MAX_STALENESS="1m", UNKNOWN="warn").core
    assert (core.storage, core.storage_timeout, core.max_staleness, core.unknown) == ("memory:", 0.5, 60.0, "warn")


def test_only_the_mapping_is_read_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENCE_STORAGE", "memory:")
    environ = {"RESILIENCE_FILE__DURABILITY": "fsync"}
    configured = configuration(environ)
    environ["RESILIENCE_FILE__DURABILITY"] = "nonsense"
    assert configured.core.storage == "file:"
    assert configured.storage_settings("file", StoreSettings) == StoreSettings(durability="fsync")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORAGE", "memory"),
        ("STORAGE", "1x:"),
        ("STORAGE", ":"),
        ("STORAGE", "+:"),
        ("STORAGE", "fi le:"),
        ("STORAGE", "file:///a\nb"),
        ("STORAGE_TIMEOUT", "0"),
        ("STORAGE_TIMEOUT", "-1"),
        ("STORAGE_TIMEOUT", "61"),
        ("STORAGE_TIMEOUT", "inf"),
        ("STORAGE_TIMEOUT", "nan"),
        ("STORAGE_TIMEOUT", "1e309"),
        ("MAX_STALENESS", "2h"),
        ("UNKNOWN", "ignore"),
        ("UNKNOWN", "WARN"),
        ("GATE__LIMIT", "0"),
        ("GATE__LIMIT", "-1"),
        ("GATE__LIMIT", "1001"),
        ("GATE__LIMIT", "2.5"),
        ("GATE__LIMIT", "many"),
        ("GATE__LIMIT", "none"),
        ("GATE__SHARE", "nan"),
        ("GATE__SHARE", "inf"),
        ("GATE__SHARE", "1e309"),
        ("GATE__WEIGHT", "nan"),
        ("GATE__WEIGHT", "inf"),
        ("GATE__WEIGHT", "1e309"),
        ("GATE__SPAN", "0"),
        ("GATE__STRICT", "perhaps"),
        ("GATE__NAMES", "a,b,c,d"),
        ("POLICIES__A__GATE__LIMIT", "0"),
    ],
)
def test_an_impossible_value_is_refused_with_its_variable_and_itself(name: str, value: str) -> None:
    message = refusal(**{name: value})
    shown = [item.strip() for item in value.split(",")] if "," in value else value
    assert message.startswith(f"RESILIENCE_{name}: {shown!r} is refused: ")
    assert "\n" not in message


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_an_empty_value_is_refused_with_the_fix(value: str) -> None:
    assert refusal(GATE__LIMIT=value) == "RESILIENCE_GATE__LIMIT: it is empty: give it a value or unset it"


def test_an_empty_item_of_a_list_is_refused() -> None:
    assert "RESILIENCE_GATE__NAMES: an item of the list is empty" in refusal(GATE__NAMES="a,,b")


def test_a_long_value_is_shortened() -> None:
    message = refusal(GATE__LIMIT="9" * 5000, GATE__NAMES="a," * 1000 + "a")
    assert "'… (5000 characters) is refused" in message
    assert len(message) < 600


def test_all_that_is_wrong_is_said_at_once() -> None:
    lines = refusal(GATE__LIMIT="x", GATE__SPAN="y", STORAGE="z", POLICIES__A__GATE__SHARE="7", FOO="1").splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "RESILIENCE_FOO",
        "RESILIENCE_STORAGE",
        "RESILIENCE_GATE__LIMIT",
        "RESILIENCE_GATE__SPAN",
        "RESILIENCE_POLICIES__A__GATE__SHARE",
    ]


def test_a_variable_is_refused_even_where_a_stronger_one_hides_it() -> None:
    assert "RESILIENCE_GATE__LIMIT: 'x' is refused" in refusal(GATE__LIMIT="x", POLICIES__A__GATE__LIMIT="2")


# -- text of variables -------------------------------------------------------------------------------------------------


def gate(name: str = "a", given: Mapping[str, object] | None = None, **environ: str) -> GateSettings:
    return configure(**environ).policy_settings("gate", name, GateSettings, given or {})


def test_spaces_around_a_value_do_not_count() -> None:
    assert gate(GATE__LIMIT=" 4 ").limit == 4


def test_none_is_no_value_where_there_may_be_none() -> None:
    assert gate(GATE__MOST="none", GATE__MORE="none").most is None
    configured = configure(FILE__DURABILITY="none", FILE__PASSWORD="none")
    settings = configured.storage_settings("file", StoreSettings)
    assert settings is not None
    assert (settings.durability, settings.password) == ("none", None)


def test_lists_are_parted_by_commas() -> None:
    settings = gate(GATE__NAMES="a:B, c:D", GATE__MORE="x", GATE__EVEN="2,4", GATE__PAIRS="a,b")
    assert (settings.names, settings.more, settings.even) == (("a:B", "c:D"), ["x"], [2, 4])
    assert settings.pairs == ("a", "b")


def test_yes_and_no_are_said_in_many_ways() -> None:
    assert gate(GATE__STRICT="yes").strict
    assert not gate(GATE__STRICT="off").strict


@pytest.mark.parametrize("text", ["{}", "null", "true", '"a"', "1e3", '{"a": {}}', "[", "{"])
def test_json_is_not_read(text: str) -> None:
    assert gate(GATE__NAMES=text, POLICIES__B__GATE__NAMES="b").names == (text,)
    assert gate(GATE__NAMES="b", POLICIES__A__GATE__NAMES=text).names == (text,)
    assert f"RESILIENCE_POLICIES__A__GATE__LIMIT: {text!r} is refused" in refusal(POLICIES__A__GATE__LIMIT=text)


def test_a_whole_section_is_not_read_as_json() -> None:
    assert "RESILIENCE_GATE: nothing knows this variable" in refusal(GATE='{"limit": 4}')
    assert "RESILIENCE_POLICIES__A: nothing knows" in refusal(POLICIES__A='{"gate": {"limit": 4}}')


def test_a_field_of_code_has_no_variable() -> None:
    assert refusal(GATE__JUDGE="x") == "RESILIENCE_GATE__JUDGE: judge can be set in code only: unset it"
    assert gate(given={"judge": len}).judge is len


# -- precedence and provenance -----------------------------------------------------------------------------------------


def test_the_stronger_source_wins() -> None:
    environ = {
        "RESILIENCE_GATE__LIMIT": "11",
        "RESILIENCE_GATE__SPAN": "12",
        "RESILIENCE_GATE__MOST": "13",
        "RESILIENCE_GATE__SHARE": "0.1",
        "RESILIENCE_POLICIES__PAYMENTS_API__GATE__SHARE": "0.4",
        "RESILIENCE_POLICIES__OTHER__GATE__STRICT": "yes",
        "RESILIENCE_POLICIES__PAYMENTS_API__OTHER_GATE__LIMIT": "5",
    }
    stored = {"span": 22, "most": 23, "share": 0.2, "of_a_newer_library": 1}
    given = {"most": 33, "share": 0.3}
    configured = configuration(environ)
    explained = configured.explain("gate", "payments-api", GateSettings, given, stored)
    assert sources(explained) == {
        "limit": (11, "RESILIENCE_GATE__LIMIT"),
        "span": (22.0, "stored by the code that made it"),
        "most": (33, "code"),
        "share": (0.4, "RESILIENCE_POLICIES__PAYMENTS_API__GATE__SHARE"),
        "names": (["one"], "default"),
        "more": (None, "default"),
        "even": (None, "default"),
        "pairs": ([], "default"),
        "weight": (1.0, "default"),
        "strict": (False, "default"),
        "judge": (None, "default"),
    }
    settings = configured.policy_settings("gate", "payments-api", GateSettings, given, stored)
    assert (settings.limit, settings.span, settings.most, settings.share) == (11, 22.0, 33, 0.4)
    assert configured.policy_settings("other_gate", "payments-api", OtherSettings, {}).limit == 5
    assert configured.policy_settings("other_gate", "b", OtherSettings, {}).limit == 7


def test_each_setting_is_explained_with_its_strongest_variable() -> None:
    by_field = {each.field: each for each in configure().explain("gate", "payments-api", GateSettings, {"judge": len})}
    assert by_field["limit"] == Effective(
        field="limit",
        value=3,
        source="default",
        description="How many.",
        variable="RESILIENCE_POLICIES__PAYMENTS_API__GATE__LIMIT",
    )
    assert by_field["judge"].variable is None
    assert configure().explain("gate", "支払い", GateSettings, {})[0].variable == "RESILIENCE_GATE__LIMIT"


def test_the_core_and_the_storage_are_explained() -> None:
    configured = configure(STORAGE="redis+tls://:hunter2@h", FILE__DURABILITY="fsync")
    assert sources(configured.explain_core()) == {
        "storage": ("redis+tls://***@h", "RESILIENCE_STORAGE"),
        "storage_timeout": (0.25, "default"),
        "max_staleness": (0.0, "default"),
        "unknown": ("error", "default"),
        "config": (None, "default"),
        "plugins_blocked": ([], "default"),
        "plugins_allowed": (None, "default"),
        "plugins_autoload": (True, "default"),
        "trace_hooks": (False, "default"),
        "plan": (True, "default"),
    }
    assert [each.variable for each in configured.explain_core()] == [
        "RESILIENCE_STORAGE",
        "RESILIENCE_STORAGE_TIMEOUT",
        "RESILIENCE_MAX_STALENESS",
        "RESILIENCE_UNKNOWN",
        "RESILIENCE_CONFIG",
        "RESILIENCE_PLUGINS_BLOCKED",
        "RESILIENCE_PLUGINS_ALLOWED",
        "RESILIENCE_PLUGINS_AUTOLOAD",
        "RESILIENCE_TRACE_HOOKS",
        "RESILIENCE_PLAN",
    ]
    assert all(each.description for each in configured.explain_core())
    durability = configured.explain_storage("file", StoreSettings)[0]
    assert (durability.value, durability.source) == ("fsync", "RESILIENCE_FILE__DURABILITY")
    assert configured.explain_storage("redis+tls", StoreSettings)[0].variable == "RESILIENCE_REDIS_TLS__DURABILITY"
    assert configured.explain_storage("memory", None) == []


def test_what_is_explained_has_a_form_that_json_has() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    def function() -> None: ...

    values = {
        "judge": [
            len,
            int,
            Odd,
            function,
            Odd(),
            {"a": "\x1b[31m"},
            frozenset({1}),
            "x://a:b@c",
            "k" * 70,
            object,
        ]
    }
    shown = configure().explain("gate", "a", GateSettings, values)[-1].value
    here = f"{__name__}:test_what_is_explained_has_a_form_that_json_has.<locals>"
    assert shown == [
        "<built-in function len>",
        "int",
        f"{here}.Odd",
        f"{here}.function",
        "a Odd that cannot be shown",
        "{'a': '\\x1b[31m'}",
        [1],
        "x://***@c",
        "k" * 70,
        "object",
    ]


@given(
    *(st.one_of(st.none(), st.integers(1, 1000)) for _ in range(4)),
)
def test_precedence_holds_for_any_set_of_sources(
    kind: int | None, stored: int | None, code: int | None, named: int | None
) -> None:
    environ = {"RESILIENCE_GATE__MOST": "none"}
    if kind is not None:
        environ["RESILIENCE_GATE__LIMIT"] = str(kind)
    if named is not None:
        environ["RESILIENCE_POLICIES__A__GATE__LIMIT"] = str(named)
    settings = configuration(environ).policy_settings(
        "gate",
        "a",
        GateSettings,
        {} if code is None else {"limit": code},
        None if stored is None else {"limit": stored},
    )
    assert settings.limit == next((limit for limit in (named, code, stored, kind) if limit is not None), 3)


# -- unknown variables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RESILIENCE_STORGE", "RESILIENCE_STORAGE"),
        ("resilience_storage", "RESILIENCE_STORAGE"),
        ("RESILIENCE_storage_timeout", "RESILIENCE_STORAGE_TIMEOUT"),
        ("RESILIENCE_GATE_LIMIT", "RESILIENCE_GATE__LIMIT"),
        ("RESILIENCE_GATE__LIMITS", "RESILIENCE_GATE__LIMIT"),
        ("RESILIENCE_GATE__limit", "RESILIENCE_GATE__LIMIT"),
        ("RESILIENCE_GAET__LIMIT", "RESILIENCE_GATE__LIMIT"),
        ("RESILIENCE_FIEL__DURABILITY", "RESILIENCE_FILE__DURABILITY"),
        ("resilience_file__durability", "RESILIENCE_FILE__DURABILITY"),
        ("RESILIENCE_FILE_DURABILITY", "RESILIENCE_FILE__DURABILITY"),
        ("RESILIENCE_POLICIES__PAY__GATE__LIMTI", "RESILIENCE_POLICIES__PAY__GATE__LIMIT"),
        ("RESILIENCE_POLICIES__PAY__GAT__LIMIT", "RESILIENCE_POLICIES__PAY__GATE__LIMIT"),
        ("RESILIENCE_POLICIES__payments-api__GATE__LIMIT", "RESILIENCE_POLICIES__PAYMENTS_API__GATE__LIMIT"),
        ("RESILIENCE_POLICIES__A__B__GATE__LIMIT", "RESILIENCE_POLICIES__A_B__GATE__LIMIT"),
        ("RESILIENCE_POLICIES__A___GATE__LIMIT", "RESILIENCE_POLICIES__A__GATE__LIMIT"),
        ("RESILIENCE_POLICIES__PAYMENTS__LIMIT", "RESILIENCE_POLICIES__PAYMENTS__GATE__LIMIT"),
        ("RESILIENCE_POLICES__PAY__GATE__LIMIT", "RESILIENCE_POLICIES__PAY__GATE__LIMIT"),
    ],
)
def test_an_unknown_variable_is_refused_with_what_it_may_have_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration({name: "1"})
    message = str(caught.value)
    shown = name if name.isidentifier() else repr(name)
    assert message == (
        f"{shown}: nothing knows this variable: did you mean {meant}?"
        " (RESILIENCE_UNKNOWN=warn passes over unknown variables)"
    )


@pytest.mark.parametrize(
    "name",
    [
        "RESILIENCE_",
        "RESILIENCE_XYZZY",
        "RESILIENCE__STORAGE__X__Y__Z",
        "RESILIENCE_GATE__XYZZY",
        "RESILIENCE_GATE__",
        "RESILIENCE_GATE__model_config",
        "RESILIENCE_GATE___LIMIT",
        "RESILIENCE_GATE__LIMIT__X",
        "RESILIENCE_GATE__É",
        "RESILIENCE_json__x",
        "RESILIENCE_FILE__",
        "RESILIENCE_POLICIES____GATE__LIMIT",
        "RESILIENCE_POLICIES__XYZZY",
        "RESILIENCE_POLICIES__A__GATE__",
        "RESILIENCE_STORAGE__A",
        "RESILIENCE_QQ\x1b[31m\n",
        "RESILIENCE_" + "X" * 5000,
    ],
)
def test_every_unknown_variable_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing knows this variable") as caught:
        configuration({name: "hunter2"})
    message = str(caught.value)
    assert message.startswith(("RESILIENCE_", "'RESILIENCE_"))
    assert message.isprintable()
    assert len(message) < 400
    assert "hunter2" not in message


def test_a_name_of_any_length_gets_its_message_at_once() -> None:
    assert "did you mean" in refusal(**{f"POLICIES__{'A' * 1000}__GATE__LIMTI": "1"})
    assert "did you mean" not in refusal(**{f"POLICIES__{'A' * 100_000}__GATE__LIMTI": "1"})


@pytest.mark.parametrize("name", ["STORAGE__DURABILITY", "POLICIES__DURABILITY"])
def test_a_plugin_named_like_something_of_the_core_has_no_variables(name: str) -> None:
    environ = {f"RESILIENCE_{name}": "fsync", "RESILIENCE_STORAGE": "file:"}
    with pytest.raises(ConfigurationError, match=f"^RESILIENCE_{name}: nothing knows this variable"):
        Configuration(environ, storages=["storage", "policies"], policies={})


def test_where_nothing_is_like_it_the_fix_is_to_unset_it() -> None:
    assert refusal(XYZZY="1").startswith("RESILIENCE_XYZZY: nothing knows this variable: unset it (")


def test_of_many_unknown_variables_some_are_named() -> None:
    lines = refusal(**{f"XYZZY{number:03}": "1" for number in range(100)}).splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("RESILIENCE_XYZZY000: ")
    assert lines[-1].startswith("… and 80 more")


def test_unknown_variables_can_be_softened_to_one_warning() -> None:
    with pytest.warns(ConfigurationWarning) as caught:
        core = configure(UNKNOWN="warn", XYZZY="1", GATE__LIMITS="1").core
    assert core.unknown == "warn"
    assert [str(each.message) for each in caught] == [
        (
            "RESILIENCE_GATE__LIMITS: nothing knows this variable: did you mean RESILIENCE_GATE__LIMIT?; "
            "RESILIENCE_XYZZY: nothing knows this variable: unset it"
        )
    ]


def test_softening_softens_nothing_else() -> None:
    with pytest.warns(ConfigurationWarning, match="XYZZY"), pytest.raises(ConfigurationError) as caught:
        configure(UNKNOWN="warn", XYZZY="1", GATE__LIMIT="x")
    assert str(caught.value).startswith("RESILIENCE_GATE__LIMIT: 'x' is refused")
    assert "XYZZY" not in str(caught.value)


KUBERNETES = [
    "SERVICE_HOST",
    "SERVICE_PORT",
    "SERVICE_PORT_HTTP",
    "SERVICE_PORT_HTTP_ADMIN",
    "PORT",
    "PORT_80_TCP",
    "PORT_80_TCP_PROTO",
    "PORT_80_TCP_PORT",
    "PORT_53_UDP_ADDR",
    "PORT_9_SCTP",
]


def test_what_kubernetes_injects_is_passed_over() -> None:
    assert configure(**dict.fromkeys(KUBERNETES, "tcp://10.0.0.1:80")).core == CoreSettings()


@pytest.mark.parametrize(
    "name",
    ["SERVICE", "SERVICE_HOSTS", "SERVICE_HOST_X", "SERVICE_PORT__X", "PORTS", "PORT_X", "PORT_80", "PORT_80_TCP_X"],
)
def test_nothing_else_is_taken_for_something_of_kubernetes(name: str) -> None:
    assert f"RESILIENCE_{name}: nothing knows" in refusal(**{name: "1"})


def test_a_broken_plugin_stops_only_those_who_need_it() -> None:
    def broken() -> type[PolicySettings]:
        raise ImportError("no such module")

    def make(environ: dict[str, str]) -> Configuration:
        return Configuration(environ, storages=["file"], policies={"broken": broken, "gate": lambda: GateSettings})

    assert make({"RESILIENCE_GATE__LIMIT": "4"}).policy_settings("gate", "a", GateSettings, {}).limit == 4
    with pytest.raises(ConfigurationError, match=r"did you mean RESILIENCE_GATE__LIMIT\?"):
        make({"RESILIENCE_GATE__LIMTI": "4"})
    with pytest.raises(ImportError, match="no such module"):
        make({"RESILIENCE_BROKEN__X": "4"})


def test_models_are_loaded_only_when_a_variable_needs_them_and_once() -> None:
    loaded: list[str] = []

    def load(kind: str, model: type[PolicySettings]) -> Callable[[], type[PolicySettings]]:
        def loader() -> type[PolicySettings]:
            loaded.append(kind)
            return model

        return loader

    environ = {"RESILIENCE_GATE__LIMIT": "1", "RESILIENCE_POLICIES__A__GATE__LIMIT": "2"}
    Configuration(
        environ, storages=[], policies={"gate": load("gate", GateSettings), "other": load("other", OtherSettings)}
    )
    assert loaded == ["gate"]


def test_plugins_named_like_a_setting_of_the_core_or_like_a_method_do_no_harm() -> None:
    configured = Configuration(
        {
            "RESILIENCE_COPY__DURABILITY": "fsync",
            "RESILIENCE_STORAGE": "copy:",
            "RESILIENCE_POLICIES__9__3D__LIMIT": "8",
        },
        storages=["copy", "json", "model_dump", "storage", "policies", "支払い"],
        policies={"3d": lambda: OtherSettings},
    )
    assert configured.policy_settings("3d", "9", OtherSettings, {}).limit == 8
    assert configured.core.storage == "copy:"
    assert configured.storage_settings("copy", StoreSettings) == StoreSettings(durability="fsync")


# -- storages ----------------------------------------------------------------------------------------------------------


def test_sections_of_other_installed_storages_are_passed_over() -> None:
    configured = configure(FILE__DURABILITY="fsync", REDIS_TLS__WHATEVER="1", JSON__X="2")
    assert configured.storage_settings("file", StoreSettings) == StoreSettings(durability="fsync")


def test_the_section_of_the_chosen_storage_is_checked() -> None:
    configured = configure(REDIS_TLS__DURABLITY="1")
    with pytest.raises(ConfigurationError, match=r"REDIS_TLS__DURABLITY: .*mean RESILIENCE_REDIS_TLS__DURABILITY\?"):
        configured.storage_settings("redis+tls", StoreSettings)
    with pytest.raises(ConfigurationError, match=r"^RESILIENCE_FILE__DURABILITY: 'x' is refused: .*'fsync'"):
        configure(FILE__DURABILITY="x").storage_settings("file", StoreSettings)


class SharedSettings(StoreSettings):
    section = "json"


def test_a_storage_with_several_schemes_has_one_section() -> None:
    """Variables with the name of another of its schemes would be passed over as another storage's."""
    configured = configure(JSON__DURABILITY="fsync")
    for scheme in ("json", "redis+tls"):
        assert configured.storage_settings(scheme, SharedSettings) == SharedSettings(durability="fsync")
        (durability, *_) = configured.explain_storage(scheme, SharedSettings)
        assert (durability.source, durability.variable) == (
            "RESILIENCE_JSON__DURABILITY",
            "RESILIENCE_JSON__DURABILITY",
        )
    assert configured.is_open({}, "redis+tls")
    configured = configure(REDIS_TLS__DURABILITY="fsync")
    with pytest.raises(ConfigurationError) as caught:
        configured.storage_settings("redis+tls", SharedSettings)
    assert str(caught.value) == (
        "RESILIENCE_REDIS_TLS__DURABILITY: storage 'redis+tls': its variables begin with RESILIENCE_JSON__: write"
        " RESILIENCE_JSON__DURABILITY (RESILIENCE_UNKNOWN=warn passes over what is unknown)"
    )
    softened = configure(UNKNOWN="warn", REDIS_TLS__DURABILITY="fsync")
    with pytest.warns(ConfigurationWarning, match="write RESILIENCE_JSON__DURABILITY"):
        assert softened.storage_settings("redis+tls", SharedSettings) == SharedSettings()


def test_what_is_meant_stands_in_no_section_that_would_be_passed_over() -> None:
    for field, what_to_do in (("XYZZY", ": unset it"), ("DURABLE", ": did you mean RESILIENCE_JSON__DURABILITY?")):
        configured = Configuration({f"RESILIENCE_JSON__{field}": "3"}, storages=["json", "jsonb"], policies={})
        with pytest.raises(ConfigurationError) as caught:
            configured.storage_settings("json", SharedSettings)
        assert str(caught.value).startswith(
            f"RESILIENCE_JSON__{field}: nothing knows this variable{what_to_do} (RESILIENCE_UNKNOWN"
        )


def test_a_storage_without_settings_has_no_variables() -> None:
    assert configure().storage_settings("memory", None) is None
    with pytest.raises(ConfigurationError) as caught:
        configure(MEMORY__SIZE="1").storage_settings("memory", None)
    assert str(caught.value).startswith("RESILIENCE_MEMORY__SIZE: the storage 'memory' has no settings: unset it")
    softened = configure(UNKNOWN="warn", MEMORY__SIZE="1")
    with pytest.warns(ConfigurationWarning, match="has no settings"):
        assert softened.storage_settings("memory", None) is None


def test_a_setting_without_a_default_is_asked_for_by_its_variable() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^storage 'file', address: .*required: set RESILIENCE_FILE__ADDRESS$"
    ):
        configure().storage_settings("file", NeedySettings)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("payments", "PAYMENTS"),
        ("payments-api", "PAYMENTS_API"),
        ("payments.api/v2", "PAYMENTS_API_V2"),
        ("a__b", "A_B"),
        ("_a- -b_", "A_B"),
        ("Café", "CAFE"),
        ("cafétéria", "CAFETERIA"),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "CAFE"),
        ("straße", "STRASSE"),
        ("１２", "12"),
        ("支払い", ""),
        ("支払い 2", "2"),
        ("🙂", ""),
    ],
)
def test_names_have_a_form_that_a_variable_can_hold(name: str, form: str) -> None:
    assert normal_form(name) == form
    assert gate(name).limit == 3


@given(st.text(), st.integers(1, 50))
def test_any_name_with_a_form_can_be_set_by_that(name: str, limit: int) -> None:
    form = normal_form(name)
    assert normal_form(form) == form
    if form:
        configured = configure(**{f"POLICIES__{form}__GATE__LIMIT": str(limit)})
        assert configured.policy_settings("gate", name, GateSettings, {}).limit == limit
    assert gate(name, GATE__LIMIT=str(limit)).limit == limit


def test_two_names_with_one_form_and_different_settings_are_refused() -> None:
    configured = configure(POLICIES__PAYMENTS_API__GATE__SHARE="0.4")
    assert configured.policy_settings("gate", "payments-api", GateSettings, {"limit": 1}).limit == 1
    with pytest.raises(ConfigurationError) as caught:
        configured.policy_settings("gate", "payments_api", GateSettings, {"limit": 2})
    assert str(caught.value) == (
        "RESILIENCE_POLICIES__PAYMENTS_API__GATE__…: this means both 'payments-api' and 'payments_api', whose settings"
        " in code differ: give one of them another name, or unset these variables"
    )


def test_two_names_with_one_form_are_fine_otherwise() -> None:
    configured = configure(POLICIES__PAYMENTS_API__GATE__SHARE="0.4")
    for name, arguments in [
        ("payments-api", {"limit": 1}),
        ("payments_api", {"limit": 1}),  # set alike
        ("payments-api", {"limit": 2}),  # the same name: a matter of the policy
        ("支払い", {"limit": 3}),
    ]:
        assert configured.policy_settings("gate", name, GateSettings, arguments).limit == arguments["limit"]
    for name in ("payments-api", "payments_api"):  # no variables of that kind
        assert configured.policy_settings("other_gate", name, OtherSettings, {"limit": len(name)}).limit == 12
    for name, limit in [("b-c", 1), ("b_c", 2)]:
        assert configured.policy_settings("gate", name, GateSettings, {"limit": limit}).limit == limit


# -- arguments in code -------------------------------------------------------------------------------------------------


def test_good_arguments_pass() -> None:
    check_given("Gate", "a", GateSettings, {"limit": 4, "span": "2m", "judge": len})
    check_given("Gate", "a", GateSettings, {})


@pytest.mark.parametrize(
    ("given", "beginning"),
    [
        ({"limit": 0}, "Gate('payments', limit=…): 0 is refused: it should be "),
        ({"limit": "x"}, "Gate('payments', limit=…): 'x' is refused: it should be "),
        ({"limit": 10**5000}, "Gate('payments', limit=…): a int that cannot be shown is refused"),
        ({"span": "1e309"}, "Gate('payments', span=…): '1e309' is refused: a duration is a number of seconds"),
        ({"span": float("nan")}, "Gate('payments', span=…): nan is refused: a duration is a number of seconds"),
        ({"weight": float("inf")}, "Gate('payments', weight=…): inf is refused: it should be "),
        ({"limti": 3}, "Gate('payments', limti=…): there is no such setting: did you mean limit?"),
        ({"xyzzy": 3}, "Gate('payments', xyzzy=…): there is no such setting"),
        ({"limit": 101}, "Gate('payments'): limit is above most: lower it (set: limit by code)"),
        ({"more": 5}, "Gate('payments', more=…): 5 is refused: it should be a valid list"),
    ],
)
def test_bad_arguments_are_refused_with_the_call_that_gave_them(given: dict[str, object], beginning: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_given("Gate", "payments", GateSettings, given)
    assert str(caught.value).startswith(beginning)


def test_an_odd_name_is_shown_on_one_line_of_bearable_length() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_given("Gate", "\x1b[31m\n" * 1000, GateSettings, {"limit": 0})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_what_the_code_stored_is_checked_where_it_is_used() -> None:
    stored = {"limit": "x"}
    with pytest.raises(ConfigurationError) as caught:
        configure().policy_settings("gate", "a", GateSettings, {}, stored)
    assert str(caught.value).startswith("Gate('a'), limit stored by the code that made it: 'x' is refused")
    assert configure().policy_settings("gate", "a", GateSettings, {"limit": 2}, stored).limit == 2


def test_a_contradiction_names_all_sources() -> None:
    configured = configure(GATE__MOST="5", POLICIES__A__GATE__SHARE="1")
    with pytest.raises(ConfigurationError) as caught:
        configured.policy_settings("gate", "a", GateSettings, {"limit": 6})
    assert str(caught.value) == (
        "Gate('a'): limit is above most: lower it (set: most by RESILIENCE_GATE__MOST, limit by code, share by"
        " RESILIENCE_POLICIES__A__GATE__SHARE)"
    )


def test_a_default_that_contradicts_nothing_set_is_said_without_sources() -> None:
    class Wrong(GateSettings):
        limit: int = 500

    with pytest.raises(ConfigurationError) as caught:
        check_given("Gate", "a", Wrong, {})
    assert str(caught.value) == "Gate('a'): limit is above most: lower it"


def test_a_missing_argument_is_asked_for() -> None:
    class Needy(PolicySettings):
        limit: int

    with pytest.raises(ConfigurationError, match=r"^Gate\('a'\), limit: .*required$"):
        check_given("Gate", "a", Needy, {})


# -- secrets -----------------------------------------------------------------------------------------------------------

SECRET_VARIABLES = [
    {"STORAGE": "me:hunter2@ho\nst"},
    {"STORAGE": "1redis://:hunter2@host"},
    {"STORAGE": "redis//:hunter2@host:x"},
    {"FILE__URL": "bad://u:hunter2@h"},
    {"FILE__PASSWORD": "bad-hunter2"},
    {"FILE__PASSWORD": "hunter2", "FILE__DURABILITY": "fsync"},
    {"FILE__PIN": "hunter2"},
    {"FILE__PIN": "0"},
    {"FILE__PASWORD": "hunter2"},
    {"HUNTER": "hunter2"},
    {"GATE__LIMIT": "x://u:hunter2@h"},
]


@pytest.mark.parametrize("environ", SECRET_VARIABLES, ids=str)
def test_no_error_shows_a_secret(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(**environ).storage_settings("file", StoreSettings)
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told
    assert "bad-h" not in told
    assert "ValidationError" not in told
    assert f"RESILIENCE_{next(iter(environ))}" in str(caught.value)


def test_an_error_hides_the_value_of_a_secret_but_says_what_is_allowed_where_that_is_safe() -> None:
    with pytest.raises(ConfigurationError) as caught:
        configure(FILE__PIN="0").storage_settings("file", StoreSettings)
    assert str(caught.value) == "RESILIENCE_FILE__PIN: '***' is refused: it should be greater than or equal to 1"


def test_neither_a_repr_nor_an_explanation_shows_a_secret() -> None:
    configured = configure(
        STORAGE="redis://:hunter2@h", FILE__PASSWORD="hunter2", FILE__KEYS="hunter2,hunter2", FILE__PIN="1234"
    )
    settings = configured.storage_settings("file", StoreSettings)
    assert settings is not None
    assert settings.password is not None
    assert settings.password.get_secret_value() == "hunter2"
    explained = configured.explain_core() + configured.explain_storage("file", StoreSettings)
    for text in (repr(settings), str(settings), repr(configured.core), str(configured.core), repr(explained)):
        assert "hunter2" not in text
        assert "1234" not in text
    assert repr(configured.core).startswith("CoreSettings(storage='redis://***@h', storage_timeout=0.25, ")


# -- the models --------------------------------------------------------------------------------------------------------


def test_settings_are_frozen_and_know_their_fields() -> None:
    settings = GateSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.limit = 4  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - that is the point
    with pytest.raises(ValidationError, match="extra_forbidden"):
        GateSettings.model_validate({"xyzzy": 1})
    assert type(settings.span) is float  # defaults are checked as well
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_validation_error_of_a_model_prints_no_input() -> None:
    with pytest.raises(ValidationError) as caught:
        StoreSettings.model_validate({"pin": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_every_setting_of_the_core_has_a_description_and_bounds() -> None:
    for field in CoreSettings.model_fields.values():
        assert field.description
    for name in ("storage_timeout", "max_staleness"):
        with pytest.raises(ValidationError):
            CoreSettings.model_validate({name: 86400})


def test_a_record_of_an_effective_setting_is_frozen() -> None:
    effective: Any = Effective("limit", 3, "default", "", None)
    with pytest.raises(AttributeError):
        effective.value = 4


def test_a_warning_is_of_a_kind_that_can_be_filtered() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore", ConfigurationWarning)
        assert configure(UNKNOWN="warn", XYZZY="1").core.unknown == "warn"
    assert caught == []


def test_what_needs_no_pydantic_settings_imports_none() -> None:
    script = (
        "import resilience, resilience.settings as settings; "
        "core = settings.Configuration({}, storages=[], policies={}).core; "
        "print('pydantic_settings' in sys.modules, core.storage)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["False", "file:"]
