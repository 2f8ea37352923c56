"""What consumer scripts import: the queues of mtaq, on RabbitMQ or embedded, without their details.

``mtaq.client.sync`` has the same names for scripts without ``async``.
"""

from mtaq.client.environment import address_from_environment
from mtaq.client.message import Message
from mtaq.client.queues import Consumption, Queues, connect

__all__ = ["Consumption", "Message", "Queues", "address_from_environment", "connect"]
