"""Which hosts take mail for a domain, and where are they?

Fits ``deliver.ports.Resolver``; ``mtaq.model.dns.Ask`` is what checks are given. Keeping answers is
``mtaq.dns.answers``'s work, asking the name servers that of ``mtaq.dns.question``. ``/etc/hosts`` goes before DNS where
hosts are looked for, and takes no part where DNS is asked. Raises ``NoSuchDomain`` and ``ResolverTimeout``, nothing
else; what is neither a clear yes nor a clear no is the latter.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.resolver
import dns.reversename

from mtaq.deliver.ports import MailHost
from mtaq.dns.answers import Answers
from mtaq.dns.hosts import HostsFile
from mtaq.dns.inquiry import Inquiry
from mtaq.dns.question import Budget, NameServers
from mtaq.dns.turns import PATIENCE_S, Turns
from mtaq.model.dns import Ask, DnsAnswer, Found, Located, Question
from mtaq.model.errors import NoSuchDomain, ResolverTimeout

_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolverOptions:
    """The ``dns-*`` options.

    Attributes:
        nameservers: ``(IP address, port)``; empty for those of ``/etc/resolv.conf``.
        min_ttl_s: Least time an answer is kept (``dns-min-ttl``); 0 keeps it as long as published.
        timeout_s: For one look-up, repeats included (``dns-timeout``).
        interval_s: Before a question is repeated (``dns-interval``).
        attempts: Questions before giving up (``dns-attempts``).
        capacity: Questions in flight (``dns-capacity``).
        rotate: Begin with another name server each time (``dns-rotate``), else always with the first.
        trust_ad: Believe the name servers what they say about DNSSEC (``dns-trust-ad``).
        hosts: The table of names that goes before DNS.
    """

    nameservers: tuple[tuple[str, int], ...] = ()
    min_ttl_s: int = 60
    timeout_s: float = 60.0
    interval_s: float = 3.0
    attempts: int = 5
    capacity: int = 100
    rotate: bool = True
    trust_ad: bool = False
    hosts: Path = Path("/etc/hosts")


def system_nameservers(path: Path = Path("/etc/resolv.conf")) -> tuple[tuple[str, int], ...]:
    """Return the name servers of *path* (resolv.conf(5)); the local host when it names none, as the C library does."""
    resolver = dns.resolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(str(path))
    except (dns.exception.DNSException, OSError):
        return (("127.0.0.1", 53),)
    return tuple((str(server), 53) for server in resolver.nameservers) or (("127.0.0.1", 53),)


class CachingResolver:
    """A stub resolver with its own cache; one per process.

    Args:
        clock: Seconds for the cache's times to live; never going back.
    """

    def __init__(self, options: ResolverOptions | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        options = options if options is not None else ResolverOptions()
        servers = NameServers(
            options.nameservers or system_nameservers(),
            budget=Budget(attempts=options.attempts, interval_s=options.interval_s, timeout_s=options.timeout_s),
            turns=Turns(options.capacity, patience_s=PATIENCE_S),
            rotate=options.rotate,
            trust_ad=options.trust_ad,
        )
        self._answers = Answers(servers, min_ttl_s=options.min_ttl_s, clock=clock)
        self._hosts = HostsFile(options.hosts)

    async def ask(self, question: Question) -> DnsAnswer:
        """
        Return the answer to *question*, from DNS alone: ``/etc/hosts`` takes no part.

        Never raises; what cannot be a domain name does not exist. The name of a PTR question is a reverse name
        (``4.3.2.1.in-addr.arpa``).
        """
        return await self._answers.ask(question)

    def inquiry(self, *, timeout_s: float) -> Ask:
        """Return ``ask`` for one check: what is not answered in *timeout_s* seconds from now failed (``Inquiry``)."""
        return Inquiry(self._answers.ask, timeout_s=timeout_s).ask

    async def mail_hosts(self, domain: str) -> Sequence[MailHost]:
        """
        Return the MX hosts of *domain* by preference, else the domain itself where it has addresses (RFC 5321 §5.1).

        Hosts of equal preference stand as the name server gave them. An IP address in place of a name in an MX record
        is passed over: it is not allowed there, and a caller could take it for one that the operator named.

        Raises:
            NoSuchDomain: It does not exist or has no mail host; ``.null_mx`` when it says so itself (RFC 7505).
            ResolverTimeout: No answer.
        """
        return list((await self.locate_mail_hosts(domain)).found)

    async def locate_mail_hosts(self, domain: str) -> Located[MailHost]:
        """Return what ``mail_hosts`` does, and whether it is secure; raises the same."""
        domain = domain.rstrip(".").lower()
        if _ip(domain) is not None:
            return Located((MailHost(0, domain),))
        answer = await self.ask(Question(domain, "MX"))
        if answer.found is Found.RECORDS:
            return Located(_mail_hosts(domain, answer), answer.secure)
        if self._hosts.addresses(domain):
            return Located((MailHost(0, domain),))
        if answer.found is Found.FAILED:
            raise ResolverTimeout(f"MX of {domain}: {answer.reason}")
        if answer.found is Found.NO_NAME:
            raise NoSuchDomain(f"{domain} does not exist")
        await self.addresses(domain)
        return Located((MailHost(0, domain),), answer.secure)

    async def addresses(self, host: str) -> Sequence[str]:
        """
        Return the IP addresses of *host*, IPv6 first, those of each family as the name server gave them.

        Where only one family was answered, its addresses are all there is.

        Raises:
            NoSuchDomain: It has none.
            ResolverTimeout: No answer.
        """
        return list((await self.locate_addresses(host)).found)

    async def locate_addresses(self, host: str) -> Located[str]:
        """Return what ``addresses`` does, and whether it is secure; raises the same."""
        host = host.rstrip(".").lower()
        itself = _ip(host)
        if itself is not None:
            return Located((itself,))
        listed = self._hosts.addresses(host)
        if listed:
            return Located(_ipv6_first(listed))
        answers = await asyncio.gather(self.ask(Question(host, "AAAA")), self.ask(Question(host, "A")))
        found = [ip for answer in answers for record in answer.records if (ip := _ip(record)) is not None]
        if found:
            return Located(_ipv6_first(found), all(answer.secure for answer in answers))
        for answer in answers:
            if answer.found is Found.FAILED:
                raise ResolverTimeout(f"addresses of {host}: {answer.reason}")
        raise NoSuchDomain(f"{host} has no address")

    async def reverse(self, ip: str) -> str | None:
        """Return the name of *ip* by ``/etc/hosts`` or its PTR record; ``None`` when there is none or no answer.

        The name is lower case and made of letters, digits, hyphens and underscores; nothing else comes out, since
        the peer may have written it. It says nothing about who the peer is.
        """
        listed = self._hosts.name_of(ip)
        if listed is not None:
            return listed
        try:
            name = dns.reversename.from_address(ip).to_text(omit_final_dot=True)
        except dns.exception.DNSException:
            return None
        answer = await self.ask(Question(name, "PTR"))
        return next((name for name in answer.records if _HOST_NAME.fullmatch(name)), None)


def _mail_hosts(domain: str, answer: DnsAnswer) -> tuple[MailHost, ...]:
    named = [MailHost(preference, name) for preference, name in answer.records if _can_be_host(name)]
    if named:
        return tuple(sorted(named, key=lambda host: host.preference))
    null_mx = not any(name for _, name in answer.records)
    problem = "takes no mail (null MX)" if null_mx else "has no mail host that is a name"
    raise NoSuchDomain(f"{domain} {problem}", null_mx=null_mx)


def _can_be_host(name: str) -> bool:
    """Is *name* neither empty nor an IP address, and without the escapes of octets that no host name has?"""
    return bool(name) and "\\" not in name and _ip(name) is None


def _ipv6_first(ips: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(ips, key=lambda ip: ":" not in ip))


def _ip(text: str) -> str | None:
    """Return *text* as RFC 5952 spells it when it is an IP address; an IPv4-mapped one as IPv4."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
