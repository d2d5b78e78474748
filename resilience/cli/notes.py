"""What the framework tells on the side, as one line each instead of a log record or a traceback."""

from __future__ import annotations

from resilience.cli.hearing import Hearing
from resilience.markers import hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

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
    """

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._handler: logging.Handler | None = None
        self._hearing = Hearing("logging", self._listen)

    def __enter__(self) -> None:
        """Listen."""
        self._hearing.__enter__()

    def __exit__(self, *error: object) -> None:
        """Listen no more."""
        self._hearing.__exit__()
        if self._handler is not None:
            import logging

            logging.getLogger(_LOGGER).removeHandler(self._handler)

    def _listen(self) -> None:
        import logging

        from resilience.cli.handler import ErrorsOnly

        self._handler = ErrorsOnly(self._notes)
        logging.getLogger(_LOGGER).addHandler(self._handler)
