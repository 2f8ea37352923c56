"""Who may stay while DNS, or a policy's server, is slow about a domain? A few; the others wait in the delay queues.

A domain whose name servers are silent costs a look-up its whole time, and everything for that domain waits for it. Here
it is seen to that this is not everything that delivery has in its hands: once a look-up is slow, a few messages of that
domain go on waiting for it, of all such domains together a part of the prefetch, and the rest comes again later.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mtaq.deliver.parking import NotYet, Parked

T = TypeVar("T")

#: An honest answer is there by then, though a datagram was lost (``dns-interval``).
SLOW_S = 3.5
#: Messages of one domain that stay: enough to tell what became of it.
FEW = 20
#: Part of the hands that all slow domains have together.
SHARE = 4
#: The first wait elsewhere, doubled each time, and the longest.
AWAY_S = 15.0
LONGEST_AWAY_S = 300.0


class LookUps:
    """Look-ups under way about domains, in one process.

    Args:
        hands: Messages in hand at most.
    """

    def __init__(self, *, hands: int, rng: random.Random) -> None:
        self._most = max(FEW, hands // SHARE)
        self._rng = rng
        self._staying: dict[str, int] = {}
        self._all = 0

    async def wait(self, domain: str, look_up: Callable[[], Awaitable[T]], parked: Parked | None = None) -> T:
        """
        Return what *look_up* finds out about *domain*. It may be begun twice, and should then join its first self.

        Args:
            parked: What the message remembers of having waited.

        Raises:
            NotYet: It is slow, and enough messages wait for it already.
        """
        if domain not in self._staying:  # nothing slow is known of it
            try:
                async with asyncio.timeout(SLOW_S) as patience:
                    return await look_up()
            except TimeoutError:
                if not patience.expired():
                    raise
        staying = self._staying.get(domain, 0)
        if staying >= FEW or self._all >= self._most:
            raise self._away(domain, parked)
        self._staying[domain] = staying + 1
        self._all += 1
        try:
            return await look_up()
        finally:
            self._all -= 1
            self._staying[domain] -= 1
            if not self._staying[domain]:
                del self._staying[domain]

    def _away(self, domain: str, parked: Parked | None) -> NotYet:
        times = 0 if parked is None else parked.times
        wait_s = min(LONGEST_AWAY_S, AWAY_S * 2.0 ** min(times, 10)) * self._rng.uniform(0.5, 1.0)
        return NotYet(wait_s, "full", site=domain)
