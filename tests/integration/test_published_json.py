"""What a running relay publishes keeps to the schemas in docs/schema."""

from __future__ import annotations

import asyncio
import json
import smtplib
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from jsonschema import Draft202012Validator

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import INBOX_TYPE, OUTBOX_TYPE, RESULT_TYPE, Consumed, Parcel
from tests.support.instance import ROOT, Relay, Sink

EXPECTED = {"inbox": 3, "results": 4, "success": 2, "failure": 2, "retry": 1}
"""Queue → how many messages come there: three are received, one more is put into the outbox by a script."""
CONTENTS = {
    "plain@example.com": b"Subject: hello\r\n\r\nit works\r\n",
    "binary@example.com": b"Subject: hello\r\n\r\n\xff\xfe\r\n",
    "no-tls@example.com": b"Subject: hello\r\n\r\nnever without TLS\r\n",
}


def problems(kind: str, body: bytes) -> list[str]:
    schema = json.loads((ROOT / "docs" / "schema" / f"{kind}.json").read_text(encoding="utf-8"))
    return [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(json.loads(body))
    ]


def send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        for recipient, content in CONTENTS.items():
            client.sendmail("ada@example.org", [recipient], content, ["BODY=8BITMIME"])


@pytest.mark.slow
async def test_everything_published_is_valid(tmp_path: Path) -> None:
    """Received messages, delivered, deferred and failed results are valid by their schemas, with the AMQP type."""
    certificate = tmp_path / "sink.pem"
    trustme.CA().issue_cert("sink.test").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    sink = Sink(tmp_path, "--certificate", str(certificate))
    address = f"embedded://{tmp_path}/queue"
    names = {f"rabbitmq_{name}": name for name in EXPECTED}
    relay = Relay(tmp_path, address, smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port, **names)
    broker = EmbeddedBroker(tmp_path / "queue", max_size_bytes=1 << 20)
    try:
        for program in (sink, relay):
            await asyncio.to_thread(program.start)
        await asyncio.to_thread(relay.wait_ready)
        await broker.start()
        published = await collect(broker, relay.port)
    finally:
        await broker.close()
        relay.cleanup()
        sink.cleanup()
    for name, messages in published.items():
        kind, amqp_type = ("inbox", INBOX_TYPE) if name == "inbox" else ("result", RESULT_TYPE)
        for message in messages:
            assert problems(kind, message.body) == []
            assert message.type == amqp_type
    assert {name: len(messages) for name, messages in published.items()} == EXPECTED
    states = sorted(results_of(message)[-1]["state"] for message in published["failure"])
    assert states == ["process", "starttls"]


def results_of(message: Consumed) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(message.body)["results"]
    return results


async def collect(broker: EmbeddedBroker, port: int) -> dict[str, list[Consumed]]:
    """Send, pass everything on with orders that make it end in different ways, and return what was published."""
    published: dict[str, list[Consumed]] = defaultdict(list)
    arrived: asyncio.Queue[Consumed] = asyncio.Queue()
    for name in EXPECTED:
        broker.consume(name, prefetch=10, on_message=arrived.put_nowait)
    await asyncio.to_thread(send, port)
    async with asyncio.timeout(60):
        while sum(map(len, published.values())) < sum(EXPECTED.values()):
            message = await arrived.get()
            message.ack()
            published[message.queue].append(message)
            if message.queue == "inbox":
                assert problems("outbox", message.body) == []
                await put(broker, orders(json.loads(message.body)))
                if len(published["inbox"]) == 1:
                    await put(broker, {"recipient": "no address", "mime": "x"})
    return published


def orders(message: dict[str, Any]) -> dict[str, Any]:
    """Have one message fail after a retry: the sink's certificate cannot be verified."""
    if message["recipient"].startswith("no-tls"):
        return message | {"security": "verified", "retries": [1], "maxattempts": 2}
    return message


async def put(broker: EmbeddedBroker, message: dict[str, Any]) -> None:
    assert problems("outbox", orjson.dumps(message)) == []
    await broker.publish("outbox", Parcel(body=orjson.dumps(message), type=OUTBOX_TYPE), timeout_s=10)
