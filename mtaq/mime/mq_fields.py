"""The ``x-mq-*`` fields of a header section: found, and taken out.

What a field means is ``receive.properties``'s work. Found is every line of the header section that begins with
``x-mq-`` in any case, together with its folded lines and whether or not it is a well-formed field, so nothing that
another reader might take for one stays behind. Fields of the parts inside the body are not looked at. All that remains
stays byte for byte. Every scan is one pass, and content without such a field costs one search of its header section.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

from mtaq.mime.headers import header_end, unfold

PREFIX = "x-mq-"

_starts_with_one = re.compile(rb"[xX]-[mM][qQ]-").match
#: The end of the header section or the first of our fields, whichever comes first. That it begins with a plain
#: character lets the engine leap from line to line.
_find_end_or_field = re.compile(rb"\n(?:(\r?\n)|[xX]-[mM][qQ]-)").search
_LINES = re.compile(rb"^[xX]-[mM][qQ]-[^\n]*+(?:\n[ \t][^\n]*+)*+(?:\n|\Z)", re.MULTILINE)
_split_field = re.compile(rb"([!-9;-~]++)[ \t]*+:(.*)\Z", re.DOTALL).match


class MqField(NamedTuple):
    """One field whose name begins with ``x-mq-``.

    Attributes:
        name: What follows the prefix, in lower case; ``None`` when the lines are no header field (RFC 5322 §2.2).
        value: Unfolded, without the blanks around it; octets as they are.
    """

    name: str | None
    value: bytes


def has_mq_fields(content: bytes) -> bool:
    """Is there one in the header section of *content*?"""
    if _starts_with_one(content):
        return True
    if content.startswith((b"\r\n", b"\n")):
        return False
    found = _find_end_or_field(content)
    return found is not None and found[1] is None


def split_mq_fields(content: bytes, most: int | None = None) -> tuple[bytes, list[bytes]]:
    """
    Return *content* without these fields, and the lines of each field, from the top.

    The content is the same object when there is none. What the lines say is ``read_mq_field``'s work, so that whoever
    bounds them need not have all of them read. With more than *most* of them, only so many are taken out.
    """
    if not has_mq_fields(content):
        return content, []
    kept: list[bytes | memoryview] = []
    taken: list[bytes] = []
    view, position = memoryview(content), 0
    for match in islice(_LINES.finditer(content, 0, header_end(content)), most):
        kept.append(view[position : match.start()])
        taken.append(match[0])
        position = match.end()
    kept.append(view[position:])
    return b"".join(kept), taken


def strip_mq_fields(content: bytes) -> bytes:
    """Return *content* without these fields; the same object when there is none."""
    if not has_mq_fields(content):
        return content
    end = header_end(content)
    return b"".join((_LINES.sub(b"", content[:end]), memoryview(content)[end:]))


def read_mq_field(lines: bytes) -> MqField:
    """Return what the *lines* of a field say."""
    match = _split_field(lines)
    if match is None:
        return MqField(None, b"")
    return MqField(match[1].decode("ascii").lower().removeprefix(PREFIX), unfold(match[2]))
