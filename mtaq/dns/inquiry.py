"""The questions of one check: until when, and how many at a time?

A check of hostile mail asks what its sender likes. It gets its answers within its time or none, and never has more
than a few questions among those of everybody else. A question has half of the time that is left, so that after silence
there is time to ask for something else. How many it may ask altogether is ``mailauth.asking``'s to count.
"""

from __future__ import annotations

import asyncio

from mtaq.model.dns import Ask, DnsAnswer, Found, Question

#: Questions of one check at a time: as many as there are signatures, so that the keys of those who signed in somebody
#: else's name are found missing even while all the others are silent.
AT_ONCE = 8


class Inquiry:
    """Bounds *ask*; its own ``ask`` is what the check is given.

    Args:
        timeout_s: For all questions together, from now on.
    """

    def __init__(self, ask: Ask, *, timeout_s: float, at_once: int = AT_ONCE) -> None:
        self._ask = ask
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._slots = asyncio.Semaphore(at_once)

    async def ask(self, question: Question) -> DnsAnswer:
        """Return the answer to *question*, or ``FAILED`` when the time is over."""
        left_s = max(0.0, self._deadline - asyncio.get_running_loop().time())
        try:
            async with asyncio.timeout_at(self._deadline - left_s / 2), self._slots:
                return await self._ask(question)
        except TimeoutError:
            return DnsAnswer(Found.FAILED, reason="no answer in time")
