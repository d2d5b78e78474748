"""Observer that logs: logger ``resilience``, one constant message per event, what happened in `extra`.

Constant messages can be counted and filtered; the fields come as attributes of the log record, which formatters for
JSON write by themselves.  All of them begin with ``resilience_``, so none can clash with an attribute that the record
has already.

No handler is set up but a `logging.NullHandler`, as it is the custom of libraries: a program that configures no
logging prints nothing.
"""

from __future__ import annotations

from resilience import hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from logging import Logger

    from resilience import Event, Key, Transition

__all__ = ["LoggingObserver"]

LOGGER = "resilience"
"""Name of the logger."""

# The numbers of the levels, so that `logging` is imported when there is something to log and not before.
_DEBUG, _INFO, _WARNING, _ERROR = 10, 20, 30, 40

_TRANSITION = _WARNING, "state changed"

_EVENTS = {
    "degraded": (_WARNING, "storage does not answer"),
    "recovered": (_INFO, "storage answers again"),
    "clock_skew": (_WARNING, "clock of this machine is off"),
    "configuration_rejected": (_ERROR, "configuration refused"),
    "configuration_reloaded": (_INFO, "configuration reloaded"),
    "dropped": (_ERROR, "outcome given up"),
    "late": (_DEBUG, "late report"),
    "reset": (_INFO, "reset by hand"),
    "settings_conflict": (_WARNING, "settings in conflict"),
    "state_reset": (_ERROR, "damaged record set aside"),
    "version_regression": (_WARNING, "older record than before"),
    "would_have_opened": (_WARNING, "would have opened"),
}
"""Level and message by the name of the event."""

_OTHER = _INFO, "event"
"""For names that this version does not know; `resilience_event` tells which."""

_OWN = frozenset({"event", "kind", "name", "time"})
"""Fields of every event; a value of the same name in its data is logged as ``resilience_data_<name>``."""


class LoggingObserver:
    """Logs every transition and every event to the logger ``resilience``.

    Levels: a transition is a WARNING, whichever way it goes, as nobody but its policy knows which states are good
    ones.  Of the events, ``state_reset``, ``dropped`` and ``configuration_rejected`` are ERRORs, ``clock_skew``,
    ``degraded``, ``settings_conflict``, ``version_regression`` and ``would_have_opened`` WARNINGs, ``late`` is
    DEBUG, all others are INFO.
    """

    _logger: Logger | None = None

    @hookimpl
    def resilience_transition(self, transition: Transition) -> None:
        """Log a change of state."""
        key, version = transition.key, transition.version
        fields: dict[str, object] = {
            "resilience_kind": key.kind,
            "resilience_name": key.name,
            "resilience_old": transition.old,
            "resilience_new": transition.new,
            "resilience_reason": _clean(transition.reason),
            "resilience_time": transition.time,
            "resilience_version": None if version is None else str(version),
            "resilience_epoch": transition.epoch,
        }
        self._log(*_TRANSITION, fields)

    @hookimpl
    def resilience_event(self, event: Event) -> None:
        """Log anything else."""
        level, message = _EVENTS.get(event.name, _OTHER)
        self._log(level, message, dict(_fields(event)))

    def _log(self, level: int, message: str, fields: dict[str, object]) -> None:
        logger = self._logger
        if logger is None:
            import logging

            logger = self._logger = logging.getLogger(LOGGER)
            if not logger.handlers:
                logger.addHandler(logging.NullHandler())
        logger.log(level, message, extra=fields)


def _fields(event: Event) -> Iterator[tuple[str, object]]:
    key: Key | None = event.key
    yield "resilience_event", event.name
    yield "resilience_kind", None if key is None else key.kind
    yield "resilience_name", None if key is None else key.name
    yield "resilience_time", event.time
    for name, value in event.data.items():
        yield f"resilience_{'data_' if name in _OWN else ''}{name}", _clean(value)


def _clean(value: object) -> object:
    """Take the secrets out of a text that holds a URL: a storage may have quoted its own in an error."""
    if isinstance(value, str) and "://" in value:
        from resilience.settings import redact  # with pydantic, which has been imported to read the URL's settings

        return redact(value)
    return value
