"""Many small writes, one sync: a thread that carries out whatever has come together as one transaction.

Decides when a batch begins and ends, who is told, and what happens while the disk refuses; what an operation is and
how it is written is the ``Store``'s. There is no waiting for company: while one batch is being synced the next gathers,
so a lone write costs one sync and fifty at once cost one as well.

An operation is either waited for (``submit``) or owed (``post``). When a batch fails, who waits gets
``BrokerUnavailable`` and what is owed is kept; the store is closed, and opened and tried anew every half second
until it works again.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from mtaq.model.errors import BrokerUnavailable, ConfigError
from mtaq.model.parcel import BrokerState

Op = TypeVar("Op")
Result = TypeVar("Result")
_OpIn = TypeVar("_OpIn", contravariant=True)
_ResultOut = TypeVar("_ResultOut", covariant=True)

_RETRY_S = 0.5
_CLOSE_S = 15.0

#: Told, in the event loop, of each change of state and its reason (empty when it is UP again).
OnState = Callable[[BrokerState, str], None]


class Store(Protocol[_OpIn, _ResultOut]):
    """What is written to. Every method runs in the one thread, and may raise anything: then ``close`` follows."""

    @property
    def patience_s(self) -> float:
        """Longest time without an operation until ``idle`` is called."""

    def open(self) -> None:
        """Make ready, and prove by a write that writing works."""

    def carry_out(self, operations: Sequence[_OpIn]) -> Sequence[_ResultOut | Exception]:
        """Do all of it in one synced transaction, and return one result each; an exception fails that one alone."""

    def idle(self) -> None:
        """Nothing came for ``patience_s``."""

    def close(self) -> None:
        """Something failed, ``open`` included: let go of the file; ``open`` will be called again."""

    def end(self) -> None:
        """Close for good."""


class _Item(NamedTuple, Generic[Op, Result]):
    op: Op
    future: asyncio.Future[Result] | None  # None: owed
    size_bytes: int


class GroupCommit(Generic[Op, Result]):
    """The thread of one store, driven from one event loop."""

    def __init__(
        self,
        store: Store[Op, Result],
        *,
        name: str,
        on_state: OnState | None = None,
        max_operations: int = 1000,
        max_bytes: int = 16 << 20,
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            store: What is written to.
            name: For the thread and for error messages.
            on_state: Told of changes of state.
            max_operations: Most operations in one transaction.
            max_bytes: Size at which a transaction takes no more.
        """
        self._store = store
        self._name = name
        self._on_state = on_state
        self._max_operations = max_operations
        self._max_bytes = max_bytes
        self._inbox: queue.SimpleQueue[_Item[Op, Result] | None] = queue.SimpleQueue()
        self._owed: list[Op] = []
        self._state = BrokerState.DOWN
        self._retry_at = 0.0
        self._accepting = False
        self._stopping = False

    @property
    def state(self) -> BrokerState:
        """UP; or DOWN before the start, after the end, and while writing fails."""
        return self._state

    async def start(self) -> None:
        """Open the store.

        Raises:
            ConfigError: As the store says.
            BrokerUnavailable: It cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        await self._opened
        self._accepting = True

    def submit(self, op: Op, *, size_bytes: int = 0) -> asyncio.Future[Result]:
        """Have *op* carried out; the future is done when it is on the disk.

        Cancelling the future takes the operation back, if it was not begun.

        Raises:
            BrokerUnavailable: Not started, or closed; by the future: writing fails.
        """
        if not self._accepting:
            raise BrokerUnavailable(f"{self._name} is not open")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._inbox.put(_Item(op, future, size_bytes))
        return future

    async def ask(self, op: Op, *, timeout_s: float, size_bytes: int = 0) -> Result:
        """``submit``, and wait for the result, *timeout_s* at most.

        Raises:
            BrokerUnavailable: As for ``submit``, or too slow: then it may be carried out nevertheless.
        """
        future = self.submit(op, size_bytes=size_bytes)
        slow = BrokerUnavailable(f"{self._name}: nothing was written within {timeout_s:g} s")
        timer = self._loop.call_later(timeout_s, _settle, [(future, slow)])
        try:
            return await future
        finally:
            timer.cancel()

    def post(self, op: Op) -> None:
        """Have *op* carried out some time, in order, without waiting; it survives everything but the process's end."""
        self._inbox.put(_Item(op, None, 0))

    async def close(self) -> None:
        """Carry out what was handed in so far, then close the store; gives up after 15 s."""
        if not self._accepting:
            return
        self._accepting = False
        self._inbox.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._ended

    # The thread.

    def _run(self) -> None:
        try:
            self._store.open()
        except Exception as error:
            self._store.end()
            self._call_soon(_settle, [(self._opened, self._failure(error))])
            return
        self._state = BrokerState.UP
        self._call_soon(_settle, [(self._opened, None)])
        while not self._stopping:
            self._carry_out(self._collect())
        self._store.end()
        self._state = BrokerState.DOWN
        self._call_soon(_settle, [(self._ended, None)])

    def _collect(self) -> list[_Item[Op, Result]]:
        """Wait for work, and take all there is, up to the bounds."""
        batch: list[_Item[Op, Result]] = []
        size_bytes = 0
        patience_s = self._store.patience_s if self._state is BrokerState.UP else _RETRY_S
        with contextlib.suppress(queue.Empty):
            item = self._inbox.get(timeout=patience_s) if patience_s else self._inbox.get_nowait()
            while item is not None:
                batch.append(item)
                size_bytes += item.size_bytes
                if len(batch) >= self._max_operations or size_bytes >= self._max_bytes:
                    return batch
                item = self._inbox.get_nowait()
            self._stopping = True
        return batch

    def _carry_out(self, batch: list[_Item[Op, Result]]) -> None:
        waiting = [item for item in batch if item.future is not None and not item.future.done()]
        self._owed += [item.op for item in batch if item.future is None]
        try:
            results = self._write([*self._owed, *(item.op for item in waiting)])
        # The top of a worker: whatever went wrong, nothing counts as stored, and the thread lives on.
        except Exception as error:
            self._call_soon(_settle, [(item.future, self._failure(error)) for item in waiting])
            return
        done = results[len(self._owed) :]
        self._owed = []
        if waiting:
            self._call_soon(_settle, [(item.future, result) for item, result in zip(waiting, done, strict=True)])

    def _write(self, operations: Sequence[Op]) -> Sequence[Result | Exception]:
        if self._state is BrokerState.DOWN and time.monotonic() < self._retry_at:
            raise BrokerUnavailable("writing failed a moment ago")
        try:
            results = self._drive_store(operations)
        except Exception as error:
            self._store.close()
            self._retry_at = time.monotonic() + _RETRY_S
            self._change_state(BrokerState.DOWN, f"{type(error).__name__}: {error}")
            raise
        self._change_state(BrokerState.UP, "")
        return results

    def _drive_store(self, operations: Sequence[Op]) -> Sequence[Result | Exception]:
        if self._state is BrokerState.DOWN:
            self._store.open()
        if operations:
            return self._store.carry_out(operations)
        self._store.idle()
        return ()

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, ConfigError):
            return error
        failure = BrokerUnavailable(f"{self._name}: {error}")
        failure.__cause__ = error
        return failure

    def _change_state(self, state: BrokerState, reason: str) -> None:
        if state is not self._state:
            self._state = state
            if self._on_state is not None:
                self._call_soon(self._on_state, state, reason)

    def _call_soon(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            self._loop.call_soon_threadsafe(function, *args)


def _settle(outcomes: Sequence[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in outcomes:
        if future.done():  # its waiter gave up meanwhile
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
