"""One accepted transaction becomes JSON in the inbox, and a reply.

250 is said only here, and only after ``receive.publish`` returned. Whatever goes wrong is a transient refusal, except
what the client must change: a loop, or a message larger than the broker takes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mtaq.mime.headers import count_received
from mtaq.mime.received import received_field
from mtaq.model.address import address_text
from mtaq.model.codec import encode_inbox
from mtaq.model.errors import BrokerError
from mtaq.model.identity import recipient_id, trace_parent, transaction_id
from mtaq.model.message import ConnectionFacts, ReceivedMessage
from mtaq.model.reply import Reply
from mtaq.receive.policy import PortPolicy
from mtaq.receive.ports import Publisher
from mtaq.receive.publish import TooLarge, publish_all
from mtaq.smtp import codes
from mtaq.smtp.server_session import Transaction
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

#: The contract: 451 within 30 s.
PUBLISH_TIMEOUT_S = 25.0

#: The final reply lists the ids while it stays under this many bytes.
LISTED_IDS_BYTES = 2000

ACCEPTED = counter("mtaq_messages_accepted", "Messages answered 250, one per recipient.")
REFUSED = counter("mtaq_messages_refused", "Transactions whose content was refused.", ("code",))


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeOptions:
    """What intake needs to know.

    Attributes:
        inbox: Queue for what is received; ``None`` discards it.
        server_id: First part of every message-id.
        broker_max_bytes: Largest JSON the broker takes; ``None`` for no limit.
    """

    inbox: str | None
    server_id: str
    broker_max_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """The session a transaction belongs to."""

    session_id: str
    connection: ConnectionFacts
    hostname: str
    protocol: str
    policy: PortPolicy


class Intake:
    """Takes complete transactions; one for all sessions of a process."""

    def __init__(
        self, options: IntakeOptions, *, publisher: Publisher, events: EventLog, clock: Callable[[], datetime]
    ) -> None:
        self._options = options
        self._publisher = publisher
        self._events = events
        self._clock = clock

    async def take(self, transaction: Transaction, content: bytes, facts: SessionFacts) -> Reply:
        """Publish *transaction* for each of its recipients and return what to answer after the content."""
        if count_received(content) > facts.policy.options.smtp_max_hops:
            return self._refused(codes.MAIL_LOOP, transaction, facts, "too many Received fields")
        message = self._message(transaction, len(content), facts)
        if self._options.inbox is None:
            self._accepted(message, facts, queue=None)
            return accepted_reply(message)
        field = received_field(
            helo=facts.connection.helo,
            remote_ip=facts.connection.remote_ip,
            remote_name=None,
            hostname=facts.hostname,
            protocol=facts.protocol,
            tls=facts.connection.tls,
            transaction_id=message.transaction,
            recipient=message.recipients[0] if len(message.recipients) == 1 else None,
            now=message.received_at,
        )
        content = field + content
        messages = encode_inbox(message, content)
        del content
        try:
            await publish_all(
                self._publisher,
                self._options.inbox,
                messages,
                count=len(message.recipients),
                headers={"traceparent": trace_parent(secrets.token_bytes(24))},
                timeout_s=PUBLISH_TIMEOUT_S,
                max_bytes=self._options.broker_max_bytes,
            )
        except TooLarge as error:
            return self._refused(codes.TOO_BIG, transaction, facts, str(error))
        except BrokerError as error:
            return self._refused(codes.TRY_LATER, transaction, facts, str(error))
        self._accepted(message, facts, queue=self._options.inbox)
        return accepted_reply(message)

    def _message(self, transaction: Transaction, size_bytes: int, facts: SessionFacts) -> ReceivedMessage:
        now = self._clock()
        return ReceivedMessage(
            transaction=transaction_id(self._options.server_id, now=now, random=secrets.token_bytes(10)),
            envelope=transaction.reverse_path,
            recipients=tuple(transaction.forward_paths),
            received_at=now,
            hostname=facts.hostname,
            connection=facts.connection,
            size_bytes=size_bytes,
            body=transaction.body,
            smtputf8=transaction.smtputf8,
            ips=facts.policy.mapped_ips(facts.connection.local_ip),
        )

    def _accepted(self, message: ReceivedMessage, facts: SessionFacts, *, queue: str | None) -> None:
        ACCEPTED.inc(len(message.recipients))
        self._events.message_accepted(
            session_id=facts.session_id,
            message_id=message.transaction,
            peer_ip=facts.connection.remote_ip,
            reverse_path=address_text(message.envelope),
            forward_path=str(message.recipients[0]),
            recipients=len(message.recipients),
            size_bytes=message.size_bytes,
            queue=queue,
        )

    def _refused(self, reply: Reply, transaction: Transaction, facts: SessionFacts, reason: str) -> Reply:
        REFUSED.labels(str(reply.code)).inc()
        self._events.message_refused(
            session_id=facts.session_id,
            peer_ip=facts.connection.remote_ip,
            reverse_path=address_text(transaction.reverse_path),
            recipients=len(transaction.forward_paths),
            reply_code=reply.code,
            enhanced_code=reply.status,
            reason=reason,
        )
        return reply


def accepted_reply(message: ReceivedMessage) -> Reply:
    """Return the final reply: the id of each recipient's message, or their range where the list is too long."""
    count = len(message.recipients)
    lines = ["accepted"]
    length = 0
    for number, recipient in enumerate(message.recipients, 1):
        lines.append(f"{recipient_id(message.transaction, number)} for {recipient}")
        length += len(lines[-1].encode()) + 12
        if length > LISTED_IDS_BYTES - 24:
            return Reply(250, "2.6.0", (f"{message.transaction}.1-{count} accepted",))
    return Reply(250, "2.6.0", tuple(lines))
