"""DANE and MTA-STS with a signed zone behind unbound, a web server with policies, and mail hosts that speak TLS."""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.deliver.dane import Tlsa
from mtaq.deliver.mta_sts_policies import StsPolicies
from mtaq.deliver.mta_sts_store import PolicyStore
from mtaq.deliver.tls_policy import TlsPolicies
from mtaq.deliver.tls_session import TlsSession
from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.model.control import Scope, TlsLevel
from mtaq.net.tls import client_context
from mtaq.telemetry.events import EventLog
from tests.support.chains import Issued, issue
from tests.support.delivery import START, Clock, Lines, World, options, outbox_json, set_entries, surroundings
from tests.support.fake_mx import FakeMx, Script
from tests.support.policy_server import PolicyServer, policy
from tests.support.ports import free_port
from tests.support.unbound import PROGRAM, Unbound

pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(PROGRAM is None, reason="install unbound (Debian package) to run this"),
]

PORT = free_port()
WEB = trustme.CA()
ROOT = issue("root", authority=True)
FORGED = "bogus.signed.test"


@dataclass
class Host:
    """A mail host: where it is, and what it presents."""

    name: str
    certificate: Issued | trustme.LeafCert
    records: tuple[Tlsa, ...] = ()
    numbers = itertools.count(1)
    ip: str = field(default_factory=lambda: f"127.0.83.{next(Host.numbers)}")

    @functools.cached_property
    def context(self) -> ssl.SSLContext:
        """For its server; notes SNI in ``names``."""
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = lambda session, name, _: self.names.append(name)
        if isinstance(self.certificate, trustme.LeafCert):
            self.certificate.configure_cert(context)
        else:
            configure(context, self.certificate.pem)
        return context

    def zone(self) -> str:
        """Its records."""
        lines = [
            f"{self.name}. IN A {self.ip}",
            *(f"_{PORT}._tcp.{self.name}. IN TLSA {each}" for each in self.records),
        ]
        return "\n".join(lines) + "\n"


def configure(context: ssl.SSLContext, pem: bytes) -> None:
    """Load key and chain that are in memory."""
    with trustme.Blob(pem).tempfile() as path:
        context.load_cert_chain(path)


def made(name: str, *forms: tuple[int, int, int], wrong: bool = False, **how: Any) -> Host:
    """Return a host below ROOT whose TLSA records are right, or are wrong."""
    certificate = issue(name, ROOT, **{"dns": [name], **how})
    about = {3: certificate, 2: ROOT}
    records = [about[form[0]].tlsa(*form) if form[0] in about else Tlsa(*form, bytes(32)) for form in forms]
    if wrong:
        records = [record._replace(data=bytes(len(record.data))) for record in records]
    return Host(name, certificate, tuple(records))


EE = made("ee.signed.test", (3, 1, 1))
TA = made("ta.signed.test", (2, 0, 1))
OLD = made("old.signed.test", (3, 1, 1), dns=["another.test"], expired=True)
WRONG = made("wrong.signed.test", (3, 1, 1), wrong=True)
NAMED = made("named.signed.test", (2, 1, 1), dns=["mail.signed.test"])
USELESS = made("useless.signed.test", (1, 1, 1))
PLAIN = made("plain.signed.test")
BOGUS = made(FORGED, (3, 1, 1))
REAL = made("real.signed.test", (3, 1, 1))
OUTSIDE = made("outside.insecure.test")
UNPROVED = made("unproved.insecure.test", (3, 1, 1), wrong=True)
TRUSTED = Host("trusted.insecure.test", WEB.issue_cert("trusted.insecure.test"))
STRANGE = Host("strange.insecure.test", trustme.CA().issue_cert("strange.insecure.test"))
BOTH = Host("both.signed.test", WEB.issue_cert("both.signed.test"), (WRONG.records[0],))
ALIAS = OUTSIDE.certificate.tlsa(3) if isinstance(OUTSIDE.certificate, Issued) else None

HOSTS = (EE, TA, OLD, WRONG, NAMED, USELESS, PLAIN, BOGUS, REAL, OUTSIDE, UNPROVED, TRUSTED, STRANGE, BOTH)
DOMAINS = {
    "many.signed.test": [(5, FORGED), (10, WRONG.name), (20, EE.name)],
    "mail.signed.test": [(10, NAMED.name)],
    "neighbour.signed.test": [(10, NAMED.name)],
    "alias.signed.test": [(10, "cname.signed.test")],
    "out.signed.test": [(10, "out-cname.signed.test")],
    "a.insecure.test": [(10, TRUSTED.name)],
    "b.insecure.test": [(10, TRUSTED.name)],
    "two.insecure.test": [(10, STRANGE.name), (20, TRUSTED.name)],
    "lone.insecure.test": [(10, EE.name)],
    "proved.signed.test": [(10, TRUSTED.name)],
} | {f"at.{host.name}": [(10, host.name)] for host in HOSTS}


def zone(origin: str) -> str:
    """The records in *origin*."""
    lines = [host.zone() for host in HOSTS if host.name.endswith(origin)]
    for domain, hosts in DOMAINS.items():
        if domain.endswith(origin):
            lines += [f"{domain}. IN MX {preference} {host}.\n" for preference, host in hosts]
            lines.append(f'_mta-sts.{domain}. IN TXT "v=STSv1; id=1"\n')
    if origin == "signed.test":
        lines.append(f"cname.signed.test. IN CNAME {REAL.name}.\nout-cname.signed.test. IN CNAME {OUTSIDE.name}.\n")
        lines.append(f"_{PORT}._tcp.out-cname.signed.test. IN TLSA {ALIAS}\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbound]:
    """A resolver that validates; the TLSA record of one host was changed after it was signed."""
    folder = tmp_path_factory.mktemp("unbound")
    resolver = Unbound(folder, signed=zone("signed.test"), insecure=zone("insecure.test"))
    file: Path = folder / "signed.test"
    forged, count = re.subn(rf"(?m)^(_{PORT}\._tcp\.bogus \d+ IN TLSA 3 1 1 )\S{{4}}", r"\g<1>ffff", file.read_text())
    assert count == 1
    file.write_text(forged)
    with resolver as running:
        yield running


@dataclass
class Sender:
    """What delivers, and what it noted about handshakes."""

    world: World
    web: PolicyServer
    told: list[tuple[str, TlsSession]]

    async def send(self, domain: str, queue: str = "success", **properties: Any) -> dict[str, Any]:
        """Deliver a message to *domain*; return what the last message in *queue* says."""
        await self.world.deliver(outbox_json(f"bob@{domain}", **properties))
        assert self.world.queues.stored[queue], dict(self.world.queues.stored)
        result: dict[str, Any] = self.world.queues.stored[queue][-1].json["results"][-1]
        return result

    def failures(self, domain: str) -> list[tuple[str, str | None]]:
        """By what policy each session was judged, and what was wrong."""
        return [(session.judged.type, session.failure) for name, session in self.told if name == domain]


@contextlib.asynccontextmanager
async def sender(unbound: Unbound, folder: Path, *, trust_ad: bool = True, **changes: Any) -> AsyncIterator[Sender]:
    """Delivery that asks unbound, and fetches policies from one web server."""
    clock, lines = Clock(), Lines()
    names = CachingResolver(
        ResolverOptions(nameservers=(unbound.address,), hosts=Path("/nonexistent"), trust_ad=trust_ad)
    )
    told: list[tuple[str, TlsSession]] = []
    verified = client_context(verified=True)
    WEB.configure_trust(verified)
    domains = [f"mta-sts.{domain}" for domain in DOMAINS]
    async with PolicyServer(WEB, *domains, response=b"HTTP/1.1 404 No\r\n\r\n") as web:
        sts = StsPolicies(
            ask=names.ask,
            fetch=web.fetcher(),
            store=PolicyStore(folder / "mta-sts"),
            clock=clock,
            events=EventLog(lines, node="test", clock=clock),
        )
        tls = TlsPolicies(
            ("dane", "mta-sts"),
            names=names,
            trusts_dnssec=trust_ad,
            sts=sts,
            tell=lambda domain, session: told.append((domain, session)),
            clock=clock,
        )
        world = World(
            options=options(delivery_port=PORT, **changes),
            resolver=names,
            tls=tls,
            clock=clock,
            surroundings=surroundings(verified=verified),
        )
        async with world:
            yield Sender(world, web, told)


@contextlib.asynccontextmanager
async def running(host: Host, script: Script | None = None) -> AsyncIterator[FakeMx]:
    """*host* takes mail, with TLS unless *script* says otherwise."""
    async with FakeMx(script or Script(tls=host.context), ip=host.ip, port=PORT) as mx:
        yield mx


@pytest.fixture
async def mail(unbound: Unbound, tmp_path: Path) -> AsyncIterator[Sender]:
    """A sender as configured by default, with a resolver that it trusts."""
    async with sender(unbound, tmp_path) as made:
        yield made


# DANE


@pytest.mark.parametrize("host", [EE, TA, OLD], ids=lambda host: host.name)
async def test_a_host_that_matches_its_records_is_verified(mail: Sender, host: Host) -> None:
    """By its own certificate, whatever name and dates that has, or by its authority; SNI is its name."""
    async with running(host) as mx:
        result = await mail.send(f"at.{host.name}")
        assert (result["tls-policy"], result["certificate"]["verified"], mx.mail[0].secure) == ("dane", True, True)
        assert host.names == [host.name]
        assert mail.failures(f"at.{host.name}") == [("tlsa", None)]


async def test_a_host_that_matches_none_gets_nothing(mail: Sender) -> None:
    """Neither so nor in clear; the message waits."""
    async with running(WRONG) as mx:
        result = await mail.send(f"at.{WRONG.name}", "retry")
        assert (result["state"], result["result"], result["status"]) == ("starttls", "error", "4.7.5")
        assert (result["tls-policy"], result["certificate"]["verified"], result["category"]) == ("dane", False, "tls")
        assert mx.mail == []
        assert len(mx.dialogs) == 1
        assert mail.failures(f"at.{WRONG.name}") == [("tlsa", "validation-failure")]


async def test_an_operator_demands_dane(mail: Sender) -> None:
    """A host that matches its records gets the message; one without them gets none, however good its certificate is."""
    entry = TlsLevel(id="one", created_at=START, scope=Scope(), level="dane-only")
    set_entries(mail.world.control, "tls_levels", entry)
    async with running(EE) as proved, running(TRUSTED) as trusted:
        result = await mail.send(f"at.{EE.name}")
        assert (result["tls-policy"], result["certificate"]["verified"], len(proved.mail)) == ("dane", True, 1)
        result = await mail.send("a.insecure.test", "retry")
        assert (result["state"], result["status"], result["tls-policy"]) == ("starttls", "4.7.5", "dane")
        assert trusted.dialogs == []


@pytest.mark.parametrize("script", [Script(), Script(break_tls=True)], ids=["no STARTTLS", "broken"])
async def test_a_host_with_records_gets_nothing_in_clear(mail: Sender, script: Script) -> None:
    """Who takes STARTTLS out of an answer gains nothing."""
    async with running(EE, script) as mx:
        result = await mail.send(f"at.{EE.name}", "retry")
        assert (result["state"], mx.mail) == ("starttls", [])


async def test_a_host_without_records_is_as_ever(mail: Sender) -> None:
    """Encrypted where offered, any certificate, in clear where not."""
    domain = f"at.{PLAIN.name}"
    async with running(PLAIN) as mx:
        result = await mail.send(domain)
        assert (result["tls-policy"], result["certificate"]["verified"]) == ("opportunistic", False)
        mx.scripts = [Script()]
        assert mx.mail[0].secure
    assert mail.failures(domain) == [("no-policy-found", None)]


async def test_records_that_nobody_proves_do_not_count(mail: Sender) -> None:
    """A zone that is not signed, or a domain that is not and leads to a host that is."""
    async with running(UNPROVED), running(EE, Script(tls=WRONG.context)):
        assert (await mail.send(f"at.{UNPROVED.name}"))["tls-policy"] == "opportunistic"
        assert (await mail.send("lone.insecure.test"))["tls-policy"] == "opportunistic"


async def test_a_resolver_that_is_not_trusted_proves_nothing(unbound: Unbound, tmp_path: Path) -> None:
    """Without `dns-trust-ad` there is no DANE."""
    async with sender(unbound, tmp_path, trust_ad=False) as mail, running(WRONG):
        assert (await mail.send(f"at.{WRONG.name}"))["tls-policy"] == "opportunistic"


async def test_records_that_are_forged_are_no_records(mail: Sender) -> None:
    """A signature that does not fit: the host is not used, and nobody connects to it."""
    async with running(BOGUS) as mx:
        result = await mail.send(f"at.{BOGUS.name}", "retry")
        assert (result["state"], result["result"], result["code"]) == ("dns", "timeout", 451)
        assert mx.dialogs == []
        assert mail.failures(f"at.{BOGUS.name}") == [("tlsa", "dnssec-invalid")]


async def test_the_next_host_gets_it(mail: Sender) -> None:
    """One whose records are forged, one that does not match, and one that does, by preference."""
    async with running(BOGUS) as bogus, running(WRONG) as wrong, running(EE) as right:
        result = await mail.send("many.signed.test")
        assert result["to"] == EE.ip
        assert (bogus.mail, wrong.mail, len(right.mail)) == ([], [], 1)
        told = [("tlsa", "dnssec-invalid"), ("tlsa", "validation-failure"), ("tlsa", None)]
        assert mail.failures("many.signed.test") == told


async def test_aliases_are_followed_as_far_as_they_are_proved(mail: Sender) -> None:
    """RFC 7672 §2.2.2: records stand under the last name, or, when that is not proved, under the alias."""
    async with running(REAL), running(OUTSIDE):
        assert (await mail.send("alias.signed.test"))["tls-policy"] == "dane"
        assert REAL.names == [REAL.name]
        assert (await mail.send("out.signed.test"))["tls-policy"] == "dane"
        assert OUTSIDE.names == ["out-cname.signed.test"]


async def test_a_certificate_may_name_the_domain(mail: Sender) -> None:
    """RFC 7672 §3.2.2; then a neighbour at the same host gets nothing, not over that connection either."""
    async with running(NAMED):
        assert (await mail.send("mail.signed.test"))["certificate"]["verified"] is True
        await mail.send("neighbour.signed.test", "retry")
        assert mail.failures("neighbour.signed.test") == [("tlsa", "certificate-host-mismatch")]


async def test_records_that_say_nothing_demand_encryption(mail: Sender) -> None:
    """RFC 7672 §2.2: by any certificate, and never in clear."""
    domain = f"at.{USELESS.name}"
    async with running(USELESS) as mx:
        result = await mail.send(domain)
        assert (result["tls-policy"], result["certificate"]["verified"]) == ("dane", False)
        assert mail.failures(domain) == [("tlsa", "tlsa-invalid")]
        mx.scripts = [Script()]
    async with running(USELESS, Script()) as mx:
        mail.world.queues.stored.clear()
        await mail.send(domain, "retry")
        assert mx.mail == []


async def test_dane_verifies_where_verified_is_demanded(mail: Sender) -> None:
    """A host that proves itself by DANE needs no authority that we trust; one that proves nothing gets nothing."""
    async with running(EE), running(PLAIN):
        assert (await mail.send(f"at.{EE.name}", security="verified"))["certificate"]["verified"] is True
        await mail.send(f"at.{PLAIN.name}", "retry", security="verified")


async def test_optional_asks_for_nothing(mail: Sender) -> None:
    """Whatever the domain publishes."""
    async with running(WRONG) as mx:
        assert (await mail.send(f"at.{WRONG.name}", security="optional"))["tls-policy"] == "none"
        assert not mx.mail[0].secure


# MTA-STS


async def test_a_host_that_the_policy_names_is_verified(mail: Sender) -> None:
    """By an authority that is trusted, for its name."""
    mail.web.serve(policy("enforce", "*.insecure.test"))
    async with running(TRUSTED) as mx:
        result = await mail.send("a.insecure.test")
        assert (result["tls-policy"], result["certificate"]["verified"]) == ("mta-sts", True)
        assert mx.mail[0].secure
        assert mail.failures("a.insecure.test") == [("sts", None)]


@pytest.mark.parametrize("script", [Script(), Script(break_tls=True), Script(tls=STRANGE.context)])
async def test_a_host_that_does_not_prove_itself_gets_nothing(mail: Sender, script: Script) -> None:
    """No STARTTLS, a broken handshake, or a certificate of somebody else: the message waits."""
    mail.web.serve(policy("enforce", TRUSTED.name))
    async with running(TRUSTED, script) as mx:
        result = await mail.send("a.insecure.test", "retry")
        assert (result["state"], result["tls-policy"], mx.mail) == ("starttls", "mta-sts", [])


async def test_a_host_that_the_policy_does_not_name_is_passed_over(mail: Sender) -> None:
    """Without a connection; the next one gets it, and where there is none the message waits."""
    mail.web.serve(policy("enforce", TRUSTED.name))
    async with running(STRANGE) as strange, running(TRUSTED) as mx:
        assert (await mail.send("two.insecure.test"))["to"] == TRUSTED.ip
        assert (strange.dialogs, len(mx.mail)) == ([], 1)
        assert mail.failures("two.insecure.test") == [("sts", "validation-failure"), ("sts", None)]
        result = await mail.send(f"at.{STRANGE.name}", "retry")
        assert (result["state"], result["status"], strange.dialogs) == ("starttls", "4.7.5", [])


async def test_without_a_policy_a_host_is_as_ever(mail: Sender) -> None:
    """The record names one, and the web server has none."""
    async with running(STRANGE):
        assert (await mail.send(f"at.{STRANGE.name}"))["tls-policy"] == "opportunistic"


async def test_a_stale_policy_holds(unbound: Unbound, tmp_path: Path) -> None:
    """The web server is gone, and so is what this process knew: the mail of the domain is as safe as before."""
    async with sender(unbound, tmp_path) as before, running(TRUSTED):
        before.web.serve(policy("enforce", TRUSTED.name))
        await before.send("a.insecure.test")
    async with sender(unbound, tmp_path) as after, running(TRUSTED, Script()) as mx:
        assert (await after.send("a.insecure.test", "retry"))["tls-policy"] == "mta-sts"
        assert (mx.mail, after.web.requests) == ([], [])


@pytest.mark.parametrize(
    ("script", "secure", "kind"),
    [
        (Script(tls=STRANGE.context), True, "certificate-not-trusted"),
        (Script(), False, "starttls-not-supported"),
        (Script(break_tls=True), False, "validation-failure"),
    ],
)
async def test_a_policy_under_test_is_told_of_and_stops_nothing(
    mail: Sender, script: Script, secure: bool, kind: str
) -> None:
    """The message goes as it would without; the report says what would have been wrong, once."""
    mail.web.serve(policy("testing", TRUSTED.name))
    async with running(TRUSTED, script) as mx:
        result = await mail.send("a.insecure.test")
        assert (result["tls-policy"], mx.mail[0].secure) == ("mta-sts", secure)
        assert mail.failures("a.insecure.test") == [("sts", kind)]


async def test_a_policy_under_test_that_names_others_stops_nothing(mail: Sender) -> None:
    """Nor does it demand a certificate."""
    mail.web.serve(policy("testing", "other.test"))
    async with running(STRANGE):
        await mail.send(f"at.{STRANGE.name}")
        assert mail.failures(f"at.{STRANGE.name}") == [("sts", "validation-failure")]


async def test_dane_goes_before_mta_sts(mail: Sender) -> None:
    """RFC 8461 §2: what DANE verifies needs no policy, and what it refuses no policy lets through."""
    mail.web.serve(policy("enforce", EE.name, BOTH.name))
    async with running(EE), running(BOTH) as mx:
        assert (await mail.send(f"at.{EE.name}"))["tls-policy"] == "dane"
        assert (await mail.send(f"at.{BOTH.name}", "retry"))["tls-policy"] == "dane"
        assert mx.mail == []


async def test_neighbours_at_one_host_share_what_they_demand_alike(mail: Sender) -> None:
    """Equal policies share a connection; a domain without one has its own."""
    mail.web.serve(policy("enforce", TRUSTED.name))
    async with running(TRUSTED) as mx:
        await mail.send("a.insecure.test")
        await mail.send("b.insecure.test")
        assert len(mx.dialogs) == 1
        mail.web.serve("nothing")
        await mail.send(f"at.{TRUSTED.name}")
        assert len(mx.dialogs) == 2
        assert mail.failures("b.insecure.test") == [("sts", None)]


# What senders wish


async def test_tls_required_no_overrides_the_recipient(mail: Sender) -> None:
    """RFC 8689 §5: whatever DANE and MTA-STS say; nothing of it goes into a report. Not what the operator demands."""
    mail.web.serve(policy("enforce", "other.test"))
    mime = "TLS-Required: No\r\nSubject: your certificate\r\n\r\nhas ended\r\n"
    async with running(WRONG) as wrong, running(TRUSTED, Script()) as mx:
        assert (await mail.send(f"at.{WRONG.name}", mime=mime))["tls-policy"] == "opportunistic"
        await mail.send("a.insecure.test", mime=mime)
        assert (len(wrong.mail), len(mx.mail), mail.told) == (1, 1, [])
        await mail.send("a.insecure.test", "retry", mime=mime, security="required")


async def test_requiretls_wants_hosts_that_are_proved(mail: Sender) -> None:
    """RFC 8689 §2: by DNSSEC or by a policy, and verified; else the sender gets the message back."""
    ehlo = {"EHLO": b"250-mx\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n"}
    script = Script(tls=TRUSTED.context, replies=ehlo)
    async with running(TRUSTED, script) as mx, running(EE, replace(script, tls=EE.context)), running(WRONG):
        result = await mail.send("a.insecure.test", "failure", requiretls=True)
        assert (result["code"], result["status"], mx.dialogs) == (550, "5.7.10", [])
        assert (await mail.send("proved.signed.test", requiretls=True))["tls-policy"] == "verified"
        assert (await mail.send(f"at.{EE.name}", requiretls=True))["tls-policy"] == "dane"
        assert mx.mail[0].commands[0].endswith(" REQUIRETLS")
        result = await mail.send(f"at.{WRONG.name}", "failure", requiretls=True)
        assert (result["state"], result["status"]) == ("starttls", "5.7.10")


async def test_requiretls_takes_a_policy_for_a_proof(mail: Sender) -> None:
    """Of the hosts that it names."""
    mail.web.serve(policy("testing", TRUSTED.name))
    script = Script(tls=TRUSTED.context, replies={"EHLO": b"250-mx\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n"})
    async with running(TRUSTED, script), running(STRANGE):
        assert (await mail.send("a.insecure.test", requiretls=True))["certificate"]["verified"] is True
        await mail.send(f"at.{STRANGE.name}", "failure", requiretls=True)
