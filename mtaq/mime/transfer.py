"""Content transfer encodings (RFC 2045 §6): octets of a body to octets of what it carries, and back.

Decoding never fails: what cannot be understood is passed over, or stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import re

IDENTITIES = ("", "7bit", "8bit", "binary")

_NO_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_LINE_MAX = 998

#: RFC 2045 §6.7: longest line of quoted-printable.
_QP_LINE = 76


def decoded(body: bytes, encoding: str) -> bytes:
    """Return what *body* carries; an encoding that is not known is none."""
    if encoding == "base64":
        return _from_base64(body)
    if encoding == "quoted-printable":
        return binascii.a2b_qp(body)
    return body


def _from_base64(body: bytes) -> bytes:
    """Read on behind padding in the middle, as some readers do: what they see must not be missed."""
    octets = b""
    for piece in body.split(b"=") if b"=" in body.rstrip(b"=\r\n\t ") else [body]:
        letters = _NO_BASE64.sub(b"", piece)
        letters = letters[: len(letters) - 1] if len(letters) % 4 == 1 else letters
        octets += base64.b64decode(letters + b"=" * (-len(letters) % 4))
    return octets


def to_base64(octets: bytes, newline: bytes) -> bytes:
    """Return *octets* in base64, lines of 76 characters, without a line end at the end."""
    return base64.encodebytes(octets).replace(b"\n", newline).removesuffix(newline)


def to_quoted_printable(octets: bytes, newline: bytes) -> bytes:
    """Return *octets*, whose line ends are *newline*, as quoted-printable; no line begins with two dashes."""
    encoded = binascii.b2a_qp(octets, istext=True)
    # One that did might be taken for a delimiter.
    return re.sub(rb"^--[^\r\n]*", lambda match: _without_dashes(match[0], newline), encoded, flags=re.MULTILINE)


def _without_dashes(line: bytes, newline: bytes) -> bytes:
    """Return an encoded line that does not begin with two dashes, in two lines where it would grow too long."""
    if not line.startswith(b"--"):
        return line
    if len(line) <= _QP_LINE - 2:
        return b"=2D" + line[1:]
    cut = _QP_LINE // 2
    while b"=" in line[cut - 2 : cut]:
        cut -= 1
    return b"=2D" + line[1:cut] + b"=" + newline + _without_dashes(line[cut:], newline)


def fits_unencoded(octets: bytes, *, eight_bit: bool) -> bool:
    """Can *octets* stand in a body as they are, and be taken for nothing else?"""
    if not (eight_bit or octets.isascii()) or b"\0" in octets:
        return False
    return not any(len(line) > _LINE_MAX or line.startswith(b"--") for line in octets.splitlines())
