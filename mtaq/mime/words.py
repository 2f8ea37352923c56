"""Encoded-words (RFC 2047): text that is not ASCII in header fields.

Decoding never fails: what cannot be understood stays as it stands. The text that comes out holds no lone surrogates,
so that it always fits into JSON.
"""

from __future__ import annotations

import base64
import binascii
import re

from mtaq.mime.charsets import codec_of, decode

#: RFC 2047 §2: an encoded-word has at most 75 characters; ``=?utf-8?B?`` and ``?=`` take 12 of them, base64 a third.
_BYTES_PER_WORD = 45

_WORD = re.compile(r"=\?([!-)+->@-~]{1,40})(?:\*[!->@-~]{0,40})?\?([BbQq])\?([ !->@-~]{0,2000})\?=")
_GAP_BETWEEN_WORDS = re.compile(r"(\?=)[ \t]+(?==\?)")
_Q_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")


def text_of(value: bytes) -> str:
    """Return a field's value as text: UTF-8 (RFC 6532), else Latin-1, encoded-words left as they are."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def decode_words(text: str) -> str:
    """Return *text* with its encoded-words decoded (RFC 2047 §6); blanks between two of them vanish (§6.2)."""
    if "=?" not in text:
        return text
    pieces: list[str] = []
    pending: tuple[str, bytes] | None = None  # neighbours of one charset: a character may be cut in two between them
    position = 0
    text = _GAP_BETWEEN_WORDS.sub(r"\1", text)
    for match in _WORD.finditer(text):
        charset, octets = match[1].lower(), _octets(match[2], match[3])
        if octets is None or codec_of(charset) is None:
            continue
        between = text[position : match.start()]
        if pending is not None and not between and pending[0] == charset:
            pending = (charset, pending[1] + octets)
        else:
            pieces += [_decoded(pending), between]
            pending = (charset, octets)
        position = match.end()
    return "".join([*pieces, _decoded(pending), text[position:]])


def encode_words(text: str) -> str:
    """Return *text* as encoded-words of UTF-8, one or several with a blank between them."""
    words: list[str] = []
    octets = b""
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(octets) + len(encoded) > _BYTES_PER_WORD:
            words.append(_word(octets))
            octets = b""
        octets += encoded
    return " ".join([*words, _word(octets)])


def _word(octets: bytes) -> str:
    return f"=?utf-8?B?{base64.b64encode(octets).decode('ascii')}?="


def _octets(encoding: str, text: str) -> bytes | None:
    data = text.encode("ascii")
    if encoding in "Qq":
        return _Q_OCTET.sub(lambda match: bytes.fromhex(match[1].decode()), data.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        return None


def _decoded(word: tuple[str, bytes] | None) -> str:
    return "" if word is None else decode(word[1], word[0])
