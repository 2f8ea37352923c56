"""``mtaq.smtp.dsn``: the words of DSN."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.dsn import (
    decode_xtext,
    encode_orcpt,
    encode_xtext,
    parse_envid,
    parse_notify,
    parse_orcpt,
    parse_ret,
)


@pytest.mark.parametrize(
    ("text", "octets"),
    [(b"", b""), (b"abc", b"abc"), (b"a+2Bb+3Dc", b"a+b=c"), (b"+2b", b"+"), (b"+C3+A9", b"\xc3\xa9")],
)
def test_xtext(text: bytes, octets: bytes) -> None:
    """RFC 3461 §4: a plus sign and two digits stand for an octet."""
    assert decode_xtext(text) == octets


@pytest.mark.parametrize("text", [b"+", b"+2", b"+2G", b"a=b", b"a b", b"a\x01"])
def test_what_is_no_xtext(text: bytes) -> None:
    """A lone plus sign, an equals sign and control characters are not."""
    with pytest.raises(ValueError, match="xtext"):
        decode_xtext(text)


@pytest.mark.parametrize(("value", "ret"), [(b"FULL", "FULL"), (b"hdrs", "HDRS")])
def test_ret(value: bytes, ret: str) -> None:
    """In any case."""
    assert parse_ret(value) == ret


@pytest.mark.parametrize("value", [None, b"", b"BODY", b"FULL,HDRS"])
def test_what_is_no_ret(value: bytes | None) -> None:
    """Nothing else."""
    with pytest.raises(ValueError, match="RET"):
        parse_ret(value)


def test_envid() -> None:
    """RFC 3461 §4.4: printable ASCII, a hundred characters, counted as they are meant."""
    assert parse_envid(b"QQ314159") == "QQ314159"
    assert parse_envid(b"a+20b") == "a b"
    assert parse_envid(b"+2B" * 100) == "+" * 100


@pytest.mark.parametrize("value", [None, b"", b"x" * 101, b"a+0D+0Ab", b"+00", b"+7F", b"+E9", b"\xc3\xa9", b"+"])
def test_what_is_no_envid(value: bytes | None) -> None:
    """Line ends, control characters, more than ASCII and more than a hundred characters are refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_envid(value)


@pytest.mark.parametrize(
    ("value", "notify"),
    [
        (b"NEVER", ("NEVER",)),
        (b"never", ("NEVER",)),
        (b"SUCCESS,FAILURE", ("SUCCESS", "FAILURE")),
        (b"delay,Failure,SUCCESS", ("DELAY", "FAILURE", "SUCCESS")),
    ],
)
def test_notify(value: bytes, notify: tuple[str, ...]) -> None:
    """RFC 3461 §4.1: NEVER alone, or some of the others."""
    assert parse_notify(value) == notify


@pytest.mark.parametrize(
    "value",
    [None, b"", b"ALWAYS", b"NEVER,FAILURE", b"NEVER,NEVER", b"FAILURE,", b",", b"DELAY,DELAY", b"DELAY, FAILURE"],
)
def test_what_is_no_notify(value: bytes | None) -> None:
    """NEVER with others, repetitions, empty and unknown words are refused."""
    with pytest.raises(ValueError, match="NOTIFY"):
        parse_notify(value)


@pytest.mark.parametrize(
    ("value", "orcpt"),
    [
        (b"rfc822;Bob@example.com", "rfc822;Bob@example.com"),
        (b"RFC822;a+2Bb@example.com", "rfc822;a+b@example.com"),
        (b"rfc822;+22a+20b+22@example.com", 'rfc822;"a b"@example.com'),
        (b"x400;/C+3DDE/", "x400;/C=DE/"),
        (b"utf-8;\\x{E9}t\\x{e9}@example.com", "utf-8;été@example.com"),
        (b"utf-8;\xc3\xa9@example.com", "utf-8;é@example.com"),
        (b"utf-8;a\\x{5C}b+2B@example.com", "utf-8;a\\b+@example.com"),
        (b"rfc822;a\\x{E9}", "rfc822;a\\x{E9}"),
    ],
)
def test_orcpt(value: bytes, orcpt: str) -> None:
    """RFC 3461 §4.2 and RFC 6533 §3: xtext, and embedded characters where the type is utf-8."""
    assert parse_orcpt(value) == orcpt


@pytest.mark.parametrize(
    "value",
    [
        *(None, b"", b"Bob@example.com", b"rfc822;", b";Bob@example.com", b"rfc 822;x", b"rfc822;a+0Ab"),
        *(b"rfc822;\xc3\xa9@example.com", b"rfc822;" + b"x" * 494, b"utf-8;" + b"x" * 495, b"utf-8;\xff"),
        *(b"utf-8;a\\b", b"utf-8;\\x{0A}", b"utf-8;\\x{D800}", b"utf-8;\\x{110000}", b"utf-8;\\x{2028}"),
    ],
)
def test_what_is_no_orcpt(value: bytes | None) -> None:
    """No type, no address, what is not printable, and more than 500 characters are refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_orcpt(value)


@given(st.binary(max_size=40) | st.lists(st.sampled_from([b"utf-8;", b"\\x{", b"41", b"}", b"+", b"a"])).map(b"".join))
def test_what_is_taken_is_printable(value: bytes) -> None:
    """Nothing but ``ValueError`` comes out, and what does come out fits one line."""
    for parse in (parse_orcpt, parse_envid):
        with contextlib.suppress(ValueError):
            assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in parse(value))


@pytest.mark.parametrize("text", ["rfc822;Bob+Box=1@example.com", "utf-8;jörg+x\\y@bücher.example", "x400;/a b/"])
def test_what_is_encoded_is_decoded_to_the_same(text: str) -> None:
    """And is ASCII that fits into a command."""
    wire = encode_orcpt(text)
    assert wire.isascii()
    assert b" " not in wire
    assert parse_orcpt(wire) == text


def test_xtext_of_all_printable_ascii() -> None:
    """Blank, plus and equals sign are written in hexadecimal (RFC 3461 §4)."""
    text = "".join(map(chr, range(32, 127)))
    assert decode_xtext(encode_xtext(text)) == text.encode()
    assert encode_xtext(" +=") == b"+20+2B+3D"
