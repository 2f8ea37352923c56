"""Tells the log and the numbers what became of a message: one line and one count for each attempt."""

from __future__ import annotations

from mtaq.deliver.ending import Ending
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Outcome
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter
from mtaq.telemetry.vocabulary import Fields

ATTEMPTS = counter("mtaq_deliveries", "Attempts to deliver a message.", ("outcome",))
_DELIVERED = ATTEMPTS.labels("delivered")
_DEFERRED = ATTEMPTS.labels("deferred")
_FAILED = ATTEMPTS.labels("failed")


class Reporter:
    """Reports outcomes."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    def report(self, message: OutboxMessage, ending: Ending, outcome: Outcome, site: str) -> None:
        """Log and count *outcome* of an attempt at *site* (empty when it did not come so far)."""
        fields = _fields(message, ending, outcome, site)
        if isinstance(outcome, Delivered):
            _DELIVERED.inc()
            fields["outcome"] = "delivered"
            self._events.delivery_delivered(**fields)
        elif isinstance(outcome, Deferred):
            _DEFERRED.inc()
            fields["outcome"] = "deferred"
            fields["next_attempt_at"] = outcome.next_attempt_at
            self._events.delivery_deferred(**fields)
        else:
            _FAILED.inc()
            fields["outcome"] = "failed"
            self._events.delivery_failed(**fields)


def _fields(message: OutboxMessage, ending: Ending, outcome: Outcome, site: str) -> Fields:
    result, peer = outcome.result, ending.peer
    fields: Fields = {
        "message_id": message.message_id,
        "attempt": result.attempt,
        "reverse_path": message.envelope,
        "forward_path": message.recipient,
        "site": site or None,
        "reply_code": result.code,
        "enhanced_code": result.status,
        "reply_text": result.description,
        "state": result.state,
        "result": result.result,
        "size_bytes": len(message.content),
        "duration_ms": result.duration_ms,
    }
    if peer is not None:
        fields["mx_host"] = peer.host
        fields["remote_ip"] = peer.destination
        fields["egress_source"] = peer.source
        fields["tls_version"] = peer.cipher["version"] if peer.cipher is not None else None
    return fields
