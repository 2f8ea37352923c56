"""What a file of the spool directory says."""

from __future__ import annotations

import pytest

from mtaq.model.address import Address
from mtaq.receive.spool_content import LineEnds, Unfit, read_spooled

ADA, GRACE, BOB = Address("ada", "example.org"), Address("grace", "example.com"), Address("bob", "example.net")
FROM_TO = b"From: Ada <ada@example.org>\r\nTo: grace@example.com\r\n"
BODY = b"\r\nhello\r\n"


def reason(content: bytes) -> str:
    """Return why *content* is not taken."""
    with pytest.raises(Unfit) as caught:
        read_spooled(content, extract=True)
    return str(caught.value)


def test_recipients_are_those_of_to_cc_and_bcc() -> None:
    """Each address once, in the order written, out of display names, groups and repeated fields."""
    content = (
        b'From: ada@example.org\r\nTo: "Hopper, Grace" <grace@example.com>, friends: bob@example.net;\r\n'
        b"Cc: grace@example.com\r\nBcc: ada@example.org\r\n\tcarol@example.net\r\nto: carol@example.net\r\n"
    )
    content = content.replace(b"\r\n\tcarol", b",\r\n\tdave")
    read = read_spooled(content + BODY, extract=True)
    assert [str(address) for address in read.recipients] == [
        "grace@example.com", "bob@example.net", "ada@example.org", "dave@example.net", "carol@example.net",
    ]  # fmt: skip


def test_bcc_is_taken_out() -> None:
    """Nobody reads whom else it went to in secret; all other octets stay."""
    read = read_spooled(FROM_TO + b"Bcc: bob@example.net,\r\n carol@example.net\r\nX: y\r\n" + BODY, extract=True)
    assert read.content == FROM_TO + b"X: y\r\n" + BODY
    assert len(read.recipients) == 3


@pytest.mark.parametrize(
    ("fields", "envelope"),
    [
        (b"X-MQ-Envelope: ada@example.org\r\nReturn-Path: <grace@example.com>\r\nFrom: bob@example.net\r\n", ADA),
        (b"X-MQ-Envelope: <>\r\nFrom: bob@example.net\r\n", None),
        (b"From: bob@example.net\r\nReturn-Path: <grace@example.com>\r\n", GRACE),
        (b"From: bob@example.net\r\nReturn-Path: <>\r\n", None),
        (b"Sender: ada@example.org\r\nFrom: Bob <bob@example.net>\r\n", BOB),
        (b"Sender: ada@example.org\r\nFrom: nobody\r\n", ADA),
        (b"X-MQ-Envelope: nobody\r\nSender: ada@example.org\r\nReturn-Path: <a b@c>\r\n", ADA),
    ],
)
def test_the_reverse_path_is_the_first_that_is_one(fields: bytes, envelope: Address | None) -> None:
    """``x-mq-envelope``, ``Return-Path``, ``From``, ``Sender``; what is no address is passed over."""
    assert read_spooled(fields + b"To: grace@example.com\r\n" + BODY, extract=True).envelope == envelope


def test_our_fields_count_only_when_they_may() -> None:
    """Without extraction ``x-mq-envelope`` is a field like any other."""
    content = b"x-mq-envelope: bob@example.net\r\n" + FROM_TO + BODY
    read = read_spooled(content, extract=False)
    assert read.envelope == ADA
    assert read.content == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x00\x01", "header field"),
        (b"From ada@example.org Sat Nov 21 12:00:00 2026\r\n" + FROM_TO + BODY, "header field"),
        (b"\r\n" + FROM_TO + BODY, "header field"),
        (b"From: ada@example.org\r\n" + BODY, "To, Cc or Bcc"),
        (b"From: ada@example.org\r\nTo: undisclosed-recipients:;\r\n" + BODY, "To, Cc or Bcc"),
        (b"From: ada@example.org\r\nTo: grace@example.com, bob@-.net\r\n" + BODY, "no address"),
        (b"To: grace@example.com\r\n" + BODY, "no sender"),
        (FROM_TO + BODY + b"x" * 999 + b"\r\n", "998"),
        (FROM_TO + BODY + b"\0\r\n", "NUL"),
        (FROM_TO + b"X: " + b"y" * 70 + b"\r\n" + (b" " + b"z" * 900 + b"\r\n") * 300 + BODY, "longer than 262144"),
        (FROM_TO + b"X: y\r\n" * 998 + BODY, "1000 fields"),
        (FROM_TO + b"Cc: " + b",\r\n ".join(b"u%d@example.net" % n for n in range(1000)) + b"\r\n" + BODY, "1000 rec"),
    ],
    ids=range(12),
)
def test_what_is_no_message_says_why(content: bytes, words: str) -> None:
    """Nothing is guessed, and nothing is sent to some of the recipients alone."""
    assert words in reason(content)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_line_ends_become_crlf_however_the_file_is_cut(size: int) -> None:
    """LF, CR and CRLF are line ends all, whole or at the edge of a block."""
    text = b"a\nb\r\nc\rd\r\r\ne\n\r\nf\r"
    ends = LineEnds()
    made = b"".join(ends.feed(text[start : start + size]) for start in range(0, len(text), size)) + ends.finish()
    assert made == b"a\r\nb\r\nc\r\nd\r\n\r\ne\r\n\r\nf\r\n"
