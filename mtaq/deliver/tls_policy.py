"""How must a mail host prove itself before it gets a message: what is demanded, and what that means for one host?

A ``Demand`` is made for each message from its level of security, the sender's wishes and the domain's own policies;
messages with equal demands share connections. ``Terms`` are made of it for each host that is tried. The handshake is
the opener's; DANE (RFC 7672) and MTA-STS (RFC 8461) only ever make a demand stronger, and where both speak, DANE does.

A refusal (``HostFailure``) is transient, because whoever can disturb DNS or TLS must not be able to return mail; it is
final only with REQUIRETLS (RFC 8689 §4.2.1).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from mtaq.config import Security, TlsPolicyName
from mtaq.deliver import dane
from mtaq.deliver.certificate import presented_chain
from mtaq.deliver.dane import Tlsa
from mtaq.deliver.dane_lookup import Published, find_tlsa
from mtaq.deliver.ending import Ending, HostFailure, PeerFacts
from mtaq.deliver.mta_sts import StsPolicy
from mtaq.deliver.mta_sts_policies import StsPolicies
from mtaq.deliver.route import Route, Target, is_ip
from mtaq.deliver.tls_ports import ProvedNames
from mtaq.deliver.tls_session import UNJUDGED, Judged, Objection, TlsSession, counted
from mtaq.mime.headers import HEADER_LIMIT_BYTES, fields, header_end
from mtaq.model.control import DemandedSecurity
from mtaq.model.errors import NoSuchDomain, ResolverTimeout
from mtaq.smtp.client_commands import Transaction
from mtaq.smtp.grammar import a_label_domain

TlsWord = Literal["none", "opportunistic", "required", "verified", "dane", "mta-sts"]
"""``tls-policy`` in results."""

#: How long a message waits for the records of all hosts, before the first is tried.
LOOK_AHEAD_S = 10.0
#: Domains that one session is counted for.
MAX_DOMAINS = 1_000

_TLS_REQUIRED = re.compile(rb"^tls-required[ \t]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a message demands of the connection it goes by.

    Attributes:
        security: Without any policy.
        dane: Are the names of the mail hosts proved, so that their TLSA records count?
        dane_only: A host must prove itself by them.
        sts: The domain's policy, if it has one.
        names: Further names that the certificate of a host may have (RFC 7672 §3.2.2).
        requiretls: REQUIRETLS was given.
        proved: With REQUIRETLS: are the names of the hosts proved, or the operator's?
        reported: Does what comes of it go into reports to the domain's owner?
    """

    security: Security
    dane: bool = False
    dane_only: bool = False
    sts: StsPolicy | None = None
    names: tuple[str, ...] = ()
    requiretls: bool = False
    proved: bool = False
    reported: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One way to shake hands.

    Attributes:
        server_name: For SNI.
        by_authorities: ``ssl`` verifies the certificate, by the authorities that the system trusts.
        by_alternative_name: The name must stand among the certificate's alternative names (RFC 8461 §4.1).
        tlsa: The usable records that the chain must match; empty without DANE.
        names: For those.
    """

    server_name: str
    by_authorities: bool = False
    by_alternative_name: bool = False
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def verifies(self) -> bool:
        """Is the host who it should be, once this has succeeded?"""
        return self.by_authorities or bool(self.tlsa)

    def objection(self, session: ssl.SSLObject, now: datetime) -> Objection | None:
        """Return what is wrong with the host behind *session*, beyond what ``ssl`` has verified."""
        if self.tlsa:
            return dane.objection(presented_chain(session), self.tlsa, self.names, now=now)
        if self.by_alternative_name:
            alternatives = (session.getpeercert() or {}).get("subjectAltName", ())
            if not any(each[0] == "DNS" for each in alternatives):
                return Objection("certificate-host-mismatch", "the certificate has no alternative name")
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is demanded of one host.

    Attributes:
        word: For results.
        checks: Ways to shake hands, the strictest first; the next follows on a new connection where one fails.
        clear: May mail go in clear, where none succeeds or is offered?
        final: Is a refusal final?
        judged: What reports to the domain's owner say that it was judged by.
        flaw: What is wrong with that already, though mail may go.
    """

    word: TlsWord
    checks: tuple[Check, ...] = ()
    clear: bool = False
    final: bool = False
    judged: Judged = UNJUDGED
    flaw: Objection | None = None


def ignores_policies(content: bytes) -> bool:
    """Does the author of *content* want it delivered whatever policies the recipient has (RFC 8689 §5)?"""
    if _TLS_REQUIRED.search(content, 0, header_end(content, HEADER_LIMIT_BYTES)) is None:
        return False
    values = [field.value.lower() for field in fields(content) if field.name.lower() == b"tls-required"]
    return values == [b"no"]


class Refused(HostFailure):
    """A host must not get mail, whatever it presents."""

    def __init__(self, ending: Ending, word: TlsWord, judged: Judged, objection: Objection) -> None:
        super().__init__(ending)
        peer = ending.peer
        self.session = counted(
            word,
            TlsSession(
                judged=judged,
                mx_host=peer.host if peer is not None else "",
                remote_ip=(peer.destination if peer is not None else None) or "",
                failure=objection.kind,
                reason=objection.text,
            ),
        )


class TlsPolicies:
    """Makes demands and terms.

    Args:
        names: DNS; ``None`` without policies.
        trusts_dnssec: Does it say what is proved? Else there is no DANE, and nothing is asked for it.
        sts: ``None`` without MTA-STS.
        tell: Called with a domain (A-labels) and each session that a message to it has seen first.
        clock: Time of day, for certificates.

    Attributes:
        policies: ``delivery-tls-policies``; may be replaced at any time.
    """

    def __init__(
        self,
        policies: tuple[TlsPolicyName, ...] = (),
        *,
        names: ProvedNames | None = None,
        trusts_dnssec: bool = False,
        sts: StsPolicies | None = None,
        tell: Callable[[str, TlsSession], None] | None = None,
        clock: Callable[[], datetime],
    ) -> None:
        self.policies = policies
        self.clock = clock
        self._names = names
        self._trusts_dnssec = trusts_dnssec
        self._sts = sts
        self._tell = tell

    async def demand(self, transaction: Transaction, route: Route, demanded: DemandedSecurity) -> Demand:
        """
        Return what *transaction* demands on its *route*.

        Args:
            demanded: What message, operators, smarthost or configuration say.
        """
        dane_only = demanded == "dane-only"
        security: Security = "required" if demanded == "dane-only" else demanded
        names, requiretls, domain = self._names, transaction.requiretls, transaction.forward_paths[0].domain
        is_literal = not route.hosts or (not route.named and is_ip(route.hosts[0].name))
        if names is None or is_literal:
            return Demand(security=security, dane_only=dane_only, requiretls=requiretls, proved=requiretls)
        if not requiretls and not dane_only and ignores_policies(transaction.content):
            return Demand(security=security, reported=False)
        if security == "optional":
            return Demand(security=security)
        proved = route.named or await self._is_proved(domain, route, names)
        sts = None
        if "mta-sts" in self.policies and self._sts is not None and not route.named:
            sts = await self._sts.find(a_label_domain(domain))
        is_dane = proved and self._trusts_dnssec and (dane_only or "dane" in self.policies)
        return Demand(
            security=security,
            dane=is_dane,
            dane_only=dane_only,
            sts=sts,
            names=await self._further_names(domain, route, names) if is_dane and not route.named else (),
            requiretls=requiretls,
            proved=requiretls and proved,
        )

    def tell(self, domain: str, sessions: Sequence[TlsSession]) -> None:
        """Count *sessions* for *domain*, each once, however many messages have waited for it."""
        for session in sessions:
            if self._tell is not None and domain not in session.domains and len(session.domains) < MAX_DOMAINS:
                session.domains.add(domain)
                self._tell(domain, session)

    async def _is_proved(self, domain: str, route: Route, names: ProvedNames) -> bool:
        """Does DNSSEC prove that mail for *domain* goes to the hosts of *route*?"""
        try:
            located = await names.locate_mail_hosts(a_label_domain(domain))
        except (NoSuchDomain, ResolverTimeout, ValueError):
            return False
        return located.secure and {host.name for host in route.hosts} <= {host.name for host in located.found}

    async def _further_names(self, domain: str, route: Route, names: ProvedNames) -> tuple[str, ...]:
        """RFC 7672 §3.2.2: the certificates of some hosts name the domain; then connections belong to it alone."""
        look_ups = [find_tlsa(host.name, host.port or route.port, names.ask) for host in route.hosts]
        try:
            async with asyncio.timeout(LOOK_AHEAD_S):
                published = await asyncio.gather(*look_ups, return_exceptions=True)
        except TimeoutError:
            return ()
        records = [record for each in published if isinstance(each, Published) for record in each.records]
        return (a_label_domain(domain),) if any(record.usage == dane.DANE_TA for record in records) else ()

    async def terms(self, demand: Demand, target: Target) -> Terms:
        """
        Return what *demand* means for *target*.

        Raises:
            HostFailure: It must not get the message.
        """
        published = None
        if demand.dane and self._names is not None:
            try:
                published = await find_tlsa(target.host, target.port, self._names.ask)
            except ResolverTimeout as error:
                objection = Objection("dnssec-invalid", str(error))
                raise Refused(_without_tlsa(target, objection.text), "dane", Judged("tlsa"), objection) from error
        if demand.dane_only and (published is None or not dane.usable(published.records)):
            text = f"DANE is demanded, and DNSSEC proves no TLSA record of {target.host} that can be used"
            raise HostFailure(_refused(target, text, "dane", final=False))
        if published is None:
            return _beside_dane(demand, target)
        return _by_dane(published, demand, target)


def _by_dane(published: Published, demand: Demand, target: Target) -> Terms:
    records = dane.usable(published.records)
    judged = Judged("tlsa", tuple(map(str, published.records[: dane.MAX_RECORDS])))
    if records:
        names = tuple(dict.fromkeys((published.base, target.host, *demand.names)))
        check = Check(server_name=published.base, tlsa=records, names=names)
        return Terms(word="dane", checks=(check,), final=demand.requiretls, judged=judged)
    # RFC 7672 §2.2: TLS is a must, and nothing is left that DANE verifies by.
    terms = _beside_dane(demand, target)
    flaw = Objection("tlsa-invalid", "no TLSA record is usable")
    word: TlsWord = terms.word if terms.checks and terms.checks[0].verifies else "dane"
    return replace(terms, word=word, clear=False, judged=judged, flaw=flaw)


def _beside_dane(demand: Demand, target: Target) -> Terms:
    policy = demand.sts
    if demand.requiretls and not (demand.proved or (policy is not None and policy.names(target.host))):
        text = f"REQUIRETLS: neither DNSSEC nor MTA-STS says that {target.host} is a mail host of the domain"
        raise HostFailure(_refused(target, text, "verified", final=True))
    terms = _by_level(demand, target)
    return terms if policy is None else _by_sts(policy, terms, target)


def _by_level(demand: Demand, target: Target) -> Terms:
    security, final = demand.security, demand.requiretls
    if security == "optional":
        return Terms(word="none", clear=True)
    check = Check(server_name=target.host, by_authorities=security == "verified")
    return Terms(word=security, checks=(check,), clear=security == "opportunistic", final=final)


def _by_sts(policy: StsPolicy, terms: Terms, target: Target) -> Terms:
    judged = Judged("sts", policy.lines, policy.mx)
    check = Check(server_name=target.host, by_authorities=True, by_alternative_name=True)
    if policy.names(target.host):
        if policy.mode == "enforce":
            return replace(terms, word="mta-sts", checks=(check,), clear=False, judged=judged)
        checks = terms.checks if any(each.verifies for each in terms.checks) else (check, *terms.checks)
        return replace(terms, word="mta-sts", checks=checks, judged=judged)
    flaw = Objection("validation-failure", f"the MTA-STS policy of the domain does not name {target.host}")
    if policy.mode == "enforce":
        raise Refused(_refused(target, flaw.text, "mta-sts", final=terms.final), "mta-sts", judged, flaw)
    return replace(terms, word="mta-sts", judged=judged, flaw=flaw)


def _refused(target: Target, text: str, word: TlsWord, *, final: bool) -> Ending:
    peer = PeerFacts(host=target.host, destination=target.address, tls_policy=word)
    code, status = (550, "5.7.10") if final else (None, "4.7.5")
    return Ending(state="starttls", result="error", code=code, status=status, description=text, final=final, peer=peer)


def _without_tlsa(target: Target, text: str) -> Ending:
    peer = PeerFacts(host=target.host, destination=target.address, tls_policy="dane")
    return Ending(state="dns", result="timeout", code=451, status="4.4.3", description=text, peer=peer)
