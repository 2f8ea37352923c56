"""Looking through a queue, or the rungs of a delay ladder, and moving some of what lies there.

RabbitMQ hands out a queue in order or not at all, so everything is taken, and what is not wanted is held unacknowledged
until the end. Then the channels are closed: a quorum queue puts what one consumer held back at its head in the old
order, each message with the rest of its time (with a delivery limit, which ours all have). Nothing else keeps order and
time: what is given back message by message comes back shuffled, behind one that waits longer, and an unwanted message
would be handed out again at once. One channel takes over from another, because RabbitMQ searches all that a channel
holds for each word about one of them. They are closed in their order; after a crash that is left to chance, and some of
what was held may come out late, by what lies between the first and the last of it.

A held message cannot expire. When it should leave its rung it is given back, and the queue sends it on at once. Rungs
are looked through from the highest to the lowest, because messages only move down. Only when more is held than fits is
something published again with what is left of its delay. Memory: the tags of what is held, and the bodies of what is
being published.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from array import array
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from mtaq.broker.port import Choose
from mtaq.broker.rabbitmq.content import GZIP, headers_of, inflate
from mtaq.broker.rabbitmq.deliveries import Deliveries
from mtaq.broker.rabbitmq.frames import (
    DELIVER,
    METHOD,
    Properties,
    ack_frame,
    read_routing_key,
    requeue_frame,
)
from mtaq.broker.rabbitmq.ladder import RUNGS, leaves_at, rung_name
from mtaq.broker.rabbitmq.ledger import Ledger, Settlement
from mtaq.broker.rabbitmq.link import RPC_TIMEOUT_S, Link, translated
from mtaq.broker.rabbitmq.topology import Topology
from mtaq.broker.rabbitmq.wire import Wire
from mtaq.model.errors import BrokerUnavailable, UnconfirmedPublish
from mtaq.model.parcel import OUTBOX_TYPE, Depth, Parcel, Sifted

#: What comes out by itself within this time is left alone.
SOON_S = 4.0
#: Messages in the hands of one channel: as many as fit into so many bytes. And channels, one after the other.
MOST_PREFETCH, LEAST_PREFETCH = 1000, 50
PREFETCH_BYTES = 32 * 1024 * 1024
MOST_CHANNELS = 400

PUBLISH_TIMEOUT_S = 30.0
#: Without a message for so long, although some could come, the queue is asked whether it has any. When it has and gives
#: none for the second time, somebody else must have them.
IDLE_S, LONGEST_IDLE_S = 0.5, 60.0
_TICK_S = 0.2
#: Times of publishing are known to the second; and what came back too early is not given back again at once.
_LATE_S, _AGAIN_S = 1.2, 0.5
_CLOSE_TIMEOUT_S = 30.0
_GIVEN_BACK_S, _GIVEN_BACK_LOOKS = 0.02, 100


Leaves = tuple[float, float]
"""When a message leaves its rung, and when it will have reached the target; seconds since 1970."""


class Publish(Protocol):
    """``Publisher.publish``."""

    async def __call__(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float) -> None:
        """As ``Broker.publish``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifting:
    """What is to be done; the arguments of ``Broker.sift`` and some settings.

    Attributes:
        queue: As ``sift`` has it; the target of the ladder.
        limit_bytes: Most that a compressed body may hold.
        unit_s: The ladder's smallest step.
    """

    queue: str
    choose: Choose
    to: str | None
    most: int | None
    again: Mapping[str, bool]
    limit_bytes: int
    unit_s: float


class Found(NamedTuple):
    """A message as ``choose`` sees it; fits ``mtaq.model.parcel.Waiting``."""

    queue: str
    properties: Properties
    body: bytes

    @property
    def type(self) -> str:
        """AMQP ``type``."""
        return self.properties.type

    @property
    def correlation_id(self) -> str:
        """AMQP ``correlation_id``."""
        return self.properties.correlation_id

    @property
    def message_id(self) -> str:
        """AMQP ``message_id``."""
        return self.properties.message_id

    @property
    def priority(self) -> int:
        """AMQP ``priority``."""
        return self.properties.priority

    @property
    def headers(self) -> Mapping[str, str | int | bool]:
        """The publisher's headers."""
        return headers_of(self.properties.headers)


class Sweeper:
    """Looks through queues of one broker."""

    def __init__(self, link: Link, topology: Topology, publish: Publish) -> None:
        self._link = link
        self._topology = topology
        self._publish = publish

    async def sift_queue(self, work: Sifting) -> Sifted:
        """Look through ``work.queue`` itself."""
        depth = await self._topology.depth(work.queue)
        if depth is None:
            raise UnconfirmedPublish(f"there is no queue {work.queue}")
        return await self._scan(work, work.queue, None, depth, work.most)

    async def sift_ladder(self, work: Sifting) -> Sifted:
        """Look through the ladder of ``work.queue``."""
        total = Sifted()
        for number in reversed(range(RUNGS)):
            left = None if work.most is None else work.most - total.seen
            if 2 ** (number + 1) * work.unit_s <= SOON_S or left == 0:
                break
            name = rung_name(work.queue, number)
            depth = await self._topology.depth(name)
            if depth is None:
                raise UnconfirmedPublish(f"queue {work.queue} was declared without delays")
            if depth.ready:
                total += await self._scan(work, name, number, depth, left)
        return total

    async def _scan(self, work: Sifting, queue: str, rung: int | None, depth: Depth, most: int | None) -> Sifted:
        await self._link.open()
        expected = depth.ready if most is None else min(depth.ready, most)
        scan = _Scan(work, queue, rung, expected, link=self._link, publish=self._publish)
        try:
            with translated(f"looking through {queue}"):
                await scan.run(lambda: self._is_empty(queue))
        finally:
            await scan.close()
        await self._wait_given_back(queue, depth.consumers)
        return scan.sifted()

    async def _wait_given_back(self, queue: str, consumers: int) -> None:
        """Wait a while until the queue has noticed that the channel is closed: what was held is there again then."""
        for _ in range(_GIVEN_BACK_LOOKS):
            depth = await self._topology.depth(queue)
            if depth is None or depth.consumers <= consumers:
                return
            await asyncio.sleep(_GIVEN_BACK_S)

    async def _is_empty(self, queue: str) -> bool:
        depth = await self._topology.depth(queue)
        # Without consumers it is no answer: we are one.
        return depth is None or (depth.ready == 0 and depth.consumers > 0)


class _Scan:
    """The way through one queue."""

    def __init__(
        self, work: Sifting, queue: str, rung: int | None, expected: int, *, link: Link, publish: Publish
    ) -> None:
        self._work = work
        self._queue = queue
        self._rung = rung
        self._expected = expected
        self._link = link
        self._publish = publish
        self._loop = asyncio.get_running_loop()
        self._hands: list[_Hand] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._seen = self._moved = self._refused = 0
        self._bytes = 0
        self._heard_at = self._loop.time()

    def sifted(self) -> Sifted:
        """Return what it came to."""
        return Sifted(self._seen, self._moved, self._refused)

    async def run(self, is_empty: Callable[[], Awaitable[bool]]) -> None:
        """Go through it once, and wait for what is being published."""
        while not await self._is_over(is_empty):
            if any(hand.is_closed for hand in self._hands):
                raise BrokerUnavailable(f"looking through {self._queue}: a channel was closed")
            if not self._hands or (self._hands[-1].is_full and len(self._hands) < MOST_CHANNELS):
                await self._take_over()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._changed.wait()
            self._changed.clear()
            for hand in self._hands:
                hand.tell()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Give back what is held: everything that was not acknowledged."""
        for task in self._tasks:
            task.cancel()
        for hand in self._hands:  # first the words, then the ends: those take a while
            hand.tell()
        with contextlib.suppress(BrokerUnavailable), translated("closing a channel"):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                for hand in self._hands:
                    await hand.channel.close()

    async def _is_over(self, is_empty: Callable[[], Awaitable[bool]]) -> bool:
        if self._failure is not None or self._seen >= self._expected:
            return True
        heard_at = self._heard_at
        idle_s = self._loop.time() - heard_at
        if idle_s < IDLE_S or self._tasks or not self._hands:
            return False
        if idle_s >= LONGEST_IDLE_S:
            return True
        if not await is_empty():
            return False
        # What the queue has given away may still be on its way to us; the answer to anything asked now comes behind it.
        async with asyncio.timeout(LONGEST_IDLE_S):
            await self._hands[-1].channel.basic_qos(prefetch_count=1)
        return self._heard_at == heard_at

    async def _take_over(self) -> None:
        """Have one channel more, which goes on where the last one ended."""
        channel, wire = await self._link.wired_channel(confirms=False)
        average = self._bytes // max(self._seen, 1)
        fitting = PREFETCH_BYTES // max(average, 1)
        prefetch = min(max(fitting, LEAST_PREFETCH), MOST_PREFETCH, self._expected)
        hand = _Hand(channel, wire, prefetch, self._receive, self._changed.set)
        older = self._hands[-1:]
        self._hands.append(hand)  # before anything comes: what no further hand follows must not fill itself
        async with asyncio.timeout(RPC_TIMEOUT_S):
            for one in older:  # else it got something newer later, and that came back before what is older
                await one.stop()
            await hand.start(self._queue)
        self._heard_at = self._loop.time()

    def _receive(self, hand: _Hand, delivery: _Delivery) -> None:
        self._heard_at = self._loop.time()
        leaves = self._leaves_at(delivery)
        if self._seen >= self._expected or self._failure is not None:
            hand.hold(delivery, leaves)
            return
        self._seen += 1
        self._bytes += len(delivery.body)
        found = self._found(delivery)
        parcel = self._work.choose(found)
        if parcel is not None:
            self._begin(self._move(hand, delivery, parcel, leaves))
        elif not hand.is_full or len(self._hands) < MOST_CHANNELS:
            hand.hold(delivery, leaves)
        else:
            self._begin(self._put_back(hand, delivery, found, leaves))
        if self._seen >= self._expected or hand.is_full:
            self._changed.set()

    def _found(self, delivery: _Delivery) -> Found:
        body = delivery.body
        if delivery.properties.content_encoding == GZIP:
            body = inflate(body, limit_bytes=self._work.limit_bytes)
        return Found(self._queue, delivery.properties, body)

    def _leaves_at(self, delivery: _Delivery) -> Leaves | None:
        sent_at_s = delivery.properties.time_s
        if self._rung is None or not sent_at_s:
            return None
        return leaves_at(self._rung, delivery.key, sent_at_s, self._work.unit_s)

    # Publishing.

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._changed.set()

    async def _move(self, hand: _Hand, delivery: _Delivery, parcel: Parcel, leaves: Leaves | None) -> None:
        if await self._published(self._work.to or self._work.queue, parcel, 0.0):
            self._moved += 1
            hand.ack(delivery.tag)
        else:
            hand.hold(delivery, leaves)

    async def _put_back(self, hand: _Hand, delivery: _Delivery, found: Found, leaves: Leaves | None) -> None:
        """Publish again what no more can be held, to where it is on its way to or where it was."""
        parcel = Parcel(
            body=found.body,
            type=found.type or OUTBOX_TYPE,
            correlation_id=found.correlation_id,
            message_id=found.message_id or str(uuid.uuid4()),
            priority=found.priority,
            headers={**found.headers, **self._work.again},
        )
        delay_s = 0.0 if leaves is None else max(0.0, leaves[1] - time.time())
        if await self._published(self._work.queue, parcel, delay_s):
            hand.ack(delivery.tag)
        else:
            hand.hold(delivery, leaves)

    async def _published(self, queue: str, parcel: Parcel, delay_s: float) -> bool:
        try:
            await self._publish(queue, parcel, timeout_s=PUBLISH_TIMEOUT_S, delay_s=delay_s)
        except UnconfirmedPublish:
            self._refused += 1
            return False
        except BrokerUnavailable as error:
            self._failure = self._failure or error
            return False
        return True


class _Delivery(NamedTuple):
    """What a channel was handed."""

    tag: int
    redelivered: bool
    key: str
    properties: Properties
    body: bytes


class _Hand:
    """One channel with one consumer, and what it holds.

    Attributes:
        channel: Ours alone.
    """

    def __init__(
        self,
        channel: Channel,
        wire: Wire,
        prefetch: int,
        receive: Callable[[_Hand, _Delivery], None],
        on_end: Callable[[], None],
    ) -> None:
        self.channel = channel
        self._wire = wire
        self._prefetch = prefetch
        self._hand_on = receive
        self._deliveries = Deliveries(self._receive)
        self._key = ""
        self._tag = f"mtaq.sift.{uuid.uuid4()}"
        self._held_count = 0
        self._held = _Held()
        self._acks = _Acks()
        wire.tap(channel.number, self._hear)
        channel.closing.add_done_callback(lambda _: on_end())

    @property
    def is_closed(self) -> bool:
        """Is the channel gone, and with it everything that it held?"""
        return self.channel.is_closed

    @property
    def is_full(self) -> bool:
        """Does it hold so much that little more fits?"""
        return 4 * self._held_count >= 3 * self._prefetch

    async def start(self, queue: str) -> None:
        """Be handed what lies in *queue*."""
        await self.channel.basic_qos(prefetch_count=self._prefetch)
        await self.channel.basic_consume(queue, _receive_nothing, consumer_tag=self._tag)

    async def stop(self) -> None:
        """Be handed nothing more; what is held stays."""
        await self.channel.basic_cancel(self._tag)

    def hold(self, delivery: _Delivery, leaves: Leaves | None) -> None:
        """Keep it until the end, or until it should leave its rung."""
        self._held_count += 1
        self._acks.leave_some_out()
        if leaves is not None:
            earliest = time.time() + _AGAIN_S if delivery.redelivered else 0.0
            self._held.add(delivery.tag, max(leaves[0] + _LATE_S, earliest))

    def ack(self, tag: int) -> None:
        """It is safe elsewhere."""
        if self._acks.add(tag) >= max(self._prefetch // 8, 1):
            self.tell()

    def tell(self) -> None:
        """Acknowledge what is safe, and give back what should have left its rung.

        Many at a time: the queue makes an entry in its log of each word that it hears. What is given back then has
        expired, and the queue sends it on.
        """
        number, due, acks = self.channel.number, self._held.take_due(time.time()), self._acks.take()
        self._held_count -= len(due)
        if not self.channel.is_closed:
            self._wire.write(*(ack_frame(number, ack.delivery_tag, multiple=ack.multiple) for ack in acks))
            self._wire.write(*(requeue_frame(number, tag) for tag in due))

    def _hear(self, kind: int, payload: bytes) -> bool:
        if kind == METHOD and payload[:4] == DELIVER:
            self._key = read_routing_key(payload)
        return self._deliveries.hear(kind, payload)

    def _receive(self, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        self._hand_on(self, _Delivery(tag, redelivered, self._key, properties, body))


class _Held:
    """Tags of what is held, each with the time when it is to be given back; sixteen bytes each."""

    def __init__(self) -> None:
        self._tags = array("Q")
        self._times = array("d")
        self._first = 0

    def add(self, tag: int, until: float) -> None:
        """Add one; they come about in the order of their times."""
        self._tags.append(tag)
        self._times.append(until)

    def take_due(self, now: float) -> list[int]:
        """Take out those whose time has come."""
        begin = self._first
        while self._first < len(self._times) and self._times[self._first] <= now:
            self._first += 1
        return list(self._tags[begin : self._first])


class _Acks:
    """What is to be acknowledged. While nothing is held, one word says it of many."""

    def __init__(self) -> None:
        self._ledger: Ledger | None = Ledger()
        self._pending: list[Settlement] = []
        self._count = 0

    def add(self, tag: int) -> int:
        """Add one; return how many wait to be told."""
        if self._ledger is None:
            self._pending.append(Settlement(tag))
        else:
            self._ledger.settle(tag, requeue=False)
        self._count += 1
        return self._count

    def leave_some_out(self) -> None:
        """Something is held: from now on nothing may be said of all up to another."""
        if self._ledger is not None:
            self._pending = self._ledger.take()
            self._ledger = None

    def take(self) -> list[Settlement]:
        """Return what is to be told."""
        if self._ledger is not None:
            self._pending = self._ledger.take()
        pending, self._pending, self._count = self._pending, [], 0
        return pending


async def _receive_nothing(_delivered: DeliveredMessage) -> None:
    """For the library, which sees no delivery."""
