"""The only place where log lines are made: one method per event.

A method takes what ``Fields`` allows, as keywords. Lines below the level set are dropped before anything is formatted.
Nothing here ever raises into the caller: mail does not stop because a log cannot be written. Credentials and content
are never passed here.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, Unpack

from mtaq.telemetry import vocabulary as words
from mtaq.telemetry.vocabulary import LEVEL_NAMES, LEVELS, Event, Fields

Record = dict[str, Any]
"""One line before it is formatted."""

_LONGEST = 8000


class Sink(Protocol):
    """Where lines go."""

    def write(self, level: int, record: Record) -> None:
        """Format and write one line; never raises."""


class EventLog:
    """The application log of one process."""

    def __init__(self, sink: Sink, *, node: str, clock: Callable[[], datetime], level: str = "info") -> None:
        """Write to *sink* as *node* (the ``server-id``), with times from *clock* (timezone-aware)."""
        self._sink = sink
        self._node = node
        self._clock = clock
        self._lowest = LEVELS[level]

    def set_level(self, level: str) -> None:
        """Log from this level on: ``debug``, ``info``, ``warning`` or ``error``."""
        self._lowest = LEVELS[level]

    def _emit(self, event: Event, fields: Fields) -> None:
        if event.level < self._lowest:
            return
        record: Record = {
            "at": self._clock(),
            "event": event.name,
            "level": LEVEL_NAMES[event.level],
            "node": self._node,
        }
        for name, value in fields.items():
            if value is not None:
                record[name] = value
        self._sink.write(event.level, record)

    def session_opened(self, **fields: Unpack[Fields]) -> None:
        """A client connected and was greeted."""
        self._emit(words.SESSION_OPENED, fields)

    def session_refused(self, **fields: Unpack[Fields]) -> None:
        """A client was turned away before its session began."""
        self._emit(words.SESSION_REFUSED, fields)

    def session_closed(self, **fields: Unpack[Fields]) -> None:
        """A session ended; the line sums it up."""
        self._emit(words.SESSION_CLOSED, fields)

    def proxy_refused(self, **fields: Unpack[Fields]) -> None:
        """A proxy was closed for its PROXY header."""
        self._emit(words.PROXY_REFUSED, fields)

    def message_accepted(self, **fields: Unpack[Fields]) -> None:
        """A message was answered 250."""
        self._emit(words.MESSAGE_ACCEPTED, fields)

    def message_refused(self, **fields: Unpack[Fields]) -> None:
        """A mail transaction was refused."""
        self._emit(words.MESSAGE_REFUSED, fields)

    def report_recognised(self, **fields: Unpack[Fields]) -> None:
        """A message to a local address is a report."""
        self._emit(words.REPORT_RECOGNISED, fields)

    def check_undecided(self, **fields: Unpack[Fields]) -> None:
        """A check of a message came to no result."""
        self._emit(words.CHECK_UNDECIDED, fields)

    def spam_filter_lost(self, **fields: Unpack[Fields]) -> None:
        """The spam filter gave no usable answer."""
        self._emit(words.SPAM_FILTER_LOST, fields)

    def login_accepted(self, **fields: Unpack[Fields]) -> None:
        """A client logged in."""
        self._emit(words.LOGIN_ACCEPTED, fields)

    def login_refused(self, **fields: Unpack[Fields]) -> None:
        """A client gave a wrong user or password."""
        self._emit(words.LOGIN_REFUSED, fields)

    def login_unavailable(self, **fields: Unpack[Fields]) -> None:
        """A login could not be judged."""
        self._emit(words.LOGIN_UNAVAILABLE, fields)

    def login_back_end_lost(self, **fields: Unpack[Fields]) -> None:
        """A back end of logins did not answer."""
        self._emit(words.LOGIN_BACK_END_LOST, fields)

    def hook_failed(self, **fields: Unpack[Fields]) -> None:
        """The operator's own code gave no usable answer."""
        self._emit(words.HOOK_FAILED, fields)

    def message_changed(self, **fields: Unpack[Fields]) -> None:
        """A hook or a step changed a message."""
        self._emit(words.MESSAGE_CHANGED, fields)

    def message_dropped(self, **fields: Unpack[Fields]) -> None:
        """A hook or a step dropped a message."""
        self._emit(words.MESSAGE_DROPPED, fields)

    def delivery_delivered(self, **fields: Unpack[Fields]) -> None:
        """A peer took responsibility for a message."""
        self._emit(words.DELIVERY_DELIVERED, fields)

    def delivery_deferred(self, **fields: Unpack[Fields]) -> None:
        """An attempt failed for now; another follows."""
        self._emit(words.DELIVERY_DEFERRED, fields)

    def delivery_failed(self, **fields: Unpack[Fields]) -> None:
        """A message was given up for good."""
        self._emit(words.DELIVERY_FAILED, fields)

    def message_returned(self, **fields: Unpack[Fields]) -> None:
        """A notice about a message was made for its sender."""
        self._emit(words.MESSAGE_RETURNED, fields)

    def delivery_duplicate(self, **fields: Unpack[Fields]) -> None:
        """A redelivered message was recognised as already done."""
        self._emit(words.DELIVERY_DUPLICATE, fields)

    def delivery_uncertain(self, **fields: Unpack[Fields]) -> None:
        """A message is sent again, and may have arrived before."""
        self._emit(words.DELIVERY_UNCERTAIN, fields)

    def delivery_fallback(self, **fields: Unpack[Fields]) -> None:
        """A mapped local address cannot be bound; the default addresses are used."""
        self._emit(words.DELIVERY_FALLBACK, fields)

    def delivery_held(self, **fields: Unpack[Fields]) -> None:
        """The broker keeps refusing what follows from an attempt."""
        self._emit(words.DELIVERY_HELD, fields)

    def delivery_host_offline(self, **fields: Unpack[Fields]) -> None:
        """An address of a mail host is not tried for some minutes."""
        self._emit(words.DELIVERY_HOST_OFFLINE, fields)

    def delivery_parked(self, **fields: Unpack[Fields]) -> None:
        """A message waits in the delay queues."""
        self._emit(words.DELIVERY_PARKED, fields)

    def delivery_throttled(self, **fields: Unpack[Fields]) -> None:
        """Messages to a site wait for their turn."""
        self._emit(words.DELIVERY_THROTTLED, fields)

    def delivery_unchanged(self, **fields: Unpack[Fields]) -> None:
        """A response pattern's change was left out."""
        self._emit(words.DELIVERY_UNCHANGED, fields)

    def delivery_unsigned(self, **fields: Unpack[Fields]) -> None:
        """A message goes without a signature or a seal that it might have had."""
        self._emit(words.DELIVERY_UNSIGNED, fields)

    def delivery_flood(self, **fields: Unpack[Fields]) -> None:
        """A reply matched a flood pattern."""
        self._emit(words.DELIVERY_FLOOD, fields)

    def mta_sts_unavailable(self, **fields: Unpack[Fields]) -> None:
        """A policy of MTA-STS cannot be had."""
        self._emit(words.MTA_STS_UNAVAILABLE, fields)

    def tls_reported(self, **fields: Unpack[Fields]) -> None:
        """A report on TLS was published."""
        self._emit(words.TLS_REPORTED, fields)

    def tls_report_held(self, **fields: Unpack[Fields]) -> None:
        """Reports on TLS have to wait."""
        self._emit(words.TLS_REPORT_HELD, fields)

    def delivery_swept(self, **fields: Unpack[Fields]) -> None:
        """Mail that need not wait any more was sent forward."""
        self._emit(words.DELIVERY_SWEPT, fields)

    def delivery_not_swept(self, **fields: Unpack[Fields]) -> None:
        """The delay queues could not be looked through."""
        self._emit(words.DELIVERY_NOT_SWEPT, fields)

    def delivery_waiting(self, **fields: Unpack[Fields]) -> None:
        """All connections that the instance may have are in use."""
        self._emit(words.DELIVERY_WAITING, fields)

    def journal_lost(self, **fields: Unpack[Fields]) -> None:
        """The delivery journal cannot be written."""
        self._emit(words.JOURNAL_LOST, fields)

    def journal_restored(self, **fields: Unpack[Fields]) -> None:
        """The delivery journal works again."""
        self._emit(words.JOURNAL_RESTORED, fields)

    def state_lost(self, **fields: Unpack[Fields]) -> None:
        """The database of the runtime state is away."""
        self._emit(words.STATE_LOST, fields)

    def state_restored(self, **fields: Unpack[Fields]) -> None:
        """The database of the runtime state works again."""
        self._emit(words.STATE_RESTORED, fields)

    def block_added(self, **fields: Unpack[Fields]) -> None:
        """A network was put on the blocked list by itself."""
        self._emit(words.BLOCK_ADDED, fields)

    def outbox_dead(self, **fields: Unpack[Fields]) -> None:
        """A message of the outbox was moved to the dead queue."""
        self._emit(words.OUTBOX_DEAD, fields)

    def broker_lost(self, **fields: Unpack[Fields]) -> None:
        """The broker is away or takes nothing."""
        self._emit(words.BROKER_LOST, fields)

    def broker_restored(self, **fields: Unpack[Fields]) -> None:
        """The broker works again."""
        self._emit(words.BROKER_RESTORED, fields)

    def service_started(self, **fields: Unpack[Fields]) -> None:
        """A process is ready to work."""
        self._emit(words.SERVICE_STARTED, fields)

    def service_stopping(self, **fields: Unpack[Fields]) -> None:
        """A process was told to stop."""
        self._emit(words.SERVICE_STOPPING, fields)

    def worker_started(self, **fields: Unpack[Fields]) -> None:
        """The supervisor started a worker process."""
        self._emit(words.WORKER_STARTED, fields)

    def worker_died(self, **fields: Unpack[Fields]) -> None:
        """A worker process ended although nobody told it to."""
        self._emit(words.WORKER_DIED, fields)

    def config_loaded(self, **fields: Unpack[Fields]) -> None:
        """A configuration took effect."""
        self._emit(words.CONFIG_LOADED, fields)

    def certificate_renewed(self, **fields: Unpack[Fields]) -> None:
        """A certificate changed on disk and is in use."""
        self._emit(words.CERTIFICATE_RENEWED, fields)

    def certificate_refused(self, **fields: Unpack[Fields]) -> None:
        """A certificate changed on disk and cannot be used."""
        self._emit(words.CERTIFICATE_REFUSED, fields)

    def spool_refused(self, **fields: Unpack[Fields]) -> None:
        """A file of the spool directory is not taken."""
        self._emit(words.SPOOL_REFUSED, fields)

    def spool_held(self, **fields: Unpack[Fields]) -> None:
        """The spool directory cannot be worked on."""
        self._emit(words.SPOOL_HELD, fields)

    def config_refused(self, **fields: Unpack[Fields]) -> None:
        """A new configuration has mistakes; nothing was changed."""
        self._emit(words.CONFIG_REFUSED, fields)

    def library(self, **fields: Unpack[Fields]) -> None:
        """A library that mtaq uses has something to say."""
        self._emit(words.LIBRARY, fields)

    def bug(self, exception: BaseException | None = None, **fields: Unpack[Fields]) -> None:
        """Something happened that should be impossible; *exception* adds its text and where it happened."""
        if exception is not None:
            fields = {**told_by(exception), **fields}
        self._emit(words.BUG, fields)


def told_by(exception: BaseException) -> Fields:
    """Return ``error`` and ``traceback`` of an exception, neither longer than 8000 characters."""
    lines = traceback.format_exception(exception)
    return {"error": lines[-1].strip()[:_LONGEST], "traceback": "".join(lines)[-_LONGEST:]}
