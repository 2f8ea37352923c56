"""Authentication-Results fields that claim to be ours and are not (RFC 8601 §5): they are taken out.

Programs behind this host believe what carries its authserv-id, and no two of them read the field alike. So a field goes
when it can be read as ours: any case, comments and folds before the id, a quoted id, a version behind it, U-labels or
A-labels; and when it cannot be read at all but has our id somewhere. Foreign fields stay, also
``ARC-Authentication-Results``, whose seal says who wrote it (RFC 8617 §4.1.1). No other octet changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import idna

from mtaq.mailauth.authres import unquoted
from mtaq.mailauth.from_field import a_label_domain
from mtaq.mime.headers import header_end, unfold
from mtaq.mime.words import decode_words, text_of

#: So many fields of so many octets altogether are read; honest mail has some ten of 500. All that follow go unread.
MAX_FIELDS = 100
MAX_READ_BYTES = 32_768

_NAME = b"authentication-results"
_FIELD = re.compile(
    rb"^authentication-results[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)", re.MULTILINE | re.IGNORECASE
)
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


def without_forged(content: bytes, authserv_id: str) -> bytes:
    """Return *content* without the fields of its header section that claim to be of *authserv_id*."""
    end = header_end(content)
    section = content[:end]
    if _NAME not in section.lower():
        return content
    ours = _spellings(authserv_id)
    kept, position, read_bytes = [], 0, 0
    for field in islice(_FIELD.finditer(section), MAX_FIELDS):
        read_bytes += len(field[0])
        if read_bytes > MAX_READ_BYTES:
            break
        kept_to = field.start() if _is_claimed(field[1], ours) else field.end()
        kept.append(section[position:kept_to])
        position = field.end()
    return b"".join([*kept, _FIELD.sub(b"", section[position:]), content[end:]])


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
