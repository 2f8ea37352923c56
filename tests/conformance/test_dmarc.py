"""mailauth's DMARC tests, with those it has for RFC 9989: from a dictionary, and through the resolver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.mailauth.asking import Steps, answered
from mtaq.mailauth.dmarc import DmarcResult, check_dmarc
from tests.conformance.vectors import departs, params
from tests.support.dns_server import DnsServer
from tests.support.zones import driven

SUITE = "dmarc/mailauth"


def steps(case: dict[str, Any]) -> Steps[DmarcResult]:
    addresses = [case["from"]] if isinstance(case["from"], str) else case["from"]
    content = f"From: {', '.join(addresses)}\r\n\r\n".encode()
    # All cases name one MAIL FROM domain at most, as a message has.
    (spf,) = [(domain, "pass") for domain in case["spf_pass"]] or [None]
    return check_dmarc(content, spf=spf, dkim=[(domain, "pass") for domain in case["dkim_pass"]])


def zones(case: dict[str, Any]) -> dict[str, Any]:
    """Return the zone's TXT records; one case has them under all types, where they are no records."""
    return {name: {kind: value for kind, value in types.items() if kind == "TXT" or "v=" not in str(value)}
            for name, types in case["zone"].items()}  # fmt: skip


def settle(case: dict[str, Any], result: DmarcResult) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    expected = case["expect"]
    met = [
        result.result == expected.get("result", result.result),
        result.policy_in_force == expected.get("disposition_policy", result.policy_in_force),
        result.policy_domain == expected.get("record_domain", result.policy_domain),
        result.policy == expected.get("record", {}).get("p", result.policy),
    ]
    assert all(met) is not departs(SUITE, case["id"]), result


@pytest.mark.parametrize("case", params(SUITE))
def test_case(case: dict[str, Any]) -> None:
    """Every case of the suite has its result and the policy that applies."""
    settle(case, driven(steps(case), zones(case)))


@pytest.mark.parametrize("case", params(SUITE))
async def test_case_through_the_resolver(case: dict[str, Any]) -> None:
    """The same with a resolver in between and a name server."""
    async with DnsServer(zones(case)) as server:
        resolver = CachingResolver(
            ResolverOptions(nameservers=(server.address,), hosts=Path("/nonexistent"), min_ttl_s=0)
        )
        settle(case, await answered(steps(case), resolver.ask))
