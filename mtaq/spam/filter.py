"""Is it spam? Asks one filter, within bounds, and never fails.

A filter that is silent, away or talks nonsense is ``temperror``, and somebody is told. Content larger than the filter
is shown is ``none``. Only so many messages are with it at once, large ones fewer; who waits for a turn does so within
the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.spam.ports import Engine

#: Less than what all checks of a message have together, so that the reason is the filter's.
TIMEOUT_S = 18.0
AT_ONCE = 32
LARGE_BYTES = 512 * 1024
LARGE_AT_ONCE = 2


class SpamFilter:
    """One filter, asked by all sessions of a process."""

    def __init__(
        self, engine: Engine, *, on_unavailable: Callable[[str, str], None], timeout_s: float = TIMEOUT_S
    ) -> None:
        """
        Ask *engine*.

        Args:
            on_unavailable: Told the engine and the reason each time it did not answer.
            timeout_s: Longest wait, for a turn and for the answer.
        """
        self._engine = engine
        self._on_unavailable = on_unavailable
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(AT_ONCE)
        self._large_room = asyncio.Semaphore(LARGE_AT_ONCE)

    async def judge(self, content: bytes, origin: Origin) -> SpamResult:
        """Return what the filter says of *content*. Never raises."""
        name = self._engine.name
        if len(content) > self._engine.max_bytes:
            return SpamResult("none", name, reason=f"larger than {self._engine.max_bytes} bytes")
        room = self._large_room if len(content) > LARGE_BYTES else self._room
        try:
            async with asyncio.timeout(self._timeout_s) as limit, room:
                return await self._engine.judge(content, origin, timeout_s=self._timeout_s)
        except OSError as error:
            silent = isinstance(error, TimeoutError) and (limit.expired() or not str(error))
            reason = "no answer in time" if silent else str(error)
        except Exception as error:  # a bug in asking must not cost a message; its text may quote the content
            reason = f"a bug: {type(error).__name__}"
        self._on_unavailable(name, reason)
        return SpamResult("temperror", name, reason="the filter did not answer")
