"""What a server announced, and what it can therefore be told: the words of MAIL and RCPT.

SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), BINARYMIME (RFC 3030), REQUIRETLS (RFC 8689), DSN (RFC 3461:
what the sender asked for is passed on as it was asked, and nothing is asked in the sender's place). Content is
never converted here: to a server without 8BITMIME it goes unchanged, as the whole field does; without SMTPUTF8 domains
become A-labels, and what has no such form is an ``objection``. Pure; the order of things is
``mtaq.smtp.client_session``'s.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mtaq.model.address import Address
from mtaq.model.errors import LocalProtocolError
from mtaq.model.message import Body
from mtaq.model.reply import Reply, reply
from mtaq.smtp.dsn import RecipientDsn, encode_orcpt, encode_xtext
from mtaq.smtp.grammar import a_label_domain

_NOTHING_ASKED = RecipientDsn()

#: RFC 4954 §4: with AUTH in front of it a command line still has 512 octets at most.
MAX_INITIAL_RESPONSE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One mail transaction to be made.

    Attributes:
        reverse_path: ``None`` for the null one.
        forward_paths: At least one; each is answered by itself.
        content: Without dot-stuffing; CRLF line ends unless *body* is ``binarymime``.
        body: Declared body type, or ``None``: then the content itself says whether it is 8-bit.
        smtputf8: It was submitted with SMTPUTF8.
        requiretls: It may only go to servers that promise TLS on the rest of its way (RFC 8689).
        variant_for: Makes of this the transaction that a server gets, a signed one; ``None`` when that is this one.
        extra_bytes: How many more octets that has, about.
        on_content: Called before the first octet of the content goes out.
        ret: RET, or ``None`` when the sender asked nothing; so the next two.
        envid: ENVID, decoded.
        dsn: NOTIFY and ORCPT of each forward-path; may be shorter than those.
    """

    reverse_path: Address | None
    forward_paths: tuple[Address, ...]
    content: bytes
    body: Body | None = None
    smtputf8: bool = False
    requiretls: bool = False
    variant_for: Callable[[Transaction, PeerExtensions], Awaitable[Transaction]] | None = field(
        default=None, repr=False, compare=False
    )
    extra_bytes: int = 0
    on_content: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    ret: str | None = None
    envid: str | None = None
    dsn: tuple[RecipientDsn, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Octets of the content as a server gets it, about."""
        return len(self.content) + self.extra_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerExtensions:
    """What the server announced.

    Attributes:
        size_bytes: Largest content; ``None`` when it named no limit (RFC 1870 §4).
        size: SIZE was announced, with or without a limit.
        auth: SASL mechanisms for logging in (RFC 4954), in capitals.
    """

    pipelining: bool = False
    size: bool = False
    size_bytes: int | None = None
    eightbitmime: bool = False
    smtputf8: bool = False
    chunking: bool = False
    binarymime: bool = False
    starttls: bool = False
    dsn: bool = False
    requiretls: bool = False
    auth: frozenset[str] = frozenset()


def parse_extensions(lines: Sequence[str]) -> PeerExtensions:
    """Understand the lines of a reply to EHLO that follow the first (RFC 5321 §4.1.1.1); what is unknown is ignored."""
    keywords = {}
    for line in lines:
        keyword, _, parameters = line.partition(" ")
        keywords[keyword.upper()] = parameters
    limit = keywords.get("SIZE", "").strip()
    size_bytes = int(limit) if limit.isascii() and limit.isdigit() and len(limit) <= 20 else 0
    return PeerExtensions(
        pipelining="PIPELINING" in keywords,
        size="SIZE" in keywords,
        size_bytes=size_bytes or None,  # RFC 1870 §4: 0 means that no limit is in force
        eightbitmime="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        chunking="CHUNKING" in keywords,
        binarymime="BINARYMIME" in keywords,
        starttls="STARTTLS" in keywords,
        dsn="DSN" in keywords,
        requiretls="REQUIRETLS" in keywords,
        auth=frozenset(keywords.get("AUTH", "").upper().split()),
    )


class LoginScript(NamedTuple):
    """A login to be made: its mechanism, and its lines, of which each waits for the answer to the one before."""

    mechanism: str
    lines: tuple[bytes, ...]


def login_script(user: str, password: str, peer: PeerExtensions) -> LoginScript | None:
    """Return how to log in by PLAIN (RFC 4616) or else LOGIN; ``None`` when the server has neither."""
    if "PLAIN" in peer.auth:
        response = b64encode(f"\0{user}\0{password}".encode())
        if len(response) <= MAX_INITIAL_RESPONSE:
            return LoginScript("PLAIN", (b"AUTH PLAIN %b\r\n" % response,))
        return LoginScript("PLAIN", (b"AUTH PLAIN\r\n", response + b"\r\n"))
    if "LOGIN" in peer.auth:
        answers = (b64encode(text.encode()) + b"\r\n" for text in (user, password))
        return LoginScript("LOGIN", (b"AUTH LOGIN\r\n", *answers))
    return None


def objection(transaction: Transaction, peer: PeerExtensions) -> Reply | None:
    """Return why *peer* cannot be given *transaction*, in the words of a reply; ``None`` when it can."""
    if transaction.requiretls and not peer.requiretls:
        return reply(550, "5.7.30", "the mail host does not promise TLS on the rest of the way (REQUIRETLS)")
    if transaction.body == "binarymime" and not (peer.chunking and peer.binarymime):
        return reply(554, "5.6.1", "the mail host does not take binary content (BINARYMIME)")
    if peer.size_bytes is not None and len(transaction.content) > peer.size_bytes:
        return reply(552, "5.3.4", f"the mail host takes no more than {peer.size_bytes} bytes")
    if not peer.smtputf8 and not all(_has_ascii_form(path) for path in _paths(transaction)):
        return reply(553, "5.6.7", "the address is not ASCII, and the mail host does not know SMTPUTF8")
    return None


def goes_in_chunks(transaction: Transaction, peer: PeerExtensions) -> bool:
    """Is the content sent by BDAT? Binary content is, and content that does not end in the CRLF that DATA would add."""
    if transaction.body == "binarymime":
        return True
    return peer.chunking and bool(transaction.content) and not transaction.content.endswith(b"\r\n")


def envelope_commands(transaction: Transaction, peer: PeerExtensions) -> tuple[bytes, Iterator[bytes]]:
    """Return MAIL and the RCPTs for *transaction*, to which there is no ``objection``."""
    utf8 = peer.smtputf8 and _needs_smtputf8(transaction)
    asked = iter(transaction.dsn if peer.dsn else ())
    recipients = (
        b"RCPT TO:<%b>%b\r\n" % (_wire(path, utf8), _rcpt_dsn(next(asked, _NOTHING_ASKED)))
        for path in transaction.forward_paths
    )
    return _mail_command(transaction, peer, utf8), recipients


def _rcpt_dsn(dsn: RecipientDsn) -> bytes:
    """RFC 3461 §5.2.1: what was asked is passed on."""
    notify = b"" if dsn.notify is None else b" NOTIFY=%b" % ",".join(dsn.notify).encode("ascii")
    return notify + (b"" if dsn.orcpt is None else b" ORCPT=%b" % encode_orcpt(dsn.orcpt))


def _mail_command(transaction: Transaction, peer: PeerExtensions, utf8: bool) -> bytes:
    reverse_path = transaction.reverse_path
    parts = [b"MAIL FROM:<%b>" % (b"" if reverse_path is None else _wire(reverse_path, utf8))]
    if peer.size:
        parts.append(b" SIZE=%d" % len(transaction.content))
    if transaction.body == "binarymime":
        parts.append(b" BODY=BINARYMIME")
    elif peer.eightbitmime and (transaction.body == "8bitmime" or not transaction.content.isascii()):
        parts.append(b" BODY=8BITMIME")
    if utf8:
        parts.append(b" SMTPUTF8")
    if transaction.requiretls:
        parts.append(b" REQUIRETLS")
    if peer.dsn and transaction.ret is not None:
        parts.append(b" RET=%b" % transaction.ret.encode("ascii"))
    if peer.dsn and transaction.envid is not None:
        parts.append(b" ENVID=%b" % encode_xtext(transaction.envid))
    parts.append(b"\r\n")
    return b"".join(parts)


def _paths(transaction: Transaction) -> tuple[Address, ...]:
    reverse_path = transaction.reverse_path
    return transaction.forward_paths if reverse_path is None else (reverse_path, *transaction.forward_paths)


def _needs_smtputf8(transaction: Transaction) -> bool:
    """Would something be lost without SMTPUTF8? A domain would not: it has its A-labels."""
    if any(not path.local_part.isascii() for path in _paths(transaction)):
        return True
    if not transaction.smtputf8 or transaction.content.isascii():
        return False
    end = transaction.content.find(b"\r\n\r\n")
    return not (transaction.content[:end] if end >= 0 else transaction.content).isascii()


def _has_ascii_form(path: Address) -> bool:
    if path.is_ascii:
        return True
    try:
        a_label_domain(path.domain)
    except ValueError:
        return False
    return path.local_part.isascii()


def _wire(path: Address, utf8: bool) -> bytes:
    domain = path.domain if utf8 else a_label_domain(path.domain)
    text = f"{path.local_part}@{domain}" if domain else path.local_part
    if "\r" in text or "\n" in text:
        raise LocalProtocolError("an address with a line end was not validated")
    return text.encode("utf-8")
