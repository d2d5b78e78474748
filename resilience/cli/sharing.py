"""Whether what a command does outlives it: a storage may be for the threads of one process."""

from __future__ import annotations

from resilience.storage import Capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resilience.runtime import Runtime


def is_shared(runtime: Runtime) -> bool:
    """Whether other processes see the records."""
    return not {Capability.PROCESSES, Capability.MACHINES}.isdisjoint(runtime.opened.ports.capabilities)


def unshared(runtime: Runtime) -> str:
    """Say that they do not, and what to do."""
    from resilience.redaction import redact

    return (
        f"{redact(runtime.opened.url)} keeps records in the memory of this process, with which they end; name a "
        "storage that processes share, such as file:///absolute/folder"
    )
