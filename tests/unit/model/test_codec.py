"""Content as JSON: the same bytes come back, whatever they are and however long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model import codec
from mtaq.model.address import Address
from mtaq.model.codec import content_of, encode_inbox, inbox_properties, inbox_recipients
from mtaq.model.message import ConnectionFacts, InboxRecipient, ReceivedMessage

PIECE = codec._PIECE_BYTES


def message(recipients: int = 1) -> ReceivedMessage:
    return ReceivedMessage(
        transaction="relay-1.0",
        envelope=Address("ada", "example.org"),
        recipients=tuple(Address(f"r{number}", "example.com") for number in range(recipients)),
        received_at=datetime(2026, 5, 1, 12, 0, tzinfo=UTC),
        hostname="relay.example.org",
        connection=ConnectionFacts(
            local_ip="192.0.2.1", local_port=25, remote_ip="192.0.2.9", remote_port=4711, helo="client.example.org"
        ),
        size_bytes=1,
    )


def encoded(received: ReceivedMessage, content: bytes) -> Iterator[tuple[InboxRecipient, bytes]]:
    return encode_inbox(inbox_properties(received), inbox_recipients(received), content)


def there_and_back(content: bytes) -> tuple[str, bytes]:
    ((_, body),) = encoded(message(), content)
    properties = json.loads(body)
    (name,) = {"mime", "mime-base64"} & set(properties)
    return name, content_of(properties)


@pytest.mark.parametrize("offset", range(-4, 5))
@pytest.mark.parametrize("character", ["é", "€", "😀", '"', "\\", "\n", "\x00"])
def test_a_character_across_two_pieces_stays_whole(character: str, offset: int) -> None:
    """Wherever a long content is cut to be encoded, no character is cut with it."""
    content = b"x" * (PIECE + offset) + character.encode() + b"y" * 10
    assert there_and_back(content) == ("mime", content)


@pytest.mark.parametrize(
    "content",
    [
        b"x" * PIECE + b"\xff",
        b"\xff" + b"x" * PIECE,
        b"x" * PIECE + "€".encode()[:2],
        b"x" * (PIECE - 1) + "€".encode()[:2],
        b"x" * (PIECE - 1) + b"\xc3" + b"x" * 5,
        b"x" * (PIECE - 2) + b"\xed\xa0\x80",
    ],
    ids=["at the end", "at the start", "cut off", "cut off across pieces", "broken across pieces", "surrogate"],
)
def test_long_content_that_is_not_utf_8_travels_as_base64(content: bytes) -> None:
    """One octet that is not UTF-8, in whichever piece, makes the whole content base64."""
    assert there_and_back(content) == ("mime-base64", content)


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=9))
def test_pieces_and_whole_say_the_same(content: bytes, piece_bytes: int) -> None:
    """The JSON does not depend on the size of the pieces."""
    whole = list(encoded(message(2), content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_PIECE_BYTES", piece_bytes)
        assert list(encoded(message(2), content)) == whole


def test_every_recipient_gets_the_content() -> None:
    """What is made once for all recipients is still there for the last of them."""
    content = b"Subject: x\r\n\r\nbody\r\n"
    bodies = [json.loads(body) for _, body in encoded(message(3), content)]
    assert [body["recipient"] for body in bodies] == ["r0@example.com", "r1@example.com", "r2@example.com"]
    assert all(content_of(body) == content for body in bodies)


EXTRACTED = {"to": [], "headers": {"x": "y"}, "recipient": {"local": "someone", "domain": "else"}}


@pytest.mark.parametrize(
    ("given_one", "found"),
    [
        (EXTRACTED, {"to": [], "headers": {"x": "y"}, "recipient": {"local": "r1", "domain": "example.com"}}),
        ({}, {"recipient": {"local": "r1", "domain": "example.com"}}),
        ("a hook's text", "a hook's text"),
        (["a hook's list"], ["a hook's list"]),
    ],
    ids=["usual", "empty", "text", "list"],
)
def test_extracted_has_each_recipient_s_own_parts(given_one: object, found: object) -> None:
    """`extracted` is shared but for `recipient`; what is no object stays what it is."""
    shared = {**inbox_properties(message()), "extracted": given_one}
    bodies = [json.loads(body) for _, body in encode_inbox(shared, inbox_recipients(message(2)), b"x")]
    assert [body["recipient"] for body in bodies] == ["r0@example.com", "r1@example.com"]
    assert bodies[1]["extracted"] == found
    assert all(body.keys() == bodies[0].keys() for body in bodies)


def test_no_extracted_when_there_is_none() -> None:
    """Nothing is written about what was not read."""
    for shared in (inbox_properties(message()), {**inbox_properties(message()), "extracted": None}):
        ((_, body),) = encode_inbox(shared, inbox_recipients(message()), b"x")
        assert "extracted" not in json.loads(body)


def test_what_is_a_recipient_s_own_wins_over_what_is_shared() -> None:
    """No JSON has a property twice: the recipient's own one counts, and whoever has none gets the shared one."""
    ours = inbox_recipients(message(2))
    recipients = [replace(ours[0], properties={"dsn": {"notify": "NEVER"}}), ours[1]]
    shared = {**inbox_properties(message()), "dsn": {"ret": "FULL"}}
    bodies = [body for _, body in encode_inbox(shared, recipients, b"x")]
    assert [json.loads(body)["dsn"] for body in bodies] == [{"notify": "NEVER"}, {"ret": "FULL"}]
    assert all(body.count(b'"dsn"') == 1 for body in bodies)
