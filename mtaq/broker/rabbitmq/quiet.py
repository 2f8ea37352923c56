"""What the client libraries have to say about a broken connection, once and in one line.

They log every attempt to connect, each twice, every second, for every connection; and every loss with a traceback.
That the broker is away is told by ``broker.lost``; why, by the first line of each kind here. Whatever is not known
here passes unchanged.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiormq.exceptions import ConnectionClosed

#: The same words again within this time are not repeated.
REPEAT_S = 600.0
_MOST_REMEMBERED = 100

_LOGGERS = ("aiormq.connection", "aio_pika.robust_connection")
#: Beginnings of messages, as the libraries write them.
_TOLD_OTHERWISE = ("error when creating transport: ",)  # the attempt that failed says so itself
_LOST = "Cancelling cause reader exited abnormally"
_KNOWN = ("Unexpected connection close from remote ", "Connection attempt to ", "connection lost: ")


class OutageFilter(logging.Filter):
    """Thins out the log of the libraries."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._told_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Shall *record* be logged? One with a traceback may be put into shorter words."""
        words = str(record.msg)
        if words.startswith(_TOLD_OTHERWISE):
            return False
        if words.startswith(_LOST) and record.exc_info is not None:
            if isinstance(record.exc_info[1], ConnectionClosed):  # the broker said why, in the line before
                return False
            record.msg, record.args, record.exc_info = "connection lost: %s", (record.exc_info[1],), None
            words = record.msg
        return not words.startswith(_KNOWN) or self._is_news(record.getMessage())

    def _is_news(self, text: str) -> bool:
        now = self._monotonic()
        if now - self._told_at.get(text, -REPEAT_S) < REPEAT_S:
            return False
        if len(self._told_at) >= _MOST_REMEMBERED:
            self._told_at.clear()
        self._told_at[text] = now
        return True


_FILTER = OutageFilter()


def quieten() -> None:
    """Thin out what the libraries log in this process; again is harmless."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
