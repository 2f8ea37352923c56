"""One accepted transaction on its way into the queues.

Everything that happens to a message between the last dot and the broker happens to a ``Draft``: fields become
properties, a hook answers, steps change it, recipients are split. A step that does not want the message raises
``Refusal`` or ``Dropped``; what becomes of the client is ``receive.intake``'s work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from mtaq.model.address import Address
from mtaq.model.codec import CONTENT_PROPERTIES, content_of, content_property, inbox_properties
from mtaq.model.decision import FACTS
from mtaq.model.identity import recipient_id
from mtaq.model.message import ConnectionFacts, InboxRecipient, ReceivedMessage, SpoolFacts
from mtaq.model.reply import Reply
from mtaq.receive.check_report import Report
from mtaq.receive.policy import PortPolicy
from mtaq.smtp.server_session import Transaction

Stage = Literal["mail", "rcpt", "data", "content", "hook", "check"]
"""Where a refusal was decided; ``refused.stage`` in the JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """The session a transaction belongs to; for a file of the spool directory *spool* says where it came from."""

    session_id: str
    connection: ConnectionFacts
    hostname: str
    esmtp: bool
    policy: PortPolicy
    spool: SpoolFacts | None = None


class Refusal(Exception):
    """The message is not taken.

    Attributes:
        reply: What the client is told.
        stage: Where it was decided.
        reason: Why, for the log: more exact than what the client is told.
    """

    def __init__(self, reply: Reply, *, stage: Stage, reason: str = "") -> None:
        super().__init__(reason or reply.text)
        self.reply = reply
        self.stage = stage
        self.reason = reason or reply.text


class Dropped(Exception):
    """The message is taken and goes nowhere, because the operator's own code said so.

    Attributes:
        hook: Which code, without its password.
        point: Where it was asked: ``message`` or ``pipeline``.
    """

    def __init__(self, hook: str, point: str) -> None:
        super().__init__(f"dropped by {hook}")
        self.hook = hook
        self.point = point


@dataclass(slots=True)
class Draft:
    """A message that is not published yet.

    Attributes:
        transaction_id: The part of the ids that all its recipients share.
        received_at: When the content was complete.
        properties: What the JSON of all recipients shares, without content.
        recipients: Who is to get it.
        content: Without our ``Received:``.
        report: What the checks found; ``None`` where nothing is checked.
    """

    transaction_id: str
    received_at: datetime
    properties: dict[str, Any]
    recipients: list[InboxRecipient]
    content: bytes = field(repr=False)
    report: Report | None = field(default=None, repr=False)
    _highest_number: int = field(init=False, repr=False, default=0)

    def __post_init__(self) -> None:
        """Note the numbers that are given: what the client was told of one must never mean another recipient."""
        self._highest_number = max(int(one.message_id.rpartition(".")[2]) for one in self.recipients)

    @property
    def envelope(self) -> str:
        """The reverse-path; empty for the null one."""
        envelope: str = self.properties["envelope"]
        return envelope

    @classmethod
    def of(
        cls, transaction: Transaction, content: bytes, facts: SessionFacts, *, identity: str, now: datetime
    ) -> Draft:
        """Return the draft of *transaction* as the client sent it."""
        message = ReceivedMessage(
            transaction=identity,
            envelope=transaction.reverse_path,
            recipients=tuple(transaction.forward_paths),
            received_at=now,
            hostname=facts.hostname,
            connection=facts.connection,
            size_bytes=len(content),
            body=transaction.body,
            smtputf8=transaction.smtputf8,
            ips=facts.policy.mapped_ips(facts.connection.local_ip),
            tags=facts.policy.options.smtp_tags,
            requiretls=transaction.requiretls,
            spool=facts.spool,
        )
        return cls(identity, now, inbox_properties(message), _recipients(transaction, identity), content)

    def with_copy_to(self, address: Address | None) -> list[InboxRecipient]:
        """Return the recipients, and *address* as one more that the client does not see, nor ever hears of.

        It is no more when it is a recipient already.
        """
        if address is None or not self.recipients or any(one.address == address for one in self.recipients):
            return self.recipients
        shared = self.properties.pop("dsn", None)  # what each has of its own must not stand beside it
        if shared is not None:
            self.recipients = [replace(one, properties={"dsn": shared, **one.properties}) for one in self.recipients]
        copy = InboxRecipient(self._next_id(), address, {"dsn": {"notify": "NEVER"}})
        return [*self.recipients, copy]

    def _next_id(self) -> str:
        self._highest_number += 1
        return recipient_id(self.transaction_id, self._highest_number)

    # Operators' code sees one JSON object, ``recipients[]`` in place of ``recipient``.

    def to_json(self) -> dict[str, Any]:
        """Return the draft as one JSON object; ``message-id`` is the part that all recipients share."""
        name, text = content_property(self.content)
        recipients = [str(recipient.address) for recipient in self.recipients]
        return {"message-id": self.transaction_id, **self.properties, "recipients": recipients, name: text}

    def change(self, message: Mapping[str, Any], recipients: Sequence[Address]) -> None:
        """
        Become what an operator's code made of ``to_json``. What the session was stays what it was.

        Args:
            message: The JSON object.
            recipients: Its ``recipients``, parsed.

        Raises:
            BadMessage: It has no content, or one of the wrong form.
        """
        self.content = content_of(message)
        kept = {name: self.properties[name] for name in FACTS if name in self.properties}
        changed = {name: value for name, value in message.items() if name not in _NOT_SHARED}
        self.properties = {**changed, **kept}
        self.recipients = self._renumbered(recipients)

    def _renumbered(self, recipients: Sequence[Address]) -> list[InboxRecipient]:
        """Known recipients keep their ids; new ones get numbers that no recipient of this message ever had."""
        known = {recipient.address: recipient for recipient in reversed(self.recipients)}
        result = []
        for address in recipients:
            recipient = known.pop(address, None)
            if recipient is None:
                recipient = InboxRecipient(self._next_id(), address)
            result.append(recipient)
        return result


_NOT_SHARED = frozenset(("message-id", "recipient", "recipients", *CONTENT_PROPERTIES))


def _recipients(transaction: Transaction, identity: str) -> list[InboxRecipient]:
    """Return the recipients with what DSN parameters said of each (RFC 3461)."""
    ordered = {name: value for name, value in (("ret", transaction.ret), ("envid", transaction.envid)) if value}
    if not ordered and not transaction.dsn:
        return [
            InboxRecipient(recipient_id(identity, number), address)
            for number, address in enumerate(transaction.forward_paths, 1)
        ]
    recipients = []
    for index, address in enumerate(transaction.forward_paths):
        dsn: dict[str, Any] = dict(ordered)
        own = transaction.dsn.get(index)
        if own is not None and own.notify:
            dsn["notify"] = ",".join(own.notify)
        if own is not None and own.orcpt:
            dsn["orcpt"] = own.orcpt
        properties = {"dsn": dsn} if dsn else {}
        recipients.append(InboxRecipient(recipient_id(identity, index + 1), address, properties))
    return recipients
