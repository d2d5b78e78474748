"""What the framework tells on the side, as one line each instead of a log record or a traceback."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from resilience.markers import hookimpl

if TYPE_CHECKING:
    from types import TracebackType

    from resilience.events import Event

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


class OneLine(logging.Handler):
    """Notes an exception that the framework logs, of an observer for example, in one line; entered, it listens.

    All other records are for those who have set up logging; a command line has not.
    """

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Note it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            who = getattr(record, "observer", None)
            what = record.getMessage() if who is None else f"{record.getMessage()} ({who})"
            self._notes.append(f"{what}: {type(error).__name__}: {error}")

    def __enter__(self) -> None:
        """Listen."""
        logging.getLogger("resilience").addHandler(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Listen no more."""
        logging.getLogger("resilience").removeHandler(self)
