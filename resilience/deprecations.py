"""What plugins should do no longer: since when, until when, and what instead.  All of it stands here.

How a hook or an argument of one goes, by example, and never sooner than two minor versions after it was said:

    LOAD_TIMEOUT = Deprecation("the argument timeout of resilience_load", since="1.4", removed="1.6", instead="take …")

in this module, and where the hook is specified::

    @hookspec(firstresult=True, warn_on_impl_args={"timeout": LOAD_TIMEOUT.warning()})

A plugin that still takes it goes on working, and its author is warned when it is loaded, at the line of its function;
`warn_on_impl` does the same for a whole hook.  With version 1.6 the argument leaves the specification and this module:
then a plugin that takes it is refused like any other that names what is not there.  A test fails if that is forgotten.

Nothing is deprecated in this version.
"""

from __future__ import annotations


class PluginDeprecationWarning(DeprecationWarning):
    """A plugin implements a hook, or takes an argument, that a coming version has no longer."""


class Deprecation:
    """Something that plugins should do no longer.

    :param what: what it is.
    :param since: the version that says so first; `removed`: the one that has it no longer.
    :param instead: what to do.
    """

    def __init__(self, what: str, *, since: str, removed: str, instead: str) -> None:
        self.what = what
        self.since = since
        self.removed = removed
        self.instead = instead

    def warning(self) -> PluginDeprecationWarning:
        """Make the warning that pluggy gives when a plugin is registered."""
        return PluginDeprecationWarning(
            f"{self.what} is deprecated since {self.since} and gone with {self.removed}: {self.instead}"
        )
