"""What only RabbitMQ has: topology, several nodes, compression, exchanges, and every rung of the delay ladder."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import aiormq
import pytest
import trustme
from aiormq.channel import Channel
from pamqp.commands import Basic

from mtaq.broker import BrokerOptions
from mtaq.broker.address import RabbitMQAddress, parse_addresses
from mtaq.broker.rabbitmq import RabbitMQBroker, consume
from mtaq.broker.rabbitmq.frames import ack_frame
from mtaq.broker.rabbitmq.ladder import LONGEST, RUNGS, rung_name
from mtaq.model.errors import BrokerUnavailable, TopologyMismatch, UnconfirmedPublish
from mtaq.model.parcel import QueueSpec
from tests.support.queues import PATIENCE_S, Inbox, fresh_name, fresh_queue, parcel, publish_all
from tests.support.rabbitmq import RabbitNode

pytestmark = pytest.mark.rabbitmq

Connect = Callable[..., Awaitable[RabbitMQBroker]]


@pytest.fixture
async def connect(rabbitmq: RabbitNode) -> AsyncIterator[Connect]:
    async with contextlib.AsyncExitStack() as stack:

        async def connect(
            address: str = rabbitmq.address, *, ladder_unit_s: float = 1.0, **options: object
        ) -> RabbitMQBroker:
            broker = RabbitMQBroker(
                BrokerOptions(addresses=parse_addresses(address), **options),  # type: ignore[arg-type]  # passed on
                ladder_unit_s=ladder_unit_s,
            )
            stack.push_async_callback(broker.close)
            await broker.start()
            return broker

        yield connect


@pytest.fixture
async def channel(rabbitmq: RabbitNode) -> AsyncIterator[Channel]:
    """A channel beside ours, for the hand of an operator."""
    async with aiormq.connect(rabbitmq.address) as connection:
        opened = await connection.channel()
        assert isinstance(opened, Channel)
        yield opened


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_other_type(connect: Connect, channel: Channel) -> None:
    """A queue of another type is refused with its name, the argument and what to do; the connection stays usable."""
    broker, queue = await connect(), fresh_name()
    await channel.queue_declare(queue, durable=True)
    with pytest.raises(TopologyMismatch, match=rf"{queue}.*x-queue-type.*quorum.*cannot be changed"):
        await broker.declare([QueueSpec(name=queue)])
    await fresh_queue(broker)


async def test_other_rung(connect: Connect) -> None:
    """A ladder with other times is refused, naming the rung."""
    queue = await fresh_queue(await connect(), ladder=True)
    with pytest.raises(TopologyMismatch, match=rf"{queue}\.delay\.0.*x-message-ttl"):
        await (await connect(ladder_unit_s=0.5)).declare([QueueSpec(name=queue, ladder=True)])


async def test_other_exchange(connect: Connect, channel: Channel) -> None:
    """An exchange of another type is refused, naming it."""
    exchange = fresh_name("exchange")
    await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    broker = await connect(exchange=exchange)
    with pytest.raises(TopologyMismatch, match=rf"{exchange}.*type"):
        await broker.declare([QueueSpec(name=fresh_name())])


async def test_reserved_name(connect: Connect) -> None:
    """A name that RabbitMQ keeps for itself is refused with its reason."""
    with pytest.raises(TopologyMismatch, match="reserved"):
        await (await connect()).declare([QueueSpec(name="amq.ours")])


@pytest.mark.parametrize("name", ["größer", "x" * 256])
async def test_impossible_name(connect: Connect, name: str) -> None:
    """A name that AMQP cannot say is a mistake of whoever wants it, and nothing else suffers."""
    broker = await connect()
    with pytest.raises(TopologyMismatch, match="no queue can have"):
        await broker.declare([QueueSpec(name=name)])
    with pytest.raises(UnconfirmedPublish):
        await broker.publish(name, parcel(), timeout_s=PATIENCE_S)
    await publish_all(broker, await fresh_queue(broker), ["a"])


@pytest.mark.parametrize(
    "odd", [{"correlation_id": "x" * 256}, {"message_id": "x" * 256}, {"priority": 256}, {"headers": {"a": 2**70}}]
)
async def test_properties_beyond_amqp(connect: Connect, odd: dict[str, object]) -> None:
    """What AMQP has no room for is refused; the same channel takes the next message."""
    broker = await connect()
    queue = await fresh_queue(broker)
    with pytest.raises(UnconfirmedPublish, match="cannot be written"):
        await broker.publish(queue, parcel(**odd), timeout_s=PATIENCE_S)
    await publish_all(broker, queue, ["a"])


async def test_declaring_forbidden(connect: Connect, rabbitmq: RabbitNode) -> None:
    """With rabbitmq-declare false nothing is created: what is missing is named, what is there may be anything."""
    careful, queue = await connect(declare=False), fresh_name()
    with pytest.raises(TopologyMismatch, match=rf"{queue}.*does not exist.*x-queue-type=quorum"):
        await careful.declare([QueueSpec(name=queue)])
    await (await connect(type="classic")).declare([QueueSpec(name=queue)])
    assert await careful.declare([QueueSpec(name=queue)]) is False
    with pytest.raises(TopologyMismatch, match=rf"{queue}\.delay\.0"):
        await careful.declare([QueueSpec(name=queue, ladder=True)])


async def test_named_exchange(connect: Connect, channel: Channel) -> None:
    """A named exchange carries what is published, the queue's name as routing key; the ladder needs it not."""
    exchange = fresh_name("exchange")
    broker = await connect(exchange=exchange)
    with pytest.raises(UnconfirmedPublish, match="does not exist"):
        await broker.publish("q", parcel(), timeout_s=PATIENCE_S)
    queue = await fresh_queue(broker, ladder=True)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=2, on_message=inbox)
    await publish_all(broker, queue, ["ours"])
    await channel.basic_publish(b"theirs", exchange=exchange, routing_key=queue)
    await broker.publish(queue, parcel(b"late"), timeout_s=PATIENCE_S, delay_s=1)
    await inbox.wait(3)
    assert inbox.bodies == [b"ours", b"theirs", b"late"]


async def test_exchange_deleted(connect: Connect, channel: Channel) -> None:
    """When the exchange is deleted behind our back publishes fail; once it is declared again they work."""
    exchange = fresh_name("exchange")
    broker = await connect(exchange=exchange)
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["a"])
    await channel.exchange_delete(exchange)
    for _ in range(2):
        with pytest.raises((BrokerUnavailable, UnconfirmedPublish)):
            await broker.publish(queue, parcel(), timeout_s=PATIENCE_S)
    await broker.declare([QueueSpec(name=queue)])
    await publish_all(broker, queue, ["b"])


async def test_number_of_queues(connect: Connect, rabbitmq: RabbitNode) -> None:
    """A queue with its ladder is a constant number of queues, however many delays are in use."""
    broker = await connect()
    queue = await fresh_queue(broker, ladder=True)
    await asyncio.gather(
        *(broker.publish(queue, parcel(), timeout_s=PATIENCE_S, delay_s=1000 + 77 * n) for n in range(100))
    )
    names = (await asyncio.to_thread(rabbitmq.ctl, "list_queues", "name")).split()
    assert len([name for name in names if name.startswith(queue)]) == 1 + RUNGS


@pytest.mark.parametrize("units", [1, 2, 3, 0b10101010101010101010101, 0b01010101010101010101010, LONGEST])
async def test_every_rung(connect: Connect, units: int) -> None:
    """A trip over any set of rungs, all of them included, ends in the queue, and not before its time."""
    unit_s = 2.0**-23  # the longest trip takes one second; a power of two, so that whole units stay whole
    broker = await connect(ladder_unit_s=unit_s)
    queue = await fresh_queue(broker, ladder=True)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=1, on_message=inbox)
    started = asyncio.get_running_loop().time()
    await broker.publish(queue, parcel(b"there"), timeout_s=PATIENCE_S, delay_s=units * unit_s)
    await inbox.wait(1)
    assert inbox.bodies == [b"there"]
    assert asyncio.get_running_loop().time() - started >= units * unit_s - 0.1


async def test_single_rungs(connect: Connect, channel: Channel) -> None:
    """A delay of 2^n s enters the ladder at rung n, and one beyond its end at the longest."""
    broker = await connect()
    queue = await fresh_queue(broker, ladder=True)
    for number in range(6, RUNGS):
        await broker.publish(queue, parcel(), timeout_s=PATIENCE_S, delay_s=2**number)
    await broker.publish(queue, parcel(), timeout_s=PATIENCE_S, delay_s=10 * LONGEST)
    counts = [
        (await channel.queue_declare(rung_name(queue, number), passive=True)).message_count
        for number in range(6, RUNGS)
    ]
    assert counts == [1] * (RUNGS - 7) + [2]


async def test_one_ladder_per_queue(connect: Connect) -> None:
    """Two queues with ladders, one named like the end of the other, do not get each other's messages."""
    broker = await connect(ladder_unit_s=0.01)
    short = fresh_name()
    long = f"0.1.{short}"
    await broker.declare([QueueSpec(name=short, ladder=True), QueueSpec(name=long, ladder=True)])
    inbox = Inbox(ack=True)
    for queue in (short, long):
        broker.consume(queue, prefetch=1, on_message=inbox)
        await broker.publish(queue, parcel(queue), timeout_s=PATIENCE_S, delay_s=0.03)
    await inbox.wait(2)
    assert {message.queue: message.body.decode() for message in inbox.messages} == {short: short, long: long}


async def test_gzip(connect: Connect, channel: Channel) -> None:
    """With rabbitmq-encoding gzip the body travels compressed and comes out as it went in, large ones included."""
    broker = await connect(encoding="gzip")
    queue = await fresh_queue(broker)
    bodies = [b'{"a":1}' * 10, b"0123456789abcdef" * 200_000]
    for body in bodies:
        await broker.publish(queue, parcel(body), timeout_s=PATIENCE_S)
    raw = await channel.basic_get(queue)
    assert (raw.header.properties.content_encoding, gzip.decompress(raw.body)) == ("gzip", bodies[0])
    await channel.basic_nack(raw.delivery_tag or 0, requeue=True)
    inbox = Inbox(ack=True)
    (await connect()).consume(queue, prefetch=1, on_message=inbox)
    await inbox.wait(2)
    assert inbox.bodies == bodies


async def test_broken_gzip(connect: Connect, channel: Channel) -> None:
    """What claims to be gzip and is not, is cut off, or would grow without bound is handed on as it came."""
    broker = await connect(max_size_bytes=10_000)
    queue = await fresh_queue(broker)
    bodies = [b"{}", gzip.compress(b"abc")[:-3], gzip.compress(b"\0" * 1_000_000)]
    for body in bodies:
        properties = Basic.Properties(content_encoding="gzip")
        await channel.basic_publish(body, routing_key=queue, properties=properties)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    await inbox.wait(3)
    assert inbox.bodies == bodies


async def test_foreign_message(connect: Connect, channel: Channel) -> None:
    """A message without any properties is handed on, everything empty."""
    broker = await connect()
    queue = await fresh_queue(broker)
    headers = {"table": {"a": 1}, "none": None, "text": "x", "x-death": [{"count": 1}]}
    await channel.basic_publish(b"\xff", routing_key=queue, properties=Basic.Properties(headers=headers))
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    (got,) = await inbox.wait(1)
    assert (got.body, got.type, got.correlation_id, got.priority) == (b"\xff", "", "", 0)
    assert dict(got.headers) == {"text": "x"}


async def test_refused_by_a_full_queue(connect: Connect, channel: Channel) -> None:
    """A message that the broker refuses (``basic.nack``) is not taken for stored."""
    broker, queue = await connect(), fresh_name()
    await channel.queue_declare(queue, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await publish_all(broker, queue, ["a"])
    with pytest.raises(UnconfirmedPublish, match="refused"):
        await broker.publish(queue, parcel("b"), timeout_s=PATIENCE_S)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    await inbox.wait(1)
    await publish_all(broker, queue, ["c"])
    await inbox.wait(2)
    assert inbox.bodies == [b"a", b"c"]


async def test_several_nodes(connect: Connect, rabbitmq: RabbitNode, closed_port: int) -> None:
    """Nodes that do not answer are passed over."""
    alive = f"127.0.0.1:{rabbitmq.port}"
    nodes = [f"amqp://guest:guest@{host}/" for host in (f"127.0.0.1:{closed_port}", f"127.0.0.2:{closed_port}", alive)]
    broker = await connect(",".join(nodes))
    await publish_all(broker, await fresh_queue(broker), ["a"])


async def test_nobody_answers(closed_port: int) -> None:
    """No broker is BrokerUnavailable, without the password; a later start may succeed."""
    address = parse_addresses(f"amqp://guest:s3cret@127.0.0.1:{closed_port}/")
    broker = RabbitMQBroker(BrokerOptions(addresses=address))
    for _ in range(2):
        with pytest.raises(BrokerUnavailable) as refused:
            await broker.start()
        assert "s3cret" not in str(refused.value)
        assert str(closed_port) in str(refused.value)
    await broker.close()


async def test_silent_server() -> None:
    """A server that accepts and says nothing is BrokerUnavailable within the connect timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = RabbitMQAddress(nodes=(silent.getsockname(),), tls=False, user="guest", password="guest")
        broker = RabbitMQBroker(BrokerOptions(addresses=address, connect_timeout_s=0.2))
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(BrokerUnavailable):
                await broker.start()
        await broker.close()


@contextlib.asynccontextmanager
async def _tls_in_front_of(node: RabbitNode, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Give the port of a TLS listener that passes everything on to the node."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        node_reader, node_writer = await asyncio.open_connection("127.0.0.1", node.port)
        await asyncio.gather(pump(reader, node_writer), pump(node_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_tls(rabbitmq: RabbitNode, tmp_path: Path) -> None:
    """amqps checks the certificate against the system's CAs or cafile, unless rabbitmq-verify is false."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def publish(address: str, **options: bool) -> None:
        broker = RabbitMQBroker(BrokerOptions(addresses=parse_addresses(address), **options))  # type: ignore[arg-type]  # verify
        try:
            await broker.start()
            await publish_all(broker, await fresh_queue(broker), ["a"])
        finally:
            await broker.close()

    async with _tls_in_front_of(rabbitmq, context) as port:
        address = f"amqps://guest:guest@127.0.0.1:{port}/"
        await publish(f"{address}?cafile={tmp_path / 'ca.pem'}")
        await publish(address, verify=False)
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await publish(address)


async def test_wrong_password(connect: Connect, rabbitmq: RabbitNode) -> None:
    """A refused login is BrokerUnavailable and says so, without the password."""
    with pytest.raises(BrokerUnavailable, match=r"(?i)login|refused") as refused:
        await connect(f"amqp://guest:s3cret@127.0.0.1:{rabbitmq.port}/")
    assert "s3cret" not in str(refused.value)


async def test_consumer_survives_its_queue(
    connect: Connect, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer may be there before its queue, and goes on when the queue is deleted and made anew."""
    broker, queue = await connect(), fresh_name()
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=1, on_message=inbox)
    for count in (1, 2):
        await broker.declare([QueueSpec(name=queue)])
        await publish_all(broker, queue, [b"%d" % count])
        await inbox.wait(count)
        caplog.clear()
        await channel.queue_delete(queue)
        while "cancelled by the broker" not in caplog.text:  # a queue made anew sooner is taken for the old one
            await asyncio.sleep(0.01)
    assert inbox.bodies == [b"1", b"2"]


async def test_consumer_with_a_bug(connect: Connect) -> None:
    """An error in on_message is reported to the loop, leaves its message unsettled and stops nothing."""
    broker = await connect()
    queue = await fresh_queue(broker)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    inbox = Inbox(ack=True)

    def on_message(message: object) -> None:
        if not reported:
            raise KeyError("bug")
        inbox(message)  # type: ignore[arg-type]

    broker.consume(queue, prefetch=10, on_message=on_message)
    await publish_all(broker, queue, ["a", "b"])
    await inbox.wait(1)
    assert inbox.bodies == [b"b"]
    assert [type(error) for error in reported] == [KeyError]


async def test_consumption_survives_surprises(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is reported, and consuming goes on."""
    broker = await connect()
    queue = await fresh_queue(broker)
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    consume, surprises = Channel.basic_consume, [KeyError("one"), KeyError("two")]

    async def surprising(self: Channel, *args: object, **kwargs: object) -> object:
        if surprises:
            raise surprises.pop()
        return await consume(self, *args, **kwargs)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(Channel, "basic_consume", surprising)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    await publish_all(broker, queue, ["a"])
    await inbox.wait(1)
    assert [type(error) for error in reported] == [KeyError, KeyError]


async def test_settling_survives_surprises(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an ack cannot be sent, its channel is given up: what it held comes again instead of never."""
    broker = await connect()
    queue = await fresh_queue(broker)
    surprises = [OSError("surprise")]

    def surprising(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
        if surprises:
            raise surprises.pop()
        return ack_frame(channel, delivery_tag, multiple=multiple)

    monkeypatch.setattr(consume, "ack_frame", surprising)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    await publish_all(broker, queue, ["a"])
    first, second = await inbox.wait(2)
    assert (first.redelivered, second.redelivered) == (False, True)
    assert (first.is_stale, second.is_stale) == (True, False)


async def test_window(connect: Connect) -> None:
    """With a window of one, publishes wait their turn and all get through, those beyond 1 MB as well."""
    broker = await connect(throttle=1)
    queue = await fresh_queue(broker)
    sizes = [10, 1_500_000] * 10
    await asyncio.gather(*(broker.publish(queue, parcel(b"x" * size), timeout_s=PATIENCE_S) for size in sizes))
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=1, on_message=inbox)
    await inbox.wait(20)
    assert sorted(len(body) for body in inbox.bodies) == sorted(sizes)


async def test_nothing_left_behind(rabbitmq: RabbitNode) -> None:
    """After close no task of ours runs any more, whatever was going on."""
    before = asyncio.all_tasks()
    broker = RabbitMQBroker(BrokerOptions(addresses=parse_addresses(rabbitmq.address)))
    await broker.start()
    queue = await fresh_queue(broker, ladder=True)
    for name in (queue, fresh_name("missing"), queue):
        consumer = broker.consume(name, prefetch=10, on_message=Inbox())
    await publish_all(broker, queue, ["a", "b"])
    await consumer.stop()
    await broker.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() - before == set()


async def heard(notices: list[bytes], wanted: list[bytes]) -> None:
    """Wait until exactly these hints came."""
    async with asyncio.timeout(PATIENCE_S):
        while notices != wanted:
            await asyncio.sleep(0.02)


async def test_hints(connect: Connect, channel: Channel) -> None:
    """A hint comes to everybody who listens, the teller included; the first one is empty."""
    brokers = [await connect(), await connect()]
    exchange, notices = fresh_name("exchange"), [list[bytes](), list[bytes]()]
    listenings = [broker.subscribe(exchange, each.append) for broker, each in zip(brokers, notices, strict=True)]
    for each in notices:
        await heard(each, [b""])
    await brokers[0].broadcast(exchange, b"changed", timeout_s=PATIENCE_S)
    for each in notices:
        await heard(each, [b"", b"changed"])
    await listenings[1].stop()
    await brokers[1].broadcast(exchange, b"again", timeout_s=PATIENCE_S)
    await heard(notices[0], [b"", b"changed", b"again"])
    assert notices[1] == [b"", b"changed"]


async def test_listening_goes_on(connect: Connect, rabbitmq: RabbitNode) -> None:
    """When the connection was lost, listening begins anew, and the listener hears that it may have missed something."""
    name = fresh_name("listener")
    broker, teller = await connect(name=name), await connect()
    exchange, notices = fresh_name("exchange"), list[bytes]()
    broker.subscribe(exchange, notices.append)
    await heard(notices, [b""])
    await asyncio.to_thread(close_connections, rabbitmq, name)
    await heard(notices, [b"", b""])
    await teller.broadcast(exchange, b"changed", timeout_s=PATIENCE_S)
    await heard(notices, [b"", b"", b"changed"])


def close_connections(node: RabbitNode, name: str) -> None:
    """Close the connections of one broker, as an operator would."""
    for line in node.ctl("list_connections", "pid", "client_properties").splitlines():
        pid, _, properties = line.partition("\t")
        if name in properties:
            node.ctl("close_connection", pid, "maintenance")


async def test_a_listener_that_fails(connect: Connect) -> None:
    """A bug in the listener does not end the listening."""
    broker, exchange, notices = await connect(), fresh_name("exchange"), list[bytes]()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)

    def fail(body: bytes) -> None:
        notices.append(body)
        raise ValueError("a bug")

    broker.subscribe(exchange, fail)
    await heard(notices, [b""])
    await broker.broadcast(exchange, b"changed", timeout_s=PATIENCE_S)
    await heard(notices, [b"", b"changed"])


async def test_listening_to_a_forbidden_exchange(
    connect: Connect, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    """An exchange of another type or one that may not be made is told once, and harms nothing else."""
    exchange, missing = fresh_name("exchange"), fresh_name("exchange")
    await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
    broker, careful = await connect(), await connect(declare=False)
    broker.subscribe(exchange, lambda _: None)
    careful.subscribe(missing, lambda _: None)
    for teller, name in ((broker, exchange), (careful, missing)):
        with pytest.raises(BrokerUnavailable, match=name):
            await teller.broadcast(name, b"changed", timeout_s=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while len([line for line in caplog.messages if "cannot listen" in line]) < 2:
            await asyncio.sleep(0.02)
    await publish_all(broker, await fresh_queue(broker), ["a"])


async def test_no_broker_to_tell(connect: Connect) -> None:
    """Without a connection a hint fails at once."""
    broker = await connect()
    await broker.close()
    with pytest.raises(BrokerUnavailable):
        await broker.broadcast("exchange", b"changed", timeout_s=PATIENCE_S)
