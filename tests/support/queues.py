"""What tests of the queues share: an inbox that collects, parcels, and names that nobody else uses."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable

from mtaq.broker import Broker
from mtaq.model.parcel import OUTBOX_TYPE, Consumed, Parcel, QueueSpec

#: Longest wait for something that is bound to happen.
PATIENCE_S = 20.0


class Inbox:
    """Collects what a consumer is handed; settles nothing by itself unless *ack* is set."""

    def __init__(self, *, ack: bool = False) -> None:
        self.messages: list[Consumed] = []
        self._ack = ack
        self._came = asyncio.Condition()

    def __call__(self, message: Consumed) -> None:
        self.messages.append(message)
        if self._ack:
            message.ack()
        self._notifying = asyncio.ensure_future(self._notify())

    async def wait(self, count: int, *, timeout_s: float = PATIENCE_S) -> list[Consumed]:
        """Wait until *count* messages came in all, and return everything that came."""
        async with asyncio.timeout(timeout_s), self._came:
            await self._came.wait_for(lambda: len(self.messages) >= count)
        return self.messages

    async def _notify(self) -> None:
        async with self._came:
            self._came.notify_all()

    @property
    def bodies(self) -> list[bytes]:
        """Bodies in the order they came."""
        return [message.body for message in self.messages]


def parcel(body: bytes | str = b"{}", **properties: object) -> Parcel:
    """Make a parcel with *body*."""
    return Parcel(body=body.encode() if isinstance(body, str) else body, type=OUTBOX_TYPE, **properties)  # type: ignore[arg-type]  # passed on as they are


def fresh_name(prefix: str = "q") -> str:
    """Name a queue that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


async def fresh_queue(broker: Broker, *, ladder: bool = False) -> str:
    """Declare a queue that no other test has."""
    name = fresh_name()
    await broker.declare([QueueSpec(name=name, ladder=ladder)])
    return name


async def publish_all(broker: Broker, queue: str, bodies: Iterable[bytes | str]) -> None:
    """Publish one parcel per body, one after the other."""
    for body in bodies:
        await broker.publish(queue, parcel(body), timeout_s=PATIENCE_S)
