"""What chains of ARC sets come to."""

from __future__ import annotations

from datetime import UTC, datetime

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth import dkim_message
from mtaq.mailauth.arc import ArcResult, check_arc
from mtaq.mailauth.arc_chain import MAX_INSTANCES, find_chain
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.verdict import Verdict
from mtaq.model.dns import Question
from tests.support.dkim_signer import MESSAGE, ed25519_key, private_pem, record, rsa_key, sealed
from tests.support.zones import Zones, driven

NOW = datetime(2026, 12, 1, tzinfo=UTC)
KEY = rsa_key(1024)
ZONES: Zones = {f"s1._domainkey.{n}.example": {"TXT": [record(KEY)]} for n in range(1, MAX_INSTANCES + 2)} | {
    "s1._domainkey.ed.example": {"TXT": [record(ed25519_key())]},
    "s1._domainkey.silent.example": "SERVFAIL",
    "s1._domainkey.list.example": {"TXT": [record(KEY)]},
}


def checked(content: bytes, asked: list[Question] | None = None, zones: Zones = ZONES) -> ArcResult:
    result = driven(check_arc(find_chain(SignedMessage(content)), now=NOW), zones, asked)
    assert isinstance(result, ArcResult)
    return result


def judged(content: bytes) -> tuple[str, str | None]:
    result = checked(content)
    return result.word, result.reason


def chain(length: int) -> bytes:
    content = MESSAGE
    for instance in range(1, length + 1):
        content = sealed(content, instance, KEY)
    return content


def test_no_chain() -> None:
    """A message without ARC fields says so; nothing is asked."""
    asked: list[Question] = []
    result = checked(MESSAGE, asked)
    assert result.to_json() == [{"arc": "none"}]
    assert result.verdicts() == [Verdict("arc", "none")]
    assert asked == []


@pytest.mark.parametrize("length", [1, 2, 3, MAX_INSTANCES])
def test_a_chain_passes(length: int) -> None:
    """Every host sealed what it got; who they were, and that nothing was changed, is told (RFC 8617 §5.2)."""
    result = checked(chain(length))
    sealers = [f"{instance}.example" for instance in range(1, length + 1)]
    assert result.to_json() == [{"arc": "pass", "instances": length, "sealers": sealers, "oldest-pass": 1}]
    assert result.verdicts() == [Verdict("arc", "pass", None, (("header.oldest-pass", "0"),))]


def test_the_newest_keys_are_asked_for_first() -> None:
    """One question for a chain that ends there, all others together when it does not."""
    steps = check_arc(find_chain(SignedMessage(chain(3))), now=NOW)
    assert [question.name for question in next(steps)] == ["s1._domainkey.3.example"]
    asked: list[Question] = []
    checked(chain(3), asked)
    assert len(asked) == 3
    asked.clear()
    assert checked(chain(3).replace(b"dinner", b"supper"), asked).word == "fail"
    assert len(asked) == 1


def test_a_list_that_changes_the_body() -> None:
    """Signatures before the change do not verify; the chain does, and tells where the change was."""
    content = sealed(chain(2) + b"--\r\nUnsubscribe.\r\n", 3, ed25519_key(), domain="ed.example")
    result = checked(sealed(content, 4, KEY))
    assert (result.word, result.oldest_pass, result.instances) == ("pass", 3, 4)
    assert result.verdicts()[0].properties == (("header.oldest-pass", "3"),)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"dinner", b"supper"),
        (b"lost", b"won"),
        (b"i=1; 1.example; none", b"i=1; 1.example; dkim=pass"),
        (b"i=2; 2.example; none", b"i=2; 2.example; dkim=pass"),
        (b"i=1; a=rsa-sha256; d=1.example; s=s1; cv=none;", b"i=1; a=rsa-sha256; d=1.example; s=s1; t=1; cv=none;"),
    ],
)
def test_a_chain_altered_in_flight_fails(before: bytes, after: bytes) -> None:
    """The message, what a host said of it, and each seal, are sealed."""
    content = chain(2)
    assert before in content
    result = checked(content.replace(before, after))
    assert (result.word, result.oldest_pass) == ("fail", 0)
    assert result.to_json()[0]["reason"]


def without(content: bytes, start: bytes) -> bytes:
    """Return *content* without the field that begins like that."""
    fields, _, body = content.partition(b"\r\n\r\n")
    return b"\r\n".join(f for f in fields.split(b"\r\n") if not f.startswith(start)) + b"\r\n\r\n" + body


@pytest.mark.parametrize("name", [b"ARC-Authentication-Results", b"ARC-Message-Signature", b"ARC-Seal"])
@pytest.mark.parametrize("instance", [1, 2, 3])
def test_a_set_is_whole_or_nothing(name: bytes, instance: int) -> None:
    """A missing field breaks the chain, and one that stands twice does."""
    content = chain(3)
    assert judged(without(content, b"%s: i=%d" % (name, instance)))[0] == "fail"
    field = next(f for f in content.split(b"\r\n") if f.startswith(b"%s: i=%d" % (name, instance)))
    assert judged(field + b"\r\n" + content) == ("fail", "an instance stands twice")


@pytest.mark.parametrize(("i", "reason"), [("0", "i= is not an instance"), ("51", "i= is not an instance"),
                                           ("x", "i= is not a number"), ("-1", "i= is not a number"),
                                           ("3", "a set is missing or not complete")])  # fmt: skip
def test_instances_are_numbered(i: str, reason: str) -> None:
    """From 1 without gaps, to 50 at most (RFC 8617 §4.2.1)."""
    assert judged(chain(1).replace(b"ARC-Seal: i=1", b"ARC-Seal: i=" + i.encode())) == ("fail", reason)


def test_more_than_fifty_sets() -> None:
    """Nothing is hashed or asked for a chain that is too long."""
    asked: list[Question] = []
    content = chain(1)
    fields = content[: content.index(b"From:")]
    result = checked(fields * (MAX_INSTANCES + 1) + MESSAGE, asked)
    assert (result.word, result.reason, asked) == ("fail", "more than 50 sets", [])


def test_a_field_is_made_canonical_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many signatures cover a large field, it is worked through once."""
    content = MESSAGE.replace(b"Subject:", b"Subject: " + b"a " * 9_000)
    for instance in range(1, 11):
        content = sealed(content, instance, KEY)
    worked = []
    canonical = dkim_message.canonical_field
    monkeypatch.setattr(
        dkim_message,
        "canonical_field",
        lambda field, relaxed: worked.append(field) or canonical(field, relaxed=relaxed),
    )
    assert checked(content).oldest_pass == 1
    assert len(worked) == len({b"from", b"to", b"subject"})


@pytest.mark.parametrize(("instance", "cv"), [(1, "pass"), (2, "none"), (1, "yes"), (2, "PASS")])
def test_what_a_seal_says_must_belong_there(instance: int, cv: str) -> None:
    """The first finds no chain, later ones one that passes; nothing else makes a chain."""
    assert judged(sealed(chain(instance - 1), instance, KEY, cv=cv)) == ("fail", "cv= is not what belongs there")


@pytest.mark.parametrize("instance", [1, 2])
def test_a_host_found_it_broken(instance: int) -> None:
    """What was found broken stays so, and nothing is asked (RFC 8617 §5.2 step 2)."""
    content = sealed(chain(instance - 1), instance, KEY, cv="fail")
    for last in (content, sealed(content, instance + 1, KEY)):
        asked: list[Question] = []
        result = checked(last, asked)
        assert (result.word, result.reason) == ("fail", "a host before found it broken (cv=fail)")
        assert asked == []


def test_keys_that_cannot_be_looked_up() -> None:
    """Silence is a temperror where it matters, and no more than a lower bound where it does not."""
    newest = checked(sealed(chain(1), 2, KEY, domain="silent.example"))
    assert (newest.word, newest.reason) == ("temperror", "signature 2: the key cannot be looked up now")
    seal = checked(sealed(sealed(MESSAGE, 1, KEY, domain="silent.example"), 2, KEY))
    assert (seal.word, seal.reason) == ("temperror", "seal 1: the key cannot be looked up now")
    unknown = checked(sealed(MESSAGE, 1, KEY, domain="nowhere.example"))
    assert (unknown.word, unknown.reason) == ("fail", "signature 1: there is no key")
    broken = checked(sealed(chain(1), 2, KEY, domain="silent.example").replace(b"lost", b"won"))
    assert broken.word == "fail"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("to", "signature 1: From is not signed"),
        ("from:arc-seal", "signature 1: it covers a seal"),
    ],
)
def test_what_a_signature_covers(names: str, reason: str) -> None:
    """From must be covered, seals may not be (RFC 8617 §4.1.2)."""
    assert judged(sealed(MESSAGE, 1, KEY, names=names)) == ("fail", reason)


def test_a_second_from() -> None:
    """A From that nobody signed breaks the newest signature."""
    assert judged(b"From: x@example.com\r\n" + chain(2)) == ("fail", "signature 2: there is a From that is not signed")


def test_a_seal_of_fields() -> None:
    """A seal has no h= (RFC 8617 §4.1.3)."""
    assert judged(chain(1).replace(b"cv=none", b"h=from; cv=none")) == ("fail", "a seal with h=")


def test_a_header_section_that_readers_see_differently() -> None:
    """With a bare LF in it nothing is believed."""
    assert judged(b"X: a\nb\r\n" + chain(1)) == ("fail", "the header section has a bare CR or LF")


@pytest.mark.parametrize("length", [1, 2, 3])
def test_dkimpy_seals_and_agrees(length: int) -> None:
    """A chain that dkimpy sealed passes here; one sealed here passes there."""
    content = MESSAGE
    for instance in range(1, length + 1):
        found = f"Authentication-Results: list.example; arc={'pass' if instance > 1 else 'none'}\r\n".encode()
        signer = dkim.ARC(found + content)
        include = [b"from", b"to", b"subject"]
        fields = signer.sign(b"s1", b"list.example", private_pem(KEY), b"list.example", include_headers=include)
        content = b"".join(fields) + content
    assert checked(content).word == "pass"
    assert checked(content).sealers == ("list.example",) * length
    assert dkim.arc_verify(chain(length), dnsfunc=lambda name, timeout=5: record(KEY).encode())[0] == b"pass"


PARTS = st.lists(
    st.sampled_from(
        [b"ARC-Seal: i=1; a=rsa-sha256; d=1.example; s=s1; cv=none; b=AAAA\r\n", b"ARC-Seal:", b"i=1;", b"\r\n",
         b"ARC-Message-Signature: i=1; a=rsa-sha256; d=1.example; s=s1; h=from; b=AAAA; bh=",
         b"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n", b"ARC-Authentication-Results: i=1; x\r\n", b"From: a\r\n",
         b"\xff", b"i=2; cv=pass"]
    ) | st.binary(max_size=9),
    max_size=20,
).map(b"".join)  # fmt: skip


@given(PARTS)
def test_any_octets_come_to_a_word(content: bytes) -> None:
    """Whatever a message is, there is a word for its chain, and without the key it is not pass."""
    result = checked(content)
    assert result.word in ("none", "fail")
    assert len(result.to_json()) == len(result.verdicts()) == 1
