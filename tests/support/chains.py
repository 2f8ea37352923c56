"""Certificates of any kind, made on the spot: what trustme makes are the good ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from mtaq.deliver.dane import Tlsa

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Issued:
    """A certificate, its key, and who signed it."""

    certificate: x509.Certificate
    key: Any
    issuer: Issued | None = None

    @cached_property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.DER)

    @cached_property
    def key_info(self) -> bytes:
        """Its SubjectPublicKeyInfo."""
        info: bytes = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return info

    @property
    def chain(self) -> list[bytes]:
        """It and those above it."""
        return [self.der, *(self.issuer.chain if self.issuer is not None else ())]

    @property
    def pem(self) -> bytes:
        """Key and chain, for a server."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        issued: Issued | None = self
        parts = [key]
        while issued is not None:
            parts.append(issued.certificate.public_bytes(Encoding.PEM))
            issued = issued.issuer
        return b"".join(parts)

    def tlsa(self, usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
        """A record about it."""
        data = self.der if selector == 0 else self.key_info
        if matching:
            data = (hashlib.sha256 if matching == 1 else hashlib.sha512)(data).digest()
        return Tlsa(usage, selector, matching, data)


def issue(
    name: str,
    by: Issued | None = None,
    *,
    authority: bool = False,
    dns: Sequence[str] = (),
    expired: bool = False,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: Any = None,
    path_length: int | None = None,
) -> Issued:
    """Make a certificate for *name*, signed *by* somebody or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = NOW - timedelta(days=400 if expired else 30)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by.certificate.subject if by is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=365))
    )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in dns]), False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = by.key if by is not None else key
    digest = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, digest), key, by)
