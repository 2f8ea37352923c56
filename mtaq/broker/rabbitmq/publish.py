"""Publishing with confirms: when ``send`` returns, the broker has taken the message.

Publishes of the whole process share a few confirm channels, each with a bounded window; large bodies have one of
their own, because a body occupies its channel until it is written. The frames go through the ``aiormq`` channel
directly. Nothing is ever sent twice: on any doubt the caller is told and decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed, DeliveryError
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.heartbeat import Heartbeat

from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.content import GZIP, INFLATION, deflate, fresh_ids, properties_of
from mtaq.broker.rabbitmq.ladder import trip
from mtaq.broker.rabbitmq.link import Link, translated
from mtaq.broker.rabbitmq.topology import Topology
from mtaq.model.errors import BrokerUnavailable, TooLarge, UnconfirmedPublish
from mtaq.model.parcel import Parcel

_LANES = 3
_LARGE_BYTES = 1024 * 1024

#: Each large body under way is held twice, by its publisher and as frames.
_LARGE_WINDOW = 4

#: Compressing more than this would stop the event loop for milliseconds.
_COMPRESS_ASIDE_BYTES = 256 * 1024


class Publisher:
    """All publishing of one broker."""

    def __init__(self, link: Link, topology: Topology, options: BrokerOptions, *, unit_s: float) -> None:
        self._link = link
        self._topology = topology
        self._options = options
        self._unit_s = unit_s
        self._lanes = [_Lane(link, options.throttle) for _ in range(_LANES)]
        self._large = _Lane(link, min(_LARGE_WINDOW, options.throttle), large=True)
        self._fresh_ids = fresh_ids()
        self._seen_exchanges = {""}
        self._under_way: dict[str, asyncio.Future[None]] = {}

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float) -> None:
        """As ``Broker.publish``."""
        exchange, key = trip(queue, delay_s, self._unit_s) if delay_s > 0 else (self._options.exchange, queue)
        doing = f"publishing to {queue}"
        with translated(doing):
            try:
                async with asyncio.timeout(timeout_s):
                    if exchange not in self._seen_exchanges:
                        await self._look_for(exchange)
                    body = await self._encode(parcel.body)
                    if parcel.message_id is None:
                        await self._send(exchange, key, body, parcel, next(self._fresh_ids))
                    else:
                        async with self._alone(parcel.message_id):
                            await self._send(exchange, key, body, parcel, parcel.message_id)
            except TimeoutError as error:
                raise BrokerUnavailable(f"{doing}: not confirmed within {timeout_s:g} s") from error

    async def _send(self, exchange: str, key: str, body: bytes, parcel: Parcel, message_id: str) -> None:
        if self._link.is_blocked:
            raise BrokerUnavailable("the broker is blocked: it is short of memory or disk space")
        lane = self._large if len(body) > _LARGE_BYTES else min(self._lanes, key=_Lane.full_windows)
        properties = properties_of(
            parcel, message_id=message_id, persistent=self._options.persistent, encoding=self._options.encoding
        )
        try:
            result = await lane.send(exchange, key, body, properties)
        except DeliveryError as error:
            raise UnconfirmedPublish(f"the broker refused a message for {key}: {error}") from error
        except (ValueError, TypeError, struct.error) as error:  # AMQP cannot say it: names and ids have 255 bytes
            raise UnconfirmedPublish(f"a message for {key} that cannot be written: {error}") from error
        except ChannelNotFoundEntity:
            self._seen_exchanges = {""}  # one of them was deleted behind our back
            raise
        except ChannelPreconditionFailed as error:
            _raise_if_too_large(len(body), error)
            raise
        # Anything but an Ack means that it is not stored; an unroutable message comes back as a DeliveredMessage.
        if not isinstance(result, Basic.Ack):
            raise UnconfirmedPublish(f"there is no queue for {key}: {getattr(result, 'delivery', result)}")

    async def _encode(self, body: bytes) -> bytes:
        most = self._options.max_size_bytes
        if self._options.encoding == GZIP:
            if len(body) > INFLATION * most:
                raise TooLarge(f"{len(body)} bytes are more than may be compressed ({INFLATION * most})")
            body = await asyncio.to_thread(deflate, body) if len(body) > _COMPRESS_ASIDE_BYTES else deflate(body)
        if len(body) > most:
            raise TooLarge(f"{len(body)} bytes are more than the broker takes ({most})")
        return body

    async def _look_for(self, exchange: str) -> None:
        # Publishing to an exchange that is not there would close the channel under everybody else's publishes.
        if not await self._topology.has_exchange(exchange):
            raise UnconfirmedPublish(f"exchange {exchange} does not exist")
        self._seen_exchanges.add(exchange)

    @contextlib.asynccontextmanager
    async def _alone(self, message_id: str) -> AsyncIterator[None]:
        # aiormq tells returned messages apart by message_id: two under way with one id could swap their results.
        while (other := self._under_way.get(message_id)) is not None:
            await asyncio.wait([other])
        mine = self._under_way[message_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._under_way[message_id]
            mine.set_result(None)


class _Lane:
    """One confirm channel, opened when needed and again after it was lost."""

    def __init__(self, link: Link, window: int, *, large: bool = False) -> None:
        self._link = link
        self._large = large
        self._window = asyncio.Semaphore(window)
        self._window_size = window
        self._opening = asyncio.Lock()
        self._channel: Channel | None = None
        self._load = 0

    def full_windows(self) -> int:
        """How many windows do the publishes fill that are under way or wait here?

        Every lane with room left counts the same, so that one is used before the next is begun: the busier a channel,
        the more of its confirms come in one frame.
        """
        return self._load // self._window_size

    async def send(self, exchange: str, key: str, body: bytes, properties: Basic.Properties) -> object:
        """Publish and return the broker's answer: ``Basic.Ack``, or what was returned. Raises the library's errors."""
        self._load += 1
        try:
            async with self._window:
                channel = self._channel
                if channel is None or channel.is_closed:
                    channel = await self._open()
                answer = await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    wait=self._large,
                )
                if self._large:
                    _let_go(channel)
                return answer
        finally:
            self._load -= 1

    async def _open(self) -> Channel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._link.channel(confirms=True)
                if self._large:
                    _cut_late(self._channel)
            return self._channel


def _let_go(channel: Channel) -> None:
    """Have aiormq forget the frames of a large body: it holds what it wrote last until it writes something else."""
    with contextlib.suppress(asyncio.QueueFull):  # then something else is about to be written
        channel.write_queue.put_nowait(ChannelFrame.marshall(channel_number=0, frames=[Heartbeat()]))


class _Piece(ContentBody):
    """A part of a body that is not cut from it before it is written."""

    def __init__(self, body: bytes, start: int, size: int) -> None:
        super().__init__(b"")
        self._part = memoryview(body)[start : start + size]

    def marshal(self) -> bytes:
        return self._part  # type: ignore[return-value]  # only joined with the frame's ends, which takes any buffer


def _cut_late(channel: Channel) -> None:
    """Keep aiormq from cutting a whole body into pieces first, which holds it once more until the confirm."""

    def split(body: bytes) -> list[ContentBody]:
        size = channel.max_content_size
        return [_Piece(body, start, size) for start in range(0, len(body), size)]

    channel._split_body = split  # type: ignore[method-assign]  # the one place where aiormq cuts


_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (\d+)")


def _raise_if_too_large(size_bytes: int, error: ChannelPreconditionFailed) -> None:
    """Tell the message that was too large from those that only shared its channel."""
    found = _TOO_LARGE.search(str(error))
    if found and size_bytes > int(found[1]):
        raise TooLarge(f"{size_bytes} bytes are more than the broker takes ({found[1]})") from error
