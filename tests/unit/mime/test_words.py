"""Encoded-words, both ways."""

from __future__ import annotations

import email.header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.words import decode_words, encode_words, text_of


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("plain", "plain"),
        ("=?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
        ("=?UTF-8?b?R3LDvMOfZQ?= an alle", "Grüße an alle"),
        ("=?iso-8859-1?Q?Gr=FC=DFe_an?= alle", "Grüße an alle"),
        ("=?iso-8859-1*de?Q?Gr=FC=DFe?=", "Grüße"),
        ("=?utf-8?Q?a?= =?utf-8?Q?b?= c =?utf-8?Q?d?=", "ab c d"),
        ("=?utf-8?B?w7w=?==?utf-8?B?w58=?=", "üß"),
        ("=?utf-8?B?w?= =?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "=?utf-8?B?w?=ü"),
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "ü"),  # a character cut in two
        ("=?nonsense?Q?a?=", "=?nonsense?Q?a?="),
        ("=?zlib?B?eJwDAAAAAAE=?=", "=?zlib?B?eJwDAAAAAAE=?="),
        ("=?idna?Q?xn--a?=", "=?idna?Q?xn--a?="),
        ("=?unicode_escape?Q?=5Cud800?=", "=?unicode_escape?Q?=5Cud800?="),
        ("=?utf-8?Q?=FF?=", "\ufffd"),
        ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
        ("=?utf-8?Q?unfinished", "=?utf-8?Q?unfinished"),
    ],
)
def test_decode(text: str, decoded: str) -> None:
    """Encoded-words are decoded, and what is none stays."""
    assert decode_words(text) == decoded


@given(st.text())
def test_round_trip(text: str) -> None:
    """What is encoded is ASCII, of words of 75 characters at most, and comes back by this decoder and by Python's."""
    encoded = encode_words(text)
    assert encoded.isascii()
    assert all(len(word) <= 75 for word in encoded.split(" "))
    assert decode_words(encoded) == text
    assert str(email.header.make_header(email.header.decode_header(encoded))) == text


@given(st.text(st.sampled_from("=?utf-8BQ_ \tAa0*\u00fc\ud800")))
def test_anything_decodes_to_unicode(text: str) -> None:
    """No input makes it fail."""
    decode_words(text)


@given(st.binary(), st.sampled_from(["utf-8", "utf-16", "utf-7", "latin-1", "gb18030", "iso-2022-jp", "cp1252"]))
def test_decoded_text_fits_into_json(octets: bytes, charset: str) -> None:
    """Whatever a charset makes of the octets, the text can be written as UTF-8."""
    quoted = "".join(f"={octet:02X}" for octet in octets)
    decode_words(f"=?{charset}?Q?{quoted}?=").encode("utf-8")


def test_raw_octets() -> None:
    """8-bit values are UTF-8, or else Latin-1."""
    assert text_of("grün".encode()) == text_of("grün".encode("latin-1")) == "grün"


@pytest.mark.parametrize("piece", ["=?", "=?a?q?", "=?utf-8?Q?a?= ", "?= ", "=?utf-8?B?"])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """A quarter of a megabyte of anything is decoded in one pass."""
    decode_words(piece * (250_000 // len(piece)))
