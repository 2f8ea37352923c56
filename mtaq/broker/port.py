"""The broker port: what the queues promise, whichever adapter is behind them.

Two adapters fit it, ``mtaq.broker.rabbitmq`` and ``mtaq.broker.embedded``, and pass one suite of contract tests.
Every wait is bounded; every failure is a ``BrokerError``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from mtaq.model.parcel import BrokerState, Consumed, Depth, Parcel, QueueSpec, Sifted, Waiting

NO_HEADERS: Mapping[str, bool] = MappingProxyType({})

#: Says what is to be published instead of a message that waits; ``None`` leaves it where it is. Called in the event
#: loop; must not block, and must not fail on anything a stranger may have published.
Choose = Callable[[Waiting], Parcel | None]


class Consumer(Protocol):
    """One running consumption of a queue."""

    async def stop(self) -> None:
        """Take nothing more. What was handed out may still be settled until the broker is closed."""


class Broker(Protocol):
    """One process's access to the queues."""

    @property
    def state(self) -> BrokerState:
        """How the broker is now, without asking it: kept up to date by the adapter."""

    async def start(self) -> None:
        """Connect; afterwards the adapter reconnects by itself, consumers included.

        Raises:
            BrokerUnavailable: No broker answered in time.
        """

    async def declare(self, queues: Sequence[QueueSpec]) -> bool:
        """Create what is missing and verify the rest.

        Returns:
            Whether anything was created: a fresh quorum queue needs a moment before it survives a crash.

        Raises:
            TopologyMismatch: A queue exists with other arguments; the text names queue, argument and cure.
            BrokerUnavailable: As for ``start``.
        """

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """Store *parcel* in *queue*; when this returns it is safe (confirmed by a majority, or synced to disk).

        Args:
            queue: Where it goes. A queue that does not exist is a failure, never a silent loss.
            parcel: What is published.
            timeout_s: Longest wait for the confirmation.
            delay_s: Seconds until it may be consumed; > 0 only for a queue declared with ``ladder=True``. Longer than
                the ladder's longest trip comes out early: the consumer looks at the time in the JSON and parks again.

        Raises:
            BrokerUnavailable: Not connected, blocked, lost meanwhile, or not confirmed in time. It may be stored
                nevertheless.
            UnconfirmedPublish: Refused or unroutable, or with properties that cannot be written.
            TooLarge: More than the broker takes.
        """

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> Consumer:
        """Hand each message of *queue* to *on_message*, at most *prefetch* unsettled at a time.

        *on_message* is called in the event loop and must not block; it may settle at once or any time later.
        Consumption survives a lost connection; what was unsettled then is handed out again with ``redelivered``.
        """

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
        """Show each message that waits to *choose*, and publish what that returns in its place, due at once.

        What is published is safe before the message it replaces is given up: who dies in between leaves both, never
        none. What *choose* leaves keeps its place and its time; it may come out a second late, and be marked as
        redelivered. What comes in meanwhile may be seen or not.

        Args:
            queue: Whose messages.
            to: Where they are published; ``None`` for *queue* itself.
            delayed: Those in the delay ladder of *queue*, instead of those in it.
            most: Look at no more than so many.
            again: Headers for what has to be published once more although *choose* leaves it: beyond some ten thousand
                messages that are left no more can be held, and they go back with what is left of their delay.

        Raises:
            BrokerUnavailable: The broker went away; what was moved until then is moved.
            UnconfirmedPublish: A queue does not exist.
        """

    async def depths(self, queues: Sequence[str]) -> Mapping[str, Depth | None]:
        """Return how much lies in each of *queues*; ``None`` for what does not exist.

        Raises:
            BrokerUnavailable: Not connected, or no answer.
        """

    async def broadcast(self, exchange: str, body: bytes, *, timeout_s: float) -> None:
        """Hint something to every process that has subscribed to *exchange*, ourselves included.

        A hint may be lost, and the embedded queue carries none: whoever listens must find out by himself as well.

        Raises:
            BrokerUnavailable: Not told, or not in time.
        """

    def subscribe(self, exchange: str, on_notice: Callable[[bytes], None]) -> Consumer:
        """Hand the body of each hint to *on_notice*, which is called in the event loop and must not block.

        Survives a lost connection. Each time listening begins, *on_notice* gets an empty body: something may have been
        missed before.
        """

    async def close(self) -> None:
        """Stop; everything handed out and not settled goes back to its queue."""
