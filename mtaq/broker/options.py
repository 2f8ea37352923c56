"""What an adapter of the broker port must know; filled in from the ``rabbitmq-*`` settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtaq.broker.address import BrokerAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Everything about the queues except their names.

    The embedded queue looks at ``addresses``, ``declare``, ``max_priority`` and ``max_size_bytes`` only.

    Attributes:
        addresses: Where they are (``mtaq.broker.address.parse_addresses``).
        verify: Check the broker's certificate.
        exchange: Publish through this direct exchange, the queue's name as routing key; empty = the default exchange.
        declare: Create and verify queues; otherwise only look whether they exist.
        type: Kind of queue declared. The delay ladder is always quorum.
        durable: Classic queues survive a restart of the broker. Quorum queues always do.
        persistent: Messages are written to disk.
        max_priority: Highest priority of a queue; ``None`` = no priorities.
        encoding: How bodies are compressed when published; what is consumed says itself how it is.
        throttle: Most unconfirmed publishes per channel; further ones wait their turn.
        max_size_bytes: Largest body published, as sent.
        heartbeat_s: AMQP heartbeat.
        connect_timeout_s: Longest time for one attempt to connect, all nodes together.
        settle_within_s: How long the broker may not know that a message was settled: it is told of many at once.
            What it does not know it hands out again if we die, so this is for who would recognise that. 0 = at once.
        name: What the broker's own console calls our connections.
    """

    addresses: BrokerAddress
    verify: bool = True
    exchange: str = ""
    declare: bool = True
    type: Literal["quorum", "classic"] = "quorum"
    durable: bool = True
    persistent: bool = True
    max_priority: int | None = None
    encoding: Literal["gzip"] | None = None
    throttle: int = 100
    max_size_bytes: int = 16 * 1024 * 1024
    heartbeat_s: int = 30
    connect_timeout_s: float = 10.0
    settle_within_s: float = 0.0
    name: str = "mtaq"
