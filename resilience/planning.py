"""Making the plan that is kept: what a run came to, as far as the next one can take it over; see `resilience.plan`.

Only a composition that went well, without a warning and without a secret, and that comes to plain functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from resilience import plan, plugins
from resilience.errors import ResilienceError
from resilience.ports import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from resilience.runtime import Opened, Runtime
    from resilience.settings import Configuration


def keep(runtime: Runtime, opened: Opened, verbs: Mapping[str, tuple[str, str]]) -> bool:
    """Keep what a runtime came to, and tell whether that was done."""
    try:
        fields = _fields(runtime, opened, verbs)
    except (ResilienceError, TypeError):  # the latter: a setting that JSON has no form for
        return False
    if fields is None:
        return False
    names = [value for value in (fields["storage"], fields["reader"]) if value is not None]
    names += [value for _, value, _, _ in fields["observers"] if value is not None]
    names += [value for value, _ in verbs.values()]
    return plan.keep(runtime.environ, fields, names, runtime.begun)


def _fields(runtime: Runtime, opened: Opened, verbs: Mapping[str, tuple[str, str]]) -> dict[str, Any] | None:
    configuration, scheme = runtime.configuration, opened.url.partition(":")[0]
    if not configuration.core.plan or not configuration.is_open(runtime.environ, scheme):
        return None
    if (file := configuration.file) is not None and plan.configured(runtime.environ) != [file.path, file.identity]:
        return None  # it was changed since it was read
    if configuration.core.trace_hooks or len(plugins.schemes(opened.url)) > 1:
        return None
    observers = opened.observers or []
    installed = plugins.selected(plugins.OBSERVER, configuration.selection)
    if not installed.keys() <= {label for label, _ in observers}:
        return None  # one was left out
    hooks = plain(opened.storage, opened.ports, [observer for _, observer in observers])
    if hooks is None:
        return None
    settings = None
    kind = plugins.storage_class(scheme, configuration.selection)
    if (model := getattr(kind, "Settings", None)) is not None:
        settings = configuration.plugin_values(model.section or scheme, model)
        if settings is None:
            return None
    told, policies = _observing(configuration, observers, hooks[1]), _policies(runtime)
    if told is None or policies is None:
        return None
    return {
        "url": opened.url if runtime.is_default_place else None,
        "filed_url": configuration.filed_url,
        "storage": plugins.installed(plugins.STORAGE)[scheme].value,
        "reader": _reader(kind),
        "settings": None if settings is None else [_portable(settings[0]), settings[1]],
        "timeout": runtime.timeout,
        "max_staleness": configuration.core.max_staleness,
        "hooks": hooks[0],
        "observers": told,
        "policies": policies,
        "verbs": {name: list(where) for name, where in verbs.items()},
    }


def _observing(
    configuration: Configuration, observers: Iterable[tuple[str, object]], hooks: Iterable[list[str]]
) -> list[list[object]] | None:
    """Return name, place, hooks and settings of each observer; `None` if a secret is among them."""
    installed = plugins.installed(plugins.OBSERVER)
    found: list[list[object]] = []
    for (label, _), told in zip(observers, hooks, strict=True):
        value, settings = None, None
        if label in installed:
            value = installed[label].value
            model = plugins.settings_of(plugins.load(installed[label]))
            if model is not None:
                values = configuration.plugin_values(label, model, "observer")
                if values is None:
                    return None
                settings = [_portable(values[0]), values[1]]
        found.append([label, value, told, settings])
    return found


def _reader(storage: Any) -> str | None:
    """Return where that is found which only reads what a storage keeps; `None` if there is none that loads."""
    value: str | None = getattr(storage, plan.READER, None)
    try:
        return value if value is not None and plan.named(value) is not None else None
    except Exception:  # noqa: BLE001 - the storage itself does as well
        return None


def _policies(runtime: Runtime) -> dict[str, list[object]] | None:
    """Return the settings of the policies that take checked values: where each is found, for all, and by name.

    `None` if a secret is among them.
    """
    found: dict[str, list[object]] = {}
    for kind, entry_point in plugins.selected(plugins.POLICY, runtime.configuration.selection).items():
        try:
            policy = plugins.load(entry_point)
            values = runtime.configuration.policy_values(kind, policy.settings_model())
            if values is None:
                return None
            if hasattr(policy, "from_values"):
                found[kind] = [entry_point.value, *map(_portable, values)]
        except (AttributeError, ResilienceError, TypeError):  # the first: it is no policy, as far as one can see
            continue  # it goes the long way each time
    return found


def _portable(value: object) -> Any:
    """Return a value as JSON gives it back.

    :raises TypeError: JSON has no form for it.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_portable(item) for item in cast("Iterable[object]", value)]
    if isinstance(value, dict):
        return {_key(name): _portable(item) for name, item in cast("Mapping[object, object]", value).items()}
    raise TypeError(f"JSON has no form for a {type(value).__name__}")


def _key(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError("JSON has names of text only")
    return name
