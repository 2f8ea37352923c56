"""What the policies of TLS need from others; see ``ports``."""

from __future__ import annotations

from typing import Protocol

from mtaq.deliver.ports import MailHost
from mtaq.deliver.tls_session import ResultType
from mtaq.model.dns import DnsAnswer, Located, Question


class ProvedNames(Protocol):
    """DNS, with what DNSSEC proves of it (``mtaq.dns.resolver``)."""

    async def ask(self, question: Question) -> DnsAnswer:
        """Answer; a failure is an answer, nothing is raised."""

    async def locate_mail_hosts(self, domain: str) -> Located[MailHost]:
        """
        Return the MX hosts of *domain*, and whether they are proved.

        Raises:
            NoSuchDomain: It has none.
            ResolverTimeout: No answer.
        """


class FetchPolicy(Protocol):
    """Fetches the text of an MTA-STS policy (RFC 8461 §3.3)."""

    async def __call__(self, domain: str) -> bytes:
        """
        Return what ``mta-sts.<domain>`` serves; bounded in time and size.

        Raises:
            PolicyUnavailable: Nothing, or nothing from the right host.
        """


class PolicyUnavailable(Exception):
    """An MTA-STS policy cannot be had; ``kind`` says what is reported."""

    def __init__(self, kind: ResultType, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
