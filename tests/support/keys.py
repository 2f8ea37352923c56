"""Private keys for tests, as PEM; made once for each process."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mtaq.mailauth.dkim_sign_key import SigningKey, load_key
from tests.support.dkim_signer import ed25519_key, record, rsa_key


@cache
def rsa_pem(bits: int = 2048) -> str:
    """An RSA key in PKCS #8."""
    return rsa_key(bits).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def ed25519_pem() -> str:
    """An Ed25519 key."""
    return ed25519_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@cache
def signing_key(pem: str) -> SigningKey:
    """Read once: that takes its time."""
    return load_key(pem)


def rsa_record(bits: int = 2048) -> str:
    """What is published for ``rsa_pem``."""
    return record(rsa_key(bits))


def ed25519_record() -> str:
    """What is published for ``ed25519_pem``."""
    return record(ed25519_key())
