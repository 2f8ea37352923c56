"""What the JSON tells about a message's header section: the ``extracted`` property.

Reads with regular expressions and never fails: hostile or broken fields give odd values, not errors. It is a view for
people and scripts; nothing that decides about trust may rest on it.
"""

from __future__ import annotations

import re
from typing import Any

from mtaq.mime.headers import fields
from mtaq.mime.words import decode_words, text_of

#: Addresses taken from one field.
ADDRESS_LIMIT = 1_000

_TOKEN = re.compile(
    r'(?P<quoted>"(?:[^"\\]++|\\.?)*+"?)|(?P<angle><[^<>]*>)|(?P<literal>\[[^\[\]]*\]?)'
    r'|(?P<open>\()|(?P<close>\))|(?P<end>[,;])|(?P<group>:)|(?P<text>[^"<\[(),;:\\]++|[<\\])',
    re.DOTALL,
)


def extracted(content: bytes, envelope: str, recipient: str) -> dict[str, Any]:
    """
    Return the ``extracted`` property of *content*.

    ``from``, ``subject``, ``date`` and ``message-id`` are there when the field is, each from the first such field;
    ``from``, ``to`` and ``cc`` are addresses without display names; ``subject`` is decoded (RFC 2047). ``headers``
    holds every field by its name in lower case, unfolded and not decoded; a name that occurs again has a list.

    Args:
        envelope: Reverse-path, empty for the null one.
        recipient: Forward-path.
    """
    headers: dict[str, Any] = {}
    for field in fields(content):
        name, text = field.name.decode("ascii").lower(), text_of(field.value)
        known = headers.get(name)
        if known is None:
            headers[name] = text
        elif isinstance(known, list):
            known.append(text)
        else:
            headers[name] = [known, text]
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
    result["envelope"] = _parts(envelope)
    result["recipient"] = _parts(recipient)
    return result


def addresses_in(value: str) -> list[str]:
    """Return the addresses in a field such as ``To`` (RFC 5322 §3.4): no display names, comments or group names."""
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


def _parts(address: str) -> dict[str, str]:
    local_part, _, domain = address.rpartition("@")
    return {"local": local_part, "domain": domain} if local_part else {"local": domain, "domain": ""}
