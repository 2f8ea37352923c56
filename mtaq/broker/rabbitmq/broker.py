"""The broker port on RabbitMQ: two connections, one to publish and declare, one to consume.

A connection that RabbitMQ blocks carries nothing, acks included: hence two. The one to consume is opened by the first
``consume``. Both reconnect by themselves; consumption resumes, publishing is answered ``BrokerUnavailable`` meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mtaq.broker.address import RabbitMQAddress
from mtaq.broker.options import BrokerOptions
from mtaq.broker.port import NO_HEADERS, Choose, Consumer
from mtaq.broker.rabbitmq.consume import Consumption
from mtaq.broker.rabbitmq.content import INFLATION
from mtaq.broker.rabbitmq.fanout import Listening, broadcast
from mtaq.broker.rabbitmq.ladder import RUNGS, rung_name
from mtaq.broker.rabbitmq.link import Link
from mtaq.broker.rabbitmq.publish import Publisher
from mtaq.broker.rabbitmq.quiet import quieten
from mtaq.broker.rabbitmq.sweep import Sifting, Sweeper
from mtaq.broker.rabbitmq.topology import Topology
from mtaq.model.parcel import BrokerState, Consumed, Depth, Parcel, QueueSpec, Sifted


class RabbitMQBroker:
    """One process's access to RabbitMQ. Fits ``mtaq.broker.port.Broker``."""

    def __init__(self, options: BrokerOptions, *, ladder_unit_s: float = 1.0) -> None:
        """*ladder_unit_s* is the delay ladder's smallest step; part of the topology, so the same in every process."""
        assert isinstance(options.addresses, RabbitMQAddress)
        quieten()
        self._options = options
        self._publishing = Link(options.addresses, options, "publishing")
        self._consuming = Link(options.addresses, options, "consuming")
        self._topology = Topology(self._publishing, options, unit_s=ladder_unit_s)
        self._publisher = Publisher(self._publishing, self._topology, options, unit_s=ladder_unit_s)
        self._sweeper = Sweeper(self._consuming, self._topology, self._publisher.publish)
        self._unit_s = ladder_unit_s
        self._consumptions: list[Consumption] = []
        self._listenings: list[Listening] = []

    @property
    def state(self) -> BrokerState:
        """``DOWN`` while a connection that is in use is away, ``BLOCKED`` once RabbitMQ has said so."""
        if not self._publishing.is_up or (self._consuming.is_open and not self._consuming.is_up):
            return BrokerState.DOWN
        return BrokerState.BLOCKED if self._publishing.is_blocked else BrokerState.UP

    async def start(self) -> None:
        """Connect. After a failure it may be called again."""
        await self._publishing.open()

    async def declare(self, queues: Sequence[QueueSpec]) -> bool:
        """As the port says; bounded to a minute."""
        return await self._topology.declare(queues)

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """As the port says. While the broker is away or blocked it fails at once."""
        await self._publisher.publish(queue, parcel, timeout_s=timeout_s, delay_s=delay_s)

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> Consumer:
        """As the port says. A queue that does not exist is asked for again until it does."""
        consumption = Consumption(
            self._consuming,
            queue,
            prefetch=prefetch,
            on_message=on_message,
            limit_bytes=INFLATION * self._options.max_size_bytes,
            settle_within_s=self._options.settle_within_s,
        )
        self._consumptions.append(consumption)
        return consumption

    async def sift(
        self,
        queue: str,
        choose: Choose,
        *,
        to: str | None = None,
        delayed: bool = False,
        most: int | None = None,
        again: Mapping[str, bool] = NO_HEADERS,
    ) -> Sifted:
        """As the port says. The ladder's lowest rungs are left out: what is there comes out within seconds."""
        work = Sifting(
            queue=queue,
            choose=choose,
            to=to,
            most=most,
            again=again,
            limit_bytes=INFLATION * self._options.max_size_bytes,
            unit_s=self._unit_s,
        )
        return await (self._sweeper.sift_ladder(work) if delayed else self._sweeper.sift_queue(work))

    async def depths(self, queues: Sequence[str]) -> Mapping[str, Depth | None]:
        """As the port says."""
        return {queue: await self._depth(queue) for queue in queues}

    async def _depth(self, queue: str) -> Depth | None:
        depth = await self._topology.depth(queue)
        if depth is None:
            return None
        delayed: dict[int, int] = {}
        for number in range(RUNGS):
            rung = await self._topology.depth(rung_name(queue, number))
            if rung is None:  # it has no ladder
                break
            if rung.ready:
                delayed[number] = rung.ready
        return replace(depth, delayed=delayed)

    async def broadcast(self, exchange: str, body: bytes, *, timeout_s: float) -> None:
        """As the port says."""
        await broadcast(self._publishing, self._options, exchange, body, timeout_s=timeout_s)

    def subscribe(self, exchange: str, on_notice: Callable[[bytes], None]) -> Consumer:
        """As the port says."""
        listening = Listening(self._publishing, self._options, exchange, on_notice)
        self._listenings.append(listening)
        return listening

    async def close(self) -> None:
        """Stop; takes some seconds at most, whatever the broker does."""
        consumptions, self._consumptions = self._consumptions, []
        listenings, self._listenings = self._listenings, []
        await asyncio.gather(*(listening.stop() for listening in listenings))
        await asyncio.gather(*(consumption.close() for consumption in consumptions))
        await asyncio.gather(self._consuming.close(), self._publishing.close())
