"""Access to the queues for consumer scripts: connect, consume, publish.

Decides what happens to a message when a script fails, and with which properties it is published on. Nothing is
declared here: the queues are ``mtaq run``'s. Every failure is a ``BrokerError``.

A failing message is published back to the end of its queue with a header that counts the tries, then acked. So the
count means failures of the script and nothing else (a broker's own delivery count also grows with every restart), the
same on both kinds of queue, and a bad message does not stand in the way of the others. A crash between the two leaves
two copies: at-least-once, as everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Self

import orjson

from mtaq.broker import Broker, BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.broker.port import Consumer
from mtaq.client.message import ORIGIN_HEADER, REDELIVERED_HEADER, TRIES_HEADER, Failed, Message
from mtaq.model.errors import BrokerError, BrokerUnavailable, TopologyMismatch
from mtaq.model.parcel import OUTBOX_TYPE, Consumed, Parcel, QueueSpec

#: The largest a RabbitMQ 3.x takes; a broker that takes less says so itself.
_MAX_SIZE_BYTES = 128 << 20
#: Wait before the next message when the broker is away.
_PAUSE_S = 1.0

_log = logging.getLogger("mtaq.client")

MakeMessage = Callable[[Consumed, dict[str, Any], Failed], Message]


@contextlib.asynccontextmanager
async def connect(address: str, *, timeout_s: float = 30.0, verify: bool = True) -> AsyncIterator[Queues]:
    """Connect to the queues for the length of the block.

    Args:
        address: ``amqp(s)://user:password@host/vhost``, the nodes of a cluster separated by commas, or
            ``embedded:///folder`` on the host of that queue, as the user who owns it.
        timeout_s: Longest wait for a publish.
        verify: Check the broker's certificate.

    Raises:
        ConfigError: Not such an address.
        BrokerUnavailable: No broker answered in time.
    """
    options = BrokerOptions(
        addresses=parse_addresses(address),
        verify=verify,
        declare=False,
        max_size_bytes=_MAX_SIZE_BYTES,
        name="mtaq.client",
    )
    broker = open_broker(options)
    await broker.start()
    try:
        yield Queues(broker, timeout_s=timeout_s)
    finally:
        await broker.close()


class Queues:
    """The queues of one broker."""

    def __init__(self, broker: Broker, *, timeout_s: float) -> None:
        self._broker = broker
        self._timeout_s = timeout_s
        self._consumptions: list[Consumption] = []
        self._stopping = False

    def consume(
        self,
        queue: str,
        *,
        prefetch: int = 100,
        tries: int = 5,
        dead: str = "dead",
        make: MakeMessage = Message,
    ) -> Consumption:
        """Take messages from *queue*, in an ``async for``; several tasks may share one.

        Args:
            queue: What is consumed.
            prefetch: Most messages held here, unsettled, at a time.
            tries: A message on which the script has failed so often goes to *dead*, the reason in its header.
            dead: That queue. What is no JSON object goes there at once.
            make: Class of the messages.

        Raises:
            BrokerError: From the iteration: there is no such queue.
        """
        consumption = Consumption(self, self._broker, queue, prefetch=prefetch, tries=tries, dead=dead, make=make)
        self._consumptions.append(consumption)
        if self._stopping:
            consumption.stop()
        return consumption

    async def publish(
        self,
        queue: str,
        message: Message | Mapping[str, Any],
        *,
        delay: float = 0.0,
        priority: int | None = None,
    ) -> None:
        """Publish *message* to *queue*; when this returns it is safe there.

        A message that was consumed keeps its trace, its priority and its identity.

        Args:
            queue: Where it goes; it must exist.
            message: One that was consumed, changed or not, or any mapping that JSON can hold.
            delay: Seconds until it may be taken; > 0 only for the outbox.
            priority: AMQP priority; ``None`` = the JSON's ``priority``, else the consumed message's own.

        Raises:
            BrokerUnavailable: Not confirmed in time. It may be there nevertheless.
            UnconfirmedPublish: Refused: no such queue, none with delays, too large.
        """
        parcel = _parcel(queue, message, priority)
        if delay > 0:  # a broker that dies while it ends the delay may have the message twice afterwards
            parcel = replace(parcel, headers={**parcel.headers, REDELIVERED_HEADER: True})
        await self.put(queue, parcel, delay_s=delay)

    async def put(self, queue: str, parcel: Parcel, *, delay_s: float = 0.0) -> None:
        """Publish *parcel* as it is."""
        await self._broker.publish(queue, parcel, timeout_s=self._timeout_s, delay_s=delay_s)

    def stop(self) -> None:
        """End every ``async for`` over a queue after the message it is at; what was fetched beyond it goes back."""
        self._stopping = True
        for consumption in self._consumptions:
            consumption.stop()

    def stop_on_signals(self) -> None:
        """``stop`` at the first SIGINT or SIGTERM; the second one does what it always does."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)


class Consumption:
    """The messages of one queue, one after the other, until it is stopped."""

    def __init__(
        self, queues: Queues, broker: Broker, queue: str, *, prefetch: int, tries: int, dead: str, make: MakeMessage
    ) -> None:
        self._queues = queues
        self._broker = broker
        self._queue = queue
        self._prefetch = prefetch
        self._tries = tries
        self._dead = dead
        self._make = make
        self._consumer: Consumer | None = None
        self._arrived: asyncio.Queue[Consumed | None] = asyncio.Queue()
        self._starting = asyncio.Lock()
        self._stopped = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        message = await self.next()
        if message is None:
            raise StopAsyncIteration
        return message

    async def next(self) -> Message | None:
        """Return the next message; ``None`` when stopped.

        Raises:
            BrokerError: There is no such queue.
        """
        async with self._starting:
            if self._consumer is None and not self._stopped.is_set():
                await self._start()
        while not self._stopped.is_set():
            consumed = await self._arrived.get()
            if self._stopped.is_set():
                self._arrived.put_nowait(consumed)  # wakes the next task, or goes back below
            # What a lost connection had brought comes again; the script shall not act on both.
            elif consumed is not None and not consumed.is_stale:
                message = await self._understood(consumed)
                if message is not None:
                    return message
        await self._give_back()
        return None

    async def aclose(self) -> None:
        """Stop, and give back what was fetched and not handed to the script: after a ``break``, say."""
        self.stop()
        await self._give_back()

    async def _start(self) -> None:
        try:
            await self._broker.declare([QueueSpec(name=self._queue)])
        except TopologyMismatch as error:
            raise BrokerError(
                f"there is no queue {self._queue!r}: `mtaq run` declares those it is set up for"
            ) from error
        self._consumer = self._broker.consume(self._queue, prefetch=self._prefetch, on_message=self._arrived.put_nowait)

    def stop(self) -> None:
        """Let the iteration end; may be called from it, too."""
        self._stopped.set()
        self._arrived.put_nowait(None)

    async def _give_back(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
        while not self._arrived.empty():
            if (consumed := self._arrived.get_nowait()) is not None:
                consumed.requeue()
        self._arrived.put_nowait(None)

    async def _understood(self, consumed: Consumed) -> Message | None:
        try:
            properties = orjson.loads(consumed.body)
            if isinstance(properties, dict):
                return self._make(consumed, properties, self._failed)
            reason = "a JSON object is expected"
        except orjson.JSONDecodeError as error:
            reason = f"not JSON: {error}"
        message = Message(consumed, {}, self._failed)
        await self._settle(message, self._bury(message, reason))
        return None

    async def _failed(self, message: Message, error: Exception) -> bool:
        """Say what becomes of *message*, whose block raised *error*.

        Returns:
            Whether the script goes on. A publish that was refused ends it: mostly a queue is missing.
        """
        if isinstance(error, BrokerUnavailable):
            await self._wait_for_broker(message, error)
            return True
        tried = message.tries + 1
        _log.error("%r: try %d of %d failed", message, tried, self._tries, exc_info=error)
        if tried < self._tries:
            await self._settle(message, self._try_again(message, tried))
        else:
            await self._settle(message, self._bury(message, f"{type(error).__name__}: {error}"))
        return not isinstance(error, BrokerError)

    async def _settle(self, message: Message, publish: Awaitable[None]) -> None:
        """Ack *message* once *publish* has put it elsewhere; if that fails it stays where it is."""
        try:
            await publish
        except BrokerUnavailable as error:
            await self._wait_for_broker(message, error)
        except BaseException:
            message.requeue()
            raise
        else:
            message.ack()

    async def _wait_for_broker(self, message: Message, error: BrokerUnavailable) -> None:
        _log.warning("%r goes back to its queue: %s", message, error)
        message.requeue()
        await asyncio.sleep(_PAUSE_S)

    async def _try_again(self, message: Message, tried: int) -> None:
        headers: dict[str, str | int | bool] = {
            TRIES_HEADER: tried,
            REDELIVERED_HEADER: True,
            ORIGIN_HEADER: message.origin,
        }
        copy = _copy(message, headers, message.derived_id(self._queue, f"try {tried}"))
        await self._queues.put(self._queue, copy)

    async def _bury(self, message: Message, reason: str) -> None:
        headers = {"reason": reason[:1000], "queue": self._queue}
        await self._queues.put(self._dead, _copy(message, headers, message.derived_id(self._dead, "dead")))


def _parcel(queue: str, message: Message | Mapping[str, Any], priority: int | None) -> Parcel:
    if priority is None:
        priority = _priority(message)
    message_id = message.get("message-id")
    correlation_id = message_id if isinstance(message_id, str) else ""
    if not isinstance(message, Message):
        return Parcel(
            body=orjson.dumps(dict(message)), type=OUTBOX_TYPE, correlation_id=correlation_id, priority=priority
        )
    headers = _trace(message)
    if message.redelivered:
        headers[REDELIVERED_HEADER] = True
    return Parcel(
        body=orjson.dumps(dict(message)),
        type=OUTBOX_TYPE,
        correlation_id=correlation_id or message.consumed.correlation_id,
        message_id=message.next_message_id(queue),
        priority=priority,
        headers=headers,
    )


def _copy(message: Message, headers: Mapping[str, str | int | bool], message_id: str | None) -> Parcel:
    """The message as it came, whatever the script has done to it since."""
    consumed = message.consumed
    return Parcel(
        body=consumed.body,
        type=consumed.type or OUTBOX_TYPE,
        correlation_id=consumed.correlation_id,
        message_id=message_id,
        priority=consumed.priority,
        headers={**_trace(message), **headers},
    )


def _trace(message: Message) -> dict[str, str | int | bool]:
    """The headers that go on with the message: ours and the trace's, never what a broker wrote (``x-death``)."""
    headers = message.consumed.headers
    return {name: headers[name] for name in ("traceparent",) if name in headers}


def _priority(message: Message | Mapping[str, Any]) -> int:
    wished = message.get("priority")
    if isinstance(wished, int):
        return min(max(wished, 0), 255)
    return message.consumed.priority if isinstance(message, Message) else 0
