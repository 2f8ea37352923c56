"""What the JSON tells about a message's header section: the ``extracted`` property.

Reads with regular expressions and never fails: hostile or broken fields give odd values, not errors. It is a view for
people and scripts; nothing that decides about trust may rest on it.
"""

from __future__ import annotations

import re
from typing import Any

from mtaq.mime.describe import DESCRIBED_NAMES, parse_full
from mtaq.mime.headers import text_fields
from mtaq.mime.words import decode_words
from mtaq.model.address import address_parts

#: Addresses taken from one field.
ADDRESS_LIMIT = 1_000

EXTRACTED_NAMES = frozenset(
    ("from", "to", "cc", "subject", "date", "message-id", "headers", "envelope", "recipient", *DESCRIBED_NAMES)
)
"""What ``extracted`` is made of; whatever else stands in it was put there by an operator's code."""

_TOKEN = re.compile(
    r'(?P<quoted>"(?:[^"\\]++|\\.?)*+"?)|(?P<angle><[^<>]*>)|(?P<literal>\[[^\[\]]*\]?)'
    r'|(?P<open>\()|(?P<close>\))|(?P<end>[,;])|(?P<group>:)|(?P<text>[^"<\[(),;:\\]++|[<\\])',
    re.DOTALL,
)
_CHARACTERS = r"""[^"<>\[\](),;:\\@\s]+"""
#: What most fields are: one address, with or without a display name.
_match_one = re.compile(
    rf"""(?:[^"<>\[\](),;:\\@]*|"[^"\\]*"[ ]*)<({_CHARACTERS}@{_CHARACTERS})>|({_CHARACTERS}@{_CHARACTERS})"""
).fullmatch


def extracted(content: bytes, envelope: str, recipient: str, *, full: bool = False) -> dict[str, Any]:
    """
    Return the ``extracted`` property of *content*: what ``extracted_shared`` says, and the recipient's parts.

    Args:
        envelope: Reverse-path, empty for the null one.
        recipient: Forward-path.
        full: Describe the body as well.
    """
    return extracted_shared(content, envelope, full=full) | {"recipient": address_parts(recipient)}


def extracted_shared(content: bytes, envelope: str, *, full: bool = False) -> dict[str, Any]:
    """
    Return ``extracted`` as all recipients of a transaction share it: without ``recipient``.

    ``from``, ``subject``, ``date`` and ``message-id`` are there when the field is, each from the first such field;
    ``from``, ``to`` and ``cc`` are addresses without display names; ``subject`` is decoded (RFC 2047). ``headers``
    holds every field by its name in lower case, unfolded and not decoded; a name that occurs again has a list.
    With *full*, what ``describe.parse_full`` says of the body; for large content that is a matter for a thread.
    """
    headers = _headers(content)
    result: dict[str, Any] = {}
    senders = addresses_in(_first(headers.get("from")))
    if senders:
        result["from"] = senders[0]
    result["to"] = _all_addresses(headers.get("to"))
    result["cc"] = _all_addresses(headers.get("cc"))
    if "subject" in headers:
        result["subject"] = decode_words(_first(headers["subject"]))
    for name in ("date", "message-id"):
        if name in headers:
            result[name] = _first(headers[name])
    result["headers"] = headers
    result["envelope"] = address_parts(envelope)
    if full:
        result |= parse_full(content)
    return result


def _headers(content: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    for name, text in text_fields(content):
        known = headers.get(name)
        if known is None:
            headers[name] = text
        elif isinstance(known, list):
            known.append(text)
        else:
            headers[name] = [known, text]
    return headers


def addresses_in(value: str) -> list[str]:
    """Return the addresses in a field such as ``To`` (RFC 5322 §3.4): no display names, comments or group names."""
    one = _match_one(value)
    return [one[1] or one[2]] if one is not None else _many_addresses_in(value)


def _many_addresses_in(value: str) -> list[str]:
    found: list[str] = []
    text, angle, depth = "", "", 0
    for match in _TOKEN.finditer(value):
        kind = match.lastgroup
        if kind == "open" or kind == "close":
            depth = max(0, depth + (1 if kind == "open" else -1))
        elif depth:
            continue
        elif kind == "angle":
            angle = match[0][1:-1].strip()
        elif kind == "group":
            text = ""
        elif kind == "end":
            _add(found, angle or text)
            text = angle = ""
        else:
            text += match[0]
        if len(found) == ADDRESS_LIMIT:
            return found
    _add(found, angle or text)
    return found


def _add(found: list[str], text: str) -> None:
    address = text.strip()
    if "@" in address:
        found.append(address)


def _all_addresses(values: Any) -> list[str]:
    if values is None:
        return []
    texts = values if isinstance(values, list) else [values]
    return [address for text in texts for address in addresses_in(text)][:ADDRESS_LIMIT]


def _first(value: Any) -> str:
    if isinstance(value, list):
        value = value[0]
    return value if isinstance(value, str) else ""
