"""Hook wrappers watch: whatever they do, the caller gets what the storage gave, and each observer is told.

A wrapper that raises, that swallows an error or that answers with something else is reported to the logger
``resilience`` once a minute, as an observer that raises is, and changes nothing.
"""

from __future__ import annotations

import threading

from resilience.clock import monotonic
from resilience.markers import hookimpl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    Outcome = tuple[object, BaseException | None]

COMPLAIN_EVERY = 60.0
"""Seconds between two reports of one hook."""


class WatchedHook:
    """A hook with wrappers around it, called by position.

    :param own: the function of the storage or the observer itself, called by position.
    :param arguments: the names of the arguments.
    :param watchers: names of the plugins that wrap it.
    :param watched: whose hook it is, for messages.
    """

    def __init__(self, own: Callable[..., object], arguments: Sequence[str], watchers: str, watched: str) -> None:
        self._own = own
        self._arguments = arguments
        self._watchers = watchers
        self._watched = watched
        self._here = threading.local()
        self._complained_at = float("-inf")
        self.wrapped: Callable[..., object] = own
        """Calls the wrappers and what they are around, by keyword."""

    def innermost(self) -> Callable[..., Generator[None, object, object]]:
        """Make the wrapper that all others stand around, and that remembers what came from inside."""

        @hookimpl(wrapper=True, trylast=True)
        def remember() -> Generator[None, object, object]:
            try:
                result = yield
            except BaseException as error:
                self._here.outcome = None, error
                raise
            self._here.outcome = result, None
            return result

        return remember

    def __call__(self, *arguments: object) -> object:
        """Ask whose hook it is, let the wrappers watch, and give what was given."""
        here = self._here
        before: Outcome | None = getattr(here, "outcome", None)  # a wrapper may use a guard itself
        here.outcome = None
        given: object = None
        failure: Exception | None = None
        try:
            given = self.wrapped(**dict(zip(self._arguments, arguments, strict=True)))
        except Exception as raised:  # noqa: BLE001 - whose it is, is seen below
            failure = raised
        finally:
            outcome: Outcome | None = here.outcome
            here.outcome = before
        if outcome is None:
            self._complain(f"raised before {self._watched} was asked", failure)
            return self._own(*arguments)
        result, error = outcome
        if failure is not error:
            self._complain("raised" if error is None else f"changed the error of {self._watched}", failure)
        elif given is not result:
            self._complain(f"changed what {self._watched} gave", None)
        if error is not None:
            raise error
        return result

    def _complain(self, what: str, failure: Exception | None) -> None:
        now = monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY:
            self._complained_at = now
            import logging

            logging.getLogger("resilience").error(
                "hook wrapper %s; wrappers only watch", what, exc_info=failure, extra={"observer": self._watchers}
            )
