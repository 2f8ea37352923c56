"""What came of one handshake, or of what was to be one: for the log, the numbers and the reports to its domain's owner.

A session is seen by every message that waited for it; ``domains`` keeps that it is counted once for each domain.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mtaq.telemetry.metrics import counter

SESSIONS = counter(
    "mtaq_delivery_tls_sessions",
    "Handshakes with mail hosts, by what was demanded of the host and by what was wrong (`ok`: nothing).",
    ("policy", "outcome"),
)

ResultType = Literal[
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
]
"""What can be wrong (RFC 8460 §4.3)."""

PolicyType = Literal["tlsa", "sts", "no-policy-found"]
"""What a session was judged by (RFC 8460 §4.4)."""

# OpenSSL, include/openssl/x509_vfy.h
_EXPIRED = {9, 10}  # not yet valid, expired
_NOT_TRUSTED = {2, 18, 19, 20, 21, 27, 28}  # no issuer, signed by itself, not trusted, rejected
_OTHER_NAME = {62, 64}  # host name, IP address


class Objection(NamedTuple):
    """Why a host is not believed to be the one it should be.

    Attributes:
        kind: For reports.
        text: For the operator.
    """

    kind: ResultType
    text: str


class Judged(NamedTuple):
    """The policy that a session was judged by.

    Attributes:
        type: What kind.
        strings: The policy itself, as reports show it.
        patterns: Of MX hosts, for ``sts``.
    """

    type: PolicyType
    strings: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


UNJUDGED = Judged("no-policy-found")


@dataclass(eq=False, slots=True, kw_only=True)
class TlsSession:
    """One handshake, or the lack of one.

    Attributes:
        judged: By what policy.
        mx_host: With whom.
        mx_helo: What it calls itself; empty when it never said.
        remote_ip: Its address; empty when it was not reached.
        local_ip: Ours, likewise.
        failure: What was wrong; ``None`` for success.
        reason: In words.
        domains: Those that it is counted for already.
    """

    judged: Judged
    mx_host: str
    mx_helo: str = ""
    remote_ip: str = ""
    local_ip: str = ""
    failure: ResultType | None = None
    reason: str = ""
    domains: set[str] = field(default_factory=set)


def counted(policy: str, session: TlsSession) -> TlsSession:
    """Count *session*, made under *policy* (``tls-policy`` of results), and return it."""
    SESSIONS.labels(policy, session.failure or "ok").inc()
    return session


def kind_of(error: BaseException | None) -> ResultType:
    """Return what a failed handshake is called in reports."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "validation-failure"
    code = error.verify_code
    if code in _EXPIRED:
        return "certificate-expired"
    if code in _OTHER_NAME:
        return "certificate-host-mismatch"
    return "certificate-not-trusted" if code in _NOT_TRUSTED else "validation-failure"
