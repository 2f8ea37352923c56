"""Looking through queues and delay ladders, and moving what lies there: one suite for every adapter."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mtaq.broker import Broker, BrokerOptions, open_broker
from mtaq.broker.address import BrokerAddress, EmbeddedAddress, parse_addresses
from mtaq.broker.rabbitmq import sweep
from mtaq.model.errors import BrokerUnavailable, UnconfirmedPublish
from mtaq.model.parcel import OUTBOX_TYPE, Parcel, QueueSpec, Waiting
from tests.support.queues import PATIENCE_S, Inbox, fresh_name, fresh_queue, parcel, publish_all
from tests.support.rabbitmq import RabbitNode

Connect = Callable[..., Awaitable[Broker]]
AGAIN = {"redelivered": True}


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> BrokerAddress:
    if request.param == "embedded":
        return EmbeddedAddress(tmp_path / "queues")
    return parse_addresses(request.getfixturevalue("rabbitmq").address)


@pytest.fixture
async def connect(address: BrokerAddress) -> AsyncIterator[Connect]:
    """Opens brokers on the same queues, as several processes would, and closes them at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(**options: object) -> Broker:
            broker = open_broker(BrokerOptions(addresses=address, **options))  # type: ignore[arg-type]  # passed on
            await broker.start()
            stack.push_async_callback(broker.close)
            return broker

        yield connect


@pytest.fixture
async def broker(connect: Connect) -> Broker:
    return await connect()


def forwards(wanted: Callable[[Waiting], bool]) -> Callable[[Waiting], Parcel | None]:
    """Have what is *wanted* published as it is, marked."""

    def choose(waiting: Waiting) -> Parcel | None:
        if not wanted(waiting):
            return None
        return Parcel(
            body=waiting.body,
            type=waiting.type,
            correlation_id=waiting.correlation_id,
            message_id=waiting.message_id,
            priority=waiting.priority,
            headers={**waiting.headers, "forwarded": True},
        )

    return choose


def starts(letter: bytes) -> Callable[[Waiting], Parcel | None]:
    """Have messages published whose body begins with *letter*."""
    return forwards(lambda waiting: waiting.body.startswith(letter))


async def delay_all(broker: Broker, queue: str, bodies: list[bytes], delay_s: float) -> None:
    """Publish *bodies*, due in *delay_s* seconds."""
    for at in range(0, len(bodies), 500):
        await asyncio.gather(
            *(
                broker.publish(queue, parcel(body), timeout_s=PATIENCE_S, delay_s=delay_s)
                for body in bodies[at : at + 500]
            )
        )


async def test_forward_from_the_ladder(broker: Broker) -> None:
    """What is chosen comes at once as it was, whatever its delay, and nothing else does."""
    queue = await fresh_queue(broker, ladder=True)
    for number, delay_s in enumerate((30, 700, 90_000, 40_000_000)):
        sent = parcel(b"a%d" % number, message_id=f"id-{number}", correlation_id=f"c{number}", priority=2)
        await broker.publish(queue, sent, timeout_s=PATIENCE_S, delay_s=delay_s)
        await broker.publish(queue, parcel(b"b%d" % number), timeout_s=PATIENCE_S, delay_s=delay_s)
    sifted = await broker.sift(queue, starts(b"a"), delayed=True)
    assert (sifted.seen, sifted.moved, sifted.refused) == (8, 4, 0)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    found = sorted(await inbox.wait(4), key=lambda message: message.body)
    assert [(each.body, each.message_id, each.correlation_id, each.priority) for each in found] == [
        (b"a%d" % number, f"id-{number}", f"c{number}", 2) for number in range(4)
    ]
    assert all(each.headers == {"forwarded": True} and each.type == OUTBOX_TYPE for each in found)
    depth = (await broker.depths([queue]))[queue]
    assert depth is not None
    assert sum(depth.delayed.values()) == 4


async def test_what_is_left_keeps_its_time(broker: Broker) -> None:
    """Messages that nobody chose come out in their old order and never early, those behind them included."""
    queue = await fresh_queue(broker, ladder=True)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=100, on_message=inbox)
    due: dict[bytes, float] = {}

    async def delayed(name: bytes, delay_s: float) -> None:
        due[name] = time.monotonic() + delay_s
        await broker.publish(queue, parcel(name), timeout_s=PATIENCE_S, delay_s=delay_s)

    came: dict[bytes, float] = {}
    collect = asyncio.create_task(note_times(inbox, came, 60))
    for number in range(20):
        await delayed(b"b%02d" % number, 8)
    await delay_all(broker, queue, [b"a%02d" % number for number in range(50)], 8)
    for number in range(20, 40):
        await delayed(b"b%02d" % number, 9)
    sifted = await broker.sift(queue, starts(b"a"), delayed=True)
    assert sifted.moved == 50
    for number in range(40, 60):
        await delayed(b"b%02d" % number, 4.5)
    await collect
    assert sorted(came) == sorted(due)
    assert min(came[name] - due[name] for name in due) > -0.1
    for begin, end in ((0, 20), (20, 40), (40, 60)):
        names = [b"b%02d" % number for number in range(begin, end)]
        assert sorted(names, key=came.__getitem__) == names


async def note_times(inbox: Inbox, came: dict[bytes, float], count: int) -> None:
    """Note when bodies that begin with ``b`` came, until there are *count*."""
    seen = 0
    while len(came) < count:
        for body in inbox.bodies[seen:]:
            seen += 1
            if body.startswith(b"b"):
                came[body] = time.monotonic()
        await asyncio.sleep(0.01)


async def test_due_while_it_is_held(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message whose time comes while others are being moved is not kept back by that, nor shown again."""
    queue = await fresh_queue(broker, ladder=True)
    await broker.publish(queue, parcel(b"first"), timeout_s=PATIENCE_S, delay_s=4)
    await delay_all(broker, queue, [b"second", b"third"], 30)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    seen: list[bytes] = []
    # The queue says that there is one more than it has, so looking through it lasts until it is believed to be empty.
    monkeypatch.setattr(sweep, "IDLE_S", 60.0)
    monkeypatch.setattr(sweep, "LONGEST_IDLE_S", 60.0)

    def choose(waiting: Waiting) -> Parcel | None:
        seen.append(waiting.body)
        return None

    sifting = asyncio.create_task(broker.sift(queue, choose, delayed=True))
    await inbox.wait(1)
    assert inbox.bodies == [b"first"]
    sifting.cancel()
    await asyncio.gather(sifting, return_exceptions=True)
    assert seen.count(b"first") <= 1


async def test_move_between_queues(broker: Broker) -> None:
    """What is chosen goes to the other queue in its old order; what is not stays in its old order."""
    source, target = await fresh_queue(broker), await fresh_queue(broker)
    await publish_all(broker, source, [b"%c%02d" % (b"ab"[number % 2], number) for number in range(40)])
    assert (await broker.sift(source, starts(b"a"), to=target)).moved == 20
    there, left = Inbox(ack=True), Inbox(ack=True)
    broker.consume(target, prefetch=50, on_message=there)
    broker.consume(source, prefetch=50, on_message=left)
    await there.wait(20)
    await left.wait(20)
    assert sorted(there.bodies) == [b"a%02d" % number for number in range(0, 40, 2)]
    assert left.bodies == [b"b%02d" % number for number in range(1, 40, 2)]


async def test_most(broker: Broker) -> None:
    """No more messages are looked at than asked for, the oldest first, and all stay."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, [b"%02d" % number for number in range(30)])
    seen: list[bytes] = []

    def choose(waiting: Waiting) -> Parcel | None:
        seen.append(waiting.body)
        return None

    sifted = await broker.sift(queue, choose, most=7)
    assert (sifted.seen, sifted.moved) == (7, 0)
    assert seen == [b"%02d" % number for number in range(7)]
    depth = (await broker.depths([queue]))[queue]
    assert depth is not None
    assert depth.ready == 30


async def test_changed_on_the_way(broker: Broker) -> None:
    """What is published instead may have another body and other headers."""
    queue = await fresh_queue(broker, ladder=True)
    await broker.publish(queue, parcel(b"old", headers={"reason": "x"}), timeout_s=PATIENCE_S, delay_s=100)
    await broker.sift(queue, lambda waiting: parcel(b"new" * 1000, headers={"n": 1}), delayed=True)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    (got,) = await inbox.wait(1)
    assert (got.body, dict(got.headers)) == (b"new" * 1000, {"n": 1})


async def test_refused(broker: Broker) -> None:
    """A message whose new queue does not exist stays where it is."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, [b"a"])
    with contextlib.suppress(UnconfirmedPublish):
        sifted = await broker.sift(queue, starts(b"a"), to=fresh_name())
        assert (sifted.moved, sifted.refused) == (0, 1)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=1, on_message=inbox)
    await inbox.wait(1)


async def test_unknown_queue(broker: Broker) -> None:
    """A queue that is not there is a failure, and its depth is none."""
    name = fresh_name()
    with pytest.raises(UnconfirmedPublish):
        await broker.sift(name, lambda waiting: None)
    assert await broker.depths([name]) == {name: None}


async def test_depths(broker: Broker) -> None:
    """What lies in a queue and in its ladder is counted, and who consumes it."""
    queue, other = await fresh_queue(broker, ladder=True), await fresh_queue(broker)
    await publish_all(broker, queue, ["1", "2", "3"])
    await delay_all(broker, queue, [b"x", b"y"], 60)
    await delay_all(broker, queue, [b"z"], 600)
    depths = await broker.depths([queue, other])
    depth = depths[queue]
    assert depth is not None
    assert (depth.ready, depth.consumers, dict(depth.delayed)) == (3, 0, {5: 2, 9: 1})
    assert depths[other] is not None
    inbox = Inbox()
    broker.consume(other, prefetch=1, on_message=inbox)
    while (now := (await broker.depths([other]))[other]) is not None and not now.consumers:
        await asyncio.sleep(0.01)


async def test_two_sweep_at_once(connect: Connect) -> None:
    """Two that look through one ladder at the same time lose nothing and move nothing twice."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first, ladder=True)
    await delay_all(first, queue, [b"a%03d" % number for number in range(300)], 100)
    results = await asyncio.gather(
        first.sift(queue, starts(b"a"), delayed=True), second.sift(queue, starts(b"a"), delayed=True)
    )
    rest = await first.sift(queue, starts(b"a"), delayed=True)
    assert sum(each.moved for each in (*results, rest)) == 300
    inbox = Inbox(ack=True)
    first.consume(queue, prefetch=100, on_message=inbox)
    await inbox.wait(300)
    assert sorted(inbox.bodies) == [b"a%03d" % number for number in range(300)]


@pytest.mark.rabbitmq
async def test_more_than_can_be_held(rabbitmq: RabbitNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what consumers can hold, messages that nobody chose go back with the rest of their delay, marked."""
    for name, value in (("MOST_CHANNELS", 2), ("MOST_PREFETCH", 30)):
        monkeypatch.setattr(sweep, name, value)
    broker = open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address)))
    await broker.start()
    async with contextlib.aclosing(_closing(broker)):
        queue = await fresh_queue(broker, ladder=True)
        await delay_all(broker, queue, [b"b%03d" % number for number in range(150)], 15)
        await delay_all(broker, queue, [b"a%03d" % number for number in range(50)], 15)
        assert (await broker.sift(queue, starts(b"a"), delayed=True, again=AGAIN)).moved == 50
        inbox = Inbox(ack=True)
        broker.consume(queue, prefetch=200, on_message=inbox)
        await inbox.wait(50)
        assert len({body for body in inbox.bodies if body.startswith(b"a")}) == 50
        await inbox.wait(200)
        assert len(set(inbox.bodies)) == len(inbox.bodies) == 200
        marked = [message for message in inbox.messages if message.headers == AGAIN]
        assert 0 < len(marked) < 150


async def _closing(broker: Broker) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await broker.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_many(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    """A large part of what waits is sent forward, each message once; in the long run 100,000 of 150,000."""
    count = 100_000 if os.environ.get("LONG") else 2_000
    queue = await fresh_queue(broker, ladder=True)
    await delay_all(broker, queue, [b"b%06d" % number + bytes(1500) for number in range(count // 2)], 3000)
    await delay_all(broker, queue, [b"a%06d" % number + bytes(1500) for number in range(count)], 5000)
    began = time.monotonic()
    sifted = await broker.sift(queue, starts(b"a"), delayed=True, again=AGAIN)
    took_s = time.monotonic() - began
    with capsys.disabled():
        print(f"\n{count} of {sifted.seen} messages sent forward in {took_s:.1f} s")
    assert sifted.moved == count
    depth = (await broker.depths([queue]))[queue]
    assert depth is not None
    assert (depth.ready, sum(depth.delayed.values())) == (count, count // 2)


@pytest.mark.rabbitmq
async def test_broker_lost_while_sweeping(rabbitmq: RabbitNode) -> None:
    """A connection that breaks in the middle is an error, and every message is still somewhere."""
    broker = open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address), name="sweeping test"))
    other = open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address)))
    await broker.start()
    await other.start()
    try:
        queue = fresh_name()
        await other.declare([QueueSpec(name=queue, ladder=True)])
        await delay_all(other, queue, [b"a%04d" % number for number in range(1500)], 100)
        shown = 0

        def choose(waiting: Waiting) -> Parcel | None:
            nonlocal shown
            shown += 1
            if shown == 700:
                for link in (broker._consuming, broker._publishing):  # type: ignore[attr-defined]  # cut its sockets
                    link._nodes.wire._transport.abort()
            return forwards(lambda _: True)(waiting)

        with pytest.raises(BrokerUnavailable):
            await broker.sift(queue, choose, delayed=True)
        inbox = Inbox(ack=True)
        other.consume(queue, prefetch=500, on_message=inbox)
        while len(set(inbox.bodies)) < 1500:
            await other.sift(queue, forwards(lambda _: True), delayed=True)
            await asyncio.sleep(0.1)
    finally:
        await broker.close()
        await other.close()
