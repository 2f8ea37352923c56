"""Which domains are demanded of senders and recipients, with DNS that answers as told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mtaq.config import ReceiveOptions, load
from mtaq.model.address import Address
from mtaq.model.errors import NoSuchDomain, ResolverTimeout
from mtaq.receive.domains import DomainCheck, needs_dns

POSTMASTER = Address("Postmaster", "")
BARE = Address("ada", "")


def demanding(demand: str) -> ReceiveOptions:
    """Return the options of a port that demands the same of senders and recipients."""
    overrides = [f"--smtp-{whose}-domain={demand}" for whose in ("sender", "recipient")]
    return load(path="/dev/null", environ={}, overrides=overrides).receive(25)


class Dns:
    """Answers from a table; what is not in it does not exist. Notes what it was asked."""

    def __init__(self, answers: dict[str, Exception | None] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[str] = []

    async def mail_hosts(self, domain: str) -> Sequence[object]:
        """Answer."""
        self.asked.append(domain)
        answer = self.answers.get(domain, NoSuchDomain("none"))
        if answer is not None:
            raise answer
        return [object()]


class SilentDns:
    """Never answers."""

    async def mail_hosts(self, domain: str) -> Sequence[object]:
        """Wait for ever."""
        await asyncio.Event().wait()
        return []


async def refusals(path: Address, dns: Dns, demand: str) -> list[tuple[int, str | None]]:
    """Return the answers to *path* as a sender and as a recipient."""
    check = DomainCheck(dns)
    options = demanding(demand)
    replies = [await check.refuse_sender(path, options), await check.refuse_recipient(path, options)]
    return [(reply.code, reply.status) for reply in replies if reply is not None]


@pytest.mark.parametrize("demand", ["any", "qualified", "resolvable"])
async def test_postmaster_alone_is_never_refused(demand: str) -> None:
    """RFC 5321 §4.1.1.3: ``postmaster`` needs no domain, in any case of its letters."""
    assert await refusals(POSTMASTER, Dns(), demand) == []


@pytest.mark.parametrize(("demand", "refused"), [("any", False), ("qualified", True), ("resolvable", True)])
async def test_an_address_without_a_domain(demand: str, refused: bool) -> None:
    """Anybody else must have one, unless everything is allowed; the answer that asks nobody is the same."""
    assert await refusals(BARE, Dns(), demand) == ([(550, "5.1.8"), (550, "5.1.2")] if refused else [])
    options = demanding(demand)
    check = DomainCheck(Dns())
    assert (check.refuse_sender_syntax(BARE, options) is not None) is refused
    assert (check.refuse_recipient_syntax(BARE, options) is not None) is refused


async def test_qualified_asks_nobody() -> None:
    """A domain that does not exist is good enough when it only has to be there."""
    dns = Dns()
    assert await refusals(Address("ada", "nowhere.test"), dns, "qualified") == []
    assert dns.asked == []


async def test_the_null_reverse_path_has_no_domain() -> None:
    """Notices of failure come from ``<>``, and are not refused for it."""
    options = demanding("resolvable")
    assert await DomainCheck(Dns()).refuse_sender(None, options) is None
    assert DomainCheck(Dns()).refuse_sender_syntax(None, options) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, []),
        (NoSuchDomain("none"), [(550, "5.1.8"), (550, "5.1.2")]),
        (NoSuchDomain("null MX", null_mx=True), [(550, "5.1.8"), (550, "5.1.2")]),
        (ResolverTimeout("silent"), [(451, "4.4.3"), (451, "4.4.3")]),
    ],
)
async def test_resolvable(answer: Exception | None, expected: list[tuple[int, str]]) -> None:
    """Found is good; not there, or a null MX, is refused for good; silence is refused for now."""
    assert await refusals(Address("ada", "a.test"), Dns({"a.test": answer}), "resolvable") == expected


async def test_unicode_domains_are_asked_for_as_a_labels() -> None:
    """DNS knows ``bücher.test`` as ``xn--bcher-kva.test``; what has no such form does not exist."""
    dns = Dns({"xn--bcher-kva.test": None})
    assert await refusals(Address("ada", "bücher.test"), dns, "resolvable") == []
    assert set(dns.asked) == {"xn--bcher-kva.test"}
    assert await refusals(Address("ada", "☃☃.test"), dns, "resolvable") == [(550, "5.1.8"), (550, "5.1.2")]


@pytest.mark.parametrize("domain", ["[192.0.2.1]", "[IPv6:2001:db8::1]"])
async def test_address_literals_are_hosts(domain: str) -> None:
    """An address literal needs no DNS."""
    dns = Dns()
    assert await refusals(Address("ada", domain), dns, "resolvable") == []
    assert dns.asked == []


async def test_an_ip_address_without_brackets_is_no_domain() -> None:
    """``ada@192.0.2.1`` is refused without asking."""
    dns = Dns()
    assert await refusals(Address("ada", "192.0.2.1"), dns, "resolvable") == [(550, "5.1.8"), (550, "5.1.2")]
    assert dns.asked == []


async def test_dns_that_never_answers_is_not_waited_for() -> None:
    """The wait is bounded, and its end is a transient refusal."""
    options = demanding("resolvable")
    refusal = await DomainCheck(SilentDns(), timeout_s=0.01).refuse_sender(Address("ada", "a.test"), options)
    assert refusal is not None
    assert (refusal.code, refusal.status) == (451, "4.4.3")


def test_who_must_be_asked_about() -> None:
    """DNS is asked only about domain names, and only when they have to exist."""
    path = Address("ada", "a.test")
    assert needs_dns(path, "resolvable")
    assert not any(needs_dns(path, demand) for demand in ("any", "qualified"))
    assert not any(needs_dns(path, "resolvable") for path in (None, POSTMASTER, Address("ada", "[192.0.2.1]")))
