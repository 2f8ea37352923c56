"""What came out of the outbox: has it been dealt with before, and what exactly is to be sent?

``key_of`` names one queue message; ``must_ask_journal`` says when its history has to be looked up. ``paths_of`` checks
the addresses; ``prepare`` makes the transaction: header edits made, line ends CRLF. A message that cannot be
understood is ``BadMessage``; an address that is none is a result like any other (``HostFailure`` with
``process``/``invalid``).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from mtaq.config import DeliverOptions
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.mime.edit import edit_headers
from mtaq.model.address import Address
from mtaq.model.codec import decode_outbox, encode_result
from mtaq.model.errors import BadMessage
from mtaq.model.message import OutboxMessage
from mtaq.model.parcel import Consumed
from mtaq.smtp.client_commands import Transaction
from mtaq.smtp.data import normalise_line_ends
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.grammar import parse_mailbox

#: AMQP header that says: this may be a copy of a message that was dealt with already. Set by whoever publishes again
#: what it may have published before it crashed, delivery's own parked copies included.
REDELIVERED_HEADER = "redelivered"

#: What does not open more arrays and objects than this does not nest too deep to be written again, the only thing that
#: JSON can be read and not be written for (254 levels).
ALWAYS_WRITABLE = 200


def key_of(consumed: Consumed) -> bytes:
    """Return the name of a queue message for journal and claims: the same for every redelivery of it, and only then.

    Two publishes of equal JSON differ by their AMQP ``message_id``.
    """
    digest = hashlib.sha256(consumed.message_id.encode())
    digest.update(b"\0")
    digest.update(consumed.body)
    return digest.digest()


def must_ask_journal(consumed: Consumed, *, attempts: int, contested: bool) -> bool:
    """Can something have been done with this queue message before?

    Args:
        attempts: A retry copy may have been published twice by a process that crashed in between.
        contested: Somebody was working on an equal one. Without a ``message_id`` that may have been another publish
            of the same JSON, and then only what it came with counts.
    """
    if consumed.redelivered or consumed.headers.get(REDELIVERED_HEADER):
        return True
    return bool(consumed.message_id) and (contested or attempts > 0)


def understand(consumed: Consumed, outbox: str) -> OutboxMessage:
    """
    Read *consumed*, and see to it that its results will find their way.

    Raises:
        BadMessage: It cannot be understood; or its results could not be written, or would be orders.
    """
    message = decode_outbox(consumed.body)
    check_queues(message, outbox)
    if consumed.body.count(b"[") + consumed.body.count(b"{") > ALWAYS_WRITABLE:
        _check_writable(message)
    return message


def _check_writable(message: OutboxMessage) -> None:
    """Find out now what would be too late behind the 250: the result could never be published."""
    try:
        encode_result(replace(message, keep_content=False), message.properties.get("results") or (), None)
    except TypeError as error:
        raise BadMessage(f"cannot be written again: {error}") from error


def check_queues(message: OutboxMessage, outbox: str) -> None:
    """
    See to it that no result of *message* becomes an order; a notice is one.

    Raises:
        BadMessage: One would.
    """
    for kind, name in message.queues.items():
        if name is not None and ((name == outbox and kind != "dsn") or name.startswith(f"{outbox}.delay.")):
            raise BadMessage(f"queues.{kind}: {name} is delivery's own queue")


def paths_of(message: OutboxMessage, options: DeliverOptions) -> tuple[Address | None, Address]:
    """
    Return the reverse-path, ``None`` for the null one, and the forward-path of *message*.

    Raises:
        HostFailure: An address is none.
    """
    recipient = _address(message.recipient, "recipient", "5.1.3", options.validate_recipient == "strict")
    if not message.envelope:
        return None, recipient
    return _address(message.envelope, "envelope", "5.1.7", options.validate_envelope == "strict"), recipient


def prepare(message: OutboxMessage, reverse_path: Address | None, forward_path: Address) -> Transaction:
    """
    Make the mail transaction of *message*.

    Raises:
        BadMessage: The header edits cannot be made.
    """
    content = message.content
    if message.body != "binarymime":
        content = normalise_line_ends(content)
    if message.header_edits:
        content = edit_headers(content, message.header_edits, smtputf8=message.smtputf8)
    return Transaction(
        reverse_path=reverse_path,
        forward_paths=(forward_path,),
        content=content,
        body=message.body,
        smtputf8=message.smtputf8,
        requiretls=message.requiretls,
        ret=message.dsn.ret,
        envid=message.dsn.envid,
        dsn=(RecipientDsn(message.dsn.notify, message.dsn.orcpt),),
    )


def _address(text: str, name: str, status: str, strict: bool) -> Address:
    try:
        return parse_mailbox(text, strict=strict, smtputf8=True)
    except ValueError as error:
        raise HostFailure(
            Ending(
                state="process",
                result="invalid",
                code=553,
                status=status,
                description=f"{name}: {error}",
                final=True,
            )
        ) from error
