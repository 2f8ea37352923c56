"""How much content may be held at once? A budget in bytes that transactions draw on, in the order in which they began.

A transaction opens a lease when its content begins, draws on it as content arrives, and closes it when the content is
stored or given up. Who would exceed the budget waits, and later transactions behind it, however little they need. The
oldest lease never waits: else transactions that all hold a part and want more would wait for each other for ever, and
one that is larger than the budget for nothing. So the budget is exceeded by one message at most.

For one event loop; a budget over several processes is divided among them.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count


class MemoryBudget:
    """*limit_bytes* for all leases together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used = 0
        self._numbers: Iterator[int] = count()
        self._leases: dict[int, Lease] = {}
        self._waiting: list[_Waiter] = []

    @property
    def used_bytes(self) -> int:
        """What all leases hold."""
        return self._used

    @property
    def is_full(self) -> bool:
        """Would a new lease have to wait, however little it wants?"""
        return bool(self._waiting) or (self._used >= self.limit_bytes and bool(self._leases))

    @property
    def waiting(self) -> int:
        """How many leases wait for more."""
        return len(self._waiting)

    def lease(self) -> Lease:
        """Open a lease; it holds nothing yet, and must be closed."""
        number = next(self._numbers)
        self._leases[number] = lease = Lease(self, number)
        return lease

    def _grant(self, lease: Lease, size_bytes: int) -> bool:
        is_oldest = next(iter(self._leases)) == lease.number
        if not is_oldest and self._used + size_bytes > self.limit_bytes:
            return False
        self._used += size_bytes
        lease.held_bytes += size_bytes
        return True

    def _try(self, lease: Lease, size_bytes: int) -> bool:
        if self._waiting and self._waiting[0].number < lease.number:
            return False
        return self._grant(lease, size_bytes)

    async def _wait(self, lease: Lease, size_bytes: int, timeout_s: float) -> bool:
        waiter = _Waiter(lease.number, lease, size_bytes, asyncio.get_running_loop().create_future())
        insort(self._waiting, waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.granted
        except TimeoutError:
            return waiter.granted.done() and not waiter.granted.cancelled()
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._wake()  # it may have been too large for what those behind it fit into
        return True

    def _close(self, lease: Lease) -> None:
        if self._leases.pop(lease.number, None) is not None:
            self._used -= lease.held_bytes
            lease.held_bytes = 0
            self._wake()

    def _wake(self) -> None:
        while self._waiting and self._grant(self._waiting[0].lease, self._waiting[0].size_bytes):
            self._waiting.pop(0).granted.set_result(None)


class Lease:
    """What one transaction holds.

    Attributes:
        number: In the order of opening.
        held_bytes: So much.
    """

    def __init__(self, budget: MemoryBudget, number: int) -> None:
        self.number = number
        self.held_bytes = 0
        self._budget = budget

    def try_take(self, size_bytes: int) -> bool:
        """Hold *size_bytes* more, if that is possible without waiting."""
        return self._budget._try(self, size_bytes)

    async def take(self, size_bytes: int, *, timeout_s: float) -> bool:
        """Hold *size_bytes* more, once there is room; false when there was none in time. One call at a time."""
        return self.try_take(size_bytes) or await self._budget._wait(self, size_bytes, timeout_s)

    def close(self) -> None:
        """Give everything back. May be called twice; nobody may be inside ``take`` then."""
        self._budget._close(self)


@dataclass(order=True, eq=True)
class _Waiter:
    number: int
    lease: Lease = field(compare=False)
    size_bytes: int = field(compare=False)
    granted: asyncio.Future[None] = field(compare=False)
