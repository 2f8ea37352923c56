"""The application log of a process, from its settings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mtaq.config import Settings
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.libraries import adopt_libraries
from mtaq.telemetry.sinks import open_sink


def open_log(settings: Settings, *, clock: Callable[[], datetime]) -> EventLog:
    """
    Open the log that *settings* describe; what libraries say goes there as well.

    Raises:
        OSError: A file cannot be opened.
    """
    sink = open_sink(settings.log.application_log, log_format=settings.log.log_format)
    events = EventLog(sink, node=settings.process.server_id, clock=clock, level=settings.log.log_level)
    adopt_libraries(events)
    return events
