"""The queues: RabbitMQ, or the embedded queue of a single host, behind one port."""

from __future__ import annotations

from mtaq.broker.address import EmbeddedAddress
from mtaq.broker.options import BrokerOptions
from mtaq.broker.port import Broker

__all__ = ["Broker", "BrokerOptions", "open_broker"]


def open_broker(options: BrokerOptions) -> Broker:
    """Return the adapter that *options* ask for, not started."""
    if isinstance(options.addresses, EmbeddedAddress):
        from mtaq.broker.embedded import EmbeddedBroker  # each adapter's library is loaded only where it is used

        return EmbeddedBroker(
            options.addresses.path,
            max_size_bytes=options.max_size_bytes,
            max_priority=options.max_priority,
            declare=options.declare,
        )
    from mtaq.broker.rabbitmq import RabbitMQBroker

    return RabbitMQBroker(options)
