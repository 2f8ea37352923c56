"""One question to the name servers, until one of them has answered or the time is over.

UDP with EDNS (1,232 bytes, so that no answer is fragmented), TCP after a truncated answer, a new source port and id
for every datagram; datagrams from elsewhere, with another id or another question are ignored. Knows no cache.
Whatever goes wrong is an answer of its own (``FAILED``): nothing here raises.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

from mtaq.dns.records import TYPES, plain
from mtaq.model.dns import DnsAnswer, Found, RecordType

#: Largest UDP answer asked for: what passes everywhere without fragments (DNS flag day 2020).
EDNS_PAYLOAD = 1232
#: Extra questions for a chain of aliases that the name server did not follow to its end.
MAX_ALIAS_QUESTIONS = 8


class Published(NamedTuple):
    """An answer, and how long it may be kept.

    Attributes:
        ttl_s: Seconds, as published (RFC 2308 §5 for negative answers); 0 for failures.
    """

    answer: DnsAnswer
    ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to try.

    Attributes:
        attempts: Questions sent before giving up.
        interval_s: Seconds waited for each.
        timeout_s: Seconds for everything together.
    """

    attempts: int
    interval_s: float
    timeout_s: float


class ServerFailure(Exception):
    """A name server answered that it cannot, or nothing that makes sense: it need not be asked again."""


async def ask(name: dns.name.Name, kind: RecordType, servers: Sequence[tuple[str, int]], budget: Budget) -> Published:
    """
    Ask *servers* in turn, aliases followed (RFC 1034 §3.6.2).

    Args:
        name: Absolute.
        servers: ``(IP address, port)``, in the order to try.
    """
    deadline = asyncio.get_running_loop().time() + budget.timeout_s
    ttl_s: int | None = None
    for _ in range(MAX_ALIAS_QUESTIONS + 1):
        try:
            response = await _response(name, TYPES[kind], servers, budget, deadline)
            chain = response.resolve_chaining()
        except ServerFailure as failure:
            return _failed(str(failure))
        except dns.exception.DNSException as error:  # a chain without end, an answer in an NXDOMAIN
            return _failed(type(error).__name__)
        ttl_s = chain.minimum_ttl if ttl_s is None else min(ttl_s, chain.minimum_ttl)
        if chain.answer is not None:
            return Published(DnsAnswer(Found.RECORDS, plain(kind, chain.answer)), ttl_s)
        if response.rcode() == dns.rcode.NXDOMAIN:
            return Published(DnsAnswer(Found.NO_NAME), ttl_s)
        if not chain.cnames or _has_soa(response):
            return Published(DnsAnswer(Found.NO_DATA), ttl_s)
        name = chain.canonical_name
    return _failed("too many aliases")


def _failed(reason: str) -> Published:
    return Published(DnsAnswer(Found.FAILED, reason=reason))


def _has_soa(response: dns.message.Message) -> bool:
    return any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)


async def _response(
    name: dns.name.Name,
    kind: dns.rdatatype.RdataType,
    servers: Sequence[tuple[str, int]],
    budget: Budget,
    deadline: float,
) -> dns.message.QueryMessage:
    """
    Return the first response that answers, whatever it says of the name.

    Raises:
        ServerFailure: None came.
    """
    loop = asyncio.get_running_loop()
    candidates = deque(servers)
    failure = ServerFailure("no name server")
    for _ in range(budget.attempts):
        remaining_s = deadline - loop.time()
        if not candidates or remaining_s <= 0:
            break
        server = candidates[0]
        try:
            return await _ask_one(name, kind, server, min(budget.interval_s, remaining_s))
        except TimeoutError:
            failure = ServerFailure(f"no answer from {server[0]}")
            candidates.rotate(-1)
        except ServerFailure as refusal:
            failure = refusal
            candidates.popleft()
    raise failure


async def _ask_one(
    name: dns.name.Name, kind: dns.rdatatype.RdataType, server: tuple[str, int], timeout_s: float
) -> dns.message.QueryMessage:
    """
    Ask *server* once.

    Raises:
        TimeoutError: It was silent.
        ServerFailure: It cannot or will not answer.
    """
    query = dns.message.make_query(name, kind, use_edns=True, payload=EDNS_PAYLOAD)
    response = await _exchange(query, server, timeout_s)
    if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):  # from before EDNS (RFC 6891 §7)
        response = await _exchange(dns.message.make_query(name, kind, use_edns=False), server, timeout_s)
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ServerFailure(f"{dns.rcode.to_text(response.rcode())} from {server[0]}")
    if not response.answer and not response.flags & (dns.flags.AA | dns.flags.RA):
        # A referral: this server neither knows nor asks on. Read as "no records" it would bounce all mail.
        raise ServerFailure(f"{server[0]} does not resolve for us")
    return response


async def _exchange(
    query: dns.message.QueryMessage, server: tuple[str, int], timeout_s: float
) -> dns.message.QueryMessage:
    host, port = server
    try:
        async with asyncio.timeout(timeout_s):
            response, _ = await dns.asyncquery.udp_with_fallback(
                query,
                host,
                port=port,
                ignore_unexpected=True,
                ignore_errors=True,
                backend=dns.asyncbackend.get_backend("asyncio"),
            )
    except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise ServerFailure(f"{type(error).__name__} at {host}") from error
    if not isinstance(response, dns.message.QueryMessage):
        raise ServerFailure(f"no query response from {host}")
    return response
