"""Deliveries of one channel, put together from their frames past the library (``broker.rabbitmq.wire``)."""

from __future__ import annotations

from collections.abc import Callable

from mtaq.broker.rabbitmq.frames import DELIVER, HEADER, METHOD, Properties, read_deliver, read_properties

#: Told delivery tag, ``redelivered``, properties and body.
OnDelivery = Callable[[int, bool, Properties, bytes], None]


class Deliveries:
    """A tap for a channel with one consumer."""

    def __init__(self, on_delivery: OnDelivery) -> None:
        self._on_delivery = on_delivery
        self._begun: tuple[int, bool] | None = None
        self._properties = Properties(0)
        self._pieces: list[bytes] = []
        self._missing_bytes = 0

    def hear(self, kind: int, payload: bytes) -> bool:
        """Take a frame, unless it belongs to no delivery."""
        if kind == METHOD:
            if payload[:4] != DELIVER:
                return False
            self._begun = read_deliver(payload)
            return True
        if self._begun is None:
            return False
        if kind == HEADER:
            self._properties = read_properties(payload)
            self._missing_bytes = self._properties.size_bytes
        else:
            self._pieces.append(payload)
            self._missing_bytes -= len(payload)
        if self._missing_bytes <= 0:
            self._complete(*self._begun)
        return True

    def _complete(self, delivery_tag: int, redelivered: bool) -> None:
        pieces, self._pieces, self._begun = self._pieces, [], None
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._on_delivery(delivery_tag, redelivered, self._properties, body)
