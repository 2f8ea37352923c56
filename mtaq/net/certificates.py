"""Certificates of our listeners that are read again when their files change, and what clients' certificates say.

The files are looked at when a context is asked for, at most once a second, so a renewal costs no signal and no
restart. A renewal replaces several files one after the other: while they do not fit together, or cannot be read, the
context that there was goes on, which is told once, and they are tried again every second. Paths are followed at each
look, so links that are switched over, as certbot and Kubernetes do, count as a change.

A client's certificate logs in under the first of these names that it has: an e-mail address among the subject's
alternative names (RFC 5280 §4.2.1.6), the common name, a DNS name, and its serial number when all are missing. Which
of the names the operator's authority vouches for is the operator's affair; names that hold control characters are
passed over.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mtaq.config import ReceiveOptions
from mtaq.model.errors import ConfigError
from mtaq.model.message import ClientCertificate, TlsFacts
from mtaq.net.tls import Floor, server_context, tls_facts

LOOK_EVERY_S = 1.0

#: A longer name is none that anybody wants in logs and JSON.
LONGEST_NAME = 255

_SHORT_NAMES = {
    "commonName": "CN", "countryName": "C", "localityName": "L", "stateOrProvinceName": "ST",
    "organizationName": "O", "organizationalUnitName": "OU",
}  # fmt: skip

Signature = tuple[tuple[int, ...] | None, ...]
"""What tells that one of some files is another one now; ``None`` for a file that cannot be looked at."""


class CertificateEvents(Protocol):
    """Who is told (``mtaq.telemetry.events.EventLog``)."""

    def certificate_renewed(self, *, file: str) -> None:
        """Changed files are in use."""

    def certificate_refused(self, *, file: str, error: str) -> None:
        """Changed files cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsOptions:
    """What one port says about TLS; equal ones can share a ``ServerTls``.

    Attributes:
        certificate: PEM file of the certificate and its chain.
        key: PEM file of its private key.
        ciphers: OpenSSL cipher string for TLS 1.2; ``None`` for OpenSSL's own.
        floor: Lowest version spoken.
        client_authorities: PEM file; ``None`` asks clients for no certificate.
    """

    certificate: Path
    key: Path
    ciphers: str | None = None
    floor: Floor = "1.2"
    client_authorities: Path | None = None

    def load(self) -> ssl.SSLContext:
        """
        Return a context of the files as they are now.

        Raises:
            ConfigError: They cannot be used; names the file.
        """
        return server_context(
            self.certificate, self.key, ciphers=self.ciphers, floor=self.floor,
            client_authorities=self.client_authorities,
        )  # fmt: skip

    def signature(self) -> Signature:
        """Look at the files, links followed."""
        return tuple(_seen(path) for path in (self.certificate, self.key, self.client_authorities) if path is not None)


def tls_options(options: ReceiveOptions) -> TlsOptions | None:
    """Return what *options* say about TLS; ``None`` for a port without a certificate."""
    if options.smtp_certificate is None or options.smtp_key is None:
        return None
    authorities = options.smtp_tls_client_ca
    return TlsOptions(
        certificate=Path(options.smtp_certificate),
        key=Path(options.smtp_key),
        ciphers=options.smtp_ciphers,
        floor=options.smtp_tls_min,
        client_authorities=Path(authorities) if authorities is not None else None,
    )


class ServerTls:
    """TLS on some of our ports.

    Args:
        events: Told of renewals.
        clock: Seconds, never going back.

    Raises:
        ConfigError: The files cannot be used as they are now; names the file.
    """

    def __init__(
        self, options: TlsOptions, *, events: CertificateEvents, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options = options
        self._events = events
        self._clock = clock
        self._looked_at = clock()
        self._signature = options.signature()  # before reading: what changes meanwhile is seen at the next look
        self._refused: Signature | None = None
        self._context = options.load()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        now = self._clock()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._look()
        return self._context

    def facts(self, session: ssl.SSLObject) -> TlsFacts:
        """Return what the JSON and the logs say of an established TLS *session*."""
        certificate = _certificate(session)
        client = None if certificate is None else ClientCertificate(subject=_subject_text(certificate), verified=True)
        return replace(tls_facts(session), client_cert=client)

    def peer_user(self, session: ssl.SSLObject) -> str | None:
        """Return the name that the client's certificate logs in as (see the module); ``None`` when it showed none."""
        certificate = _certificate(session)
        return None if certificate is None else next(_names(certificate))

    def _look(self) -> None:
        found = self._options.signature()
        if found == self._signature:
            self._refused = None
            return
        try:
            self._context = self._options.load()
        except ConfigError as error:
            if found != self._refused:
                self._events.certificate_refused(file=str(self._options.certificate), error=str(error))
            self._refused = found
            return
        self._signature, self._refused = found, None
        self._events.certificate_renewed(file=str(self._options.certificate))


def _certificate(session: ssl.SSLObject) -> dict[str, Any] | None:
    """Return the client's certificate. Whoever shows one that does not verify has no session."""
    try:
        return session.getpeercert() or None
    except ValueError:  # text in it that is none
        return None


def _subject_text(certificate: dict[str, Any]) -> str:
    parts = [(_SHORT_NAMES.get(name, name), value) for name, value in _subject(certificate) if _is_showable(value)]
    return ", ".join(f"{name}={value}" for name, value in parts) or next(_names(certificate))


def _names(certificate: dict[str, Any]) -> Iterator[str]:
    """Yield the names of a certificate, as ``getpeercert`` has them, the best one first."""
    alternatives = certificate.get("subjectAltName", ())
    names = [value for kind, value in alternatives if kind == "email"]
    names += [value for name, value in _subject(certificate) if name == "commonName"]
    names += [value for kind, value in alternatives if kind == "DNS"]
    yield from (name for name in names if _is_showable(name))
    yield f"serial {certificate['serialNumber']}"


def _subject(certificate: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for relative_name in certificate.get("subject", ()):
        yield from relative_name


def _is_showable(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _seen(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
