"""Between a connection's socket and ``aiormq``: takes out the frames of channels that are worked past the library.

``aiormq`` gives every frame two task switches, several futures and an object with named fields; that is fine for a
declaration, and most of the cost of a message. So connecting, channels, heartbeats and whatever is asked and answered
stay its work, while the frames of messages go to whoever has tapped their channel. What no tap takes, and whatever
does not look like AMQP, goes on to the library, bytes unchanged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from mtaq.broker.rabbitmq.frames import BLOCKED, END, FRAME, FRAME_TYPES, HEARTBEAT_FRAME, METHOD, UNBLOCKED

#: The library ends a connection on which it hears nothing: so often it hears that the rest is alive.
_TELL_ALIVE_S = 1.0

#: Takes type and payload of a frame, or says ``False``: then the library gets it.
Tap = Callable[[int, bytes], bool]


class Wire(asyncio.Protocol):
    """One connection. Put under a stream that was just opened, before anything is read from it.

    Attributes:
        is_blocked: RabbitMQ has said that it takes nothing (``connection.blocked``).
    """

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._library = cast(asyncio.Protocol, transport.get_protocol())
        self._loop = asyncio.get_running_loop()
        self.is_blocked = False
        self._taps: dict[int, Tap] = {0: self._hear_connection}
        self._rest = b""
        self._is_amqp = True
        self._told_at = self._loop.time()
        self._unsent: list[bytes | memoryview] = []
        transport.set_protocol(self)

    def tap(self, channel: int, tap: Tap) -> None:
        """Hand what comes on *channel* to *tap* first. The tap of the channel that had the number before is gone."""
        self._taps[channel] = tap

    def write(self, *frames: bytes | memoryview) -> None:
        """Send whole frames, in parts or not, together with what else is written before the loop's next turn.

        On a connection that is lost they are lost as well.
        """
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent += frames

    def flush(self) -> None:
        """Send what was written."""
        unsent, self._unsent = self._unsent, []
        if unsent and not self._transport.is_closing():
            self._transport.writelines(unsent)

    # The transport's calls.

    def data_received(self, data: bytes) -> None:
        """Cut *data* into frames and hand them on."""
        data = self._rest + data if self._rest else data
        others: list[bytes] = []
        at = 0
        while self._is_amqp and len(data) - at >= FRAME.size:
            kind, channel, size = FRAME.unpack_from(data, at)
            payload_at = at + FRAME.size
            end = payload_at + size
            if kind not in FRAME_TYPES or data[end : end + 1] not in (END, b""):
                self._is_amqp = False  # the library has the words for what it is
            elif end >= len(data):
                break
            else:
                tap = self._taps.get(channel)
                if tap is None or not tap(kind, data[payload_at:end]):
                    others.append(data[at : end + 1])
                at = end + 1
        self._rest = data[at:] if self._is_amqp else b""
        self._hand_on(others if self._is_amqp else [*others, data[at:]])

    def _hand_on(self, others: list[bytes]) -> None:
        now = self._loop.time()
        if not others and now - self._told_at >= _TELL_ALIVE_S:
            others.append(HEARTBEAT_FRAME)
        if others:
            self._told_at = now
            self._library.data_received(b"".join(others))

    def _hear_connection(self, kind: int, payload: bytes) -> bool:
        """Note what is said of the whole connection; it is the library's to work on."""
        if kind == METHOD and payload[:4] in (BLOCKED, UNBLOCKED):
            self.is_blocked = payload[:4] == BLOCKED
        return False

    def eof_received(self) -> bool | None:
        """Leave it to the library."""
        return self._library.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave it to the library, from which the channels learn it."""
        self.is_blocked = False
        self._library.connection_lost(exc)

    def pause_writing(self) -> None:
        """Have whoever drains wait."""
        self._library.pause_writing()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._library.resume_writing()
