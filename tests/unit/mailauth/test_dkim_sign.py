"""DKIM signatures of ours, judged by our verifier and by dkimpy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaq.mailauth.dkim import check_dkim, find_signatures
from mtaq.mailauth.dkim_canonical import parse_canonicalization
from mtaq.mailauth.dkim_message import HEADER_LIMIT_BYTES, SignedMessage
from mtaq.mailauth.dkim_sign import MAX_FIELDS, CannotSign, Signer, signature_fields, signing_name
from mtaq.mailauth.dkim_tags import parse_tags
from tests.support.dkim_signer import MESSAGE
from tests.support.keys import ed25519_pem, ed25519_record, rsa_pem, rsa_record, signing_key
from tests.support.zones import Zones, driven

NOW = datetime(2025, 12, 1, tzinfo=UTC)
ZONES: Zones = {
    "s1._domainkey.example.com": {"TXT": [rsa_record()]},
    "ed._domainkey.example.com": {"TXT": [ed25519_record()]},
}


def rsa_signer(**changes: Any) -> Signer:
    return Signer(**{"domain": "example.com", "selector": "s1", "key": signing_key(rsa_pem())} | changes)


def ed25519_signer(**changes: Any) -> Signer:
    return Signer(**{"domain": "example.com", "selector": "ed", "key": signing_key(ed25519_pem())} | changes)


def signed(content: bytes, *signers: Signer) -> bytes:
    return b"".join([*signature_fields(SignedMessage(content), signers or (rsa_signer(),), now=NOW), content])


def words(content: bytes, now: datetime = NOW) -> list[str]:
    result = driven(check_dkim(find_signatures(SignedMessage(content)), now=now), ZONES)
    return [item["dkim"] for item in result.to_json()]


def accepted_by_dkimpy(content: bytes, index: int = 0) -> bool:
    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return str(ZONES[name.decode().rstrip(".")]["TXT"][0]).encode()

    return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=lookup))


def tags(content: bytes) -> dict[str, str]:
    [first, *_] = SignedMessage(content).named(b"dkim-signature")
    return parse_tags(first.value)


def names(content: bytes) -> list[str]:
    return "".join(tags(content)["h"].split()).split(":")


@pytest.mark.parametrize("canonicalization", ["simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed"])
@pytest.mark.parametrize("make", [rsa_signer, ed25519_signer])
def test_what_is_signed_verifies(canonicalization: str, make: Any) -> None:
    """Both kinds of keys, with every canonicalisation, here and in another implementation."""
    content = signed(MESSAGE, make(canonicalization=parse_canonicalization(canonicalization)))
    assert words(content) == ["pass"]
    assert accepted_by_dkimpy(content)


def test_several_signatures() -> None:
    """Each stands by itself, the first one topmost; one of another kind beside them changes nothing."""
    content = signed(MESSAGE, ed25519_signer(), rsa_signer())
    assert words(content) == ["pass", "pass"]
    assert [accepted_by_dkimpy(content, index) for index in (0, 1)] == [True, True]
    assert tags(content)["a"] == "ed25519-sha256"


def test_what_a_signature_says() -> None:
    """Who, when and what, in A-labels, in lines of 78 characters (RFC 6376 §3.5)."""
    content = signed(MESSAGE, rsa_signer(lifetime=timedelta(days=7)))
    said = tags(content)
    assert (said["v"], said["a"], said["c"], said["d"], said["s"]) == (
        "1", "rsa-sha256", "relaxed/relaxed", "example.com", "s1",
    )  # fmt: skip
    assert (said["i"], int(said["t"]), int(said["x"])) == ("@example.com", NOW.timestamp(), NOW.timestamp() + 604_800)
    field = content.removesuffix(MESSAGE)
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert field.endswith(b"\r\n")


def test_fields_that_are_signed() -> None:
    """Those of RFC 6376 §5.4.1 and of the signer that are there, each as often; From once more than that."""
    more = (
        b"Received: from x\r\nReturn-Path: <x@y>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        b"Feedback-ID: 1\r\nX-Other: 2\r\nCc: a@b.test\r\nCc: c@d.test\r\n"
    )
    content = signed(more + MESSAGE, rsa_signer(names=(b"feedback-id", b"x-absent")))
    assert names(content) == [
        "from", "from", "subject", "to", "cc", "cc", "list-unsubscribe-post", "feedback-id",
    ]  # fmt: skip
    assert words(content) == ["pass"]


@pytest.mark.parametrize(
    ("oversigned", "expected"),
    [
        (None, ["from", "from", "subject", "subject", "to", "to"]),
        (frozenset({b"from", b"reply-to"}), ["from", "from", "reply-to", "subject", "to"]),
    ],
)
def test_oversigning(oversigned: frozenset[bytes] | None, expected: list[str]) -> None:
    """A field that is signed once more than it is there cannot be added, even one that is not there at all."""
    content = signed(MESSAGE, rsa_signer(oversigned=oversigned))
    assert names(content) == expected
    added = expected[2] if oversigned else "subject"
    assert words(f"{added}: x\r\n".encode() + content) == ["fail"]


def test_a_second_from_cannot_be_added() -> None:
    """The signature does not verify with a From above the one that was signed (RFC 6376 §8.15)."""
    assert words(b"From: Bank <bank@example.net>\r\n" + signed(MESSAGE)) == ["fail"]


def test_several_from_fields() -> None:
    """All of them are signed; nobody adds another one."""
    content = signed(b"From: x@example.com\r\n" + MESSAGE)
    assert names(content)[:3] == ["from"] * 3
    assert words(content) == ["pass"]


def test_names_in_many_fields_stay_bounded() -> None:
    """Of a name that stands a thousand times, some are signed, from the bottom, and the signature can be read."""
    content = signed(b"To: a@b.test\r\n" * 1000 + MESSAGE)
    assert names(content).count("to") == MAX_FIELDS
    assert words(content) == ["pass"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"Subject: x\r\n\r\n", "there is no From field"),
        (b"", "there is no From field"),
        (b"From: a@b.test\r\n" * (MAX_FIELDS + 1), "there are too many From fields"),
        (b"From: a@b.test\nSubject: x\r\n\r\n", "the header section has a bare CR or LF"),
        (
            b"From: a@b.test\r\nX: " + b"y" * HEADER_LIMIT_BYTES + b"\r\n\r\n",
            f"the header section has more than {HEADER_LIMIT_BYTES} octets",
        ),
    ],
    ids=["no From", "nothing", "many From", "bare LF", "long"],
)
def test_what_cannot_be_signed(content: bytes, reason: str) -> None:
    """A message whose signature nobody would accept is not signed."""
    with pytest.raises(CannotSign, match=reason):
        signed(content)


def test_expiry() -> None:
    """A moment, or a time from signing on; one that is over is no signature (RFC 6376 §3.5)."""
    content = signed(MESSAGE, rsa_signer(expires_at=NOW + timedelta(hours=1)))
    assert words(content) == ["pass"]
    assert words(content, NOW + timedelta(days=1)) == ["policy"]
    with pytest.raises(CannotSign, match="expired already"):
        signed(MESSAGE, rsa_signer(expires_at=NOW))


def test_eight_bit_content_and_names() -> None:
    """Octets beyond ASCII are signed as they are; names of domains are written in A-labels (RFC 8616 §5)."""
    content = "From: Zoë <zoë@mañana.example>\r\nSubject: é\r\n\r\nü\xff\r\n".encode("latin-1")
    assert words(signed(content)) == ["pass"]
    assert signing_name("Mañana.example", "d=", 2) == "xn--maana-pta.example"
    with pytest.raises(CannotSign, match="d= is not a domain name"):
        signing_name("-", "d=", 2)


@pytest.mark.parametrize("body", [b"", b"\r\n", b"x", b"x\r\n\r\n\r\n", b".\r\n", b"a  b \t\r\n", b"\0" * 70_000])
def test_bodies(body: bytes) -> None:
    """Whatever the body is, and when DATA adds the last line end."""
    for canonicalization in ("simple/simple", "relaxed/relaxed"):
        content = signed(
            b"From: a@example.com\r\n\r\n" + body, rsa_signer(canonicalization=parse_canonicalization(canonicalization))
        )
        assert words(content) == ["pass"]
        assert content.endswith(b"\r\n") or words(content + b"\r\n") == ["pass"]


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([b"From: ", b"To:\t", b"Subject : a", b" fold", b"\r\n", b"x\t y", b"\xff", b":"])),
    st.binary(max_size=200),
)
def test_any_message_that_is_signed_verifies(parts: list[bytes], body: bytes) -> None:
    """Signed, or refused; never a signature that fails here."""
    content = b"From: a@example.com\r\n" + b"".join(parts) + b"\r\n\r\n" + body
    try:
        made = signed(content, ed25519_signer())
    except CannotSign:
        return
    assert words(made) == ["pass"]
