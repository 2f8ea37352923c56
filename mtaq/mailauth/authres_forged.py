"""Authentication-Results fields that claim to be ours and are not (RFC 8601 §5): they are taken out.

Programs behind this host believe what carries its authserv-id, and no two of them read the field alike. So a field goes
when it can be read as ours: any case, comments and folds before the id, a quoted id, a version behind it, U-labels or
A-labels; and when it cannot be read at all but has our id somewhere. Foreign fields stay, also
``ARC-Authentication-Results``, whose seal says who wrote it (RFC 8617 §4.1.1). No other octet changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import idna

from mtaq.mailauth.authres import unquoted
from mtaq.mailauth.from_field import a_label_domain
from mtaq.mime.headers import header_end, unfold
from mtaq.mime.words import decode_words, text_of

#: So many fields of so many octets altogether are read; honest mail has some ten of 500. All that follow go unread.
MAX_FIELDS = 100
MAX_READ_BYTES = 32_768

_NAME = b"authentication-results"
#: Readers pass over these wherever they stand.
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\r\x0b\x0c"})
_JUNK = rb"[\x00-\x08\x0e-\x1f\x7f]*+"
#: The name as lenient readers find it, with controls within, octets beyond ASCII or a fold behind it …
_NAME_FOUND = re.compile(
    b"".join(b"%c%b" % (letter, _JUNK) for letter in _NAME) + rb"(?:[^\n!-~]|\n[ \t])*+:", re.IGNORECASE
)
#: … and before it; a line that begins with a blank goes on with the field above.
_BEFORE_NAME = re.compile(rb"(?:[^ \t!-~][^!-~]*+)?+")
_VALUE = re.compile(rb"([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)")
#: Some readers end a line at all of these.
_LINE_ENDS = (b"\n", b"\r", b"\x0b", b"\x0c")
_COMMENT = r"\((?:[^()\\]|\\.)*+\)"
for _ in range(3):  # comments in comments, to this depth
    _COMMENT = rf"\((?:[^()\\]|\\.|{_COMMENT})*+\)"
_BLANK = rf"(?:[ \t]|{_COMMENT})"
#: The id, a version or none, and where that must end (RFC 8601 §2.2).
_CLAIM = re.compile(
    rf"""{_BLANK}*+("(?:[^"\\]|\\.)*+"|[^\x00- \x7f()<>@,;:\\"/\[\]?=]++)(?:{_BLANK}++[0-9]++)?{_BLANK}*+(?:;|\Z)""",
    re.DOTALL,
)
_PAIR_OR_COMMENT = re.compile(rf"(\\.)|{_COMMENT}", re.DOTALL)
_NOISE = re.compile(r'[\x00- \x7f"\\()]+')


class _Field(NamedTuple):
    """Where a field stands, and what it says; ``line_end`` stays when it is only a part of a line."""

    start: int
    end: int
    value: bytes
    line_end: bytes


def without_forged(content: bytes, authserv_id: str) -> bytes:
    """Return *content* without the fields of its header section that claim to be of *authserv_id*."""
    end = header_end(content)
    section = content[:end]
    if _NAME not in section.translate(None, _CONTROLS).lower():
        return content
    ours = _spellings(authserv_id)
    kept, position, read_bytes = [], 0, 0
    for number, field in enumerate(_fields(section)):
        read_bytes += field.end - field.start
        unread = number >= MAX_FIELDS or read_bytes > MAX_READ_BYTES
        if unread or _is_claimed(field.value, ours):
            kept += [section[position : field.start], field.line_end]
            position = field.end
    return b"".join([*kept, section[position:end], content[end:]])


def _fields(section: bytes) -> Iterator[_Field]:
    """Yield the fields of that name, from the top."""
    seen_to = 0
    for name in _NAME_FOUND.finditer(section):
        start = max(section.rfind(line_end, seen_to, name.start()) for line_end in _LINE_ENDS) + 1
        goes_on, seen_to = start == 0 and seen_to > 0, name.end()
        if goes_on or _BEFORE_NAME.fullmatch(section, start, name.start()) is None:
            continue
        value = _VALUE.match(section, name.end())
        assert value is not None
        is_part = start > 0 and section[start - 1 : start] != b"\n"
        yield _Field(start, value.end(), value[1], b"\r\n" if is_part else b"")


def _is_claimed(value: bytes, ours: frozenset[str]) -> bool:
    text = text_of(unfold(value))
    claim = _CLAIM.match(text)
    if claim is not None:
        named = unquoted(claim[1]) if claim[1].startswith('"') else claim[1]
        return not ours.isdisjoint(_spellings(named))
    return any(spelling in reading for reading in _readings(text) for spelling in ours)


def _spellings(authserv_id: str) -> frozenset[str]:
    """Return the forms in which an id is compared: as it is, and in A-labels and U-labels where it is a domain."""
    text = authserv_id.strip(" \t").removesuffix(".").lower()
    a_labels = a_label_domain(text)
    if a_labels is None:
        return frozenset({text})
    try:
        return frozenset({text, a_labels, idna.decode(a_labels)})
    except UnicodeError:
        return frozenset({text, a_labels})


def _readings(text: str) -> Iterator[str]:
    """Yield what lenient readers may make of a field: with comments and without, encoded-words decoded or not."""
    for form in (text, decode_words(text)):
        for stripped in (form, _PAIR_OR_COMMENT.sub(r"\1", form)):
            yield _NOISE.sub("", stripped).lower()
