"""A process that publishes to, or consumes from, an embedded queue until it is killed.

Run as ``python -m tests.support.embedded_worker publish|consume FOLDER``. It writes a line to stdout, unbuffered, for
each thing that must hold from then on: ``confirmed ID`` when a publish returned; ``took ID REDELIVERED`` when a
message was handed out, before anything is done with it; ``acked ID`` when the ack is certain to be on the disk.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import Consumed, Parcel, QueueSpec


def say(*words: object) -> None:
    """Write one line, at once and in one piece."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def publish(broker: EmbeddedBroker) -> None:
    """Publish without end, twenty at a time."""
    numbers = itertools.count()

    async def one_after_the_other() -> None:
        while True:
            name = f"{os.getpid()}-{next(numbers)}"
            parcel = Parcel(body=name.encode().ljust(3000), type="test", correlation_id=name)
            await broker.publish("work", parcel, timeout_s=30)
            say("confirmed", name)

    await asyncio.gather(*(one_after_the_other() for _ in range(20)))


async def consume(broker: EmbeddedBroker) -> None:
    """Take, ack, and tell when the ack is durable: a publish asked for later returns later."""
    arrived: asyncio.Queue[Consumed] = asyncio.Queue()
    broker.consume("work", prefetch=50, on_message=arrived.put_nowait)

    async def one_after_the_other() -> None:
        while True:
            message = await arrived.get()
            say("took", message.correlation_id, int(message.redelivered))
            message.ack()
            await broker.publish("done", Parcel(body=b"{}", type="test"), timeout_s=30)
            say("acked", message.correlation_id)

    await asyncio.gather(*(one_after_the_other() for _ in range(10)))


async def hold(broker: EmbeddedBroker) -> None:
    """Take everything and keep it."""
    broker.consume("work", prefetch=1000, on_message=lambda message: say("took", message.correlation_id))
    await asyncio.Event().wait()


async def main(role: str, folder: Path) -> None:
    """Do what *role* says on the queue in *folder*."""
    broker = EmbeddedBroker(folder, max_size_bytes=1 << 20)
    await broker.start()
    await broker.declare([QueueSpec(name="work"), QueueSpec(name="done")])
    await {"publish": publish, "consume": consume, "hold": hold}[role](broker)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
