"""What can be set, and what is: the settings models, and the one that is put together from environment and code.

`Configuration` reads a mapping that it is handed; only the runtime knows `os.environ`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from resilience.durations import FORMS, check_duration, parse_duration
from resilience.errors import ConfigurationError
from resilience.redaction import redact
from resilience.refusals import (
    CODE,
    DEFAULT,
    STORED,
    Assigned,
    did_you_mean,
    displayed,
    explain_refusals,
    has_mark,
    is_secret,
    shortened,
)
from resilience.variables import DELIMITER, NAMED, PREFIX, Texts, meaning, normal_form, pick, variable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping


__all__ = [
    "Configuration",
    "ConfigurationWarning",
    "CoreSettings",
    "Duration",
    "Effective",
    "PolicySettings",
    "StorageSettings",
    "check_given",
    "parse_duration",
    "redact",
]

_STORAGE = variable("storage")
_NOBODY = "nothing knows this variable"
_MOST_TOLD = 20
_LONGEST_NAME = 200

_Model = TypeVar("_Model", bound="_Settings")
_PolicyModel = TypeVar("_PolicyModel", bound="PolicySettings")
_StorageModel = TypeVar("_StorageModel", bound="StorageSettings")


class ConfigurationWarning(UserWarning):
    """A variable that nothing knows was passed over, because ``RESILIENCE_UNKNOWN=warn`` says so."""


def _seconds(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    # bool is an int to Python, but nobody means one second by True.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(FORMS)  # noqa: TRY004 - pydantic makes a message of a ValueError only
    return check_duration(value)


Duration = Annotated[float, BeforeValidator(_seconds)]
"""A setting in seconds: a finite number from 0 to ten years, or text such as ``30``, ``500ms``, ``2m``, ``1h``."""


class _Settings(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        hide_input_in_errors=True,
        loc_by_alias=False,
    )

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        for name, field in type(self).model_fields.items():
            yield name, displayed(getattr(self, name), field)


class PolicySettings(_Settings):
    """Base class of a policy's settings: frozen, with no field but those declared, infinity and NaN refused.

    Each field has a description, which the documentation and ``resilience config`` show, and bounds.
    ``Field(json_schema_extra={"code_only": True})`` marks one that no variable can set, a function for example.
    """


class StorageSettings(_Settings):
    """Base class of a storage's settings, as `PolicySettings` is of a policy's.

    A field of type `pydantic.SecretStr`, or with ``Field(json_schema_extra={"secret": True})``, is never shown.
    """


class CoreSettings(_Settings):
    """The settings of the framework itself: ``RESILIENCE_STORAGE`` and so on."""

    storage: str = Field(
        default="file:",
        description="Where the state is kept: a URL whose scheme is the name of a storage plugin, such as file:, "
        "memory: or file:///var/lib/app/resilience.",
    )
    storage_timeout: Duration = Field(
        default=0.25,
        ge=0.001,
        le=60,
        description="Seconds that one decision waits for the storage in all: for locks, disk and network.",
    )
    max_staleness: Duration = Field(
        default=0,
        le=3600,
        description="Seconds that a record is trusted without being loaded again, where the storage cannot tell whether"
        " it is still the last one; 0 loads it each time.",
    )
    unknown: Literal["error", "warn"] = Field(
        default="error",
        description="What a variable gets that begins with RESILIENCE_ and that nothing knows: an error, or a warning.",
    )

    plan: bool = Field(
        default=True,
        description="Keep what the variables and the installed plugins came to for the next run of the command line, "
        "which then starts as fast as a bare interpreter.",
    )

    @field_validator("storage")
    @classmethod
    def _is_url(cls, value: str) -> str:
        scheme, colon, _ = value.partition(":")
        plain = scheme.replace("+", "").replace("-", "").replace(".", "")
        if not (colon and plain.isascii() and plain.isalnum() and scheme[0].isalpha()):
            raise ValueError("a storage is a URL such as file:, memory: or file:///var/lib/app/resilience")
        if not value.isprintable():
            raise ValueError("it has a character that cannot be printed; write it as %0A, for example")
        return value


@dataclass(frozen=True, slots=True)
class Effective:
    """A setting as it is in force.

    `value` is fit to be shown: no secrets, URLs redacted.  `source` is ``default``, ``code``, ``stored by the code
    that made it``, or the name of the variable that set it.  `variable` is the name of the variable that would set
    it, the strongest one; `None` if none can.
    """

    field: str
    value: object
    source: str
    description: str
    variable: str | None


def check_given(kind_label: str, name: str, model: type[PolicySettings], given: Mapping[str, object]) -> None:
    """Check the arguments that the code gives a guard, without environment or storage.

    `kind_label` is the name of the guard's class, for messages such as ``CircuitBreaker('payments',
    failure_threshold=…): 0 is refused: …``.

    :raises ConfigurationError: one of them is unknown or impossible, or they contradict each other.
    """
    assigned = {field: Assigned(value, CODE) for field, value in given.items()}
    _validated(model, assigned, f"{kind_label}({shortened(name)})", "")


def _validated(model: type[_Model], assigned: Mapping[str, Assigned], label: str, section: str) -> _Model:
    try:
        return model.model_validate({field: value for field, (value, _) in assigned.items()})
    except ValidationError as error:
        refusals = explain_refusals(error, model, assigned, label, section)
    # Outside the handler: the error of pydantic holds its input, and would be printed with the traceback.
    raise ConfigurationError("\n".join(refusal.message for refusal in refusals))


class Configuration:
    """What one environment says, to be put together with what the code says.

    `environ` is read once, here.  `storages` are the names of the installed storage plugins, `policies` maps each
    installed policy's kind to a function that returns its settings model; it is called only if a variable needs it.

    Weakest to strongest: the default of the model, ``RESILIENCE_<KIND>__<FIELD>``, what is stored in the record (for
    verbs of the shell, which have no code), the arguments in code, ``RESILIENCE_POLICIES__<NAME>__<KIND>__<FIELD>``.

    :raises ConfigurationError: variables are unknown (unless ``RESILIENCE_UNKNOWN=warn``) or impossible; the message
        names all of them, one a line.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        storages: Collection[str],
        policies: Mapping[str, Callable[[], type[PolicySettings]]],
    ) -> None:
        self._kinds = {normal_form(kind): kind for kind in policies}
        self._loaders = policies
        self._kind_models: dict[str, type[PolicySettings]] = {}
        self._storages = sorted(map(normal_form, storages))
        self._storage_models: dict[str, type[StorageSettings] | None] = {}
        """Those of the storages that were chosen."""
        spelt = [field.upper() for field in CoreSettings.model_fields]
        ours, unknown = pick(environ, fields=spelt, storages=self._storages, kinds=self._kinds)
        texts = _read(ours)
        self._sections = texts.sections

        findings = _Findings(dict.fromkeys(unknown, _NOBODY), [])
        self._core = _layer(CoreSettings, texts.core, (), findings)
        self._by_kind = {
            section: _layer(self._kind_model(section), fields, (section,), findings)
            for section, fields in texts.sections.items()
            if section in self._kinds
        }
        self._by_name = {
            (name, section): _layer(self._kind_model(section), fields, (NAMED, name, section), findings)
            for name, sections in texts.named.items()
            for section, fields in sections.items()
        }
        self._settle(findings)
        self.core = _validated(CoreSettings, self._core, "resilience", PREFIX)
        """The settings of the framework itself."""
        self._has_unknown = bool(findings.unknown)
        # The first guard that was bound for each section of a name.
        self._bound: dict[tuple[str, str], tuple[str, Mapping[str, object]]] = {}

    def storage_settings(self, scheme: str, model: type[_StorageModel] | None) -> _StorageModel | None:
        """Return the settings of the storage that was chosen; `None` if it has no model.

        Sections of other installed storages are passed over.

        :raises ConfigurationError: variables of its section are unknown or impossible, or it has no model and there
            are variables all the same.
        """
        if model is None:
            self._refuse_section(scheme)
            return None
        return self._storage(scheme, model)[0]

    def policy_settings(
        self,
        kind: str,
        name: str,
        model: type[_PolicyModel],
        given: Mapping[str, object],
        stored: Mapping[str, object] | None = None,
    ) -> _PolicyModel:
        """Return the settings of one guard.

        `given` are the arguments in code, those and only those that were given; `stored` the settings kept in its
        record, for verbs of the shell.  What a newer library stored and `model` does not know is passed over.

        :raises ConfigurationError: a setting is impossible; settings contradict each other; or two guards whose
            settings in code differ have the same name in variables, and there are such variables.
        """
        self._refuse_confusion(kind, name, given)
        assigned = self._assigned(kind, name, model, given, stored)
        class_name = "".join(word.capitalize() for word in kind.split("_"))
        return _validated(model, assigned, f"{class_name}({shortened(name)})", variable(normal_form(kind), ""))

    def explain_core(self) -> list[Effective]:
        """Return each setting of the framework itself, with its source."""
        return _effective(self.core, self._core, ())

    def explain_storage(self, scheme: str, model: type[StorageSettings] | None) -> list[Effective]:
        """Return each setting of the storage that was chosen, with its source; see `storage_settings`."""
        if model is None:
            self._refuse_section(scheme)
            return []
        return _effective(*self._storage(scheme, model), (normal_form(scheme),))

    def explain(
        self,
        kind: str,
        name: str,
        model: type[PolicySettings],
        given: Mapping[str, object],
        stored: Mapping[str, object] | None = None,
    ) -> list[Effective]:
        """Return each setting of one guard, with its source; see `policy_settings`."""
        settings = self.policy_settings(kind, name, model, given, stored)
        assigned = self._assigned(kind, name, model, given, stored)
        section, form = normal_form(kind), normal_form(name)
        return _effective(settings, assigned, (NAMED, form, section) if form else (section,))

    def is_open(self, environ: Mapping[str, str], scheme: str) -> bool:
        """Whether somebody checked each variable and anybody may see its value, the storage's URL aside."""
        chosen = {normal_form(scheme), *self._kinds}
        if self._has_unknown or not chosen.issuperset(self._sections):
            return False
        return all(
            redact(value) == value for name, value in environ.items() if name.startswith(PREFIX) and name != _STORAGE
        )

    def storage_values(self, scheme: str, model: type[StorageSettings]) -> tuple[dict[str, object], list[str]] | None:
        """Return all values of the settings of the storage, and the names of those that are set; `None`: a secret is.

        :raises ConfigurationError: see `storage_settings`.
        """
        settings, layer = self._storage(scheme, model)
        if any(is_secret(model.model_fields[field]) for field in layer):
            return None
        return {field: getattr(settings, field) for field in model.model_fields}, sorted(layer)

    def policy_values(
        self, kind: str, model: type[PolicySettings]
    ) -> tuple[dict[str, object], dict[str, dict[str, object]]] | None:
        """Return the values that variables set, for all guards of a kind, and by the normal form of each name.

        `None`: one of them is a secret.

        :raises ConfigurationError: they contradict each other.
        """
        section = normal_form(kind)
        layers = {"": self._by_kind.get(section, {})}
        layers.update({name: layer for (name, its), layer in self._by_name.items() if its == section})
        values: dict[str, dict[str, object]] = {}
        for name, layer in layers.items():
            if any(is_secret(model.model_fields[field]) for field in layer):
                return None
            settings = _validated(model, layer, kind, variable(section, ""))
            values[name] = {field: getattr(settings, field) for field in layer}
        return values.pop(""), values

    def _assigned(
        self,
        kind: str,
        name: str,
        model: type[PolicySettings],
        given: Mapping[str, object],
        stored: Mapping[str, object] | None,
    ) -> dict[str, Assigned]:
        """Put the layers upon each other, the strongest last."""
        section = normal_form(kind)
        return {
            **self._by_kind.get(section, {}),
            **{
                field: Assigned(value, STORED) for field, value in (stored or {}).items() if field in model.model_fields
            },
            **{field: Assigned(value, CODE) for field, value in given.items()},
            **self._by_name.get((normal_form(name), section), {}),
        }

    def _refuse_confusion(self, kind: str, name: str, given: Mapping[str, object]) -> None:
        """Refuse that variables meant for one guard reach another one, whose name is only written alike in them."""
        place = (normal_form(name), normal_form(kind))
        if place not in self._by_name:
            return
        first, its_own = self._bound.setdefault(place, (name, dict(given)))
        if first != name and its_own != given:
            raise ConfigurationError(
                f"{variable(NAMED, *place, '')}…: this means both {shortened(first)} and {shortened(name)}, whose"
                " settings in code differ: give one of them another name, or unset these variables"
            )

    def _storage(self, scheme: str, model: type[_StorageModel]) -> tuple[_StorageModel, dict[str, Assigned]]:
        section = normal_form(scheme)
        self._storage_models[section] = model
        findings = _Findings({}, [])
        layer = _layer(model, self._sections.get(section, {}), (section,), findings)
        self._settle(findings)
        return _validated(model, layer, f"storage {shortened(scheme)}", variable(section, "")), layer

    def _refuse_section(self, scheme: str) -> None:
        """Refuse variables for a storage that has no settings."""
        section = normal_form(scheme)
        self._storage_models[section] = None
        prefix, why = variable(section, ""), f"the storage {shortened(scheme)} has no settings"
        self._settle(_Findings({prefix + spelling: why for spelling in self._sections.get(section, {})}, []))

    def _kind_model(self, section: str) -> type[PolicySettings]:
        """Load the model of a kind, once."""
        if section not in self._kind_models:
            self._kind_models[section] = self._loaders[self._kinds[section]]()
        return self._kind_models[section]

    def _settle(self, findings: _Findings) -> None:
        """Tell what was found: raise it, or only warn where all of it is unknown variables and that is wanted."""
        told = sorted(findings.unknown.items())[:_MOST_TOLD]
        lines = [
            f"{_shown_name(name)}: {why}{did_you_mean(name, self._names_like(name)) or ': unset it'}"
            for name, why in told
        ]
        if len(findings.unknown) > len(told):
            lines.append(f"… and {len(findings.unknown) - len(told)} more")
        if lines and "unknown" in self._core and self._core["unknown"].value == "warn":
            warnings.warn("; ".join(lines), ConfigurationWarning, stacklevel=3)
            lines = []
        elif lines:
            lines[-1] += " (RESILIENCE_UNKNOWN=warn passes over unknown variables)"
        if lines or findings.problems:
            raise ConfigurationError("\n".join([*lines, *findings.problems]))

    def _names_like(self, name: str) -> Iterator[str]:
        """Yield the names that an unknown variable may have meant."""
        rest = name.upper().removeprefix(PREFIX).split(DELIMITER)[1:]
        yield from map(variable, CoreSettings.model_fields)
        for storage in self._storages:
            # Of a storage that was not chosen nobody knows the fields, so the one that stands there may be right.
            fields = rest[:1] if storage not in self._storage_models else []
            if (model := self._storage_models.get(storage)) is not None:
                fields = list(model.model_fields)
            yield from (variable(storage, field) for field in fields if field)
        # "RESILIENCE_POLICIES__A__B__KIND__FIELD" was meant for a guard named "a__b", which is "A_B" in variables.
        guard = normal_form("_".join(rest[:-2] or rest[:1]))
        for kind in self._kinds:
            try:
                fields = list(self._kind_model(kind).model_fields)
            except Exception:  # noqa: BLE001, S112 - a broken plugin must not hide the message that is being made
                continue
            for field in fields:
                yield variable(kind, field)
                if len(rest) > 1:
                    yield variable(NAMED, guard, kind, field)


def _read(variables: Mapping[str, str]) -> Texts:
    if not variables:  # spare the import of pydantic-settings
        return Texts({}, {}, {})
    from resilience.environment import read

    return read(variables)


class _Findings(NamedTuple):
    """What is wrong with the variables: unknown ones and why each is, and messages about all else."""

    unknown: dict[str, str]
    problems: list[str]


def _layer(
    model: type[_Settings], texts: Mapping[str, str], section: tuple[str, ...], findings: _Findings
) -> dict[str, Assigned]:
    """Read the variables of one section, each for itself: whether they fit together is seen when all layers are."""
    spelt = {field.upper(): field for field in model.model_fields}
    layer: dict[str, Assigned] = {}
    for spelling, text in sorted(texts.items()):
        name = variable(*section, "") + spelling
        if spelling not in spelt:
            findings.unknown[name] = _NOBODY
            continue
        field = spelt[spelling]
        if has_mark(model.model_fields[field], "code_only"):
            findings.problems.append(f"{name}: {field} can be set in code only: unset it")
            continue
        try:
            layer[field] = Assigned(meaning(model.model_fields[field], text), name)
        except ValueError as error:
            findings.problems.append(f"{name}: {error}: give it a value or unset it")
    try:
        model.model_validate({field: value for field, (value, _) in layer.items()})
    except ValidationError as error:
        refusals = explain_refusals(error, model, layer, "", "")
        findings.problems.extend(refusal.message for refusal in refusals if refusal.field in layer)
    return layer


def _effective(settings: _Settings, assigned: Mapping[str, Assigned], section: tuple[str, ...]) -> list[Effective]:
    return [
        Effective(
            field=name,
            value=displayed(getattr(settings, name), field),
            source=assigned[name].source if name in assigned else DEFAULT,
            description=field.description or "",
            variable=None if has_mark(field, "code_only") else variable(*section, name),
        )
        for name, field in type(settings).model_fields.items()
    ]


def _shown_name(name: str) -> str:
    """Return the name of a variable for a message: as it is, if it can do no harm."""
    return name if name.isascii() and name.isidentifier() and len(name) <= _LONGEST_NAME else shortened(name)
