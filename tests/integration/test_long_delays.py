"""A year in the delay ladder, in seconds: what is longer than the longest trip is parked again until it is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pytest

from mtaq.broker import Broker, BrokerOptions
from mtaq.broker.address import parse_addresses
from mtaq.broker.claims import Claims
from mtaq.broker.embedded import EmbeddedBroker
from mtaq.broker.journal import Journal
from mtaq.broker.port import Consumer
from mtaq.broker.rabbitmq import RabbitMQBroker
from mtaq.broker.rabbitmq.ladder import LONGEST
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.parcel import Consumed, Parcel, QueueSpec
from mtaq.model.times import format_time
from tests.support.delivery import NAMES, START, World, options, outbox_json
from tests.support.fake_mx import FakeMx
from tests.support.queues import PATIENCE_S, fresh_name, parcel

#: The longest trip takes a second here, and so do 97 days.
UNIT_S = 2.0**-23
DAY_S = 86400.0


class Hurried:
    """Queues in which time flies; counts what is published to the outbox.

    Attributes:
        delays_s: Delays asked for, as delivery meant them.
        lose_confirms: So many publishes are stored, and said not to be.
    """

    def __init__(self, broker: Broker, outbox: str) -> None:
        self.delays_s: list[float] = []
        self.lose_confirms = 0
        self._broker = broker
        self._outbox = outbox

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """Publish, with a delay that is as much shorter as time flies."""
        if queue == self._outbox:
            self.delays_s.append(delay_s)
        await self._broker.publish(queue, parcel, timeout_s=timeout_s, delay_s=delay_s * UNIT_S)
        if self.lose_confirms:
            self.lose_confirms -= 1
            raise BrokerUnavailable("not confirmed")

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> Consumer:
        """Consume."""
        return self._broker.consume(queue, prefetch=prefetch, on_message=on_message)


class FlyingClock:
    """97 days pass in a second."""

    def __init__(self) -> None:
        self._began = asyncio.get_running_loop().time()

    def __call__(self) -> datetime:
        return START + timedelta(seconds=(asyncio.get_running_loop().time() - self._began) / UNIT_S)


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    if request.param == "embedded":
        opened: Broker = EmbeddedBroker(tmp_path / "queue", max_size_bytes=1 << 20)
    else:
        address = parse_addresses(request.getfixturevalue("rabbitmq").address)
        opened = RabbitMQBroker(BrokerOptions(addresses=address), ladder_unit_s=UNIT_S)
    await opened.start()
    yield opened
    await opened.close()


@pytest.mark.parametrize("lost_confirms", [0, 2])
async def test_a_year_in_the_ladder(broker: Broker, tmp_path: Path, lost_confirms: int) -> None:
    """Parked again whenever it comes out early, sent once and not before; copies by lost confirms are recognised."""
    outbox, success = fresh_name("outbox"), fresh_name("success")
    names = type(NAMES)(ehlo_name=NAMES.ehlo_name, outbox=outbox, dead="dead", success=success)
    await broker.declare([QueueSpec(name=outbox, ladder=True), QueueSpec(name=success)])
    queues, clock = Hurried(broker, outbox), FlyingClock()
    queues.lose_confirms = lost_confirms
    journal = Journal(tmp_path / "journal")
    await journal.start()
    claims = Claims(tmp_path / "claims")
    due_at = START + timedelta(days=365)
    arrived: asyncio.Queue[Consumed] = asyncio.Queue()
    async with FakeMx() as mx:
        world = World(
            options=options(delivery_port=mx.port), names=names, queues=queues, clock=clock, journal=journal,
            claims=claims, sleep=asyncio.sleep,
        )  # fmt: skip
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        async with world:
            message = outbox_json(nextattempt={"time": format_time(due_at)})
            await broker.publish(outbox, parcel(orjson.dumps(message)), timeout_s=PATIENCE_S)
            broker.consume(success, prefetch=10, on_message=arrived.put_nowait)
            async with asyncio.timeout(PATIENCE_S):
                (await arrived.get()).ack()
            sent_at = clock()
            while lost_confirms and len(world.lines.of("delivery.duplicate")) < lost_confirms:
                await asyncio.sleep(0.05)
        assert len(mx.mail) == 1
    assert sent_at >= due_at
    assert arrived.empty()
    # A busy machine takes a second for every 97 days.
    assert queues.delays_s[0] == pytest.approx(365 * DAY_S, abs=DAY_S * 180)
    if isinstance(broker, RabbitMQBroker) and not lost_confirms:
        assert len(queues.delays_s) >= 2, "the longest trip is 97 days"
        assert all(later < earlier for earlier, later in zip(queues.delays_s, queues.delays_s[1:], strict=False))
        assert queues.delays_s[0] > LONGEST
    await journal.close()
    claims.close()
