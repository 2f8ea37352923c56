"""Work that would block the event loop, in threads that may be given up on.

A thread cannot be stopped. One that is given up on keeps its place until it ends, so code that hangs uses up its own
kind's places and nothing else; and it is a daemon, so it does not keep a worker from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mtaq.hooks.ports import HookFailure

T = TypeVar("T")


class Threads:
    """At most so many threads at once; one object per worker and kind of work."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    async def run(self, function: Callable[[], T], *, on_cancel: Callable[[], None] | None = None) -> T:
        """Return what *function* returns, or raise what it raises; *on_cancel* is called when nobody waits for it."""
        await self._places.acquire()
        try:
            future = _start(function)
        except BaseException:  # no thread was started, so nothing else gives the place back
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        try:
            return await finished(future)
        except asyncio.CancelledError:
            if on_cancel is not None:
                on_cancel()
            raise


async def finished(future: asyncio.Future[T]) -> T:
    """Wait for *future*, which goes on when the wait is cancelled; its late failure is nobody's concern then."""
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(future)


def _start(function: Callable[[], T]) -> asyncio.Future[T]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        outcome: Any
        settle: Callable[[Any], None] = future.set_result
        try:
            outcome = function()
        except BaseException as error:  # also sys.exit(): it ends this thread's work, and is no answer
            outcome, settle = harmless_error(error), future.set_exception
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has ended
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, name="mtaq-hook", daemon=True).start()
    return future


async def guarded(work: Awaitable[T]) -> T:
    """Await *work* in a task of its own, which is cancelled but not waited for when the caller is."""

    async def inner() -> T:
        try:
            return await work
        except (SystemExit, KeyboardInterrupt) as error:
            raise harmless_error(error) from error

    task = asyncio.get_running_loop().create_task(inner())
    try:
        return await finished(task)
    except asyncio.CancelledError:
        task.cancel()
        raise


def harmless_error(error: BaseException) -> Exception:
    """Return an exception that stops nothing but this call: ``SystemExit`` and its like would end the worker."""
    ends_more: tuple[type[Any], ...] = (StopIteration, asyncio.CancelledError)
    if isinstance(error, Exception) and not isinstance(error, ends_more):
        return error
    return HookFailure(f"it raised {type(error).__name__}")
