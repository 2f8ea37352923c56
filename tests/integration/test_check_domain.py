"""``mtaq check-domain`` as the operator sees it, against a name server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import checkdmarc
import pytest
from expiringdict import ExpiringDict

from mtaq.cli import exits
from mtaq.cli.main import main
from tests.support.dns_server import DnsServer, Zones

Check = Callable[..., Awaitable[int]]

GOOD: dict[str, Any] = {
    "example.test": {
        "TXT": ["something else", "v=spf1 ip4:192.0.2.10 ip6:2001:db8::10 -all"],
        "MX": [[10, "mx.example.test"]],
    },
    "mx.example.test": {"A": ["192.0.2.1"]},
    "_dmarc.example.test": {"TXT": ["v=DMARC1; p=reject; rua=mailto:dmarc@example.test"]},
    "_smtp._tls.example.test": {"TXT": ["v=TLSRPTv1; rua=mailto:tls@example.test"]},
    "s1._domainkey.example.test": {"TXT": ["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]},
    "out.example.test": {"A": ["192.0.2.10"], "AAAA": ["2001:db8::10"]},
    "10.2.0.192.in-addr.arpa": {"PTR": ["out.example.test"]},
    "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa": {"PTR": ["out.example.test"]},
}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Run the verb with a name server of its own, and without what checkdmarc remembers of another test's."""
    for module in vars(checkdmarc).values():
        for remembered in vars(module).values() if isinstance(module, ModuleType) else ():
            if isinstance(remembered, ExpiringDict):
                remembered.clear()

    async def run(zones: Zones, *arguments: str) -> int:
        async with DnsServer(zones) as server:
            settings = (
                f"--dns-nameserver={server.host}:{server.port}",
                "--dns-timeout=3",
                "--smtp-hostname=out.example.test",
                f"--data-directory={tmp_path}/data",
                f"--run-directory={tmp_path}/run",
                "--user=",
            )
            return await asyncio.to_thread(main, ["check-domain", *arguments, *settings])

    return run


def lines_of(output: str, topic: str) -> list[str]:
    """The lines about *topic*."""
    return [line.strip() for line in output.splitlines() if line.strip()[2:].startswith(topic)]


async def test_a_domain_that_is_right(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrong: exit status 0, and each check says so."""
    status = await check(GOOD, "example.test", "--ip", "192.0.2.10", "--ip", "2001:db8::10", "--selector", "s1")
    output = capsys.readouterr().out
    assert status == exits.OK, output
    assert "✗" not in output
    assert lines_of(output, "MX")[0].endswith("mx.example.test")
    assert any("every source address gets pass" in line for line in lines_of(output, "SPF"))
    assert lines_of(output, "DKIM s1")[0].split() == ["✓", "DKIM", "s1", "published"]
    assert len(lines_of(output, "PTR")) == 2
    assert all(line.startswith("✓") for line in lines_of(output, "PTR"))


async def test_an_address_that_spf_forbids_is_named_with_the_record_that_allows_it(
    check: Check, capsys: pytest.CaptureFixture[str]
) -> None:
    """The new record is the old one with the address in front of what ends it."""
    assert await check(GOOD, "example.test", "--ip", "198.51.100.7") == exits.FAILURE
    output = capsys.readouterr().out
    assert any("198.51.100.7 gets fail" in line for line in lines_of(output, "SPF"))
    assert '  example.test. TXT "v=spf1 ip4:192.0.2.10 ip6:2001:db8::10 ip4:198.51.100.7 -all"' in output
    assert "7.100.51.198.in-addr.arpa. PTR out.example.test." in output


async def test_a_domain_without_anything_gets_every_record(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is printed as it would stand in a zone file."""
    status = await check({"bare.test": {"A": ["192.0.2.1"]}}, "bare.test", "--ip", "192.0.2.10", "--json")
    report = json.loads(capsys.readouterr().out)
    assert status == exits.FAILURE
    lines = [line for finding in report["findings"] for line in finding["publish"]]
    assert 'bare.test. TXT "v=spf1 ip4:192.0.2.10 -all"' in lines
    assert '_dmarc.bare.test. TXT "v=DMARC1; p=none; rua=mailto:dmarc-reports@bare.test"' in lines
    assert '_smtp._tls.bare.test. TXT "v=TLSRPTv1; rua=mailto:tls-reports@bare.test"' in lines
    assert "bare.test. MX 10 out.example.test." in lines
    assert "10.2.0.192.in-addr.arpa. PTR out.example.test." in lines
    assert report["sources"] == [{"ip": "192.0.2.10", "name": "out.example.test"}]


async def test_what_is_wrong_in_a_record_is_said(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that receivers cannot use is found, and so is a revoked key."""
    zones = GOOD | {
        "_dmarc.example.test": {"TXT": ["v=DMARC1; p=perhaps"]},
        "s1._domainkey.example.test": {"TXT": ["v=DKIM1; p="]},
        "example.test": {"TXT": ["v=spf1 include:gone.test -all"], "MX": [[0, ""]]},
    }
    assert await check(zones, "example.test", "--ip", "192.0.2.10", "--selector", "s1") == exits.FAILURE
    output = capsys.readouterr().out
    assert any(line.startswith("✗") and "perhaps" in line for line in lines_of(output, "DMARC"))
    assert lines_of(output, "DKIM s1")[0].endswith("the key is revoked")
    assert any("permerror" in line for line in lines_of(output, "SPF"))
    assert any("null MX" in line for line in lines_of(output, "MX"))


async def test_silence_is_not_a_mistake_of_the_domain(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody answers, nothing is said to be wrong with that."""
    zones: dict[str, Any] = dict.fromkeys(GOOD, "SERVFAIL")
    await check(zones, "example.test", "--ip", "192.0.2.10", "--selector", "s1")
    output = capsys.readouterr().out
    assert all(line.startswith("!") for topic in ("MX", "DKIM", "PTR") for line in lines_of(output, topic)), output


async def test_what_is_no_domain_is_a_usage_error(check: Check) -> None:
    """Nothing is asked."""
    assert await check({}, "exa mple") == exits.USAGE


async def test_the_guide_shows_what_is_printed(check: Check, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the id of a policy, which is the time."""
    guide = (Path(__file__).parents[2] / "docs/guide/domains.md").read_text("utf-8")
    command, output = re.findall(r"^```\w*\n(.*?)^```$", guide, flags=re.MULTILINE | re.DOTALL)
    zones = GOOD | {"example.test": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"], "MX": [[10, "mx.example.test"]]}}
    await check(zones, *command.split()[2:])
    printed = re.sub(r"id=\d{14}", "id=20261121120000", capsys.readouterr().out)
    assert printed == output
