"""What a server announced, and what it can be told."""

from __future__ import annotations

import pytest

from mtaq.model.address import Address
from mtaq.model.errors import LocalProtocolError
from mtaq.smtp.client_commands import PeerExtensions, Transaction, envelope_commands, objection, parse_extensions

ALL = PeerExtensions(
    pipelining=True, size=True, eightbitmime=True, smtputf8=True, chunking=True, binarymime=True, starttls=True
)
NONE = PeerExtensions()
ADA, BOB = Address("ada", "example.org"), Address("bob", "example.com")


def transaction(
    sender: Address | None = ADA,
    recipient: Address = BOB,
    content: bytes = b"A: b\r\n\r\n",
    **properties: object,
) -> Transaction:
    return Transaction(reverse_path=sender, forward_paths=(recipient,), content=content, **properties)


def commands(peer: PeerExtensions, **properties: object) -> tuple[bytes, list[bytes]]:
    mail, recipients = envelope_commands(transaction(**properties), peer)
    return mail, list(recipients)


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("SIZE 1000", 1000),
        ("SIZE", None),
        ("SIZE 0", None),
        ("size 7", 7),
        ("SIZE many", None),
        ("SIZE " + "9" * 30, None),
    ],
)
def test_size_names_a_limit_or_none(line, limit):
    """RFC 1870 §4: no number, or 0, is no limit; nonsense is none either."""
    peer = parse_extensions([line])
    assert peer.size
    assert peer.size_bytes == limit


def test_unknown_keywords_are_ignored():
    """Neither strange words nor empty lines disturb."""
    assert parse_extensions(["XCLIENT NAME", "", "ETRN", "VRFY"]) == NONE


def test_mechanisms_are_told_in_any_case():
    """RFC 4954 §3: words behind AUTH."""
    assert parse_extensions(["auth Plain LOGIN cram-md5"]).auth == {"PLAIN", "LOGIN", "CRAM-MD5"}


def test_mail_says_what_the_server_knows():
    """Parameters only where announced."""
    assert commands(NONE) == (b"MAIL FROM:<ada@example.org>\r\n", [b"RCPT TO:<bob@example.com>\r\n"])
    assert commands(ALL)[0] == b"MAIL FROM:<ada@example.org> SIZE=8\r\n"


def test_the_null_reverse_path():
    """It is written as empty brackets."""
    assert commands(NONE, sender=None)[0] == b"MAIL FROM:<>\r\n"


@pytest.mark.parametrize(
    ("content", "body", "expected"),
    [
        (b"A: b\r\n\r\n\xff\r\n", None, b" BODY=8BITMIME"),
        (b"A: b\r\n\r\n\xff\r\n", "7bit", b" BODY=8BITMIME"),
        (b"A: b\r\n\r\n", "8bitmime", b" BODY=8BITMIME"),
        (b"A: b\r\n\r\n", "7bit", b""),
        (b"A: b\r\n\r\n", "binarymime", b" BODY=BINARYMIME"),
    ],
)
def test_the_body_type_is_declared(content, body, expected):
    """8-bit content is told to a server that knows 8BITMIME, whatever its sender said."""
    assert commands(ALL, content=content, body=body)[0] == (
        b"MAIL FROM:<ada@example.org> SIZE=%d%b\r\n" % (len(content), expected)
    )


def test_8_bit_content_goes_unchanged_to_a_server_without_8bitmime():
    """As the whole field does."""
    assert commands(NONE, content=b"A: b\r\n\r\n\xff\r\n")[0] == b"MAIL FROM:<ada@example.org>\r\n"
    assert objection(transaction(content=b"\xff"), NONE) is None


def test_smtputf8_where_it_is_needed_and_known():
    """A local-part that is not ASCII needs it; U-labels go along."""
    jörg = Address("jörg", "bücher.example")
    assert commands(ALL, recipient=jörg) == (
        b"MAIL FROM:<ada@example.org> SIZE=8 SMTPUTF8\r\n",
        ["RCPT TO:<jörg@bücher.example>\r\n".encode()],
    )


def test_domains_become_a_labels_without_smtputf8():
    """A domain is no reason for SMTPUTF8: it has an ASCII form."""
    recipient = Address("bob", "bücher.example")
    for peer in (NONE, ALL):
        mail, recipients = commands(peer, recipient=recipient)
        assert b"SMTPUTF8" not in mail
        assert recipients == [b"RCPT TO:<bob@xn--bcher-kva.example>\r\n"]
    assert objection(transaction(recipient=recipient), NONE) is None


@pytest.mark.parametrize(
    ("content", "smtputf8", "expected"),
    [
        ("Subject: ü\r\n\r\n".encode(), True, True),
        ("Subject: ü\r\n\r\n".encode(), False, False),
        ("Subject: u\r\n\r\nü\r\n".encode(), True, False),
        (b"Subject: u\r\n\r\n", True, False),
        ("Subject: ü".encode(), True, True),
    ],
)
def test_header_fields_in_utf8_need_smtputf8(content, smtputf8, expected):
    """Only what was submitted with SMTPUTF8 counts, and only the header section."""
    assert (b" SMTPUTF8" in commands(ALL, content=content, smtputf8=smtputf8)[0]) is expected


@pytest.mark.parametrize(
    ("properties", "peer", "expected"),
    [
        ({"body": "binarymime"}, NONE, (554, "5.6.1")),
        ({"body": "binarymime"}, PeerExtensions(chunking=True), (554, "5.6.1")),
        ({"body": "binarymime"}, ALL, None),
        ({"content": b"x" * 11}, PeerExtensions(size=True, size_bytes=10), (552, "5.3.4")),
        ({"content": b"x" * 10}, PeerExtensions(size=True, size_bytes=10), None),
        ({"recipient": Address("jörg", "example.com")}, NONE, (553, "5.6.7")),
        ({"sender": Address("jörg", "example.com")}, NONE, (553, "5.6.7")),
        ({"recipient": Address("jörg", "example.com")}, ALL, None),
    ],
)
def test_what_a_server_cannot_take_is_found_before_it_is_asked(properties, peer, expected):
    """Binary content, size and addresses, each with its codes."""
    answer = objection(transaction(**properties), peer)
    assert (answer and (answer.code, answer.status)) == expected


def test_a_line_end_never_reaches_the_wire():
    """An address that nobody validated cannot bring a command of its own."""
    with pytest.raises(LocalProtocolError):
        commands(NONE, recipient=Address("a\r\nRSET", "example.com"))
