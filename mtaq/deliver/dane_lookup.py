"""Which TLSA records are about a mail host (RFC 7672 §2.2)?

Believes only what a validating resolver says is proved. Where the records of a host cannot be had, though its name is
in a zone that is signed, ``ResolverTimeout`` is raised: whoever can keep an answer back must not get mail in clear.
"""

from __future__ import annotations

from dataclasses import dataclass

from mtaq.deliver.dane import Tlsa
from mtaq.deliver.route import is_ip
from mtaq.model.dns import Ask, DnsAnswer, Found, Question, RecordType
from mtaq.model.errors import ResolverTimeout

#: As many aliases are followed as the resolver follows.
MAX_ALIASES = 8


@dataclass(frozen=True, slots=True)
class Published:
    """The TLSA records of a host.

    Attributes:
        base: The name they stand under (TLSA base domain, RFC 7672 §2.2.3): for SNI, and for the certificate.
        records: All of them, usable or not; never empty.
    """

    base: str
    records: tuple[Tlsa, ...]


async def find_tlsa(host: str, port: int, ask: Ask) -> Published | None:
    """
    Return the TLSA records of *host*, whose name is proved; ``None`` where DANE says nothing about it.

    Raises:
        ResolverTimeout: They cannot be had now: the host must not be used.
    """
    if is_ip(host):
        return None
    for base in await _base_domains(host, ask):
        answer = await _asked(f"_{port}._tcp.{base}", "TLSA", ask)
        if answer.found is Found.RECORDS and answer.secure:
            return Published(base, tuple(Tlsa(*record) for record in answer.records))
    return None


async def _base_domains(host: str, ask: Ask) -> tuple[str, ...]:
    """Return under which names TLSA records may stand, the best first (RFC 7672 §2.2.2)."""
    answers = [await ask(Question(host, "A")), await ask(Question(host, "AAAA"))]
    answered = [answer for answer in answers if answer.found is not Found.FAILED]
    if not answered:
        raise ResolverTimeout(f"addresses of {host}: {answers[0].reason}")
    if not all(answer.secure for answer in answered):
        # An alias that is proved may lead to where nothing is; then the alias itself may have records.
        alias = await _asked(host, "CNAME", ask)
        return (host,) if alias.found is Found.RECORDS and alias.secure else ()
    expanded = await _expanded(host, ask)
    return (host,) if expanded == host else (expanded, host)


async def _expanded(host: str, ask: Ask) -> str:
    name = host
    for _ in range(MAX_ALIASES):
        alias = await _asked(name, "CNAME", ask)
        if alias.found is not Found.RECORDS or not alias.secure:
            break
        name = alias.records[0]
    return name


async def _asked(name: str, kind: RecordType, ask: Ask) -> DnsAnswer:
    answer = await ask(Question(name, kind))
    if answer.found is Found.FAILED:
        raise ResolverTimeout(f"{kind} of {name}: {answer.reason}")
    return answer
