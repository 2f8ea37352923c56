"""One accepted transaction becomes JSON in the queues, and a reply.

250 is said only here, and only after ``receive.publish`` returned. Whatever goes wrong is a transient refusal, except
what the client must change. The order of the steps is the contract's: checks on the content as it came, then the
fields of the header that mean something to us, then operators' own code, then the split by recipient.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from mtaq.model.address import Address
from mtaq.model.codec import encode_inbox
from mtaq.model.errors import BrokerError, TooLarge
from mtaq.model.identity import recipient_id, trace_parent, transaction_id
from mtaq.model.message import InboxRecipient
from mtaq.model.parcel import INBOX_TYPE, REPORT_TYPE
from mtaq.model.reply import Reply
from mtaq.receive.check_report import words_of
from mtaq.receive.draft import Draft, Dropped, Refusal, SessionFacts
from mtaq.receive.evidence import Evidence
from mtaq.receive.ports import LocalAddresses, Publisher
from mtaq.receive.publish import Outgoing, publish_all
from mtaq.receive.reports import Reports
from mtaq.receive.steps import prepare
from mtaq.receive.trace import TraceFields
from mtaq.smtp import codes
from mtaq.smtp.grammar import a_label_domain
from mtaq.smtp.server_session import Transaction
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

#: The contract: 451 within 30 s.
PUBLISH_TIMEOUT_S = 25.0

#: The final reply lists the ids while it stays under this many bytes, and each of its lines within the limit of
#: RFC 5321 §4.5.3.1.5.
LISTED_IDS_BYTES = 2000
LINE_BYTES = 512

#: ``250-2.6.0 `` and the line end.
REPLY_AROUND_BYTES = 12

#: AMQP has one octet for it.
MOST_PRIORITY = 255

ACCEPTED = counter("mtaq_messages_accepted", "Messages answered 250, one per recipient.")
REFUSED = counter("mtaq_messages_refused", "Transactions whose content was refused.", ("code",))
DROPPED = counter("mtaq_messages_dropped", "Transactions answered 250 that a hook or a step dropped.")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """What intake needs to know.

    Attributes:
        inbox: Queue for what is received; ``None`` discards it.
        local: Queue for mail to local addresses; ``None`` for the inbox.
        reports: Queue for the reports among it; ``None`` for where the rest of it goes.
        refused: Queue for what was refused; ``None`` keeps nothing of it.
        server_id: First part of every message-id.
        broker_max_bytes: Largest JSON the broker takes; ``None`` for no limit.
    """

    inbox: str | None
    local: str | None = None
    reports: str | None = None
    refused: str | None = None
    server_id: str
    broker_max_bytes: int | None

    def identify(self, now: datetime) -> str:
        """Return a new id for a transaction."""
        return transaction_id(self.server_id, now=now, random=secrets.token_bytes(10))


class Route(NamedTuple):
    """Where some of the recipients' copies go.

    Attributes:
        queue: Name of the queue.
        recipients: Theirs.
        is_final: Mail that is delivered here, so it gets a Return-Path (RFC 5321 §4.4).
        report: What it says, when it is a report.
        type: AMQP type.
    """

    queue: str
    recipients: Sequence[InboxRecipient]
    is_final: bool = False
    report: dict[str, Any] | None = None
    type: str = INBOX_TYPE


class Intake:
    """Takes complete transactions; one for all sessions of a process."""

    def __init__(
        self,
        options: IntakeOptions,
        *,
        publisher: Publisher,
        addresses: LocalAddresses,
        evidence: Evidence,
        events: EventLog,
        clock: Callable[[], datetime],
    ) -> None:
        self._options = options
        self._publisher = publisher
        self._addresses = addresses
        self._evidence = evidence
        self._events = events
        self._clock = clock
        self._reports = Reports(events=events, broker_max_bytes=options.broker_max_bytes)

    async def take(self, transaction: Transaction, content: bytes, facts: SessionFacts) -> Reply:
        """Publish *transaction* for each of its recipients and return what to answer after the content."""
        now = self._clock()
        identity = self._options.identify(now)
        draft = Draft.of(transaction, content, facts, identity=identity, now=now)
        del content
        answer = accepted_reply(identity, transaction)
        try:
            await prepare(draft, facts)
            await self._publish(draft, facts)
        except Dropped as drop:
            self._dropped(drop, draft, facts)
        except Refusal as refusal:
            return self._refused(refusal, draft, facts)
        return answer

    async def _publish(self, draft: Draft, facts: SessionFacts) -> None:
        """
        Store *draft* for each recipient.

        Raises:
            Refusal: It is not safe; the client is to keep it.
        """
        routes = await self._routes(draft, facts)
        try:
            await publish_all(
                self._publisher,
                self._outgoing(draft, routes, facts),
                count=sum(len(route.recipients) for route in routes),
                headers={"traceparent": trace_parent(secrets.token_bytes(24))},
                timeout_s=PUBLISH_TIMEOUT_S,
                max_bytes=self._options.broker_max_bytes,
            )
        except TooLarge as error:
            draft.content = b""  # with it the evidence would be too large as well
            raise Refusal(codes.TOO_BIG, stage="content", reason=str(error)) from error
        except BrokerError as error:
            raise Refusal(codes.TRY_LATER, stage="content", reason=str(error)) from error
        self._accepted(draft, facts, routes)

    async def _routes(self, draft: Draft, facts: SessionFacts) -> list[Route]:
        """Split the recipients by queue. Where there is no queue, mail is discarded, as the operator wants it."""
        options, archive = self._options, facts.policy.options.smtp_archive
        local: list[InboxRecipient] = []
        others: list[InboxRecipient] = []
        for recipient in draft.with_copy_to(archive.address if archive else None):
            (local if self._addresses.is_local(recipient.address) else others).append(recipient)
        routes = [
            *await self._local_routes(local, draft, facts),
            Route(options.inbox or "", others),
            Route((archive.queue if archive else None) or "", draft.recipients),
        ]
        return [route for route in routes if route.queue and route.recipients]

    async def _local_routes(
        self, recipients: Sequence[InboxRecipient], draft: Draft, facts: SessionFacts
    ) -> list[Route]:
        """Say where local mail goes; a copy for the archive is no report to us, wherever that is."""
        options = self._options
        local = options.local or options.inbox or ""
        meant = [recipient for recipient in recipients if recipient in draft.recipients]
        report = await self._reports.read(draft, meant, facts)
        if report is None or not options.reports:
            return [Route(local, recipients, True, report)]
        copies = [recipient for recipient in recipients if recipient not in meant]
        return [Route(options.reports, meant, True, report, REPORT_TYPE), Route(local, copies, True)]

    def _outgoing(self, draft: Draft, routes: Sequence[Route], facts: SessionFacts) -> Iterator[Outgoing]:
        trace = TraceFields(draft, facts)
        priority = min(draft.properties.get("priority") or 0, MOST_PRIORITY)
        for route in routes:
            content = draft.content
            if route is routes[-1]:
                draft.content = b""  # a large content must not be held here while its JSON is published
            properties = draft.properties | {"report": route.report} if route.report is not None else draft.properties
            encoded = encode_inbox(properties, route.recipients, trace.above(is_local=route.is_final) + content)
            del content
            for recipient, body in encoded:
                yield Outgoing(route.queue, recipient.message_id, body, priority, route.type)
                del body

    def _accepted(self, draft: Draft, facts: SessionFacts, routes: Sequence[Route]) -> None:
        ACCEPTED.inc(len(draft.recipients))
        self._events.message_accepted(
            session_id=facts.session_id,
            message_id=draft.transaction_id,
            peer_ip=facts.connection.remote_ip,
            reverse_path=draft.envelope,
            forward_path=str(draft.recipients[0].address),
            recipients=len(draft.recipients),
            size_bytes=draft.properties["size"],
            queue=" ".join(route.queue for route in routes) or None,
            **words_of(draft.report),
        )

    def _dropped(self, drop: Dropped, draft: Draft, facts: SessionFacts) -> None:
        DROPPED.inc()
        self._events.message_dropped(
            session_id=facts.session_id,
            message_id=draft.transaction_id,
            hook=drop.hook,
            point=drop.point,
            peer_ip=facts.connection.remote_ip,
            reverse_path=draft.envelope,
            forward_path=str(draft.recipients[0].address),
            recipients=len(draft.recipients),
            size_bytes=draft.properties["size"],
        )

    def _refused(self, refusal: Refusal, draft: Draft, facts: SessionFacts) -> Reply:
        reply = refusal.reply
        REFUSED.labels(str(reply.code)).inc()
        self._events.message_refused(
            session_id=facts.session_id,
            peer_ip=facts.connection.remote_ip,
            reverse_path=draft.envelope,
            recipients=len(draft.recipients),
            reply_code=reply.code,
            enhanced_code=reply.status,
            reason=refusal.reason,
            **words_of(draft.report),
        )
        self._evidence.keep(draft, refusal)
        return reply


def accepted_reply(identity: str, transaction: Transaction) -> Reply:
    """Return the final reply: the id of each recipient's message, or their range where the list is too long.

    Nothing but ASCII is said to a client that did not ask for SMTPUTF8 (RFC 6531 §3.7.4.2), also of an address whose
    A-labels the JSON has as U-labels.
    """
    recipients = transaction.forward_paths
    lines = ["accepted"]
    length = 0
    for number, recipient in enumerate(recipients, 1):
        line = f"{recipient_id(identity, number)} for {_told(recipient, transaction)}"
        line_bytes = len(line.encode()) + REPLY_AROUND_BYTES
        length += line_bytes
        if length > LISTED_IDS_BYTES - 24 or line_bytes > LINE_BYTES:
            return Reply(250, "2.6.0", (f"{identity}.1-{len(recipients)} accepted",))
        lines.append(line)
    return Reply(250, "2.6.0", tuple(lines))


def _told(recipient: Address, transaction: Transaction) -> str:
    if transaction.smtputf8 or recipient.domain.isascii():
        return str(recipient)
    return str(recipient._replace(domain=a_label_domain(recipient.domain)))
