"""Mail whose domains publish what is meant to hold us up: the right verdict in time, and nobody else waits for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest

from tests.support.checking import Checking, Client, inbox, running_checks

pytestmark = pytest.mark.slow

#: What is promised of all checks together; and what a busy machine may take around them.
PROMISED_S, AROUND_S = 20.0, 15.0

#: Sessions that wait for silent servers, and plain ones beside them.
HOSTILE, PLAIN = 30, 60

IN_ORDER = {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]}


def addresses(size_bytes: int) -> list[str]:
    """Return the strings of a TXT record with as many networks as fit, none of them the client's."""
    terms = [f"ip4:10.{number >> 8}.{number & 255}.0/24" for number in range(size_bytes // 20)]
    text = f"v=spf1 {' '.join(terms)} -all"
    return [text[at : at + 255] for at in range(0, len(text), 255)]


ZONES: dict[str, Any] = {
    "plain.test": IN_ORDER,
    # RFC 7208 §4.6.4: ten terms that need DNS, two without an answer.
    "bomb.test": {"TXT": ["v=spf1 " + " ".join(f"include:i{n}.bomb.test" for n in range(11)) + " +all"]},
    **{f"i{n}.bomb.test": {"TXT": [f"v=spf1 include:j{n}.bomb.test ?all"]} for n in range(11)},
    **{f"j{n}.bomb.test": {"TXT": ["v=spf1 ?all"]} for n in range(11)},
    "void.test": {"TXT": ["v=spf1 a:a.void.test a:b.void.test a:c.void.test +all"]},
    "itself.test": {"TXT": ["v=spf1 include:itself.test +all"]},
    "many-mx.test": {"TXT": ["v=spf1 mx +all"], "MX": [[n, f"m{n}.many-mx.test"] for n in range(50)]},
    # Aliases in a circle.
    "circle.test": {"CNAME": ["a.circle.test"]},
    "a.circle.test": {"CNAME": ["b.circle.test"]},
    "b.circle.test": {"CNAME": ["a.circle.test"]},
    # As much as DNS can carry, which takes TCP.
    "large.test": {"TXT": [addresses(60_000)]},
    "broken.test": "SERVFAIL",
    "refused.test": "REFUSED",
    "forged.test": IN_ORDER,
    "silent.test": "SILENT",
}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checking]:
    """A relay with all checks, and the waits of DNS as they are installed."""
    folder = tmp_path_factory.mktemp("hostile")
    with running_checks(folder, dns_interval=3, dns_attempts=5, smtp_connections_per_ip=1000) as relay:
        relay.dns.zones = dict(ZONES)
        relay.dns.forged = {"forged.test"}
        yield relay


def hand_over(relay: Checking, domain: str) -> float:
    """Send a message from *domain*, and return the seconds that it took."""
    began = time.monotonic()
    with Client(relay.port, "192.0.2.1") as client:
        content = f"From: ada@{domain}\r\nSubject: hello\r\n\r\nhello\r\n".encode()
        answer = client.hand_over(content, f"ada@{domain}")
        assert answer.startswith("250"), answer
    return time.monotonic() - began


def verdicts(relay: Checking, count: int = 1) -> dict[str, dict[str, str]]:
    """Take *count* messages, and return the words of their checks by sender's domain."""
    found = {}
    with contextlib.closing(inbox(relay)) as messages:
        for _ in range(count):
            message = next(messages)
            words = {next(iter(item)): next(iter(item.values())) for item in message["checks"]}
            found[message["envelope"].rpartition("@")[2]] = words
    return found


@pytest.mark.parametrize(
    ("domain", "word"),
    [
        ("bomb.test", "permerror"),
        ("void.test", "permerror"),
        ("itself.test", "permerror"),
        ("many-mx.test", "permerror"),
        ("circle.test", "temperror"),
        ("large.test", "fail"),
        ("broken.test", "temperror"),
        ("refused.test", "temperror"),
        ("forged.test", "pass"),
        ("silent.test", "temperror"),
    ],
)
def test_the_right_verdict(relay: Checking, domain: str, word: str) -> None:
    """Each trick has the verdict of the standard, within the time that all checks have together."""
    took_s = hand_over(relay, domain)
    assert verdicts(relay)[domain]["spf"] == word
    assert took_s < PROMISED_S + AROUND_S


def test_others_do_not_wait(relay: Checking) -> None:
    """Plain sessions end while dozens of others wait for servers that never answer; how much slower is printed."""
    hand_over(relay, "plain.test")
    alone = sorted(hand_over(relay, "plain.test") for _ in range(PLAIN))
    silent = [f"s{number}.silent.test" for number in range(HOSTILE)]
    nobody = dict.fromkeys([*silent, *(f"_dmarc.{domain}" for domain in silent)], "SILENT")
    relay.dns.zones = ZONES | nobody | {f"p{number}.test": IN_ORDER for number in range(PLAIN // 10)}
    with ThreadPoolExecutor(HOSTILE) as threads:
        waiting = [threads.submit(hand_over, relay, domain) for domain in silent]
        while len({query.name for query in relay.dns.queries} & set(silent)) < HOSTILE:
            time.sleep(0.01)
        beside = sorted(hand_over(relay, "plain.test") for _ in range(PLAIN))
        unknown = sorted(hand_over(relay, f"p{number}.test") for number in range(PLAIN // 10))
        still_waiting = sum(not session.done() for session in waiting)
        assert still_waiting == HOSTILE, "plain sessions took longer than those that wait for silent servers"
        wait(waiting)
        assert all(session.result() < PROMISED_S + AROUND_S for session in waiting)
    p99 = int(PLAIN * 0.99) - 1
    print(
        f"\np99 of a plain session: {alone[p99] * 1000:.1f} ms alone, {beside[p99] * 1000:.1f} ms beside {HOSTILE} "
        f"that wait for DNS (ratio {beside[p99] / alone[p99]:.2f}); not asked before: {unknown[-1] * 1000:.1f} ms"
    )
    found = verdicts(relay, 1 + 2 * PLAIN + PLAIN // 10 + HOSTILE)
    assert {found[domain]["spf"] for domain in silent} == {"temperror"}
    assert {found[domain]["dmarc"] for domain in silent} == {"temperror"}
    assert found["plain.test"] == {"spf": "pass", "dkim": "none", "dmarc": "none", "arc": "none", "iprev": "permerror"}
    assert found["p0.test"]["spf"] == "pass"
