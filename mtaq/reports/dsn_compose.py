"""Writes delivery status notifications (RFC 3464, RFC 3461, RFC 6522; beyond ASCII RFC 6533).

Pure: the same arguments give the same octets. Decides neither whether a notice is due nor where it goes; NOTIFY, the
null reverse-path and that nobody is told twice are the caller's work. Whatever peers and senders wrote is cleaned, so
no value can add a field, a part or a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import NamedTuple

from mtaq.mime.headers import header_end
from mtaq.mime.transfer import to_quoted_printable
from mtaq.reports.fields import first, group_of
from mtaq.reports.notice import Action, Kind, Original, RecipientStatus
from mtaq.reports.notice_text import notice_subject, notice_text, shown

#: A larger original comes back as its header section alone, whatever RET says (RFC 3461 §4.3 allows it).
RETURN_BYTES = 2**20
#: Of a header section so much comes back.
RETURN_HEADER_BYTES = 65_536

ACTIONS: dict[Kind, frozenset[Action]] = {
    "failure": frozenset(("failed",)),
    "delay": frozenset(("delayed",)),
    "success": frozenset(("delivered", "relayed", "expanded")),
}
"""What each kind of notice tells."""

_LINE = 76
_WORD_MAX = 900
_VALUE_MAX = 2_000

_is_message_id = re.compile(r"<[!-;=?-~]{1,250}>").fullmatch
_LINE_END = re.compile(rb"\r?\n")
_NOT_IN_LINES = re.compile(rb"\r(?!\n)|\0|[^\r\n]{999}")
#: What stands for itself in an address of type utf-8 (RFC 6533 §3: QCHAR).
_NOT_PLAIN = re.compile(r"[^!-*,-<>-\[\]-~]")


class _Part(NamedTuple):
    """A part of the notice: its type with parameters, its octets, and how they are encoded."""

    content_type: str
    octets: bytes
    encoding: str = ""


def is_internationalised(original: Original, recipients: Sequence[RecipientStatus]) -> bool:
    """Must the notice be sent with SMTPUTF8? So when it has addresses beyond ASCII for who can read them."""
    if not original.envelope.isascii():
        return True
    header = original.content[: header_end(original.content, RETURN_HEADER_BYTES)]
    told = [text for one in recipients for text in (one.recipient, one.original_recipient or "")]
    return original.smtputf8 and not (header.isascii() and all(text.isascii() for text in told))


def compose_notice(
    kind: Kind,
    original: Original,
    recipients: Sequence[RecipientStatus],
    *,
    hostname: str,
    sender: str,
    identity: str,
    now: datetime,
    max_return_bytes: int = RETURN_BYTES,
) -> bytes:
    """
    Return a notice to the sender of *original*; its own reverse-path is the null one (RFC 3464 §2).

    Args:
        kind: What is told; each of *recipients* has an action that goes with it (``ACTIONS``).
        original: The message.
        recipients: Whom it is about; never empty.
        hostname: Our name.
        sender: Address in ``From:``.
        identity: A new id for the notice: its ``Message-ID`` and its boundary are made of it.
        now: Timezone-aware.
        max_return_bytes: A larger original comes back as its header section.

    Raises:
        ValueError: The original has the null reverse-path, or a recipient's action is of another kind.
    """
    if not original.envelope:
        raise ValueError("no notice goes to the null reverse-path")
    if not recipients or any(one.action not in ACTIONS[kind] for one in recipients):
        raise ValueError(f"a notice of {kind} is about recipients that are {', '.join(sorted(ACTIONS[kind]))}")
    utf8 = is_internationalised(original, recipients)
    parts = [
        _text_part(notice_text(kind, original, recipients, hostname)),
        _status_part(original, recipients, hostname, utf8=utf8),
        _returned_part(kind, original, max_return_bytes, utf8=utf8),
    ]
    boundary = _boundary(identity, parts)
    subject = notice_subject(kind, recipients)
    header = _header(original, subject, hostname=hostname, sender=sender, identity=identity, now=now)
    eight_bit = any(part.encoding == "8bit" for part in parts)
    return b"".join([*header, *_top(boundary, eight_bit=eight_bit), *_body(boundary, parts)])


def _header(
    original: Original, subject: str, *, hostname: str, sender: str, identity: str, now: datetime
) -> Iterator[bytes]:
    yield _field("From", f"Mail Delivery System <{shown(sender)}>")
    yield _field("To", f"<{shown(original.envelope)}>")
    yield _field("Subject", subject)
    yield _field("Date", format_datetime(now.replace(microsecond=0)))
    yield _field("Message-ID", f"<{shown(identity)}@{shown(hostname)}>")
    about = first(group_of(original.content), "message-id")
    if about is not None and _is_message_id(about):
        yield _field("In-Reply-To", about)
        yield _field("References", about)
    yield _field("Auto-Submitted", "auto-replied")  # RFC 3834 §5
    yield _field("MIME-Version", "1.0")


def _top(boundary: str, *, eight_bit: bool) -> Iterator[bytes]:
    yield f'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="{boundary}"\r\n'.encode()
    if eight_bit:  # a multipart is as its parts are (RFC 2045 §6.4)
        yield b"Content-Transfer-Encoding: 8bit\r\n"
    yield b"\r\n"


def _body(boundary: str, parts: Sequence[_Part]) -> Iterator[bytes]:
    for part in parts:
        yield f"--{boundary}\r\nContent-Type: {part.content_type}\r\n".encode()
        if part.encoding:
            yield f"Content-Transfer-Encoding: {part.encoding}\r\n".encode()
        yield b"\r\n" + part.octets + b"\r\n"
    yield f"--{boundary}--\r\n".encode()


def _boundary(identity: str, parts: Sequence[_Part]) -> str:
    """Return a boundary that occurs in no part (RFC 2046 §5.1.1)."""
    stem = re.sub(r"[^A-Za-z0-9.-]", "-", identity)[:50]
    number = 0
    while any(f"--=_{number}.{stem}".encode() in part.octets for part in parts):
        number += 1
    return f"=_{number}.{stem}"


def _text_part(text: str) -> _Part:
    octets = text.encode("utf-8", "replace").replace(b"\n", b"\r\n")
    if octets.isascii():
        return _Part("text/plain; charset=us-ascii", octets)
    return _Part("text/plain; charset=utf-8", to_quoted_printable(octets, b"\r\n"), "quoted-printable")


def _status_part(original: Original, recipients: Sequence[RecipientStatus], hostname: str, *, utf8: bool) -> _Part:
    """Return what machines read: a group of fields of the message, and one of each recipient (RFC 3464 §2.1)."""
    groups = [_of_message(original, hostname), *(_of_recipient(one, utf8=utf8) for one in recipients)]
    octets = b"\r\n".join(b"".join(_field(name, _plain(value, utf8=utf8)) for name, value in group) for group in groups)
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    return _Part(kind, octets, "" if octets.isascii() else "8bit")


def _of_message(original: Original, hostname: str) -> Iterator[tuple[str, str]]:
    if original.envelope_id:
        yield "Original-Envelope-Id", original.envelope_id
    yield "Reporting-MTA", f"dns; {hostname}"
    if original.received_from:
        yield "Received-From-MTA", f"dns; {original.received_from}"
    if original.arrived_at is not None:
        yield "Arrival-Date", _date(original.arrived_at)


def _of_recipient(one: RecipientStatus, *, utf8: bool) -> Iterator[tuple[str, str]]:
    if one.original_recipient:
        kind, _, address = one.original_recipient.partition(";")
        yield "Original-Recipient", _typed(kind, address, utf8=utf8)
    yield "Final-Recipient", _typed("rfc822" if one.recipient.isascii() else "utf-8", one.recipient, utf8=utf8)
    yield "Action", one.action
    yield "Status", one.status
    if one.remote_mta:
        yield "Remote-MTA", f"dns; {one.remote_mta}"
    if one.diagnostic:
        yield "Diagnostic-Code", f"smtp; {one.diagnostic}"
    if one.last_attempt_at is not None:
        yield "Last-Attempt-Date", _date(one.last_attempt_at)
    if one.action == "delayed" and one.will_retry_until is not None:
        yield "Will-Retry-Until", _date(one.will_retry_until)


def _typed(kind: str, address: str, *, utf8: bool) -> str:
    """Return an address with its type, in ASCII where the notice is (RFC 6533 §3: utf-8-addr-xtext)."""
    if kind.lower() == "utf-8" and not utf8:
        address = _NOT_PLAIN.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", address)
    return f"{kind}; {address}"


def _returned_part(kind: Kind, original: Original, max_bytes: int, *, utf8: bool) -> _Part:
    """Return the original, or its header section: always when nothing failed (RFC 3461 §4.3)."""
    content = original.content
    if kind == "failure" and original.ret == "FULL" and len(content) <= max_bytes and not _NOT_IN_LINES.search(content):
        octets, media_type = content, "message/global" if utf8 else "message/rfc822"
    else:
        octets, media_type = _header_section(content), "message/global-headers" if utf8 else "text/rfc822-headers"
    octets = _LINE_END.sub(b"\r\n", octets)
    return _Part(media_type, octets, "" if octets.isascii() else "8bit")


def _header_section(content: bytes) -> bytes:
    """Return the header section, cut before the field that goes beyond what can come back."""
    section = content[: header_end(content)]
    broken = _NOT_IN_LINES.search(section)
    end = min(broken.start() if broken else len(section), RETURN_HEADER_BYTES)
    if end == len(section):
        return section
    lines = section[:end].splitlines(keepends=True)
    while lines and lines.pop().startswith((b" ", b"\t")):
        pass
    return b"".join(lines)


def _field(name: str, value: str) -> bytes:
    """Return a field, folded at blanks; a word that no line can hold is cut (RFC 5322 §2.1.1)."""
    octets = line = f"{name}:".encode()
    for number, word in enumerate(shown(value, _VALUE_MAX).encode("utf-8", "replace").split(b" ")):
        if len(word) > _WORD_MAX:
            word = word[:_WORD_MAX].decode("utf-8", "ignore").encode()
        if number and len(line) + 1 + len(word) > _LINE:
            octets += b"\r\n"
            line = b""
        octets += b" " + word
        line += b" " + word
    return octets + b"\r\n"


def _plain(value: str, *, utf8: bool) -> str:
    return value if utf8 else value.encode("ascii", "replace").decode("ascii")


def _date(at: datetime) -> str:
    return format_datetime(at.replace(microsecond=0))
