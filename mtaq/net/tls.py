"""TLS contexts. TLS 1.2 is the floor everywhere (RFC 8996); renegotiation and compression are off.

Which certificate and what must be verified is decided elsewhere. What cannot be loaded is a ``ConfigError`` that
names the file.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Literal

from mtaq.model.errors import ConfigError
from mtaq.model.message import TlsFacts

Floor = Literal["1.2", "1.3"]

_FLOORS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(*, verified: bool, authorities: Path | None = None) -> ssl.SSLContext:
    """
    Return a context for connections to other mail hosts. Costly (the authorities are read): make it once.

    Args:
        verified: The certificate must be valid for the server's name. Else any is taken (opportunistic security,
            RFC 7435), and weak keys too: weak encryption keeps out more than none would.
        authorities: PEM file of certificate authorities; the system's when ``None``.

    Raises:
        ConfigError: *authorities* cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _harden(context, "1.2")
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=1")
        return context
    try:
        if authorities is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(authorities)
    except OSError as error:
        raise ConfigError(f"cannot read the certificate authorities in {authorities}: {_words(error)}") from error
    return context


def server_context(
    certificate: Path,
    key: Path | None = None,
    *,
    ciphers: str | None = None,
    floor: Floor = "1.2",
    client_authorities: Path | None = None,
) -> ssl.SSLContext:
    """
    Return a context for our own listeners.

    Args:
        certificate: PEM file: the certificate, and those between it and the authority.
        key: PEM file of its private key, without a passphrase; ``None`` when it stands in *certificate*.
        ciphers: OpenSSL cipher string for TLS 1.2; ``None`` for OpenSSL's default.
        floor: Lowest version spoken.
        client_authorities: PEM file of authorities: clients are asked for a certificate signed by one of them, and
            may have none; one that does not verify ends the handshake.

    Raises:
        ConfigError: A file cannot be read, the two do not belong together, or *ciphers* selects nothing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context, floor)
    for path in (certificate, key, client_authorities):
        _check_readable(path)
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never ask at the terminal
    except (OSError, ValueError) as error:
        files = f"{certificate} and {key}" if key else f"{certificate}"
        raise ConfigError(f"no usable certificate with its key in {files}: {_words(error)}") from error
    try:
        # Python's own list leaves out what old mail servers have; they would fall back to no TLS at all.
        context.set_ciphers("DEFAULT" if ciphers is None else ciphers)
    except ssl.SSLError as error:
        raise ConfigError(f"no cipher is selected by {ciphers!r}") from error
    if client_authorities is not None:
        try:
            context.load_verify_locations(client_authorities)
        except OSError as error:
            raise ConfigError(f"no certificate authority in {client_authorities}: {_words(error)}") from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def tls_facts(session: ssl.SSLObject) -> TlsFacts:
    """Return version and cipher of an established TLS *session*."""
    cipher = session.cipher()
    return TlsFacts(version=session.version() or "", cipher=cipher[0] if cipher else "")


def _harden(context: ssl.SSLContext, floor: Floor) -> None:
    context.minimum_version = _FLOORS[floor]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _check_readable(path: Path | None) -> None:
    """Say which of the files it is; OpenSSL does not."""
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return str(reason).lower().replace("_", " ")
