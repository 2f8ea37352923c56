"""Who a certificate says it is, without believing it: subject, issuer and end of an X.509 certificate (RFC 5280).

Python's ``ssl`` tells these only of certificates it has verified; results show them of any. Reads the few fields it
needs and gives up with ``None`` on whatever is not DER. Also gets at what a host has sent: its chain, its key.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mtaq.model.times import format_time

_ATTRIBUTES = {
    b"\x55\x04\x03": "CN", b"\x55\x04\x06": "C", b"\x55\x04\x07": "L", b"\x55\x04\x08": "ST", b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}  # fmt: skip
_VERSION, _UTC_TIME, _BMP_STRING = 0xA0, 0x17, 0x1E


class Names(NamedTuple):
    """What a certificate says of itself; ``not_after`` as the JSON writes times."""

    subject: str
    issuer: str
    not_after: str


def read_names(der: bytes) -> Names | None:
    """Return the names in the certificate *der*, or ``None`` when it cannot be read."""
    try:
        _serial, _algorithm, (_, issuer), (_, validity), (_, subject), *_ = _fields(der)
        _, (tag, not_after), *_ = _items(validity)
        return Names(_name(subject), _name(issuer), format_time(_time(tag, not_after)))
    except (ValueError, IndexError):
        return None


def public_key_info(der: bytes) -> bytes | None:
    """Return the SubjectPublicKeyInfo of the certificate *der*, octet for octet; ``None`` when it cannot be read."""
    try:
        _serial, _algorithm, _issuer, _validity, _subject, (tag, content), *_ = _fields(der)
    except (ValueError, IndexError):
        return None
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def presented_chain(session: ssl.SSLObject) -> list[bytes]:
    """Return the certificates that the peer sent, in DER, its own first; verified or not."""
    # Public from Python 3.13 on; before, what ``ssl`` wraps has it since 3.10.
    holder: Any = session if hasattr(session, "get_unverified_chain") else session._sslobj  # type: ignore[attr-defined]
    chain = holder.get_unverified_chain() or ()
    return [each if isinstance(each, bytes) else ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in chain]


def _fields(der: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of the part that is signed, the version left out (RFC 5280 §4.1)."""
    (_, certificate), *_ = _items(der)
    (_, to_be_signed), *_ = _items(certificate)
    return [item for item in _items(to_be_signed) if item[0] != _VERSION]


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element (X.690 §8.1)."""
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            octets = length & 0x7F
            length, at = int.from_bytes(data[at : at + octets], "big"), at + octets
        if at + length > len(data):
            raise ValueError("cut off")
        yield tag, data[at : at + length]
        at += length


def _name(data: bytes) -> str:
    parts = []
    for _, relative_name in _items(data):
        for _, attribute in _items(relative_name):
            (_, kind), (tag, value), *_ = _items(attribute)
            if kind in _ATTRIBUTES:
                text = value.decode("utf-16-be" if tag == _BMP_STRING else "utf-8", "replace")
                parts.append(f"{_ATTRIBUTES[kind]}={text}")
    return ", ".join(parts)


def _time(tag: int, data: bytes) -> datetime:
    text = data.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280 §4.1.2.5.1: two digits are years from 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
