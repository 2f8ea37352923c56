"""Where a script finds the queues when nobody tells it: as the programs of mtaq do, from the environment."""

from __future__ import annotations

import os
from pathlib import Path

_KEY = "MTAQ_RABBITMQ_ADDRESS"
_DEFAULT = "amqp://guest:guest@localhost/"


def address_from_environment() -> str:
    """Return ``MTAQ_RABBITMQ_ADDRESS``, else what stands in the file that ``MTAQ_RABBITMQ_ADDRESS_FILE`` names, else
    RabbitMQ on this host.

    Raises:
        OSError: That file cannot be read.
    """
    if file := os.environ.get(f"{_KEY}_FILE"):
        return os.environ.get(_KEY) or Path(file).read_text(encoding="utf-8").strip()
    return os.environ.get(_KEY) or _DEFAULT
