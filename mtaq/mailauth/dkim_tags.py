"""Tag lists, ``a=rsa-sha256; d=example.com``, as signatures and key records have them (RFC 6376 §3.2, RFC 8616 §5).

Reads the form only, in one pass; what a tag means is for ``dkim_signature`` and ``dkim_key``. Whatever is not of the
form is a ``TagError``: two programs that guess differently see different signatures.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import idna

#: Longer lists are not read: a signature with a 4096-bit key and a hundred names has 3,000 octets.
MAX_TAG_LIST_BYTES = 16_384
#: Longest name of a domain (RFC 1035 §2.3.4), and of the parts of a key's name together.
_MAX_NAME = 253

_FWS = " \t\r\n"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*+")
# Control characters and DEL have no place; what is beyond ASCII may stand where RFC 8616 §5 has it.
_VALUE = re.compile(r"[\t\r\n -:<-~\xa0-\U0010ffff]*+")
_BLANKS = re.compile(r"[ \t\r\n]+")
_QUOTED = re.compile(rb"=([0-9A-F]{2})")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_B_TAG = re.compile(rb"[ \t\r\n]*b[ \t\r\n]*")


class TagError(ValueError):
    """Not a tag list, or a tag's value is not of its form; the text may be shown to anybody."""


def parse_tags(octets: bytes) -> dict[str, str]:
    """
    Return the tags in their order, blanks around names and values taken away; blanks inside values stay.

    Raises:
        TagError: It is too long, not UTF-8, not a tag list, or names a tag twice.
    """
    if len(octets) > MAX_TAG_LIST_BYTES:
        raise TagError(f"more than {MAX_TAG_LIST_BYTES} octets")
    try:
        parts = octets.decode("utf-8").split(";")
    except UnicodeDecodeError as error:
        raise TagError("not UTF-8") from error
    if len(parts) > 1 and not parts[-1].strip(_FWS):
        parts.pop()  # the list may end with a semicolon
    tags: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name, value = name.strip(_FWS), value.strip(_FWS)
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise TagError("not a list of tags")
        if name in tags:
            raise TagError("a tag stands twice")
        tags[name] = value
    return tags


def without_b(value: bytes) -> bytes:
    """Return a tag list whose ``b=`` is empty, everything else as it is: what a signature signs (RFC 6376 §3.7)."""
    parts = value.split(b";")
    for number, part in enumerate(parts):
        name, equals, _ = part.partition(b"=")
        if equals and _B_TAG.fullmatch(name):
            parts[number] = name + equals
    return b";".join(parts)


def required(tags: Mapping[str, str], name: str) -> str:
    """
    Return a tag's value.

    Raises:
        TagError: It is missing, or empty.
    """
    value = tags.get(name, "")
    if not value:
        raise TagError(f"no {name}=")
    return value


def base64_tag(tags: Mapping[str, str], name: str) -> bytes:
    """
    Return what a tag holds in base64, in which blanks do not count.

    Raises:
        TagError: It is missing or not base64.
    """
    try:
        return base64.b64decode(_BLANKS.sub("", required(tags, name)), validate=True)
    except (binascii.Error, ValueError) as error:
        raise TagError(f"{name}= is not base64") from error


def number_tag(tags: Mapping[str, str], name: str, max_digits: int) -> int | None:
    """
    Return a tag's decimal number; ``None`` where the tag is missing.

    Raises:
        TagError: It is no such number.
    """
    value = tags.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= max_digits):
        raise TagError(f"{name}= is not a number")
    return int(value)


def list_tag(tags: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the parts between colons, without the blanks around them; those that are empty are left out."""
    parts = (part.strip(_FWS) for part in tags.get(name, "").split(":"))
    return tuple(part for part in parts if part)


def name_tag(tags: Mapping[str, str], name: str, min_labels: int) -> str:
    """
    Return a tag's domain name or selector in A-labels and lower case (RFC 8616 §5).

    Raises:
        TagError: It is missing or no such name.
    """
    return domain_name(required(tags, name), f"{name}=", min_labels)


def domain_name(text: str, what: str, min_labels: int) -> str:
    """
    Return *text* in A-labels and lower case.

    Underscores are let through: many selectors have them.

    Raises:
        TagError: It is no domain name of at least *min_labels* labels; *what* says where it stood.
    """
    if not text.isascii():
        text = _a_labels(text, what)
    labels = text.lower().split(".") if len(text) <= _MAX_NAME else []
    if len(labels) < min_labels or not all(_LABEL.fullmatch(label) for label in labels):
        raise TagError(f"{what} is not a domain name")
    return ".".join(labels)


def _a_labels(text: str, what: str) -> str:
    try:
        return idna.encode(text[: _MAX_NAME + 1], uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:  # idna.IDNAError is one
        raise TagError(f"{what} is not a domain name") from error


def unquoted(value: str) -> str:
    """
    Return the text of a value in dkim-quoted-printable (RFC 6376 §2.11), in which blanks do not count.

    Raises:
        TagError: It is not in that encoding, or the text has control characters.
    """
    octets = _BLANKS.sub("", value).encode("utf-8")
    if octets.count(b"=") != len(_QUOTED.findall(octets)):
        raise TagError("not in dkim-quoted-printable")
    try:
        text = _QUOTED.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), octets).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TagError("not UTF-8") from error
    if not text.isprintable():
        raise TagError("control characters")
    return text
