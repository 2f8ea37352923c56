"""Where mail for a domain goes."""

from __future__ import annotations

import random

import pytest

from mtaq.deliver.ending import HostFailure
from mtaq.deliver.ports import MailHost
from mtaq.deliver.route import MAX_HOSTS, MAX_TARGETS, Router
from mtaq.model.control import DnsOverride, OverrideHost
from mtaq.model.errors import NoSuchDomain, ResolverTimeout
from tests.support.delivery import START, FakeResolver, live_control, options, set_entries, surroundings

OWN = "198.51.100.1"


def router(resolver: FakeResolver, seed: int = 1, *, control=None, **changes) -> Router:
    # Documentation addresses stand for public ones here.
    around = surroundings(is_own=lambda ip: ip == OWN, is_private=lambda ip: ip.startswith(("10.", "127.", "fd")))
    return Router(
        options(**{"delivery_allow_private": False, **changes}),
        resolver=resolver,
        control=control or live_control(lambda: START),
        surroundings=around,
        rng=random.Random(seed),
    )


async def hosts_tried(resolver: FakeResolver, domain: str = "example.com", seed: int = 1, **changes) -> list[str]:
    found = router(resolver, seed, **changes)
    return [target.host for target in await found.targets(await found.route(domain))]


async def failure(resolver: FakeResolver, domain: str = "example.com", **changes):
    with pytest.raises(HostFailure) as caught:
        await hosts_tried(resolver, domain, **changes)
    ending = caught.value.ending
    return ending.state, ending.result, ending.code, ending.status, ending.final


def resolver_with(*hosts: tuple[int, str, str]) -> FakeResolver:
    resolver = FakeResolver()
    resolver.add("example.com", *hosts)
    return resolver


async def test_hosts_go_by_preference():
    """Lower first, whatever the order of the answer (RFC 5321 §5.1)."""
    resolver = resolver_with((20, "b", "192.0.2.2"), (10, "a", "192.0.2.1"), (30, "c", "192.0.2.3"))
    assert await hosts_tried(resolver) == ["a", "b", "c"]


async def test_equal_preference_is_shuffled():
    """Each gets its share; another preference keeps its place."""
    resolver = resolver_with((10, "a", "192.0.2.1"), (10, "b", "192.0.2.2"), (20, "c", "192.0.2.3"))
    orders = {tuple(await hosts_tried(resolver, seed=seed)) for seed in range(20)}
    assert orders == {("a", "b", "c"), ("b", "a", "c")}


async def test_every_address_of_a_host_is_tried_before_the_next_host():
    """In the resolver's order."""
    resolver = resolver_with((10, "a", ""), (20, "b", "192.0.2.9"))
    resolver.ips["a"] = ["2001:db8::1", "192.0.2.1"]
    found = router(resolver)
    targets = await found.targets(await found.route("example.com"))
    assert [target.address for target in targets] == ["2001:db8::1", "192.0.2.1", "192.0.2.9"]
    assert {target.port for target in targets} == {25}


async def test_domains_with_the_same_hosts_are_one_site():
    """Whatever their preferences."""
    resolver = resolver_with((10, "a", "192.0.2.1"), (20, "b", "192.0.2.2"))
    resolver.add("example.net", (5, "b", "192.0.2.2"), (1, "a", "192.0.2.1"))
    found = router(resolver)
    assert (await found.route("example.com")).site == (await found.route("example.net")).site


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (NoSuchDomain("no"), ("dns", "error", 550, "5.1.2", True)),
        (NoSuchDomain("null", null_mx=True), ("dns", "error", 556, "5.1.10", True)),
        (ResolverTimeout("silent"), ("dns", "timeout", 451, "4.4.3", False)),
    ],
)
async def test_no_mail_host(answer, expected):
    """No is final, null MX has its code (RFC 7505 §4.2), silence is not final."""
    resolver = FakeResolver()
    resolver.mx["example.com"] = answer
    assert await failure(resolver) == expected


async def test_hosts_without_addresses_are_passed_over():
    """Only when none is left it matters, and then whether DNS was sure."""
    resolver = resolver_with((10, "a", ""), (20, "b", "192.0.2.2"))
    resolver.ips["a"] = NoSuchDomain("a")
    assert await hosts_tried(resolver) == ["b"]
    resolver.ips["b"] = NoSuchDomain("b")
    assert await failure(resolver) == ("dns", "error", 550, "5.4.4", True)
    resolver.ips["b"] = ResolverTimeout("b")
    assert await failure(resolver) == ("dns", "timeout", 451, "4.4.3", False)


async def test_we_and_everybody_behind_us_are_left_out():
    """RFC 5321 §5.1: a backup MX sends only to those it is the backup of."""
    resolver = resolver_with((10, "a", "192.0.2.1"), (20, "us", OWN), (20, "b", "192.0.2.2"), (30, "c", "192.0.2.3"))
    assert await hosts_tried(resolver) == ["a"]


async def test_the_best_host_being_us_is_a_loop():
    """It is final; with a host in doubt it is not."""
    resolver = resolver_with((10, "us", OWN), (20, "b", "192.0.2.2"))
    assert await failure(resolver) == ("dns", "error", 554, "5.4.6", True)
    resolver.add("example.com", (5, "a", ""), (10, "us", OWN))
    resolver.ips["a"] = ResolverTimeout("a")
    assert await failure(resolver) == ("dns", "timeout", 451, "4.4.3", False)


async def test_private_addresses_are_not_connected_to():
    """Nobody's DNS may point us into our own network."""
    resolver = resolver_with((10, "a", "10.0.0.1"), (20, "b", "192.0.2.2"))
    assert await hosts_tried(resolver) == ["b"]
    resolver.ips["b"] = ["127.0.0.1", "fd00::1"]
    assert await failure(resolver) == ("dns", "error", 550, "5.4.4", True)
    assert await hosts_tried(resolver, delivery_allow_private=True) == ["a", "b", "b"]


@pytest.mark.parametrize(("domain", "address"), [("[192.0.2.7]", "192.0.2.7"), ("[IPv6:2001:db8::7]", "2001:db8::7")])
async def test_address_literals_are_their_own_host(domain, address):
    """No MX look-up (RFC 5321 §4.1.3)."""
    resolver = FakeResolver()
    found = router(resolver)
    [target] = await found.targets(await found.route(domain))
    assert (target.host, target.address) == (address, address)
    assert resolver.asked == [address]


@pytest.mark.parametrize("domain", ["[127.0.0.1]", "[10.1.2.3]", "[IPv6:fd00::1]"])
async def test_private_address_literals_are_refused(domain):
    """A recipient may not point us there either."""
    assert (await failure(FakeResolver(), domain))[3:] == ("5.4.4", True)


async def test_u_labels_are_asked_for_as_a_labels():
    """DNS knows only those."""
    resolver = FakeResolver()
    resolver.add("xn--bcher-kva.example", (10, "a", "192.0.2.1"))
    assert await hosts_tried(resolver, "bücher.example") == ["a"]


async def test_a_smarthost_may_be_anywhere():
    """The operator named it."""
    resolver = FakeResolver()
    resolver.ips["relay"] = ["10.0.0.1"]
    found = router(resolver, smarthost="relay", smarthost_port=587)
    [target] = await found.targets(await found.route("example.com"))
    assert (target.host, target.address, target.port) == ("relay", "10.0.0.1", 587)


async def test_a_sink_behind_a_smarthost_takes_its_connections():
    """Queues as for the smarthost, TCP to the sink."""
    resolver = FakeResolver()
    found = router(resolver, smarthost="relay", smtp_sink_address="127.0.0.1", smtp_sink_port=2525)
    route = await found.route("example.com")
    [target] = await found.targets(route)
    assert (route.site, target.address, target.port) == ("relay", "127.0.0.1", 2525)


async def test_monstrous_answers_are_cut():
    """Neither a thousand hosts nor a thousand addresses keep an attempt busy."""
    resolver = FakeResolver()
    resolver.mx["example.com"] = [MailHost(number, f"h{number}") for number in range(1000)]
    resolver.ips = {f"h{number}": [f"192.0.2.{n}" for n in range(100)] for number in range(1000)}
    assert len(await hosts_tried(resolver)) == MAX_TARGETS
    assert len(resolver.asked) == 1 + MAX_HOSTS


async def test_an_override_goes_before_dns():
    """Hosts in the order given, each with its port; DNS is asked for their addresses only, which may be private."""
    control, resolver = live_control(lambda: START), FakeResolver()
    hosts = (OverrideHost("relay.test", 2525), OverrideHost("10.0.0.7"))
    set_entries(control, "dns_overrides", DnsOverride(id="1", created_at=START, domain="*.example.com", hosts=hosts))
    resolver.ips["relay.test"] = ["192.0.2.3"]
    found = router(resolver, control=control)
    targets = await found.targets(await found.route("sub.example.com"))
    assert [(target.address, target.port) for target in targets] == [("192.0.2.3", 2525), ("10.0.0.7", 25)]
    assert "sub.example.com" not in resolver.asked
    resolver.add("example.com", (10, "mx.example.com", "192.0.2.1"))
    assert (await found.route("example.com")).site == "mx.example.com"
