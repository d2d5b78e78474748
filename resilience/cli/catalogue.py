"""All verbs: those of the core, and those that installed policies and observers bring."""

from __future__ import annotations

from resilience.cli.arguments import JSON, NAME, NAMES, span
from resilience.cli.verbs import Argument, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from importlib.metadata import EntryPoint

    from resilience.cli.shell import Shell
    from resilience.errors import PluginError
    from resilience.selection import Selection

DISTRIBUTION = "resilience-framework"
"""Our own distribution: no other takes a verb away from its policies."""


def _config(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.config import run

    return run(shell, arguments)


def _watch(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.watch import run

    return run(shell, arguments)


def _plugins(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.plugins import run

    return run(shell, arguments)


def _plugin_new(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.plugin.new import run

    return run(shell, arguments)


def _plugin_check(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.plugin.check import run

    return run(shell, arguments)


def _new_name(text: str) -> str:
    from resilience.cli.plugin.new import name_of

    return name_of(text)


def _names_of_checks(text: str) -> tuple[str, ...]:
    from resilience.cli.plugin.check import names_of

    return names_of(text)


def _function(text: str) -> object:
    from resilience.cli.plugin.check import function_of

    return function_of(text)


def _doctor(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.doctor import run

    return run(shell, arguments)


def _storage_init(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.storage.init import run

    return run(shell, arguments)


def _storage_copy(shell: Shell, arguments: Namespace) -> int:
    from resilience.cli.storage.copy import run

    return run(shell, arguments)


def _demo(shell: Shell, arguments: Namespace) -> int:  # noqa: ARG001 - the demo draws on the terminal itself
    from resilience.cli.demo import run

    return run(arguments)


CORE = (
    Verb(
        "config",
        "Show each setting that is in force and where it comes from.",
        _config,
        Argument("NAME", help="also the settings of the guard of this name", convert=NAME.convert, nargs="?"),
        JSON,
    ),
    Verb(
        "watch",
        "Show the status again and again, until Ctrl-C.",
        _watch,
        NAMES,
        Argument("--interval", help="time between two looks (default: 1s)", convert=span, metavar="TIME", default=1.0),
    ),
    Verb("plugins", "Show what is installed, whether it loads, and what is in use.", _plugins, JSON),
    Verb(
        "plugin new",
        "Write a plugin project with a storage that works, to be replaced by yours.",
        _plugin_new,
        Argument("NAME", help="the scheme of its URL: my-store", convert=_new_name),
        Argument("--folder", help="where; without, resilience-NAME in this folder", metavar="DIR"),
    ),
    Verb(
        "plugin check",
        "Put a storage to the proof, with threads and with processes.",
        _plugin_check,
        Argument("URL", help="of the storage; keys that nobody else has are saved and removed"),
        Argument("--quick", help="fewer rounds and processes: a quarter of the time", action="store_true"),
        Argument("--only", help="run these checks, commas between", convert=_names_of_checks, metavar="CHECKS"),
        Argument(
            "--damage",
            help="module:function that damages a record: function(storage, key)",
            convert=_function,
            metavar="FUNCTION",
        ),
        Argument("--unreachable", help="URL of such a storage whose store does not answer", metavar="URL"),
        JSON,
    ),
    Verb(
        "storage init",
        "Make what the storage needs before its first use, such as a table.",
        _storage_init,
        Argument("URL", help="of the storage; without, the chosen one", nargs="?"),
        Argument("--print", help="print what would be done, and do nothing", action="store_true", dest="dry"),
    ),
    Verb(
        "storage copy",
        "Bring all records from one storage to another.",
        _storage_copy,
        Argument("FROM", help="URL of the storage that has them"),
        Argument("TO", help="URL of the storage that is to have them"),
        Argument("--overwrite", help="replace records that are there already", action="store_true"),
        Argument("--dry-run", help="show what would be done, and do nothing", action="store_true", dest="dry"),
        JSON,
    ),
    Verb("doctor", "Try whether the chosen storage does what it must.", _doctor, JSON),
    Verb(
        "demo",
        "Watch worker processes share one breaker while their server fails and recovers.",
        _demo,
        Argument("--plain", help="print plain text", action="store_true"),
        Argument(
            "--seconds", help="how long it lasts, about (default: 12s)", convert=span, metavar="TIME", default=12.0
        ),
    ),
)


def joined(words: list[str]) -> list[str]:
    """Join the words of a verb that has two: ``plugin new``."""
    two = " ".join(words[:2])
    return [two, *words[2:]] if any(verb.name == two for verb in CORE if " " in verb.name) else words


def find(name: str, shell: Shell) -> Verb | None:
    """Find a verb; `None` if nobody brings it.  Those of the core are found whatever is installed.

    :raises ConfigurationError: it may be one of a plugin, and the configuration that says which to load is wrong.
    """
    for verb in CORE:
        if verb.name == name:
            return verb
    for verb in of_plugins(shell.runtime.selection)[0]:
        if verb.name == name:
            return verb
    return None


def brought_by(selection: Selection) -> dict[str, tuple[str, str]]:
    """Return where a plan finds each verb: the policy, as its entry point names it, and what that calls the verb."""
    return {verb.name: where for verb, where in _all(selection)[0]}


def of_plugins(selection: Selection) -> tuple[list[Verb], list[PluginError]]:
    """Load the verbs of all policies and observers that may be loaded, and say which policies do not load.

    Where two have the same verb, the second one's is called ``kind.verb``.
    """
    found, broken = _all(selection)
    return [verb for verb, _ in found], broken


def _all(selection: Selection) -> tuple[list[tuple[Verb, tuple[str, str]]], list[PluginError]]:
    from resilience import plugins
    from resilience.errors import PluginError

    taken = {verb.name for verb in CORE}
    verbs: list[tuple[Verb, tuple[str, str]]] = []
    broken: list[PluginError] = []
    groups = (plugins.POLICY, plugins.OBSERVER)
    found = [item for group in groups for item in sorted(plugins.selected(group, selection).items(), key=_ours_first)]
    for kind, entry_point in found:
        try:
            brought = _brought(entry_point)
        except PluginError as error:
            if entry_point.group == plugins.POLICY:  # whoever opens the storage is warned of an observer
                broken.append(error)
            continue
        for verb in brought:
            unique = verb if verb.name not in taken else verb.named(f"{kind}.{verb.name}")
            taken.add(unique.name)
            verbs.append((unique, (entry_point.value, verb.name)))
    return verbs, broken


def _brought(entry_point: EntryPoint) -> list[Verb]:
    from resilience import plugins
    from resilience.errors import PluginError

    plugin = plugins.load(entry_point)
    if entry_point.group == plugins.OBSERVER and not hasattr(plugin, "verbs"):
        return []
    try:
        return list(plugin.verbs())
    except Exception as error:
        raise PluginError(
            f"{plugins.origin(entry_point)} brings no verbs: {type(error).__name__}: {error}; repair or uninstall it"
        ) from error


def _ours_first(item: tuple[str, EntryPoint]) -> tuple[bool, str]:
    kind, entry_point = item
    distribution = entry_point.dist
    return distribution is None or distribution.name != DISTRIBUTION, kind
