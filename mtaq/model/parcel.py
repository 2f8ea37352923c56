"""What goes onto a queue and what comes off it: a JSON body with its AMQP properties.

Both adapters of the broker port (``mtaq.broker``) and both services speak in these.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

#: Values of the AMQP ``type`` property.
INBOX_TYPE = "mtaq.inbox.v1"
OUTBOX_TYPE = "mtaq.outbox.v1"
RESULT_TYPE = "mtaq.result.v1"
REPORT_TYPE = "mtaq.report.v1"
DSN_TYPE = "mtaq.dsn.v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One message to publish.

    Attributes:
        body: The JSON object, UTF-8, not compressed.
        type: AMQP ``type``: ``mtaq.inbox.v1`` and its siblings.
        correlation_id: Our ``message-id``, or empty when the message has none.
        message_id: AMQP ``message_id``. ``None`` (nearly always) has the adapter make a fresh UUID. A fixed one names a
            publish that may have to be repeated after a crash and must then be recognised (delivery's retry copies).
        priority: AMQP ``priority``.
        headers: AMQP headers: ``traceparent``, the reason on ``rabbitmq-dead`` and the like.
    """

    body: bytes
    type: str
    correlation_id: str = ""
    message_id: str | None = None
    priority: int = 0
    headers: Mapping[str, str | int | bool] = field(default_factory=dict)


class Consumed(Protocol):
    """One message taken from a queue and not yet settled. Exactly one of ``ack`` and ``requeue`` ends it."""

    @property
    def queue(self) -> str:
        """Name of the queue it came from."""

    @property
    def body(self) -> bytes:
        """The JSON object, decompressed."""

    @property
    def redelivered(self) -> bool:
        """Has the broker handed it out before? That consumer may have acted on it."""

    @property
    def is_stale(self) -> bool:
        """Has the connection it came by been lost? Settling does nothing any more, and it is handed out again."""

    @property
    def type(self) -> str:
        """AMQP ``type``, or empty."""

    @property
    def correlation_id(self) -> str:
        """Our ``message-id``, or empty."""

    @property
    def message_id(self) -> str:
        """AMQP ``message_id``, or empty."""

    @property
    def priority(self) -> int:
        """AMQP ``priority``; 0 when there is none."""

    @property
    def headers(self) -> Mapping[str, str | int | bool]:
        """AMQP headers that hold plain values."""

    def ack(self) -> None:
        """Settle it: the queue forgets it. Does not wait and does not fail.

        When the connection it came by is gone, nothing is acked and the broker will hand it out again, redelivered.
        """

    def requeue(self) -> None:
        """Give it back, to be handed out again soon, redelivered."""


class BrokerState(enum.Enum):
    """How the broker is, seen from this process."""

    UP = "up"
    BLOCKED = "blocked"  #: it takes nothing now (memory or disk alarm)
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A queue that must exist.

    Attributes:
        name: The queue's name.
        ladder: Also build the delay ladder ``<name>.delay.*`` that leads to it.
        dead_letter_to: Queue that takes what the broker gives up on (delivery limit); ``None`` for that queue itself.
    """

    name: str
    ladder: bool = False
    dead_letter_to: str | None = None


class Waiting(Protocol):
    """One message that lies in a queue, or in the delay ladder of one. A ``Consumed`` is one as well."""

    @property
    def queue(self) -> str:
        """Name of the queue it lies in; that of a rung, where there are such."""

    @property
    def body(self) -> bytes:
        """The JSON object, decompressed."""

    @property
    def type(self) -> str:
        """AMQP ``type``, or empty."""

    @property
    def correlation_id(self) -> str:
        """Our ``message-id``, or empty."""

    @property
    def message_id(self) -> str:
        """AMQP ``message_id``, or empty."""

    @property
    def priority(self) -> int:
        """AMQP ``priority``; 0 when there is none."""

    @property
    def headers(self) -> Mapping[str, str | int | bool]:
        """AMQP headers that hold plain values."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What looking through a queue came to.

    Attributes:
        seen: Messages looked at; one may have been looked at twice.
        moved: Of those, how many were published elsewhere.
        refused: Messages that were to be moved, and stayed because their new queue does not take them.
    """

    seen: int = 0
    moved: int = 0
    refused: int = 0

    def __add__(self, other: Sifted) -> Sifted:
        return Sifted(self.seen + other.seen, self.moved + other.moved, self.refused + other.refused)


@dataclass(frozen=True, slots=True)
class Depth:
    """How much lies in a queue.

    Attributes:
        ready: Messages that may be handed out now.
        consumers: Who takes them: processes, or consumers where the broker counts those.
        delayed: Messages in its delay ladder by rung, the lowest first, empty ones left out. The embedded queue has no
            rungs, and counts as if it had.
    """

    ready: int
    consumers: int
    delayed: Mapping[int, int] = field(default_factory=dict)
