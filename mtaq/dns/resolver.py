"""Which hosts take mail for a domain, and where are they?

Fits ``deliver.ports.Resolver``. Answers are kept for their time to live, raised to the operator's floor and cut at a
ceiling; negative answers too (RFC 2308), and failures for some seconds (RFC 9520 §3.2), so that a dead domain's
messages do not queue for the name servers. Equal questions in flight are asked once. ``/etc/hosts`` goes before DNS.
Raises ``NoSuchDomain`` and ``ResolverTimeout``, nothing else; what is neither a clear yes nor a clear no is the latter.
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
import dns.name
import dns.resolver
import dns.reversename

from mtaq.deliver.ports import MailHost
from mtaq.dns.cache import Cache
from mtaq.dns.hosts import HostsFile
from mtaq.dns.question import Budget, Published, ask
from mtaq.dns.records import name_of
from mtaq.model.dns import DnsAnswer, Found, Question
from mtaq.model.errors import NoSuchDomain, ResolverTimeout

#: Answers are asked again after a day, whatever their owner says.
MAX_TTL_S = 86_400
#: One to three hours is what RFC 2308 §5 found to work for negative answers.
MAX_NEGATIVE_TTL_S = 3_600
#: RFC 9520 §3.2: failures are kept for at least 1 s and at most 5 minutes.
FAILURE_TTL_S = 5
#: Entries kept; some kilobytes each at most.
CACHE_SIZE = 20_000

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
        hosts: The table of names that goes before DNS.
    """

    nameservers: tuple[tuple[str, int], ...] = ()
    min_ttl_s: int = 60
    timeout_s: float = 60.0
    interval_s: float = 3.0
    attempts: int = 5
    capacity: int = 100
    rotate: bool = True
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
        self._options = options if options is not None else ResolverOptions()
        self._servers = self._options.nameservers or system_nameservers()
        self._budget = Budget(self._options.attempts, self._options.interval_s, self._options.timeout_s)
        self._cache: Cache[Question, DnsAnswer] = Cache(CACHE_SIZE, clock)
        self._in_flight: dict[Question, asyncio.Task[DnsAnswer]] = {}
        self._slots = asyncio.Semaphore(self._options.capacity)
        self._hosts = HostsFile(self._options.hosts)
        self._turn = 0

    async def mail_hosts(self, domain: str) -> Sequence[MailHost]:
        """
        Return the MX hosts of *domain* by preference, else the domain itself where it has addresses (RFC 5321 §5.1).

        Hosts of equal preference stand as the name server gave them. An IP address in place of a name in an MX record
        is passed over: it is not allowed there, and a caller could take it for one that the operator named.

        Raises:
            NoSuchDomain: It does not exist or has no mail host; ``.null_mx`` when it says so itself (RFC 7505).
            ResolverTimeout: No answer.
        """
        domain = domain.rstrip(".").lower()
        if _ip(domain) is not None:
            return [MailHost(0, domain)]
        answer = await self.ask(Question(domain, "MX"))
        if answer.found is Found.RECORDS:
            return _mail_hosts(domain, answer)
        if self._hosts.addresses(domain):
            return [MailHost(0, domain)]
        if answer.found is Found.FAILED:
            raise ResolverTimeout(f"MX of {domain}: {answer.reason}")
        if answer.found is Found.NO_NAME:
            raise NoSuchDomain(f"{domain} does not exist")
        await self.addresses(domain)
        return [MailHost(0, domain)]

    async def addresses(self, host: str) -> Sequence[str]:
        """
        Return the IP addresses of *host*, IPv6 first, those of each family as the name server gave them.

        Where only one family was answered, its addresses are all there is.

        Raises:
            NoSuchDomain: It has none.
            ResolverTimeout: No answer.
        """
        host = host.rstrip(".").lower()
        itself = _ip(host)
        if itself is not None:
            return [itself]
        listed = self._hosts.addresses(host)
        if listed:
            return sorted(listed, key=lambda ip: ":" not in ip)
        answers = await asyncio.gather(self.ask(Question(host, "AAAA")), self.ask(Question(host, "A")))
        found = [ip for answer in answers for record in answer.records if (ip := _ip(record)) is not None]
        if found:
            return sorted(found, key=lambda ip: ":" not in ip)
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

    async def ask(self, question: Question) -> DnsAnswer:
        """
        Return the answer to *question*, from DNS alone: ``/etc/hosts`` takes no part.

        Never raises; what cannot be a domain name does not exist. A null MX (RFC 7505) is ``(0, "")``.
        """
        key = Question(question.name.lower().removesuffix("."), question.kind)
        answer = self._cache.get(key)
        if answer is not None:
            return answer
        task = self._in_flight.get(key)
        if task is None:
            try:
                name = name_of(key.name)
            except ValueError as error:
                return DnsAnswer(Found.NO_NAME, reason=str(error))
            task = asyncio.create_task(self._look_up(key, name))
            self._in_flight[key] = task
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return await asyncio.shield(task)  # one who stops waiting must not take the answer from the others

    async def _look_up(self, question: Question, name: dns.name.Name) -> DnsAnswer:
        async with self._slots:
            published = await ask(name, question.kind, self._next_servers(), self._budget)
        self._cache.put(question, published.answer, self._keep_s(published))
        return published.answer

    def _keep_s(self, published: Published) -> float:
        found = published.answer.found
        if found is Found.FAILED:
            return FAILURE_TTL_S
        ceiling_s = MAX_TTL_S if found is Found.RECORDS else MAX_NEGATIVE_TTL_S
        return max(self._options.min_ttl_s, min(published.ttl_s, ceiling_s))

    def _next_servers(self) -> Sequence[tuple[str, int]]:
        if not self._options.rotate:
            return self._servers
        self._turn = (self._turn + 1) % len(self._servers)
        return self._servers[self._turn :] + self._servers[: self._turn]


def _mail_hosts(domain: str, answer: DnsAnswer) -> Sequence[MailHost]:
    named = [MailHost(preference, name) for preference, name in answer.records if name and _ip(name) is None]
    if named:
        return sorted(named, key=lambda host: host.preference)
    null_mx = not any(name for _, name in answer.records)
    problem = "takes no mail (null MX)" if null_mx else "has no mail host that is a name"
    raise NoSuchDomain(f"{domain} {problem}", null_mx=null_mx)


def _ip(text: str) -> str | None:
    """Return *text* as RFC 5952 spells it when it is an IP address; an IPv4-mapped one as IPv4."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)
