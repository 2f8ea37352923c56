"""What ``mtaq send`` makes of the text it reads: a whole message with CRLF line ends, and who gets it.

Pure; raises ``ValueError`` with words for whoever called the program.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import BinaryIO

from mtaq.mime.edit import edit_headers
from mtaq.mime.extract import addresses_in
from mtaq.mime.headers import fields
from mtaq.mime.words import text_of
from mtaq.model.address import Address
from mtaq.smtp.grammar import parse_mailbox

_LINE_END = re.compile(rb"\r\n|\r|\n")
#: As many fields as stand at the top. What follows without an empty line is the body of somebody in a hurry.
_LEADING_FIELDS = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z))*+")
_RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")


def read_message(source: BinaryIO, *, dot_ends: bool) -> bytes:
    """
    Read a message to its end and return it with CRLF line ends, the last one included.

    Args:
        dot_ends: A line with nothing but a dot ends it too.
    """
    if dot_ends:
        text = b"".join(iter(lambda: _line_but_dot(source), b""))
    else:
        text = source.read()
    content = _LINE_END.sub(b"\r\n", text)
    return content if not content or content.endswith(b"\r\n") else content + b"\r\n"


def _line_but_dot(source: BinaryIO) -> bytes:
    line = source.readline()
    return b"" if line in (b".\n", b".\r\n", b".") else line


def complete(content: bytes, *, author: Address, hostname: str, now: datetime) -> bytes:
    """Return *content* with an end of its header section, and with the fields that every message must have.

    Args:
        author: For ``From``, when there is none (RFC 5322 §3.6).
        hostname: For ``Message-ID``, when there is none.
    """
    end = _leading_fields_end(content)
    if not content.startswith(b"\r\n", end):
        content = content[:end] + b"\r\n" + content[end:]
    present = {field.name.lower() for field in fields(content)}
    wanted = {
        "Date": format_datetime(now),
        "From": str(author),
        "Message-ID": f"<{now:%Y%m%d%H%M%S}.{secrets.token_hex(8)}@{hostname}>",
    }
    missing = {name: value for name, value in wanted.items() if name.lower().encode() not in present}
    return edit_headers(content, {"append": missing}, smtputf8=True)


def _leading_fields_end(content: bytes) -> int:
    match = _LEADING_FIELDS.match(content)
    return match.end() if match is not None else 0


def recipients_of(content: bytes) -> list[str]:
    """Return the addresses in ``To``, ``Cc`` and ``Bcc``, as written."""
    return [
        address
        for field in fields(content)
        if field.name.lower() in _RECIPIENT_FIELDS
        for address in addresses_in(text_of(field.value))
    ]


def without_bcc(content: bytes) -> bytes:
    """Return *content* without its ``Bcc`` fields."""
    return edit_headers(content, {"remove": "Bcc"})


def parse_address(text: str, hostname: str) -> Address:
    """
    Read an address as people write it: with or without a display name; without a domain it is one of *hostname*.

    Raises:
        ValueError: It is none.
    """
    written = text.strip()
    if not written.isprintable():
        raise ValueError(f"{text!r} is not an address: it holds control characters")
    if "<" in written:
        found = addresses_in(written)
        if len(found) != 1:
            raise ValueError(f"{text!r} is not an address")
        written = found[0]
    if "@" not in written:
        written = f"{written}@{hostname}"
    try:
        return parse_mailbox(written, strict=False, smtputf8=True)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an address: {error}") from error


def unique(addresses: Iterable[Address]) -> Sequence[Address]:
    """Return each address once, in the order given."""
    return list(dict.fromkeys(addresses))
