"""What a mail host must prove, and under which names its TLSA records stand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from mtaq.deliver.dane import Tlsa
from mtaq.deliver.dane_lookup import MAX_ALIASES, Published, find_tlsa
from mtaq.deliver.ending import HostFailure
from mtaq.deliver.mta_sts import Mode, StsPolicy
from mtaq.deliver.ports import MailHost
from mtaq.deliver.route import Route, Target
from mtaq.deliver.tls_policy import Demand, Refused, Terms, TlsPolicies, ignores_policies
from mtaq.deliver.tls_session import Judged, TlsSession
from mtaq.model.address import Address
from mtaq.model.control import DemandedSecurity
from mtaq.model.dns import DnsAnswer, Found, Located, Question
from mtaq.model.errors import ResolverTimeout
from mtaq.smtp.client_commands import Transaction

MX = "mx.test"
TARGET = Target(MX, "192.0.2.1", 25)
ROUTE = Route(MX, (MailHost(10, MX),), 25)
TLSA = Tlsa(3, 1, 1, bytes(32))
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def found(*records: Any, secure: bool = True) -> DnsAnswer:
    """Records, proved."""
    return DnsAnswer(Found.RECORDS, records, secure)


class Names:
    """DNS, of which everything is proved that is not said to be otherwise."""

    def __init__(self, **answers: DnsAnswer) -> None:
        self.answers: dict[tuple[str, str], DnsAnswer] = {(MX, "A"): found("192.0.2.1")}
        self.hosts: Any = Located((MailHost(10, MX),), True)
        self.asked: list[Question] = []

    async def ask(self, question: Question) -> DnsAnswer:
        """Answer."""
        self.asked.append(question)
        return self.answers.get((question.name, question.kind), DnsAnswer(Found.NO_DATA, secure=True))

    async def locate_mail_hosts(self, domain: str) -> Located[MailHost]:
        """Answer."""
        if isinstance(self.hosts, Exception):
            raise self.hosts
        located: Located[MailHost] = self.hosts
        return located


def names(answers: Mapping[str, DnsAnswer]) -> Names:
    """Return DNS with answers by ``<type> <name>``."""
    made = Names()
    for question, answer in answers.items():
        kind, name = question.split()
        made.answers[name, kind] = answer
    return made


FAILED = DnsAnswer(Found.FAILED, reason="SERVFAIL")
HERE = {f"TLSA _25._tcp.{MX}": found(TLSA)}


@pytest.mark.parametrize(
    ("answers", "base"),
    [
        (HERE, MX),
        ({}, None),
        ({f"TLSA _25._tcp.{MX}": found(TLSA, secure=False)}, None),
        ({**HERE, f"A {MX}": found("192.0.2.1", secure=False)}, None),
        ({**HERE, f"AAAA {MX}": FAILED}, MX),
        ({**HERE, f"CNAME {MX}": found("real.test")}, MX),
        ({**HERE, f"CNAME {MX}": found("real.test"), "TLSA _25._tcp.real.test": found(TLSA)}, "real.test"),
        (
            {
                **HERE, f"CNAME {MX}": found("b.test"), "CNAME b.test": found("c.test"),
                "TLSA _25._tcp.b.test": found(TLSA),
            },
            MX,
        ),
        (
            {
                **HERE, f"A {MX}": found("192.0.2.1", secure=False), f"CNAME {MX}": found("out.test"),
                "TLSA _25._tcp.out.test": found(TLSA),
            },
            MX,
        ),
        ({**HERE, f"A {MX}": found("192.0.2.1", secure=False), f"CNAME {MX}": found("x.test", secure=False)}, None),
        ({**HERE, f"CNAME {MX}": found(MX)}, MX),
    ],
)  # fmt: skip
async def test_where_records_stand(answers, base):
    """Under the last proved name, else under the host's own; nowhere without proof (RFC 7672 §2.2.2)."""
    published = await find_tlsa(MX, 25, names(answers).ask)
    assert published == (None if base is None else Published(base, (TLSA,)))


@pytest.mark.parametrize(
    "answers",
    [
        {f"TLSA _25._tcp.{MX}": FAILED},
        {f"A {MX}": FAILED, f"AAAA {MX}": FAILED},
        {f"CNAME {MX}": FAILED},
        {f"A {MX}": found("192.0.2.1", secure=False), f"CNAME {MX}": FAILED},
        {f"CNAME {MX}": found("b.test"), "CNAME b.test": FAILED},
        {f"CNAME {MX}": found("b.test"), "TLSA _25._tcp.b.test": FAILED},
    ],
)
async def test_an_answer_that_is_kept_back_is_no_no(answers):
    """Who can suppress answers must not get mail in clear."""
    with pytest.raises(ResolverTimeout):
        await find_tlsa(MX, 25, names({**HERE, **answers}).ask)


async def test_addresses_have_no_records_and_aliases_end():
    """An IP address is no name; a chain without end is followed for so long."""
    dns = names({f"CNAME {n}.test": found(f"{n + 1}.test") for n in range(50)} | {"A 0.test": found("192.0.2.1")})
    assert await find_tlsa("192.0.2.1", 25, dns.ask) is None
    assert dns.asked == []
    await find_tlsa("0.test", 25, dns.ask)
    assert sum(question.kind == "CNAME" for question in dns.asked) == MAX_ALIASES


def transaction(content: bytes = b"", *, requiretls: bool = False) -> Transaction:
    """A message to a.test."""
    bob = Address("bob", "a.test")
    return Transaction(reverse_path=None, forward_paths=(bob,), content=content, requiretls=requiretls)


class Sts:
    """Policies of MTA-STS."""

    def __init__(self, mode: Mode | None) -> None:
        self.policy = None if mode is None else StsPolicy(mode, (MX,), 86_400)

    async def find(self, domain: str) -> StsPolicy | None:
        """Return the policy of a.test."""
        assert domain in ("a.test", "b.test")
        return self.policy


def policies(dns: Names, sts: Mode | None = None, **how: Any) -> TlsPolicies:
    """Policies over *dns*."""
    usual: dict[str, Any] = {"trusts_dnssec": True, "clock": lambda: NOW, **how}
    return TlsPolicies(("dane", "mta-sts"), names=dns, sts=Sts(sts), **usual)  # type: ignore[arg-type]  # a fake


async def terms(
    security: DemandedSecurity,
    answers: Mapping[str, DnsAnswer],
    sts: Mode | None = None,
    route: Route = ROUTE,
    **how: Any,
) -> Terms:
    """What a message demands of the host."""
    made = policies(names(answers), sts, **how)
    return await made.terms(await made.demand(transaction(), route, security), TARGET)


def told(result: Terms) -> tuple[str, list[str], bool]:
    """Word, checks and whether mail may go in clear."""
    kinds = ["dane" if each.tlsa else "authorities" if each.by_authorities else "any" for each in result.checks]
    return result.word, kinds, result.clear


@pytest.mark.parametrize(
    ("security", "answers", "sts", "expected"),
    [
        ("optional", HERE, "enforce", ("none", [], True)),
        ("opportunistic", {}, None, ("opportunistic", ["any"], True)),
        ("required", {}, None, ("required", ["any"], False)),
        ("verified", {}, None, ("verified", ["authorities"], False)),
        ("opportunistic", HERE, None, ("dane", ["dane"], False)),
        ("required", HERE, None, ("dane", ["dane"], False)),
        ("verified", HERE, None, ("dane", ["dane"], False)),
        ("opportunistic", HERE, "enforce", ("dane", ["dane"], False)),
        ("opportunistic", {}, "enforce", ("mta-sts", ["authorities"], False)),
        ("required", {}, "enforce", ("mta-sts", ["authorities"], False)),
        ("verified", {}, "enforce", ("mta-sts", ["authorities"], False)),
        ("opportunistic", {}, "testing", ("mta-sts", ["authorities", "any"], True)),
        ("required", {}, "testing", ("mta-sts", ["authorities", "any"], False)),
        ("verified", {}, "testing", ("mta-sts", ["authorities"], False)),
    ],
)
async def test_policies_only_strengthen(security, answers, sts, expected):
    """The stronger of both counts, DANE before MTA-STS; `optional` is the operator's own word."""
    assert told(await terms(security, answers, sts)) == expected


@pytest.mark.parametrize(
    ("security", "sts", "expected"),
    [
        ("opportunistic", None, ("dane", ["any"], False)),
        ("verified", None, ("verified", ["authorities"], False)),
        ("opportunistic", "enforce", ("mta-sts", ["authorities"], False)),
        ("opportunistic", "testing", ("mta-sts", ["authorities", "any"], False)),
    ],
)
async def test_records_that_are_of_no_use_demand_encryption(security, sts, expected):
    """And leave the rest to what else there is."""
    made = await terms(security, {f"TLSA _25._tcp.{MX}": found(Tlsa(0, 1, 1, bytes(32)))}, sts)
    assert told(made) == expected
    assert made.flaw is not None
    assert made.flaw.kind == "tlsa-invalid"


async def test_dane_only_takes_records_that_can_be_used():
    """MTA-STS does not stand in for them, and neither which policies count nor the author's wish is asked."""
    assert told(await terms("dane-only", HERE, "enforce")) == ("dane", ["dane"], False)
    made = policies(names(HERE), "enforce")
    made.policies = ()
    wish = transaction(b"TLS-Required: No\r\n\r\n")
    assert told(await made.terms(await made.demand(wish, ROUTE, "dane-only"), TARGET)) == ("dane", ["dane"], False)
    named = Route(MX, (MailHost(0, MX),), 25, named=True)
    assert told(await terms("dane-only", HERE, None, named))[0] == "dane"


@pytest.mark.parametrize(
    ("answers", "how"),
    [
        ({}, {}),
        ({f"TLSA _25._tcp.{MX}": found(TLSA, secure=False)}, {}),
        ({f"TLSA _25._tcp.{MX}": found(Tlsa(0, 1, 1, bytes(32)))}, {}),
        (HERE, {"trusts_dnssec": False}),
        (HERE, {"route": Route("a.test", (), 25)}),
        (HERE, {"route": Route("192.0.2.1", (MailHost(0, "192.0.2.1"),), 25)}),
    ],
    ids=["none", "unproved", "of no use", "no resolver is trusted", "sink", "literal"],
)
async def test_dane_only_without_them_waits(answers, how):
    """A valid certificate is not enough, and no message fails for it before its time is over."""
    with pytest.raises(HostFailure) as refusal:
        await terms("dane-only", answers, "enforce", **how)
    ending = refusal.value.ending
    assert (ending.state, ending.result, ending.status, ending.final) == ("starttls", "error", "4.7.5", False)
    assert (ending.peer.tls_policy, ending.peer.host) == ("dane", MX)


async def test_without_proof_there_is_no_dane():
    """Mail hosts that DNSSEC does not prove, or other ones than it proves; a resolver that says nothing of it."""
    for hosts in (
        Located((MailHost(10, MX),)),
        Located((MailHost(10, "other.test"),), True),
        ResolverTimeout("silent"),
    ):
        dns = names(HERE)
        dns.hosts = hosts
        made = policies(dns)
        assert not (await made.demand(transaction(), ROUTE, "opportunistic")).dane
    assert told(await terms("opportunistic", HERE, trusts_dnssec=False))[0] == "opportunistic"


async def test_a_host_that_the_operator_names_needs_no_proof():
    """Its own records count; the policy of the recipient's domain is about other hosts."""
    named = Route(MX, (MailHost(0, MX),), 25, named=True)
    assert told(await terms("opportunistic", HERE, "enforce", named))[0] == "dane"
    assert told(await terms("opportunistic", {}, "enforce", named))[0] == "opportunistic"


@pytest.mark.parametrize(
    "route", [Route("a.test", (), 25), Route("192.0.2.1", (MailHost(0, "192.0.2.1"),), 25)], ids=["sink", "literal"]
)
async def test_where_no_domain_is_asked_nobody_has_policies(route):
    """A sink, and an address literal."""
    assert told(await terms("opportunistic", HERE, "enforce", route))[0] == "opportunistic"


async def test_refusals_wait_for_better_times():
    """Records that cannot be had, and a policy that names others; each is told of."""
    made = policies(names({f"TLSA _25._tcp.{MX}": FAILED}))
    with pytest.raises(Refused) as refusal:
        await made.terms(await made.demand(transaction(), ROUTE, "opportunistic"), TARGET)
    assert (refusal.value.session.failure, refusal.value.ending.final) == ("dnssec-invalid", False)
    demand = Demand(security="opportunistic", sts=StsPolicy("enforce", ("other.test",), 1))
    with pytest.raises(Refused) as refusal:
        await made.terms(demand, TARGET)
    assert (refusal.value.session.judged.type, refusal.value.ending.final) == ("sts", False)


async def test_requiretls_without_proof_is_final():
    """RFC 8689 §4.2.1: the sender is told."""
    dns = names({})
    dns.hosts = Located((MailHost(10, MX),))
    made = policies(dns)
    with pytest.raises(HostFailure) as refusal:
        await made.terms(await made.demand(transaction(requiretls=True), ROUTE, "verified"), TARGET)
    ending = refusal.value.ending
    assert (ending.final, ending.code, ending.status) == (True, 550, "5.7.10")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"TLS-Required: No\r\n\r\n", True),
        (b"Subject: x\r\ntls-required:\tNO \r\n\r\nbody", True),
        (b"TLS-Required: No", True),
        (b"TLS-Required: Yes\r\n\r\n", False),
        (b"TLS-Required: No\r\nTLS-Required: No\r\n\r\n", False),
        (b"Subject: TLS-Required: No\r\n\r\n", False),
        (b"Subject: x\r\n\r\nTLS-Required: No\r\n", False),
        (b"", False),
    ],
)
async def test_authors_may_want_their_mail_to_go_whatever_there_is(content, expected):
    """One field in the header section, that says No (RFC 8689 §5); REQUIRETLS goes before it."""
    assert ignores_policies(content) is expected
    made = policies(names(HERE), "enforce")
    demand = await made.demand(transaction(content), ROUTE, "opportunistic")
    assert (demand == Demand(security="opportunistic", reported=False)) is expected
    assert (await made.demand(transaction(content, requiretls=True), ROUTE, "verified")).dane


async def test_connections_are_shared_where_demands_are_equal():
    """Domains at one host, unless its certificate may name them."""
    made = policies(names(HERE))
    other = Transaction(reverse_path=None, forward_paths=(Address("bob", "b.test"),), content=b"")
    assert await made.demand(transaction(), ROUTE, "opportunistic") == await made.demand(other, ROUTE, "opportunistic")
    made = policies(names({f"TLSA _25._tcp.{MX}": found(Tlsa(2, 1, 1, bytes(32)))}))
    demands = [await made.demand(each, ROUTE, "opportunistic") for each in (transaction(), other)]
    assert [demand.names for demand in demands] == [("a.test",), ("b.test",)]


async def test_a_session_counts_once_for_a_domain():
    """However many messages waited for it."""
    counted: list[str] = []
    made = policies(names({}), tell=lambda domain, session: counted.append(domain))
    session = TlsSession(judged=Judged("sts"), mx_host=MX)
    for domain in ("a.test", "b.test", "a.test"):
        made.tell(domain, [session])
    assert counted == ["a.test", "b.test"]
