"""Reads the variables of an environment that are ours.

Imported when there is an environment to read and not before: pydantic-settings takes 100 ms to import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import create_model
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from resilience.variables import DELIMITER, NAMED, PREFIX, normal_form

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

# What Kubernetes puts into every pod beside a service named "resilience".
_KUBERNETES = re.compile(
    PREFIX + r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9]+)*|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)


class Environment(NamedTuple):
    """What the environment holds of ours: text by upper-case names."""

    core: dict[str, str]
    sections: dict[str, dict[str, str]]
    named: dict[str, dict[str, dict[str, str]]]
    unknown: list[str]


class _MappingSource(EnvSettingsSource):
    """pydantic-settings' own reader of prefixes and nesting, on a mapping that is handed in.

    `_load_env_vars` is where that reader gets its variables, and what pydantic-settings' own reader of ``.env`` files
    overrides to bring others.  To assign `env_vars` afterwards would do as well on POSIX, but the parent would have
    read `os.environ` by then, and on Windows it would have given up matching names to the letter.
    """

    def __init__(self, model: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(model)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._environ)


def read(
    environ: Mapping[str, str], *, fields: Iterable[str], storages: Iterable[str], kinds: Iterable[str]
) -> Environment:
    """Read all variables with our prefix.

    `fields` are the core's; `storages` and `kinds` have a section each, and kinds may stand below a name as well; all
    in the spelling of variables.  What fits none of them is unknown, apart from what Kubernetes injects.
    """
    fields, kinds = set(fields), set(kinds)
    # A plugin that is called like a field of the core, or "policies", has no section: its variables are unknown.
    sections = {*storages, *kinds} - fields - {NAMED, ""}
    ours: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in environ.items():
        if not name.upper().startswith(PREFIX) or _KUBERNETES.fullmatch(name):
            continue
        if _fits(name, fields, sections, kinds):
            ours[name] = value
        else:
            unknown.append(name)

    # pydantic-settings ignores a variable that fits no field, hence the look above.  Its model is built from text
    # alone: a value gets its type when the layers of settings have been put upon each other.
    layout: dict[str, Any] = dict.fromkeys(fields, (str | None, None))
    layout |= dict.fromkeys(sections, (dict[str, str], {}))
    layout[NAMED] = (dict[str, dict[str, dict[str, str]]], {})
    tree = _MappingSource(create_model("Layout", __base__=_Layout, **layout), ours)()
    return Environment(
        core={field: tree[field] for field in fields if field in tree},
        sections={section: tree[section] for section in sections if section in tree},
        named=tree.get(NAMED, {}),
        unknown=sorted(unknown),
    )


class _Layout(BaseSettings):
    # Upper-case fields read to the letter: the tree has the variables' own spelling, and a storage named "json" or
    # "copy" shadows no method of the model.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, case_sensitive=True)


def _fits(name: str, fields: Collection[str], sections: Collection[str], kinds: Collection[str]) -> bool:
    match name[len(PREFIX) :].split(DELIMITER) if name.startswith(PREFIX) else []:
        case [field]:
            return field in fields
        case [section, field]:
            return section in sections and field != ""
        case [first, guard, kind, field]:
            return first == NAMED and guard != "" and guard == normal_form(guard) and kind in kinds and field != ""
        case _:
            return False
