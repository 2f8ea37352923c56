"""Reports among the mail to local addresses: found, counted, told of, and never a reason to refuse anything.

Looking costs microseconds for ordinary mail; what may be a report is read in a thread, a few at a time, because
unpacking holds memory. ``mtaq.reports`` decides what is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mtaq.model.message import InboxRecipient
from mtaq.receive.draft import Draft, SessionFacts
from mtaq.reports import Report, may_be_report, recognise
from mtaq.reports.report import REPORT_BYTES
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

#: Reports read at the same time, in one process.
AT_ONCE = 2

#: What the JSON needs beside content and report: as ``receive.policy`` reckons.
BESIDE_BYTES = 16 * 1024
#: A report of fewer bytes says nothing.
LEAST_BYTES = 64

RECOGNISED = counter("mtaq_reports_recognised", "Reports among the mail to local addresses.", ("type",))


class Reports:
    """Reads the reports that come to one process."""

    def __init__(self, *, events: EventLog, broker_max_bytes: int | None) -> None:
        """Tell *events* of each; with the content, what is read is to fit into *broker_max_bytes*."""
        self._events = events
        self._broker_max_bytes = broker_max_bytes
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def read(
        self, draft: Draft, recipients: Sequence[InboxRecipient], facts: SessionFacts
    ) -> dict[str, Any] | None:
        """Return the ``report`` property for mail to local *recipients*; ``None`` when it is none, or has no room."""
        if not recipients or not may_be_report(draft.content, draft.envelope):
            return None
        sole = recipients[0].address if len(recipients) == 1 else None
        try:
            async with self._turns:
                report = await asyncio.to_thread(recognise, draft.content, envelope=draft.envelope, recipient=sole)
        except Exception as error:  # an error of ours must not keep a report out: it is ordinary mail then
            self._events.bug(error, message_id=draft.transaction_id)
            return None
        room = self._room(len(draft.content))
        if report is None or room < LEAST_BYTES:
            return None
        self._tell(report, draft, recipients, facts)
        return report.to_json(room)

    def _room(self, content_bytes: int) -> int:
        """Return how large the property may be: content is reckoned in base64, as where SIZE is announced."""
        if self._broker_max_bytes is None:
            return REPORT_BYTES
        return min(REPORT_BYTES, self._broker_max_bytes - BESIDE_BYTES - (content_bytes + 2) // 3 * 4)

    def _tell(self, report: Report, draft: Draft, recipients: Sequence[InboxRecipient], facts: SessionFacts) -> None:
        RECOGNISED.labels(report.type).inc()
        self._events.report_recognised(
            session_id=facts.session_id,
            message_id=draft.transaction_id,
            peer_ip=facts.connection.remote_ip,
            reverse_path=draft.envelope,
            forward_path=str(recipients[0].address),
            report=report.type,
        )
