"""The content that one session holds in memory, as the budget of the process knows it (``smtp-memory``).

Content begins when there is room for the first of it, and goes on as long as there is room for what has come. What
finds none in time is refused for now, at its end at the latest; the session is not read while it waits.
"""

from __future__ import annotations

from mtaq.limits.memory import Lease, MemoryBudget
from mtaq.smtp import codes
from mtaq.smtp.server_session import ServerSession

#: How long content waits for room before it is refused for now.
WAIT_S = 10.0

#: Most that a declared size reserves before content begins, about what one read brings: whoever declares much and
#: sends nothing must not keep others out.
FIRST_BYTES = 256 * 1024


class Holding:
    """One session's part of the budget."""

    __slots__ = ("_budget", "_lease")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._lease: Lease | None = None

    def must_wait(self, smtp: ServerSession) -> bool:
        """Is content next, and is there no room for it?"""
        transaction = smtp.transaction
        if transaction is None or not transaction.forward_paths or transaction.refusal or smtp.in_content:
            return False
        return self._lease is None and self._budget.is_full

    async def begin(self, smtp: ServerSession) -> None:
        """Let content begin once there is room, or have it refused."""
        transaction = smtp.transaction
        assert transaction is not None
        if not await self.wait(min(transaction.size_bytes or 1, FIRST_BYTES)):
            transaction.refusal = codes.NO_MEMORY

    def follow(self, smtp: ServerSession) -> bool:
        """Hold what the session holds now; is there room for it?"""
        held_bytes = smtp.content_bytes
        if held_bytes:
            return self.reach(held_bytes)
        # Without content there is at most what was reserved for it; more is left of content too large to be kept.
        if self._lease is not None and (smtp.transaction is None or self._lease.held_bytes > FIRST_BYTES):
            self.release()
        return True

    async def go_on(self, smtp: ServerSession) -> None:
        """Let content go on once there is room for it, or forget it and refuse it at its end."""
        if not await self.wait(smtp.content_bytes):
            smtp.abandon_content(codes.NO_MEMORY)

    def reach(self, size_bytes: int) -> bool:
        """Hold *size_bytes* in all, if that is possible without waiting; nothing is given back before the end."""
        if self._lease is None:
            if not size_bytes:
                return True
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
