"""Chains and TLSA records of DANE for SMTP (RFC 7672)."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtaq.deliver.dane import Tlsa, objection, usable
from mtaq.deliver.tls_policy import TlsPolicies
from mtaq.dns.resolver import CachingResolver, ResolverOptions
from tests.conformance.vectors import about, home, params
from tests.support.delivery import Clock, World, options, outbox_json
from tests.support.dns_server import DnsServer
from tests.support.fake_mx import FakeMx, Script

SUITE = "dane/dane"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("case", params(SUITE))
def test_case(case: dict[str, Any]) -> None:
    """A host is the one that the records are about, or is not; without records nothing is asked."""
    pem = (home(SUITE) / case["server"]["chain"]).read_text("ascii")
    ends = pem.split("-----BEGIN")[1:]
    chain = [ssl.PEM_cert_to_DER_cert("-----BEGIN" + each) for each in ends]
    records = [Tlsa(*row[:3], bytes.fromhex(row[3])) for row in case["tlsa"]]
    agrees = not records or objection(chain, usable(records), [about(SUITE)["mx"]], now=NOW) is None
    assert agrees is (case["expect"] == "deliver")


@pytest.mark.parametrize("case", params(SUITE))
async def test_case_in_delivery(case: dict[str, Any]) -> None:
    """A message to a domain whose one mail host is like that arrives, or waits; the AD bit stands for DNSSEC."""
    host, tls = about(SUITE)["mx"], ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(home(SUITE) / case["server"]["chain"], home(SUITE) / case["server"]["key"])
    async with FakeMx(Script(tls=tls)) as mx:
        zones = {
            "domain.example": {"MX": [[10, host]]},
            host: {"A": [mx.ip]},
            f"_{mx.port}._tcp.{host}": {"TLSA": case["tlsa"]} if case["tlsa"] else {},
        }
        async with DnsServer(zones) as dns:
            dns.secure = set(zones) if case["ad_bit"] else set()
            names = CachingResolver(
                ResolverOptions(nameservers=(dns.address,), hosts=Path("/nonexistent"), trust_ad=True)
            )
            tls_policies = TlsPolicies(("dane",), names=names, trusts_dnssec=True, clock=Clock())
            async with World(options=options(delivery_port=mx.port), resolver=names, tls=tls_policies) as world:
                await world.deliver(outbox_json("bob@domain.example"))
                queue = {"deliver": "success", "defer": "retry"}[case["expect"]]
                assert world.result(queue)["tls-policy"] == ("dane" if case["tlsa"] else "opportunistic")
                assert len(mx.mail) == (queue == "success")
