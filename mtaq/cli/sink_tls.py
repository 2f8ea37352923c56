"""The certificates of the sink: good ones and bad ones, made when it starts, and the contexts that use them.

Their authority lives as long as the process; its certificate can be written to a file for clients to trust. A file that
cannot be read, or holds no certificate, is a ``ConfigError``.
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from mtaq.cli.sink_profile import Profile
from mtaq.net.tls import server_context

WRONG_NAME = "wrong-name.invalid"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class Authority:
    """Signs the sink's certificates."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("mtaq sink authority")
        begins = self._now - timedelta(days=30)
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key(), begins, self._now + timedelta(days=365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, path: Path) -> None:
        """
        Write the authority's certificate.

        Raises:
            OSError: It cannot be written.
        """
        path.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(self, kind: str, hostname: str) -> bytes:
        """Return a certificate with its key, in PEM: one of ``sink_profile.CERTIFICATES``."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = WRONG_NAME if kind == "wrong-name" else hostname
        issuer, signer = (_name(name), key) if kind == "self-signed" else (self._name, self._key)
        ends = self._now + timedelta(days=-1 if kind == "expired" else 365)
        certificate = (
            _builder(_name(name), issuer, key.public_key(), self._now - timedelta(days=10), ends)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM) + private


def context_of(profile: Profile, authority: Authority) -> ssl.SSLContext | None:
    """
    Return what *profile* wants of TLS; ``None`` for no TLS.

    Raises:
        ConfigError: Its files hold no certificate with its key.
    """
    if profile.certificate is None:
        return None
    if isinstance(profile.certificate, Path):
        context = server_context(profile.certificate, profile.key, floor=profile.tls_min)
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the library reads certificates from files only
            file.write(authority.issue(profile.certificate, profile.hostname))
            file.flush()
            context = server_context(Path(file.name), floor=profile.tls_min)
    context.maximum_version = _VERSIONS[profile.tls_max]
    return context


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
