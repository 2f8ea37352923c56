"""What the event loop asks of the queue's thread, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mtaq.model.parcel import Depth, QueueSpec


class Row(NamedTuple):
    """One message as it is stored."""

    id: int
    redelivered: int
    priority: int
    properties: bytes
    body: bytes


@dataclass(slots=True, eq=False)
class Subscription:
    """One consumption of a queue. The thread alone reads and writes the last three fields.

    Attributes:
        queue: What is consumed.
        prefetch: Most messages handed out and not settled.
        deliver: Takes messages, in the event loop.
        unsettled: How many are handed out.
        look: There may be something to fetch.
        active: It was not stopped.
    """

    queue: str
    prefetch: int
    deliver: Callable[[Sequence[Row]], None]
    unsettled: int = 0
    look: bool = True
    active: bool = True

    @property
    def credit(self) -> int:
        """How many more it may be handed."""
        return self.prefetch - self.unsettled if self.active else 0


class Publish(NamedTuple):
    """Store a message. ``properties`` is the JSON of everything that only its consumer looks at."""

    queue: str
    priority: int
    delay_s: float
    properties: bytes
    body: bytes


class Settle(NamedTuple):
    """End a message that was handed out: forget it, or give it back."""

    id: int
    requeue: bool


class Declare(NamedTuple):
    """Make queues (or only look for them); the result is whether one was missing and was made."""

    queues: Sequence[QueueSpec]
    make: bool


class Consume(NamedTuple):
    """Begin to hand out."""

    subscription: Subscription


class Stop(NamedTuple):
    """Hand out nothing more."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Leave:
    """Give back everything that is not settled: this process is done."""


class Lying(NamedTuple):
    """A message as it lies in a queue or waits for its time, in nobody's hands."""

    id: int
    priority: int
    properties: bytes
    body: bytes


class Look(NamedTuple):
    """List messages of a queue behind the one with id ``after``: those that are delayed, or those that are not."""

    queue: str
    delayed: bool
    after: int
    most: int


class Change(NamedTuple):
    """What becomes of a message that moves; ``body`` is ``None`` when it stays as it is."""

    id: int
    priority: int
    properties: bytes
    body: bytes | None


class Move(NamedTuple):
    """Put messages into a queue, due at once, if nobody has them yet; the result is how many."""

    changes: Sequence[Change]
    delayed: bool
    to: str


class Count(NamedTuple):
    """Count what lies in a queue; the result is a ``Depth``, or ``None`` without such a queue."""

    queue: str


Answer = bool | int | Sequence[Lying] | Depth | None

Operation = Look | Move | Count | Publish | Settle | Declare | Consume | Stop | Leave


@dataclass(slots=True)
class Batch:
    """The operations of one transaction by their kind, each with its place in the list of results."""

    size: int
    publishes: list[tuple[int, Publish]] = field(default_factory=list)
    settled: list[Settle] = field(default_factory=list)
    others: list[tuple[int, Declare | Consume | Stop | Leave | Look | Move | Count]] = field(default_factory=list)

    @classmethod
    def sort(cls, operations: Sequence[Operation]) -> Batch:
        """Sort *operations*; between kinds their order does not matter, within one it is kept."""
        batch = cls(len(operations))
        for index, operation in enumerate(operations):
            if isinstance(operation, Publish):
                batch.publishes.append((index, operation))
            elif isinstance(operation, Settle):
                batch.settled.append(operation)
            else:
                batch.others.append((index, operation))
        return batch
