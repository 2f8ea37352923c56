"""Delivery by MX: real look-ups, real mail hosts on several loopback addresses, results in their queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mtaq.client import connect
from tests.support.dns_server import DnsServer
from tests.support.instance import Relay, Sink
from tests.support.rabbitmq import RabbitNode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MESSAGE = {"envelope": "ada@example.org", "mime": "Subject: hello\r\n\r\nhello\r\n", "order-id": "A-1001"}
QUEUES = ("results", "success", "failure", "retry")


class Trial:
    """A relay whose name server the test writes, and a mail host that takes everything."""

    def __init__(self, relay: Relay, sink: Sink, names: DnsServer, address: str) -> None:
        self.relay = relay
        self.sink = sink
        self.names = names
        self.address = address

    async def outcome(self, queue: str, **properties: object) -> dict[str, Any]:
        """Put a message into the outbox and return what comes into *queue*."""
        async with connect(self.address) as queues:
            await queues.publish("mx.outbox", MESSAGE | properties)
            async for message in queues.consume(f"mx.{queue}", prefetch=1):
                async with message:
                    return dict(message)
        raise AssertionError("the queue ended")


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def trial(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Trial]:
    """Run everything for one test."""
    address = f"embedded://{tmp_path / 'queue'}"
    if request.param == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        address = node.address
    sink = Sink(tmp_path)
    zones = {
        "example.com": {"MX": [[10, "dead.example.com"], [20, "mx.example.com"]]},
        "mx.example.com": {"A": ["127.0.0.1"]},
        "dead.example.com": {"A": ["127.0.0.9"]},
        "nomail.example": {"MX": [[0, "."]]},
        "direct.example": {"A": ["127.0.0.1"]},
        "bücher.example".encode("idna").decode(): {"MX": [[10, "mx.example.com"]]},
    }
    with ExitStack() as stack:
        async with DnsServer(zones) as names:
            relay = Relay(
                tmp_path, address, verb="deliver", delivery_port=sink.port, delivery_allow_private="true",
                dns_nameserver=f"127.0.0.1:{names.port}", dns_timeout=5, dns_interval=1, retry_interval="1,1,1",
                retry_jitter=0, smtp_default_ips="127.0.0.1", rabbitmq_outbox="mx.outbox", rabbitmq_dead="mx.dead",
                **{f"rabbitmq-{queue}": f"mx.{queue}" for queue in QUEUES},
            )  # fmt: skip
            for program in (sink, relay):
                stack.callback(program.cleanup)
                await asyncio.to_thread(program.start)
            await asyncio.to_thread(relay.wait_ready)
            yield Trial(relay, sink, names, address)
            await asyncio.to_thread(relay.stop)


async def test_mail_goes_to_the_next_mx_when_the_first_is_dead(trial: Trial) -> None:
    """The second host takes what the first refused to; the result says where it went, and both queues get it."""
    result = await trial.outcome("success", recipient="grace@example.com")
    [item] = result["results"]
    assert (item["state"], item["result"], item["code"], item["attempt"]) == ("message", "accepted", 250, 1)
    assert (item["from"], item["to"]) == ("127.0.0.1", "127.0.0.1")
    assert result["order-id"] == "A-1001"
    assert "mime" not in result
    assert result["extracted"]["subject"] == "hello"
    async with connect(trial.address) as queues:
        async for message in queues.consume("mx.results", prefetch=1):
            async with message:
                assert message["results"] == result["results"]
            break
    assert len(trial.sink.notes()) == 1


async def test_no_such_domain_and_null_mx_fail_at_once(trial: Trial) -> None:
    """NXDOMAIN and a null MX are final, with the codes of RFC 7505."""
    gone = await trial.outcome("failure", recipient="a@gone.example")
    assert (gone["results"][0]["state"], gone["results"][0]["result"]) == ("dns", "error")
    null = await trial.outcome("failure", recipient="a@nomail.example")
    item = null["results"][0]
    assert (item["state"], item["code"], item["status"]) == ("dns", 556, "5.1.10")


async def test_a_domain_without_mx_is_reached_by_its_address(trial: Trial) -> None:
    """RFC 5321 §5.1: without an MX the domain itself is the mail host; an A-label and a U-label are one domain."""
    for recipient in ("grace@direct.example", "grace@bücher.example", "grace@[127.0.0.1]"):
        result = await trial.outcome("success", recipient=recipient)
        assert result["recipient"] == recipient
    assert len(trial.sink.notes()) == 3


async def test_a_silent_name_server_delays_and_a_retry_delivers(trial: Trial) -> None:
    """Nobody answers: a copy of the transient result goes to retry, the message comes back and is delivered."""
    trial.names.zones["later.example"] = "SERVFAIL"
    transient = await trial.outcome("retry", recipient="grace@later.example")
    assert (transient["results"][0]["state"], transient["results"][0]["result"]) == ("dns", "timeout")
    trial.names.zones["later.example"] = {"MX": [[10, "mx.example.com"]]}
    async with connect(trial.address) as queues:
        async for message in queues.consume("mx.success", prefetch=1):
            async with message:
                results = message["results"]
            break
    assert [item["attempt"] for item in results] == list(range(1, len(results) + 1))
    assert results[-1]["result"] == "accepted"


async def test_what_cannot_be_understood_goes_to_the_dead_queue_with_its_reason(trial: Trial) -> None:
    """No recipient: nothing is lost and nothing loops."""
    async with connect(trial.address) as queues:
        await queues.publish("mx.outbox", {"mime": "Subject: x\r\n\r\n"})
        async for message in queues.consume("mx.dead", prefetch=1):
            async with message:
                assert message["mime"] == "Subject: x\r\n\r\n"
            break
    assert "recipient" in trial.relay.events("outbox.dead")[0]["reason"]
