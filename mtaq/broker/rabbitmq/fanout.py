"""Telling every process something: a fanout exchange, and a queue of its own for each process that listens.

A notice is a hint and nothing else: it may be lost with a connection, and nobody is told. So whoever listens gets an
empty notice each time listening begins, for what may have been missed. The queues belong to their connection and go
with it. Everything runs on the connection that publishes: one that RabbitMQ blocks still brings what comes in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.link import RPC_TIMEOUT_S, Link, translated
from mtaq.model.errors import BrokerUnavailable

_LOG = logging.getLogger(__name__)

#: Between attempts to listen: while there is no connection, and while there is one that does not allow it.
_RETRY_S, _RETRY_REFUSED_S = 0.2, 5.0
_CLOSE_TIMEOUT_S = 5.0

#: Notices for a process that does not read; the newest say as much as all of them.
_LONGEST_QUEUE = 100

OnNotice = Callable[[bytes], None]


async def broadcast(link: Link, options: BrokerOptions, exchange: str, body: bytes, *, timeout_s: float) -> None:
    """As ``Broker.broadcast``."""
    doing = f"telling {exchange}"
    with translated(doing):
        try:
            async with asyncio.timeout(timeout_s):
                channel = await link.channel(confirms=True)
                try:
                    await _have_exchange(channel, options, exchange)
                    await channel.basic_publish(body, exchange=exchange)
                finally:
                    await _close(channel)
        except TimeoutError as error:
            raise BrokerUnavailable(f"{doing}: not done within {timeout_s:g} s") from error


async def _have_exchange(channel: Channel, options: BrokerOptions, exchange: str) -> None:
    await channel.exchange_declare(exchange, exchange_type="fanout", durable=True, passive=not options.declare)


async def _close(channel: Channel) -> None:
    with contextlib.suppress(BrokerUnavailable, TimeoutError), translated("closing a channel"):
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await channel.close()


class Listening:
    """A ``Consumer`` of this adapter: hears one exchange until it is stopped, whatever happens to the connection."""

    def __init__(self, link: Link, options: BrokerOptions, exchange: str, on_notice: OnNotice) -> None:
        self._link = link
        self._options = options
        self._exchange = exchange
        self._on_notice = on_notice
        self._told = ""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Hear nothing more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            pause_s = _RETRY_S
            try:
                await self._listen()
            except BrokerUnavailable as error:
                if self._link.is_up:
                    pause_s = _RETRY_REFUSED_S
                    self._tell(error)
            except Exception as error:  # whatever it is, listening must not end in silence
                pause_s = _RETRY_REFUSED_S
                self._report(f"error while listening to {self._exchange}", error)
            await asyncio.sleep(pause_s)

    async def _listen(self) -> None:
        """Hear until the channel ends."""
        channel = await self._link.channel(confirms=False)
        try:
            ended = asyncio.Event()
            channel.closing.add_done_callback(lambda _: ended.set())
            channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
            with translated(f"cannot listen to {self._exchange}"):
                async with asyncio.timeout(RPC_TIMEOUT_S):
                    await self._begin(channel)
            self._told = ""
            self._hand_over(b"")
            await ended.wait()
        finally:
            await _close(channel)

    async def _begin(self, channel: Channel) -> None:
        await _have_exchange(channel, self._options, self._exchange)
        declared = await channel.queue_declare(
            exclusive=True,
            auto_delete=True,
            arguments={"x-queue-type": "classic", "x-max-length": _LONGEST_QUEUE},
        )
        assert declared is not None
        assert declared.queue is not None
        await channel.queue_bind(declared.queue, self._exchange)
        await channel.basic_consume(declared.queue, self._receive, no_ack=True)

    async def _receive(self, delivered: DeliveredMessage) -> None:
        self._hand_over(delivered.body)

    def _hand_over(self, body: bytes) -> None:
        try:
            self._on_notice(body)
        except Exception as error:  # a bug of the listener must not end the listening
            self._report(f"error while handling a notice of {self._exchange}", error)

    def _tell(self, error: BrokerUnavailable) -> None:
        """Say once what a connection that works does not allow; that it is away is told otherwise."""
        if str(error) != self._told:
            self._told = str(error)
            _LOG.warning("%s", error)

    def _report(self, what: str, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
