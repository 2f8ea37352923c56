"""The edits of the `headers` property."""

from __future__ import annotations

import contextlib
import email
import email.policy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.edit import LINE_MAX, edit_headers
from mtaq.mime.headers import fields, header_end
from mtaq.model.errors import BadMessage

CONTENT = b"A: 1\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nA: 3\r\nC : \xe4\r\n\r\nbody\x00\n.\r\nA: 4\r\n"


@pytest.mark.parametrize(
    ("edits", "section"),
    [
        ({}, b"A: 1\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nA: 3\r\nC : \xe4\r\n"),
        ({"remove": "a"}, b"B:  2  \r\n\tfolded\r\nnot a field\r\nC : \xe4\r\n"),
        ({"remove": ["B", "c", "D"]}, b"A: 1\r\nnot a field\r\nA: 3\r\n"),
        ({"replace": {"a": "x"}}, b"a: x\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nC : \xe4\r\n"),
        ({"replace": {"D": "x"}}, b"A: 1\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nA: 3\r\nC : \xe4\r\nD: x\r\n"),
        ({"update": {"A": "x", "D": "x"}}, b"A: x\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nC : \xe4\r\n"),
        (
            {"prepend": {"P": ["1", "2"], "Q": "3"}, "remove": ["A", "B", "C"]},
            b"P: 1\r\nP: 2\r\nQ: 3\r\nnot a field\r\n",
        ),
        ({"append": {"P": "1"}, "add": {"P": "2"}, "remove": ["A", "B", "C"]}, b"not a field\r\nP: 1\r\nP: 2\r\n"),
        ({"prepend": {"A": "top"}, "remove": ["A", "B", "C"]}, b"A: top\r\nnot a field\r\n"),
        ({"remove": None, "append": None}, b"A: 1\r\nB:  2  \r\n\tfolded\r\nnot a field\r\nA: 3\r\nC : \xe4\r\n"),
        ({"append": {"E": ""}, "remove": ["A", "B", "C"]}, b"not a field\r\nE:\r\n"),
    ],
)
def test_operations(edits: dict[str, Any], section: bytes) -> None:
    """Each operation does what it is named for; everything else stays byte for byte."""
    assert edit_headers(CONTENT, edits) == section + CONTENT[header_end(CONTENT) :]


@pytest.mark.parametrize(
    ("content", "edited"),
    [
        (b"", b"X: y\r\n"),
        (b"\r\nbody", b"X: y\r\n\r\nbody"),
        (b"A: 1", b"A: 1\r\nX: y\r\n"),
        (b"A: 1\r\n", b"A: 1\r\nX: y\r\n"),
    ],
)
def test_content_without_fields_or_body(content: bytes, edited: bytes) -> None:
    """A field can be appended where there is no field, no empty line or no last line end."""
    assert edit_headers(content, {"append": {"X": "y"}}) == edited


@pytest.mark.parametrize(
    ("edits", "named"),
    [
        ({"append": {"X": "a\r\nBcc: b@c"}}, r"headers\.append\.X"),
        ({"append": {"X": "a\n b"}}, r"headers\.append\.X"),
        ({"append": {"X": ["fine", "a\rb"]}}, r"headers\.append\.X"),
        ({"replace": {"X": "a\x00"}}, r"headers\.replace\.X"),
        ({"update": {"X": 5}}, r"headers\.update\.X"),
        ({"update": {"X": ["a"]}}, r"headers\.update\.X"),
        ({"prepend": {"X": {"a": "b"}}}, r"headers\.prepend\.X"),
        ({"prepend": {"X: y\r\nZ": "a"}}, r"headers\.prepend"),
        ({"prepend": {"": "a"}}, r"headers\.prepend"),
        ({"prepend": {"Ü": "a"}}, r"headers\.prepend"),
        ({"prepend": {"a b": "a"}}, r"headers\.prepend"),
        ({"prepend": {"x" * 77: "a"}}, r"headers\.prepend"),
        ({"prepend": ["a"]}, r"headers\.prepend"),
        ({"remove": 5}, r"headers\.remove"),
        ({"remove": ["a", None]}, r"headers\.remove"),
        ({"remove": "a:"}, r"headers\.remove"),
        ({"rename": {"a": "b"}}, r"headers\.rename"),
        ({"append": {"X": "x" * 999}}, r"headers\.append\.X"),
        ({"append": {"X": "\ud800"}}, r"headers\.append\.X"),
        ({"append": {"From": "jörg@example.test"}}, r"headers\.append\.From"),
        ({"append": {"From": "<a@bücher.test>"}}, r"headers\.append\.From"),
    ],
)
def test_what_is_refused(edits: dict[str, Any], named: str) -> None:
    """Another form, header injection, an impossible name or word: an error that names the property."""
    with pytest.raises(BadMessage, match=named):
        edit_headers(CONTENT, edits)


def test_long_values_are_folded() -> None:
    """A long value is broken before blanks, and unfolds to itself."""
    value = "word " * 400 + "x" * 980
    edited = edit_headers(b"\r\n", {"append": {"X-Long": value}})
    assert all(len(line) <= LINE_MAX for line in edited.split(b"\r\n"))
    [field] = fields(edited)
    assert field.value == value.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "Grüße an alle: ☃☃ und mehr"),
        ("Subject", "ä" * 500),
        ("X-Any", "grün, (blau)"),
    ],
)
def test_text_is_encoded(name: str, value: str) -> None:
    """Text that is not ASCII becomes encoded-words that every mail program reads back."""
    edited = edit_headers(b"\r\n", {"append": {name: value}})
    assert edited.isascii()
    assert email.message_from_bytes(edited, policy=email.policy.default)[name] == value


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ('"Jörg, Müller" <j@x.test>, Ü <u@x.test>', [("Jörg, Müller", "j@x.test"), ("Ü", "u@x.test")]),
        ("Jörg Müller <j@x.test>", [("Jörg Müller", "j@x.test")]),
        ("Jörg<j@x.test>,plain@x.test", [("Jörg", "j@x.test"), ("", "plain@x.test")]),
        ('"Quoted \\" ä" <q@x.test>', [('Quoted " ä', "q@x.test")]),
    ],
)
def test_display_names_are_encoded(value: str, addresses: list[tuple[str, str]]) -> None:
    """In address fields only display names are encoded, never addresses or what separates them."""
    edited = edit_headers(b"\r\n", {"replace": {"Reply-To": value}})
    assert edited.isascii()
    header = email.message_from_bytes(edited, policy=email.policy.default)["Reply-To"]
    assert [(address.display_name, address.addr_spec) for address in header.addresses] == addresses


def test_smtputf8_keeps_utf8() -> None:
    """A message that may go out as SMTPUTF8 keeps its values as UTF-8 (RFC 6532)."""
    edited = edit_headers(b"\r\n", {"append": {"From": "Jörg <jörg@bücher.test>"}}, smtputf8=True)
    assert edited == "From: Jörg <jörg@bücher.test>\r\n\r\n".encode()


@given(
    st.text(max_size=8),
    st.text(max_size=60),
    st.sampled_from(["append", "prepend", "replace"]),
    st.booleans(),
)
def test_an_edit_never_makes_two_fields(name: str, value: str, operation: str, smtputf8: bool) -> None:
    """Whatever name and value are, either the edit is refused or there is exactly one field more and the same body."""
    try:
        edited = edit_headers(CONTENT, {operation: {"X" + name: value}}, smtputf8=smtputf8)
    except BadMessage:
        return
    assert edited.endswith(CONTENT[header_end(CONTENT) :])
    assert len(list(fields(edited))) == len(list(fields(CONTENT))) + 1
    assert edited.count(b"\r\n\r\n") == CONTENT.count(b"\r\n\r\n")


@given(st.binary(max_size=200))
def test_no_edit_no_change(content: bytes) -> None:
    """Without edits, and with the removal of a field that is not there, any content stays as it is."""
    assert edit_headers(content, {}).removesuffix(b"\r\n") == content.removesuffix(b"\r\n") or b"\n\n" in content
    body = content[header_end(content) :]
    assert edit_headers(content, {"remove": "x-not-there"}).endswith(body)


@pytest.mark.parametrize("piece", ["ä", "a", "a ä ", '"', "<", '\\"', " ", "=?"])
@pytest.mark.parametrize("name", ["Subject", "From"])
def test_long_values_take_linear_time(name: str, piece: str) -> None:
    """A megabyte of anything is edited in or refused in one pass."""
    with contextlib.suppress(BadMessage):
        edit_headers(b"\r\n", {"append": {name: piece * (500_000 // len(piece))}})
