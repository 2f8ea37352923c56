"""A channel in confirm mode whose publishes are written, and answered, past the library (``broker.rabbitmq.wire``).

Opened and closed by ``aiormq``. RabbitMQ numbers the publishes of a channel as they come, and so does this.
"""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple

from aiormq.channel import Channel

from mtaq.broker.rabbitmq.frames import (
    ACK,
    CHANNEL_CLOSE,
    HEADER,
    METHOD,
    NACK,
    RETURN,
    publish_frames,
    read_confirm,
    read_properties,
)
from mtaq.broker.rabbitmq.wire import Wire

#: What became of a publish: it is stored, the queue would not have it, or there is no queue.
Confirm = Literal["stored", "refused", "returned"]


class _Publish(NamedTuple):
    message_id: str
    confirm: asyncio.Future[Confirm]


class ConfirmChannel:
    """One channel to publish on."""

    def __init__(self, channel: Channel, wire: Wire) -> None:
        """Take over *channel*, on which nothing has been published, of the connection under *wire*."""
        self._channel = channel
        self._wire = wire
        self._loop = asyncio.get_running_loop()
        self._published = 0
        self._unconfirmed: dict[int, _Publish] = {}
        self._tags: dict[str, int] = {}
        self._returning = False
        self._returning_bytes = 0
        self._is_closing = False
        wire.tap(channel.number, self._hear)
        channel.closing.add_done_callback(self._ended)

    @property
    def is_closed(self) -> bool:
        """Can nothing be published here any more?"""
        return self._is_closing or self._channel.is_closed

    def publish(self, method: bytes, header: bytes, body: bytes, message_id: str) -> asyncio.Future[Confirm]:
        """
        Write one message.

        Args:
            method: ``frames.publish_method``.
            header: ``frames.content_header``.
            message_id: The one in *header*; no other message under way here has it.

        Returns:
            What will become of it. It raises what ended the channel, if that comes first.
        """
        self._published += 1
        tag = self._published
        publish = self._unconfirmed[tag] = _Publish(message_id, self._loop.create_future())
        self._tags[message_id] = tag
        channel = self._channel
        self._wire.write(*publish_frames(channel.number, method, header, body, piece_bytes=channel.max_content_size))
        return publish.confirm

    def _hear(self, kind: int, payload: bytes) -> bool:
        if kind != METHOD:
            return self._hear_content(kind, payload)
        method = payload[:4]
        if method == ACK:
            self._confirmed(payload, "stored")
        elif method == NACK:
            self._confirmed(payload, "refused")
        elif method == RETURN:
            self._returning = True
        else:
            # A channel that the broker has closed is no channel to publish on until the library knows it too.
            self._is_closing |= method == CHANNEL_CLOSE
            return False
        return True

    def _hear_content(self, kind: int, payload: bytes) -> bool:
        """Take what was returned; the confirm that follows comes too late to say that it is stored."""
        if not self._returning:
            return False
        if kind == HEADER:
            properties = read_properties(payload)
            self._returning_bytes = properties.size_bytes
            tag = self._tags.get(properties.message_id)
            if tag is not None:
                _tell(self._unconfirmed[tag], "returned")
        else:
            self._returning_bytes -= len(payload)
        self._returning = self._returning_bytes > 0
        return True

    def _confirmed(self, payload: bytes, confirm: Confirm) -> None:
        tag, multiple = read_confirm(payload)
        for each in [known for known in self._unconfirmed if known <= tag] if multiple else (tag,):
            publish = self._unconfirmed.pop(each, None)
            if publish is not None:
                if self._tags.get(publish.message_id) == each:
                    del self._tags[publish.message_id]
                _tell(publish, confirm)

    def _ended(self, closing: asyncio.Future[object]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if not isinstance(error, Exception):
            error = ConnectionError("connection lost")
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for publish in unconfirmed.values():
            if not publish.confirm.done():
                publish.confirm.set_exception(error)


def _tell(publish: _Publish, confirm: Confirm) -> None:
    if not publish.confirm.done():  # nobody waits any more, or it was returned
        publish.confirm.set_result(confirm)
