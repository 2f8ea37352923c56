"""Does a certificate chain agree with TLSA records (RFC 6698, RFC 7671, as RFC 7672 has them for SMTP)?

Pure: records, chain, names and time in; ``None`` or an ``Objection`` out. Which records there are, and whether DNSSEC
proves them, is ``dane_lookup``'s work; what is right about a way from certificate to authority, that of
``certificate_chain``. What cannot be read does not match.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from mtaq.deliver.certificate import public_key_info
from mtaq.deliver.certificate_chain import MAX_CHAIN, Paths, der_of, load_certificate, load_key, objection_to_path
from mtaq.deliver.tls_session import Objection

#: Certificate usages (RFC 7218 §2.1); those of PKIX are not for SMTP (RFC 7672 §3.1.3).
DANE_TA, DANE_EE = 2, 3
_WHOLE, _SHA256, _SHA512 = range(3)

#: Records looked at; no honest host has as many.
MAX_RECORDS = 32

_MISMATCH = Objection("validation-failure", "no TLSA record matches the certificate")


class Tlsa(NamedTuple):
    """One TLSA record (RFC 6698 §2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """
    Return the records that a host can be verified by; where digests differ in strength, the strongest (RFC 7671 §9).

    When there are records and none is usable, the host must still speak TLS (RFC 7672 §2.2).
    """
    known = [record for record in records[:MAX_RECORDS] if _is_usable(record)]
    strong = {record[:2] for record in known if record.matching == _SHA512}
    return tuple(record for record in known if record.matching != _SHA256 or record[:2] not in strong)


def _is_usable(record: Tlsa) -> bool:
    if record.usage not in (DANE_TA, DANE_EE) or record.selector not in (0, 1):
        return False
    if record.matching == _WHOLE:
        return (load_certificate if record.selector == 0 else load_key)(record.data) is not None
    return len(record.data) == {_SHA256: 32, _SHA512: 64}.get(record.matching)


def objection(
    chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], *, now: datetime
) -> Objection | None:
    """
    Return why a host with *chain* is not the one that the usable *records* speak of; ``None`` when it is.

    Args:
        chain: Certificates in DER as the host sent them, its own first.
        names: One of these must be in the certificate where the record is of its authority (RFC 7672 §3.2.2); for
            records of the certificate itself neither names nor dates count (RFC 7672 §3.1.1).
    """
    if not chain:
        return Objection("validation-failure", "the host sent no certificate")
    if any(record.usage == DANE_EE and _matches(chain[0], record) for record in records):
        return None
    anchors = [record for record in records if record.usage == DANE_TA]
    return _objection_of_anchors(chain, anchors, names, now) if anchors else _MISMATCH


def _matches(der: bytes, record: Tlsa) -> bool:
    selected = der if record.selector == 0 else public_key_info(der)
    if selected is None:
        return False
    if record.matching != _WHOLE:
        selected = (hashlib.sha256 if record.matching == _SHA256 else hashlib.sha512)(selected).digest()
    return hmac.compare_digest(selected, record.data)


def _objection_of_anchors(
    chain: Sequence[bytes], anchors: Sequence[Tlsa], names: Sequence[str], now: datetime
) -> Objection | None:
    leaf = load_certificate(chain[0])
    if leaf is None:
        return Objection("validation-failure", "the certificate cannot be read")
    first: Objection | None = None
    for path in _paths(chain[1:MAX_CHAIN], anchors).from_leaf(leaf):
        problem = objection_to_path(path, names, now)
        if problem is None:
            return None
        first = first or problem
    return first or _MISMATCH


def _paths(others: Sequence[bytes], anchors: Sequence[Tlsa]) -> Paths:
    # An authority that is published whole need not be sent (RFC 7671 §5.2.2).
    whole = [each.data for each in anchors if (each.selector, each.matching) == (0, _WHOLE)]
    keys = [load_key(each.data) for each in anchors if (each.selector, each.matching) == (1, _WHOLE)]
    candidates = [certificate for der in (*others, *whole) if (certificate := load_certificate(der)) is not None]

    def is_anchor(certificate: x509.Certificate) -> bool:
        return any(_matches(der_of(certificate), record) for record in anchors)

    return Paths(candidates, is_anchor, [key for key in keys if key is not None])
