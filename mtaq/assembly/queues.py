"""The broker and its queues, from the settings: which there are, and waiting until they are there."""

from __future__ import annotations

import asyncio

from mtaq.broker import BrokerOptions, open_broker
from mtaq.broker.address import EmbeddedAddress, parse_addresses
from mtaq.broker.port import Broker
from mtaq.config import Settings
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.parcel import BrokerState, Parcel, QueueSpec
from mtaq.telemetry.events import EventLog

#: Least and longest wait between attempts to reach the broker.
CONNECT_FIRST_S = 0.5
CONNECT_LAST_S = 5.0

#: A node killed within a second of a quorum queue's declaration comes back with that queue empty.
SETTLE_S = 3.0


def is_embedded(settings: Settings) -> bool:
    """Is the queue the built-in one?"""
    return isinstance(parse_addresses(",".join(settings.queues.rabbitmq_address)), EmbeddedAddress)


def broker_for(settings: Settings, name: str, *, settle_within_s: float = 0.0) -> Broker:
    """Return the broker of *settings*, not yet connected; *name* is what its own console calls us."""
    queues = settings.queues
    return open_broker(
        BrokerOptions(
            addresses=parse_addresses(",".join(queues.rabbitmq_address)),
            verify=queues.rabbitmq_verify,
            exchange=queues.rabbitmq_exchange or "",
            declare=queues.rabbitmq_declare,
            type=queues.rabbitmq_type,
            durable=queues.rabbitmq_durable,
            persistent=queues.rabbitmq_persistent,
            max_priority=queues.rabbitmq_maxpriority,
            encoding=queues.rabbitmq_encoding,
            throttle=queues.rabbitmq_throttle,
            max_size_bytes=broker_max_bytes(settings) or 2**30,
            heartbeat_s=queues.rabbitmq_heartbeat,
            settle_within_s=settle_within_s,
            name=f"mtaq {name} on {settings.process.server_id}",
        )
    )


def broker_max_bytes(settings: Settings) -> int | None:
    """Return the largest JSON the queue takes; the embedded one has no limit of its own."""
    return None if is_embedded(settings) else settings.queues.rabbitmq_maxsize


def topology(settings: Settings) -> list[QueueSpec]:
    """Return the queues that must exist, each once."""
    queues = settings.queues
    dead = queues.rabbitmq_dead
    specs = {dead: QueueSpec(name=dead)}
    specs[queues.rabbitmq_outbox] = QueueSpec(name=queues.rabbitmq_outbox, ladder=True, dead_letter_to=dead)
    for name in (
        queues.rabbitmq_inbox,
        queues.rabbitmq_local,
        queues.rabbitmq_reports,
        queues.rabbitmq_refused,
        *archive_queues(settings),
        queues.rabbitmq_results,
        queues.rabbitmq_success,
        queues.rabbitmq_failure,
        queues.rabbitmq_retry,
        queues.rabbitmq_tls_reports,
        queues.rabbitmq_dsn,
    ):
        if name:
            specs.setdefault(name, QueueSpec(name=name, dead_letter_to=dead))
    return list(specs.values())


def archive_queues(settings: Settings) -> list[str]:
    """Return the queues that some port's ``smtp-archive`` names."""
    archives = [options.smtp_archive for options in (settings.reception, *settings.ports.values())]
    return [archive.queue for archive in archives if archive is not None and archive.queue is not None]


async def prepare_queues(settings: Settings, events: EventLog) -> None:
    """
    Declare and verify the topology, waiting for the broker as long as it takes.

    Raises:
        TopologyMismatch: A queue exists with other arguments.
    """
    while True:
        broker = broker_for(settings, "topology")
        try:
            await connected(broker, events)
            created = await broker.declare(topology(settings))
            break
        except BrokerUnavailable as error:
            events.broker_lost(reason=str(error))
            await asyncio.sleep(CONNECT_FIRST_S)
        finally:
            await broker.close()
    if created and not is_embedded(settings):
        await asyncio.sleep(SETTLE_S)


async def connected(broker: Broker, events: EventLog) -> None:
    """Start *broker*, again and again until it answers."""
    wait_s, told = CONNECT_FIRST_S, False
    while True:
        try:
            await broker.start()
            return
        except BrokerUnavailable as error:
            if not told:
                events.broker_lost(reason=str(error))
                told = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, CONNECT_LAST_S)


class Gate:
    """The broker as reception sees it: down until the queues are declared and the connection stands."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.opened = False

    @property
    def state(self) -> BrokerState:
        """How the broker is."""
        return self._broker.state if self.opened else BrokerState.DOWN

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Publish, once open."""
        if not self.opened:
            raise BrokerUnavailable("the queues are not ready yet")
        await self._broker.publish(queue, parcel, timeout_s=timeout_s)
