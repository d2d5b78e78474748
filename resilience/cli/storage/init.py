"""`resilience storage init`: make what a storage needs before its first use, such as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience.cli.statuses import OK
from resilience.errors import PluginError, ResilienceError
from resilience.redaction import redact
from resilience.runtime import Runtime

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from resilience.cli.shell import Shell


def run(shell: Shell, arguments: Namespace) -> int:
    """Let the storage prepare its place, by its own optional method, and show what that was.

    :raises ConfigurationError: the URL or a variable is wrong.
    :raises PluginError: the plugin does not load, or `prepare` raised anything but our errors.
    :raises StorageUnavailable: the store does not answer, or does not permit it.
    """
    if arguments.url is None:
        return _prepare(shell, shell.runtime, dry=arguments.dry)
    chosen = Runtime(storage=arguments.url, environ=shell.runtime.environ)
    try:
        return _prepare(shell, chosen, dry=arguments.dry)
    finally:
        chosen.close()


def _prepare(shell: Shell, runtime: Runtime, *, dry: bool) -> int:
    opened = runtime.opened
    prepare: Callable[..., str] | None = getattr(opened.storage, "prepare", None)
    if prepare is None:
        shell.say(f"storage {opened.ports.name} needs nothing to be made before its first use")
        return OK
    try:
        text = prepare(dry=dry)
    except ResilienceError:
        raise
    except Exception as error:
        raise PluginError(
            f"storage {opened.ports.name}: its prepare raised {type(error).__name__}: {error}; repair the plugin"
        ) from error
    if dry:
        shell.write(f"{text.rstrip()}\n")
    else:
        shell.write(f"{redact(opened.url)}: {text.rstrip()}\n")
    return OK
