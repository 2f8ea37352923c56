"""The part of a notice that people read (RFC 3464 §2.1): plain, exact, and in English.

Says what happened, to whom, why, and whether there is anything to do. What peers and senders wrote is quoted, on one
line and cut where it is long, so that nobody can put words into our mouth.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime

from mtaq.mime.words import decode_words
from mtaq.reports.fields import first, group_of
from mtaq.reports.notice import Kind, Original, RecipientStatus

_WIDTH = 72
_QUOTED_MAX = 600
_SUBJECT_MAX = 150

#: Blanks, C0, DEL, C1, line and paragraph separators, signs that turn the direction of text, lone surrogates.
_UNSHOWN = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")

_SUBJECTS: dict[Kind, str] = {
    "failure": "Your message could not be delivered",
    "delay": "Your message is delayed",
    "success": "Your message was delivered",
}

_BEGIN: dict[Kind, str] = {
    "failure": "Your message could not be delivered to {whom} below, and will not be tried again.",
    "delay": "Your message could not be delivered yet to {whom} below. It is tried again until it is delivered or its "
    "time is over. You need not do anything, and need not send it again.",
    "success": "You asked to be told what became of your message.",
}

#: What a status means, without its class (RFC 3463 §3).
_MEANINGS = {
    "1.1": "there is no such mailbox",
    "1.2": "there is no such domain",
    "1.3": "the address is malformed",
    "1.6": "the mailbox has moved",
    "1.10": "the domain takes no mail",
    "2.1": "the mailbox is disabled",
    "2.2": "the mailbox is full",
    "2.3": "the message is too large for the mailbox",
    "3.4": "the message is too large",
    "4.1": "the host does not answer",
    "4.2": "the connection broke",
    "4.4": "no way to the domain's mail host was found",
    "4.6": "the message went in a circle",
    "4.7": "it could not be delivered in time",
    "6.7": "the address needs SMTPUTF8, which the host does not offer",
    "7.1": "the host does not accept the message",
    "7.10": "the host does not offer the encryption that is asked for",
}
_DONE = {
    "delivered": "delivered to the mailbox",
    "relayed": "handed on to {host}, which tells nothing further: this is the last notice",
    "expanded": "sent on to several addresses, of which nothing further is told",
}


def notice_subject(kind: Kind, recipients: Sequence[RecipientStatus]) -> str:
    """Return the subject; what was not delivered to a mailbox is not called so."""
    if kind == "success" and any(one.action != "delivered" for one in recipients):
        return "Your message was handed on"
    return _SUBJECTS[kind]


def shown(text: str, limit: int = _QUOTED_MAX) -> str:
    """Return *text* on one line, without characters that cannot be seen, and not longer than *limit*."""
    line = _UNSHOWN.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def notice_text(kind: Kind, original: Original, recipients: Sequence[RecipientStatus], hostname: str) -> str:
    """Return the text, its lines ended by LF."""
    whom = "the recipient" if len(recipients) == 1 else "the recipients"
    paragraphs = [
        _filled(f"This is the mail system at {shown(hostname)}."),
        _filled(_BEGIN[kind].format(whom=whom)),
        *("\n".join(_about(recipient)) for recipient in recipients),
        "\n".join(_message(original)),
    ]
    if kind == "failure":
        paragraphs.append(_filled("Whoever runs the recipient's mail system can say more. Quote this notice to them."))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _about(recipient: RecipientStatus) -> Iterator[str]:
    yield f"  {shown(recipient.recipient)}"
    for text in _what(recipient):
        yield _filled(text, indent="      ")


def _what(recipient: RecipientStatus) -> Iterator[str]:
    host = shown(recipient.remote_mta) if recipient.remote_mta else "its mail host"
    if recipient.action in _DONE:
        yield _DONE[recipient.action].format(host=host)
        return
    reason = recipient.explanation or _MEANINGS.get(recipient.status.partition(".")[2])
    if reason:
        yield f"{shown(reason)} ({shown(recipient.status)})"
    if recipient.diagnostic:
        yield f"{host} said: {shown(recipient.diagnostic)}"
    elif not reason:
        yield f"status {shown(recipient.status)}"
    if recipient.action == "delayed" and recipient.will_retry_until is not None:
        yield f"It is tried until {_time(recipient.will_retry_until)}."


def _message(original: Original) -> Iterator[str]:
    """Say which message it is, by what its sender sees of it."""
    header = group_of(original.content)
    rows = [("Subject", "subject"), ("Date", "date"), ("Message-ID", "message-id"), ("To", "to")]
    found = [(label, first(header, name)) for label, name in rows]
    lines = [f"  {label}: {shown(decode_words(value), _SUBJECT_MAX)}" for label, value in found if value]
    if original.arrived_at is not None:
        lines.append(f"  Taken by us: {_time(original.arrived_at)}")
    if lines:
        yield "Your message:"
        yield ""
        yield from lines


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or 'UTC'}"


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=True
    )
