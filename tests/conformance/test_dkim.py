"""Messages that other projects' verifiers are tested with: through the resolver, and against dkimpy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.mailauth.asking import Steps, answered
from mtaq.mailauth.dkim import DkimResult, check_dkim, find_signatures
from mtaq.mailauth.dkim_message import SignedMessage
from tests.conformance.vectors import departs, home, params
from tests.support.dns_server import DnsServer
from tests.support.zones import driven, split_zones

SUITES = ("dkim/chasquid", "dkim/dkim_verifier", "dkim/dkimpy", "dkim/mail-auth", "dkim/maildkim")
CASES = [
    pytest.param(suite, *one.values, id=f"{suite}/{one.id}", marks=one.marks)
    for suite in SUITES
    for one in params(suite)
]
#: After the suites were collected, and before their signatures expire that do not have to.
NOW = datetime(2026, 12, 1, tzinfo=UTC)


def steps(suite: str, case: dict[str, Any]) -> Steps[DkimResult]:
    content = (home(suite) / case["file"]).read_bytes()
    return check_dkim(find_signatures(SignedMessage(content)), now=NOW)


def overall(result: DkimResult) -> str:
    """The suites have one verdict for a message: that of its best signature."""
    words = [item["dkim"] for item in result.to_json()]
    return "pass" if "pass" in words else words[0]


def settle(suite: str, case: dict[str, Any], result: DkimResult) -> None:
    """Fail unless the case is met, or is listed as not met and is not."""
    assert (overall(result) in case["accept"]) is not departs(suite, case["id"]), result


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_case(suite: str, case: dict[str, Any]) -> None:
    """Every message comes to what its suite takes for right."""
    settle(suite, case, driven(steps(suite, case), split_zones(case["zone"])))


@pytest.mark.parametrize(("suite", "case"), CASES)
async def test_case_through_the_resolver(suite: str, case: dict[str, Any]) -> None:
    """The same with a resolver in between and a name server that is asked over UDP and TCP."""
    async with DnsServer(split_zones(case["zone"])) as server:
        resolver = CachingResolver(
            ResolverOptions(
                nameservers=(server.address,), hosts=Path("/nonexistent"), min_ttl_s=0, interval_s=0.2, attempts=1
            )
        )
        settle(suite, case, await answered(steps(suite, case), resolver.ask))
