"""The broker port on RabbitMQ."""

from __future__ import annotations

from mtaq.broker.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
