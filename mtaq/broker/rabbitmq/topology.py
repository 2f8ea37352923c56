"""Which queues and exchanges must exist, and do they?

``plan`` decides and is pure; ``Topology`` asks the broker, creates what is missing and verifies the rest by declaring
it again. Whatever exists with other arguments ends in ``TopologyMismatch``, in words for the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.base import Frame
from pamqp.commands import Exchange, Queue

from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.ladder import rungs
from mtaq.broker.rabbitmq.link import RPC_TIMEOUT_S, Link, translated
from mtaq.model.errors import TopologyMismatch
from mtaq.model.parcel import Depth, QueueSpec

#: Absent, RabbitMQ 4 drops a message after 20 returns; -1 makes 3.10 drop it at the first.
DELIVERY_LIMIT = 1_000_000

#: Quorum queues take ``x-max-priority`` from here on; before, they refuse it.
_QUORUM_PRIORITIES_SINCE = (4, 3)

_DECLARE_TIMEOUT_S = 60.0
_CLOSE_TIMEOUT_S = 5.0

#: RabbitMQ calls a quorum queue empty, and without consumers, that was busy for a quarter of a second when it asked it.
_SILENT_S = 0.2
_DEPTH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    """A queue and its arguments."""

    name: str
    durable: bool = True
    arguments: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangePlan:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingPlan:
    """A way out of an exchange, to a queue or to another exchange."""

    exchange: str
    key: str
    to: str
    to_exchange: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that must exist, in the order in which it can be declared."""

    queues: Sequence[QueuePlan]
    exchanges: Sequence[ExchangePlan]
    bindings: Sequence[BindingPlan]


def plan(specs: Sequence[QueueSpec], options: BrokerOptions, *, version: Sequence[int], unit_s: float = 1.0) -> Plan:
    """Say what must exist for *specs* on a broker of *version*; *unit_s* is the ladder's smallest step."""
    queues = [_queue(spec, options, version) for spec in specs]
    exchanges = [ExchangePlan(name=options.exchange, type="direct")] if options.exchange else []
    bindings = [BindingPlan(exchange=options.exchange, key=s.name, to=s.name) for s in specs if options.exchange]
    for spec in specs:
        if spec.ladder:
            steps = rungs(spec.name, unit_s)
            queues += [_rung_queue(step.name, step.ttl_ms, step.below, spec.name) for step in steps]
            exchanges += [ExchangePlan(name=step.name, type="topic") for step in steps]
            for step in steps:
                bindings.append(BindingPlan(exchange=step.name, key=step.one, to=step.name))
                bindings.append(
                    BindingPlan(
                        exchange=step.name,
                        key=step.zero,
                        to=step.below or spec.name,
                        to_exchange=step.below is not None,
                    )
                )
    return Plan(queues, exchanges, bindings)


def _queue(spec: QueueSpec, options: BrokerOptions, version: Sequence[int]) -> QueuePlan:
    quorum = options.type == "quorum"
    arguments: dict[str, str | int] = {"x-queue-type": options.type}
    if quorum:
        arguments["x-delivery-limit"] = DELIVERY_LIMIT
    if spec.dead_letter_to is not None:
        arguments |= _dead_lettering("", spec.dead_letter_to, safely=quorum)
    if options.max_priority is not None and (not quorum or tuple(version) >= _QUORUM_PRIORITIES_SINCE):
        arguments["x-max-priority"] = options.max_priority
    return QueuePlan(name=spec.name, durable=quorum or options.durable, arguments=arguments)


def _rung_queue(name: str, ttl_ms: int, below: str | None, target: str) -> QueuePlan:
    onwards = _dead_lettering(below or "", None if below else target, safely=True)
    own: dict[str, str | int] = {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-message-ttl": ttl_ms,
    }
    return QueuePlan(name=name, arguments=own | onwards)


def _dead_lettering(exchange: str, key: str | None, *, safely: bool) -> dict[str, str | int]:
    arguments: dict[str, str | int] = {"x-dead-letter-exchange": exchange}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    if safely:  # at-least-once is accepted only together with reject-publish
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return arguments


class Topology:
    """Makes a plan true on a broker."""

    def __init__(self, link: Link, options: BrokerOptions, *, unit_s: float) -> None:
        self._link = link
        self._options = options
        self._unit_s = unit_s
        self._channel: Channel | None = None
        self._busy = asyncio.Lock()

    async def declare(self, specs: Sequence[QueueSpec]) -> bool:
        """As ``Broker.declare``."""
        with translated("cannot declare the queues"):
            async with self._busy, asyncio.timeout(_DECLARE_TIMEOUT_S):
                wanted = plan(specs, self._options, version=self._link.server_version, unit_s=self._unit_s)
                try:
                    return await (self._make(wanted) if self._options.declare else self._look(wanted))
                except (ValueError, TypeError) as error:  # AMQP allows 255 octets, and not every one
                    raise TopologyMismatch(f"a name that no queue can have: {error}") from error
                finally:
                    await self._close()

    async def has_exchange(self, name: str) -> bool:
        """Does the exchange exist?"""
        with translated(f"cannot look for exchange {name}"):
            async with self._busy:
                try:
                    return await self._exists(Exchange.Declare(exchange=name, passive=True))
                finally:
                    await self._close()

    async def depth(self, queue: str) -> Depth | None:
        """Return how much lies in *queue*, its ladder aside; ``None`` when it does not exist."""
        with translated(f"cannot look at queue {queue}"):
            async with self._busy, asyncio.timeout(_DEPTH_TIMEOUT_S):
                while True:
                    began_s = time.monotonic()
                    try:
                        told = await self._ask("", Queue.Declare(queue=queue, passive=True))
                    except ChannelNotFoundEntity:
                        return None
                    assert isinstance(told, Queue.DeclareOk)
                    depth = Depth(told.message_count or 0, told.consumer_count or 0)
                    if depth.ready or depth.consumers or time.monotonic() - began_s < _SILENT_S:
                        return depth

    async def _make(self, wanted: Plan) -> bool:
        created = False
        for queue in wanted.queues:
            created |= not await self._exists(Queue.Declare(queue=queue.name, passive=True))
            await self._ask(
                f"queue {queue.name!r}",
                Queue.Declare(queue=queue.name, durable=queue.durable, arguments=dict(queue.arguments)),
            )
        for exchange in wanted.exchanges:
            await self._ask(
                f"exchange {exchange.name!r}",
                Exchange.Declare(exchange=exchange.name, exchange_type=exchange.type, durable=True),
            )
        for binding in wanted.bindings:
            await self._ask(f"binding of {binding.to!r} to {binding.exchange!r}", _bind(binding))
        return created

    async def _look(self, wanted: Plan) -> bool:
        for queue in wanted.queues:
            if not await self._exists(Queue.Declare(queue=queue.name, passive=True)):
                raise TopologyMismatch(_missing("queue", queue.name, {"durable": queue.durable, **queue.arguments}))
        for exchange in wanted.exchanges:
            if not await self._exists(Exchange.Declare(exchange=exchange.name, passive=True)):
                raise TopologyMismatch(_missing("exchange", exchange.name, {"durable": True, "type": exchange.type}))
        return False

    async def _exists(self, passive: Frame) -> bool:
        try:
            await self._ask("", passive)
        except ChannelNotFoundEntity:
            return False
        return True

    async def _ask(self, what: str, method: Frame) -> object:
        if self._channel is None or self._channel.is_closed:  # a refusal closes the channel it came on
            self._channel = await self._link.channel(confirms=False)
        try:
            async with asyncio.timeout(RPC_TIMEOUT_S):
                return await self._channel.rpc(method)
        except ChannelPreconditionFailed as error:
            raise TopologyMismatch(explain(what, str(error))) from error
        except (ChannelAccessRefused, ChannelLockedResource) as error:
            raise TopologyMismatch(f"{what}: the broker refuses it: {error}") from error

    async def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await channel.close()


def _bind(binding: BindingPlan) -> Frame:
    if binding.to_exchange:
        return Exchange.Bind(destination=binding.to, source=binding.exchange, routing_key=binding.key)
    return Queue.Bind(queue=binding.to, exchange=binding.exchange, routing_key=binding.key)


_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' .*: received (?P<ours>.+) but current is (?P<theirs>.+)"
)


def explain(what: str, reply_text: str) -> str:
    """Turn the broker's PRECONDITION_FAILED about *what* into which argument differs, and how to mend it."""
    found = _INEQUIVALENT.search(reply_text)
    difference = (
        f"its {found['argument']} is {found['theirs']}, wanted: {found['ours'].removeprefix('the value ')}"
        if found
        else reply_text.removeprefix("PRECONDITION_FAILED - ")
    )
    return (
        f"{what} exists with other arguments: {difference}. Arguments cannot be changed: configure a new name and"
        " drain the old one, or delete it once it is empty; or set what differs as it is there"
    )


def _missing(kind: str, name: str, arguments: Mapping[str, str | int | bool]) -> str:
    listed = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind} {name!r} does not exist and rabbitmq-declare is false: create it with {listed}, or allow declaring"
