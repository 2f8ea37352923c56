"""What the queues promise: one suite for every adapter of the broker port."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mtaq.broker import Broker, BrokerOptions, open_broker
from mtaq.broker.address import BrokerAddress, EmbeddedAddress, parse_addresses
from mtaq.model.errors import BrokerUnavailable, TooLarge, UnconfirmedPublish
from mtaq.model.parcel import INBOX_TYPE, BrokerState, Consumed, Parcel, QueueSpec
from tests.support.queues import PATIENCE_S, Inbox, fresh_name, fresh_queue, parcel, publish_all

Connect = Callable[..., Awaitable[Broker]]


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


async def test_round_trip(broker: Broker) -> None:
    """Body and every property come out as they went in, not redelivered."""
    queue = await fresh_queue(broker)
    sent = Parcel(
        body='{"recipient":"ü@example.test"}'.encode(),
        type=INBOX_TYPE,
        correlation_id="host.0123456789.1",
        priority=3,
        headers={"traceparent": "00-ab-cd-01", "attempt": 7, "kept": True, "reason": "größer als erlaubt"},
    )
    await broker.publish(queue, sent, timeout_s=PATIENCE_S)
    inbox = Inbox()
    broker.consume(queue, prefetch=10, on_message=inbox)
    (got,) = await inbox.wait(1)
    assert (got.queue, got.body, got.type, got.correlation_id) == (queue, sent.body, sent.type, sent.correlation_id)
    assert dict(got.headers) == dict(sent.headers)
    assert got.priority == sent.priority
    assert got.redelivered is False


async def test_bare_round_trip(broker: Broker) -> None:
    """What a parcel does not have comes out empty."""
    queue = await fresh_queue(broker)
    await broker.publish(queue, parcel(), timeout_s=PATIENCE_S)
    inbox = Inbox()
    broker.consume(queue, prefetch=1, on_message=inbox)
    (got,) = await inbox.wait(1)
    assert (got.correlation_id, got.priority, dict(got.headers)) == ("", 0, {})


async def test_message_ids(broker: Broker) -> None:
    """Each publish has a UUID of its own unless the parcel brings one."""
    queue = await fresh_queue(broker)
    same = parcel()
    for sent in (same, same, parcel(message_id="named-by-the-publisher")):
        await broker.publish(queue, sent, timeout_s=PATIENCE_S)
    inbox = Inbox()
    broker.consume(queue, prefetch=10, on_message=inbox)
    first, second, named = [message.message_id for message in await inbox.wait(3)]
    assert uuid.UUID(first) != uuid.UUID(second)
    assert named == "named-by-the-publisher"


@pytest.mark.parametrize("size", [0, 1, 131_065, 131_072, 3_000_001])
async def test_body_sizes(broker: Broker, size: int) -> None:
    """Bodies of any size and any bytes come through, frame boundaries included."""
    queue = await fresh_queue(broker)
    body = bytes(range(256)) * (size // 256 + 1)
    await broker.publish(queue, parcel(body[:size]), timeout_s=PATIENCE_S)
    inbox = Inbox()
    broker.consume(queue, prefetch=1, on_message=inbox)
    await inbox.wait(1)
    assert inbox.bodies == [body[:size]]


async def test_order(broker: Broker) -> None:
    """Messages of one publisher come out in the order they went in."""
    queue = await fresh_queue(broker)
    bodies = [b"%d" % number for number in range(50)]
    await publish_all(broker, queue, bodies)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=7, on_message=inbox)
    await inbox.wait(50)
    assert inbox.bodies == bodies


async def test_acked_is_gone(connect: Connect) -> None:
    """What was acknowledged before close is never handed out again."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first)
    await publish_all(first, queue, ["a", "b", "c"])
    inbox = Inbox(ack=True)
    first.consume(queue, prefetch=10, on_message=inbox)
    await inbox.wait(3)
    await first.close()
    await publish_all(second, queue, ["last"])
    after = Inbox(ack=True)
    second.consume(queue, prefetch=10, on_message=after)
    await after.wait(1)
    assert after.bodies == [b"last"]


async def test_close_returns_unsettled(connect: Connect) -> None:
    """What was handed out and not settled goes back at close, and comes again as redelivered."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first)
    await publish_all(first, queue, ["acked", "open", "open too"])
    inbox = Inbox()
    first.consume(queue, prefetch=10, on_message=inbox)
    (await inbox.wait(3))[0].ack()
    await first.close()
    after = Inbox()
    second.consume(queue, prefetch=10, on_message=after)
    await after.wait(2)
    assert sorted(after.bodies) == [b"open", b"open too"]
    assert all(message.redelivered for message in after.messages)


async def test_gaps_in_acks(connect: Connect) -> None:
    """Acknowledging every second message settles those and no other, in whatever order it is done."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first)
    await publish_all(first, queue, [b"%d" % number for number in range(20)])
    inbox = Inbox()
    first.consume(queue, prefetch=20, on_message=inbox)
    messages = list(await inbox.wait(20))
    for message in reversed(messages[1::2]):
        message.ack()
        await asyncio.sleep(0)
    await first.close()
    after = Inbox()
    second.consume(queue, prefetch=20, on_message=after)
    await after.wait(10)
    assert sorted(after.bodies) == sorted(b"%d" % number for number in range(0, 20, 2))


async def test_requeue(broker: Broker) -> None:
    """A requeued message comes again, redelivered; those around it may be acknowledged at the same moment."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["a", "b", "c"])
    inbox = Inbox()
    broker.consume(queue, prefetch=3, on_message=inbox)
    a, b, c = await inbox.wait(3)
    a.ack()
    b.requeue()
    c.ack()
    again = (await inbox.wait(4))[3]
    assert (again.body, again.redelivered) == (b"b", True)


async def test_settling_after_close(connect: Connect) -> None:
    """Settling after close does nothing and does not fail."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first)
    await publish_all(first, queue, ["a", "b"])
    inbox = Inbox()
    first.consume(queue, prefetch=2, on_message=inbox)
    a, b = await inbox.wait(2)
    await first.close()
    a.ack()
    b.requeue()
    after = Inbox()
    second.consume(queue, prefetch=2, on_message=after)
    await after.wait(2)
    assert sorted(after.bodies) == [b"a", b"b"]


async def test_prefetch(broker: Broker) -> None:
    """A consumer never holds more than its prefetch; settling one makes room for one."""
    queue = await fresh_queue(broker)
    held = Inbox()
    broker.consume(queue, prefetch=2, on_message=held)
    await publish_all(broker, queue, ["a", "b"])
    await held.wait(2)
    await publish_all(broker, queue, ["c", "d", "e"])
    other = Inbox()
    broker.consume(queue, prefetch=2, on_message=other)
    await other.wait(2)
    assert (held.bodies, other.bodies) == ([b"a", b"b"], [b"c", b"d"])
    other.messages[0].ack()
    await other.wait(3)
    assert (held.bodies, other.bodies) == ([b"a", b"b"], [b"c", b"d", b"e"])


async def test_stop(broker: Broker) -> None:
    """A stopped consumer takes nothing more, and what it holds may still be settled."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["a"])
    stopped = Inbox()
    consumer = broker.consume(queue, prefetch=10, on_message=stopped)
    (held,) = await stopped.wait(1)
    await consumer.stop()
    await publish_all(broker, queue, ["b", "c"])
    other = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=other)
    await other.wait(2)
    held.requeue()
    await other.wait(3)
    assert (stopped.bodies, other.bodies) == ([b"a"], [b"b", b"c", b"a"])


async def test_stop_in_the_middle(broker: Broker) -> None:
    """From the moment it is stopped a consumer is handed nothing, though much is on its way: all that goes back."""
    queue = await fresh_queue(broker)
    bodies = [b"%d" % number + b" " * 50_000 for number in range(100)]
    await publish_all(broker, queue, bodies)
    taken, late, stopping = Inbox(ack=True), Inbox(ack=True), asyncio.Event()

    def on_message(message: Consumed) -> None:
        (late if stopping.is_set() else taken)(message)

    consumer = broker.consume(queue, prefetch=100, on_message=on_message)
    await taken.wait(1)
    stop = asyncio.create_task(consumer.stop())
    await asyncio.sleep(0)
    stopping.set()
    await stop
    other = Inbox(ack=True)
    broker.consume(queue, prefetch=100, on_message=other)
    await other.wait(100 - len(taken.messages))
    assert sorted(taken.bodies + other.bodies) == sorted(bodies)
    assert late.messages == []


async def test_stop_at_once(broker: Broker) -> None:
    """A consumer may be stopped before it got anything, and twice."""
    queue = await fresh_queue(broker)
    nothing = Inbox()
    consumer = broker.consume(queue, prefetch=10, on_message=nothing)
    await consumer.stop()
    await consumer.stop()
    await publish_all(broker, queue, ["a"])
    other = Inbox()
    broker.consume(queue, prefetch=10, on_message=other)
    await other.wait(1)
    assert nothing.bodies == []


async def test_handed_to_one(connect: Connect) -> None:
    """Several consumers share a queue: each message goes to one of them."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first)
    inbox = Inbox(ack=True)
    for consumer in (first, first, second):
        consumer.consume(queue, prefetch=3, on_message=inbox)
    bodies = [b"%d" % number for number in range(60)]
    await publish_all(first, queue, bodies)
    await inbox.wait(60)
    assert sorted(inbox.bodies) == sorted(bodies)


async def test_priorities(connect: Connect) -> None:
    """Higher priority comes first, equal priorities in the order they went in."""
    # Classic, because RabbitMQ before 4.3 refuses x-max-priority on quorum queues.
    broker = await connect(max_priority=9, type="classic")
    queue = await fresh_queue(broker)
    for body, priority in (("low 1", 0), ("low 2", 0), ("high 1", 9), ("middle", 5), ("high 2", 9)):
        await broker.publish(queue, parcel(body, priority=priority), timeout_s=PATIENCE_S)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=1, on_message=inbox)
    await inbox.wait(5)
    assert inbox.bodies == [b"high 1", b"high 2", b"middle", b"low 1", b"low 2"]


async def test_not_confirmed_in_time(broker: Broker) -> None:
    """No confirmation within the time is BrokerUnavailable, never success; others are not disturbed."""
    queue = await fresh_queue(broker)
    results = await asyncio.gather(
        *(broker.publish(queue, parcel(), timeout_s=t) for t in (1e-9, PATIENCE_S, 1e-9)), return_exceptions=True
    )
    assert [type(result) for result in results] == [BrokerUnavailable, type(None), BrokerUnavailable]


async def test_unknown_queue(broker: Broker) -> None:
    """Publishing to a queue that does not exist fails, and the next publish works."""
    queue = await fresh_queue(broker)
    with pytest.raises(UnconfirmedPublish):
        await broker.publish(fresh_name("nowhere"), parcel(), timeout_s=PATIENCE_S)
    await broker.publish(queue, parcel(), timeout_s=PATIENCE_S)


async def test_unknown_queue_among_others(broker: Broker) -> None:
    """Of many publishes under way exactly those to unknown queues fail, even when they share a message id."""
    queue, nowhere = await fresh_queue(broker), fresh_name("nowhere")
    targets = [queue, nowhere] * 20
    sent = [parcel(b"%d" % number, message_id=f"shared-{number // 4}") for number in range(40)]
    publishes = [broker.publish(t, p, timeout_s=PATIENCE_S) for t, p in zip(targets, sent, strict=True)]
    results = await asyncio.gather(*publishes, return_exceptions=True)
    assert [isinstance(result, UnconfirmedPublish) for result in results] == [False, True] * 20
    inbox = Inbox()
    broker.consume(queue, prefetch=100, on_message=inbox)
    await inbox.wait(20)
    assert sorted(inbox.bodies) == sorted(b"%d" % number for number in range(0, 40, 2))


async def test_delay_without_ladder(broker: Broker) -> None:
    """A delay on a queue without a ladder fails instead of coming out at once."""
    queue = await fresh_queue(broker)
    with pytest.raises(UnconfirmedPublish):
        await broker.publish(queue, parcel(), timeout_s=PATIENCE_S, delay_s=1)


async def test_too_large(connect: Connect) -> None:
    """A body beyond the broker's limit is refused; one byte less is stored."""
    broker = await connect(max_size_bytes=1000)
    queue = await fresh_queue(broker)
    with pytest.raises(TooLarge):
        await broker.publish(queue, parcel(b"x" * 1001), timeout_s=PATIENCE_S)
    await broker.publish(queue, parcel(b"x" * 1000), timeout_s=PATIENCE_S)


@pytest.mark.parametrize(
    "odd",
    [{"correlation_id": "\udc80"}, {"headers": {"reason": "\udc80"}}],
)
async def test_properties_that_cannot_be_written(broker: Broker, odd: dict[str, object]) -> None:
    """They fail that publish alone, as a refusal."""
    queue = await fresh_queue(broker)
    results = await asyncio.gather(
        broker.publish(queue, parcel("a"), timeout_s=PATIENCE_S),
        broker.publish(queue, parcel(**odd), timeout_s=PATIENCE_S),
        broker.publish(queue, parcel("b"), timeout_s=PATIENCE_S),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), UnconfirmedPublish, type(None)]


async def test_not_connected(address: BrokerAddress) -> None:
    """Publishing before start and after close is BrokerUnavailable; the state tells."""
    broker = open_broker(BrokerOptions(addresses=address))
    assert broker.state is BrokerState.DOWN
    with pytest.raises(BrokerUnavailable):
        await broker.publish("q", parcel(), timeout_s=1)
    await broker.start()
    assert broker.state is BrokerState.UP
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["a"])
    await broker.close()
    assert broker.state is BrokerState.DOWN
    with pytest.raises(BrokerUnavailable):
        await broker.publish(queue, parcel(), timeout_s=1)
    await broker.close()


async def test_declare_again(connect: Connect) -> None:
    """Declaring says whether anything was created, and may be repeated by anybody."""
    first, second = await connect(), await connect()
    name, dead = fresh_name(), fresh_name("dead")
    specs = [QueueSpec(name=name, ladder=True, dead_letter_to=dead), QueueSpec(name=dead)]
    assert await first.declare(specs) is True
    assert await first.declare(specs) is False
    assert await second.declare(specs) is False
    assert await second.declare([*specs, QueueSpec(name=fresh_name())]) is True


async def test_concurrent_publishes(broker: Broker) -> None:
    """Hundreds of publishes at once are all stored, each once."""
    queue = await fresh_queue(broker)
    bodies = [b"%d" % number for number in range(500)]
    await asyncio.gather(*(broker.publish(queue, parcel(body), timeout_s=PATIENCE_S) for body in bodies))
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=100, on_message=inbox)
    await inbox.wait(500)
    assert sorted(inbox.bodies) == sorted(bodies)


async def test_publish_then_ack(connect: Connect) -> None:
    """A chain of two queues, each message published on before it is acknowledged, loses and doubles nothing."""
    broker, other = await connect(), await connect()
    first, last = await fresh_queue(broker), await fresh_queue(broker)
    inbox = Inbox(ack=True)
    other.consume(last, prefetch=50, on_message=inbox)
    taken: asyncio.Queue[object] = asyncio.Queue()
    broker.consume(first, prefetch=20, on_message=taken.put_nowait)

    async def pass_on() -> None:
        while True:
            message = await taken.get()
            await broker.publish(last, parcel(message.body), timeout_s=PATIENCE_S)  # type: ignore[attr-defined]
            message.ack()  # type: ignore[attr-defined]

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(pass_on()) for _ in range(5)]
        bodies = [b"%d" % number for number in range(200)]
        await asyncio.gather(*(broker.publish(first, parcel(body), timeout_s=PATIENCE_S) for body in bodies))
        await inbox.wait(200)
        for worker in workers:
            worker.cancel()
    assert sorted(inbox.bodies) == sorted(bodies)


async def test_cancelled_publish(broker: Broker) -> None:
    """A caller that goes away in the middle of a publish disturbs no other publish."""
    queue = await fresh_queue(broker)
    tasks = [asyncio.create_task(broker.publish(queue, parcel(), timeout_s=PATIENCE_S)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [None] * 50
    await broker.publish(queue, parcel(), timeout_s=PATIENCE_S)


async def test_delays(broker: Broker) -> None:
    """Mixed delays come out in the order they are due: never more than 0.1 s early nor 2 s late."""
    queue = await fresh_queue(broker, ladder=True)
    loop = asyncio.get_running_loop()
    came: dict[bytes, float] = {}
    inbox = Inbox(ack=True)

    def on_message(message: object) -> None:
        inbox(message)  # type: ignore[arg-type]
        came[inbox.bodies[-1]] = loop.time()

    broker.consume(queue, prefetch=100, on_message=on_message)
    due: dict[bytes, float] = {}
    for delay_s in (5, 1, 3, 0.4, 2, 0, 4, 1, 2.5):
        body = b"%d" % len(due)
        due[body] = loop.time() + delay_s
        await broker.publish(queue, parcel(body), timeout_s=PATIENCE_S, delay_s=delay_s)
    await inbox.wait(len(due))
    for body, due_at in due.items():
        assert -0.1 <= came[body] - due_at <= 2.0
    whole = [body for body in due if body not in (b"3", b"8")]  # fractions may be rounded up to whole seconds
    assert sorted(whole, key=came.__getitem__) == sorted(whole, key=due.__getitem__)
    assert not any(message.redelivered for message in inbox.messages)


async def test_long_delays_do_not_block(broker: Broker) -> None:
    """A message that waits for a year stands in nobody's way and does not come out."""
    queue = await fresh_queue(broker, ladder=True)
    for delay_s in (365 * 86400, 86400, 3600, 60):
        await broker.publish(queue, parcel(b"late"), timeout_s=PATIENCE_S, delay_s=delay_s)
    await broker.publish(queue, parcel(b"soon"), timeout_s=PATIENCE_S, delay_s=1)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=100, on_message=inbox)
    await inbox.wait(1)
    assert inbox.bodies == [b"soon"]


async def test_delayed_survives_close(connect: Connect) -> None:
    """A delayed message comes out although the process that parked it is gone; its properties are intact."""
    first, second = await connect(), await connect()
    queue = await fresh_queue(first, ladder=True)
    sent = parcel(b"parked", correlation_id="abc", headers={"traceparent": "x"})
    await first.publish(queue, sent, timeout_s=PATIENCE_S, delay_s=1)
    await first.close()
    inbox = Inbox()
    second.consume(queue, prefetch=1, on_message=inbox)
    (got,) = await inbox.wait(1)
    assert (got.queue, got.body, got.correlation_id, dict(got.headers)) == (
        queue,
        b"parked",
        "abc",
        {"traceparent": "x"},
    )


async def test_a_hint_nobody_hears(broker: Broker) -> None:
    """Telling an exchange to which nobody listens is no failure, and whoever stops listening may do so at any time."""
    exchange = fresh_name("exchange")
    await broker.broadcast(exchange, b"anybody?", timeout_s=PATIENCE_S)
    heard: list[bytes] = []
    await broker.subscribe(exchange, heard.append).stop()
    await broker.broadcast(exchange, b"anybody?", timeout_s=PATIENCE_S)
    assert b"anybody?" not in heard
    await publish_all(broker, await fresh_queue(broker), ["all is as before"])


async def test_listening_ends_with_the_broker(connect: Connect) -> None:
    """Closing ends the listening as well."""
    broker = await connect()
    broker.subscribe(fresh_name("exchange"), lambda _: None)
    await broker.close()


async def test_parked_again_and_again(broker: Broker) -> None:
    """A message that is parked anew each time it comes out makes every trip."""
    queue = await fresh_queue(broker, ladder=True)
    inbox = Inbox()
    broker.consume(queue, prefetch=1, on_message=inbox)
    await broker.publish(queue, parcel(b"0"), timeout_s=PATIENCE_S)
    for trip in range(1, 4):
        held = (await inbox.wait(trip))[-1]
        await broker.publish(queue, parcel(b"%d" % trip, headers=dict(held.headers)), timeout_s=PATIENCE_S, delay_s=1)
        held.ack()
    await inbox.wait(4)
    assert inbox.bodies == [b"0", b"1", b"2", b"3"]
