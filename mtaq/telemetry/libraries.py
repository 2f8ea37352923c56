"""What libraries say through ``logging`` becomes ``library`` events, so that every line of the log has one form.

Warnings and worse only. Passwords in URLs are masked, whichever library prints them.
"""

from __future__ import annotations

import logging
import re

from mtaq.telemetry.events import EventLog, told_by
from mtaq.telemetry.vocabulary import Fields

_CREDENTIALS = re.compile(r"(://[^:/@\s]*):[^@/\s]*@")


class LibraryHandler(logging.Handler):
    """Hands records of ``logging`` to the event log."""

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Turn one record into one event."""
        try:
            fields: Fields = {"logger": record.name, "reason": _masked(record.getMessage())}
            if record.exc_info and record.exc_info[1] is not None:
                told = told_by(record.exc_info[1])
                fields["error"] = _masked(told["error"] or "")
                fields["traceback"] = _masked(told["traceback"] or "")
        except Exception:  # a format string and its arguments do not fit: say at least who it was
            fields = {"logger": record.name, "reason": _masked(str(record.msg))}
        self._events.library(**fields)


def _masked(text: str) -> str:
    return _CREDENTIALS.sub(r"\1:***@", text)


def adopt_libraries(events: EventLog) -> None:
    """Send everything that libraries log to *events*, and nothing to standard error any more."""
    logging.basicConfig(handlers=[LibraryHandler(events)], level=logging.WARNING, force=True)
