"""Whose question may be in flight? At most ``dns-capacity`` at a time, and the silent ones do not keep the others out.

Each sending of a question takes a turn. Whoever has to wait for one cuts short the turn that is held longest, to half
a second: enough for nearly every answer, and a question whose turn was cut short waits for its next, behind all that
have not been sent yet. So names that are never answered, however many, delay others by half a second at most while
fewer than twice the capacity come in a second; and without others waiting nothing is cut short.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mtaq.telemetry.metrics import gauge

#: How long a turn lasts at least. Nearly all answers come sooner, and for a late one the repeat finds it with the
#: name server, which went on looking.
PATIENCE_S = 0.5

IN_FLIGHT = gauge("mtaq_dns_in_flight", "Questions that a name server has been sent and has not answered.")


class Turns:
    """A bound on the questions in flight.

    Args:
        capacity: Turns at a time.
        patience_s: What is left of a turn when others wait.
    """

    def __init__(self, capacity: int, *, patience_s: float) -> None:
        self._free = capacity
        self._patience_s = patience_s
        self._numbers = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap; those who gave up stay in it
        self._wanted = 0
        self._uncut: dict[asyncio.Timeout, float] = {}  # the oldest first; when it began

    @asynccontextmanager
    async def turn(self, attempt: int, timeout_s: float) -> AsyncIterator[None]:
        """
        Wait for a turn, those of a lower *attempt* first, and hold it for *timeout_s*, or shorter when others wait.

        Raises:
            TimeoutError: The turn is over.
        """
        await self._take(attempt)
        try:
            async with asyncio.timeout(min(timeout_s, self._patience_s) if self._wanted else timeout_s) as timer:
                if not self._wanted:
                    self._uncut[timer] = asyncio.get_running_loop().time()
                try:
                    yield
                finally:
                    self._uncut.pop(timer, None)
        finally:
            self._give_back()

    async def _take(self, attempt: int) -> None:
        if self._free:
            self._free -= 1
            IN_FLIGHT.inc()
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (attempt, next(self._numbers), future))
        self._wanted += 1
        self._cut_short()
        try:
            await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._wanted -= 1
            else:  # the turn had just come
                self._give_back()
            raise

    def _cut_short(self) -> None:
        """End the turn held longest when it has lasted long enough, or as soon as it has."""
        while self._uncut:
            timer = next(iter(self._uncut))
            began = self._uncut.pop(timer)
            if not timer.expired():
                until = began + self._patience_s
                timer.reschedule(until if (ends := timer.when()) is None else min(until, ends))
                return

    def _give_back(self) -> None:
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                self._wanted -= 1
                future.set_result(None)
                return
        self._free += 1
        IN_FLIGHT.dec()
