"""The content that one session holds in memory, as the budget of the process knows it (``smtp-memory``)."""

from __future__ import annotations

from mtaq.limits.memory import Lease, MemoryBudget

#: How long content waits for room before it is refused for now.
WAIT_S = 10.0


class Holding:
    """One session's part of the budget."""

    __slots__ = ("_budget", "_lease")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._lease: Lease | None = None

    @property
    def size_bytes(self) -> int:
        """What is held."""
        return 0 if self._lease is None else self._lease.held_bytes

    @property
    def must_wait(self) -> bool:
        """Is there no room for content that has not begun?"""
        return self._lease is None and self._budget.is_full

    def reach(self, size_bytes: int) -> bool:
        """Hold *size_bytes* in all, if that is possible without waiting; nothing is given back before the end."""
        if not size_bytes:
            self.release()
            return True
        if self._lease is None:
            self._lease = self._budget.lease()
        return size_bytes <= self._lease.held_bytes or self._lease.try_take(size_bytes - self._lease.held_bytes)

    async def wait(self, size_bytes: int) -> bool:
        """Hold *size_bytes* in all once there is room; false, and nothing is held, when there was none in time."""
        if self.reach(size_bytes):
            return True
        assert self._lease is not None
        if await self._lease.take(size_bytes - self._lease.held_bytes, timeout_s=WAIT_S):
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give everything back."""
        if self._lease is not None:
            self._lease.close()
            self._lease = None
