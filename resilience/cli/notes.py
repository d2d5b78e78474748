"""What the framework tells on the side, as one line each instead of a log record or a traceback."""

from __future__ import annotations

import sys

from resilience.markers import hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType, TracebackType
    from typing import Any

    from resilience.events import Event

_LOGGER = "resilience"

_MEANWHILE = {"local": "going on with a private copy of the state", "allow": "letting calls through"}
"""What the policy does meanwhile, by `on_store_error`; in the other modes an error or a rejection tells."""


class Notes:
    """Observer that notes what a person at the shell should know."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        """Note an outage that is lived with, and a record that was lost."""
        data = event.data
        meanwhile = _MEANWHILE.get(str(data.get("mode")))
        if event.name == "degraded" and meanwhile:
            self._notes.append(f"the storage does not answer ({data.get('error')}); {meanwhile}")
        elif event.name == "state_reset":
            self._notes.append(f"{event.key}: its damaged record was set aside, it begins anew ({data.get('error')})")


class OneLine:
    """Notes an exception that the framework logs, of an observer for example, in one line; entered, it listens.

    All other records are for those who have set up logging; a command line has not.

    `logging` takes as long to import as the interpreter to start, and most runs log nothing.  So it is not imported
    here: who imports it later meets this object, which lets the import go its way and listens from then on.
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._handler: logging.Handler | None = None

    def __enter__(self) -> None:
        """Listen."""
        if "logging" in sys.modules:
            self._listen()
        else:
            sys.meta_path.insert(0, self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Listen no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if self._handler is not None:
            import logging

            logging.getLogger(_LOGGER).removeHandler(self._handler)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find `logging` as everybody would, and hear when it is there."""
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:  # pragma: no branch - every interpreter has it
            spec.loader = _Loader(spec.loader, self._listen)  # type: ignore[assignment]
        return spec

    def _listen(self) -> None:
        import logging

        from resilience.cli.handler import ErrorsOnly

        self._handler = ErrorsOnly(self._notes)
        logging.getLogger(_LOGGER).addHandler(self._handler)


class _Loader:
    """Loads a module as another loader does, and says when it is loaded."""

    def __init__(self, loader: Any, then: Callable[[], None]) -> None:
        self._loader = loader
        self._then = then
        self.create_module = loader.create_module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then say so."""
        self._loader.exec_module(module)
        self._then()
