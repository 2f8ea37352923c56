"""Publishing with confirms: when ``send`` returns, the broker has taken the message.

Publishes of the whole process share a few confirm channels, each with a bounded window; large bodies have one of
their own, because a body occupies its channel until it is written. The frames go past the library
(``broker.rabbitmq.confirms``). Nothing is ever sent twice: on any doubt the caller is told and decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import time
from collections.abc import AsyncIterator

from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.confirms import Confirm, ConfirmChannel
from mtaq.broker.rabbitmq.content import GZIP, INFLATION, deflate, fresh_ids
from mtaq.broker.rabbitmq.frames import content_header, publish_method
from mtaq.broker.rabbitmq.ladder import trip
from mtaq.broker.rabbitmq.link import Link, translated
from mtaq.broker.rabbitmq.topology import Topology
from mtaq.model.errors import BrokerUnavailable, TooLarge, UnconfirmedPublish
from mtaq.model.parcel import Parcel

_LANES = 3
_LARGE_BYTES = 1024 * 1024

#: Each large body under way is held by its publisher until it is confirmed.
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
        self._large = _Lane(link, min(_LARGE_WINDOW, options.throttle))
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
        try:
            method = publish_method(exchange, key)
            header = self._header(parcel, len(body), message_id)
        except (ValueError, TypeError, struct.error) as error:  # AMQP cannot say it: names and ids have 255 bytes
            raise UnconfirmedPublish(f"a message for {key} that cannot be written: {error}") from error
        try:
            confirm = await lane.send(method, header, body, message_id)
        except ChannelNotFoundEntity:
            self._seen_exchanges = {""}  # one of them was deleted behind our back
            raise
        except ChannelPreconditionFailed as error:
            _raise_if_too_large(len(body), error)
            raise
        if confirm == "refused":
            raise UnconfirmedPublish(f"the broker refused a message for {key}")
        if confirm == "returned":
            raise UnconfirmedPublish(f"there is no queue for {key}")

    def _header(self, parcel: Parcel, size_bytes: int, message_id: str) -> bytes:
        options = self._options
        return content_header(
            parcel, size_bytes, message_id=message_id, time_s=int(time.time()), persistent=options.persistent,
            encoding=options.encoding,
        )  # fmt: skip

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
        # Returned messages are told apart by message_id: two under way with one id could swap their results.
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

    def __init__(self, link: Link, window: int) -> None:
        self._link = link
        self._window = asyncio.Semaphore(window)
        self._window_size = window
        self._opening = asyncio.Lock()
        self._channel: ConfirmChannel | None = None
        self._load = 0

    def full_windows(self) -> int:
        """How many windows do the publishes fill that are under way or wait here?

        Every lane with room left counts the same, so that one is used before the next is begun: the busier a channel,
        the more of its confirms come in one frame.
        """
        return self._load // self._window_size

    async def send(self, method: bytes, header: bytes, body: bytes, message_id: str) -> Confirm:
        """Publish and return the broker's answer. Raises the library's errors."""
        self._load += 1
        try:
            async with self._window:
                channel = self._channel
                if channel is None or channel.is_closed:
                    channel = await self._open()
                return await channel.publish(method, header, body, message_id)
        finally:
            self._load -= 1

    async def _open(self) -> ConfirmChannel:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = ConfirmChannel(*await self._link.wired_channel(confirms=True))
            return self._channel


_TOO_LARGE = re.compile(r"message size \d+ is larger than configured max size (\d+)")


def _raise_if_too_large(size_bytes: int, error: ChannelPreconditionFailed) -> None:
    """Tell the message that was too large from those that only shared its channel."""
    found = _TOO_LARGE.search(str(error))
    if found and size_bytes > int(found[1]):
        raise TooLarge(f"{size_bytes} bytes are more than the broker takes ({found[1]})") from error
