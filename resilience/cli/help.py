"""What `resilience --help` prints, and what a verb that there is not may have meant."""

from __future__ import annotations

from difflib import get_close_matches

from resilience.cli import catalogue
from resilience.cli.grammar import statuses_help
from resilience.cli.parser import UsageError, shown
from resilience.errors import PluginError

_LONGEST = 100


def overview() -> str:
    """Return the help of the whole command line."""
    brought, broken = catalogue.of_policies()
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


def unknown(name: str) -> Exception:
    """Make the error that a verb gets that there is not: a plugin's, if one that does not load may have it."""
    brought, broken = catalogue.of_policies()
    names = [verb.name for verb in (*brought, *catalogue.CORE)]
    if two := [other for other in names if other.startswith(f"{name} ")]:
        return UsageError(f"{shown(name)} has a second word: there are {', '.join(two)}", two[0])
    near = get_close_matches(name[:_LONGEST], names, 1)
    message = f"there is no verb {shown(name)}; "
    message += f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
    if broken:
        return PluginError("\n".join([message, *map(str, broken)]))
    return UsageError(message)
