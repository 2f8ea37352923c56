"""Keys for DKIM signatures."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from mtaq.state.dkim_keys import dkim_key, generate, key_id, parse_field_name, record_of, zone_line
from tests.support.control import about


def pem(key, encryption=None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def test_rsa():
    """A generated RSA key has 2048 bits, and its record is the public key."""
    key = dkim_key("example.com", "s1", generate("rsa-sha256"), about=about())
    assert (key.id, key.algorithm, key.signs) == ("s1._domainkey.example.com", "rsa-sha256", ("example.com",))
    record = record_of(key.pem)
    assert record.startswith("v=DKIM1; k=rsa; p=")
    assert load_der_public_key(base64.b64decode(record.split("p=", 1)[1])).key_size == 2048
    strings = zone_line(key.id, record).split('"')[1::2]
    assert "".join(strings) == record
    assert max(map(len, strings)) <= 255


def test_ed25519():
    """The record of an Ed25519 key is its 32 octets (RFC 8463 §4)."""
    record = record_of(generate("ed25519-sha256"))
    assert record.startswith("v=DKIM1; k=ed25519; p=")
    assert len(base64.b64decode(record.rpartition("p=")[2])) == 32


def test_the_name_is_for_dns():
    """The record of an internationalised domain stands under its A-labels."""
    assert key_id("bücher.example", "s1") == "s1._domainkey.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "x" * 30_000,
        "\udc80",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 1024), BestAvailableEncryption(b"password")),
    ],
)
def test_what_is_no_key(text):
    """Anything else is refused, and the mistake does not repeat it."""
    with pytest.raises(ValueError, match="key") as mistake:
        dkim_key("example.com", "s1", text, about=about())
    assert len(str(mistake.value)) < 100


def test_a_key_is_not_shown():
    """The text of an entry, as in a log or a traceback, does not hold the key."""
    key = dkim_key("example.com", "s1", generate("ed25519-sha256"), about=about())
    assert "PRIVATE" not in repr(key)


def test_field_names():
    """Names of fields are in lower case; a colon belongs to none."""
    assert parse_field_name("Feedback-ID") == "feedback-id"
    with pytest.raises(ValueError, match="name of a header field"):
        parse_field_name("a:b")
