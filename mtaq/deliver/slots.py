"""Who gets the next connection slot? In the order of asking, when the instance has none left for a while.

The slots are shared with other processes, so while somebody waits here they are looked for again and again; a slot
that this process gives back is not kept for it either, or who has all of them would keep all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mtaq.deliver.ports import Slots
from mtaq.telemetry.metrics import gauge

#: How often a full instance is asked for a free slot.
RETRY_S = 0.05
#: That it is full is told this often at most.
TELL_S = 60.0

WAITING = gauge("mtaq_delivery_slots_wanted", "Connections to mail hosts that wait for others of the instance to end.")


class SlotQueue:
    """Those who wait for a slot, in one event loop.

    Args:
        make_room: Called while somebody waits: a connection that does nothing shall be closed.
        tell: Called when somebody begins to wait, now and then.
    """

    def __init__(self, slots: Slots, *, make_room: Callable[[], None], tell: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots = slots
        self._make_room = make_room
        self._tell = tell
        self._told_at = float("-inf")
        self._waiting: deque[asyncio.Future[int | None]] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def is_waited_for(self) -> bool:
        """Does anybody wait?"""
        return bool(self._waiting)

    async def take(self) -> int | None:
        """Return a slot once there is one; ``None`` when stopped. Whoever is cancelled holds none."""
        slot = None if self._stopped or self._waiting else self._slots.take()
        if slot is not None or self._stopped:
            return slot
        waiter: asyncio.Future[int | None] = self._loop.create_future()
        self._waiting.append(waiter)
        self._begin_to_wait()
        WAITING.inc()
        try:
            return await waiter
        except asyncio.CancelledError:
            self._forget(waiter)
            raise
        finally:
            WAITING.dec()

    def release(self, slot: int) -> None:
        """Give a slot back, once what has been closed until now is really closed."""
        self._loop.call_soon(self._slots.release, slot)

    def stop(self) -> None:
        """Nobody waits any more, and nobody gets one."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _begin_to_wait(self) -> None:
        self._make_room()
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._look)
        if self._loop.time() - self._told_at >= TELL_S:
            self._told_at = self._loop.time()
            self._tell()

    def _look(self) -> None:
        self._retry = None
        while self._waiting:
            if not self._waiting[0].done():
                slot = self._slots.take()
                if slot is None:
                    self._make_room()
                    self._retry = self._loop.call_later(RETRY_S, self._look)
                    return
                self._waiting[0].set_result(slot)
            self._waiting.popleft()

    def _forget(self, waiter: asyncio.Future[int | None]) -> None:
        """Leave the queue; a slot that was granted in the same moment goes back."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
        elif not waiter.cancelled() and (slot := waiter.result()) is not None:
            self._slots.release(slot)
