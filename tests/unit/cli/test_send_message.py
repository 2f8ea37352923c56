"""What `mtaq send` makes of the text it reads."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.cli.send_message import complete, parse_address, read_message, recipients_of, unique, without_bcc
from mtaq.mime.headers import fields, header_end
from mtaq.model.address import Address

AUTHOR = Address("ada", "example.org")
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "dot_ends", "content"),
    [
        (b"a\nb\n", True, b"a\r\nb\r\n"),
        (b"a\r\nb\r", True, b"a\r\nb\r\n"),
        (b"no line end", True, b"no line end\r\n"),
        (b"a\n.\nb\n", True, b"a\r\n"),
        (b"a\r\n.\r\nb\n", True, b"a\r\n"),
        (b"a\n.\nb\n", False, b"a\r\n.\r\nb\r\n"),
        (b"a\n..\n.b\n", True, b"a\r\n..\r\n.b\r\n"),
        (b"", True, b""),
        (b"\xff\x00\n", False, b"\xff\x00\r\n"),
    ],
)
def test_reading(text: bytes, dot_ends: bool, content: bytes) -> None:
    """Line ends become CRLF, and a lone dot ends the message unless told otherwise."""
    assert read_message(io.BytesIO(text), dot_ends=dot_ends) == content


def completed(content: bytes) -> bytes:
    return complete(content, author=AUTHOR, hostname="host.test", now=NOW)


def test_complete_messages_stay() -> None:
    """A message with all fields is not touched."""
    content = b"DATE: x\r\nfrom: y\r\nMessage-Id: z\r\n\r\nbody\r\n"
    assert completed(content) == content


@pytest.mark.parametrize(
    ("content", "body"),
    [
        (b"Subject: a\r\n b\r\n\r\nbody\r\n", b"\r\nbody\r\n"),
        (b"Subject: a\r\nbody without an empty line\r\n", b"\r\nbody without an empty line\r\n"),
        (b"only a body\r\n", b"\r\nonly a body\r\n"),
        (b"\r\nonly a body\r\n", b"\r\nonly a body\r\n"),
        (b"Subject: only fields\r\n", b"\r\n"),
        (b"", b"\r\n"),
    ],
)
def test_missing_parts_are_added(content: bytes, body: bytes) -> None:
    """`Date`, `From` and `Message-ID` are added, and the empty line where it was forgotten."""
    message = completed(content)
    names = [field.name for field in fields(message)]
    assert names[-3:] == [b"Date", b"From", b"Message-ID"]
    assert message[header_end(message) :] == body
    values = {field.name: field.value for field in fields(message)}
    assert values[b"From"] == b"ada@example.org"
    assert values[b"Date"] == b"Sat, 21 Nov 2026 09:00:00 +0000"
    assert values[b"Message-ID"].startswith(b"<20261121090000.")
    assert values[b"Message-ID"].endswith(b"@host.test>")


@given(st.binary(max_size=200), st.booleans())
def test_any_text_becomes_a_message(text: bytes, dot_ends: bool) -> None:
    """Whatever is read, the message has the fields it must have, CRLF line ends only, and an end of its header."""
    message = completed(read_message(io.BytesIO(text), dot_ends=dot_ends))
    assert {b"date", b"from", b"message-id"} <= {field.name.lower() for field in fields(message)}
    assert message.replace(b"\r\n", b"").count(b"\r") == message.replace(b"\r\n", b"").count(b"\n") == 0
    assert header_end(message) < len(message)


def test_recipients_of_fields() -> None:
    """The recipients stand in `To`, `Cc` and `Bcc`; `Bcc` goes."""
    content = b"To: A <a@x.test>, b@x.test\r\nBcc: s@x.test\r\n\tt@x.test\r\ncc: a@x.test\r\nFrom: f@x.test\r\n\r\n"
    assert recipients_of(content) == ["a@x.test", "b@x.test", "s@x.test\tt@x.test", "a@x.test"]
    assert without_bcc(content) == b"To: A <a@x.test>, b@x.test\r\ncc: a@x.test\r\nFrom: f@x.test\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a@X.test", Address("a", "x.test")),
        (" a@x.test ", Address("a", "x.test")),
        ("Ada <a@x.test>", Address("a", "x.test")),
        ('"Ada, Countess" <a@x.test>', Address("a", "x.test")),
        ("root", Address("root", "host.test")),
        ("jörg@x.test", Address("jörg", "x.test")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Addresses are taken as people write them; a name alone is one of this host."""
    assert parse_address(text, "host.test") == address


@pytest.mark.parametrize(
    "text", ["", "a@", "@b", "a@b\r\nRCPT TO:<c@d>", "<a@b>, <c@d>", "<>", "a@b c", "x\x00@b.test"]
)
def test_bad_addresses(text: str) -> None:
    """What is no address is refused, with its text in the words."""
    with pytest.raises(ValueError, match="is not an address"):
        parse_address(text, "host.test")


def test_unique() -> None:
    """Each recipient gets the message once."""
    assert unique([AUTHOR, Address("b", "c"), AUTHOR]) == [AUTHOR, Address("b", "c")]
