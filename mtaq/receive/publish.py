"""250 after the broker's confirm: publishes every recipient's JSON of one transaction.

Success means that each of them is confirmed. Anything else is one failure for the whole transaction; the client
keeps the message and tries again, so recipients whose copy was stored may get it twice, none is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from mtaq.model.errors import BrokerUnavailable, UnconfirmedPublish
from mtaq.model.parcel import INBOX_TYPE, Parcel
from mtaq.receive.ports import Publisher

#: Unconfirmed JSON of one transaction; more recipients × size than this are published in turn.
WINDOW_BYTES = 32 * 1024 * 1024


class TooLarge(UnconfirmedPublish):
    """The JSON is larger than the broker takes."""


async def publish_all(
    publisher: Publisher,
    queue: str,
    messages: Iterator[tuple[str, bytes]],
    *,
    count: int,
    headers: Mapping[str, str],
    timeout_s: float,
    max_bytes: int | None,
) -> None:
    """
    Publish each ``(message-id, JSON)`` of *messages* to *queue* and wait for all confirms.

    Args:
        publisher: The broker.
        queue: The inbox.
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
    if count == 1:  # most mail, and the broker keeps the time: no task and no timer for it
        await publisher.publish(queue, _parcel(*next(messages), headers, max_bytes), timeout_s=timeout_s)
        return
    waiting: set[asyncio.Task[None]] = set()
    waiting_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            for identity, body in messages:
                parcel = _parcel(identity, body, headers, max_bytes)
                waiting_bytes += len(body)
                del body
                waiting.add(asyncio.create_task(publisher.publish(queue, parcel, timeout_s=timeout_s)))
                del parcel
                if waiting_bytes >= WINDOW_BYTES:
                    await _all_done(waiting)
                    waiting_bytes = 0
            await _all_done(waiting)
    except TimeoutError as error:
        raise BrokerUnavailable(f"no confirm within {timeout_s:g} s") from error
    finally:
        for task in waiting:
            task.cancel()


def _parcel(identity: str, body: bytes, headers: Mapping[str, str], max_bytes: int | None) -> Parcel:
    if max_bytes is not None and len(body) > max_bytes:
        raise TooLarge(f"{len(body)} bytes of JSON, the broker takes {max_bytes}")
    return Parcel(body=body, type=INBOX_TYPE, correlation_id=identity, headers=headers)


async def _all_done(waiting: set[asyncio.Task[None]]) -> None:
    await asyncio.gather(*waiting)
    waiting.clear()
