"""Ways from a host's certificate to one that is trusted, and what is right about them (RFC 5280 §6).

For DANE alone, whose anchors Python's ``ssl`` cannot be given; ordinary verification is ``ssl``'s. A chain is what a
stranger sent: how much of it is looked at is bounded, and what cannot be read leads nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from mtaq.deliver.tls_session import Objection

#: Certificates of a chain that are looked at, and signatures verified for it; no honest host needs as many.
MAX_CHAIN = 10
MAX_SIGNATURES = 40
#: Larger keys cost their reader more than their owner.
MAX_RSA_BITS = 8_192

_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.NAME_CONSTRAINTS,
    ExtensionOID.CERTIFICATE_POLICIES,
}
_BROKEN_HASHES = ("md5", "sha1")

Key = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
T = TypeVar("T", bound=x509.ExtensionType)


def load_certificate(der: bytes) -> x509.Certificate | None:
    """Read a certificate; ``None`` when it cannot be read."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, UnsupportedAlgorithm):
        return None


def der_of(certificate: x509.Certificate) -> bytes:
    """Return the octets of *certificate*."""
    return certificate.public_bytes(Encoding.DER)


def load_key(der: bytes) -> Key | None:
    """Read a public key (SubjectPublicKeyInfo); ``None`` when it is none that signs certificates."""
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Key) else None


class Paths:
    """The ways from a certificate to an anchor, each certificate signed by the next.

    Args:
        candidates: What may stand between, anchors included.
        is_anchor: Is this certificate one?
        keys: Anchors of which the key alone is known.
    """

    def __init__(
        self,
        candidates: Sequence[x509.Certificate],
        is_anchor: Callable[[x509.Certificate], bool],
        keys: Sequence[Key] = (),
    ) -> None:
        self._candidates = list(dict.fromkeys(candidates))
        self._anchors = {each for each in self._candidates if is_anchor(each)}
        self._keys = keys
        self._left = MAX_SIGNATURES

    def from_leaf(self, leaf: x509.Certificate) -> Iterator[list[x509.Certificate]]:
        """Yield each way, *leaf* first."""
        return self._onwards([leaf])

    def _onwards(self, path: list[x509.Certificate]) -> Iterator[list[x509.Certificate]]:
        last = path[-1]
        if any(self._may_verify() and _is_signed_with(last, key) for key in self._keys):
            yield path
        for issuer in self._candidates:
            if issuer in path or issuer.subject != last.issuer or not self._may_verify():
                continue
            key = _key_of(issuer)
            if key is None or not _is_signed_with(last, key):
                continue
            if issuer in self._anchors:
                yield [*path, issuer]
            else:
                yield from self._onwards([*path, issuer])

    def _may_verify(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _key_of(certificate: x509.Certificate) -> Key | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Key) else None


def _is_signed_with(certificate: x509.Certificate, key: Key) -> bool:
    try:
        _verify(certificate, key)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _verify(certificate: x509.Certificate, key: Key) -> None:
    """Raise unless *key* signed *certificate*, with a hash that is not broken."""
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        key.verify(signature, signed)
        return
    digest, how = certificate.signature_hash_algorithm, certificate.signature_algorithm_parameters
    if digest is None or digest.name in _BROKEN_HASHES:
        raise ValueError("a broken hash")
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(digest))
    elif isinstance(how, padding.PKCS1v15 | padding.PSS) and key.key_size <= MAX_RSA_BITS:
        key.verify(signature, signed, how, digest)
    else:
        raise ValueError("another algorithm")


def objection_to_path(path: Sequence[x509.Certificate], names: Sequence[str], now: datetime) -> Objection | None:
    """
    Return why a host whose way to an anchor is *path* is not trusted to be one of *names*; ``None`` when it is.

    Args:
        path: The host's certificate first, the anchor last, unless that is a key.
    """
    leaf, *authorities = path
    try:
        if not _may_serve(leaf) or not all(_may_sign(each, below) for below, each in enumerate(authorities)):
            return Objection("validation-failure", "a certificate of the chain is not meant for this")
        if not all(each.not_valid_before_utc <= now <= each.not_valid_after_utc for each in path):
            return Objection("certificate-expired", "a certificate of the chain is not valid now")
        presented = _names_of(leaf)
        if not all(_allows_names(each, presented) for each in authorities):
            return Objection("certificate-not-trusted", "an authority may not sign for that name")
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return Objection("validation-failure", "a certificate of the chain cannot be read")
    if not any(_is_named(name.lower(), presented) for name in names):
        return Objection("certificate-host-mismatch", f"the certificate is not for {names[0]}")
    return None


def _may_serve(certificate: x509.Certificate) -> bool:
    usage = _extension(certificate, x509.ExtendedKeyUsage)
    servers = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    return _is_understood(certificate) and (usage is None or any(each in usage for each in servers))


def _may_sign(certificate: x509.Certificate, below: int) -> bool:
    """May it sign, with so many authorities *below* it (RFC 5280 §6.1.4)?"""
    basic, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    if basic is None or not basic.ca or (usage is not None and not usage.key_cert_sign):
        return False
    return _is_understood(certificate) and (basic.path_length is None or basic.path_length >= below)


def _is_understood(certificate: x509.Certificate) -> bool:
    """RFC 5280 §4.2: what is critical and not understood refuses the certificate."""
    return all(each.oid in _UNDERSTOOD for each in certificate.extensions if each.critical)


def _extension(certificate: x509.Certificate, kind: type[T]) -> T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _names_of(certificate: x509.Certificate) -> list[str]:
    """Return its DNS names; the common name where there is none (RFC 7672 §3.2.3)."""
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    names = alternative.get_values_for_type(x509.DNSName) if alternative is not None else []
    if not names:
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return [name.lower() for name in names]


def _is_named(name: str, presented: Sequence[str]) -> bool:
    """Is *name* one of them? A wildcard stands for exactly one label, the first (RFC 7672 §3.2.3)."""
    name = name.lower()
    _, _, parent = name.partition(".")
    return name in presented or ("." in parent and f"*.{parent}" in presented)


def _allows_names(authority: x509.Certificate, names: Sequence[str]) -> bool:
    """RFC 5280 §4.2.1.10, for the one kind of names that matters here."""
    constraints = _extension(authority, x509.NameConstraints)
    if constraints is None:
        return True
    permitted = [str(each.value).lower() for each in constraints.permitted_subtrees or () if _is_dns(each)]
    excluded = [str(each.value).lower() for each in constraints.excluded_subtrees or () if _is_dns(each)]
    if any(_is_within(name, tree) for name in names for tree in excluded):
        return False
    return not permitted or all(any(_is_within(name, tree) for tree in permitted) for name in names)


def _is_dns(name: x509.GeneralName) -> bool:
    return isinstance(name, x509.DNSName)


def _is_within(name: str, tree: str) -> bool:
    return not tree or name == tree or name.endswith("." + tree.removeprefix("."))
