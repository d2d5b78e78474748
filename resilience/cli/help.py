"""What `resilience --help` prints, and what a verb that there is not may have meant."""

from __future__ import annotations

from difflib import get_close_matches

from resilience.cli import catalogue
from resilience.cli.grammar import statuses_help
from resilience.cli.parser import UsageError, shown
from resilience.errors import ConfigurationError, PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from resilience.cli.shell import Shell
    from resilience.cli.verbs import Verb
    from resilience.errors import ResilienceError

_LONGEST = 100


def overview(shell: Shell) -> str:
    """Return the help of the whole command line."""
    brought, broken = _of_plugins(shell)
    verbs = [*brought, *catalogue.CORE]
    width = max(len(name) for name in ("--version", *(verb.name for verb in verbs)))
    lines = [
        "usage: resilience VERB [NAME] [options]",
        "",
        "Guards that every process of this machine shares, for shells and for people.",
        "",
        "verbs:",
        *(f"  {verb.name:{width}}  {verb.help}" for verb in verbs),
        "",
        "options:",
        f"  {'--help':{width}}  Print this; after a verb, what it takes.",
        f"  {'--version':{width}}  Print the version.",
        "",
        statuses_help(),
        "",
        "RESILIENCE_STORAGE says where the state is kept; `resilience config` shows all settings.",
        *(f"\nNot shown: {error}" for error in broken),
    ]
    return "\n".join(lines) + "\n"


def _of_plugins(shell: Shell) -> tuple[list[Verb], Sequence[ResilienceError]]:
    """Load the verbs of plugins; none if it cannot be known which may be loaded."""
    try:
        return catalogue.of_plugins(shell.runtime.selection)
    except ConfigurationError as error:
        return [], [error]


def unknown(name: str, shell: Shell) -> Exception:
    """Make the error that a verb gets that there is not: a plugin's, if one that does not load may have it."""
    brought, broken = catalogue.of_plugins(shell.runtime.selection)
    names = [verb.name for verb in (*brought, *catalogue.CORE)]
    if two := [other for other in names if other.startswith(f"{name} ")]:
        return UsageError(f"{shown(name)} has a second word: there are {', '.join(two)}", two[0])
    near = get_close_matches(name[:_LONGEST], names, 1)
    message = f"there is no verb {shown(name)}; "
    message += f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    if broken:
        return PluginError("\n".join([message, *map(str, broken)]))
    return UsageError(message)
