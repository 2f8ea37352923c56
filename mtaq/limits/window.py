"""How many in the last so many seconds? A sliding window, kept as counts of equal parts of it.

The window moves on by a part at a time and holds one part more than its length, so no window of that length, wherever
it begins, holds more than what is counted here. What is counted may be older by a part, 1/12 of the window. A client
may use its whole allowance at once, and has it again when it is over; evenly spread it loses 1/13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

#: Counts kept: twelve whole parts and the one that is not over yet.
PARTS = 13

MOST = 2**32 - 1


class Window(NamedTuple):
    """Counts up to some moment.

    Attributes:
        part: Number of the newest part: time divided by the length of a part.
        counts: The newest first, ``PARTS`` of them.
    """

    part: int
    counts: Sequence[int]

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def at(self, part: int) -> Window:
        """Return the window as it is in *part*. Time that went back stands still."""
        passed = min(part - self.part, PARTS)
        if passed <= 0:
            return self
        return Window(part, (*(0,) * passed, *self.counts[: PARTS - passed]))

    def with_more(self, count: int = 1) -> Window:
        """Return the window with *count* more, now."""
        newest, *others = self.counts
        return Window(self.part, (min(newest + count, MOST), *others))

    def parts_until_room(self, limit: int, count: int = 1) -> int:
        """Return after how many parts there is room for *count* more under *limit* (≥ 1), if none is added; 0: now.

        More than the limit itself have room when nothing else is there.
        """
        left = self.total + min(count, limit)
        for passed in range(PARTS):
            if left <= limit:
                return passed
            left -= self.counts[PARTS - 1 - passed]
        return PARTS


EMPTY = Window(0, (0,) * PARTS)
