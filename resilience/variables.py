"""The variables of the environment: how they are called, and what their text means.

    RESILIENCE_<FIELD>                              the core: STORAGE, STORAGE_TIMEOUT, …
    RESILIENCE_<STORAGE>__<FIELD>                   a storage plugin: FILE__DURABILITY
    RESILIENCE_<KIND>__<FIELD>                      all guards of a kind: CIRCUIT_BREAKER__FAILURE_THRESHOLD
    RESILIENCE_POLICIES__<NAME>__<KIND>__<FIELD>    the one guard of that name

Names are upper-case ASCII and matched to the letter, as POSIX has it.  One in lower case is not another way to write
it but unknown, and said to be: on most systems both can be set at once, and one of them would win silently.
"""

from __future__ import annotations

import re
import unicodedata
from difflib import SequenceMatcher
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pydantic.fields import FieldInfo

PREFIX = "RESILIENCE_"
DELIMITER = "__"
NAMED = "POLICIES"
"""The section of the guards that have settings of their own."""

# What Kubernetes puts into every pod beside a service named "resilience".
_KUBERNETES = re.compile(
    PREFIX + r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9]+)*|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

_PART = re.compile("[A-Z0-9][A-Z0-9_]*")

_LIKENESS = 0.6
_LONGEST_SUGGESTED = 2000


def normal_form(name: str) -> str:
    """Return how a name is written in a variable: ``payments-api`` as ``PAYMENTS_API``.

    Accents are dropped, letters made upper-case, and each run of anything but ASCII letters and digits becomes one
    ``_``, none at the ends; so the result never holds ``__``, which parts the sections.  A name without any ASCII
    letter or digit has the empty form: no variable can name it.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^A-Z0-9]+", "_", plain.upper()).strip("_")


def variable(*parts: str) -> str:
    """Return the full name of a variable from its parts."""
    return PREFIX + DELIMITER.join(part.upper() for part in parts)


class Texts(NamedTuple):
    """What stands in the variables, as text, by the upper-case parts of their names."""

    core: dict[str, str]
    sections: dict[str, dict[str, str]]
    named: dict[str, dict[str, dict[str, str]]]


def pick(
    environ: Mapping[str, str], *, fields: Iterable[str], storages: Iterable[str], kinds: Iterable[str]
) -> tuple[dict[str, str], list[str]]:
    """Pick the variables with our prefix; return those that have a place, and the names of those that have none.

    `fields` are the core's; `storages` and `kinds` have a section each, and kinds may stand below a name as well; all
    in the spelling of variables.  What Kubernetes injects is passed over.
    """
    fields, kinds = set(fields), set(kinds)
    # A plugin that is called like a field of the core, or "policies", has no section: its variables have no place.
    sections = {*storages, *kinds} - fields - {NAMED}
    placed: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in environ.items():
        if not name.upper().startswith(PREFIX) or _KUBERNETES.fullmatch(name):
            continue
        if _has_place(name, fields, sections, kinds):
            placed[name] = value
        else:
            unknown.append(name)
    return placed, sorted(unknown)


def _has_place(name: str, fields: Collection[str], sections: Collection[str], kinds: Collection[str]) -> bool:
    parts = name.removeprefix(PREFIX).split(DELIMITER)
    if not all(map(_PART.fullmatch, parts)):
        return False
    match parts:
        case [field]:
            return field in fields
        case [section, _]:
            return section in sections
        case [first, _, kind, _]:
            return first == NAMED and kind in kinds
        case _:
            return False


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like one that is not, `None` if none is like it.

    Part by part, where both have as many: or a long section alone would make all its fields alike.
    """
    if len(name) > _LONGEST_SUGGESTED:
        return None
    parts = _parts(name)
    best, found = _LIKENESS, None
    for candidate in known:
        others = _parts(candidate)
        if len(parts) == len(others):
            likeness = min(map(_likeness, parts, others))
        else:
            likeness = _likeness(DELIMITER.join(parts), DELIMITER.join(others))
        if likeness > best:
            best, found = likeness, candidate
    return found


def _parts(name: str) -> list[str]:
    return name.upper().removeprefix(PREFIX).split(DELIMITER)


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def meaning(field: FieldInfo, text: str) -> object:
    """Return what the text of a variable means for a field, as far as its type does not say so itself.

    Spaces around it do not count; ``none`` is `None` where the field may be that; a list is parted by commas.

    :raises ValueError: nothing is left, in all or in an item of a list.
    """
    text = text.strip()
    if not text:
        raise ValueError("it is empty")
    types = set(classes_of(field.annotation))
    if text == "none" and type(None) in types:
        return None
    if types & {list, tuple, set, frozenset}:
        items = [item.strip() for item in text.split(",")]
        if not all(items):
            raise ValueError("an item of the list is empty")
        return items
    return text


def classes_of(annotation: Any) -> Iterable[Any]:
    """Yield the classes a value may have at its top: those of a union each, of a generic the bare one."""
    annotation = getattr(annotation, "__value__", annotation)  # the value of a type alias
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from classes_of(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from classes_of(member)
    else:
        yield origin or annotation
