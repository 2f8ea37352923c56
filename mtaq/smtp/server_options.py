"""What the operator and the port decide for a session.

Holds only, but for what follows from an option and TLS together; ``mtaq.smtp.server_session`` obeys it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

#: For ``SessionOptions.scram_secret`` where nobody gives one.
_OWN_SECRET = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What the operator and the port decide for a session.

    Attributes:
        hostname: Our name, in the greeting and in answer to EHLO.
        max_size_bytes: Largest content; announced by SIZE.
        max_recipients: Forward-paths accepted in one transaction; at least 100 (RFC 5321 §4.5.3.1.8).
        strict_addresses: ``False`` for ``smtp-validate-address: loose``; see ``mtaq.smtp.grammar``.
        bare_senders: Take a reverse-path without a domain.
        bare_recipients: Take any forward-path without a domain, not ``postmaster`` alone.
        starttls: Offer STARTTLS as long as the session is not secure.
        max_line_bytes: Longest command line, CRLF included. RFC 5321 §4.5.3.1.4 wants 512 and each extension adds to
            it: with all that are registered a line stays below 2048, which Postfix allows too.
        max_errors: Bad commands answered in a row without an accepted message; the next one ends the session.
        timeout_s: Longest silence; the carrier's to watch.
        auth_mechanisms: SASL mechanisms offered as soon as the session is secure (RFC 4954 §3): names of
            ``mtaq.smtp.sasl.MECHANISMS``, in the order announced. Empty: nobody can log in.
        dsn: Offer DSN (RFC 3461); otherwise its parameters are refused as unknown.
        requiretls: Offer REQUIRETLS as soon as the session is secure (RFC 8689 §2).
        limits: Announce ``max_recipients`` with LIMITS (RFC 9422).
        scram_secret: From it comes the salt that an unknown user is told. All processes that serve one port should
            share it: a salt that differs from one to the next betrays that there is no such user.
    """

    hostname: str
    max_size_bytes: int
    max_recipients: int
    strict_addresses: bool
    starttls: bool
    bare_senders: bool = False
    bare_recipients: bool = False
    max_line_bytes: int = 2048
    max_errors: int = 20
    timeout_s: float = 300
    auth_mechanisms: tuple[str, ...] = ()
    dsn: bool = False
    requiretls: bool = False
    limits: bool = False
    scram_secret: bytes = field(default=_OWN_SECRET, repr=False)

    def offers_starttls(self, secure: bool) -> bool:
        """Is STARTTLS announced, and legal?"""
        return self.starttls and not secure

    def offers_auth(self, secure: bool) -> bool:
        """Is AUTH announced, and its parameter of MAIL known? Never in clear."""
        return secure and bool(self.auth_mechanisms)

    def offers_requiretls(self, secure: bool) -> bool:
        """Is REQUIRETLS announced, and legal?"""
        return secure and self.requiretls
