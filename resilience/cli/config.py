"""`resilience config [NAME]`: what is in force, and who said so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience import plugins
from resilience.cli.output import described
from resilience.cli.statuses import OK, UNAVAILABLE
from resilience.errors import PluginError, StorageError
from resilience.storage import Key

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from resilience.cli.shell import Shell
    from resilience.policy import Policy
    from resilience.runtime import Runtime
    from resilience.settings import Effective

_TITLES = ("SETTING", "VALUE", "SOURCE", "VARIABLE")
_LONGEST = 1200
"""Characters of a cell: a variable is to be copied whole, and a name may have a thousand."""


def run(shell: Shell, arguments: Namespace) -> int:
    """Show the settings of the core, of the chosen storage, and of each policy."""
    runtime, name = shell.runtime, arguments.name or ""
    configuration = runtime.configuration
    selection = configuration.selection
    sections: list[tuple[str, list[Effective]]] = [("", configuration.explain_core())]
    for scheme in plugins.schemes(runtime.url):
        model = getattr(plugins.storage_class(scheme, selection), "Settings", None)
        sections.append((scheme, configuration.explain_storage(scheme, model)))
    status = OK
    for kind, entry_point in plugins.selected(plugins.POLICY, selection).items():
        try:
            policy: type[Policy] = plugins.load(entry_point)
        except PluginError as error:  # nobody chose it
            shell.notes.append(str(error))
            continue
        stored: Mapping[str, object] | None = None
        if name:
            told = len(shell.notes)
            stored, outage = _stored(runtime, policy, name)
            if outage is not None:
                del shell.notes[told:]  # what the policy does meanwhile is not the question here
                shell.say(f"the settings that code stored for {kind} {name!r} cannot be read: {outage}")
                status = UNAVAILABLE
        sections.append((kind, configuration.explain(kind, name, policy.settings_model(), {}, stored)))
    for label, entry_point in plugins.selected(plugins.OBSERVER, selection).items():
        try:
            model = plugins.settings_of(plugins.load(entry_point))
        except PluginError:
            continue  # as when the runtime is opened: it is left out
        sections.append((label, configuration.explain_observer(label, model)))
    if arguments.json:
        shell.json([_fields(section, setting) for section, settings in sections for setting in settings])
    else:
        rows = [_row(section, setting) for section, settings in sections for setting in settings]
        shell.table(_TITLES, rows, longest=_LONGEST)
    return status


def _stored(
    runtime: Runtime, policy: type[Policy], name: str
) -> tuple[Mapping[str, object] | None, StorageError | None]:
    """Read the settings that code stored with the record of a guard; or why that cannot be done."""
    settings = runtime.configuration.policy_settings(policy.kind, name, policy.settings_model(), {})
    cell = runtime.bind(Key(policy.kind, name), policy.from_settings(settings, None))
    reading = cell.reach().read(cell)
    return cell.policy.stored_settings(reading.state), reading.degraded


def _fields(section: str, setting: Effective) -> dict[str, object]:
    return {
        "section": section or "core",
        "setting": setting.field,
        "value": setting.value,
        "source": setting.source,
        "variable": setting.variable,
        "description": setting.description,
    }


def _row(section: str, setting: Effective) -> list[str]:
    field = f"{section}.{setting.field}" if section else setting.field
    return [field, described(setting.value), setting.source, setting.variable or "in code only"]
