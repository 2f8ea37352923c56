"""Key records: whose they are, what they are for, and which are too weak."""

from __future__ import annotations

import base64
import subprocess
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.dkim_key import keys_in, read_key, verified
from mtaq.mailauth.dkim_signature import Named, Unusable
from mtaq.model.dns import DnsAnswer, Found
from tests.support.dkim_signer import ed25519_key, record, rsa_key, sign

RSA = record(rsa_key())
P = RSA.partition("p=")[2]
DIGEST = b"d" * 32


def answer(*texts: str) -> DnsAnswer:
    """Return an answer whose strings have 255 octets at most, as they come."""
    octets = [text.encode() for text in texts]
    return DnsAnswer(Found.RECORDS, tuple(tuple(t[at : at + 255] for at in range(0, len(t), 255)) for t in octets))


def problem(text: str, algorithm: str = "rsa-sha256") -> tuple[str, str]:
    with pytest.raises(Unusable) as caught:
        read_key(text.encode(), algorithm)
    return caught.value.word, caught.value.reason


def der(bits: int, *, exponent: int = 65_537, private: bool = False) -> str:
    """Return a key in base64 that only OpenSSL makes."""
    options = ["-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}", "-pkeyopt", f"rsa_keygen_pubexp:{exponent}"]
    made = subprocess.run(["openssl", "genpkey", *options, "-outform", "DER"], capture_output=True, check=True).stdout
    if not private:
        turn = ["openssl", "pkey", "-inform", "DER", "-pubout", "-outform", "DER"]
        made = subprocess.run(turn, input=made, capture_output=True, check=True).stdout
    return base64.b64encode(made).decode()


@pytest.mark.parametrize(
    "text",
    [
        RSA,
        f"p={P}",
        f"v=DKIM1; h=sha1:sha256; s=email:x; t=y; n=for all; x=1; p={P[:90]} \t {P[90:]};",
        f"k=rsa;s=;p={P}",
    ],
    ids=count(),
)
def test_a_key_is_read(text: str) -> None:
    """What is missing has a default, blanks in the key and unknown tags do not count (RFC 6376 §3.6.1)."""
    (key,) = keys_in(answer(text), "rsa-sha256")
    assert key.verifies(base64.b64decode(sign(rsa_key(), DIGEST)), DIGEST)
    assert not key.verifies(b"x" * 256, DIGEST)
    assert not key.verifies(b"", DIGEST)


def test_an_ed25519_key_is_read() -> None:
    """32 octets without any wrapping (RFC 8463 §4)."""
    (key,) = keys_in(answer(record(ed25519_key())), "ed25519-sha256")
    assert key.verifies(base64.b64decode(sign(ed25519_key(), DIGEST)), DIGEST)
    assert not key.verifies(b"x" * 64, DIGEST)
    assert not key.verifies(b"x", DIGEST)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v=DKIM1; p=", "the key is revoked"),
        ("v=DKIM1; k=rsa", "the record is not a key"),
        (f"v=DKIM2; p={P}", "the record is not a key"),
        (f"v=DKIM1; k=ed25519; p={P}", "the key is for another algorithm"),
        (f"v=DKIM1; k=RSA; p={P}", "the key is for another algorithm"),
        (record(ed25519_key()).replace("k=ed25519", "k=rsa"), "the key is malformed"),
        (f"v=DKIM1; h=sha1; p={P}", "the key is for other hashes"),
        (f"v=DKIM1; s=other; p={P}", "the key is not for mail"),
        (f"v=DKIM1; s=emailx; p={P}", "the key is not for mail"),
        (f"v=DKIM1; p={P[:-8]}", "the key is malformed"),
        ("v=DKIM1; p=!", "the key record is malformed: p= is not base64"),
        (f"v=DKIM1; p={P}; p={P}", "the key record is malformed: a tag stands twice"),
        ("v=spf1 -all", "the record is not a key"),
        ("", "the key record is malformed: not a list of tags"),
    ],
    ids=count(),
)
def test_an_unfit_key_is_a_permerror(text: str, reason: str) -> None:
    """A revoked key, one that is for something else, and what is no key, are errors of their owner."""
    assert problem(text) == ("permerror", reason)


def test_a_key_of_another_kind_is_refused() -> None:
    """The record may say rsa and hold an Ed25519 or private key, or the other way round."""
    spki = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="  # Ed25519, RFC 8410 §10.1
    assert problem(f"p={spki}") == ("permerror", "the key is for another algorithm")
    assert problem(f"p={der(1024, private=True)}") == ("permerror", "the key is malformed")
    assert problem(f"k=ed25519; p={P}", "ed25519-sha256") == ("permerror", "the key is malformed")
    assert problem(RSA, "ed25519-sha256") == ("permerror", "the key is for another algorithm")


@pytest.mark.parametrize("bits", [512, 768])
def test_short_keys_are_refused(bits: int) -> None:
    """RFC 8301 §3.2: a key with less than 1024 bits vouches for nothing."""
    assert problem(f"p={der(bits)}") == ("policy", f"the key has {bits} bits, fewer than 1024 (RFC 8301)")


def test_costly_keys_are_refused() -> None:
    """Keys with which one verification would take long are not used."""
    assert problem(f"p={der(1024, exponent=2**64 + 13)}")[0] == "permerror"
    assert problem(record(rsa_key(4104)))[0] == "permerror"


def test_the_range_of_keys_is_used() -> None:
    """RFC 8301 §3.2: 1024 to 4096 bits must be verified."""
    for bits in (1024, 4096):
        assert read_key(record(rsa_key(bits)).encode(), "rsa-sha256")


def test_what_dns_says() -> None:
    """No name and no record is a permerror, no answer a temperror."""
    for found, word in ((Found.NO_NAME, "permerror"), (Found.NO_DATA, "permerror"), (Found.FAILED, "temperror")):
        with pytest.raises(Unusable) as caught:
            keys_in(DnsAnswer(found), "rsa-sha256")
        assert caught.value.word == word


def test_of_several_records_those_that_fit_are_used() -> None:
    """Other texts at the name, and a key for another algorithm, do no harm (RFC 6376 §3.6.2.2)."""
    several = answer("v=spf1 -all", record(ed25519_key()), RSA, record(rsa_key(1024)))
    assert len(keys_in(several, "rsa-sha256")) == 2
    assert len(keys_in(several, "ed25519-sha256")) == 1
    named = Named("example.com", "s1", algorithm="rsa-sha256")
    verified(named, several, base64.b64decode(sign(rsa_key(1024), DIGEST)), DIGEST)


def test_flags() -> None:
    """t=s is for its own domain only; t=y is told when nothing matches."""
    named = Named("example.com", "s1", algorithm="rsa-sha256")
    value = base64.b64decode(sign(rsa_key(), DIGEST))
    strict, testing = answer(record(rsa_key(), "t=s;")), answer(record(rsa_key(), "t=y:s;"))
    verified(named, strict, value, DIGEST)
    with pytest.raises(Unusable) as caught:
        verified(named, strict, value, DIGEST, exact_domain=False)
    assert caught.value.word == "permerror"
    with pytest.raises(Unusable, match="testing") as caught:
        verified(named, testing, value, b"x" * 32)
    assert caught.value.word == "fail"


@given(st.binary(max_size=300), st.sampled_from(["rsa-sha256", "ed25519-sha256"]))
def test_any_octets_are_read_or_refused(octets: bytes, algorithm: str) -> None:
    """Whatever somebody publishes as a key, nothing but Unusable is raised."""
    for published in (octets, b"p=" + base64.b64encode(octets), b"k=ed25519; p=" + base64.b64encode(octets)):
        try:
            key = read_key(published, algorithm)
        except Unusable:
            continue
        assert not key.verifies(octets, DIGEST)
