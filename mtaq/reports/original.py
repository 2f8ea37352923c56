"""The message that a report is about, as far as it came back with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mtaq.mime.words import decode_words
from mtaq.reports.fields import Group, first, group_of
from mtaq.reports.parts import Part

RETURNED = frozenset(
    (
        "message/rfc822", "text/rfc822-headers", "message/rfc822-headers",
        "message/global", "message/global-headers",
    )
)  # fmt: skip
"""Media types of a message, or of its header section, that came back (RFC 6522 §3, §4; RFC 6533 §4)."""

#: Of what came back, a header section fits into this; the rest is not decoded into fields.
_HEADER_BYTES = 262_144

#: The id that our ``Received`` field gives a message: the ``message-id`` of its JSON without the recipient's number.
_OUR_ID = re.compile(r"\bid ([A-Za-z0-9-]{1,31}\.[0-9a-v]{26})\b")


def original_of(parts: Sequence[Part]) -> dict[str, Any] | None:
    """Return what is known of the original message, from the first part that has it; ``None`` when none has."""
    for part in parts:
        if part.media_type in RETURNED:
            return described(group_of(part.octets()[:_HEADER_BYTES].lstrip(b"\r\n"))) or None
    return None


def described(header: Group) -> dict[str, Any]:
    """Return what identifies the message with this header section."""
    found: dict[str, Any] = {}
    for name in ("message-id", "from", "to", "subject", "date"):
        value = first(header, name)
        if value is not None:
            found[name] = decode_words(value)
    ours = (_OUR_ID.search(value) for value in header.get("received", ()))
    number = next((match[1] for match in ours if match), None)
    if number is not None:
        found["mtaq-id"] = number
    return found
