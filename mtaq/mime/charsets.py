"""Octets to text by the name of a charset, whatever the name and whatever the octets.

Never fails. The text that comes out holds no lone surrogates, so that it always fits into JSON.
"""

from __future__ import annotations

import codecs

#: Codecs that are no charsets of mail; some of them take quadratic time.
_NO_CHARSETS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"}


def codec_of(charset: str) -> str | None:
    """Return Python's name of *charset*, or ``None`` when it is not known or not one of mail."""
    try:
        b" ".decode(charset, "replace")
        name = codecs.lookup(charset).name.replace("_", "-")
    except (LookupError, ValueError):  # unknown, or a codec that is not for text
        return None
    return None if name in _NO_CHARSETS else name


def decode(octets: bytes, charset: str | None = None) -> str:
    """Return *octets* as text: in *charset* if it is known, else UTF-8 if they are that, else Windows-1252."""
    codec = codec_of(charset) if charset else None
    if codec in (None, "ascii"):  # labels of what is anything
        try:
            return octets.decode("utf-8")
        except UnicodeDecodeError:
            codec = "cp1252"
    try:
        text = octets.decode(codec or "cp1252", "replace")
    except (UnicodeError, LookupError):
        text = octets.decode("latin-1")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
