"""ARC sets of ours, judged by our verifier and by dkimpy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dkim
import pytest

from mtaq.mailauth.arc import check_arc
from mtaq.mailauth.arc_chain import MAX_INSTANCES, find_chain, highest_instance, is_given_up
from mtaq.mailauth.arc_seal import ChainVerdict, NotSealed, seal
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_sign import CannotSign, Signer, signature_fields
from mtaq.mailauth.dkim_tags import parse_tags
from tests.support.dkim_signer import MESSAGE
from tests.support.keys import ed25519_pem, ed25519_record, rsa_pem, rsa_record, signing_key
from tests.support.zones import Zones, driven

NOW = datetime(2025, 12, 1, tzinfo=UTC)
ZONES: Zones = {
    "s1._domainkey.example.com": {"TXT": [rsa_record()]},
    "ed._domainkey.example.com": {"TXT": [ed25519_record()]},
}
RSA = Signer(domain="example.com", selector="s1", key=signing_key(rsa_pem()))
ED25519 = Signer(domain="example.com", selector="ed", key=signing_key(ed25519_pem()))
RESULTS = b"mx.example.com; spf=pass smtp.mfrom=a@example.net;\r\n\tdkim=none"


def sealed(content: bytes, verdict: ChainVerdict = "none", signer: Signer = RSA, **changes: Any) -> bytes:
    return seal(content, signer, verdict=verdict, results=RESULTS, now=NOW, **changes) + content


def chain(length: int, signer: Signer = ED25519) -> bytes:
    content = MESSAGE
    for number in range(length):
        content = sealed(content, "pass" if number else "none", signer)
    return content


def judged(content: bytes) -> tuple[str, int]:
    result = driven(check_arc(find_chain(SignedMessage(content)), now=NOW), ZONES)
    return result.word, result.instances


def said(content: bytes, name: bytes) -> dict[str, str]:
    return parse_tags(SignedMessage(content).named(name)[0].value)


@pytest.mark.parametrize("signer", [RSA, ED25519], ids=["rsa", "ed25519"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_chain_of_ours_passes(signer: Signer, length: int) -> None:
    """Each set prolongs the chain, with both kinds of keys."""
    assert judged(chain(length, signer)) == ("pass", length)


def test_another_implementation_accepts_it() -> None:
    """dkimpy says what we say."""

    def lookup(name: bytes, timeout: int = 5) -> bytes:
        return str(ZONES[name.decode().rstrip(".")]["TXT"][0]).encode()

    verdict, results, reason = dkim.arc_verify(chain(3, RSA), dnsfunc=lookup)
    assert (verdict, len(results)) == (b"pass", 3), reason


def test_what_a_set_says() -> None:
    """The results under the instance, what is signed, DKIM signatures included, and no more folds than blanks."""
    content = b"".join([*signature_fields(SignedMessage(MESSAGE), [RSA], now=NOW), MESSAGE])
    content = sealed(content, signer=Signer(domain="example.com", selector="s1", key=RSA.key, names=(b"x-other",)))
    seal_, signature = said(content, b"arc-seal"), said(content, b"arc-message-signature")
    assert [*seal_] == ["a", "b", "cv", "d", "i", "s", "t"]
    assert (seal_["cv"], seal_["i"], seal_["d"]) == ("none", "1", "example.com")
    assert "".join(signature["h"].split()) == "from:from:subject:to:dkim-signature"
    (results,) = SignedMessage(content).named(b"arc-authentication-results")
    assert results.octets == b"ARC-Authentication-Results: i=1; " + RESULTS
    assert all(len(line) <= 998 for line in content.split(b"\r\n"))


def test_expiry_is_of_the_signature_only() -> None:
    """``x=`` stands in the signature of the message; a seal has none (RFC 8617 §4.1.3)."""
    signer = Signer(domain="example.com", selector="s1", key=RSA.key, lifetime=timedelta(days=1))
    content = sealed(MESSAGE, signer=signer)
    assert "x" in said(content, b"arc-message-signature")
    assert "x" not in said(content, b"arc-seal")
    assert judged(content) == ("pass", 1)


def test_a_broken_chain_is_sealed_as_broken() -> None:
    """The seal says so, and covers its own set alone (RFC 8617 §5.1.2)."""
    broken = chain(2).replace(b"cv=pass", b"cv=none")
    content = sealed(broken, "fail")
    assert (said(content, b"arc-seal")["cv"], said(content, b"arc-seal")["i"]) == ("fail", "3")
    alone = seal(broken, ED25519, verdict="fail", results=RESULTS, now=NOW)
    without = b"".join(field.octets + b"\r\n" for field in SignedMessage(alone).fields)
    other = broken.replace(b"spf=pass", b"spf=fail", 1)
    assert without == seal(other, ED25519, verdict="fail", results=RESULTS, now=NOW)


def test_nobody_adds_to_a_chain_that_was_given_up() -> None:
    """Behind ``cv=fail`` no set follows (RFC 8617 §5.1 step 2)."""
    given_up = sealed(chain(1), "fail")
    assert is_given_up(SignedMessage(given_up))
    with pytest.raises(NotSealed, match="cv=fail"):
        sealed(given_up, "fail")


def test_fields_that_are_no_chain() -> None:
    """They are not passed over: what follows them is broken from the beginning."""
    content = b"ARC-Seal: nonsense\r\n" + MESSAGE
    assert highest_instance(SignedMessage(content)) == 0
    assert said(sealed(content, "fail"), b"arc-seal")["cv"] == "fail"
    assert said(sealed(content, "none"), b"arc-seal")["cv"] == "fail"


def test_a_chain_that_was_taken_out() -> None:
    """Whatever was found of it, the next set is the first one of none."""
    assert said(sealed(MESSAGE, "pass"), b"arc-seal")["cv"] == "none"


def test_a_chain_that_was_changed_here() -> None:
    """What passed and is no chain any more gets no seal that says it passed."""
    content = chain(2)
    (newest, _) = SignedMessage(content).named(b"arc-seal")
    with pytest.raises(NotSealed, match="changed on the way through"):
        sealed(content.replace(newest.octets + b"\r\n", b""), "pass")


def test_a_chain_has_an_end() -> None:
    """After fifty sets nothing is added (RFC 8617 §4.2.1)."""
    content = b"ARC-Seal: i=%d; cv=pass\r\n" % MAX_INSTANCES + MESSAGE
    with pytest.raises(NotSealed, match="50 sets"):
        sealed(content, "pass")


def test_what_cannot_be_signed() -> None:
    """A message without From has no valid signature, here neither."""
    with pytest.raises(CannotSign):
        sealed(b"Subject: x\r\n\r\n")
