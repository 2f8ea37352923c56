"""``mtaq.client`` for plain scripts: the same names without ``async`` and ``await``.

The asynchronous library runs in a thread of its own; every call here waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from mtaq.client import message as async_message
from mtaq.client import queues as async_queues
from mtaq.client.environment import address_from_environment
from mtaq.model.parcel import Consumed

__all__ = ["Message", "Queues", "address_from_environment", "connect"]

T = TypeVar("T")


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="mtaq.client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run *coroutine* there and wait for it; an interrupt here cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], object]) -> None:
        """Have *function* called there, soon."""
        self._loop.call_soon_threadsafe(function)

    @property
    def is_open(self) -> bool:
        """Was it not closed yet?"""
        return not self._loop.is_closed()

    def close(self) -> None:
        """End the thread; what an interrupt left running there is cancelled."""
        asyncio.run_coroutine_threadsafe(_cancel_the_rest(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_the_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


class Message(async_message.Message):
    """As ``mtaq.client.Message``, with a plain ``with message:``."""

    def __init__(
        self, loop: _Loop, consumed: Consumed, properties: dict[str, Any], failed: async_message.Failed
    ) -> None:
        super().__init__(consumed, properties, failed)
        self._loop = loop

    def ack(self) -> None:
        """As ``mtaq.client.Message.ack``."""
        self._loop.call(super().ack)

    def requeue(self) -> None:
        """As ``mtaq.client.Message.requeue``."""
        self._loop.call(super().requeue)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._loop.run(super().__aexit__(kind, error, trace))


class Queues:
    """As ``mtaq.client.Queues``."""

    def __init__(self, loop: _Loop, queues: async_queues.Queues) -> None:
        self._loop = loop
        self._queues = queues

    def consume(self, queue: str, *, prefetch: int = 100, tries: int = 5, dead: str = "dead") -> Iterator[Message]:
        """As ``mtaq.client.Queues.consume``, for a plain ``for``."""
        make = functools.partial(Message, self._loop)

        async def start() -> async_queues.Consumption:
            return self._queues.consume(queue, prefetch=prefetch, tries=tries, dead=dead, make=make)

        consumption = self._loop.run(start())
        try:
            while (message := self._loop.run(consumption.next())) is not None:
                assert isinstance(message, Message), "made above"
                yield message
        finally:
            if self._loop.is_open:  # else the broker took everything back when it was closed
                self._loop.run(consumption.aclose())

    def publish(
        self,
        queue: str,
        message: Message | Mapping[str, Any],
        *,
        delay: float = 0.0,
        priority: int | None = None,
    ) -> None:
        """As ``mtaq.client.Queues.publish``."""
        self._loop.run(self._queues.publish(queue, message, delay=delay, priority=priority))

    def stop(self) -> None:
        """As ``mtaq.client.Queues.stop``; may be called from a signal handler and from other threads."""
        self._loop.call(self._queues.stop)

    def stop_on_signals(self) -> None:
        """As ``mtaq.client.Queues.stop_on_signals``; in the main thread."""
        usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(_number: int, _frame: object) -> None:
            for number, handler in usual.items():
                signal.signal(number, handler)
            self.stop()

        for number in usual:
            signal.signal(number, stop)


@contextlib.contextmanager
def connect(address: str, *, timeout_s: float = 30.0, verify: bool = True) -> Iterator[Queues]:
    """As ``mtaq.client.connect``, for a plain ``with``."""
    loop = _Loop()
    connecting = async_queues.connect(address, timeout_s=timeout_s, verify=verify)
    try:
        queues = loop.run(connecting.__aenter__())
        try:
            yield Queues(loop, queues)
        finally:
            loop.run(connecting.__aexit__(None, None, None))
    finally:
        loop.close()
