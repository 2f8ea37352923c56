"""One question to the name servers, until one of them has answered or the time is over.

Servers are asked in turn, aliases followed; knows no cache. Whatever goes wrong is an answer of its own (``FAILED``):
nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from mtaq.dns.exchange import EDNS_PAYLOAD, UnusableAnswer, exchange
from mtaq.dns.records import TYPES, plain
from mtaq.dns.turns import Turns
from mtaq.model.dns import DnsAnswer, Found, RecordType

#: Extra questions for a chain of aliases that the name server did not follow to its end.
MAX_ALIAS_QUESTIONS = 8


class Published(NamedTuple):
    """An answer, and how long it may be kept.

    Attributes:
        ttl_s: Seconds, as published (RFC 2308 §5 for negative answers); 0 for failures.
        silent: No server answered, so what it said before may stand in (RFC 8767 §4).
    """

    answer: DnsAnswer
    ttl_s: int = 0
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to try.

    Attributes:
        attempts: Questions sent before giving up.
        interval_s: Seconds waited for each.
        timeout_s: Seconds for everything together, waiting for a turn included.
    """

    attempts: int
    interval_s: float
    timeout_s: float


class ServerFailure(Exception):
    """A name server answered that it cannot, or nothing that makes sense: it need not be asked again."""


class NameServers:
    """The servers that are asked, and how.

    Args:
        servers: ``(IP address, port)``; never empty.
        turns: Bounds the questions in flight.
        rotate: Begin with another one each time, else always with the first.
        trust_ad: Believe them what they say about DNSSEC, and ask for it (RFC 6840 §5.7).
    """

    def __init__(
        self, servers: Sequence[tuple[str, int]], *, budget: Budget, turns: Turns, rotate: bool, trust_ad: bool
    ) -> None:
        self._servers = tuple(servers)
        self._budget = budget
        self._turns = turns
        self._rotate = rotate
        self._trust_ad = trust_ad
        self._next = 0

    async def ask(self, name: dns.name.Name, kind: RecordType) -> Published:
        """Return the answer about the absolute *name*, aliases followed (RFC 1034 §3.6.2)."""
        try:
            async with asyncio.timeout(self._budget.timeout_s):
                return await self._follow(name, kind)
        except ServerFailure as failure:
            return _failed(str(failure), silent=True)
        except TimeoutError:
            return _failed("no answer in time", silent=True)
        except dns.exception.DNSException as error:  # a chain without end, an answer in an NXDOMAIN
            return _failed(type(error).__name__)

    async def _follow(self, name: dns.name.Name, kind: RecordType) -> Published:
        ttl_s: int | None = None
        secure = self._trust_ad
        for _ in range(MAX_ALIAS_QUESTIONS + 1):
            response = await self._response(name, TYPES[kind])
            chain = response.resolve_chaining()
            secure = secure and bool(response.flags & dns.flags.AD)
            ttl_s = chain.minimum_ttl if ttl_s is None else min(ttl_s, chain.minimum_ttl)
            if chain.answer is not None:
                return Published(DnsAnswer(Found.RECORDS, plain(kind, chain.answer), secure), ttl_s)
            if response.rcode() == dns.rcode.NXDOMAIN:
                return Published(DnsAnswer(Found.NO_NAME, secure=secure), ttl_s)
            if not chain.cnames or _has_soa(response):
                return Published(DnsAnswer(Found.NO_DATA, secure=secure), ttl_s)
            name = chain.canonical_name
        return _failed("too many aliases")

    async def _response(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.QueryMessage:
        """
        Return the first response that answers, whatever it says of the name.

        Raises:
            ServerFailure: None came.
        """
        candidates = self._candidates()
        failure = ServerFailure("no name server")
        for attempt in range(self._budget.attempts):
            if not candidates:
                break
            server = candidates[0]
            try:
                async with self._turns.turn(attempt, self._budget.interval_s):
                    return await self._ask_one(name, kind, server, is_last=len(candidates) == 1)
            except TimeoutError:
                failure = ServerFailure(f"no answer from {server[0]}")
                candidates.rotate(-1)
            except ServerFailure as refusal:
                failure = refusal
                candidates.popleft()
        raise failure

    def _candidates(self) -> deque[tuple[str, int]]:
        candidates = deque(self._servers)
        if self._rotate:
            self._next = (self._next + 1) % len(self._servers)
            candidates.rotate(-self._next)
        return candidates

    async def _ask_one(
        self, name: dns.name.Name, kind: dns.rdatatype.RdataType, server: tuple[str, int], *, is_last: bool
    ) -> dns.message.QueryMessage:
        """
        Ask *server* once.

        Raises:
            ServerFailure: It cannot or will not answer.
        """
        flags = dns.flags.RD | dns.flags.AD if self._trust_ad else dns.flags.RD
        query = dns.message.make_query(name, kind, use_edns=True, payload=EDNS_PAYLOAD, flags=flags)
        try:
            response = await exchange(query, server, wait_for_restart=is_last)
            if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):  # from before EDNS (RFC 6891 §7)
                query = dns.message.make_query(name, kind, use_edns=False, flags=flags)
                response = await exchange(query, server, wait_for_restart=is_last)
        except (OSError, EOFError, UnusableAnswer) as error:
            if isinstance(error, TimeoutError):
                raise
            raise ServerFailure(f"{server[0]}: {error}") from error
        if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            raise ServerFailure(f"{dns.rcode.to_text(response.rcode())} from {server[0]}")
        if not response.answer and not response.flags & (dns.flags.AA | dns.flags.RA):
            # A referral: this server neither knows nor asks on. Read as "no records" it would bounce all mail.
            raise ServerFailure(f"{server[0]} does not resolve for us")
        return response


def _has_soa(response: dns.message.Message) -> bool:
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)


def _failed(reason: str, *, silent: bool = False) -> Published:
    return Published(DnsAnswer(Found.FAILED, reason=reason), silent=silent)
