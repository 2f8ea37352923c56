"""Consuming: every message handed out once per channel, settled in batches, and consumption that comes back.

A channel belongs to one consumption. When it is lost, whatever was handed out by it counts as unsettled at the
broker, which hands it out again; settling a stale message does nothing. Nothing here raises into ``on_message``'s
callers, and an error of *on_message* itself goes to the loop's exception handler; the message then stays unsettled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import Callable, Mapping

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from mtaq.broker.rabbitmq.content import GZIP, headers_of, inflate
from mtaq.broker.rabbitmq.deliveries import Deliveries
from mtaq.broker.rabbitmq.frames import Properties, ack_frame, requeue_frame
from mtaq.broker.rabbitmq.ledger import Ledger
from mtaq.broker.rabbitmq.link import RPC_TIMEOUT_S, Link, translated
from mtaq.broker.rabbitmq.wire import Wire
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.parcel import Consumed

#: RabbitMQ's documentation names this the most that still makes a difference.
_MOST_PREFETCH = 2000

_BACKOFF_S = (0.1, 0.5, 1.0, 2.0, 5.0)
_CLOSE_TIMEOUT_S = 5.0

#: Inflating more than this would stop the event loop for milliseconds.
_INFLATE_ASIDE_BYTES = 256 * 1024

OnMessage = Callable[[Consumed], None]


class RabbitMQMessage:
    """A ``Consumed`` of this adapter; bound to the channel it came by."""

    __slots__ = ("_batch", "_delivery_tag", "_properties", "body", "queue", "redelivered")

    def __init__(
        self, batch: Batch, queue: str, delivery_tag: int, redelivered: bool, properties: Properties, body: bytes
    ) -> None:
        self.queue = queue
        self.body = body
        self.redelivered = redelivered
        self._properties = properties
        self._delivery_tag = delivery_tag
        self._batch = batch

    @property
    def is_stale(self) -> bool:
        """Its channel is gone."""
        return self._batch.channel.is_closed

    @property
    def type(self) -> str:
        """AMQP ``type``."""
        return self._properties.type

    @property
    def correlation_id(self) -> str:
        """AMQP ``correlation_id``."""
        return self._properties.correlation_id

    @property
    def message_id(self) -> str:
        """AMQP ``message_id``."""
        return self._properties.message_id

    @property
    def priority(self) -> int:
        """AMQP ``priority``."""
        return self._properties.priority

    @property
    def headers(self) -> Mapping[str, str | int | bool]:
        """The publisher's headers."""
        return headers_of(self._properties.headers)

    def ack(self) -> None:
        """Settle it."""
        self._batch.settle(self._delivery_tag, requeue=False)

    def requeue(self) -> None:
        """Give it back."""
        self._batch.settle(self._delivery_tag, requeue=True)


class Batch:
    """What one channel handed out: collects how it was settled and tells the broker, many at a time.

    Each word about it goes into the queue's own log, so the fewer the better. But it does not wait for company until
    the prefetch is used up: the broker would have nothing to send meanwhile.
    """

    def __init__(self, channel: Channel, wire: Wire, *, prefetch: int, settle_within_s: float) -> None:
        self.channel = channel
        self._settle_within_s = settle_within_s
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._ledger = Ledger()
        self._most_untold = prefetch // 4 if settle_within_s else 0
        self._untold = 0
        self._telling: asyncio.TimerHandle | None = None
        self._open = 0
        self._draining = False
        self._leaving = False
        self._changed = asyncio.Event()
        channel.closing.add_done_callback(lambda _: self._changed.set())
        self._task = asyncio.create_task(self._run())

    def hand_out(self) -> None:
        """Count one more message out."""
        self._open += 1

    def settle(self, delivery_tag: int, *, requeue: bool) -> None:
        """Note how a message ended; the broker hears of it soon."""
        if self._ledger.settle(delivery_tag, requeue=requeue):
            self._open -= 1
            self._untold += 1
            if self._untold > self._most_untold or self._draining:
                self._changed.set()
            elif self._telling is None:
                self._telling = self._loop.call_later(self._settle_within_s, self._changed.set)

    def drain(self) -> None:
        """Close the channel as soon as everything handed out is settled."""
        self._draining = True
        self._changed.set()

    async def leave(self) -> None:
        """Close the channel now, settlements first: what is not settled goes back to the queue."""
        self._leaving = True
        self._changed.set()
        _, unfinished = await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)
        for task in unfinished:
            task.cancel()

    def _is_over(self) -> bool:
        return self._leaving or self.channel.is_closed or (self._draining and not self._open)

    async def _run(self) -> None:
        with contextlib.suppress(BrokerUnavailable), translated("settling"):  # lost: it is all handed out again
            while not self._is_over():
                await self._changed.wait()
                self._changed.clear()
                self._flush()
        # Also after a failure: an open channel on which nothing is settled any more would keep its messages for ever.
        with contextlib.suppress(BrokerUnavailable), translated("closing a channel"):
            await self.channel.close()

    def _flush(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._untold = 0
        if self.channel.is_closed:
            return
        number = self.channel.number
        for tag, requeue, multiple in self._ledger.take():
            self._wire.write(requeue_frame(number, tag) if requeue else ack_frame(number, tag, multiple=multiple))
        self._wire.flush()  # before the channel may be closed


class Consumption:
    """A ``Consumer`` of this adapter: consumes one queue until it is stopped, whatever happens to the connection."""

    def __init__(
        self,
        link: Link,
        queue: str,
        *,
        prefetch: int,
        on_message: OnMessage,
        limit_bytes: int,
        settle_within_s: float,
    ) -> None:
        self._link = link
        self._queue = queue
        self._prefetch = min(prefetch, _MOST_PREFETCH)
        self._on_message = on_message
        self._limit_bytes = limit_bytes
        self._settle_within_s = settle_within_s
        self._tag = f"mtaq.{uuid.uuid4()}"
        self._batch: Batch | None = None
        self._inflating: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._nudge = asyncio.Event()  # ends the present wait: stopping, cancelled by the broker, channel gone
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Take nothing more; what was handed out may still be settled."""
        await self._end()
        if self._batch is not None and not self._batch.channel.is_closed:
            with contextlib.suppress(BrokerUnavailable), translated("cancelling a consumer"):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await self._batch.channel.basic_cancel(self._tag)
            self._batch.drain()

    async def close(self) -> None:
        """Stop at once; what is not settled goes back."""
        await self._end()
        for task in self._inflating:
            task.cancel()
        await asyncio.gather(*self._inflating, return_exceptions=True)
        if self._batch is not None:
            await self._batch.leave()

    async def _end(self) -> None:
        self._stopping = True
        self._nudge.set()
        # Left to come to its end, because aiormq gives up the channel of a method that is cancelled under way.
        _, unfinished = await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)
        if unfinished:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_CLOSE_TIMEOUT_S)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                await self._begin()
                failures = 0
                await self._wait()
            except BrokerUnavailable:
                failures += 1
            except Exception as error:  # whatever it is, consumption must not end in silence
                failures += 1
                _report(f"error while consuming {self._queue}", error)
            if not self._stopping:
                await self._abandon()
                await self._wait(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    async def _begin(self) -> None:
        """Start consuming on a new channel; a nudge comes when that ends."""
        await self._link.open()
        while not self._link.is_up and not self._stopping:
            await self._wait(_BACKOFF_S[0])
        channel, wire = await self._link.wired_channel(confirms=False)
        batch = self._batch = Batch(channel, wire, prefetch=self._prefetch, settle_within_s=self._settle_within_s)
        ended = self._nudge = asyncio.Event()
        channel.closing.add_done_callback(lambda _: ended.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        with translated(f"cannot consume {self._queue}"):
            async with asyncio.timeout(RPC_TIMEOUT_S):
                await channel.basic_qos(prefetch_count=self._prefetch)
                wire.tap(channel.number, Deliveries(functools.partial(self._receive, batch)).hear)
                await channel.basic_consume(self._queue, _receive_nothing, consumer_tag=self._tag)

    async def _abandon(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            await batch.leave()

    async def _wait(self, most_s: float | None = None) -> None:
        """Wait for what ends the consumption, or for *most_s* and for stop alone."""
        if most_s is not None:
            self._nudge = asyncio.Event()
        if not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(most_s):
                    await self._nudge.wait()

    def _receive(self, batch: Batch, delivery_tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        batch.hand_out()
        message = RabbitMQMessage(batch, self._queue, delivery_tag, redelivered, properties, body)
        if properties.content_encoding != GZIP:
            self._hand_on(message)
        elif len(body) <= _INFLATE_ASIDE_BYTES:
            message.body = inflate(body, limit_bytes=self._limit_bytes)
            self._hand_on(message)
        else:
            task = asyncio.create_task(self._inflate_aside(message))
            self._inflating.add(task)
            task.add_done_callback(self._inflating.discard)

    async def _inflate_aside(self, message: RabbitMQMessage) -> None:
        message.body = await asyncio.to_thread(inflate, message.body, limit_bytes=self._limit_bytes)
        self._hand_on(message)

    def _hand_on(self, message: RabbitMQMessage) -> None:
        if self._stopping:
            message.requeue()
            return
        try:
            self._on_message(message)
        except Exception as error:  # a bug of the consumer must not end the consumption
            _report(f"error while handling a message of {self._queue}", error)


async def _receive_nothing(_delivered: DeliveredMessage) -> None:
    """For the library, which sees no delivery."""


def _report(what: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
