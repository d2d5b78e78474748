"""Reads the variables that are ours, through pydantic-settings.

Imported when there are any and not before: pydantic-settings takes 100 ms to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import create_model
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from resilience.variables import DELIMITER, NAMED, PREFIX, Texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def read(variables: Mapping[str, str]) -> Texts:
    """Read variables that `resilience.variables.pick` has picked; there is none that it would ignore."""
    tree = _MappingSource(_layout(variables), variables)()
    named = tree.pop(NAMED, {})
    return Texts(
        core={name: text for name, text in tree.items() if isinstance(text, str)},
        sections={name: texts for name, texts in tree.items() if isinstance(texts, dict)},
        named=named,
    )


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


class _Root(BaseSettings):
    # Upper-case fields read to the letter: what is read has the variables' own spelling, and a storage named "json" or
    # "copy" shadows no method of the model.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=DELIMITER, case_sensitive=True)


def _layout(names: Iterable[str]) -> type[BaseSettings]:
    """Make the model that has a field of text for each of these variables, and a model for each section.

    Text, because a value gets its type when the layers of settings have been put upon each other; and fields rather
    than dictionaries, because what stands in a dictionary is read as JSON by some versions of pydantic-settings.
    """
    root: dict[str, Any] = {}
    for name in names:
        *sections, field = name.removeprefix(PREFIX).split(DELIMITER)
        inner = root
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[field] = None
    return create_model("Variables", __base__=_Root, **_fields(root))


def _fields(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (str | None if inner is None else create_model(name, **_fields(inner)), None)
        for name, inner in tree.items()
    }
