"""The embedded queue, seen from the event loop: the broker port on a folder of this host.

Same promises as RabbitMQ for publishing (on the disk before it returns), consuming (prefetch, ack, redelivery),
priorities and delays, for several processes of one host, each of which may be killed at any moment. What it does not
have: a delivery limit (``dead_letter_to`` is not used), other hosts (no network file systems), and broadcasts.

All work on the file is done by one thread (``store``); here is only what waits for it. Open it after forking.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mtaq.broker.embedded.clock import QueueClock, uptime_s
from mtaq.broker.embedded.operations import (
    Answer,
    Consume,
    Count,
    Declare,
    Leave,
    Operation,
    Publish,
    Row,
    Settle,
    Stop,
    Subscription,
)
from mtaq.broker.embedded.properties import encode_properties, read_properties
from mtaq.broker.embedded.store import QueueStore, Taken
from mtaq.broker.embedded.sweep import sift
from mtaq.broker.group_commit import GroupCommit, OnState
from mtaq.broker.port import NO_HEADERS, Choose
from mtaq.model.errors import TooLarge
from mtaq.model.parcel import BrokerState, Consumed, Depth, Parcel, QueueSpec, Sifted

#: Longest wait of the calls that have no limit of their own.
_TIMEOUT_S = 30.0
_MAX_PRIORITY = 255


class EmbeddedBroker:
    """One process's access to the queues in one folder; fits ``mtaq.broker.port.Broker``."""

    def __init__(
        self,
        path: Path,
        *,
        max_size_bytes: int,
        max_priority: int | None = None,
        declare: bool = True,
        on_state: OnState | None = None,
        uptime: Callable[[], float] = uptime_s,
    ) -> None:
        """Prepare; nothing is touched before ``start``.

        Args:
            path: Folder of the queues, made if missing, readable by its owner alone.
            max_size_bytes: Largest body taken.
            max_priority: Higher priorities count as this one; ``None`` = up to 255, as in AMQP.
            declare: ``declare`` makes queues; otherwise it only looks for them.
            on_state: Told when the state changes, with the reason.
            uptime: Seconds that pass evenly; delays are measured by it.
        """
        self._max_size_bytes = max_size_bytes
        self._max_priority = _MAX_PRIORITY if max_priority is None else min(max_priority, _MAX_PRIORITY)
        self._declare = declare
        store = QueueStore(path, QueueClock(uptime), self._taken)
        self._engine: GroupCommit[Operation, Answer] = GroupCommit(
            store, name=f"embedded queue {path}", on_state=on_state
        )

    @property
    def state(self) -> BrokerState:
        """UP; or DOWN before the start, after the end, and while the disk refuses to be written."""
        return self._engine.state

    async def start(self) -> None:
        """Open the queues; afterwards failures of the disk mend themselves.

        Raises:
            BrokerUnavailable: The folder cannot be written.
            ConfigError: It was written by a newer program.
        """
        self._loop = asyncio.get_running_loop()
        await self._engine.start()

    async def declare(self, queues: Sequence[QueueSpec]) -> bool:
        """Create what is missing; an existing queue gains its ladder if it has none.

        Returns:
            Whether a queue was created. It is safe at once.

        Raises:
            TopologyMismatch: It may not be made, and is not there.
            BrokerUnavailable: As for ``publish``.
        """
        return bool(await self._engine.ask(Declare(tuple(queues), self._declare), timeout_s=_TIMEOUT_S))

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """Store *parcel* in *queue*; when this returns it is on the disk.

        Raises:
            BrokerUnavailable: Writing failed or took longer than *timeout_s*. It may be stored nevertheless.
            UnconfirmedPublish: No such queue, one without delays, or too large.
        """
        size_bytes = len(parcel.body)
        if size_bytes > self._max_size_bytes:
            raise TooLarge(f"{size_bytes} bytes are more than the queue takes ({self._max_size_bytes})")
        priority = min(max(parcel.priority, 0), self._max_priority)
        publish = Publish(queue, priority, delay_s, encode_properties(parcel), parcel.body)
        await self._engine.ask(publish, timeout_s=timeout_s, size_bytes=size_bytes)

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> EmbeddedConsumer:
        """Hand each message of *queue* to *on_message*, at most *prefetch* unsettled at a time.

        A queue that is not declared yet is consumed from when it is.
        """
        consumer = EmbeddedConsumer(self._engine, queue, prefetch, on_message)
        self._engine.post(Consume(consumer.subscription))
        return consumer

    async def sift(
        self,
        queue: str,
        choose: Choose,
        *,
        to: str | None = None,
        delayed: bool = False,
        most: int | None = None,
        again: Mapping[str, bool] = NO_HEADERS,
    ) -> Sifted:
        """As the port says. A message moves in one transaction, so there is never a second one."""
        return await sift(self._engine, queue, choose, to=to or queue, delayed=delayed, most=most)

    async def depths(self, queues: Sequence[str]) -> Mapping[str, Depth | None]:
        """As the port says."""
        found: dict[str, Depth | None] = {}
        for queue in queues:
            depth = await self._engine.ask(Count(queue), timeout_s=_TIMEOUT_S)
            found[queue] = depth if isinstance(depth, Depth) else None
        return found

    async def broadcast(self, exchange: str, body: bytes, *, timeout_s: float) -> None:
        """Nothing: the processes of one host find out by looking."""

    def subscribe(self, exchange: str, on_notice: Callable[[bytes], None]) -> Silence:
        """Hear nothing."""
        return Silence()

    def _taken(self, taken: Taken) -> None:
        """In the thread: pass on what was fetched."""
        with contextlib.suppress(RuntimeError):  # the loop is closed; the messages go back with this process
            self._loop.call_soon_threadsafe(_deliver, taken)

    async def close(self) -> None:
        """Stop. What was settled is settled, what was not goes back to its queue, redelivered."""
        self._engine.post(Leave())
        await self._engine.close()


class EmbeddedConsumer:
    """One running consumption."""

    def __init__(
        self,
        engine: GroupCommit[Operation, Answer],
        queue: str,
        prefetch: int,
        on_message: Callable[[Consumed], None],
    ) -> None:
        self.subscription = Subscription(queue, prefetch, self._deliver)
        self._engine = engine
        self._on_message = on_message
        self._stopped = False

    def _deliver(self, rows: Sequence[Row]) -> None:
        loop = asyncio.get_running_loop()
        for row in rows:
            loop.call_soon(self._deliver_one, row)  # each on its own: what one breaks does not keep the others back

    def _deliver_one(self, row: Row) -> None:
        if self._stopped:
            self._engine.post(Settle(row.id, requeue=True))
        else:
            self._on_message(EmbeddedMessage(self._engine, self.subscription.queue, row))

    async def stop(self) -> None:
        """Take nothing more. What was handed out may still be settled until the broker is closed."""
        if not self._stopped:
            self._stopped = True
            self._engine.post(Stop(self.subscription))


class Silence:
    """What there is to hear of other processes."""

    async def stop(self) -> None:
        """Go on hearing nothing."""


class EmbeddedMessage:
    """One message that was handed out; fits ``mtaq.model.parcel.Consumed``."""

    __slots__ = ("_engine", "_row", "_settled", "correlation_id", "headers", "message_id", "queue", "type")

    def __init__(self, engine: GroupCommit[Operation, Answer], queue: str, row: Row) -> None:
        self._engine = engine
        self._row = row
        self._settled = False
        self.queue = queue
        self.message_id: str
        self.correlation_id: str
        self.type: str
        self.headers: Mapping[str, str | int | bool]
        self.message_id, self.correlation_id, self.type, self.headers = read_properties(row.properties)

    @property
    def body(self) -> bytes:
        """The JSON object."""
        return self._row.body

    @property
    def redelivered(self) -> bool:
        """It was handed out before."""
        return bool(self._row.redelivered)

    @property
    def is_stale(self) -> bool:
        """Never: a process keeps what it was handed until it ends."""
        return False

    @property
    def priority(self) -> int:
        """As it was published."""
        return self._row.priority

    def ack(self) -> None:
        """Settle it: the queue forgets it, with the next batch of writes."""
        self._settle(requeue=False)

    def requeue(self) -> None:
        """Give it back, to its old place, redelivered."""
        self._settle(requeue=True)

    def _settle(self, *, requeue: bool) -> None:
        if not self._settled:
            self._settled = True
            self._engine.post(Settle(self._row.id, requeue))


def _deliver(taken: Taken) -> None:
    for subscription, rows in taken:
        subscription.deliver(rows)
