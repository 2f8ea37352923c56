"""The examples of docs/guide/consumers.md, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import INBOX_TYPE, Consumed, Parcel, QueueSpec

PROJECT = Path(__file__).parents[2]
EXAMPLES = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/guide/consumers.md").read_text("utf-8"), re.DOTALL)
INBOX = {"envelope": "a@example.org", "recipient": "b@example.net", "message-id": "srv.1", "mime": "Subject: x\r\n\r\n"}


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
async def test_example(example: str, tmp_path: Path) -> None:
    """It puts mail into the outbox: what waits in the inbox, or its own; and it ends with 0."""
    broker = EmbeddedBroker(tmp_path / "queues", max_size_bytes=1 << 20)
    await broker.start()
    await broker.declare([QueueSpec(name="inbox"), QueueSpec(name="outbox", ladder=True), QueueSpec(name="dead")])
    await broker.publish("inbox", Parcel(body=orjson.dumps(INBOX), type=INBOX_TYPE), timeout_s=10)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", example),
        env=os.environ | {"MTAQ_RABBITMQ_ADDRESS": f"embedded://{tmp_path / 'queues'}"},
        cwd=PROJECT,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        if 'consume("inbox"' in example:
            arrived: asyncio.Queue[Consumed] = asyncio.Queue()
            broker.consume("outbox", prefetch=10, on_message=arrived.put_nowait)
            message = await arrived.get()
            assert orjson.loads(message.body)["recipient"] == INBOX["recipient"]
            process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    await broker.close()


def test_there_are_examples() -> None:
    """The pattern that finds them fits the document."""
    assert len(EXAMPLES) == 5
