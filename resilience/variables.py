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
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic.fields import FieldInfo

PREFIX = "RESILIENCE_"
DELIMITER = "__"
NAMED = "POLICIES"
"""The section of the guards that have settings of their own."""

_LIKENESS = 0.6
_LONGEST_SUGGESTED = 200


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
    types = set(_types(field.annotation))
    if text == "none" and type(None) in types:
        return None
    if types & {list, tuple, set, frozenset}:
        items = [item.strip() for item in text.split(",")]
        if not all(items):
            raise ValueError("an item of the list is empty")
        return items
    return text


def _types(annotation: Any) -> Iterable[Any]:  # noqa: ANN401 - an annotation may be anything
    """Yield the classes a value may have at its top: those of a union each, of a generic the bare one."""
    annotation = getattr(annotation, "__value__", annotation)  # the value of a type alias
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _types(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _types(member)
    else:
        yield origin or annotation
