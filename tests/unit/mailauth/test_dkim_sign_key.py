"""Private keys: which ones sign, and that none is told."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from mtaq.mailauth.dkim_sign_key import MAX_PEM, UnusableKey, load_key
from tests.support.dkim_signer import private_pem, rsa_key
from tests.support.keys import ed25519_pem, rsa_pem, signing_key

SHORT = """\
-----BEGIN RSA PRIVATE KEY-----
MIIBOwIBAAJBAM7/JfqYeSPaCm0xvMs2oOg6psg6+gBlq9xGAc+mKFCZrEMj4hOx
845nsiR7Lx21DR65cUkcCjgDiDZcrVRxxpECAwEAAQJBAJuF6KsX1CyzrhHMxOSJ
7uuM5bKbXSrfOPkPQF0boj6rXFmb4b0R4cXfd+IO72musHDQUgIYixbzkliizI6U
TgECIQD5L3tN79RGc6aR5dFTeZYvoeYfdPBEWJ3OULNbZnEUWQIhANSoTs4oAZ4s
l0u+BmSZ227lglMwU3dusICPqeAVrVz5AiAjrRejTe3/dDlp9BRnNiY5hZ1z7YMk
1ecqDcXQFTelaQIgSu7nneMg9tB1m33hGM/SL5h1vMR5lMsPLK3yyQA6b1kCIQCk
8/ac/gTwA+ckrOiMBxl2iQSDw2eOWs4vEu1ZC2espA==
-----END RSA PRIVATE KEY-----
"""


def test_algorithms() -> None:
    """RSA in both PEM forms, and Ed25519."""
    assert signing_key(rsa_pem(1024)).algorithm == "rsa-sha256"
    assert load_key(private_pem(rsa_key(1024)).decode()).algorithm == "rsa-sha256"
    assert signing_key(ed25519_pem()).algorithm == "ed25519-sha256"
    assert signing_key(ed25519_pem()).is_quick
    assert signing_key(rsa_pem(2048)).is_quick
    assert len(signing_key(rsa_pem(1024)).sign(hashlib.sha256().digest())) == 128


def encrypted() -> str:
    return rsa_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()


def elliptic() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        ("", "not a private key in PEM"),
        ("secret \ud800", "not a private key in PEM"),
        (rsa_pem(1024)[:200], "not a private key in PEM"),
        (rsa_pem(1024) * 30, f"the key has more than {MAX_PEM} characters"),
        (encrypted(), "the key is encrypted"),
        (elliptic(), "neither an RSA nor an Ed25519 key"),
    ],
    ids=["empty", "no key", "cut off", "long", "encrypted", "elliptic"],
)
def test_unusable_keys(pem: str, reason: str) -> None:
    """What is no key for DKIM is refused, without a word of it."""
    with pytest.raises(UnusableKey) as raised:
        load_key(pem)
    assert str(raised.value) == reason
    assert raised.value.__cause__ is None


def test_short_keys() -> None:
    """Keys that are broken are not used (RFC 8301 §3.2)."""
    with pytest.raises(UnusableKey, match="512 bits, not 1024 to 4096"):
        load_key(SHORT)


def test_a_key_is_not_shown() -> None:
    """Not in repr either."""
    assert "Private" not in repr(signing_key(ed25519_pem()))
