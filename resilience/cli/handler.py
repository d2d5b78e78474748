"""The handler of log records that makes notes of them; imported when `logging` is."""

from __future__ import annotations

import logging


class ErrorsOnly(logging.Handler):
    """Notes the exceptions that are logged, one line each."""

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
