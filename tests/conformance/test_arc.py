"""The ARC test suite: from a dictionary, and through the resolver."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.mailauth.arc import ArcResult, check_arc
from mtaq.mailauth.arc_chain import find_chain
from mtaq.mailauth.arc_seal import ChainVerdict, seal
from mtaq.mailauth.arc_seal_results import results_in
from mtaq.mailauth.asking import Steps, answered
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_sign import Signer
from mtaq.mailauth.dkim_sign_key import load_key
from mtaq.mailauth.dkim_tags import parse_tags
from tests.conformance.vectors import departs, params
from tests.support.dns_server import DnsServer
from tests.support.zones import driven, split_zones

SUITE = "arc/validation"
SEALING = "arc/signing"
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def steps(case: dict[str, Any]) -> Steps[ArcResult]:
    content = case["message"].replace("\n", "\r\n").encode()
    return check_arc(find_chain(SignedMessage(content)), now=NOW)


def settle(case: dict[str, Any], result: ArcResult) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    assert (result.word in case["accept"]) is not departs(SUITE, case["id"]), result


@pytest.mark.parametrize("case", params(SUITE))
def test_case(case: dict[str, Any]) -> None:
    """Every chain comes to what the suite takes for right."""
    settle(case, driven(steps(case), split_zones(case["scenario"]["zone"])))


@pytest.mark.parametrize("case", params(SUITE))
async def test_case_through_the_resolver(case: dict[str, Any]) -> None:
    """The same with a resolver in between and a name server that is asked over UDP and TCP."""
    async with DnsServer(split_zones(case["scenario"]["zone"])) as server:
        resolver = CachingResolver(
            ResolverOptions(nameservers=(server.address,), hosts=Path("/nonexistent"), min_ttl_s=0)
        )
        settle(case, await answered(steps(case), resolver.ask))


@pytest.mark.parametrize("case", params(SEALING))
def test_sealing(case: dict[str, Any]) -> None:
    """Every set that is added is the one of the suite, signatures included."""
    scenario, content = case["scenario"], case["message"].replace("\n", "\r\n").encode()
    message = SignedMessage(content)
    found = driven(check_arc(find_chain(message), now=NOW), split_zones(scenario["zone"])).word
    verdicts: dict[str, ChainVerdict] = {"none": "none", "pass": "pass", "fail": "fail"}
    added = seal(
        content,
        Signer(domain=scenario["domain"], selector=scenario["sel"], key=load_key(scenario["privatekey"])),
        verdict=verdicts[found],
        results=results_in(message, case["srv-id"]),
        now=datetime.fromtimestamp(case["t"], UTC),
        names=case["sig-headers"].encode().split(b":"),
    )
    by_name = {field.name: field.value for field in SignedMessage(added).fields}
    is_met = (
        tags(by_name[b"arc-seal"]) == tags(case["AS"].encode())
        and tags(by_name[b"arc-message-signature"]) == tags(case["AMS"].encode())
        and by_name[b"arc-authentication-results"].split() == case["AAR"].encode().split()
    )
    assert is_met is not departs(SEALING, case["id"]), added


def tags(octets: bytes) -> dict[str, str]:
    """Return a tag list, blanks in its values left out."""
    return {name: "".join(value.split()) for name, value in parse_tags(octets).items()}
