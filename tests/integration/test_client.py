"""The consumer library and the scripts written with it, on both kinds of queue."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from mtaq.broker import Broker, BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.client import Message, address_from_environment, connect
from mtaq.client import sync as plain
from mtaq.model.errors import BadMessage, BrokerError, BrokerUnavailable, UnconfirmedPublish
from mtaq.model.parcel import INBOX_TYPE, OUTBOX_TYPE, Consumed, Parcel, QueueSpec
from tests.support.rabbitmq import RabbitNode

PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return f"embedded://{tmp_path / 'queues'}"
    node = request.getfixturevalue("rabbitmq")
    return str(node.address)


@pytest.fixture
def names() -> dict[str, str]:
    """Queue names that no other test uses."""
    tail = uuid.uuid4().hex[:8]
    return {name: f"{name}-{tail}" for name in ("inbox", "outbox", "dead")}


@asynccontextmanager
async def operator(address: str, names: dict[str, str]) -> AsyncIterator[Broker]:
    """The other side: what `mtaq run` would declare, and a way to look into the queues."""
    broker = open_broker(BrokerOptions(addresses=parse_addresses(address)))
    await broker.start()
    await broker.declare([QueueSpec(name=name) for name in names.values()])
    try:
        yield broker
    finally:
        await broker.close()


def inbox_json(**changes: Any) -> dict[str, Any]:
    return {
        "envelope": "a@example.org",
        "recipient": "b@example.net",
        "message-id": "srv.1",
        "mime": "Subject: hello\r\n\r\nbody\r\n",
        "size": 24,
        **changes,
    }


async def put(broker: Broker, queue: str, body: dict[str, Any] | bytes, **fields: Any) -> None:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    parcel = Parcel(**{"body": data, "type": INBOX_TYPE, "correlation_id": "srv.1", **fields})
    await broker.publish(queue, parcel, timeout_s=20)


async def take(broker: Broker, queue: str, count: int = 1) -> list[Consumed]:
    """Take and ack *count* messages, and make sure that there is no further one."""
    arrived: asyncio.Queue[Consumed] = asyncio.Queue()
    consumer = broker.consume(queue, prefetch=count + 1, on_message=arrived.put_nowait)
    taken = []
    async with asyncio.timeout(20):
        for _ in range(count):
            taken.append(message := await arrived.get())
            message.ack()
    await consumer.stop()
    assert arrived.empty()
    return taken


async def test_the_sample_passes_messages_on(address: str, names: dict[str, str]) -> None:
    """Inbox to outbox, changed on the way, with identity, trace and priority."""
    async with operator(address, names) as broker:
        headers = {"traceparent": "00-abc-def-01", "reason": "not to be carried on"}
        await put(broker, names["inbox"], inbox_json(), headers=headers, message_id="first", priority=0)
        async with connect(address) as queues:
            async for message in queues.consume(names["inbox"], prefetch=100):
                async with message:
                    assert (message.envelope, message.recipient) == ("a@example.org", "b@example.net")
                    assert message.queue == names["inbox"]
                    assert message.redelivered is False
                    message["headers"] = {"prepend": {"X-Checked": "yes"}}
                    await queues.publish(names["outbox"], message)
                queues.stop()
        (passed,) = await take(broker, names["outbox"])
        assert orjson.loads(passed.body) == inbox_json(headers={"prepend": {"X-Checked": "yes"}})
        assert (passed.type, passed.correlation_id) == (OUTBOX_TYPE, "srv.1")
        assert passed.headers == {"traceparent": "00-abc-def-01"}
        await put(broker, names["inbox"], b"{}")
        assert [message.body for message in await take(broker, names["inbox"])] == [b"{}"]


async def test_a_message_that_fails_is_tried_again_and_then_buried(address: str, names: dict[str, str]) -> None:
    """Three tries, then the dead queue gets the message as it came, with the reason; others go on meanwhile."""
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], inbox_json(bad=True), headers={"traceparent": "00-1"})
        await put(broker, names["inbox"], inbox_json(bad=False))
        seen = []
        async with connect(address) as queues:
            consumption = queues.consume(names["inbox"], tries=3, dead=names["dead"])
            async for message in consumption:
                seen.append((message["bad"], message.tries, message.redelivered))
                async with message:
                    if message["bad"]:
                        message["scribbled"] = True
                        if len(seen) == 4:
                            queues.stop()
                        raise ValueError("no good")
        assert seen == [(True, 0, False), (False, 0, False), (True, 1, True), (True, 2, True)]
        (dead,) = await take(broker, names["dead"])
        assert orjson.loads(dead.body) == inbox_json(bad=True)
        assert dead.headers == {"traceparent": "00-1", "reason": "ValueError: no good", "queue": names["inbox"]}


@pytest.mark.parametrize("body", [b"\xff", b"[1]", b"{"])
async def test_what_is_no_object_is_buried_at_once(address: str, names: dict[str, str], body: bytes) -> None:
    """It never reaches the script, and what comes after it does."""
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], body)
        await put(broker, names["inbox"], inbox_json())
        async with connect(address) as queues:
            async for message in queues.consume(names["inbox"], dead=names["dead"]):
                async with message:
                    queues.stop()
        (dead,) = await take(broker, names["dead"])
        assert dead.body == body
        assert "JSON" in str(dead.headers["reason"])


async def test_a_refused_publish_ends_the_script_and_keeps_the_message(address: str, names: dict[str, str]) -> None:
    """A queue that is missing shows at once; the message waits in the inbox, its try counted."""
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], inbox_json())
        async with connect(address) as queues:
            message = await anext(queues.consume(names["inbox"]))
            with pytest.raises(UnconfirmedPublish):
                async with message:
                    await queues.publish("missing", message)
        (kept,) = await take(broker, names["inbox"])
        assert (kept.headers["tries"], kept.body) == (1, orjson.dumps(inbox_json()))


async def test_consuming_a_missing_queue_says_who_declares_it(address: str, names: dict[str, str]) -> None:
    """The error names the queue."""
    async with operator(address, names), connect(address) as queues:
        with pytest.raises(BrokerError, match=r"missing.*mtaq run"):
            await anext(queues.consume("missing"))


async def test_copies_of_one_message_have_one_identity(address: str, names: dict[str, str]) -> None:
    """A script that dies between publish and ack publishes again under the same ids, and says so."""
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], inbox_json(), message_id="origin")
        for _ in range(2):
            async with connect(address) as queues:
                message = await anext(queues.consume(names["inbox"]))
                await queues.publish(names["outbox"], message)
                await queues.publish(names["outbox"], message)
        first, second, third, fourth = await take(broker, names["outbox"], 4)
        assert (first.message_id, second.message_id) == (third.message_id, fourth.message_id)
        assert first.message_id != second.message_id
        assert [message.headers for message in (first, third)] == [{}, {"redelivered": True}]


async def test_a_mapping_is_published_as_a_new_message(address: str, names: dict[str, str]) -> None:
    """Scripts may send mail of their own."""
    async with operator(address, names) as broker, connect(address) as queues:
        await queues.publish(names["outbox"], {"recipient": "b@example.net", "message-id": "mine.1", "mime": ""})
        (message,) = await take(broker, names["outbox"])
        assert (message.type, message.correlation_id) == (OUTBOX_TYPE, "mine.1")
        assert uuid.UUID(message.message_id)


async def test_a_delay_where_there_is_none_is_refused(address: str, names: dict[str, str]) -> None:
    """Only the outbox has delays."""
    async with operator(address, names), connect(address) as queues:
        with pytest.raises(UnconfirmedPublish):
            await queues.publish(names["inbox"], {"recipient": "b@example.net"}, delay=5)


async def test_a_delayed_message_says_that_it_may_come_twice(address: str, names: dict[str, str]) -> None:
    """A broker that dies at the wrong moment moves it twice; delivery asks its journal then."""
    async with operator(address, names) as broker:
        await broker.declare([QueueSpec(name=names["outbox"], ladder=True)])
        async with connect(address) as queues:
            await queues.publish(names["outbox"], {"recipient": "b@example.net"}, delay=1)
            await queues.publish(names["outbox"], {"recipient": "c@example.net"})
        now, later = await take(broker, names["outbox"], 2)
        assert (now.headers, later.headers) == ({}, {"redelivered": True})
        assert later.message_id


@pytest.mark.rabbitmq
async def test_what_a_lost_connection_had_brought_is_not_handed_to_the_script(
    rabbitmq: RabbitNode, names: dict[str, str]
) -> None:
    """It comes again: the script sees each message once, but for the one it had in hand."""
    async with operator(rabbitmq.address, names) as broker, connect(rabbitmq.address) as queues:
        for number in range(5):
            await put(broker, names["inbox"], inbox_json(number=number))
        seen = []
        async for message in queues.consume(names["inbox"]):
            seen.append((message["number"], message.redelivered))
            async with message:
                if len(seen) == 1:
                    await asyncio.to_thread(close_consuming, rabbitmq)
                    while not message.consumed.is_stale:
                        await asyncio.sleep(0.01)
            if len(seen) == 6:
                queues.stop()
        assert sorted(seen) == [(0, False), (0, True), (1, True), (2, True), (3, True), (4, True)]


def close_consuming(node: RabbitNode) -> None:
    """Close, as an operator, the connection by which scripts consume."""
    for line in node.ctl("list_connections", "pid", "client_properties").splitlines():
        if "mtaq.client consuming" in line:
            node.ctl("close_connection", line.split("\t")[0], "maintenance")


async def test_an_interrupted_block_gives_its_message_back(address: str, names: dict[str, str]) -> None:
    """Cancelling is not the message's fault: no try is counted."""
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], inbox_json())
        async with connect(address) as queues:
            message = await anext(queues.consume(names["inbox"]))
            with pytest.raises(asyncio.CancelledError):
                async with message:
                    raise asyncio.CancelledError
        (back,) = await take(broker, names["inbox"])
        assert back.redelivered
        assert back.headers == {}


async def test_what_was_fetched_ahead_goes_back(address: str, names: dict[str, str]) -> None:
    """Closing the iteration after one message leaves the others to the next consumer."""
    async with operator(address, names) as broker, connect(address) as queues:
        for number in range(5):
            await put(broker, names["inbox"], inbox_json(number=number))
        async with contextlib.aclosing(queues.consume(names["inbox"])) as messages:
            async for message in messages:
                message.ack()
                break
        rest = await take(broker, names["inbox"], 4)
        assert sorted(orjson.loads(message.body)["number"] for message in rest) == [1, 2, 3, 4]


async def test_while_the_broker_is_away_the_message_waits(
    tmp_path: Path, names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unavailable broker ends no script and counts no try."""
    monkeypatch.setattr("mtaq.client.queues._PAUSE_S", 0)
    address = f"embedded://{tmp_path / 'queues'}"
    async with operator(address, names) as broker:
        await put(broker, names["inbox"], inbox_json())
        seen: list[int] = []
        async with connect(address) as queues:
            async for message in queues.consume(names["inbox"], tries=1):
                async with message:
                    seen.append(message.tries)
                    if len(seen) == 1:
                        raise BrokerUnavailable("for the test")
                    queues.stop()
        assert seen == [0, 0]


def sync_steps(address: str, names: dict[str, str]) -> Iterator[str]:
    """A plain script: fails once on each message, then passes it on."""
    with plain.connect(address) as queues:
        for message in queues.consume(names["inbox"], tries=2, dead=names["dead"]):
            with message:
                yield f"{message['number']} try {message.tries}"
                if message.tries == 0:
                    raise ValueError
                queues.publish(names["outbox"], message)
                if message["number"] == 1:
                    queues.stop()


async def test_the_synchronous_twin_does_the_same(address: str, names: dict[str, str]) -> None:
    """for, with, publish, retries and stop without async."""
    async with operator(address, names) as broker:
        for number in range(2):
            await put(broker, names["inbox"], inbox_json(number=number))
        steps = await asyncio.to_thread(list, sync_steps(address, names))
        assert steps == ["0 try 0", "1 try 0", "0 try 1", "1 try 1"]
        assert [orjson.loads(m.body)["number"] for m in await take(broker, names["outbox"], 2)] == [0, 1]


async def lines_of(process: asyncio.subprocess.Process, count: int) -> list[bytes]:
    assert process.stdout is not None
    return [await process.stdout.readline() for _ in range(count)]


async def test_inbox_to_outbox(address: str, names: dict[str, str]) -> None:
    """The script moves every message unchanged and ends with 0 at SIGTERM."""
    async with operator(address, names) as broker:
        for number in range(3):
            await put(broker, names["inbox"], inbox_json(**{"message-id": f"srv.{number}"}))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("scripts/inbox_to_outbox.py", "--inbox", names["inbox"], "--outbox", names["outbox"]),
            cwd=PROJECT,
            env=os.environ | {"MTAQ_RABBITMQ_ADDRESS": address},
            stdout=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            assert await lines_of(process, 3) == [f"srv.{n}: to <b@example.net>\n".encode() for n in range(3)]
            process.terminate()
            assert await process.wait() == 0
        passed = await take(broker, names["outbox"], 3)
        assert [orjson.loads(m.body) for m in passed] == [inbox_json(**{"message-id": f"srv.{n}"}) for n in range(3)]


async def test_inbox_to_maildir(address: str, names: dict[str, str], tmp_path: Path) -> None:
    """Each content is a file in new, byte for byte; SIGINT ends the script with 0 while it waits."""
    contents = [b"Subject: one\r\n\r\n\xff\x00\r\n", b"Subject: two\r\n\r\n.\r\n"]
    async with operator(address, names) as broker:
        for number, content in enumerate(contents):
            properties = inbox_json(**{"message-id": f"srv.{number}"})
            message = Message.__new__(Message)
            del properties["mime"]
            message._properties = properties
            message.content = content
            await put(broker, names["inbox"], properties)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("scripts/inbox_to_maildir.py", "--maildir", str(tmp_path / "maildir")),
            *("--inbox", names["inbox"], "--address", address),
            cwd=PROJECT,
        )
        new = tmp_path / "maildir" / "new"
        async with asyncio.timeout(30):
            while not new.exists() or len(list(new.iterdir())) < 2:
                await asyncio.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        assert sorted(file.read_bytes() for file in new.iterdir()) == sorted(contents)
        assert not list((tmp_path / "maildir" / "tmp").iterdir())
        await put(broker, names["inbox"], b"{}")
        assert len(await take(broker, names["inbox"])) == 1


async def test_content_and_mail_are_views_of_the_json(address: str, names: dict[str, str]) -> None:
    """Reading decodes, assigning encodes anew, and a message without content says so."""
    async with operator(address, names) as broker, connect(address) as queues:
        await put(broker, names["inbox"], inbox_json())
        message = await anext(queues.consume(names["inbox"]))
        mail = message.email()
        assert mail["Subject"] == "hello"
        del mail["Subject"]
        mail["Subject"] = "Grüße"
        message.content = mail.as_bytes()
        assert message.email()["Subject"] == "Grüße"
        assert message["size"] == len(message.content)
        message.content = b"\xff"
        assert (message["mime-base64"], "mime" in message) == ("/w==", False)
        del message["mime-base64"]
        with pytest.raises(BadMessage):
            _ = message.content


def test_the_address_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable, else the file that one names, else RabbitMQ on this host."""
    monkeypatch.delenv("MTAQ_RABBITMQ_ADDRESS", raising=False)
    assert address_from_environment() == "amqp://guest:guest@localhost/"
    (tmp_path / "secret").write_text("embedded:///file\n")
    monkeypatch.setenv("MTAQ_RABBITMQ_ADDRESS_FILE", str(tmp_path / "secret"))
    assert address_from_environment() == "embedded:///file"
    monkeypatch.setenv("MTAQ_RABBITMQ_ADDRESS", "embedded:///variable")
    assert address_from_environment() == "embedded:///variable"
