"""The vectors of SPF, DKIM, ARC and DMARC over the wire: SMTP in, from the client that the case names; JSON out.

One instance serves all cases of a suite: its name server is given another zone for each. What is compared is what
``tests/conformance`` compares, with the verdicts taken from ``checks``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_dmarc import zones as dmarc_zones
from tests.conformance.vectors import cases, departs, home, is_here
from tests.support.checking import Checking, Client, NotSpoken, inbox, running_checks
from tests.support.dkim_signer import ed25519_key, record, signed
from tests.support.queues import fresh_name
from tests.support.rabbitmq import RabbitNode
from tests.support.zones import openspf_zones, split_zones

pytestmark = pytest.mark.slow

CONTENT = b"From: ada@example.org\r\nSubject: hello\r\n\r\nhello\r\n"

#: The words of a zone for which the resolver remembers for five seconds that nobody knows.
FAILURES = ("SERVFAIL", "REFUSED", "FORMERR", "ETIMEOUT", "SILENT")
FAILURE_S = 5.2

Check = dict[str, Any]


@dataclass
class Exchange:
    """A relay, and what it publishes.

    Attributes:
        messages: Its inbox.
        failed: Names that DNS failed for, and when a zone that says so was in use last.
    """

    relay: Checking
    messages: Iterator[dict[str, Any]]
    failed: dict[str, float] = field(default_factory=dict)

    def checks(
        self, zones: dict[str, Any], content: bytes, *, client_ip: str = "192.0.2.1", helo: str = "client.test",
        mail_from: str = "",
    ) -> list[Check]:  # fmt: skip
        """Hand over a message while DNS says *zones*, and return its ``checks``."""
        if zones != self.relay.dns.zones:
            self._be_fresh(f"{zones} {helo} {mail_from} {content!r}")
        self.failed |= dict.fromkeys(failing(zones), time.monotonic())
        self.relay.dns.zones = zones
        with Client(self.relay.port, client_ip, helo) as client:
            answer = client.hand_over(content, mail_from)
            assert answer.startswith("250"), answer
        found: list[Check] = next(self.messages)["checks"]
        return found

    def _be_fresh(self, about: str) -> None:
        """Names occur again in other zones, so what is remembered of a failure must be forgotten first."""
        until = max((at + FAILURE_S for name, at in self.failed.items() if name in about), default=0.0)
        time.sleep(max(0.0, until - time.monotonic()))


def failing(zones: dict[str, Any]) -> list[str]:
    """Return the names for which *zones* have a failure."""
    return [name for name, entry in zones.items() if any(word in str(entry) for word in FAILURES)]


@contextlib.contextmanager
def exchange(folder: Path, *, address: str = "", queue: str = "inbox") -> Iterator[Exchange]:
    """Run a relay that publishes to *queue*."""
    with (
        running_checks(folder, address=address, rabbitmq_inbox=queue, rabbitmq_outbox=f"{queue}-out") as relay,
        contextlib.closing(inbox(relay, queue)) as messages,
    ):
        yield Exchange(relay, messages)


@pytest.fixture(scope="module", params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def wire(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """A relay over each kind of queue."""
    folder = tmp_path_factory.mktemp("checks")
    if request.param == "embedded":
        with exchange(folder) as over:
            yield over
    else:
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        with exchange(folder, address=node.address, queue=fresh_name("checks")) as over:
            yield over


def first(checks: list[Check], name: str) -> Check:
    """Return the first item of a check."""
    return next(item for item in checks if name in item)


def differing(suite: str, is_met: Callable[[dict[str, Any]], bool | None]) -> tuple[list[str], list[str]]:
    """Return the ids of the cases that come out other than listed, and of those that SMTP cannot say."""
    wrong, unspoken = [], []
    for case in sorted(cases(suite), key=lambda case: any(word in str(case) for word in ("TIMEOUT", *FAILURES))):
        try:
            if is_met(case) is departs(suite, case["id"]):
                wrong.append(str(case["id"]))
        except NotSpoken:
            unspoken.append(str(case["id"]))
    return wrong, unspoken


# SPF.

#: HELO and reverse-path that no SMTP session takes.
NOT_SMTP = {
    "Initial processing/emptylabel",
    "Initial processing/nolocalpart",
    "Initial processing/toolonglabel",
    "Macro expansion rules/invalid-hello-macro",
    "Record evaluation/invalid-domain-long-via-macro",
}


def test_spf(wire: Exchange) -> None:
    """Every case of the openspf suite that SMTP can say has its result and its explanation in the JSON."""

    def is_met(case: dict[str, Any]) -> bool:
        zones = openspf_zones(case["scenario"]["zonedata"])
        checks = wire.checks(
            zones, CONTENT, client_ip=case["host"], helo=case["helo"], mail_from=case["mailfrom"]
        )  # fmt: skip
        spf = first(checks, "spf")
        explained = "explanation" not in case or case["explanation"] in ("DEFAULT", spf["explanation"])
        return spf["spf"] in case["result"] and explained

    wrong, unspoken = differing("spf/rfc7208", is_met)
    assert wrong == []
    assert set(unspoken) == NOT_SMTP


# DKIM and ARC.


@pytest.mark.parametrize("suite", ["chasquid", "dkim_verifier", "dkimpy", "mail-auth", "maildkim"])
def test_dkim(wire: Exchange, suite: str) -> None:
    """Every signed message of the suites comes out as its suite takes for right."""
    if not is_here(f"dkim/{suite}"):
        pytest.skip("../shared/vectors is not here, and the licence forbids a copy")

    def is_met(case: dict[str, Any]) -> bool:
        content = (home(f"dkim/{suite}") / case["file"]).read_bytes()
        words = [item["dkim"] for item in wire.checks(split_zones(case["zone"]), content) if "dkim" in item]
        return ("pass" if "pass" in words else words[0]) in case["accept"]

    assert differing(f"dkim/{suite}", is_met) == ([], [])


def test_arc(wire: Exchange) -> None:
    """Every chain of the ARC suite comes out as the suite takes for right."""

    def is_met(case: dict[str, Any]) -> bool:
        content = case["message"].replace("\n", "\r\n").encode()
        checks = wire.checks(split_zones(case["scenario"]["zone"]), content)
        return first(checks, "arc")["arc"] in case["accept"]

    assert differing("arc/validation", is_met) == ([], [])


# DMARC.


def test_dmarc(wire: Exchange) -> None:
    """Every DMARC case has its result and its policy, with an SPF record and signatures that pass as the case says."""

    def is_met(case: dict[str, Any]) -> bool:
        expected = case["expect"]
        zones, content, mail_from = dmarc_case(case)
        dmarc = first(wire.checks(zones, content, mail_from=mail_from), "dmarc")
        applied = dmarc["disposition"] if dmarc["dmarc"] == "fail" else expected.get("disposition_policy")
        return (
            dmarc["dmarc"] == expected.get("result", dmarc["dmarc"])
            and applied == expected.get("disposition_policy", applied)
            and dmarc.get("policy") == expected.get("record", {}).get("p", dmarc.get("policy"))
        )

    assert differing("dmarc/mailauth", is_met) == ([], [])


def dmarc_case(case: dict[str, Any]) -> tuple[dict[str, Any], bytes, str]:
    """Return zones, content and reverse-path that make SPF and DKIM pass for the domains of *case*."""
    zones = {name: dict(entry) if isinstance(entry, dict) else entry for name, entry in dmarc_zones(case).items()}
    addresses = [case["from"]] if isinstance(case["from"], str) else case["from"]
    content = f"From: {', '.join(addresses)}\r\nSubject: hello\r\n\r\nhello\r\n".encode()
    mail_from = ""
    for domain in case["spf_pass"]:
        mail_from = f"bounce@{domain}"
        zones.setdefault(domain, {})["TXT"] = ["v=spf1 +all"]
    for domain in case["dkim_pass"]:
        content = signed(content, ed25519_key(), {"d": domain, "h": "from:subject"})
        zones[f"s1._domainkey.{domain}"] = {"TXT": [record(ed25519_key())]}
    return zones, content, mail_from
