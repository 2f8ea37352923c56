"""Tells the log and the numbers what became of a message: one line and one count for each attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mtaq.deliver.category import concern
from mtaq.deliver.ending import Ending
from mtaq.deliver.parking import REASONS, NotYet
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Outcome
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter
from mtaq.telemetry.vocabulary import Fields

ATTEMPTS = counter("mtaq_deliveries", "Attempts to deliver a message.", ("outcome",))
_DELIVERED = ATTEMPTS.labels("delivered")
_DEFERRED = ATTEMPTS.labels("deferred")
_FAILED = ATTEMPTS.labels("failed")


REDELIVERED = counter(
    "mtaq_delivery_redelivered", "Messages that the broker handed out again, by what is known of the first time.",
    ("outcome",),
)  # fmt: skip
_REDELIVERED = {outcome: REDELIVERED.labels(outcome) for outcome in ("known", "not-sent", "unknown")}

NOTICES = counter("mtaq_notices", "Notices to senders (RFC 3464).", ("kind",))
_NOTICES = {kind: NOTICES.labels(kind) for kind in ("failure", "delay", "success")}

PARKED = counter("mtaq_delivery_parked", "Messages sent back to wait, which is no attempt.", ("reason",))
_PARKED = {reason: PARKED.labels(reason) for reason in REASONS}

#: That messages of a site wait for their turn is told so often, and so many sites are remembered for it.
TELL_S = 60.0
MOST_TOLD = 1000


class Reporter:
    """Reports outcomes, and what has to wait."""

    def __init__(self, events: EventLog, *, now: Callable[[], float]) -> None:
        """*now* is a clock in seconds that nobody sets back."""
        self._events = events
        self._now = now
        self._told: dict[tuple[str, str | None], float] = {}

    def parked(self, message: OutboxMessage, why: NotYet, until: datetime) -> None:
        """Log and count that *message* waits *until* then."""
        _PARKED[why.reason].inc()
        self._events.delivery_parked(
            message_id=message.message_id,
            forward_path=message.recipient,
            site=why.site or None,
            egress_source=why.source,
            reason=why.reason,
            next_attempt_at=until,
        )
        if why.reason == "throttle" and self._is_news(why):
            self._events.delivery_throttled(site=why.site, egress_source=why.source, next_attempt_at=until)

    def _is_news(self, why: NotYet) -> bool:
        now, about = self._now(), (why.site, why.source)
        if now < self._told.get(about, 0.0):
            return False
        if len(self._told) >= MOST_TOLD:
            self._told.clear()
        self._told[about] = now + TELL_S
        return True

    def redelivered(self, message: OutboxMessage, *, known: bool, sending: bool) -> None:
        """Count that the broker handed out *message* again, and log it if that may cause a second mail."""
        _REDELIVERED["known" if known else "unknown" if sending else "not-sent"].inc()
        if sending:
            self._events.delivery_uncertain(
                message_id=message.message_id,
                attempt=message.attempts + 1,
                reverse_path=message.envelope,
                forward_path=message.recipient,
            )

    def returned(self, message: OutboxMessage, outcome: Outcome, notice: Mapping[str, Any]) -> None:
        """Log and count that a notice about *message* was made."""
        _NOTICES[notice["kind"]].inc()
        self._events.message_returned(
            message_id=message.message_id,
            attempt=outcome.result.attempt,
            reverse_path=message.envelope,
            forward_path=message.recipient,
            notice=notice["kind"],
            queue=notice["queue"],
        )

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
        "concerns": concern(ending),
        "size_bytes": len(message.content),
        "duration_ms": result.duration_ms,
    }
    if peer is not None:
        fields["mx_host"] = peer.host
        fields["remote_ip"] = peer.destination
        fields["egress_source"] = peer.source
        fields["tls_version"] = peer.cipher["version"] if peer.cipher is not None else None
    return fields
