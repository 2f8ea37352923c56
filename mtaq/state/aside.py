"""Blocking work beside the event loop, with a bound.

A thread of its own for each piece of work, and one that the end of the process does not wait for: a database whose disk
hangs may never answer, and the executors of the library would keep the process alive until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def begin_aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Start *work* in a thread; the future tells how it ended. Cancelling the future does not stop the work."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # it may be that nobody asks

    def tell(said: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody wants to know
            loop.call_soon_threadsafe(lambda: None if future.done() else said())

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # whatever it is belongs to whoever waits
            failure = error
            tell(lambda: future.set_exception(failure))
        else:
            tell(lambda: future.set_result(result))

    threading.Thread(target=run, name="state", daemon=True).start()
    return future


async def aside(work: Callable[[], T], *, timeout_s: float) -> T:
    """Do *work* in a thread and return what it returns.

    Raises:
        TimeoutError: It did not end in time. It goes on, and how it ends is not told.
    """
    future = begin_aside(work)
    await asyncio.wait([future], timeout=timeout_s)
    if not future.done():
        raise TimeoutError
    return future.result()
