"""Where does the header section end, and which fields does it have (RFC 5322 §2.2)?

Bytes in, bytes out, never an exception: whatever the octets are, some fields are found and the rest is passed over.
CRLF and bare LF both end a line here, since content that a script wrote may have either. Every scan is one pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from mtaq.mime.words import text_of

#: More of a header section is not looked at when it is only read (not when it is edited).
HEADER_LIMIT_BYTES = 262_144
FIELD_LIMIT = 1_000
#: The same for trace fields, of which loops make many: they must be found before anything else is done.
TRACE_LIMIT_BYTES = 2**20

_EMPTY_LINE = re.compile(rb"\n\r?\n")
#: A name is printable ASCII without colon (RFC 5322 §2.2); blanks before the colon are obsolete and common (§4.5).
_FIELD = re.compile(rb"^([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)", re.MULTILINE)
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
# The same for text, which saves decoding each field on its own.
_TEXT_FIELD = re.compile(_FIELD.pattern.decode("ascii"), re.MULTILINE)
_TEXT_FOLD = re.compile(_FOLD.pattern.decode("ascii"))
#: Of a section in lower case; beginning with a literal it is found five times as fast as at the beginning of a line.
_RECEIVED = re.compile(rb"\nreceived[ \t]*+:")


class Field(NamedTuple):
    """One header field.

    Attributes:
        name: As written.
        value: Unfolded, without the blanks around it; 8-bit octets as they are.
    """

    name: bytes
    value: bytes


def header_end(content: bytes, limit_bytes: int | None = None) -> int:
    """Return where the header section ends: the offset of the empty line, or the length when there is none.

    With *limit_bytes* it ends there at the latest.
    """
    limit_bytes = len(content) if limit_bytes is None else min(limit_bytes, len(content))
    if content.startswith((b"\r\n", b"\n")):
        return 0
    match = _EMPTY_LINE.search(content, 0, limit_bytes)
    return match.start() + 1 if match is not None else limit_bytes


def fields(content: bytes) -> Iterator[Field]:
    """Yield the fields of the header section from the top, within the limits above."""
    end = header_end(content, HEADER_LIMIT_BYTES)
    for number, match in enumerate(_FIELD.finditer(content, 0, end)):
        if number == FIELD_LIMIT:
            return
        name, value = match.groups()
        yield Field(name, unfold(value))


def text_fields(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield what ``fields`` does as text: name in lower case, and value as UTF-8 (RFC 6532), else Latin-1."""
    try:
        section = content[: header_end(content, HEADER_LIMIT_BYTES)].decode("utf-8")
    except UnicodeDecodeError:
        for field in fields(content):
            yield field.name.decode("ascii").lower(), text_of(field.value)
        return
    for match in islice(_TEXT_FIELD.finditer(section), FIELD_LIMIT):
        name, value = match.groups()
        if "\n" in value:
            value = _TEXT_FOLD.sub("", value)
        yield name.lower(), value.strip(" \t\r\n")


def unfold(value: bytes) -> bytes:
    """Return *value* on one line (RFC 5322 §2.2.3), without the blanks around it."""
    if b"\n" in value:
        value = _FOLD.sub(b"", value)
    return value.strip(b" \t\r\n")


def count_received(content: bytes) -> int:
    """Return how many ``Received`` fields there are: how many hosts it has passed (RFC 5321 §6.3).

    Each host puts its own at the top, so more than ``TRACE_LIMIT_BYTES`` of a header section is not looked at.
    """
    section = b"\n" + content[: header_end(content, TRACE_LIMIT_BYTES)]
    return len(_RECEIVED.findall(section.lower()))
