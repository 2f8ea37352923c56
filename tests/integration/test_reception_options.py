"""Domains, probes, tags and copies in a running relay, with the configuration of docs/guide/receiving.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.instance import Relay, free_port
from tests.support.received import example, received
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
ZONES = {
    "good.test": {"MX": [[10, "mx.good.test"]]},
    "address.test": {"AAAA": ["2001:db8::1"]},
    "null.test": {"MX": [[0, "."]]},
    "silent.test": "SILENT",
}


class Front:
    """A relay that only receives, on two ports, and the name server that it asks."""

    def __init__(self, folder: Path, dns: DnsServer) -> None:
        self.address = f"embedded://{folder / 'queue'}"
        self.other_port = free_port()
        self.relay = Relay(
            folder, self.address, verb="receive", dns_nameserver=f"127.0.0.1:{dns.port}", dns_attempts=1,
            dns_interval=1, dns_timeout=1, smtp_threads=1,
        )  # fmt: skip
        ports = {"@2525": f"@{self.other_port}", "@25:": f"@{self.relay.port}:", "25,2525": self.ports}
        self.relay.options |= example("receiving.md", "smtp-probe-senders", ports)

    @property
    def ports(self) -> str:
        """Both."""
        return f"{self.relay.port},{self.other_port}"


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    """A relay with the example's options."""
    async with DnsServer(dict(ZONES)) as dns:
        front = Front(tmp_path, dns)
        await asyncio.to_thread(front.relay.start)
        try:
            await asyncio.to_thread(front.relay.wait_ready)
            yield front
        finally:
            await asyncio.to_thread(front.relay.cleanup)


def dialog(port: int, *lines: str) -> list[str]:
    """Say *lines* and return code and status of each reply."""
    with Wire(port) as wire:
        wire.say("EHLO client.test")
        return [" ".join(wire.say(line).split(" ")[:2]) for line in lines]


async def test_domains_are_looked_up_on_the_port_that_demands_it(front: Front) -> None:
    """What exists is taken, what does not or takes no mail is refused, silence is for later; elsewhere nobody asks."""
    answers = {
        "good.test": "250 2.1.0", "address.test": "250 2.1.0", "nowhere.test": "550 5.1.8", "null.test": "550 5.1.8",
        "silent.test": "451 4.4.3", "[192.0.2.1]": "250 2.1.0",
    }  # fmt: skip
    for domain, answer in answers.items():
        for port, expected in ((front.relay.port, answer), (front.other_port, "250 2.1.0")):
            [said] = await asyncio.to_thread(dialog, port, f"MAIL FROM:<ada@{domain}>")
            assert said == expected, domain
    said = await asyncio.to_thread(
        dialog, front.relay.port, "MAIL FROM:<>", "RCPT TO:<grace@good.test>", "RCPT TO:<grace@nowhere.test>",
        "RCPT TO:<grace@null.test>", "RCPT TO:<grace@silent.test>", "RCPT TO:<postmaster>",
    )  # fmt: skip
    assert said == ["250 2.1.0", "250 2.1.5", "550 5.1.2", "550 5.1.2", "451 4.4.3", "250 2.1.5"]


async def test_probes_learn_the_truth_and_leave_nothing(front: Front) -> None:
    """RCPT is answered, DATA is not; the same session may then send mail from somebody else."""
    said = await asyncio.to_thread(
        dialog, front.other_port, "MAIL FROM:<Double-Bounce@relay.example.com>", "RCPT TO:<grace@example.com>", "DATA",
        "RSET", "MAIL FROM:<ada@example.com>", "RCPT TO:<grace@example.com>", "DATA",
    )  # fmt: skip
    assert said[1:3] == ["250 2.1.5", "554 5.7.1"]
    assert said[-1].startswith("354")


def deliver(port: int, *recipients: str) -> None:
    """Hand a message over."""
    with Wire(port) as wire:
        wire.say("EHLO client.test")
        wire.say("MAIL FROM:<ada@good.test>")
        for recipient in recipients:
            assert wire.say(f"RCPT TO:<{recipient}>").startswith("250")
        assert wire.data(CONTENT).startswith("250")


async def test_tags_and_the_copy_for_an_address(front: Front) -> None:
    """Each recipient's JSON has the tags of the port; the journal is one more, and hears of no failure."""
    await asyncio.to_thread(deliver, front.other_port, "grace@example.com", "bob@example.net")
    found = {one["recipient"]: one for one in await asyncio.to_thread(received, front.address, 3)}
    assert set(found) == {"grace@example.com", "bob@example.net", "journal@archive.example.com"}
    assert {tuple(one["tags"]) for one in found.values()} == {("newsletter", "customer-9")}
    assert found["journal@archive.example.com"]["dsn"] == {"notify": "NEVER"}
    assert len({one["message-id"] for one in found.values()}) == 3


async def test_the_copy_for_a_queue(front: Front) -> None:
    """The queue has what the inbox has, recipient by recipient."""
    await asyncio.to_thread(deliver, front.relay.port, "grace@good.test", "bob@address.test")
    inbox = await asyncio.to_thread(received, front.address, 2)
    journal = await asyncio.to_thread(received, front.address, 2, "journal")
    assert sorted(journal, key=lambda one: str(one["recipient"])) == sorted(
        inbox, key=lambda one: str(one["recipient"])
    )


async def test_an_address_without_a_domain_where_any_is_taken(tmp_path: Path) -> None:
    """``any`` takes a local-part alone; by default it is a bad address."""
    relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1)
    port = free_port()
    relay.options |= {"smtp-port": f"{relay.port},{port}"}
    relay.options |= {f"smtp-{whose}-domain@{port}": "any" for whose in ("sender", "recipient")}
    await asyncio.to_thread(relay.start)
    try:
        await asyncio.to_thread(relay.wait_ready)
        bare = ("MAIL FROM:<ada>", "RCPT TO:<grace>")
        assert await asyncio.to_thread(dialog, port, *bare) == ["250 2.1.0", "250 2.1.5"]
        assert await asyncio.to_thread(dialog, relay.port, "MAIL FROM:<ada>", "MAIL FROM:<>", "RCPT TO:<grace>") == [
            "501 5.1.7", "250 2.1.0", "501 5.1.3",
        ]  # fmt: skip
    finally:
        await asyncio.to_thread(relay.cleanup)
