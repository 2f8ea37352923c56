"""The resolver against a name server that misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import dns.flags
import pytest
from prometheus_client import REGISTRY

from mtaq.deliver.ports import MailHost
from mtaq.dns.resolver import CachingResolver, ResolverOptions, system_nameservers
from mtaq.model.dns import Found, Located, Question, RecordType
from mtaq.model.errors import NoSuchDomain, ResolverTimeout
from tests.support.dns_server import DnsServer


class Clock:
    """A clock moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer({}) as running:
        yield running


def resolver(server: DnsServer, clock: Clock | None = None, **options: Any) -> CachingResolver:
    defaults: dict[str, Any] = {"interval_s": 0.2, "attempts": 2, "hosts": Path("/nonexistent"), "min_ttl_s": 0}
    defaults["nameservers"] = (server.address,)
    return CachingResolver(ResolverOptions(**(defaults | options)), clock=clock or Clock())


async def test_mail_hosts_come_by_preference(server: DnsServer) -> None:
    """MX hosts come sorted by preference, lower case, without the last dot."""
    server.zones["a.test"] = {"MX": [[20, "B.a.test"], [10, "MX.a.test"]]}
    hosts = await resolver(server).mail_hosts("A.test.")
    assert [(host.preference, host.name) for host in hosts] == [(10, "mx.a.test"), (20, "b.a.test")]


async def test_without_mx_the_domain_itself(server: DnsServer) -> None:
    """A domain with an address and no MX is its own mail host, of preference 0 (RFC 5321 §5.1)."""
    server.zones["a.test"] = {"AAAA": ["2001:db8::1"]}
    hosts = await resolver(server).mail_hosts("a.test")
    assert [(host.preference, host.name) for host in hosts] == [(0, "a.test")]


@pytest.mark.parametrize(
    "entry", ["NXDOMAIN", "NODATA", {"TXT": ["only text"]}, {"MX": [[10, "192.0.2.1"], [20, "::1"]]}]
)
async def test_no_mail_host(server: DnsServer, entry: Any) -> None:
    """No such name, no MX and no address, or addresses where names must stand: there is no mail host."""
    server.zones["a.test"] = entry
    with pytest.raises(NoSuchDomain) as caught:
        await resolver(server).mail_hosts("a.test")
    assert not caught.value.null_mx


async def test_null_mx(server: DnsServer) -> None:
    """A null MX says that the domain takes no mail, whatever addresses it has (RFC 7505)."""
    server.zones["a.test"] = {"MX": [[0, "."]], "A": ["127.0.0.1"]}
    with pytest.raises(NoSuchDomain) as caught:
        await resolver(server).mail_hosts("a.test")
    assert caught.value.null_mx


async def test_null_mx_beside_others_is_passed_over(server: DnsServer) -> None:
    """A dot beside a real MX host is no null MX."""
    server.zones["a.test"] = {"MX": [[0, "."], [10, "mx.a.test"]]}
    assert [host.name for host in await resolver(server).mail_hosts("a.test")] == ["mx.a.test"]


@pytest.mark.parametrize("word", ["SERVFAIL", "REFUSED", "SILENT"])
async def test_failures_are_transient(server: DnsServer, word: str) -> None:
    """SERVFAIL, REFUSED and silence say nothing about the domain: it is tried again later."""
    server.zones["a.test"] = word
    with pytest.raises(ResolverTimeout):
        await resolver(server).mail_hosts("a.test")
    with pytest.raises(ResolverTimeout):
        await resolver(server).addresses("a.test")


async def test_no_mx_and_no_answer_for_addresses(server: DnsServer) -> None:
    """No MX, and silence about the addresses, is no proof that there is no mail host."""
    server.zones["a.test"] = {"MX": "NODATA", "A": "SERVFAIL", "AAAA": "NODATA"}
    with pytest.raises(ResolverTimeout):
        await resolver(server).mail_hosts("a.test")


async def test_referral_is_no_answer(server: DnsServer) -> None:
    """A server that only refers to others has not said that there are no records."""
    server.lame = True
    with pytest.raises(ResolverTimeout):
        await resolver(server).mail_hosts("a.test")


async def test_questions_are_repeated_as_often_as_configured(server: DnsServer) -> None:
    """A silent server is asked `attempts` times."""
    server.zones["a.test"] = "SILENT"
    with pytest.raises(ResolverTimeout):
        await resolver(server, attempts=3, interval_s=0.05).mail_hosts("a.test")
    assert server.count("a.test", "MX") == 3


async def test_lifetime_ends_the_repeats(server: DnsServer) -> None:
    """`timeout_s` bounds all attempts together."""
    server.zones["a.test"] = "SILENT"
    with pytest.raises(ResolverTimeout):
        await resolver(server, attempts=100, interval_s=0.1, timeout_s=0.15).mail_hosts("a.test")
    assert server.count("a.test", "MX") <= 2


async def test_next_server_is_asked(server: DnsServer) -> None:
    """When one name server fails, the next one is asked, and without rotation always in this order."""
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    async with DnsServer({"a.test": "SERVFAIL"}) as broken:
        asking = resolver(broken, nameservers=(broken.address, server.address), rotate=False)
        assert await asking.addresses("a.test") == ["127.0.0.9"]
        assert broken.count("a.test", "A") == 1


async def test_rotation(server: DnsServer) -> None:
    """With rotation both servers get their share of questions."""
    async with DnsServer({}) as other:
        asking = resolver(server, nameservers=(server.address, other.address), rotate=True)
        for number in range(10):
            with pytest.raises(NoSuchDomain):
                await asking.mail_hosts(f"d{number}.test")
        assert len(server.queries) == len(other.queries) == 5


async def test_tcp_after_truncation(server: DnsServer) -> None:
    """An answer that does not fit into UDP is fetched by TCP."""
    server.zones["big.test"] = {"A": [f"127.0.1.{n}" for n in range(200)]}
    server.truncated.add("big.test")
    assert len(await resolver(server).addresses("big.test")) == 200
    assert ("big.test", "A", "tcp") in server.queries


async def test_forged_answers_are_ignored(server: DnsServer) -> None:
    """Answers with another id or another question do not count; the true one that follows does."""
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    server.forged.add("a.test")
    assert await resolver(server).addresses("a.test") == ["127.0.0.9"]


async def test_server_without_edns(server: DnsServer) -> None:
    """A server that does not know EDNS is asked without it."""
    server.without_edns = True
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    assert await resolver(server).addresses("a.test") == ["127.0.0.9"]


async def test_aliases_are_followed(server: DnsServer) -> None:
    """A CNAME leads to the records of its target."""
    server.zones |= {"www.test": {"CNAME": ["a.test"]}, "a.test": {"MX": [[5, "mx.test"]], "A": ["127.0.0.9"]}}
    asking = resolver(server)
    assert [host.name for host in await asking.mail_hosts("www.test")] == ["mx.test"]
    assert await asking.addresses("www.test") == ["127.0.0.9"]


async def test_endless_aliases_are_transient(server: DnsServer) -> None:
    """Aliases in a circle are a failure of the zone, not an answer."""
    server.zones |= {"a.test": {"CNAME": ["b.test"]}, "b.test": {"CNAME": ["a.test"]}}
    with pytest.raises(ResolverTimeout):
        await resolver(server).mail_hosts("a.test")


async def test_addresses_ipv6_first(server: DnsServer) -> None:
    """IPv6 comes before IPv4, in the spelling of RFC 5952; an IPv4-mapped address counts as IPv4."""
    server.zones["a.test"] = {"A": ["127.0.0.9"], "AAAA": ["2001:DB8:0:0::1", "::ffff:127.0.0.8"]}
    assert await resolver(server).addresses("a.test") == ["2001:db8::1", "127.0.0.8", "127.0.0.9"]


async def test_one_family_is_enough(server: DnsServer) -> None:
    """Addresses of one family are used although the question for the other failed."""
    server.zones["a.test"] = {"A": ["127.0.0.9"], "AAAA": "SERVFAIL"}
    assert await resolver(server).addresses("a.test") == ["127.0.0.9"]


@pytest.mark.parametrize(("given", "returned"), [("127.0.0.5", "127.0.0.5"), ("2001:DB8::0:1", "2001:db8::1")])
async def test_an_ip_address_returns_itself(server: DnsServer, given: str, returned: str) -> None:
    """An IP address needs no name server."""
    asking = resolver(server)
    assert await asking.addresses(given) == [returned]
    assert [host.preference for host in await asking.mail_hosts(given)] == [0]
    assert not server.queries


@pytest.mark.parametrize("name", ["", "a..test", "x" * 64 + ".test", ".".join(["x" * 60] * 5)])
async def test_impossible_names(server: DnsServer, name: str) -> None:
    """What cannot be a domain name does not exist; nobody is asked."""
    with pytest.raises(NoSuchDomain):
        await resolver(server).mail_hosts(name)
    assert not server.queries


async def test_answers_are_kept_for_their_ttl(server: DnsServer) -> None:
    """An answer is asked again when its time to live is over, not before."""
    server.zones["a.test"] = {"MX": [[5, "mx.test"]]}
    server.ttl_s = 100
    clock = Clock()
    asking = resolver(server, clock)
    await asking.mail_hosts("a.test")
    clock.now += 99
    await asking.mail_hosts("a.test")
    assert server.count("a.test", "MX") == 1
    clock.now += 1
    await asking.mail_hosts("a.test")
    assert server.count("a.test", "MX") == 2


async def test_floor_and_ceiling(server: DnsServer) -> None:
    """`min_ttl_s` keeps short-lived answers longer; a day is the most for any."""
    server.zones["a.test"] = {"MX": [[5, "mx.test"]]}
    for ttl_s, kept_s in ((0, 60), (10_000_000, 86_400)):
        server.ttl_s = ttl_s
        server.queries.clear()
        clock = Clock()
        asking = resolver(server, clock, min_ttl_s=60)
        await asking.mail_hosts("a.test")
        clock.now += kept_s - 1
        await asking.mail_hosts("a.test")
        assert server.count("a.test", "MX") == 1
        clock.now += 1
        await asking.mail_hosts("a.test")
        assert server.count("a.test", "MX") == 2


async def test_negative_answers_are_kept(server: DnsServer) -> None:
    """That a domain does not exist is remembered as long as its SOA says (RFC 2308)."""
    clock = Clock()
    asking = resolver(server, clock)
    for _ in range(3):
        with pytest.raises(NoSuchDomain):
            await asking.mail_hosts("no.test")
    assert server.count("no.test", "MX") == 1
    clock.now += 60
    server.zones["no.test"] = {"MX": [[5, "mx.test"]]}
    assert await asking.mail_hosts("no.test")


async def test_failures_are_kept_for_seconds(server: DnsServer) -> None:
    """A failure is remembered for some seconds (RFC 9520 §3.2), and then asked again."""
    server.zones["a.test"] = "SERVFAIL"
    clock = Clock()
    asking = resolver(server, clock)
    for _ in range(3):
        with pytest.raises(ResolverTimeout):
            await asking.mail_hosts("a.test")
    assert server.count("a.test", "MX") == 1
    server.zones["a.test"] = {"MX": [[5, "mx.test"]]}
    clock.now += 5
    assert await asking.mail_hosts("a.test")


async def test_equal_questions_are_asked_once(server: DnsServer) -> None:
    """Equal questions in flight share one query; one who stops waiting takes nothing from the others."""
    server.zones["a.test"] = {"MX": [[5, "mx.test"]]}
    server.gate.clear()
    asking = resolver(server, interval_s=5)
    waiting = [asyncio.create_task(asking.mail_hosts("a.test")) for _ in range(20)]
    await until(lambda: server.queries)
    waiting[0].cancel()
    server.gate.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [[host.name for host in hosts] for hosts in answers[1:]] == [["mx.test"]] * 19  # type: ignore[union-attr]
    assert server.count("a.test", "MX") == 1


async def test_capacity_bounds_questions_in_flight(server: DnsServer) -> None:
    """No more than `capacity` questions wait for an answer at a time."""
    server.gate.clear()
    asking = resolver(server, capacity=3, interval_s=5)
    waiting = [asyncio.create_task(asking.reverse(f"192.0.2.{number}")) for number in range(10)]
    await until(lambda: len(server.queries) >= 3)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(server.queries) == 3
    server.gate.set()
    assert await asyncio.gather(*waiting) == [None] * 10
    assert len(server.queries) == 10


async def test_hosts_file_goes_first(server: DnsServer, tmp_path: Path) -> None:
    """The table of names answers before DNS does, and is read again when it changes."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.7  Sink.test sink # comment\n::1 sink.test\nnonsense\n\n")
    asking = resolver(server, hosts=hosts)
    assert await asking.addresses("SINK.test") == ["::1", "127.0.0.7"]
    assert await asking.reverse("127.0.0.7") == "sink.test"
    assert [host.name for host in await asking.mail_hosts("sink")] == ["sink"]
    hosts.write_text("127.0.0.17 sink.test\n")
    assert await asking.addresses("sink.test") == ["127.0.0.17"]


async def test_reverse(server: DnsServer) -> None:
    """A PTR record gives the name; one that is no host name, silence and absence give none."""
    server.zones |= {
        "5.0.0.127.in-addr.arpa": {"PTR": ["Mail.Example.test"]},
        "6.0.0.127.in-addr.arpa": {"PTR": ["bad\\010name.test"]},
        "7.0.0.127.in-addr.arpa": "SERVFAIL",
    }
    asking = resolver(server)
    assert await asking.reverse("127.0.0.5") == "mail.example.test"
    for ip in ("127.0.0.6", "127.0.0.7", "127.0.0.8", "not an address"):
        assert await asking.reverse(ip) is None


ASKED = [
    ("A", ["127.0.0.9"], ("127.0.0.9",)),
    ("AAAA", ["2001:DB8:0::1"], ("2001:db8::1",)),
    ("CNAME", ["B.Test"], ("b.test",)),
    ("MX", [[20, "B.Test"], [0, "."]], ((20, "b.test"), (0, ""))),
    ("PTR", ["Mail.Example.test"], ("mail.example.test",)),
    ("TXT", [["one ", "two"], "\\", ""], ((b"one ", b"two"), (b"\\",), (b"",))),
    ("TLSA", [[3, 1, 1, "00ff" * 16]], ((3, 1, 1, b"\0\xff" * 16),)),
]


@pytest.mark.parametrize(("kind", "published", "records"), ASKED)
async def test_records_are_plain_values(server: DnsServer, kind: RecordType, published: Any, records: Any) -> None:
    """Each type of record comes as text, numbers and bytes; names in lower case, the root as the empty text."""
    server.zones["a.test"] = {kind: published}
    answer = await resolver(server).ask(Question("A.Test", kind))
    assert (answer.found, sorted(answer.records)) == (Found.RECORDS, sorted(records))  # the server shuffles them


@pytest.mark.parametrize(
    ("word", "found"),
    [("NODATA", Found.NO_DATA), ("NXDOMAIN", Found.NO_NAME), ("SERVFAIL", Found.FAILED), ("SILENT", Found.FAILED)],
)
async def test_what_is_not_found_is_an_answer(server: DnsServer, word: str, found: Found) -> None:
    """No records, no name and no answer are told apart, and nothing is raised."""
    server.zones["a.test"] = word
    answer = await resolver(server).ask(Question("a.test", "TXT"))
    assert (answer.found, answer.records) == (found, ())
    assert bool(answer.reason) == (found is Found.FAILED)


@pytest.mark.parametrize("name", ["", ".", "a..test", ".a.test", "x" * 64 + ".test", "bücher.test", "a\ud800.test"])
async def test_what_cannot_be_a_name_does_not_exist(server: DnsServer, name: str) -> None:
    """A name that DNS cannot carry is no such name; nobody is asked."""
    assert (await resolver(server).ask(Question(name, "TXT"))).found is Found.NO_NAME
    assert not server.queries


async def test_hosts_file_takes_no_part_in_questions(server: DnsServer, tmp_path: Path) -> None:
    """What is asked of DNS is answered by DNS alone: sender authentication must not believe a local table."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.7 sink.test\n")
    answer = await resolver(server, hosts=hosts).ask(Question("sink.test", "A"))
    assert answer.found is Found.NO_NAME


# When nobody answers.


@pytest.mark.parametrize("word", ["SERVFAIL", "REFUSED", "SILENT"])
async def test_old_answers_stand_in_for_silent_servers(server: DnsServer, word: str) -> None:
    """For five minutes after its time an answer is still given while the servers do not answer, and no longer."""
    server.zones["a.test"] = {"TXT": ["v=spf1 -all"]}
    server.ttl_s = 10
    clock = Clock()
    asking = resolver(server, clock, interval_s=0.3)
    question = Question("a.test", "TXT")
    answer = await asking.ask(question)
    server.zones["a.test"] = word
    for later_s in (10, 200, 99):
        clock.now += later_s
        assert await asking.ask(question) == answer
    clock.now += 1
    assert (await asking.ask(question)).found is Found.FAILED


async def test_old_absence_stands_in_as_well(server: DnsServer) -> None:
    """That there was no such name counts as much as what there was."""
    clock = Clock()
    asking = resolver(server, clock)
    question = Question("a.test", "TXT")
    assert (await asking.ask(question)).found is Found.NO_NAME
    server.zones["a.test"] = "SERVFAIL"
    clock.now += 60
    assert (await asking.ask(question)).found is Found.NO_NAME


async def test_new_answers_replace_old_ones(server: DnsServer) -> None:
    """While an old answer stands in the question is asked again every few seconds, and what it brings counts."""
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    server.ttl_s = 10
    clock = Clock()
    asking = resolver(server, clock)
    question = Question("a.test", "A")
    await asking.ask(question)
    server.zones["a.test"] = "SERVFAIL"
    clock.now += 10
    for _ in range(3):
        assert (await asking.ask(question)).found is Found.RECORDS
    assert server.count("a.test", "A") == 2
    server.zones["a.test"] = {"A": ["127.0.0.8"]}
    clock.now += 5
    assert (await asking.ask(question)).records == ("127.0.0.8",)


async def test_an_old_answer_is_not_waited_for_long(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is an old answer, silence is not waited for to its end; the question goes on meanwhile."""
    monkeypatch.setattr("mtaq.dns.answers.STALE_AFTER_S", 0.01)
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    server.ttl_s = 10
    clock = Clock()
    asking = resolver(server, clock, interval_s=60)
    question = Question("a.test", "A")
    answer = await asking.ask(question)
    server.zones["a.test"] = {"A": ["127.0.0.8"]}
    server.gate.clear()
    clock.now += 10
    assert await asyncio.wait_for(asking.ask(question), 30) == answer
    server.gate.set()
    clock.now += 5
    assert (await asking.ask(question)).records == ("127.0.0.8",)
    assert server.count("a.test", "A") == 2


async def test_a_broken_zone_is_not_silence(server: DnsServer) -> None:
    """Servers that answer, though it is nonsense, have said that the old answer no longer holds."""
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    server.ttl_s = 10
    clock = Clock()
    asking = resolver(server, clock)
    await asking.ask(Question("a.test", "A"))
    server.zones["a.test"] = {"CNAME": ["a.test"]}
    clock.now += 10
    assert (await asking.ask(Question("a.test", "A"))).found is Found.FAILED


async def test_without_time_to_live_nothing_is_kept(server: DnsServer) -> None:
    """An answer with TTL 0 is asked for each time when there is no floor, and does not stand in later."""
    server.zones["a.test"] = {"A": ["127.0.0.9"]}
    server.ttl_s = server.negative_ttl_s = 0
    asking = resolver(server)
    for zone, found in (("NXDOMAIN", Found.NO_NAME), ({"A": ["127.0.0.8"]}, Found.RECORDS), ("SERVFAIL", Found.FAILED)):
        server.zones["a.test"] = zone
        assert (await asking.ask(Question("a.test", "A"))).found is found


# DNSSEC.


async def test_the_bit_of_a_trusted_server_is_believed(server: DnsServer) -> None:
    """With trust the server is asked whether DNSSEC proves the answer, whatever that is; without, nothing is secure."""
    server.zones |= {"a.test": {"A": ["127.0.0.9"]}, "b.test": "NXDOMAIN", "c.test": {"A": ["127.0.0.9"]}}
    server.secure |= {"a.test", "b.test"}
    for trust_ad, expected in ((True, [True, True, False]), (False, [False] * 3)):
        asking = resolver(server, trust_ad=trust_ad)
        answers = [await asking.ask(Question(name, "A")) for name in ("a.test", "b.test", "c.test")]
        assert [answer.secure for answer in answers] == expected
        assert bool(server.flags & dns.flags.AD) is trust_ad


async def test_a_bit_that_was_not_asked_for_is_not_believed(server: DnsServer) -> None:
    """A server that sets the bit by itself is not believed without trust."""
    server.wire["a.test"] = lambda query: [query[:2] + b"\x81\xa3" + query[4:]]  # AD, no such name
    answer = await resolver(server).ask(Question("a.test", "A"))
    assert (answer.found, answer.secure) == (Found.NO_NAME, False)


async def test_a_chain_is_as_secure_as_its_weakest_link(server: DnsServer) -> None:
    """Where aliases take more than one question, all answers must be secure."""
    server.follows_aliases = False
    server.zones |= {"a.test": {"CNAME": ["b.test"]}, "b.test": {"A": ["127.0.0.9"]}}
    for secure, expected in (({"a.test"}, False), ({"b.test"}, False), ({"a.test", "b.test"}, True)):
        server.secure = secure
        assert (await resolver(server, trust_ad=True).ask(Question("a.test", "A"))).secure is expected


async def test_whether_hosts_and_addresses_are_secure(server: DnsServer, tmp_path: Path) -> None:
    """Mail hosts are as secure as the answer about MX, addresses as both families; a local table is not."""
    server.zones |= {
        "a.test": {"MX": [[5, "mx.test"]]},
        "mx.test": {"A": ["127.0.0.9"]},
        "b.test": {"A": ["127.0.0.8"]},
    }
    server.secure |= {"a.test", "mx.test", "b.test", "sink.test"}
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.7 sink.test\n")
    asking = resolver(server, trust_ad=True, hosts=hosts)
    assert await asking.locate_mail_hosts("a.test") == Located((MailHost(5, "mx.test"),), secure=True)
    assert await asking.locate_mail_hosts("b.test") == Located((MailHost(0, "b.test"),), secure=True)
    assert await asking.locate_addresses("mx.test") == Located(("127.0.0.9",), secure=True)
    assert await asking.locate_mail_hosts("sink.test") == Located((MailHost(0, "sink.test"),))
    assert await asking.locate_addresses("sink.test") == Located(("127.0.0.7",))
    assert await asking.locate_addresses("127.0.0.6") == Located(("127.0.0.6",))
    server.zones["c.test"] = {"A": ["127.0.0.5"], "AAAA": "SERVFAIL"}
    server.secure.add("c.test")
    assert await asking.locate_addresses("c.test") == Located(("127.0.0.5",))


# Numbers.


async def test_questions_are_counted(server: DnsServer) -> None:
    """Counted are questions to the servers by what came of them, answers out of the cache, old ones, and truncation."""
    server.zones |= {"a.test": {"A": ["127.0.0.9"]}, "b.test": "SERVFAIL"}
    server.truncated.add("a.test")
    before = numbers()
    clock = Clock()
    asking = resolver(server, clock)
    for name in ("a.test", "A.test.", "b.test", "c.test"):
        await asking.ask(Question(name, "A"))
    server.truncated.clear()
    server.zones["a.test"] = "SERVFAIL"
    clock.now += 300
    await asking.ask(Question("a.test", "A"))
    counted = {name: value - before[name] for name, value in numbers().items()}
    assert counted == {"hits": 1, "stale": 1, "truncated": 1, "in flight": 0, "records": 1, "failed": 2, "no_name": 1}


def numbers() -> dict[str, float]:
    outcomes = ("records", "failed", "no_name")
    found = {outcome: number("questions_total", type="A", outcome=outcome) for outcome in outcomes}
    names = {"hits": "cache_hits_total", "stale": "stale_answers_total", "truncated": "truncated_total"}
    return found | {key: number(name) for key, name in (names | {"in flight": "in_flight"}).items()}


def number(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(f"mtaq_dns_{name}", labels)
    assert value is not None
    return value


async def test_cache_is_bounded(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache holds no more than its size; what was used longest ago goes first."""
    monkeypatch.setattr("mtaq.dns.answers.CACHE_SIZE", 2)
    asking = resolver(server, min_ttl_s=60)
    for name in ("a.test", "b.test", "a.test", "c.test", "a.test", "b.test"):
        with pytest.raises(NoSuchDomain):
            await asking.mail_hosts(name)
    assert [query.name for query in server.queries] == ["a.test", "b.test", "c.test", "b.test"]


def test_system_nameservers(tmp_path: Path) -> None:
    """Without `dns-nameserver` those of resolv.conf are asked; without any, the local host."""
    path = tmp_path / "resolv.conf"
    path.write_text("search example.test\nnameserver 127.0.0.53\nnameserver ::1\noptions rotate\n")
    assert system_nameservers(path) == (("127.0.0.53", 53), ("::1", 53))
    path.write_text("")
    assert system_nameservers(path) == (("127.0.0.1", 53),)
    assert system_nameservers(tmp_path / "none") == (("127.0.0.1", 53),)


async def until(happened: Any) -> None:
    while not happened():
        await asyncio.sleep(0.001)
