"""What a server session is given, what it asks, and the transaction both speak about.

Holds only; ``mtaq.smtp.server_session`` fills and reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mtaq.model.address import Address
from mtaq.smtp.extensions import Body


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What the operator and the port decide for a session.

    Attributes:
        hostname: Our name, in the greeting and in answer to EHLO.
        max_size_bytes: Largest content; announced by SIZE.
        max_recipients: Forward-paths accepted in one transaction; at least 100 (RFC 5321 §4.5.3.1.8).
        strict_addresses: ``False`` for ``smtp-validate-address: loose``; see ``mtaq.smtp.grammar``.
        starttls: Offer STARTTLS as long as the session is not secure.
        max_line_bytes: Longest command line, CRLF included. RFC 5321 §4.5.3.1.4 wants 512 and each extension adds to
            it: with all that are registered a line stays below 2048, which Postfix allows too.
        max_errors: Bad commands answered in a row without an accepted message; the next one ends the session.
        timeout_s: Longest silence; the carrier's to watch.
    """

    hostname: str
    max_size_bytes: int
    max_recipients: int
    strict_addresses: bool
    starttls: bool
    max_line_bytes: int = 2048
    max_errors: int = 20
    timeout_s: float = 300


@dataclass(slots=True, kw_only=True)
class Transaction:
    """A mail transaction (RFC 5321 §3.3), from an accepted MAIL to the answer to its content.

    Attributes:
        reverse_path: ``None`` for the null one.
        size_bytes: Declared by SIZE; ``None`` when not.
        body: Declared by BODY; ``7bit`` when not.
        smtputf8: SMTPUTF8 was given.
        forward_paths: Those accepted, in order.
        rcpt_seen: A RCPT has come, accepted or not.
        started: The first BDAT chunk has been accepted.
    """

    reverse_path: Address | None
    size_bytes: int | None = None
    body: Body = "7bit"
    smtputf8: bool = False
    forward_paths: list[Address] = field(default_factory=list)
    rcpt_seen: bool = False
    started: bool = False


@dataclass(frozen=True, slots=True)
class Mail:
    """May this transaction begin? A positive answer begins it.

    Attributes:
        reverse_path: ``None`` for the null one.
        size: Octets declared by SIZE, within the limit; ``None`` when not declared.
        body: BODY; ``7bit`` when not given.
        smtputf8: SMTPUTF8 was given.
    """

    reverse_path: Address | None
    size: int | None
    body: Body
    smtputf8: bool


@dataclass(frozen=True, slots=True)
class Rcpt:
    """May this forward-path have the message? A positive answer adds it to the transaction."""

    forward_path: Address


@dataclass(frozen=True, slots=True)
class StartTls:
    """Start TLS? A positive answer promises that ``reset_for_tls`` follows once it has been written."""


@dataclass(frozen=True, slots=True)
class MessageComplete:
    """The content has come whole and well-formed. Any answer ends the transaction.

    Attributes:
        transaction: With at least one forward-path.
        content: As sent, dots removed.
    """

    transaction: Transaction
    content: bytes


Event = Mail | Rcpt | StartTls | MessageComplete
