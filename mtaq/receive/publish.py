"""250 after the broker's confirm: publishes every recipient's JSON of one transaction.

Success means that each of them is confirmed. Anything else is one failure for the whole transaction; the client
keeps the message and tries again, so recipients whose copy was stored may get it twice, none is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mtaq.model.errors import BrokerUnavailable, TooLarge
from mtaq.model.parcel import INBOX_TYPE, Parcel
from mtaq.receive.ports import Publisher

#: Unconfirmed JSON of one transaction; more recipients × size than this are published in turn.
WINDOW_BYTES = 32 * 1024 * 1024


class Outgoing(NamedTuple):
    """One JSON object and where it goes.

    Attributes:
        queue: Name of the queue.
        message_id: Our id.
        body: The JSON.
        priority: AMQP priority.
        type: AMQP type.
    """

    queue: str
    message_id: str
    body: bytes
    priority: int = 0
    type: str = INBOX_TYPE


async def publish_all(
    publisher: Publisher,
    messages: Iterator[Outgoing],
    *,
    count: int,
    headers: Mapping[str, str],
    timeout_s: float,
    max_bytes: int | None,
) -> None:
    """
    Publish *messages* and wait for all confirms.

    Args:
        publisher: The broker.
        messages: Made one at a time, while there is room in the window.
        count: How many they are.
        headers: AMQP headers of each.
        timeout_s: For the whole transaction.
        max_bytes: Largest JSON the broker takes; ``None`` for no limit.

    Raises:
        TooLarge: A JSON is larger than *max_bytes*.
        UnconfirmedPublish: The broker refused one.
        BrokerUnavailable: No broker, or no confirm in time.
    """
    if count == 0:
        return
    if count == 1:  # most mail, and the broker keeps the time: no task and no timer for it
        message = next(messages)
        await publisher.publish(message.queue, _parcel(message, headers, max_bytes), timeout_s=timeout_s)
        return
    waiting: set[asyncio.Task[None]] = set()
    waiting_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            for message in messages:
                parcel = _parcel(message, headers, max_bytes)
                waiting_bytes += len(message.body)
                waiting.add(asyncio.create_task(publisher.publish(message.queue, parcel, timeout_s=timeout_s)))
                del parcel, message
                if waiting_bytes >= WINDOW_BYTES:
                    await _all_done(waiting)
                    waiting_bytes = 0
            await _all_done(waiting)
    except TimeoutError as error:
        raise BrokerUnavailable(f"no confirm within {timeout_s:g} s") from error
    finally:
        for task in waiting:
            task.cancel()


def _parcel(message: Outgoing, headers: Mapping[str, str], max_bytes: int | None) -> Parcel:
    body = message.body
    if max_bytes is not None and len(body) > max_bytes:
        raise TooLarge(f"{len(body)} bytes of JSON, the broker takes {max_bytes}")
    return Parcel(
        body=body, type=message.type, correlation_id=message.message_id, priority=message.priority, headers=headers
    )


async def _all_done(waiting: set[asyncio.Task[None]]) -> None:
    await asyncio.gather(*waiting)
    waiting.clear()
