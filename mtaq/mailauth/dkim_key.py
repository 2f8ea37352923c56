"""Is this the key of that signature, and did it make it (RFC 6376 §3.6.1, §6.1.2, RFC 8463, RFC 8301)?

DNS is asked by the checks; here its answers are read. Keys that were read are remembered by the text of their record,
because few domains sign most mail, and reading one takes half as long as using it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mtaq.mailauth.dkim_signature import ALGORITHMS, Named, Unusable
from mtaq.mailauth.dkim_tags import TagError, base64_tag, list_tag, parse_tags
from mtaq.model.dns import DnsAnswer, Found

#: RFC 8301 §3.2: shorter ones are broken.
MIN_RSA_BITS = 1_024
#: RFC 8301 §3.2: longer ones need not be verified; their cost grows with the square.
MAX_RSA_BITS = 4_096
#: Nobody uses larger ones; they make a verification cost as much as a signature.
_MAX_EXPONENT_BITS = 33
#: A name should have one record (RFC 6376 §3.6.2.2); keys of two algorithms and a wildcard's records may be more.
_MAX_RECORDS = 10
#: Longer records are read anew each time, or a stranger could fill the memory with them; 4,096 bits take 750 octets.
_REMEMBERED_BYTES = 1_024

_PADDING = PKCS1v15()
_SHA256 = Prehashed(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key, and what its owner says of it.

    Attributes:
        exact_domain: ``t=s``: it is for its own domain, not for those below.
        testing: ``t=y``: its owner is trying DKIM out.
    """

    key: RSAPublicKey | Ed25519PublicKey
    exact_domain: bool = False
    testing: bool = False

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Did this key make *signature* of the SHA-256 *digest*?"""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PADDING, _SHA256)
            else:
                self.key.verify(signature, digest)  # RFC 8463 §3: of the hash, which is hashed once more
        except InvalidSignature:
            return False
        return True


def keys_in(answer: DnsAnswer, algorithm: str) -> list[PublicKey]:
    """
    Return the keys for *algorithm* that the owner of a name published; at least one.

    Raises:
        Unusable: There is none; ``temperror`` when DNS could not tell.
    """
    if answer.found is Found.FAILED:
        raise Unusable("temperror", "the key cannot be looked up now")
    if answer.found is not Found.RECORDS:
        raise Unusable("permerror", "there is no key")
    keys, problem = [], Unusable("permerror", "there is no key")
    for strings in answer.records[:_MAX_RECORDS]:
        try:
            record = b"".join(strings)
            read = _remembered_key if len(record) <= _REMEMBERED_BYTES else read_key
            keys.append(read(record, algorithm))
        except Unusable as error:
            problem = error
    if not keys:
        raise problem
    return keys


def read_key(record: bytes, algorithm: str) -> PublicKey:
    """
    Return the key of one record.

    Raises:
        Unusable: It is none, is revoked, or is not for *algorithm* or not for mail.
    """
    try:
        tags = parse_tags(record)
        octets = base64_tag(tags, "p") if tags.get("p") else b""
    except TagError as error:
        raise Unusable("permerror", f"the key record is malformed: {error}") from error
    if problem := _unfit(tags, algorithm):
        raise Unusable("permerror", problem)
    flags = list_tag(tags, "t")
    return PublicKey(_load(octets, ALGORITHMS[algorithm]), "s" in flags, "y" in flags)


_remembered_key = lru_cache(maxsize=512)(read_key)


def _unfit(tags: Mapping[str, str], algorithm: str) -> str | None:
    if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
        return "the record is not a key"
    if not tags["p"]:
        return "the key is revoked"
    if tags.get("k", "rsa") != ALGORITHMS[algorithm]:
        return "the key is for another algorithm"
    if "h" in tags and "sha256" not in list_tag(tags, "h"):
        return "the key is for other hashes"
    if not {"*", "email"}.intersection(list_tag(tags, "s") or ("*",)):
        return "the key is not for mail"
    return None


def _load(octets: bytes, kind: str) -> RSAPublicKey | Ed25519PublicKey:
    try:
        key = Ed25519PublicKey.from_public_bytes(octets) if kind == "ed25519" else load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Unusable("permerror", "the key is malformed") from error
    if isinstance(key, RSAPublicKey):
        return _of_fit_size(key)
    if not isinstance(key, Ed25519PublicKey) or kind != "ed25519":
        raise Unusable("permerror", "the key is for another algorithm")
    return key


def _of_fit_size(key: RSAPublicKey) -> RSAPublicKey:
    if key.key_size < MIN_RSA_BITS:
        raise Unusable("policy", f"the key has {key.key_size} bits, fewer than {MIN_RSA_BITS} (RFC 8301)")
    if key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
        raise Unusable("permerror", f"the key has more than {MAX_RSA_BITS} bits, or a large exponent")
    return key


def verified(named: Named, answer: DnsAnswer, signature: bytes, digest: bytes, *, exact_domain: bool = True) -> None:
    """
    Return when a key of *answer* made *signature* of *digest*.

    Args:
        exact_domain: The domain of ``i=`` is ``d=``.

    Raises:
        Unusable: None did, and why.
    """
    keys = [key for key in keys_in(answer, named.algorithm) if exact_domain or not key.exact_domain]
    if not keys:
        raise Unusable("permerror", "the key is not for domains below d=")
    if not any(key.verifies(signature, digest) for key in keys):
        testing = ", and its domain is testing (t=y)" if any(key.testing for key in keys) else ""
        raise Unusable("fail", "the signature does not match" + testing)
