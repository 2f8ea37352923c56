"""Groups of fields, as machine-readable parts of reports have them (RFC 3464 §2.1, RFC 8098 §3.1, RFC 5965 §3.1).

Reading never fails; comments and types are taken off values by whoever knows that they may be there.
"""

from __future__ import annotations

import re

from mtaq.mime.headers import fields
from mtaq.mime.words import text_of
from mtaq.reports.report import VALUE_LIMIT

Group = dict[str, list[str]]
"""Names in lower case → values in order, unfolded."""

#: Groups of one part: a message of theirs, and a recipient each.
GROUPS_LIMIT = 1_001
GROUPS_BYTES = 2**20

_BETWEEN_GROUPS = re.compile(rb"\n[ \t]*(?:\r?\n[ \t]*)*\r?\n")
_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_TYPED = re.compile(r"\s*([A-Za-z0-9.-]{1,40})\s*;\s*(.*)", re.DOTALL)
_BLANKS = re.compile(r"[ \t]{2,}|\t")
_COMMENT = re.compile(r"\([^()]*\)")


def groups(octets: bytes) -> list[Group]:
    """Return the groups of fields, which blank lines part; within the limits above."""
    texts = _BETWEEN_GROUPS.split(octets[:GROUPS_BYTES].lstrip(b"\r\n \t"), GROUPS_LIMIT)
    found = (group_of(text) for text in texts[:GROUPS_LIMIT])
    return [{name: list(map(_on_one_line, values)) for name, values in group.items()} for group in found if group]


def _on_one_line(value: str) -> str:
    """Folding is all that blanks beyond one mean here."""
    return _BLANKS.sub(" ", value)


def group_of(octets: bytes) -> Group:
    """Return the fields of a header section, or of one group."""
    group: Group = {}
    for field in fields(octets):
        value = text_of(field.value)[:VALUE_LIMIT].strip()
        if value:
            group.setdefault(field.name.decode("ascii").lower(), []).append(value)
    return group


def first(group: Group, name: str) -> str | None:
    """Return the first value of a field, or ``None``."""
    values = group.get(name)
    return values[0] if values else None


def word_of(value: str | None) -> str | None:
    """Return a value that is one word, in lower case and without comments."""
    return (_COMMENT.sub("", value).strip().lower() or None) if value else None


def untyped(value: str | None) -> str | None:
    """Return *value* without the type before its semicolon (RFC 3464 §2.1.2)."""
    if value is None:
        return None
    match = _TYPED.fullmatch(value)
    return (match[2] if match else value).strip() or None


def address_of(value: str | None) -> str | None:
    """Return the address in a typed value: without type, brackets and, for ``utf-8``, escapes (RFC 6533 §3)."""
    if value is None:
        return None
    match = _TYPED.fullmatch(value)
    kind, address = (match[1].lower(), match[2]) if match else ("", value)
    if kind == "utf-8":
        address = _EMBEDDED.sub(_character, address)
    return address.strip().removeprefix("<").removesuffix(">").strip() or None


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if number < 0xD800 or 0xE000 <= number < 0x110000 else match[0]
