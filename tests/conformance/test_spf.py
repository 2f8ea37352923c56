"""The openspf suite for RFC 7208: from a dictionary, through the resolver, and against pyspf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spf as pyspf

from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.mailauth.asking import Steps, answered
from mtaq.mailauth.spf import SpfResult, check_spf
from mtaq.model.address import Address
from mtaq.model.dns import Found, Question
from tests.conformance.vectors import departs, params
from tests.support.dns_server import DnsServer
from tests.support.replay import LookUp, replayed
from tests.support.zones import driven, openspf_zones

SUITE = "spf/rfc7208"
#: pyspf takes a failed address look-up of a client's name for a failure of the check (RFC 7208 §5.5: it is skipped).
PYSPF_FAILS = {"PTR mechanism syntax/ptr-cname-loop"}


def steps(case: dict[str, Any]) -> Steps[SpfResult]:
    local_part, _, domain = case["mailfrom"].rpartition("@")
    envelope = Address(local_part, domain.lower()) if case["mailfrom"] else None
    return check_spf(client_ip=case["host"], helo=case["helo"], envelope=envelope, receiver="mx.test")


def settle(case: dict[str, Any], result: SpfResult) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    is_met = result.word in case["result"]
    if "explanation" in case:
        wanted = None if case["explanation"] == "DEFAULT" else case["explanation"]
        is_met = is_met and result.identity.explanation == wanted
    assert is_met is not departs(SUITE, case["id"]), result


@pytest.mark.parametrize("case", params(SUITE))
def test_case(case: dict[str, Any]) -> None:
    """Every case of the suite has its result and its explanation."""
    settle(case, driven(steps(case), openspf_zones(case["scenario"]["zonedata"])))


@pytest.mark.parametrize("case", params(SUITE))
async def test_case_through_the_resolver(case: dict[str, Any]) -> None:
    """The same with a resolver in between and a name server that is asked over UDP and TCP."""
    async with DnsServer(openspf_zones(case["scenario"]["zonedata"])) as server:
        resolver = CachingResolver(
            ResolverOptions(nameservers=(server.address,), hosts=Path("/nonexistent"), min_ttl_s=0)
        )
        settle(case, await answered(steps(case), resolver.ask))


@pytest.mark.parametrize("case", params(SUITE))
def test_pyspf_says_the_same(case: dict[str, Any]) -> None:
    """Where the suite allows one result only, pyspf comes to the same; where it allows several, to one of them."""
    word, _, explanation = driven(replayed(with_pyspf(case)), openspf_zones(case["scenario"]["zonedata"]))
    assert (word in case["result"]) is (case["id"] not in PYSPF_FAILS)
    if case.get("explanation", "DEFAULT") != "DEFAULT":
        assert explanation == case["explanation"]


def with_pyspf(case: dict[str, Any]) -> Any:
    """Return pyspf's check of *case*, looking up by the function that it is given."""

    def check(look_up: LookUp) -> Any:
        def dns_lookup(name: str, kind: Any, strict: bool = True, timeout: int = 0) -> list[Any]:
            answer = look_up(Question(name, kind))
            if answer.found is Found.FAILED:
                raise pyspf.TempError("DNS")
            return [((name, kind), record) for record in answer.records]

        before, pyspf.DNSLookup = pyspf.DNSLookup, dns_lookup
        try:
            return pyspf.query(i=case["host"], s=case["mailfrom"], h=case["helo"], receiver="mx.test").check()
        finally:
            pyspf.DNSLookup = before

    return check
