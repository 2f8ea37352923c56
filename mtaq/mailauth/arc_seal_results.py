"""What an ARC set says we found: the payload of ARC-Authentication-Results (RFC 8617 §4.1.1).

It is made of the ``checks`` of a message, or else of the Authentication-Results fields above it that carry our
authserv-id, several taken together; reception takes out those that are forged. Neither is believed in its form: what
cannot stand in such a field is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mtaq.mailauth.authres import LINE_LENGTH, MAX_FIELD_BYTES, AuthresSyntaxError, after_comment, compose, parse
from mtaq.mailauth.dkim_canonical import CRLF
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.verdict import Verdict
from mtaq.mime.headers import unfold
from mtaq.mime.words import text_of

#: More results than this are not told; the checks have some ten.
MAX_RESULTS = 50

#: Check → its method in the field, and which parts of its item are which property there, as the checks write them.
_METHODS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "arc": ("arc", {"oldest-pass": "header.oldest-pass"}),
    "spf": ("spf", {"smtp.mailfrom": "smtp.mailfrom", "smtp.helo": "smtp.helo"}),
    "dkim": (
        "dkim",
        {
            "domain": "header.d", "selector": "header.s", "header.i": "header.i", "header.b": "header.b",
            "algorithm": "header.a",
        },
    ),
    "dmarc": ("dmarc", {"header.from": "header.from", "disposition": "policy.dmarc"}),
    "iprev": ("iprev", {"policy.iprev": "policy.iprev"}),
    "spam": ("x-spam", {"score": "policy.score", "threshold": "policy.threshold"}),
}  # fmt: skip
_WORD = re.compile(r"[a-z]{1,20}")
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+"|[;(]', re.DOTALL)


def results_of_checks(authserv_id: str, checks: Sequence[Any], *, arc: str | None = None, utf8: bool = False) -> bytes:
    """
    Return what *checks* (the property) say, from the authserv-id on, folded.

    Args:
        arc: What was found of the chain, where the checks do not say.
        utf8: As for ``compose``.
    """
    verdicts = [verdict for item in checks[:MAX_RESULTS] if (verdict := _verdict(item)) is not None]
    if arc is not None:
        verdicts = [Verdict("arc", arc), *(verdict for verdict in verdicts if verdict.method != "arc")]
    field = compose(authserv_id, verdicts, utf8=utf8)
    return field.partition(b": ")[2].removesuffix(CRLF)


def _verdict(item: Any) -> Verdict | None:
    if not isinstance(item, dict):
        return None
    check = next((name for name in _METHODS if name in item), None)
    if check is None or not isinstance(item[check], str) or not _WORD.fullmatch(item[check]):
        return None
    method, names = _METHODS[check]
    reason = item.get("reason")
    return Verdict(method, item[check], reason if isinstance(reason, str) else None, tuple(_properties(item, names)))


def _properties(item: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for ours, theirs in names.items():
        value = item.get(ours)
        if theirs == "header.oldest-pass" and value == 1:
            value = 0  # RFC 8617 §5.2: all signatures verify
        if isinstance(value, str) and value:
            yield theirs, value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield theirs, f"{value:g}"


def results_in(message: SignedMessage, authserv_id: str, *, arc: str | None = None) -> bytes:
    """
    Return what the fields of *message* with our authserv-id say, from the authserv-id on, folded.

    Args:
        arc: What was found of the chain, where they do not say.
    """
    found: list[str] = []
    told: set[str] = set()
    for field in message.named(b"authentication-results")[:MAX_RESULTS]:
        try:
            read = parse(field.value)
        except AuthresSyntaxError:
            continue
        if read.authserv_id.lower() == authserv_id.lower() and read.verdicts:
            found.append(_payload(field.value))
            told.update(verdict.method for verdict in read.verdicts)
    if arc is not None and "arc" not in told:
        found.insert(0, f"arc={arc}")
    return _wrapped(f"{authserv_id}; {'; '.join(found) or 'none'}").encode()


def _payload(value: bytes) -> str:
    """Return what stands behind the authserv-id, comments included, on one line."""
    text = text_of(unfold(value[:MAX_FIELD_BYTES]))
    position = 0
    while (match := _STRUCTURE.search(text, position)) is not None and match[0] != ";":
        position = after_comment(text, match.end()) if match[0] == "(" else match.end()
    assert match is not None, "it has been read"
    return " ".join(text[match.end() :].split()).rstrip("; ")


def _wrapped(text: str) -> str:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LINE_LENGTH - 1:
            lines.append(word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return "\r\n\t".join(lines)
