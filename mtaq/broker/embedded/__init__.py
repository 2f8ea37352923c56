"""The embedded queue: durable queues in a folder of one host."""

from mtaq.broker.embedded.broker import EmbeddedBroker

__all__ = ["EmbeddedBroker"]
