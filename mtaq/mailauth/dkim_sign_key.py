"""A private key to sign with: RSA, or Ed25519 (RFC 6376 §3.3, RFC 8463).

Reading an RSA key proves that its numbers are primes, which takes 35 ms with 2048 bits and 250 ms with 4096; whoever
asks for it reads each key once, and in a thread. A private key is a secret: no error repeats any of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from mtaq.mailauth.dkim_key import MAX_RSA_BITS, MIN_RSA_BITS

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

#: Longer ones are not read: one of 4096 bits has 3,300 characters.
MAX_PEM = 20_000
#: RSA keys up to this size sign in 0.3 ms, those of 4096 bits in 1.6 ms.
_QUICK_BITS = 2_048

_PADDING = PKCS1v15()
_SHA256 = Prehashed(hashes.SHA256())


class UnusableKey(ValueError):
    """Not a key that signs mail; the text may be shown to anybody."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key.

    Attributes:
        algorithm: ``a=``.
        is_quick: Can an event loop wait for its signatures?
    """

    algorithm: Algorithm
    is_quick: bool
    _key: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)

    def sign(self, digest: bytes) -> bytes:
        """Return the signature of the SHA-256 *digest*."""
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(digest, _PADDING, _SHA256)
        return self._key.sign(digest)  # RFC 8463 §3: of the hash, which is hashed once more


def load_key(pem: str) -> SigningKey:
    """
    Return the key in *pem*.

    Raises:
        UnusableKey: It is none for DKIM.
    """
    if len(pem) > MAX_PEM:
        raise UnusableKey(f"the key has more than {MAX_PEM} characters")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise UnusableKey("the key is encrypted") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("not a private key in PEM") from None
    if isinstance(key, Ed25519PrivateKey):
        return SigningKey("ed25519-sha256", is_quick=True, _key=key)
    if not isinstance(key, RSAPrivateKey):
        raise UnusableKey("neither an RSA nor an Ed25519 key")
    if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:  # RFC 8301 §3.2
        raise UnusableKey(f"the RSA key has {key.key_size} bits, not {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    return SigningKey("rsa-sha256", is_quick=key.key_size <= _QUICK_BITS, _key=key)
