"""What MAIL and RCPT say of notices: xtext, RET, ENVID, NOTIFY, ORCPT (RFC 3461 §4, RFC 6533 §3).

What is parsed is returned decoded, and holds nothing that could break a line of a notice or a log. Where the limits of
length leave it open they count what was decoded. What does not fit raises ``ValueError``. What is encoded was checked
before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: RFC 3461 §4.4.
ENVID_MAX = 100
#: RFC 3461 §4.2.
ORCPT_MAX = 500

#: What stands for itself in xtext (RFC 3461 §4), and in an address of type utf-8 (RFC 6533 §3: QCHAR).
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")

_NOTIFY_ON = frozenset((b"SUCCESS", b"FAILURE", b"DELAY"))

# Lower case digits are wrong and harmless.
_is_xtext = re.compile(rb"(?:[!-*,-<>-~\x80-\xff]|\+[0-9A-Fa-f]{2})*").fullmatch
_hex_octets = re.compile(rb"\+(..)")
_match_orcpt = re.compile(rb"([A-Za-z0-9-]{1,40});(.+)", re.DOTALL).fullmatch
_is_utf8_address = re.compile(r"(?:[^\\]|\\x\{[0-9A-Fa-f]{2,6}\})+", re.DOTALL).fullmatch
_embedded_characters = re.compile(r"\\x\{([0-9A-Fa-f]+)\}")
# C0, DEL, C1, the line and paragraph separators, lone surrogates.
_find_unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


class RecipientDsn(NamedTuple):
    """What was asked of notices about one forward-path (RFC 3461 §4.1, §4.2).

    Attributes:
        notify: ``("NEVER",)``, or some of ``SUCCESS``, ``FAILURE``, ``DELAY``; ``None`` when not given.
        orcpt: The original recipient, ``rfc822;user@example.test``, decoded; ``None`` when not given.
    """

    notify: tuple[str, ...] | None = None
    orcpt: str | None = None


def decode_xtext(text: bytes) -> bytes:
    """
    Undo ``+41`` for ``A`` (RFC 3461 §4).

    Raises:
        ValueError: It is not xtext.
    """
    if not _is_xtext(text):
        raise ValueError("not xtext")
    return _hex_octets.sub(lambda match: bytes.fromhex(match[1].decode("ascii")), text)


def encode_xtext(text: str) -> bytes:
    """Return printable ASCII as xtext."""
    return _NOT_XCHAR.sub(lambda match: f"+{ord(match[0]):02X}", text).encode("ascii")


def encode_orcpt(text: str) -> bytes:
    """Return ORCPT, type and address, for the wire; in ASCII whatever the address is (RFC 6533 §3)."""
    kind, _, address = text.partition(";")
    if kind.lower() == "utf-8":
        plain = _NOT_QCHAR.sub(lambda match: f"\\x{{{ord(match[0]):X}}}", address)
        return f"{kind};{plain}".encode("ascii")
    return kind.encode("ascii") + b";" + encode_xtext(address)


def parse_ret(value: bytes | None) -> str:
    """
    Parse RET: how much of a message its notice returns (RFC 3461 §4.3).

    Raises:
        ValueError: It is neither ``FULL`` nor ``HDRS``.
    """
    ret = (value or b"").upper()
    if ret not in (b"FULL", b"HDRS"):
        raise ValueError("RET is FULL or HDRS")
    return ret.decode("ascii")


def parse_envid(value: bytes | None) -> str:
    """
    Parse ENVID: the sender's name for the transaction (RFC 3461 §4.4).

    Raises:
        ValueError: It is not xtext of printable ASCII, or too long.
    """
    if not value:
        raise ValueError("ENVID wants a value")
    return _printable_ascii(decode_xtext(value), ENVID_MAX)


def parse_notify(value: bytes | None) -> tuple[str, ...]:
    """
    Parse NOTIFY: when a notice is wanted (RFC 3461 §4.1).

    Raises:
        ValueError: It is neither ``NEVER`` nor a list of the others without repetition.
    """
    words = (value or b"").upper().split(b",")
    if words != [b"NEVER"] and (len(set(words)) < len(words) or not _NOTIFY_ON.issuperset(words)):
        raise ValueError("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY")
    return tuple(word.decode("ascii") for word in words)


def parse_orcpt(value: bytes | None) -> str:
    """
    Parse ORCPT: the recipient as the sender named it (RFC 3461 §4.2; type utf-8: RFC 6533 §3).

    Returns:
        Type in lower case, semicolon, address.

    Raises:
        ValueError: It has no type, or the address is not printable text of that type, or it is too long.
    """
    match = _match_orcpt(value or b"")
    if match is None:
        raise ValueError("ORCPT is a type, a semicolon and an address")
    kind, address = match[1].decode("ascii").lower(), decode_xtext(match[2])
    limit = ORCPT_MAX - len(kind) - 1
    return f"{kind};{_utf8_address(address, limit) if kind == 'utf-8' else _printable_ascii(address, limit)}"


def _printable_ascii(octets: bytes, limit: int) -> str:
    text = octets.decode("latin-1")
    if not text.isascii() or not text.isprintable():
        raise ValueError("not printable ASCII")
    if len(text) > limit:
        raise ValueError("too long")
    return text


def _utf8_address(octets: bytes, limit: int) -> str:
    text = octets.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if not _is_utf8_address(text):
        raise ValueError("a lone backslash")
    text = _embedded_characters.sub(lambda match: chr(int(match[1], 16)), text)  # chr() raises ValueError itself
    if _find_unprintable(text):
        raise ValueError("not printable")
    if len(text) > limit:
        raise ValueError("too long")
    return text
