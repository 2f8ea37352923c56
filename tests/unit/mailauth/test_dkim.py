"""What signatures come to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import dkim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtaq.mailauth import dkim as own
from mtaq.mailauth.dkim import MAX_SIGNATURES, DkimResult, check_dkim, find_signatures
from mtaq.mailauth.dkim_message import HEADER_LIMIT_BYTES, SignedMessage, is_large
from mtaq.mailauth.verdict import Verdict
from mtaq.model.dns import Question
from tests.support.dkim_signer import MESSAGE, Key, ed25519_key, private_pem, record, rsa_key, signed
from tests.support.zones import Zones, driven

NOW = datetime(2026, 12, 1, tzinfo=UTC)
ZONES: Zones = {
    "s1._domainkey.example.com": {"TXT": [record(rsa_key())]},
    "ed._domainkey.example.com": {"TXT": [record(ed25519_key())]},
    "strict._domainkey.example.com": {"TXT": [record(rsa_key(), "t=s;")]},
    "revoked._domainkey.example.com": {"TXT": ["v=DKIM1; p="]},
    "silent._domainkey.example.com": "SERVFAIL",
    "s1._domainkey.xn--maana-pta.example": {"TXT": [record(rsa_key())]},
}
BOTH: list[tuple[Key, dict[str, str]]] = [(rsa_key(), {}), (ed25519_key(), {"s": "ed"})]


def checked(content: bytes, asked: list[Question] | None = None, zones: Zones = ZONES) -> DkimResult:
    result = driven(check_dkim(find_signatures(SignedMessage(content)), now=NOW), zones, asked)
    assert isinstance(result, DkimResult)
    return result


def words(content: bytes) -> list[str]:
    return [item["dkim"] for item in checked(content).to_json()]


def judged(tags: dict[str, str], content: bytes = MESSAGE) -> tuple[str, str]:
    """Return word and reason of a message signed with *tags*."""
    (item,) = checked(signed(content, rsa_key(), tags)).to_json()
    return item["dkim"], item.get("reason", "")


@pytest.mark.parametrize("canonical", ["simple", "simple/relaxed", "relaxed", "relaxed/relaxed", ""])
@pytest.mark.parametrize(("key", "tags"), BOTH)
def test_a_message_as_it_was_sent_passes(canonical: str, key: Key, tags: dict[str, str]) -> None:
    """With every canonicalisation and both kinds of keys."""
    assert words(signed(MESSAGE, key, tags | {"c": canonical})) == ["pass"]


def test_what_is_told() -> None:
    """Whose signature it is stands in checks[] and in Authentication-Results (RFC 8601 §2.7.1, RFC 6008)."""
    result = checked(signed(MESSAGE, rsa_key(), {"d": "Example.COM", "i": "al=69ce@Example.com", "b": "?"}))
    b = result.signatures[0].b
    assert result.to_json() == [
        {
            "dkim": "pass",
            "domain": "example.com",
            "selector": "s1",
            "header.i": "alice@Example.com",
            "header.b": b,
            "algorithm": "rsa-sha256",
        }
    ]
    properties = (
        ("header.d", "example.com"),
        ("header.s", "s1"),
        ("header.i", "alice@Example.com"),
        ("header.b", b),
        ("header.a", "rsa-sha256"),
    )
    assert result.verdicts() == [Verdict("dkim", "pass", None, properties)]
    assert result.domains() == [("example.com", "pass")]
    assert len(b) == 8


def test_no_signature() -> None:
    """A message without signatures says so once; nothing is asked."""
    asked: list[Question] = []
    result = checked(MESSAGE, asked)
    assert result.to_json() == [{"dkim": "none"}]
    assert result.verdicts() == [Verdict("dkim", "none")]
    assert result.domains() == []
    assert asked == []


def test_every_signature_is_told() -> None:
    """Ed25519 and RSA beside each other, and a third that is broken; one word each, all keys in one step."""
    content = signed(signed(MESSAGE, rsa_key()), ed25519_key(), {"s": "ed"})
    content = signed(content, rsa_key(), {"bh": "AAAA"})
    assert words(content) == ["neutral", "pass", "pass"]
    steps = check_dkim(find_signatures(SignedMessage(content)), now=NOW)
    assert [question.name for question in next(steps)] == ["ed._domainkey.example.com", "s1._domainkey.example.com"]


@pytest.mark.parametrize(("key", "tags"), BOTH)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"Alice", b"Mallory"),
        (b"alice@example.com", b"alice@example.org"),
        (b"dinner", b"Dinner"),
        (b"the game", b"the race"),
        (b"Hi.", b""),
        (b"game.", b"game. More."),
    ],
)
def test_a_message_altered_in_flight_fails(key: Key, tags: dict[str, str], before: bytes, after: bytes) -> None:
    """A signed field or the body with one word changed is not what was signed."""
    content = signed(MESSAGE, key, tags)
    assert before in content
    (signature,) = checked(content.replace(before, after)).signatures
    assert signature.word == "fail"
    assert signature.reason


def test_relaxed_survives_what_hosts_do_to_blanks() -> None:
    """Folds, case of names, blanks and empty lines at the end may change; what was not signed may be added."""
    content = signed(MESSAGE, rsa_key())
    changed = content.replace(b"Subject: Is dinner\r\n\tready?", b"SUBJECT:\tIs  dinner ready?  ")
    changed = changed.replace(b"lost\tthe", b"lost   the ").rstrip(b"\r\n")
    assert words(b"Received: from x\r\n" + changed) == ["pass"]
    simple = signed(MESSAGE, rsa_key(), {"c": "simple/simple"})
    assert words(simple.replace(b"SUBJECT", b"Subject")) == ["pass"]
    assert words(simple.replace(b"Is dinner\r\n\tready?", b"Is dinner ready?")) == ["fail"]


def test_text_appended_behind_l_is_no_pass() -> None:
    """l= is reported and not trusted: what is not signed may be anybody's (RFC 6376 §8.2)."""
    size = len("Hi.\r\n\r\nWe lost the game.\r\n")
    covering = signed(MESSAGE, rsa_key(), {"l": str(size)})
    assert judged({"l": "4"}) == ("policy", "22 octets of the body are not signed (l=)")
    assert judged({"l": "0"})[0] == "policy"
    assert words(covering) == ["pass"]
    assert words(covering + b"<h1>Buy!</h1>\r\n") == ["policy"]
    assert words(covering.replace(b"game.", b"race.") + b"more\r\n") == ["fail"]
    assert judged({"l": "10000"}) == ("fail", "the body is shorter than l= says")


def test_a_second_from_is_no_pass() -> None:
    """A From that no signature covers may be the one that is shown (RFC 6376 §8.15)."""
    content = signed(MESSAGE, rsa_key())
    for added in (b"From: ceo@example.com\r\n", b"FROM : ceo@example.com\r\n"):
        assert checked(added + content).signatures[0].reason == "there is a From that is not signed"
        assert words(added + content) == ["policy"]
    # Signed once too often, it cannot be added unseen.
    oversigned = signed(MESSAGE, rsa_key(), {"h": "from:from:to"})
    assert words(oversigned) == ["pass"]
    assert words(b"From: ceo@example.com\r\n" + oversigned) == ["fail"]
    # Both signed: what is wrong with that is for DMARC.
    assert words(signed(b"From: x@example.com\r\n" + MESSAGE, rsa_key(), {"h": "from:from"})) == ["pass"]


def test_from_must_be_signed() -> None:
    """A signature that does not say who wrote is none (RFC 6376 §5.4)."""
    assert judged({"h": "to:subject"}) == ("permerror", "From is not signed")


def test_fields_are_counted_from_the_bottom() -> None:
    """A field added above the signed one of the same name does no harm, one below it does (RFC 6376 §5.4.2)."""
    content = signed(MESSAGE, rsa_key(), {"h": "from:subject"})
    assert words(b"Subject: spam\r\n" + content) == ["pass"]
    assert words(content.replace(b"\r\n\r\n", b"\r\nSubject: spam\r\n\r\n", 1)) == ["fail"]


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"v": ""}, "neutral"),
        ({"v": "2"}, "neutral"),
        ({"a": "rsa-sha1"}, "policy"),
        ({"a": "rsa-md5"}, "neutral"),
        ({"a": ""}, "neutral"),
        ({"d": ""}, "neutral"),
        ({"d": "com"}, "neutral"),
        ({"d": "example.com(.evil.com"}, "neutral"),
        ({"s": ""}, "neutral"),
        ({"s": "a..b"}, "neutral"),
        ({"h": ""}, "neutral"),
        ({"bh": "not_base64"}, "neutral"),
        ({"b": "not_base64"}, "neutral"),
        ({"b": "AAAA"}, "fail"),
        ({"q": "http"}, "neutral"),
        ({"q": "http : dns/txt"}, "pass"),
        ({"l": "-1"}, "neutral"),
        ({"t": "soon"}, "neutral"),
        ({"i": "@example.org"}, "neutral"),
        ({"i": "@notexample.com"}, "neutral"),
        ({"i": "alice"}, "neutral"),
        ({"i": "a=0D=0AX@example.com"}, "neutral"),
        ({"i": "@mail.example.com"}, "pass"),
        ({"s": "strict"}, "pass"),
        ({"s": "strict", "i": "@mail.example.com"}, "permerror"),
        ({"s": "revoked"}, "permerror"),
        ({"s": "nothing"}, "permerror"),
        ({"s": "silent"}, "temperror"),
        ({"s": "ed"}, "permerror"),
        ({"z": "From:a|To:b", "unknown": "x"}, "pass"),
    ],
)
def test_tags(tags: dict[str, str], word: str) -> None:
    """Each tag is held to its form and meaning; what is wrong has a reason, and never passes."""
    got, reason = judged({"bh": "?", "b": "?"} | tags)
    assert got == word, reason
    assert bool(reason) is (word != "pass")


def test_a_malformed_canonicalization() -> None:
    """The helper cannot sign that; it is put in afterwards."""
    assert words(signed(MESSAGE, rsa_key()).replace(b"relaxed/relaxed", b"relaxed/nowsp")) == ["neutral"]


def test_times() -> None:
    """Signatures expire, and are not made in the future, an hour more or less (RFC 6376 §3.5)."""

    def at(**shift: Any) -> str:
        return str(int((NOW + timedelta(**shift)).timestamp()))

    assert judged({"t": at(days=-9), "x": at(days=9)}) == ("pass", "")
    assert judged({"x": at(hours=-2)}) == ("policy", "it has expired")
    assert judged({"x": at(minutes=-59)}) == ("pass", "")
    assert judged({"t": at(hours=2)}) == ("policy", "it was made in the future")
    assert judged({"t": at(minutes=59)}) == ("pass", "")
    assert judged({"t": at(days=1), "x": at(days=1)})[0] == "neutral"
    assert judged({"x": "9" * 12}) == ("pass", "")


def test_domains_beyond_ascii() -> None:
    """U-labels are looked up, and told, as A-labels (RFC 8616 §5)."""
    result = checked(signed(MESSAGE, rsa_key(), {"d": "mañana.example", "i": "josé@mañana.example"}))
    assert result.domains() == [("xn--maana-pta.example", "pass")]
    assert result.to_json()[0]["header.i"] == "josé@mañana.example"


def test_beginnings_tell_signatures_apart() -> None:
    """header.b is as long as it must be; two that are the same all through stay so (RFC 6008 §4)."""
    values = ["AAAABBBBCC", "AAAABBBBDD", "EEEEEEEEEE", ""]
    zeros = [signed(MESSAGE, rsa_key(), {"b": value}).partition(b"\r\n")[0] for value in values[:3]]
    items = checked(b"\r\n".join([*zeros, MESSAGE])).to_json()
    assert [item["header.b"] for item in items] == values[:3]
    items = checked(b"\r\n".join([zeros[0], zeros[0], MESSAGE])).to_json()
    assert [item["header.b"] for item in items] == ["AAAABBBB"] * 2


def test_a_header_section_that_readers_see_differently() -> None:
    """With a bare CR or LF in it, or beyond any size, nothing is believed."""
    content = signed(MESSAGE, rsa_key())
    for added in (b"X: a\nFrom: ceo@example.com\r\n", b"X: a\rFrom: ceo@example.com\r\n"):
        assert words(added + content) == ["neutral"]
    long = b"X: " + b"x" * HEADER_LIMIT_BYTES
    assert words(content.replace(b"\r\n\r\n", b"\r\n" + long + b"\r\n\r\n", 1)) == ["neutral"]


def test_bare_line_ends_in_the_body_are_octets() -> None:
    """They are signed as they are."""
    content = signed(MESSAGE + b"a\nb\rc\r\n", rsa_key())
    assert words(content) == ["pass"]
    assert words(content.replace(b"a\nb", b"a\r\nb")) == ["fail"]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n", b"\r\n\r\n\r\n"])
def test_a_message_without_a_body(end: bytes) -> None:
    """It makes no difference how little of a body there is."""
    head = MESSAGE.partition(b"\r\n\r\n")[0]
    content = signed(head + b"\r\n\r\n", rsa_key())
    assert words(content.removesuffix(b"\r\n\r\n") + end) == ["pass"]


def test_a_large_body_is_hashed_in_a_thread() -> None:
    """2 MB are hashed beside the loop, and the check after it asks and verifies only."""
    content = signed(MESSAGE + b"All work and  no play\tmakes Jack a dull boy. \r\n" * 42_000, rsa_key())
    assert is_large(content)
    assert not is_large(MESSAGE)

    async def in_a_thread() -> DkimResult:
        signatures = await asyncio.to_thread(lambda: find_signatures(SignedMessage(content)))
        result = driven(check_dkim(signatures, now=NOW), ZONES)
        assert isinstance(result, DkimResult)
        return result

    assert asyncio.run(in_a_thread()).domains() == [("example.com", "pass")]
    assert words(content + b"x\r\n") == ["fail"]


def test_many_signatures_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 the first eight are read, the body is hashed once, and the rest is counted."""
    hashed, read = [], []
    hashes, tags = SignedMessage.hash_bodies, own.parse_tags
    monkeypatch.setattr(SignedMessage, "hash_bodies", lambda *given: hashed.append(1) or hashes(*given))
    monkeypatch.setattr(own, "parse_tags", lambda octets: read.append(1) or tags(octets))
    one = b"DKIM-Signature: v=1\r\n"
    content = one * 4 + signed(MESSAGE, rsa_key()).partition(b"\r\n")[0] + b"\r\n" + one * 9_995 + MESSAGE
    asked: list[Question] = []
    result = checked(content, asked)
    assert [item["dkim"] for item in result.to_json()] == [*["neutral"] * 4, "pass", *["neutral"] * 3, "policy"]
    assert result.to_json()[-1]["reason"] == f"{10_000 - MAX_SIGNATURES} more signatures were not looked at"
    assert (len(read), len(hashed), len(asked)) == (MAX_SIGNATURES, 1, 1)


@pytest.mark.parametrize(
    "junk",
    [b";" * 200_000, b"a=" + b" " * 200_000, b"h=" + b"from:" * 40_000, b"b=" + b"=" * 200_000, b"\r\n " * 80_000,
     b"v=1;" * 50_000, b"i=" + b"=41" * 60_000, b"=" * 200_000],
)  # fmt: skip
def test_huge_tags_are_not_read(junk: bytes) -> None:
    """A field beyond the limit is malformed, whatever it is made of."""
    (item,) = checked(b"DKIM-Signature: " + junk + b"\r\n" + MESSAGE).to_json()
    assert (item["dkim"], item["reason"]) == ("neutral", "the signature is malformed: more than 16384 octets")


LINES = st.lists(
    st.sampled_from(
        [b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=s1; h=from; bh=", b"b=AAAA", b"From: a", b"\r\n", b"\r",
         b"\n", b" ", b";", b"\xff", b":", b"l=5;", b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;", b"c=relaxed;"]
    ) | st.binary(max_size=9),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(LINES)
def test_any_octets_come_to_words(content: bytes) -> None:
    """Whatever a message is, every signature gets a word, none passes, and JSON and field can be made."""
    result = checked(content)
    assert all(item["dkim"] not in ("pass", "temperror") for item in result.to_json())
    assert len(result.verdicts()) == len(result.to_json()) <= MAX_SIGNATURES + 1


TEXT = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"b c", b"\r\n", b"\xc3\xa9", b"\r\n \t", b".", b"=", b"x:"]), max_size=12
)
FIELDS = st.lists(
    st.tuples(st.sampled_from([b"Subject", b"TO", b"X-a", b"Cc"]), st.binary(max_size=0) | TEXT.map(b"".join)),
    max_size=5,
)
CANONICAL = st.sampled_from([b"simple", b"relaxed"])


@settings(max_examples=40)
@given(
    FIELDS, TEXT.map(b"".join), CANONICAL, CANONICAL, st.integers(0, 400), st.sampled_from([b"", b" ", b"a", b"\r\n"])
)
def test_dkimpy_agrees(
    fields: list[tuple[bytes, bytes]], body: bytes, header: bytes, of_body: bytes, place: int, put: bytes
) -> None:
    """What dkimpy signed passes; changed anywhere, it passes here exactly where it passes there."""
    folded = [name + b": " + value.replace(b"\r\n", b"\r\n ").rstrip() for name, value in fields]
    content = b"\r\n".join([*folded, b"From: alice@example.com", b"", body.rstrip(b" \t\r\n") + b"\r\n"])
    names = [b"from", b"subject", b"subject", b"to", b"x-a"]
    text = dkim.sign(
        content,
        b"s1",
        b"example.com",
        private_pem(rsa_key(1024)),
        canonicalize=(header, of_body),
        include_headers=names,
    )
    zones = {"s1._domainkey.example.com": {"TXT": [record(rsa_key(1024))]}}
    content = text + content
    assert checked(content, zones=zones).domains() == [("example.com", "pass")]
    at = min(len(text) + place, len(content) - 2)
    at -= content[at - 1 : at + 1] == b"\r\n"  # dkimpy takes a bare LF for a line end
    changed = content[:at] + put + content[at:]
    ours = checked(changed, zones=zones).domains() == [("example.com", "pass")]
    try:
        theirs = dkim.verify(changed, dnsfunc=lambda name, timeout=5: record(rsa_key(1024)).encode())
    except dkim.MessageFormatError:  # a line that is no field, which is passed over here
        return
    assert ours is theirs
