"""What is said of a setting that cannot be: where it was set, what is wrong, what is allowed.  Secrets are not said.

pydantic names the path of a field and prints its input; a person needs the variable that he set, and must not find a
password in a log.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from pydantic import Secret, SecretBytes, SecretStr, ValidationError
from pydantic_core.core_schema import ErrorType

from resilience.redaction import HIDDEN, redact
from resilience.variables import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

DEFAULT = "default"
CODE = "code"
STORED = "stored by the code that made it"

_LONGEST_SHOWN = 60

# What pydantic itself says of these quotes no input; a validator of a plugin may quote all of it, or a part.
_WITHOUT_INPUT = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error"}


class Assigned(NamedTuple):
    """A value and where it comes from: `CODE`, `STORED` or the name of a variable."""

    value: object
    source: str


class Refusal(NamedTuple):
    """What is wrong with a field; with several together, if `field` is ``""``."""

    field: str
    message: str


def is_secret(field: FieldInfo) -> bool:
    """Whether the type of a field says that its value is a secret, or `json_schema_extra` does (``"secret": True``)."""
    return has_mark(field, "secret") or _holds_secret(field.annotation)


def has_mark(field: FieldInfo, mark: str) -> bool:
    """Whether the `json_schema_extra` of a field sets a mark."""
    extra = cast("object", field.json_schema_extra)  # a mapping or a function, in types of pydantic's own
    return isinstance(extra, dict) and cast("dict[str, object]", extra).get(mark) is True


def _holds_secret(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, SecretStr | SecretBytes | Secret):
        return True
    return any(map(_holds_secret, get_args(annotation)))


def displayed(value: object, field: FieldInfo) -> object:
    """Return a value as it may be shown, in a form that JSON has.

    Text loses the secrets of URLs, a secret is not shown at all, classes and functions become ``module:name``.
    """
    if value is None:
        return None
    if is_secret(field):
        return HIDDEN
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [displayed(item, field) for item in cast("Iterable[object]", value)]
    if isinstance(value, type | FunctionType):
        return value.__qualname__ if value.__module__ == "builtins" else f"{value.__module__}:{value.__qualname__}"
    return shortened(value)


def shortened(value: object) -> str:
    """Return what a value looks like in code, on one line of bearable length."""
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return f"{value[:_LONGEST_SHOWN]!r}… ({len(value)} characters)"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a repr of somebody else's, or a number too long to be written
        return f"a {type(value).__name__} that cannot be shown"
    text = "".join(character if character.isprintable() else "?" for character in text[: _LONGEST_SHOWN + 1])
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def where(label: str, field: str, source: str) -> str:
    """Return the place of a setting: its variable, or the call that makes the guard."""
    if source == CODE:
        return f"{label.removesuffix(')')}, {shortened(field)[1:-1]}=…)"
    if source == STORED:
        return f"{label}, {field} {STORED}"
    return source


def explain_refusals(
    error: ValidationError, model: type[BaseModel], assigned: Mapping[str, Assigned], label: str, section: str
) -> list[Refusal]:
    """Return one refusal for each field, and one for each contradiction between fields.

    `assigned` says where the values come from, `label` names the guard or the storage they are for; `section` is the
    beginning of the variables that set its fields, ``""`` if there are none.
    """
    refused: dict[str, list[str]] = {}
    refusals: list[Refusal] = []
    contradictions: list[str] = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        field = str(found["loc"][0]) if found["loc"] else ""
        words = _without_secrets(_words(found["msg"]), model, assigned)
        if not field:
            contradictions.append(words)
        elif field not in model.model_fields:
            message = f"{where(label, field, CODE)}: there is no such setting{did_you_mean(field, model.model_fields)}"
            refusals.append(Refusal(field, message))
        elif is_secret(model.model_fields[field]) and found["type"] not in _WITHOUT_INPUT:
            refused.setdefault(field, []).append("it must be another; why is not shown, as that might show the secret")
        else:
            refused.setdefault(field, []).append(words)

    for field, reasons in refused.items():
        # A union says once for each of its members what it would have liked.
        reason = " or ".join(dict.fromkeys(reasons))
        if field in assigned:
            value, source = assigned[field]
            shown = shortened(displayed(value, model.model_fields[field]))
            message = f"{where(label, field, source)}: {shown} is refused: {reason}"
        else:
            message = f"{label}, {field}: {reason}" + (f": set {section}{field.upper()}" if section else "")
        refusals.append(Refusal(field, message))
    refusals.extend(Refusal("", f"{label}: {words}{set_by(assigned)}") for words in contradictions)
    return refusals


def set_by(assigned: Mapping[str, Assigned]) -> str:
    """Return the end of a message about several settings: where each is from, without their values."""
    sources = ", ".join(f"{field} by {source}" for field, (_, source) in assigned.items())
    return f" (set: {sources})" if sources else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: what it may have meant, if anything is like it."""
    found = closest(name, known)
    return f": did you mean {found}?" if found and found != name else ""


def _words(message: str) -> str:
    """Return pydantic's message as the end of a sentence of ours."""
    for own in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(own)
    return f"it {message.removeprefix('Input ')}" if message.startswith("Input ") else message


def _without_secrets(words: str, model: type[BaseModel], assigned: Mapping[str, Assigned]) -> str:
    """Hide what a plugin's own validator has quoted."""
    for name, (value, _) in assigned.items():
        field = model.model_fields.get(name)
        if field and value and isinstance(value, str):
            words = words.replace(value, str(displayed(value, field)))
    return words
