"""A message as reception accepts it and as delivery finds it in the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from mtaq.model.address import Address
from mtaq.model.dkim_property import DkimRequest
from mtaq.model.dsn import NOTHING_ASKED, DsnRequest

Body = Literal["7bit", "8bitmime", "binarymime"]
Security = Literal["optional", "opportunistic", "required", "verified"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """The certificate that a client showed.

    Attributes:
        subject: Whom it names, as text for people.
        verified: Signed by one of the authorities that the port trusts, and in date.
    """

    subject: str
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What TLS the session has.

    Attributes:
        version: Such as ``TLSv1.3``.
        cipher: Its name in OpenSSL.
        client_cert: ``None`` when the client showed none, or was not asked.
    """

    version: str
    cipher: str
    client_cert: ClientCertificate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """The session a message came by; ``connection`` in the JSON.

    Attributes:
        helo: The client's name for itself, as it stood in EHLO or HELO.
        tls: ``None`` when the session is in clear.
        user: Who logged in, or ``None``.
        proxy: IP address and port of the proxy that told us the rest; ``None`` without one.
    """

    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    helo: str
    tls: TlsFacts | None = None
    user: str | None = None
    proxy: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolFacts:
    """The file that a message came in; ``spool`` in the JSON.

    Attributes:
        directory: The spool directory.
        file: The file's name in it.
        user: Who owned it: a name, or a number without one.
        size_bytes: Size of the file.
    """

    directory: str
    file: str
    user: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedMessage:
    """One mail transaction as it was accepted, without its content.

    Attributes:
        transaction: The part of the ids that all its recipients share.
        envelope: Reverse-path; ``None`` for the null one.
        recipients: Forward-paths, in the order given.
        received_at: When the content was complete.
        hostname: Our name in the session.
        size_bytes: Bytes of the content as received, before our ``Received:``.
        ips: Source addresses to leave from; empty when nothing is mapped.
        tags: Those of the port.
        requiretls: The client demands TLS on the whole way (RFC 8689).
        spool: The file it came in, instead of a connection; ``None`` for what came by SMTP.
    """

    transaction: str
    envelope: Address | None
    recipients: tuple[Address, ...]
    received_at: datetime
    hostname: str
    connection: ConnectionFacts
    size_bytes: int
    body: Body = "7bit"
    smtputf8: bool = False
    ips: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    requiretls: bool = False
    spool: SpoolFacts | None = None


@dataclass(frozen=True, slots=True)
class InboxRecipient:
    """One recipient of a received message.

    Attributes:
        message_id: Its identity in the queues.
        address: Forward-path.
        properties: What its JSON has for it alone, such as ``dsn``.
    """

    message_id: str
    address: Address
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smarthost:
    """Where a message goes instead of its recipient's mail hosts.

    Attributes:
        username: For a login (RFC 4954); ``None`` for none.
        password: Likewise. Secret.
        security: What is demanded there; ``None`` for what holds otherwise.
    """

    hostname: str
    port: int = 25
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    security: Security | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxMessage:
    """One message of the outbox, understood.

    Attributes:
        properties: The whole JSON object, unknown properties included, without the content's. It may hold secrets.
        envelope: Reverse-path as written; empty for the null one. Not yet validated.
        recipient: Forward-path as written, likewise.
        content: The bytes to send, line ends as the JSON had them.
        attempts: Attempts made so far (items of ``results``).
        due_at: Not before this moment; ``None`` for at once.
        seen_at: First pick-up by delivery; ``None`` when this is it.
        expires_at: ``maxdelivertime``; ``None`` for what the configuration says.
        max_attempts: ``None`` for what the configuration says; 0 is unlimited.
        retries_s: Seconds after the first, second … failure; ``None`` for the configuration's.
        ips: Source addresses asked for.
        pool: Name of the set of source addresses asked for, when there are no ``ips``.
        tags: Words of the sender's.
        local_ip: Address the message was accepted on (``connection.local-ip``), or ``None``.
        body: ``binarymime`` content goes out by BDAT only, and its line ends are its own.
        queues: ``queues``: a name, or ``None`` for off; what is absent is as configured.
        requiretls: It may only go by TLS, to servers that promise the same (RFC 8689).
        header_edits: ``headers``: the edits to make before sending.
        dkim: Signatures that it asks for.
        dsn: What the sender wants to be told (RFC 3461).
        idempotency_key: Another message with the same one is not sent; ``None`` for none.
    """

    properties: Mapping[str, Any] = field(repr=False)
    message_id: str
    envelope: str
    recipient: str
    content: bytes = field(repr=False)
    attempts: int = 0
    due_at: datetime | None = None
    seen_at: datetime | None = None
    expires_at: datetime | None = None
    max_attempts: int | None = None
    retries_s: tuple[int, ...] | None = None
    ips: tuple[str, ...] = ()
    pool: str | None = None
    tags: tuple[str, ...] = ()
    local_ip: str | None = None
    body: Body | None = None
    smtputf8: bool = False
    requiretls: bool = False
    security: Security | None = None
    smarthost: Smarthost | None = None
    priority: int = 0
    keep_content: bool = False
    queues: Mapping[str, str | None] = field(default_factory=dict)
    header_edits: Mapping[str, Any] | None = None
    dkim: tuple[DkimRequest, ...] = ()
    dsn: DsnRequest = NOTHING_ASKED
    idempotency_key: str | None = None
