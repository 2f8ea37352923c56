"""Is there a domain in this address, and does it take mail (``smtp-sender-domain``, ``smtp-recipient-domain``)?

Resolvable means what RFC 5321 §5.1 needs to send something there: MX records, or else an address record. A domain that
says it takes no mail (null MX, RFC 7505) is none to send to, and none to answer to either. An address literal names a
host itself and is not looked up; an IP address without brackets is no domain. DNS that does not answer in time is a
transient refusal, never a permanent one.
"""

from __future__ import annotations

import asyncio
import re

from mtaq.config import ReceiveOptions
from mtaq.config.reception import DomainDemand
from mtaq.model.address import Address
from mtaq.model.errors import NoSuchDomain, ResolverError
from mtaq.model.reply import Reply
from mtaq.receive.ports import MailHosts
from mtaq.smtp import codes
from mtaq.smtp.grammar import a_label_domain

#: The client waits for the answer to its MAIL or RCPT; RFC 5321 §4.5.3.2 gives it five minutes for each.
TIMEOUT_S = 20.0

_is_bare_ipv4 = re.compile(r"[0-9.]+").fullmatch


class DomainCheck:
    """Judges the domains of envelope addresses for all sessions of a process."""

    def __init__(self, resolver: MailHosts, *, timeout_s: float = TIMEOUT_S) -> None:
        """Ask *resolver*, for at most *timeout_s* seconds an address."""
        self._resolver = resolver
        self._timeout_s = timeout_s

    def refuse_sender_syntax(self, path: Address | None, options: ReceiveOptions) -> Reply | None:
        """Return the refusal of a reverse-path without a domain, asking nobody."""
        return codes.SENDER_DOMAIN_BAD if _is_unqualified(path, options.smtp_sender_domain) else None

    def refuse_recipient_syntax(self, path: Address, options: ReceiveOptions) -> Reply | None:
        """Return the refusal of a forward-path without a domain, asking nobody."""
        return codes.RECIPIENT_DOMAIN_BAD if _is_unqualified(path, options.smtp_recipient_domain) else None

    async def refuse_sender(self, path: Address | None, options: ReceiveOptions) -> Reply | None:
        """Return why a reverse-path is refused for its domain, or ``None``; never for the null one."""
        return await self._refuse(path, options.smtp_sender_domain, codes.SENDER_DOMAIN_BAD)

    async def refuse_recipient(self, path: Address, options: ReceiveOptions) -> Reply | None:
        """Return why a forward-path is refused for its domain, or ``None``."""
        return await self._refuse(path, options.smtp_recipient_domain, codes.RECIPIENT_DOMAIN_BAD)

    async def _refuse(self, path: Address | None, demand: DomainDemand, refusal: Reply) -> Reply | None:
        if _is_unqualified(path, demand):
            return refusal
        if path is None or not needs_dns(path, demand):
            return None
        try:
            domain = a_label_domain(path.domain)
        except ValueError:
            return refusal
        if _is_bare_ipv4(domain):
            return refusal
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._resolver.mail_hosts(domain)
        except NoSuchDomain:
            return refusal
        except (ResolverError, TimeoutError):
            return codes.DNS_SILENT
        return None


def needs_dns(path: Address | None, demand: DomainDemand) -> bool:
    """Must DNS be asked about *path*? Not about the null one, a bare ``postmaster``, or an address literal."""
    return demand == "resolvable" and path is not None and bool(path.domain) and not path.domain.startswith("[")


def _is_unqualified(path: Address | None, demand: DomainDemand) -> bool:
    """Is a domain demanded and missing? ``postmaster`` needs none (RFC 5321 §4.1.1.3)."""
    return demand != "any" and path is not None and not path.domain and path.local_part.lower() != "postmaster"
