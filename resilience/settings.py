"""What can be set, and what is: the settings models, and what is put together from file, environment and code.

`Configuration` reads a mapping and a file that it is handed; only the runtime knows `os.environ`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from resilience.configfile import NAMED as NAMED_KEY
from resilience.configfile import Placed, dotted, place
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
    set_by,
    shortened,
)
from resilience.selection import OBSERVER, POLICY, Listing, Selection
from resilience.variables import (
    DELIMITER,
    NAMED,
    PREFIX,
    Texts,
    classes_of,
    closest,
    meaning,
    normal_form,
    pick,
    variable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from pydantic.fields import FieldInfo

    from resilience.configfile import ConfigFile, Entry
    from resilience.selection import Installed


__all__ = [
    "Configuration",
    "ConfigurationWarning",
    "CoreSettings",
    "Duration",
    "Effective",
    "ObserverSettings",
    "PolicySettings",
    "StorageSettings",
    "check_given",
    "parse_duration",
    "redact",
]

_STORAGE = variable("storage")
_NOBODY = "nothing knows this variable"
_NO_KEY = "nothing knows this key"
_MOST_TOLD = 20
_LONGEST_NAME = 200

_Model = TypeVar("_Model", bound="_Settings")
_PolicyModel = TypeVar("_PolicyModel", bound="PolicySettings")
_StorageModel = TypeVar("_StorageModel", bound="StorageSettings")
_ObserverModel = TypeVar("_ObserverModel", bound="ObserverSettings")


class ConfigurationWarning(UserWarning):
    """Something that nothing knows was passed over, because ``RESILIENCE_UNKNOWN=warn`` says so."""


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

    def effective(self) -> Mapping[str, object]:
        """Return the values of fields that were left open and depend on others, for ``resilience config``."""
        return {}


class StorageSettings(_Settings):
    """Base class of a storage's settings, as `PolicySettings` is of a policy's.

    A field of type `pydantic.SecretStr`, or with ``Field(json_schema_extra={"secret": True})``, is never shown.
    """

    section: ClassVar[str | None] = None
    """What its variables are called after, where the storage has several schemes; one of them.  `None`: the scheme of
    the URL."""


class ObserverSettings(_Settings):
    """Base class of an observer's settings, as `PolicySettings` is of a policy's."""


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
        description="What a variable gets that begins with RESILIENCE_ and that nothing knows, and a key of the "
        "configuration file: an error, or a warning.",
    )
    config: str | None = Field(
        default=None,
        description="Path of a file in TOML with settings; what variables and code say is stronger.",
        json_schema_extra={"variable_only": True},
    )

    plugins_blocked: tuple[str, ...] = Field(
        default=(),
        description="Plugins that are never loaded, not even imported: names of entry points or of distributions, with "
        "commas between.  To choose one all the same is an error.",
    )
    plugins_allowed: tuple[str, ...] | None = Field(
        default=None,
        description="The only observers that are loaded, likewise; none: all that are installed and not blocked.  "
        "Storages and policies are loaded when they are chosen.",
    )
    plugins_autoload: bool = Field(
        default=True,
        description="Load the observers that are installed; with no, only those that RESILIENCE_PLUGINS_ALLOWED names.",
    )
    trace_hooks: bool = Field(
        default=False,
        description="Print each call of a hook to the standard error: the plugin, what it was about, and its time.",
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
    that made it``, the name of the variable that set it, or the path of the configuration file with the key in it.
    `variable` is the name of the variable that would set it, the strongest one; `None` if none can.
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


def _label(kind: str, name: str) -> str:
    return f"{''.join(word.capitalize() for word in kind.split('_'))}({shortened(name)})"


def _validated(model: type[_Model], assigned: Mapping[str, Assigned], label: str, section: str) -> _Model:
    try:
        return model.model_validate({field: value for field, (value, _) in assigned.items()})
    except ValidationError as error:
        refusals = explain_refusals(error, model, assigned, label, section)
    # Outside the handler: the error of pydantic holds its input, and would be printed with the traceback.
    raise ConfigurationError("\n".join(refusal.message for refusal in refusals))


class Configuration:
    """What one environment says, to be put together with what the code says.

    `environ` is read once, here; `file` is what ``RESILIENCE_CONFIG`` in it names.  `storages` and `observers` are the
    names of the installed plugins, `policies` maps each installed policy's kind to a function that returns its
    settings model; it is called only if it is needed.  `installed` lists all plugins with their distributions, if the
    settings keep some out.

    Weakest to strongest: the default of the model, the file (there the section of a name before that of its kind),
    ``RESILIENCE_<KIND>__<FIELD>``, what is stored in the record (for verbs of the shell, which have no code), the
    arguments in code, ``RESILIENCE_POLICIES__<NAME>__<KIND>__<FIELD>``.

    :raises ConfigurationError: variables or keys are unknown (unless ``RESILIENCE_UNKNOWN=warn``) or impossible; the
        message names all of them, one a line.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        storages: Collection[str],
        policies: Mapping[str, Callable[[], type[PolicySettings]]],
        observers: Collection[str] = (),
        installed: Callable[[], Iterable[Installed]] = tuple,
        file: ConfigFile | None = None,
    ) -> None:
        self.file = file
        """The configuration file, as it was read."""
        self._kinds = {normal_form(kind): kind for kind in policies}
        self._loaders = policies
        self._kind_models: dict[str, type[PolicySettings]] = {}
        self._storages = sorted(map(normal_form, storages))
        self._observing = observers
        self._observers = sorted({*map(normal_form, observers)} - {*self._storages, *self._kinds})
        self._plugin_models: dict[str, type[_Settings] | None] = {}
        """Those of the storages that were chosen, and of the observers."""
        spelt = [field.upper() for field in CoreSettings.model_fields]
        others = [*self._storages, *self._observers]
        ours, unknown = pick(environ, fields=spelt, storages=others, kinds=self._kinds)
        texts = _read(ours)
        self._sections = texts.sections
        findings = _Findings(dict.fromkeys(unknown, _NOBODY), [], [], [])

        placed = Placed()
        self._core: dict[str, Assigned] = {}
        if file is not None:
            sections = {*others, *self._kinds}
            placed = place(file, normal_form, fields=CoreSettings.model_fields, sections=sections, kinds=self._kinds)
            findings.keys.extend(placed.unknown)
            findings.problems.extend(placed.problems)
            self._core = _file_layer(CoreSettings, placed.core, file, findings)
        self._core |= _layer(CoreSettings, texts.core, (), findings)
        self._in_file = placed.sections
        self.selection = self._selected(installed)
        """Which plugins may be loaded."""
        findings.names.extend(self.selection.unknown)
        self._passes_over = self._without_barred(
            texts.sections, placed.sections, *texts.named.values(), *placed.named.values()
        )

        self._by_kind: dict[str, dict[str, Assigned]] = {}
        self._filed: dict[tuple[str, str], dict[str, Assigned]] = {}
        """What the file says of the guards of one name."""
        if file is not None:
            self._by_kind = {
                section: _file_layer(self._kind_model(section), entries, file, findings)
                for section, entries in placed.sections.items()
                if section in self._kinds
            }
            self._filed = {
                (name, section): _file_layer(self._kind_model(section), entries, file, findings)
                for name, named in placed.named.items()
                for section, entries in named.items()
            }
        self._kind_variables = {
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
        self._has_unknown = bool(findings.unknown or findings.keys or findings.names)
        # The first guard that was bound for each section of a name.
        self._bound: dict[tuple[str, str], tuple[str, Mapping[str, object]]] = {}

    def _selected(self, installed: Callable[[], Iterable[Installed]]) -> Selection:
        """Find out which plugins may be loaded; where a setting cannot be, `_settle` says so."""
        fields = ("plugins_blocked", "plugins_allowed", "plugins_autoload")
        given = {field: self._core[field] for field in fields if field in self._core}
        if not given:
            return Selection()
        try:
            core = CoreSettings.model_validate({field: value for field, (value, _) in given.items()})
        except ValidationError:
            return Selection()
        blocked = allowed = None
        if core.plugins_blocked:
            blocked = Listing(core.plugins_blocked, given["plugins_blocked"].source)
        if core.plugins_allowed is not None:
            allowed = Listing(core.plugins_allowed, given["plugins_allowed"].source)
        elif not core.plugins_autoload:
            allowed = Listing((), given["plugins_autoload"].source)
        return Selection(installed(), blocked=blocked, allowed=allowed)

    def _without_barred(self, *layers: dict[str, Any]) -> bool:
        """Drop the sections of policies that nobody may load to look at them; whether there were any."""
        barred = [section for section, kind in self._kinds.items() if self.selection.bar(POLICY, kind) is not None]
        found = [layer.pop(section) for layer in layers for section in barred if section in layer]
        return bool(found)

    def storage_settings(self, scheme: str, model: type[_StorageModel] | None) -> _StorageModel | None:
        """Return the settings of the storage that was chosen; `None` if it has no model.

        Sections of other installed storages are passed over.

        :raises ConfigurationError: variables of its section are unknown or impossible, or it has no model and there
            are variables all the same.
        """
        if model is None:
            self._refuse_section(scheme, "storage")
            return None
        return self._plugin(self._section(scheme, model), model, "storage")[0]

    def observer_settings(self, name: str, model: type[_ObserverModel] | None) -> _ObserverModel | None:
        """Return the settings of an installed observer; `None` if it has no model.

        :raises ConfigurationError: variables of its section are unknown or impossible, or it has no model and there
            are variables all the same.
        """
        if normal_form(name) not in self._observers:  # the section belongs to a storage or a policy of that name
            return None if model is None else model()
        if model is None:
            self._refuse_section(name, "observer")
            return None
        return self._plugin(name, model, "observer")[0]

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
            settings in code differ have the same name in variables, and there are such variables; or the policy is
            blocked.
        """
        label = _label(kind, name)
        if (bar := self.selection.bar(POLICY, kind)) is not None:
            raise ConfigurationError(f"{label}: {bar} keeps the policy {kind!r} out")
        self._refuse_confusion(kind, name, given)
        assigned = self._assigned(kind, name, model, given, stored)
        return _validated(model, assigned, label, variable(normal_form(kind), ""))

    def located(
        self,
        error: ConfigurationError,
        kind: str,
        name: str,
        model: type[PolicySettings],
        given: Mapping[str, object],
        stored: Mapping[str, object] | None,
    ) -> ConfigurationError:
        """Return what a policy said of its settings, with what it does not know: its guard, and where they are from."""
        assigned = self._assigned(kind, name, model, given, stored)
        return ConfigurationError(f"{_label(kind, name)}: {error}{set_by(assigned)}")

    def explain_core(self) -> list[Effective]:
        """Return each setting of the framework itself, with its source."""
        return _effective(self.core, self._core, ())

    def explain_storage(self, scheme: str, model: type[StorageSettings] | None) -> list[Effective]:
        """Return each setting of the storage that was chosen, with its source; see `storage_settings`."""
        if model is None:
            self._refuse_section(scheme, "storage")
            return []
        section = self._section(scheme, model)
        return _effective(*self._plugin(section, model, "storage"), (normal_form(section),))

    def explain_observer(self, name: str, model: type[ObserverSettings] | None) -> list[Effective]:
        """Return each setting of an installed observer, with its source; see `observer_settings`."""
        if model is None or normal_form(name) not in self._observers:
            self.observer_settings(name, model)
            return []
        return _effective(*self._plugin(name, model, "observer"), (normal_form(name),))

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
        return _effective(settings, assigned, (NAMED, form, section) if form else (section,), settings.effective())

    def is_open(self, environ: Mapping[str, str], scheme: str) -> bool:
        """Whether somebody checked each setting and anybody may see its value, the storage's URL aside."""
        barred = {normal_form(name) for name in self._observing if self.selection.bar(OBSERVER, name) is not None}
        chosen = {normal_form(scheme), *self._plugin_models, *self._kinds, *self._observers} - barred
        if (
            self._has_unknown
            or self._passes_over
            or not chosen.issuperset(self._sections)
            or not chosen.issuperset(self._in_file)
        ):
            return False
        filed = [*self._by_kind.values(), *self._filed.values(), *(({} if self.file is None else self._core),)]
        texts = [one.value for layer in filed for one in layer.values() if isinstance(one.value, str)]
        texts += [value for name, value in environ.items() if name.startswith(PREFIX) and name != _STORAGE]
        url = environ.get(_STORAGE)
        return all(redact(text) == text for text in texts if text != url)

    @property
    def storage_source(self) -> str:
        """What says the URL of the storage: its variable, also where nothing says it, or a place in the file."""
        storage = self._core.get("storage")
        return _STORAGE if storage is None else storage.source

    @property
    def filed_url(self) -> str | None:
        """The URL of the storage, if the configuration file says it and no variable."""
        return None if self.storage_source == _STORAGE else self.core.storage

    def plugin_values(
        self, name: str, model: type[_Settings], label: str = "storage"
    ) -> tuple[dict[str, object], list[str]] | None:
        """Return all values of the settings of the storage, or of an observer, and the names of those that are set.

        `None`: a secret is set.

        :raises ConfigurationError: see `storage_settings`.
        """
        settings, layer = self._plugin(name, model, label)
        if any(is_secret(model.model_fields[field]) for field in layer):
            return None
        return {field: getattr(settings, field) for field in model.model_fields}, sorted(layer)

    def policy_names(self, kind: str) -> set[str]:
        """Return the normal forms of the names for which file or variables set something of a policy."""
        section = normal_form(kind)
        return {name for names in (self._filed, self._by_name) for name, its in names if its == section}

    def policy_values(
        self, kind: str, model: type[PolicySettings]
    ) -> tuple[dict[str, object], dict[str, dict[str, object]], dict[str, dict[str, object]]] | None:
        """Return the values that file and variables set, for all guards of a kind, and by the normal form of each name.

        Of the latter there are two: those that take the place of what is for all, and those that are stronger than
        code.  `None`: one of them is a secret.

        :raises ConfigurationError: they contradict each other.
        """
        section = normal_form(kind)
        found: list[dict[str, dict[str, object]]] = []
        names = [name for name, its in self._filed if its == section]
        for layers in (
            {"": self._for_all(section, None)},
            {name: self._for_all(section, name) for name in names},
            {name: layer for (name, its), layer in self._by_name.items() if its == section},
        ):
            values: dict[str, dict[str, object]] = {}
            for name, layer in layers.items():
                if any(is_secret(model.model_fields[field]) for field in layer):
                    return None
                settings = _validated(model, layer, kind, variable(section, ""))
                values[name] = {field: getattr(settings, field) for field in layer}
            found.append(values)
        return found[0][""], found[1], found[2]

    def _for_all(self, section: str, form: str | None) -> dict[str, Assigned]:
        """Put the layers upon each other that are weaker than code; `form`: that of a name that the file may have."""
        filed = {} if form is None else self._filed.get((form, section), {})
        return {**self._by_kind.get(section, {}), **filed, **self._kind_variables.get(section, {})}

    def _assigned(
        self,
        kind: str,
        name: str,
        model: type[PolicySettings],
        given: Mapping[str, object],
        stored: Mapping[str, object] | None,
    ) -> dict[str, Assigned]:
        """Put the layers upon each other, the strongest last."""
        section, form = normal_form(kind), normal_form(name)
        return {
            **self._for_all(section, form or name),
            **{
                field: Assigned(value, STORED) for field, value in (stored or {}).items() if field in model.model_fields
            },
            **{field: Assigned(value, CODE) for field, value in given.items()},
            **self._by_name.get((form, section), {}),
        }

    def _refuse_confusion(self, kind: str, name: str, given: Mapping[str, object]) -> None:
        """Refuse that settings meant for one guard reach another one, whose name is only written alike in them."""
        place = (normal_form(name), normal_form(kind))
        if place in self._by_name:
            what, fix = f"{variable(NAMED, *place, '')}…", "unset these variables"
        elif place in self._filed and self.file is not None:
            its_name = next(iter(self._filed[place].values())).source if self._filed[place] else self.file.path
            what, fix = its_name, "remove its section"
        else:
            return
        first, its_own = self._bound.setdefault(place, (name, dict(given)))
        if first != name and its_own != given:
            raise ConfigurationError(
                f"{what}: this means both {shortened(first)} and {shortened(name)}, whose"
                f" settings in code differ: give one of them another name, or {fix}"
            )

    def _plugin(self, name: str, model: type[_Model], label: str) -> tuple[_Model, dict[str, Assigned]]:
        section = normal_form(name)
        self._plugin_models[section] = model
        findings = _Findings({}, [], [], [])
        layer: dict[str, Assigned] = {}
        if self.file is not None:
            layer = _file_layer(model, self._in_file.get(section, {}), self.file, findings)
        layer |= _layer(model, self._sections.get(section, {}), (section,), findings)
        self._settle(findings)
        return _validated(model, layer, f"{label} {shortened(name)}", variable(section, "")), layer

    def _section(self, scheme: str, model: type[StorageSettings]) -> str:
        """Return what the variables of a storage are called after; the names of its other schemes are refused."""
        section = model.section or scheme
        if normal_form(section) != normal_form(scheme):
            self._refuse_section(scheme, "storage", normal_form(section))
        return section

    def _refuse_section(self, name: str, label: str, instead: str = "") -> None:
        """Refuse settings of a plugin that has none, or has them in another section, `instead`."""
        section = normal_form(name)
        self._plugin_models[section] = None
        prefix, begin = variable(section, ""), variable(instead, "")
        spellings = list(self._sections.get(section, {}))
        keys = [entry.keys for entry in self._in_file.get(section, {}).values()]
        if instead:
            why = f"{label} {shortened(name)}: its variables begin with {begin}"
            told = [f"{_shown_name(prefix + each)}: {why}: write {_shown_name(begin + each)}" for each in spellings]
            self._settle(_Findings({}, [], keys, told))
        else:
            why = f"the {label} {shortened(name)} has no settings"
            self._settle(_Findings(dict.fromkeys((prefix + each for each in spellings), why), [], keys, []))

    def _kind_model(self, section: str) -> type[PolicySettings]:
        """Load the model of a kind, once."""
        if section not in self._kind_models:
            self._kind_models[section] = self._loaders[self._kinds[section]]()
        return self._kind_models[section]

    def _settle(self, findings: _Findings) -> None:
        """Tell what was found: raise it, or only warn where all of it is unknown and that is wanted."""
        lines = [
            f"{_shown_name(name)}: {why}{did_you_mean(name, self._names_like(name)) or ': unset it'}"
            for name, why in sorted(findings.unknown.items())[:_MOST_TOLD]
        ]
        if self.file is not None:
            lines += [
                f"{self.file.name_of(*keys)}: {_NO_KEY}{self._like(keys) or ': remove it'}"
                for keys in findings.keys[:_MOST_TOLD]
            ]
        more = len(findings.unknown) + len(findings.keys) - len(lines)
        if more:
            lines.append(f"… and {more} more")
        lines += findings.names[:_MOST_TOLD]
        if lines and "unknown" in self._core and self._core["unknown"].value == "warn":
            warnings.warn("; ".join(lines), ConfigurationWarning, stacklevel=3)
            lines = []
        elif lines:
            what = "what is unknown" if findings.keys or findings.names else "unknown variables"
            lines[-1] += f" (RESILIENCE_UNKNOWN=warn passes over {what})"
        if lines or findings.problems:
            raise ConfigurationError("\n".join([*lines, *findings.problems]))

    def _like(self, keys: tuple[str, ...]) -> str:
        """Return the end of a message about a key of the file that nothing knows: what it may have meant."""
        *path, key = keys
        known: dict[str, tuple[str, ...]] = {}
        if len(path) == 1 and normal_form(path[0]) in self._plugin_models:
            model = self._plugin_models[normal_form(path[0])]
            known = {field: (*path, field) for field in (() if model is None else model.model_fields)}
        elif not path or path[0] == NAMED_KEY:
            whole = len(path) == 3
            for section, kind in self._kinds.items():
                if whole and normal_form(path[2]) != section:
                    continue
                place = tuple(path) if whole else (*path, kind)
                known |= {field: (*place, field) for field in self._fields_of(section)}
                if not whole:
                    known[kind] = place
        else:
            known = {field: (*path, field) for field in self._fields_of(normal_form(path[0]))}
        if not path:
            sections = [name.lower() for name in (*self._storages, *self._observers)]
            known |= {name: (name,) for name in (*CoreSettings.model_fields, *sections, NAMED_KEY)}
        found = closest(key, known)
        return f": did you mean {dotted(known[found])}?" if found else ""

    def _fields_of(self, section: str) -> list[str]:
        """Return the fields of a kind; none if its policy does not load."""
        try:
            return list(self._kind_model(section).model_fields)
        except Exception:  # noqa: BLE001 - a broken plugin must not hide the message that is being made
            return []

    def _names_like(self, name: str) -> Iterator[str]:
        """Yield the names that an unknown variable may have meant."""
        written, *rest = name.upper().removeprefix(PREFIX).split(DELIMITER)
        yield from map(variable, CoreSettings.model_fields)
        for storage in (*self._storages, *self._observers):
            # Of a storage that was not chosen nobody knows the fields, so the one that stands there may be right; where
            # the section is known, it is the field that is not, and would be passed over in another's section.
            fields = rest[:1] if not {storage, written} & self._plugin_models.keys() else []
            if (model := self._plugin_models.get(storage)) is not None:
                fields = list(model.model_fields)
            elif not rest and written.startswith(f"{storage}_"):  # with one underscore, where two part a section
                fields = [written.removeprefix(f"{storage}_")]
            yield from (variable(storage, field) for field in fields if field)
        # "RESILIENCE_POLICIES__A__B__KIND__FIELD" was meant for a guard named "a__b", which is "A_B" in variables.
        guard = normal_form("_".join(rest[:-2] or rest[:1]))
        for kind in self._kinds:
            for field in self._fields_of(kind):
                yield variable(kind, field)
                if len(rest) > 1:
                    yield variable(NAMED, guard, kind, field)


def _read(variables: Mapping[str, str]) -> Texts:
    if not variables:  # spare the import of pydantic-settings
        return Texts({}, {}, {})
    from resilience.environment import read

    return read(variables)


class _Findings(NamedTuple):
    """What is wrong: unknown variables and why each is, messages about all else, unknown keys of the file.

    `names`: messages about plugins that are not installed, or whose variables have another name.
    """

    unknown: dict[str, str]
    problems: list[str]
    keys: list[tuple[str, ...]]
    names: list[str]


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
    return _tried(model, layer, findings)


def _file_layer(
    model: type[_Settings], entries: Mapping[str, Entry], file: ConfigFile, findings: _Findings
) -> dict[str, Assigned]:
    """Read one section of the file, for itself as `_layer` does."""
    layer: dict[str, Assigned] = {}
    for key, entry in entries.items():
        name = file.name_of(*entry.keys)
        field = model.model_fields.get(key)
        if field is None:
            findings.keys.append(entry.keys)
        elif has_mark(field, "code_only"):
            findings.problems.append(f"{name}: {key} can be set in code only: remove it")
        elif has_mark(field, "variable_only"):
            findings.problems.append(f"{name}: {key} can be set by {variable(key)} only: remove it")
        else:
            try:
                layer[key] = Assigned(_typed(field, entry.value), name)
            except ValueError as error:
                findings.problems.append(f"{name}: {error}: give it a value or remove it")
    return _tried(model, layer, findings)


def _typed(field: FieldInfo, value: object) -> object:
    """Return what a value of the file means; text is read as that of a variable is.

    :raises ValueError: it has a type that no value of the field has.
    """
    if isinstance(value, str):
        return meaning(field, value)
    classes = set(classes_of(field.annotation))
    if isinstance(value, dict):
        raise ValueError("this is a setting, not a section")  # noqa: TRY004 - as all that is wrong with a value
    if not isinstance(value, int | float | list) or (isinstance(value, bool) and bool not in classes):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f"{shown} is refused: it has the wrong type")
    return value  # pyright: ignore[reportUnknownVariableType] - a list of anything, which pydantic looks at


def _tried(model: type[_Settings], layer: dict[str, Assigned], findings: _Findings) -> dict[str, Assigned]:
    try:
        model.model_validate({field: value for field, (value, _) in layer.items()})
    except ValidationError as error:
        refusals = explain_refusals(error, model, layer, "", "")
        findings.problems.extend(refusal.message for refusal in refusals if refusal.field in layer)
    return layer


def _effective(
    settings: _Settings,
    assigned: Mapping[str, Assigned],
    section: tuple[str, ...],
    effective: Mapping[str, object] | None = None,
) -> list[Effective]:
    values = effective or {}
    return [
        Effective(
            field=name,
            value=displayed(values.get(name, getattr(settings, name)), field),
            source=assigned[name].source if name in assigned else DEFAULT,
            description=field.description or "",
            variable=None if has_mark(field, "code_only") else variable(*section, name),
        )
        for name, field in type(settings).model_fields.items()
    ]


def _shown_name(name: str) -> str:
    """Return the name of a variable for a message: as it is, if it can do no harm."""
    return name if name.isascii() and name.isidentifier() and len(name) <= _LONGEST_NAME else shortened(name)
