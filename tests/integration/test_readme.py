"""What the README shows works as it stands there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import orjson

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import INBOX_TYPE, Consumed, Parcel, QueueSpec

ROOT = Path(__file__).resolve().parents[2]


def script() -> str:
    """The only block of Python in the README."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)


def test_consumer_is_ten_lines() -> None:
    """The consumer in the README is as short as the library allows."""
    assert len([line for line in script().splitlines() if line]) <= 10


async def test_consumer_passes_messages_on(tmp_path: Path) -> None:
    """The consumer takes every message from the inbox, edits some, puts all into the outbox, and ends on SIGTERM."""
    broker = EmbeddedBroker(tmp_path / "queue", max_size_bytes=1 << 20)
    await broker.start()
    process = None
    try:
        await broker.declare([QueueSpec(name="inbox"), QueueSpec(name="outbox", ladder=True), QueueSpec(name="dead")])
        for recipient in ("grace@example.com", "ada@example.org"):
            message = {"message-id": recipient, "envelope": "", "recipient": recipient, "mime": "Subject: x\r\n\r\nx"}
            parcel = Parcel(body=orjson.dumps(message), type=INBOX_TYPE, correlation_id=recipient)
            await broker.publish("inbox", parcel, timeout_s=10)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script(), cwd=tmp_path,
            env=os.environ | {"MTAQ_RABBITMQ_ADDRESS": f"embedded://{tmp_path}/queue", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        passed_on = await taken(broker, "outbox", 2)
        assert passed_on["grace@example.com"]["headers"] == {"prepend": {"X-Checked": "yes"}}
        assert "headers" not in passed_on["ada@example.org"]
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        await broker.close()


async def taken(broker: EmbeddedBroker, queue: str, count: int) -> dict[str, dict[str, object]]:
    """Take *count* messages from *queue*; by recipient."""
    arrived: asyncio.Queue[Consumed] = asyncio.Queue()
    consumer = broker.consume(queue, prefetch=count, on_message=arrived.put_nowait)
    found = {}
    async with asyncio.timeout(60):
        for _ in range(count):
            consumed = await arrived.get()
            consumed.ack()
            message = orjson.loads(consumed.body)
            found[message["recipient"]] = message
    await consumer.stop()
    return found
