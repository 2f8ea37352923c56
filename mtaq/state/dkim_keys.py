"""Keys for DKIM signatures: read, made, and what has to be published for them (RFC 6376 §3.6.1, RFC 8463).

A private key is a secret: no message of an error repeats any of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from mtaq.model.control import DkimKey
from mtaq.smtp.grammar import a_label_domain
from mtaq.state.control_entries import MOST_ITEMS, About

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

#: Verifiers need not accept less, nor more than the second (RFC 8301 §3.2).
LEAST_RSA_BITS, MOST_RSA_BITS = 1024, 4096
GENERATED_RSA_BITS = 2048

#: Longest PEM that is looked at; one of 4096 bits has 3,300 characters.
_LONGEST_PEM = 20_000

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}", re.ASCII)

#: Longest character-string in a TXT record (RFC 1035 §3.3).
_LONGEST_STRING = 255


def parse_field_name(text: str) -> str:
    """Read the name of a header field (RFC 5322 §3.6.8).

    Raises:
        ValueError: It is none.
    """
    if not _FIELD_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a header field")
    return text.lower()


def dkim_key(
    domain: str,
    selector: str,
    pem: str,
    *,
    signs: Sequence[str] = (),
    headers: Sequence[str] = (),
    starts_at: datetime | None = None,
    about: About,
) -> DkimKey:
    """Make an entry; without *signs* the key signs for its own domain.

    Raises:
        ValueError: *pem* is no key that DKIM knows.
    """
    if len(signs) > MOST_ITEMS or len(headers) > MOST_ITEMS:
        raise ValueError(f"expected at most {MOST_ITEMS} domains and fields")
    key = _private_key(pem)
    return DkimKey(
        id=key_id(domain, selector),
        domain=domain,
        selector=selector,
        pem=_pem(key),
        algorithm="rsa-sha256" if isinstance(key, RSAPrivateKey) else "ed25519-sha256",
        signs=tuple(dict.fromkeys(signs)) or (domain,),
        headers=tuple(dict.fromkeys(headers)),
        starts_at=starts_at,
        **about,
    )


def key_id(domain: str, selector: str) -> str:
    """Return the name of a key, which is the DNS name of its record."""
    return f"{selector}._domainkey.{a_label_domain(domain)}"


def generate(algorithm: Algorithm) -> str:
    """Return a new private key as PEM; RSA takes up to a second."""
    if algorithm == "rsa-sha256":
        return _pem(generate_private_key(public_exponent=65537, key_size=GENERATED_RSA_BITS))
    return _pem(Ed25519PrivateKey.generate())


def record_of(pem: str) -> str:
    """Return the content of the TXT record for a private key.

    Raises:
        ValueError: *pem* is no key that DKIM knows.
    """
    key = _private_key(pem)
    if isinstance(key, RSAPrivateKey):
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


def zone_line(name: str, content: str) -> str:
    """Return a record as it stands in a zone file, in strings that are short enough."""
    strings = [content[place : place + _LONGEST_STRING] for place in range(0, len(content), _LONGEST_STRING)]
    quoted = " ".join(f'"{string}"' for string in strings)
    return f"{name}. IN TXT ( {quoted} )"


def _private_key(pem: str) -> RSAPrivateKey | Ed25519PrivateKey:
    if len(pem) > _LONGEST_PEM:
        raise ValueError(f"the key has {len(pem)} characters; expected at most {_LONGEST_PEM}")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise ValueError("the key is encrypted; expected one without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a private key in PEM; expected one for RSA or Ed25519") from None
    if isinstance(key, RSAPrivateKey):
        if not LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits; expected {LEAST_RSA_BITS} to {MOST_RSA_BITS}")
        return key
    if isinstance(key, Ed25519PrivateKey):
        return key
    raise ValueError("a key that is neither for RSA nor for Ed25519; DKIM knows no other")


def _pem(key: RSAPrivateKey | Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
