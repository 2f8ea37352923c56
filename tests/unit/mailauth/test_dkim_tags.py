"""Tag lists and the values in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.dkim_tags import (
    MAX_TAG_LIST_BYTES,
    TagError,
    base64_tag,
    domain_name,
    list_tag,
    name_tag,
    number_tag,
    parse_tags,
    required,
    unquoted,
    without_b,
)


def test_tags_lose_the_blanks_around_them() -> None:
    """Blanks and folds around names and values do not count, those inside a value stay."""
    assert parse_tags(b" v = 1;\r\n\tn=two  words ; b=\r\n ;") == {"v": "1", "n": "two  words", "b": ""}


@pytest.mark.parametrize(
    "octets",
    [b"", b"v", b"v=1;;d=x", b"v=1; v=1", b"=1", b"1a=x", b"a-b=x", b"a b=x", b"v=\x00", b"v=\x7f", b"d=\xff", b";"],
)
def test_what_is_no_tag_list_is_refused(octets: bytes) -> None:
    """Anything but a list of different tags is an error (RFC 6376 §3.2)."""
    with pytest.raises(TagError):
        parse_tags(octets)


def test_long_lists_are_refused_unread() -> None:
    """The limit is on octets."""
    assert parse_tags(b"a=" + b"x" * (MAX_TAG_LIST_BYTES - 2))
    with pytest.raises(TagError):
        parse_tags(b"a=" + b"x" * (MAX_TAG_LIST_BYTES - 1))


@pytest.mark.parametrize(
    ("value", "emptied"),
    [
        (b" b=abc; bh=xyz", b" b=; bh=xyz"),
        (b" bh=b=; b = ab\r\n c= ;x=1", b" bh=b=; b =;x=1"),
        (b" a=1;\r\n b\r\n =\r\n abc=\r\n ", b" a=1;\r\n b\r\n ="),
        (b" xb=1; B=2; b", b" xb=1; B=2; b"),
    ],
)
def test_without_b_only_that_value_goes(value: bytes, emptied: bytes) -> None:
    """The value and the blanks around it go, and nothing else (RFC 6376 §3.7)."""
    assert without_b(value) == emptied


def test_values_are_read_by_kind() -> None:
    """Base64 without its blanks, numbers, lists between colons, and what is missing."""
    tags = parse_tags("b=YW Jj; t=12; h= From : :to ; d=Mañana.Example".encode())
    assert base64_tag(tags, "b") == b"abc"
    assert number_tag(tags, "t", 12) == 12
    assert number_tag(tags, "x", 12) is None
    assert list_tag(tags, "h") == ("From", "to")
    assert list_tag(tags, "z") == ()
    assert name_tag(tags, "d", 2) == "xn--maana-pta.example"
    with pytest.raises(TagError):
        required(tags, "s")


@pytest.mark.parametrize("value", ["-1", "1 2", "", "٣", "1" * 13, "0x1"])
def test_what_is_no_number_is_refused(value: str) -> None:
    """A number is ASCII digits, as many as fit."""
    with pytest.raises(TagError):
        number_tag({"t": value}, "t", 12)


@pytest.mark.parametrize("value", ["a", "a===", "äöü=", "a_b=", "YWJj;"])
def test_what_is_no_base64_is_refused(value: str) -> None:
    """Letters that are not of the alphabet are not passed over."""
    with pytest.raises(TagError):
        base64_tag({"b": value}, "b")


@pytest.mark.parametrize(
    "text",
    ["", "com", "example..com", ".example.com", "example.com.", "a b.com", "legitimate.com(.attacker.com", "-a.com",
     "a-.com", "a" * 64 + ".com", ".".join(["abcdefg"] * 32) + ".com", "a@b.com", "\u2024.com", "xn--\u00e4.com"],
)  # fmt: skip
def test_what_is_no_domain_name_is_refused(text: str) -> None:
    """At least two labels of letters, digits, hyphens and underscores, of the size DNS has."""
    with pytest.raises(TagError):
        domain_name(text, "d=", 2)


def test_domain_names_are_folded() -> None:
    """Names come out in A-labels and lower case, however they were written."""
    assert domain_name("_Mail.EXAMPLE.com", "d=", 2) == "_mail.example.com"
    assert domain_name("MAÑANA.example", "d=", 2) == domain_name("xn--maana-pta.example", "d=", 2)


@pytest.mark.parametrize(("value", "text"), [("jo=3Dhn@x", "jo=hn@x"), ("a\r\n b@x", "ab@x"), ("=C3=B1@x", "ñ@x")])
def test_quoted_printable(value: str, text: str) -> None:
    """Octets may be hidden, blanks do not count (RFC 6376 §2.11)."""
    assert unquoted(value) == text


@pytest.mark.parametrize("value", ["a=0D=0Ab@x", "=", "a=3d", "=GG", "=FF", "=E2=80=A8", "=00"])
def test_hidden_line_ends_are_refused(value: str) -> None:
    """Nothing that would break a line, and nothing that is not of the encoding, comes through."""
    with pytest.raises(TagError):
        unquoted(value)


@given(st.binary(max_size=200))
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    """Nothing but TagError is raised, and what was read reads the same without its b=."""
    try:
        tags = parse_tags(octets)
    except TagError:
        return
    assert parse_tags(without_b(octets)) == {name: "" if name == "b" else value for name, value in tags.items()}
